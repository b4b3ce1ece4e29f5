"""Airflow's REST API in an environment of Amazon MWAA, through AWS: no web login, no way to its web server.

boto3 is imported at the first request, and Airflow only with an Airflow connection.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from .task_instances import AirflowApiError
from .transport import Answer, NoAnswer, seconds_of

SCHEME = "mwaa"
MAX_PATH = 64
"""Characters of a path. Source: ``RestApiPath`` in botocore's model of MWAA; botocore does not enforce it."""

_NAME = re.compile(r"[a-zA-Z][0-9a-zA-Z_-]{0,79}")  # source: EnvironmentName in botocore's model
_API = re.compile(r"/api/v[12](?=/)")
_UTC = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+)\+00:00")
_PLAIN_IN_A_PATH = frozenset("!$&'()*+,;=:@")  # RFC 3986, section 3.3: these mean the same escaped and not
_MAX_CONNECT_SECONDS = 10.0
_UNAUTHORIZED, _NOT_FOUND, _SERVER_ERROR = 401, 404, 500
_FORM = "write mwaa://NAME or mwaa://NAME?region=eu-west-1, NAME that of the environment"
_OWN_HOST = re.compile(
    r"airflow(-fips)?\..+"
)  # of AWS, in every partition; a VPC endpoint's begins with vpce-
NAMESPACE_OPTION = "airflow_resilient.namespace"


@dataclass(frozen=True)
class Environment:
    """An environment of Amazon MWAA, and how it is reached.

    :param name: of the environment.
    :param region: default: boto3's.
    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credentials.
    """

    name: str
    region: str | None = None
    aws_conn_id: str | None = None

    def __str__(self) -> str:
        """Its URL, with the region as far as it is known without asking boto3.

        >>> str(Environment("prod", "eu-west-1"))
        'mwaa://prod?region=eu-west-1'
        """
        region = self.region or (None if self.aws_conn_id else os.environ.get("AWS_DEFAULT_REGION"))
        return f"{SCHEME}://{self.name}" + (f"?{urlencode({'region': region})}" if region else "")

    @property
    def role(self) -> str:
        """The ARN that ``airflow:InvokeRestApi`` is allowed on.

        >>> Environment("prod", "eu-west-1").role
        'arn:aws:airflow:eu-west-1:ACCOUNT:role/prod/ROLE'

        Source: "Actions, resources, and condition keys for Amazon Managed Workflows for Apache Airflow" in
        the service authorization reference: the resource type is ``rbac-role``.
        """
        return f"arn:aws:airflow:{self.region or 'REGION'}:ACCOUNT:role/{self.name}/ROLE"

    def filled(self, *, region: str | None, aws_conn_id: str | None) -> Environment:
        """With these, where the URL says nothing."""
        return replace(self, region=self.region or region, aws_conn_id=self.aws_conn_id or aws_conn_id)


def is_mwaa(url: str) -> bool:
    """Whether a URL is that of an environment of Amazon MWAA.

    >>> is_mwaa("mwaa://prod"), is_mwaa("https://mwaa.example.com")
    (True, False)
    """
    return url.partition(":")[0].lower() == SCHEME


def read_url(url: str) -> Environment:
    """The environment that a URL names.

    >>> read_url("mwaa://prod?region=eu-west-1&aws_conn_id=reader")
    Environment(name='prod', region='eu-west-1', aws_conn_id='reader')

    :raises AirflowApiError: it names none. The message does not show user and password.
    """
    shown = f"{SCHEME}://{url.rpartition('@')[2].removeprefix(f'{SCHEME}://')}"
    if "@" in url:
        raise AirflowApiError(
            f"invalid Airflow URL {shown!r}: Amazon MWAA takes AWS's credentials, and neither user nor "
            f"password; {_FORM}"
        )
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    known = set(query) <= {"region", "aws_conn_id"} and all(query.values())
    if not _NAME.fullmatch(parts.netloc) or parts.path.strip("/") or parts.fragment or not known:
        raise AirflowApiError(f"invalid Airflow URL {shown!r}: {_FORM}")
    return Environment(parts.netloc, query.get("region"), query.get("aws_conn_id"))


def path_of(path: str) -> str | None:
    """The ``Path`` of InvokeRestApi for a path of Airflow; ``None`` where it does not reach it.

    What a path may contain as it is is not escaped, so that it does not matter whether AWS escapes it.

    >>> path_of("/api/v2/dags/etl/dagRuns/scheduled__2026-01-01T00%3A00%3A00%2B00%3A00")
    '/dags/etl/dagRuns/scheduled__2026-01-01T00:00:00+00:00'
    >>> path_of("/api/v1/dags/a%2Fb"), path_of("/auth/token")
    ('/dags/a%2Fb', None)
    """
    found = _API.match(path)
    if not found:
        return None
    return re.sub("%[0-9A-F]{2}", _unescaped, path[found.end() :])


def _unescaped(found: re.Match[str]) -> str:
    character = unquote(found[0])
    return character if character in _PLAIN_IN_A_PATH else found[0]


def query_of(query: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The ``QueryParameters`` of InvokeRestApi: a JSON object, whose values are texts.

    AWS does not say how it sends a list, so none is sent. Times in UTC end with ``Z``, because a ``+`` that
    somebody does not escape is a blank.

    >>> query_of([("limit", "100"), ("updated_at_gte", "2026-01-01T00:00:00.5+00:00")])
    {'limit': '100', 'updated_at_gte': '2026-01-01T00:00:00.5Z'}

    :raises AirflowApiError: a key is there twice.
    """
    found = {name: _UTC.sub(r"\1Z", value) for name, value in query}
    if len(found) < len(query):
        raise AirflowApiError(f"Amazon MWAA takes one value for each of {', '.join(found)}")
    return found


class MwaaTransport:
    """Sends requests through ``InvokeRestApi`` of Amazon MWAA, which chooses v1 or v2 of the API.

    An answer takes at most 10 seconds, and has at most 6 MB; a longer one is an error of AWS's.

    :param environment: see `read_url`.
    :param verify: whether, or with which CA bundle, AWS's certificate is verified.
    :param timeout: seconds for one response.

    Source: "Using the Apache Airflow REST API" in the Amazon MWAA user guide; ``InvokeRestApi`` in botocore's
    model.
    """

    one_value_each = True
    routes = True

    def __init__(self, environment: Environment, *, verify: bool | str = True, timeout: float = 60.0) -> None:
        self.environment, self._verify, self._timeout = environment, verify, timeout
        self._client: Any = None

    def send(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        body: Mapping[str, Any] | None = None,
    ) -> Answer:
        """See `Transport.send`."""
        path, _, more = path.partition("?")
        query = [*query, *parse_qsl(more, keep_blank_values=True)]
        below = path_of(path)
        if below is None:
            return Answer(_NOT_FOUND, None, "Amazon MWAA passes on /api/v1 and /api/v2 only")
        request: dict[str, Any] = {"Path": below, "Method": method}
        if query:
            request["QueryParameters"] = query_of(query)
        if body is not None:
            request["Body"] = dict(body)
        answer = self._call("invoke_rest_api", request)
        if not isinstance(answer, Answer):
            answer = _answer(answer)
        if answer.status == _NOT_FOUND and "%" in below:
            # Were it escaped twice, Airflow would look for another name: that proves nothing.
            raise AirflowApiError(
                f"{self.environment} has no {below}, or Amazon MWAA does not pass on the characters that are "
                "escaped in it"
            )
        return answer

    def version(self) -> str:
        """See `Transport.version`: from ``GetEnvironment``."""
        return str(self._describe().get("AirflowVersion") or "")

    def namespace(self) -> str:
        """The ``airflow_resilient.namespace`` among the configuration options of the environment.

        :raises AirflowApiError: it has none, or cannot be read.
        """
        problem = "it is not among its configuration options"
        try:
            options = self._describe().get("AirflowConfigurationOptions") or {}
            if found := str(options.get(NAMESPACE_OPTION) or ""):
                return found
        except (AirflowApiError, NoAnswer) as error:
            problem = str(error)
        raise AirflowApiError(
            f"the namespace of the claims of {self.environment} is not known ({problem}): pass --namespace, "
            f"or set the configuration option {NAMESPACE_OPTION} of the environment"
        )

    def close(self) -> None:
        """See `Transport.close`."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _describe(self) -> Mapping[str, Any]:
        found = self._call("get_environment", {})
        if isinstance(found, Answer):
            why = found.body["detail"]
            raise refused(f"{self.environment} cannot be described ({why}): allow airflow:GetEnvironment")
        environment = found.get("Environment")
        return environment if isinstance(environment, Mapping) else {}

    def _call(self, operation: str, request: Mapping[str, Any]) -> Mapping[str, Any] | Answer:
        """What AWS answers; an `Answer` in place of an error of Airflow's, or of a refused login."""
        try:
            call = getattr(self._open(), operation, None)
            if call is None:
                raise AirflowApiError("this boto3 does not know InvokeRestApi: install boto3>=1.37")
            response: Mapping[str, Any] = call(Name=self.environment.name, **request)
        except AirflowApiError:
            raise
        except Exception as error:  # noqa: BLE001 - sorted out by answer_to
            answer = answer_to(error, self.environment, str(request.get("Path") or ""))
            if answer.status == _UNAUTHORIZED:
                self.close()  # the next request reads the credentials again
            return answer
        return response

    def _open(self) -> Any:
        if self._client is None:
            self._client = self._make()
        return self._client

    def _make(self) -> Any:
        config: dict[str, Any] = {
            "connect_timeout": min(self._timeout, _MAX_CONNECT_SECONDS),
            "read_timeout": self._timeout,
        }
        client = self._client_with(config)
        if not _OWN_HOST.fullmatch(urlsplit(client.meta.endpoint_url).hostname or ""):
            # An endpoint that somebody has configured is a whole host: no "env." before it.
            client = self._client_with({**config, "inject_host_prefix": False})
        return client

    def _client_with(self, config: dict[str, Any]) -> Any:
        """A client that sends a request once: `AirflowApi` repeats and counts them."""
        at = self.environment
        verify = None if self._verify is True else self._verify  # None: as AWS_CA_BUNDLE says
        if at.aws_conn_id is not None:
            from ..aws.access import AwsAccess

            try:
                return AwsAccess(at.aws_conn_id, at.region, verify, config).client("mwaa", retries=False)
            except Exception as error:
                if _is_boto(error):
                    raise
                raise AirflowApiError(
                    f"cannot use Airflow connection {at.aws_conn_id!r} for {at}: {type(error).__name__}"
                ) from None
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise AirflowApiError(f"boto3 is not installed, which {at} needs: pip install boto3") from None
        once = Config(**config, retries={"total_max_attempts": 1})
        return boto3.Session(region_name=at.region).client("mwaa", config=once, verify=verify)


def answer_to(error: Exception, environment: Environment, path: str = "") -> Answer:
    """What an error of AWS means for a request.

    :param path: that was asked for.
    :return: the error of Airflow that it contains, or 401 for credentials that AWS does not accept.
    :raises NoAnswer: the same request may be answered later.
    :raises AirflowApiError: it will not, whatever the credentials are.
    """
    from botocore import exceptions

    from ..aws.errors import EXPIRED, error_code, is_denied, is_transient, redacted_text

    code, text = error_code(error), " ".join(redacted_text(error).split())
    if isinstance(error, exceptions.ClientError):
        if code in _OF_AIRFLOW:
            return _answer(error.response, _OF_AIRFLOW[code])
        text = f"{code}: {error.response['Error'].get('Message')}"
    elif "header value" in text:  # and it contains the header: credentials with a line break in them
        raise refused(f"{environment} cannot be asked: a line break is in the credentials of AWS") from None
    login = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
    )
    if is_denied(error) or code in EXPIRED or isinstance(error, login):
        return Answer(_UNAUTHORIZED, {"detail": text}, code)
    if is_transient(error):
        raise NoAnswer(text)
    if not _is_boto(error):
        raise error
    advice = ""
    if isinstance(error, exceptions.NoRegionError):
        advice = f": write {SCHEME}://{environment.name}?region=eu-west-1, or set AWS_DEFAULT_REGION"
    elif code == "ResourceNotFoundException":
        advice = ": is this its name, and its region and account?"
    elif code == "ValidationException" and len(path) > MAX_PATH:
        advice = f": AWS allows {MAX_PATH} characters in a path, and {path} has {len(path)}"
    raise AirflowApiError(f"{environment} cannot be asked ({text}){advice}") from None


def _is_boto(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("botocore", "boto3") or hasattr(error, "response")


_OF_AIRFLOW = {"RestApiClientException": 0, "RestApiServerException": _SERVER_ERROR}
"""Errors that contain one of Airflow's: what it is where AWS does not say so."""


def _answer(found: Mapping[str, Any], unknown: int = 0) -> Answer:
    """The answer of Airflow in one of AWS's, or in an error.

    :param unknown: the status where there is none; 0 is no success.
    """
    body = found.get("RestApiResponse")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except ValueError:
            body = None
    headers = (found.get("ResponseMetadata") or {}).get("HTTPHeaders") or {}
    status = found.get("RestApiStatusCode")
    error = found.get("Error") or {}
    reason = error.get("Code") or ("" if status else "without a status")
    return Answer(int(status or unknown), body, str(reason), seconds_of(headers.get("date")))


def refused(text: str) -> AirflowApiError:
    """The error of a login that is not accepted."""
    error = AirflowApiError(text)
    error.status = _UNAUTHORIZED
    return error


def command(url: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> str:
    """The command of the AWS CLI that sends a request, for the next step of a finding.

    >>> command("mwaa://prod?region=eu-west-1", "DELETE", "/pools/etl")
    'aws mwaa invoke-rest-api --region eu-west-1 --name prod --method DELETE --path /pools/etl'
    """
    at = read_url(url)
    path, _, query = path.partition("?")
    words = ["--method", method, "--path", path_of(f"/api/v2{path}") or path]
    words += ["--query-parameters", json.dumps(dict(parse_qsl(query)))] if query else []
    words += [] if body is None else ["--body", json.dumps(body)]
    return _aws("invoke-rest-api", at, words)


def describe_command(url: str) -> str:
    """The command of the AWS CLI that shows the state of an environment.

    >>> describe_command("mwaa://prod")
    'aws mwaa get-environment --name prod --query Environment.Status'
    """
    return _aws("get-environment", read_url(url), ["--query", "Environment.Status"])


def _aws(operation: str, at: Environment, words: Sequence[str]) -> str:
    region = ["--region", at.region] if at.region else []
    return shlex.join(["aws", "mwaa", operation, *region, "--name", at.name, *words])


_PAUSE = re.compile(r"airflow dags (un)?pause ([\w.-]+)")
_NEW_POOL = re.compile(r"airflow pools set ([\w.-]+|'(?:[^']|'\"'\"')*') (\d+) ''")
_ON_A_HOST = re.compile(r"\bairflow (scheduler|triggerer|dag-processor|celery|db|config|version|dags)\b")


def step_there(step: str, url: str) -> str:
    """A next step, for an environment, whose hosts nobody but AWS reaches.

    >>> step_there("wait", "mwaa://prod")
    'wait'

    Source: the endpoints of DAGs and pools of v1 (2.11) and v2 (3.x) take the same bodies; the log groups
    stand in "Viewing Airflow logs in Amazon CloudWatch" of the Amazon MWAA user guide.
    """

    def pause(found: re.Match[str]) -> str:
        return command(url, "PATCH", f"/dags/{found[2]}?update_mask=is_paused", {"is_paused": not found[1]})

    def make_pool(found: re.Match[str]) -> str:
        return command(url, "POST", "/pools", {"name": shlex.split(found[1])[0], "slots": int(found[2])})

    step = _NEW_POOL.sub(make_pool, _PAUSE.sub(pause, step))
    if not _ON_A_HOST.search(step):
        return step
    name = read_url(url).name
    return (
        f"{step}. That runs inside of Amazon MWAA alone, and AWS starts its processes: "
        f"{describe_command(url)}, and the log groups airflow-{name}-Scheduler, airflow-{name}-DAGProcessing "
        f"and airflow-{name}-Worker, show how they are"
    )
