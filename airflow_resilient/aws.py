"""Access to AWS through Airflow's connections, and which of its errors are worth waiting out.

Imports boto3 and the amazon provider only when a client is made: DAG files that are merely parsed do not pay.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from .budget import Answer, SharedBucket

log = logging.getLogger(__name__)

LOOK_TIMEOUT = 20.0
"""Seconds that a look waits for a connection, and then for each piece of the answer."""
_FORGET_EVERY = 60.0

# Source: botocore's retry handlers (``botocore/retries/standard.py``, ``botocore/data/_retry.json``).
_THROTTLES = frozenset(
    {
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
    }
)
# Source: the same, and the common errors in each API reference.
_TRANSIENT = _THROTTLES | {
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServerException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServerException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}
_EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "InvalidSignatureException",
        "NotAuthorized",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
    }
)
_WELL = 200
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500  # and above: the fault is AWS's, and whether the call was carried out is unknown
_VALUE = re.compile(r"value: .*?, type: (?=<class)", re.DOTALL)


_Kind: TypeAlias = Literal["many", "once", "look"]


def error_code(error: BaseException) -> str:
    """AWS's code of a botocore ``ClientError``, ``""`` for anything else."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""


def is_denied(error: BaseException) -> bool:
    """Whether AWS refuses the caller, whatever it asks for."""
    return error_code(error) in _DENIED


def is_throttle(error: BaseException) -> bool:
    """Whether the call was refused because there were too many."""
    return _is_throttled(getattr(error, "response", None))


def _is_throttled(answer: Any) -> bool:
    if not isinstance(answer, Mapping):
        return False
    told = answer.get("Error") or {}
    status = (answer.get("ResponseMetadata") or {}).get("HTTPStatusCode")
    return (
        told.get("Code") in _THROTTLES
        or status == _TOO_MANY_REQUESTS
        # ECS wraps an EC2 throttle into InvalidParameterException. Source: dagster-io/dagster issue 33439.
        or "Throttling" in str(told.get("Message"))
    )


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed later. Such an error is no news about a job.

    :return: ``True`` for throttling, lost connections, time-outs, 5xx answers and expired credentials (the
        next call is made with a new client).
    """
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code = error_code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return (
            code in _TRANSIENT
            or code in _EXPIRED
            or status >= _SERVER_ERROR
            or is_throttle(error)
            or "Throttling" in str(error)
        )
    return isinstance(
        error,
        (
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.CredentialRetrievalError,
            ConnectionError,
        ),
    )


def say(error: BaseException) -> str:
    """The text of a botocore error without values of parameters, which may be secrets."""
    return _VALUE.sub("value: (hidden), type: ", str(error))


@dataclass
class AwsAccess:
    """Clients of one Airflow connection, made once each; safe to share between threads.

    The parameters are those of the amazon provider's operators.

    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credential chain.
    :param region_name: overrides the connection's region.
    :param verify: whether, or with which CA bundle, certificates are verified.
    :param botocore_config: keywords for ``botocore.config.Config``.
    """

    aws_conn_id: str | None = "aws_default"
    region_name: str | None = None
    verify: bool | str | None = None
    botocore_config: Mapping[str, Any] | None = None
    _trims: dict[str, Callable[[bytes], bytes]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _bucket: SharedBucket | None = field(default=None, init=False, repr=False, compare=False)
    _clients: dict[tuple[str, str | None, _Kind], Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _forgot: float = field(default=float("-inf"), init=False, repr=False, compare=False)

    def address(self) -> dict[str, Any]:
        """The constructor's keywords, as JSON values."""
        config = dict(self.botocore_config) if self.botocore_config else None
        return {
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": config,
        }

    def client(
        self, service: str, *, region_name: str | None = None, retries: bool = True, looking: bool = False
    ) -> Any:
        """The boto3 client of `service`.

        :param region_name: another region than the connection's (CloudWatch logs may live elsewhere).
        :param retries: ``False`` for calls without an idempotency token: botocore must not send them twice.
            Verified: one ``AddJobFlowSteps`` whose answer was a 500 made two steps with botocore's retries
            on.
        :param looking: for the looks of the watch, which paces itself: one attempt, and an answer within
            `LOOK_TIMEOUT`, unless the connection or `botocore_config` says otherwise.
        """
        kind: _Kind = "look" if looking else "many" if retries else "once"
        key = (service, region_name, kind)
        with self._lock:
            clients = self._clients
            if key not in clients:
                clients[key] = self._make(service, region_name or self.region_name, kind)
            return clients[key]

    def forget_clients(self) -> None:
        """Make the next call with new clients, hence with new credentials. Waits for nobody."""
        self._clients = {}

    def is_transient(self, error: BaseException) -> bool:
        """`is_transient`, and drops the clients when their credentials have expired or are of no use.

        A refusal may come from credentials that were changed in the connection meanwhile; but it may as well
        be meant, so clients are dropped for it once a minute at most.
        """
        from botocore import exceptions

        lost = isinstance(
            error,
            (
                exceptions.CredentialRetrievalError,
                exceptions.NoCredentialsError,
                exceptions.PartialCredentialsError,
            ),
        )
        if error_code(error) in _EXPIRED:
            self.forget_clients()
        elif (lost or is_denied(error)) and time.monotonic() - self._forgot > _FORGET_EVERY:
            self._forgot = time.monotonic()
            self.forget_clients()
        return is_transient(error)

    def count_in(self, bucket: SharedBucket) -> None:
        """Count every call of the bucket's operations in `bucket`, those outside of looks, too.

        What botocore tries again by itself is counted each time.
        """
        self._bucket = bucket

    def trim(self, operation: str, trim: Callable[[bytes], bytes]) -> None:
        """Make answers to looks shorter before botocore reads them.

        botocore checks each value against its model, in Python: most of what a look costs.

        :param operation: such as ``ecs:DescribeTasks``.
        :param trim: what to leave of an answer's body; when it cannot make sense of it, the answer stays.
        """
        self._trims[operation] = trim

    def account(self, service: str) -> str:
        """What tells the budget of calls from that of another account or region: connection and region.

        Makes the client, so it may take a while.
        """
        try:
            region = self.client(service, looking=True).meta.region_name
        except Exception as error:  # noqa: BLE001 - the first look meets it again, and knows what it means
            log.debug("the region of %s is not known yet: %s", self.aws_conn_id, error)
            region = self.region_name
        return f"{self.aws_conn_id}/{region}"

    def _make(self, service: str, region_name: str | None, kind: _Kind) -> Any:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
        from botocore.config import Config

        config = Config(**self.botocore_config) if self.botocore_config else None
        hook: Any = AwsBaseHook(
            aws_conn_id=self.aws_conn_id,
            client_type=service,
            region_name=region_name,
            verify=self.verify,
            config=config,
        )
        if kind == "many":
            client = hook.get_conn()
        else:
            once = hook.config.merge(Config(retries={"total_max_attempts": 1}))
            if kind == "look":
                once = Config(connect_timeout=LOOK_TIMEOUT, read_timeout=LOOK_TIMEOUT).merge(once)
            client = hook.get_client_type(region_name=hook.region_name, config=once)
        client.meta.events.register_first("before-send", partial(self._asking, service))
        client.meta.events.register("response-received", partial(self._answered, service))
        if kind == "look":
            for operation, trim in self._trims.items():
                client.meta.events.register(
                    f"before-parse.{operation.replace(':', '.')}", partial(_trim, trim)
                )
        return client

    def _asking(self, service: str, event_name: str, **_: Any) -> None:
        """Wait for a call to be free. botocore calls this before each attempt."""
        if self._bucket is not None and _operation(service, event_name) in self._bucket.budget.operations:
            self._bucket.enter()

    def _answered(self, service: str, event_name: str, parsed_response: Any = None, **_: Any) -> None:
        """Count a call. botocore calls this after each attempt, with no response where there was none."""
        if self._bucket is None or _operation(service, event_name) not in self._bucket.budget.operations:
            return
        answer: Answer = "well"
        if parsed_response is None or parsed_response.get("Error"):
            answer = "throttled" if _is_throttled(parsed_response) else "error"
        self._bucket.heard(answer)


def _trim(trim: Callable[[bytes], bytes], response_dict: dict[str, Any], **_: Any) -> None:
    """Make an answer shorter. botocore calls this before it reads one."""
    try:
        if response_dict["status_code"] == _WELL:
            response_dict["body"] = trim(response_dict["body"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a longer answer is as good
        log.debug("an answer is read as it is: %s", error)


def _operation(service: str, event_name: str) -> str:
    """``emr:ListSteps`` for botocore's event ``before-send.emr.ListSteps``."""
    return f"{service}:{event_name.rpartition('.')[2]}"


def partition_of(region_name: str | None) -> str:
    """The AWS partition of a region: ``aws``, ``aws-cn`` or ``aws-us-gov``.

    >>> partition_of("cn-north-1"), partition_of("us-gov-west-1"), partition_of("eu-west-1")
    ('aws-cn', 'aws-us-gov', 'aws')
    """
    for prefix, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if (region_name or "").startswith(prefix):
            return partition
    return "aws"
