"""Access to AWS through Airflow's connections, and which of its errors are worth waiting out.

Imports boto3 and the amazon provider only when a client is made: DAG files that are merely parsed do not pay.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Source: botocore's retry handler (``botocore/data/_retry.json``) and the common errors in each API
# reference.
_TRANSIENT = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerException",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
    }
)
_SERVER_ERROR = 500  # and above: the fault is AWS's, and whether the call was carried out is unknown
_VALUE = re.compile(r"value: .*?, type: (?=<class)", re.DOTALL)


def error_code(error: BaseException) -> str:
    """AWS's code of a botocore ``ClientError``, ``""`` for anything else."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed later. Such an error is no news about a job.

    :return: ``True`` for throttling, lost connections, time-outs, 5xx answers and expired credentials (the
        next call is made with a new client).
    """
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code = error_code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        # ECS wraps an EC2 throttle into InvalidParameterException. Source: dagster-io/dagster issue 33439.
        return code in _TRANSIENT or code in _EXPIRED or status >= _SERVER_ERROR or "Throttling" in str(error)
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
    _clients: dict[tuple[str, str | None, bool], Any] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def address(self) -> dict[str, Any]:
        """The constructor's keywords, as JSON values."""
        config = dict(self.botocore_config) if self.botocore_config else None
        return {
            "aws_conn_id": self.aws_conn_id,
            "region_name": self.region_name,
            "verify": self.verify,
            "botocore_config": config,
        }

    def client(self, service: str, *, region_name: str | None = None, retries: bool = True) -> Any:
        """The boto3 client of `service`.

        :param region_name: another region than the connection's (CloudWatch logs may live elsewhere).
        :param retries: ``False`` for calls without an idempotency token: botocore must not send them twice.
            Verified: one ``AddJobFlowSteps`` whose answer was a 500 made two steps with botocore's retries
            on.
        """
        key = (service, region_name, retries)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._make(service, region_name or self.region_name, retries=retries)
            return self._clients[key]

    def forget_clients(self) -> None:
        """Make the next call with new clients, hence with new credentials."""
        with self._lock:
            self._clients.clear()

    def is_transient(self, error: BaseException) -> bool:
        """`is_transient`, and drops the clients when their credentials have expired."""
        if error_code(error) in _EXPIRED:
            self.forget_clients()
        return is_transient(error)

    def _make(self, service: str, region_name: str | None, *, retries: bool) -> Any:
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
        if retries:
            return hook.get_conn()
        once = hook.config.merge(Config(retries={"total_max_attempts": 1}))
        return hook.get_client_type(region_name=hook.region_name, config=once)


def partition_of(region_name: str | None) -> str:
    """The AWS partition of a region: ``aws``, ``aws-cn`` or ``aws-us-gov``.

    >>> partition_of("cn-north-1"), partition_of("us-gov-west-1"), partition_of("eu-west-1")
    ('aws-cn', 'aws-us-gov', 'aws')
    """
    for prefix, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if (region_name or "").startswith(prefix):
            return partition
    return "aws"
