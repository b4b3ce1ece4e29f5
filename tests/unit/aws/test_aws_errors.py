"""What an error of AWS means, as tables. Here alone it is decided what a throttle is."""

from __future__ import annotations

import pytest
from botocore import exceptions
from botocore.exceptions import ClientError

from airflow_resilient.aws.access import AwsAccess
from airflow_resilient.aws.errors import (
    error_code,
    is_denied,
    is_throttle,
    is_throttled,
    is_transient,
    lasting_advice,
    was_never_sent,
)
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps


def answer(code=None, message="", status=400):
    return {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}


THROTTLES = [
    *[
        pytest.param(answer(code, "?"), id=code)
        for code in [
            "BandwidthLimitExceeded",
            "EC2ThrottledException",
            "LimitExceededException",
            "PriorRequestNotComplete",
            "ProvisionedThroughputExceededException",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "TransactionInProgressException",
        ]
    ],
    pytest.param(answer("Whatever", status=429), id="too-many-requests-by-its-status"),
    pytest.param(answer(None, status=429), id="the-status-alone"),
    *[
        pytest.param(answer(code, text), id=f"{code}-{number}")
        for code in ("InvalidParameterException", "ClientException", "ServerException")
        for number, text in enumerate(
            [
                "Throttling: Rate exceeded",
                "An error occurred (Throttling) when calling the RunInstances operation",
                "Request limit exceeded.",
                "RequestLimitExceeded",
                "requestlimitexceeded: see the quota of EC2",
                "Rate exceeded",
                "rate exceeded",
            ]
        )
    ],
]
OTHERS = [
    pytest.param(None, id="no-answer"),
    pytest.param("Throttling", id="a-text"),
    pytest.param({}, id="an-empty-answer"),
    pytest.param({"Error": None, "ResponseMetadata": None}, id="an-answer-without-an-error"),
    pytest.param({"ResponseMetadata": {"HTTPStatusCode": 200}, "tasks": []}, id="success"),
    pytest.param(answer("InvalidParameterException", "Cluster is invalid"), id="a-wrong-parameter"),
    pytest.param(answer("InvalidParameterException"), id="a-wrong-parameter-without-a-word"),
    pytest.param({"Error": {"Code": "ClientException"}}, id="a-code-alone"),
    pytest.param(answer("ClientException", "the name throttling-job is taken"), id="a-name-in-small-letters"),
    pytest.param(
        answer("AccessDeniedException", "role/Throttling may not"), id="denied-to-somebody-named-so"
    ),
    pytest.param(answer("ValidationException", "Rate exceeded is no step"), id="another-code-with-the-words"),
    *(
        pytest.param(answer("InvalidParameterException", text), id=f"quoted:{text}")
        for text in (
            "Invalid tag value 'Rate exceeded'",
            'Unknown environment variable "Throttling: x"',
            "Invalid resource arn:aws:ecs:eu-west-1:1:cluster/Throttling: not found",
            "Value 'it's Rate exceeded' at 'tags.1.value' failed to satisfy constraint",
            "The group family:Throttling is not valid",
            "MODE=RequestLimitExceeded is not valid",
        )
    ),
    pytest.param(answer("InternalFailure", status=500), id="a-fault-of-aws"),
    pytest.param(answer("ServiceUnavailable", status=503), id="unavailable"),
    pytest.param(answer("ExpiredTokenException"), id="expired"),
]


@pytest.mark.parametrize("response", THROTTLES)
def test_this_answer_reports_throttling(response):
    assert is_throttled(response)


@pytest.mark.parametrize("response", OTHERS)
def test_this_answer_reports_no_throttling(response):
    assert not is_throttled(response)


@pytest.mark.parametrize("response", THROTTLES)
def test_every_throttle_is_transient_and_recognised_everywhere(response):
    error = ClientError(response, "DescribeTasks")
    assert is_throttle(error)
    assert is_transient(error)
    assert AwsAccess().is_transient(error)
    assert not is_denied(error)
    for service in (EcsTasks(), EmrSteps()):
        assert service.is_throttle(error)
        assert service.is_transient(error)
        assert not service.refuses_scope(error)


@pytest.mark.parametrize(
    ("text", "tag", "throttled"),
    [
        ("Tags can not contain x-Throttling: reserved", "x-Throttling", False),
        ("Throttling: Rate exceeded", "Rate", True),
        ("Throttling: Rate exceeded", "Throttling", True),
        ("Throttling: Rate exceeded", "on", True),
        ("invalid tag [Rate exceeded]", "Rate exceeded", False),
    ],
)
def test_what_aws_quotes_of_the_request_is_no_throttle(text, tag, throttled):
    service = EcsTasks(request={"tags": [{"key": "team", "value": tag}]})
    error = ClientError(answer("ClientException", text), "RunTask")
    assert service.is_transient(error) is throttled
    assert service.is_throttle(error) is throttled


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ClientError(answer("InternalFailure", status=500), "X"), True),
        (ClientError(answer("Whatever", status=503), "X"), True),
        (ClientError(answer("ServerException"), "X"), True),
        (ClientError(answer("RequestTimeout"), "X"), True),
        (ClientError(answer("ExpiredTokenException"), "X"), True),
        (ClientError(answer("UnrecognizedClientException"), "X"), True),
        (ClientError(answer("AccessDeniedException", "role/Throttling may not"), "X"), False),
        (ClientError(answer("InvalidParameterException", "Cluster is invalid"), "X"), False),
        (ClientError(answer("ClusterNotFoundException"), "X"), False),
        (exceptions.EndpointConnectionError(endpoint_url="https://ecs"), True),
        (exceptions.ReadTimeoutError(endpoint_url="https://ecs"), True),
        (exceptions.CredentialRetrievalError(provider="sts", error_msg="?"), True),
        (exceptions.NoCredentialsError(), False),
        (exceptions.ParamValidationError(report="?"), False),
        (ConnectionResetError(), True),
        (ValueError("Throttling"), False),
    ],
    ids=lambda value: None if isinstance(value, bool) else f"{type(value).__name__}-{error_code(value)}",
)
def test_what_may_succeed_later(error, transient):
    assert is_transient(error) is transient
    assert not is_throttle(error)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClientError(answer("SlowDown"), "X"), "SlowDown"),
        (ClientError({}, "X"), ""),
        (ValueError(), ""),
    ],
)
def test_the_code_of_an_error(error, code):
    assert error_code(error) == code


# --- what no wait heals, and what was never sent ---------------------------------------------------

UNTRUSTED = exceptions.SSLError(
    endpoint_url="https://ecs.us-east-1.amazonaws.com",
    error="[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self signed certificate in chain",
)
CUT_SHORT = exceptions.SSLError(endpoint_url="https://x", error="[SSL: UNEXPECTED_EOF_WHILE_READING] EOF")
NO_PROXY = exceptions.ProxyConnectionError(proxy_url="http://proxy:3128", error="refused")


def no_endpoint(region):
    return exceptions.EndpointConnectionError(endpoint_url=f"https://ecs.{region}.amazonaws.com/")


LASTING = [
    pytest.param(UNTRUSTED, 1, "eu-west-1", "set verify", id="a-proxy-that-signs-tls-itself"),
    pytest.param(CUT_SHORT, 9, "eu-west-1", "", id="a-handshake-that-was-cut-short"),
    pytest.param(NO_PROXY, 9, "eu-west-1", "", id="a-proxy-that-is-not-there"),
    pytest.param(no_endpoint("eu-west-1"), 9, "eu-west-1", "", id="no-connection-to-a-region"),
    pytest.param(
        no_endpoint("us-est-1"),
        1,
        "us-est-1",
        "There is no region 'us-est-1' for botocore, but there is 'us-east-1'",
        id="a-region-that-does-not-exist",
    ),
    pytest.param(
        exceptions.EndpointConnectionError(endpoint_url="https://vpce.internal/"),
        9,
        "us-est-1",
        "",
        id="an-endpoint-of-the-users-own",
    ),
    *[
        pytest.param(ClientError(answer(code), "RunTask"), times, "eu-west-1", advice, id=f"{code}-{times}")
        for code in ("UnrecognizedClientException", "InvalidClientTokenId")
        for times, advice in ((1, ""), (2, ""), (3, "does not know the access key"))
    ],
    pytest.param(ClientError(answer("ExpiredTokenException"), "RunTask"), 9, "eu-west-1", "", id="expired"),
    pytest.param(ClientError(answer("Throttling"), "RunTask"), 9, "eu-west-1", "", id="throttled"),
]


@pytest.mark.parametrize(("error", "attempts", "region", "advice"), LASTING)
def test_advice_is_given_where_no_wait_helps(error, attempts, region, advice):
    regions = lambda: (region, ["eu-west-1", "us-east-1"])  # noqa: E731
    given = lasting_advice(error, attempts, "the connection aws_etl", regions)
    assert (advice in given) if advice else (given == "")


def all_errors(base):
    """A class and all classes below it."""
    return {base}.union(*(all_errors(each) for each in base.__subclasses__()))


CONNECTION_ERRORS = {
    # error of botocore: (may pass, certainly not sent)
    exceptions.ConnectionError: (True, False),
    exceptions.EndpointConnectionError: (True, True),
    exceptions.SSLError: (True, False),  # but for certificates that are not trusted, see UNTRUSTED
    exceptions.ConnectionClosedError: (True, False),
    exceptions.ReadTimeoutError: (True, False),
    exceptions.ConnectTimeoutError: (True, True),
    exceptions.ProxyConnectionError: (True, True),
    exceptions.HTTPClientError: (True, False),
    exceptions.CredentialRetrievalError: (True, True),
    exceptions.NoCredentialsError: (False, True),
    exceptions.PartialCredentialsError: (False, False),
    exceptions.ResponseStreamingError: (True, False),
    exceptions.InvalidProxiesConfigError: (False, False),
    exceptions.ProxyConnectionError: (True, True),
}


def of_connections():
    """Every error of botocore that its HTTP layer or its credentials can raise."""
    bases = (exceptions.ConnectionError, exceptions.HTTPClientError, exceptions.CredentialRetrievalError)
    found = set().union(*map(all_errors, bases))
    return {each for each in found if each.__module__ == "botocore.exceptions"}


def test_every_connection_error_of_botocore_stands_in_the_table():
    """A class that a later botocore adds is noticed here: decide whether it passes, and add it."""
    assert of_connections() - set(CONNECTION_ERRORS) == set()


@pytest.mark.parametrize("kind", CONNECTION_ERRORS, ids=lambda kind: kind.__name__)
def test_a_connection_error_is_sorted_by_its_class(kind):
    names = ("error", "endpoint_url", "proxy_url", "provider", "error_msg", "cred_var", "http_session")
    error = kind(**dict.fromkeys(names, "?"))
    assert (is_transient(error), was_never_sent(error)) == CONNECTION_ERRORS[kind]


def test_a_certificate_that_is_not_trusted_ends_the_call_before_anything_is_sent():
    assert (was_never_sent(UNTRUSTED), was_never_sent(CUT_SHORT)) == (True, False)
