"""Errors of AWS that may pass: what is certain about a submission, and how long they are believed to pass."""

from __future__ import annotations

import datetime as dt
import http.server
import ssl
import threading

import pytest
from botocore import exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_resilient.core.decide import GaveUp, Policy
from airflow_resilient.core.job import Claim, Owner
from airflow_resilient.core.reconcile import Memory, Pause, reconcile
from airflow_resilient.core.retry import Runtime
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps
from airflow_resilient.testing import FakeAws

CLAIM = Claim("abcdefghijklmnop", 1)
STEPS = [{"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["true"]}}]
ONCE = {"retries": {"total_max_attempts": 1}}
TWICE = {"retries": {"total_max_attempts": 2}}
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def aws():
    with FakeAws(fake_time=True) as fake:
        fake.make_ecs_cluster("etl")
        fake.make_task_definition("nightly")
        fake.ecs.plan("nightly", seconds=None)
        yield fake


def ecs(config=None, **access):
    request = {"taskDefinition": "nightly", "launchType": "FARGATE"}
    return EcsTasks(
        aws_conn_id=None, cluster="etl", request=request, botocore_config={**ONCE, **(config or {})}, **access
    )


def emr(aws):
    cluster = aws.make_emr_cluster("spark")
    return EmrSteps(aws_conn_id=None, job_flow_id=cluster, steps=STEPS, botocore_config=ONCE)


def submit(service):
    """The error of a submission."""
    with pytest.raises(Exception) as error:  # noqa: PT011 - the table says which
        service.submit(CLAIM)
    return error.value


# --- whether a submission may have taken effect ---------------------------------------------------


@pytest.mark.parametrize("name", ["ecs:RunTask", "emr:AddJobFlowSteps"])
@pytest.mark.parametrize(
    ("fault", "may_have"),
    [
        pytest.param({"code": "ThrottlingException"}, False, id="throttled"),
        pytest.param({"code": "UnrecognizedClientException"}, False, id="unknown-key"),
        pytest.param({}, True, id="error-500"),
        pytest.param({"carried_out": True}, True, id="error-500-although-carried-out"),
        pytest.param({"answer": "drop"}, True, id="no-answer"),
        pytest.param({"answer": "drop", "carried_out": True}, True, id="no-answer-although-carried-out"),
    ],
)
def test_a_submission_without_an_answer_may_have_taken_effect(aws, name, fault, may_have):
    service = ecs() if name.startswith("ecs") else emr(aws)
    aws.fail_next(name, **fault)
    assert service.may_have_submitted(submit(service)) is may_have


def test_an_earlier_attempt_of_botocore_counts_although_the_last_one_was_refused(aws):
    service = ecs(TWICE)
    aws.fail_next("ecs:RunTask", carried_out=True, answer="drop")
    aws.fail_next("ecs:RunTask", "ThrottlingException")
    assert service.may_have_submitted(submit(service))
    assert len(aws.ecs.tasks()) == 1


def test_the_next_submission_is_judged_by_itself(aws):
    service = ecs()
    aws.fail_next("ecs:RunTask")
    submit(service)
    aws.fail_next("ecs:RunTask", "ThrottlingException")
    assert not service.may_have_submitted(submit(service))


def test_a_conflict_of_tokens_says_that_an_earlier_submission_took_effect(aws):
    ecs().submit(CLAIM)
    service = EcsTasks(
        aws_conn_id=None,
        cluster="etl",
        request={"taskDefinition": "nightly", "launchType": "FARGATE", "group": "another"},
        botocore_config=ONCE,
    )
    aws.fail_next("ecs:DescribeTasks", "ThrottlingException", times=None)
    error = submit(service)
    assert (service.is_transient(error), service.may_have_submitted(error)) == (True, True)


def test_a_connection_that_was_never_made_has_submitted_nothing(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    service = ecs()
    error = submit(service)
    assert isinstance(error, exceptions.EndpointConnectionError)
    assert (service.is_transient(error), service.may_have_submitted(error)) == (True, False)
    assert service.lasting(error, 9) == "", "its address is not that of a region"


def test_a_proxy_that_is_not_there_has_submitted_nothing(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    service = ecs({"proxies": {"http": NOBODY, "https": NOBODY}})
    error = submit(service)
    assert isinstance(error, exceptions.ProxyConnectionError)
    assert (service.is_transient(error), service.may_have_submitted(error)) == (True, False)


@pytest.fixture
def untrusted(tmp_path):
    """The URL of a server whose certificate nobody has signed, as that of a proxy that opens TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_certificate_that_nobody_signed_fails_at_once_and_names_verify(aws, monkeypatch, untrusted):
    monkeypatch.setenv("AWS_ENDPOINT_URL", untrusted)
    (verdict, seconds) = until_it_ends(ecs())
    assert isinstance(verdict, GaveUp)
    assert "set verify" in verdict.why
    assert seconds == 0


# --- how long errors are believed to pass ----------------------------------------------------------


def until_it_ends(service, hours=3.0):
    """The verdict of a first try that visits again after each pause, and the seconds that have passed."""
    clock = [1_000_000.0]
    began = clock[0]

    def sleep(seconds):
        clock[0] += seconds

    runtime = Runtime(lambda: clock[0], sleep, lambda: 0.5)
    owner, memory, first = Owner(CLAIM.task_key, 1), Memory(clock[0]), True
    while True:
        memory, verdict = reconcile(service, owner, memory, Policy(), runtime, first_visit=first)
        if not isinstance(verdict, Pause) or clock[0] > began + hours * 3600:
            return verdict, clock[0] - began
        clock[0] += verdict.seconds
        first = False


def test_an_unknown_access_key_gets_two_fresh_clients_and_then_fails(aws):
    aws.fail_next("ecs:*", "UnrecognizedClientException", times=None)
    verdict, seconds = until_it_ends(ecs())
    assert isinstance(verdict, GaveUp)
    assert "AWS does not know the access key: correct the credentials of boto3" in verdict.why
    assert seconds < 60


def test_an_address_where_nobody_listens_is_given_up_after_ten_minutes(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", NOBODY)
    verdict, seconds = until_it_ends(ecs())
    assert isinstance(verdict, GaveUp)
    assert seconds == pytest.approx(600, abs=1)
    assert "EndpointConnectionError" in verdict.why


def test_throttling_is_given_up_after_an_hour(aws):
    aws.fail_next("ecs:*", "ThrottlingException", times=None)
    verdict, seconds = until_it_ends(ecs())
    assert isinstance(verdict, GaveUp)
    assert seconds == pytest.approx(3600, abs=1)


def test_a_region_that_does_not_exist_is_named(aws):
    service = ecs(region_name="us-est-1")
    error = exceptions.EndpointConnectionError(endpoint_url="https://ecs.us-est-1.amazonaws.com/")
    assert "There is no region 'us-est-1'" in service.lasting(error, 1)
    assert "'us-east-1'" in service.lasting(error, 1)
    real = exceptions.EndpointConnectionError(endpoint_url="https://ecs.us-east-1.amazonaws.com/")
    assert ecs(region_name="us-east-1").lasting(real, 9) == ""


def test_a_token_file_that_is_not_there_fails_at_once_and_is_named(aws, monkeypatch, tmp_path):
    """Where a pod's service account is not mounted. Trying again would wait for ever."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/etl")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    service = ecs()
    error = submit(service)
    assert str(tmp_path / "token") in str(error)
    assert (service.is_transient(error), service.may_have_submitted(error)) == (False, False)
