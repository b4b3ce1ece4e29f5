"""boto3 clients of Airflow connections.

Imports boto3 and the amazon provider only when a client is made, so that parsing DAG files stays fast.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .errors import EXPIRED, error_code, is_denied, is_throttled, is_transient, was_never_sent, was_refused

if TYPE_CHECKING:
    from ..watching.budget import Answer, SharedBucket


log = logging.getLogger(__name__)

POLL_TIMEOUT = 20.0
"""Seconds for which a poll waits for a connection, and then for each piece of the answer."""

_MIN_RENEWAL_SECONDS = 60.0  # between two renewals of clients after a refusal

HTTP_OK = 200

_Kind: TypeAlias = Literal["retrying", "single", "polling"]


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
    botocore_config: Mapping[str, Any] | None = field(default=None, repr=False)  # a proxy has a password
    _trims: dict[str, Callable[[bytes], bytes]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _submission: str = field(default="", init=False, repr=False, compare=False)
    _submitted: bool = field(default=False, init=False, repr=False, compare=False)
    _buckets: list[SharedBucket] = field(default_factory=list, init=False, repr=False, compare=False)
    _clients: dict[tuple[str, str | None, _Kind], Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _owner: str | None = field(default=None, init=False, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    _renewed_at: float = field(default=float("-inf"), init=False, repr=False, compare=False)

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
        self, service: str, *, region_name: str | None = None, retries: bool = True, polling: bool = False
    ) -> Any:
        """The boto3 client of `service`.

        :param region_name: another region than the connection's (CloudWatch logs may be elsewhere).
        :param retries: ``False`` for calls without an idempotency token, which botocore must not send twice.
            Verified: one ``AddJobFlowSteps`` whose answer was a 500 made two steps with botocore's retries
            on.
        :param polling: for the polls of the watch, which has its own back-off: one attempt, and an answer
            within `POLL_TIMEOUT`, unless the connection or `botocore_config` sets another time-out.
        """
        kind: _Kind = "polling" if polling else "retrying" if retries else "single"
        key = (service, region_name, kind)
        with self._lock:
            clients = self._clients
            if key not in clients:
                clients[key] = self._make(service, region_name or self.region_name, kind)
            return clients[key]

    def forget_clients(self) -> None:
        """Make the next call with new clients, hence with new credentials. Does not block."""
        self._clients = {}

    def is_transient(self, error: BaseException, quoted: Iterable[str] = ()) -> bool:
        """`errors.is_transient`; also drops the clients when their credentials have expired or are invalid.

        A refusal may mean that the credentials of the connection have changed, or that the call is not
        allowed; so a refusal drops the clients once a minute at most.
        """
        from botocore import exceptions

        no_credentials = isinstance(
            error,
            (
                exceptions.CredentialRetrievalError,
                exceptions.NoCredentialsError,
                exceptions.PartialCredentialsError,
            ),
        )
        if error_code(error) in EXPIRED:
            self.forget_clients()
        elif no_credentials or is_denied(error):
            now = time.monotonic()
            if now - self._renewed_at > _MIN_RENEWAL_SECONDS:
                self._renewed_at = now
                self.forget_clients()
        return is_transient(error, quoted)

    def count_in(self, bucket: SharedBucket) -> None:
        """Count every call of the bucket's operations in `bucket`, too, including calls outside of polls.

        Each attempt of botocore counts.
        """
        self._buckets.append(bucket)

    def watch_submissions(self, operation: str) -> None:
        """Keep track of whether a call of `operation` may have taken effect; see `may_have_submitted`."""
        self._submission = operation

    @property
    def may_have_submitted(self) -> bool:
        """Whether the last call of the watched operation may have taken effect.

        ``False`` only if AWS has refused each of botocore's attempts (`was_refused`), or has not received it.
        """
        return self._submitted

    def regions(self, service: str) -> tuple[str, list[str]]:
        """The region of this access, and all regions that botocore knows for `service`."""
        from botocore.session import Session

        session = Session()
        known = [
            region
            for partition in session.get_available_partitions()
            for region in session.get_available_regions(service, partition)
        ]
        return str(self.client(service).meta.region_name), known

    def trim(self, operation: str, trim: Callable[[bytes], bytes]) -> None:
        """Shorten the answers to polls before botocore parses them.

        botocore checks each value against its model, in Python: most of the CPU time of a poll.

        :param operation: such as ``ecs:DescribeTasks``.
        :param trim: returns the shortened body; when it raises, the answer is parsed in full.
        """
        self._trims[operation] = trim

    def account(self, service: str) -> str:
        """The owner of the budget of calls, and the region; connections with one owner share a budget.

        Makes the client, so it may block for a while.
        """
        try:
            region = self.client(service, polling=True).meta.region_name
        except Exception as error:  # noqa: BLE001 - the first poll raises it again, and handles it
            log.debug("the region of %s is unknown: %s", self.aws_conn_id, error)
            region = self.region_name
        return f"{self._owner or f'connection {self.aws_conn_id}'}/{region}"

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
        connection = hook.conn_config
        self._owner = owner_of(
            role_arn=connection.role_arn,
            access_key=connection.aws_access_key_id,
            profile=connection.session_kwargs.get("profile_name"),
            endpoint=connection.get_service_endpoint_url(service),
        )
        if kind == "retrying":
            client = hook.get_conn()
        else:
            once = hook.config.merge(Config(retries={"total_max_attempts": 1}))
            if kind == "polling":
                once = Config(connect_timeout=POLL_TIMEOUT, read_timeout=POLL_TIMEOUT).merge(once)
            client = hook.get_client_type(region_name=hook.region_name, config=once)
        client.meta.events.register_first("before-call", partial(self._before_call, service))
        client.meta.events.register_first("before-send", partial(self._before_send, service))
        client.meta.events.register("response-received", partial(self._after_response, service))
        if kind == "polling":
            for operation, trim in self._trims.items():
                client.meta.events.register(
                    f"before-parse.{operation.replace(':', '.')}", partial(_trim, trim)
                )
        return client

    def _before_call(self, service: str, event_name: str, **_: Any) -> None:
        """Begin with a call. botocore calls this once before all attempts."""
        if _operation(service, event_name) == self._submission:
            self._submitted = False

    def _buckets_of(self, service: str, event_name: str) -> list[SharedBucket]:
        operation = _operation(service, event_name)
        return [bucket for bucket in self._buckets if bucket.budget.counts(operation)]

    def _before_send(self, service: str, event_name: str, **_: Any) -> None:
        """Wait until the buckets allow a call. botocore calls this before each attempt."""
        for bucket in self._buckets_of(service, event_name):
            bucket.acquire()

    def _after_response(
        self,
        service: str,
        event_name: str,
        parsed_response: Any = None,
        exception: BaseException | None = None,
        **_: Any,
    ) -> None:
        """Count a call. botocore calls this after each attempt, without a response if there was none.

        AWS does not say which of its limits a throttled call has reached, so each counts it as its own.
        """
        operation = _operation(service, event_name)
        if operation == self._submission:
            never_sent = exception is not None and was_never_sent(exception)
            self._submitted = self._submitted or not (never_sent or was_refused(parsed_response))
        answer: Answer = "ok"
        if parsed_response is None or parsed_response.get("Error"):
            answer = "throttled" if is_throttled(parsed_response) else "error"
        for bucket in self._buckets_of(service, event_name):
            bucket.record(answer)


def owner_of(
    *, role_arn: str | None, access_key: str | None, profile: str | None, endpoint: str | None = None
) -> str:
    """Whose budget of calls a connection uses, as far as it shows without asking AWS.

    Equal for two connections only if they reach the same account. Two access keys of one account differ.

    :param role_arn: the role that the connection assumes; it names the account.
    :param access_key: the id of the connection's access key.
    :param profile: the profile of AWS's configuration that it names.
    :param endpoint: where calls go, if that is not AWS's own address.

    >>> owner_of(role_arn="arn:aws:iam::123456789012:role/etl", access_key="AKIAFAKE", profile=None)
    'account 123456789012'
    >>> owner_of(role_arn=None, access_key=None, profile=None)
    'the credentials of this machine'
    """
    account = (role_arn or "").split(":")[4:5]
    if account and account[0]:
        owner = f"account {account[0]}"
    elif role_arn:
        owner = f"role {role_arn}"
    elif access_key:
        owner = f"access key {access_key}"
    else:
        owner = f"profile {profile}" if profile else "the credentials of this machine"
    return f"{owner} at {endpoint}" if endpoint else owner


def _trim(trim: Callable[[bytes], bytes], response_dict: dict[str, Any], **_: Any) -> None:
    """Shorten an answer. botocore calls this before it parses one."""
    try:
        if response_dict["status_code"] == HTTP_OK:
            response_dict["body"] = trim(response_dict["body"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # a longer answer is correct, too
        log.debug("an answer was not shortened: %s", error)


def _operation(service: str, event_name: str) -> str:
    """``emr:ListSteps`` for botocore's event ``before-send.emr.ListSteps``."""
    return f"{service}:{event_name.rpartition('.')[2]}"
