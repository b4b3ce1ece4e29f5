"""Shared by all AWS services: the parameters for access to AWS, and base classes."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, cast

from ..aws.access import AwsAccess
from ..aws.errors import is_throttle, lasting_advice
from ..compat import conf
from ..core.overrides import NotCalled, overriding_class
from ..core.service import AWS_ACCESS, RemoteService
from ..core.shapes import ANYTHING, NOTHING, TEXT, TRUTH, MapOf, OneOf, Shape, optional, text
from ..operators import RemoteJobOperator
from ..parameters import (
    is_templated,
    poll_policy,
    reject,
    reject_hidden,
    require_shapes,
    warn_ignored_parameters,
)
from ..sensors import RemoteJobSensor
from ..settings import ProviderDefault

if TYPE_CHECKING:
    from ..watching.budget import SharedBucket

DEFAULT_DEFERRABLE = cast(
    "bool", ProviderDefault(conf.getboolean("operators", "default_deferrable", fallback=False))
)
"""``[operators] default_deferrable``: the provider's default of ``deferrable``."""

_NO_COUNT = "polls are not counted; {} limits the wait"
_DEFERS = "waiting defers anyway"


class AwsService(RemoteService):
    """A service that boto3 calls.

    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credentials. This and the next three are
        the amazon provider's parameters.
    :param region_name: overrides the connection's region.
    :param verify: whether, or with which CA bundle, certificates are verified.
    :param botocore_config: keywords for ``botocore.config.Config``.
    """

    aws_service: ClassVar[str]
    """boto3's name of the service."""
    submit_operation: ClassVar[str] = ""
    """The operation that starts a job, such as ``"RunTask"``."""

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.access = AwsAccess(aws_conn_id, region_name, verify, botocore_config)
        self.access.watch_submissions(f"{self.aws_service}:{self.submit_operation}")

    def address(self) -> dict[str, Any]:
        """How to reach AWS; each job's ``scope`` names its cluster."""
        return self.access.address()

    def quoted(self) -> Iterable[str]:
        """Values of the request that AWS may quote in an error: they decide nothing. Default: none."""
        return ()

    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later; see `AwsAccess.is_transient`."""
        return self.access.is_transient(error, self.quoted())

    def may_have_submitted(self, error: Exception) -> bool:
        """Whether the last submission may have taken effect; see `AwsAccess.may_have_submitted`."""
        return not self.submit_operation or self.access.may_have_submitted

    def lasting(self, error: Exception, attempts: int) -> str:
        """What to correct: certificate, access key or region; see `lasting_advice`."""
        connection = f"the connection {self.access.aws_conn_id}" if self.access.aws_conn_id else "boto3"
        return lasting_advice(error, attempts, connection, lambda: self.access.regions(self.aws_service))

    def account(self) -> str:
        """The owner of the budget of calls."""
        return self.access.account(self.aws_service)

    def count_calls(self, bucket: SharedBucket) -> bool:
        """Count every call in `bucket`."""
        self.access.count_in(bucket)
        return True

    def is_throttle(self, error: Exception) -> bool:
        """Whether a call was throttled."""
        return is_throttle(error, self.quoted())

    def client(self, *, polling: bool = False, retries: bool = True) -> Any:
        """boto3's client; see `AwsAccess.client`."""
        return self.access.client(self.aws_service, polling=polling, retries=retries)


ACCESS_SHAPES: Mapping[str, Shape] = {
    "aws_conn_id": optional(text("aws_default")),
    "region_name": optional(text("eu-west-1")),
    "verify": OneOf((NOTHING, TRUTH, TEXT), "True, False or the path of a CA bundle"),
    "botocore_config": optional(
        MapOf(ANYTHING, "a dict of keywords for botocore.config.Config, such as {'read_timeout': 10}")
    ),
}


def access_of(task: Any) -> dict[str, Any]:
    """The parameters of a task for access to AWS: keywords of `AwsService`.

    :raises InvalidParameter: one of them is wrong.
    """
    require_shapes(task, ACCESS_SHAPES)
    if task.botocore_config:
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        try:
            Config(**task.botocore_config)
        except (BotoCoreError, TypeError, ValueError, AttributeError, KeyError) as error:
            problem = type(error).__name__  # not its text, which quotes values
        else:
            problem = ""
        if problem:
            wanted = f"keywords that botocore.config.Config takes ({problem})"
            reject_hidden(task, "botocore_config", task.botocore_config, wanted)
    return {name: getattr(task, name) for name in AWS_ACCESS}


def choice_of(deferrable: Any) -> Any:
    """What a user says with ``deferrable``; ``None``: the user leaves it out."""
    return None if isinstance(deferrable, ProviderDefault) else deferrable


class ProvidersHook:
    """The amazon provider's `hook` and `client`, for subclasses that use them.

    The operators and sensors of this package call AWS by themselves: what is assigned here changes nothing
    else. Needs the amazon provider.
    """

    hook_class: ClassVar[str]
    """The provider's hook, as ``module:Class``."""

    @cached_property
    def hook(self) -> Any:
        """The provider's hook with this task's parameters for access to AWS, made when first used."""
        module, _, name = self.hook_class.partition(":")
        access = {name: getattr(self, name) for name in ("aws_conn_id", "region_name", "verify")}
        return getattr(import_module(module), name)(**access, config=getattr(self, "botocore_config", None))

    @cached_property
    def client(self) -> Any:
        """boto3's client of that hook."""
        return self.hook.conn


_NOT_THE_ACCESS = (
    "this class calls AWS with aws_conn_id, region_name, verify and botocore_config; set those, or an "
    "Airflow connection"
)
OTHER_ACCESS = NotCalled(_NOT_THE_ACCESS, refused=True, even_if_used=True)
"""Without it, the job would run, or be looked for, in another account or region."""
AWS_NOT_CALLED: Mapping[str, NotCalled] = {
    "hook": OTHER_ACCESS,
    "aws_hook_class": OTHER_ACCESS,
    "_hook_parameters": OTHER_ACCESS,
    "validate_attributes": NotCalled("check parameters in __init__()"),
}
"""What every class of the amazon provider uses; see `NotCalled`."""


class AwsJobOperator(ProvidersHook, RemoteJobOperator):
    """Run a job of an AWS service. The base of operators that replace the amazon provider's.

    :param wait_for_completion: ``False``: return as soon as the job is submitted.
    :param waiter_delay: longest time between two polls, in seconds, at least 1 (less counts as 1); a young
        job is polled more often.
    :param waiter_max_attempts: is accepted and ignored: ``execution_timeout`` limits the wait.
    :param deferrable: ``False`` waits in the worker, which keeps its slot; left out, waiting defers, whatever
        ``[operators] default_deferrable`` says. ``True`` implies `wait_for_completion`.
    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credentials. (templated)
    :param region_name: overrides the connection's region. (templated)
    :param verify: whether, or with which CA bundle, certificates are verified. (templated)
    :param botocore_config: keywords for ``botocore.config.Config``.
    :param region: the same as `region_name` (deprecated).
    :raises InvalidParameter: a parameter is wrong.
    """

    def __init__(
        self,
        *,
        wait_for_completion: bool = True,
        waiter_delay: float = ProviderDefault(30),
        waiter_max_attempts: int = 60,
        deferrable: bool = DEFAULT_DEFERRABLE,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        region: str | None = None,
        **kwargs: Any,
    ) -> None:
        usable = is_number(waiter_delay) and waiter_delay > 0
        if kwargs.get("poll_policy") is None and usable:
            kwargs["poll_policy"] = poll_policy(waiter_delay)
        super().__init__(deferrable=choice_of(deferrable), **kwargs)
        if not usable:
            reject(self, "waiter_delay", waiter_delay, "seconds, more than 0")
        self.wait_for_completion = wait_for_completion
        self.waiter_delay = waiter_delay
        self.waiter_max_attempts = waiter_max_attempts
        self.deferrable = bool(deferrable) if choice_of(deferrable) is None else deferrable
        self.aws_conn_id = aws_conn_id
        self.region_name = _one_region(self, region_name, region)
        self.verify = verify
        self.botocore_config = botocore_config
        require_shapes(self, ACCESS_SHAPES)

    def _warn_ignored(self, max_attempts: int, **more: tuple[object, str]) -> None:
        """Warn, once for a task, about parameters that were set and are ignored.

        :param max_attempts: the provider's default of `waiter_max_attempts`.
        :param more: further ignored parameters: default, and the behaviour instead.
        """
        shared: dict[str, tuple[object, str]] = {
            "waiter_max_attempts": (max_attempts, _NO_COUNT.format("execution_timeout")),
        }
        if self.deferrable is not False and not overriding_class(type(self), RemoteJobOperator, "execute"):
            shared["deferrable"] = (
                DEFAULT_DEFERRABLE,
                f"{_DEFERS}; it only implies wait_for_completion=True",
            )
        warn_ignored_parameters(self, {**shared, **more}, stacklevel=5)


class AwsJobSensor(ProvidersHook, RemoteJobSensor):
    """Wait for a job of an AWS service. The base of sensors that replace the amazon provider's.

    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credentials. (templated)
    :param region_name: overrides the connection's region. (templated)
    :param verify: whether, or with which CA bundle, certificates are verified. (templated)
    :param botocore_config: keywords for ``botocore.config.Config``.
    :param region: the same as `region_name` (deprecated).
    :raises InvalidParameter: a parameter is wrong.
    """

    def __init__(
        self,
        *,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        region: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.aws_conn_id = aws_conn_id
        self.region_name = _one_region(self, region_name, region)
        self.verify = verify
        self.botocore_config = botocore_config
        require_shapes(self, ACCESS_SHAPES)

    def _warn_ignored(self, max_attempts: int) -> None:
        """Warn, once for a task, about ``max_attempts`` and ``deferrable``, which are ignored."""
        shared: dict[str, tuple[object, str]] = {
            "max_attempts": (max_attempts, _NO_COUNT.format("timeout")),
        }
        if self.deferrable is not False:
            shared["deferrable"] = (DEFAULT_DEFERRABLE, _DEFERS)
        warn_ignored_parameters(self, shared, stacklevel=5)


def is_number(value: Any) -> bool:
    """Whether `value` is a number that a ``float`` can hold; ``True`` is not."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _one_region(task: Any, region_name: str | None, region: str | None) -> str | None:
    """The region, from `region_name` or from the deprecated `region`.

    :raises InvalidParameter: both are set and differ, or the value cannot be a region.
    """
    for name, value in (("region", region), ("region_name", region_name)):
        if value is None or is_templated(value):
            continue
        if not isinstance(value, str):
            reject_hidden(task, name, value, "a text, such as region_name='eu-west-1'")
        if value:
            _require_region(task, name, value)
    if region and region_name and region != region_name:
        reject(task, "region", region, f"region_name={region_name!r} alone")
    if region:
        text = f"task {task.task_id!r}: region is deprecated, write region_name={region!r}"
        warnings.warn(text, DeprecationWarning, stacklevel=5)
    return region_name or region


_REGION = r"aws(-[a-z]+)*-global|[a-z]{2,5}(-[a-z]+)+-\d{1,2}"  # eu-west-1, us-gov-west-1, us-isob-east-1


def _require_region(task: Any, name: str, value: str) -> None:
    if zone := re.fullmatch(rf"({_REGION})[a-z]", value):
        reject(task, name, value, f"{zone[1]!r}, the region of that availability zone")
    if not re.fullmatch(_REGION, value):
        reject(task, name, value, "the code of a region, such as 'eu-west-1'")


AWS_TEMPLATE_FIELDS: Sequence[str] = ("aws_conn_id", "region_name", "verify")
"""The shared parameters that are templated."""
