"""Parameters of operators: what is refused, what has lost its reason, and what AWS operators share."""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from . import settings
from .compat import conf
from .errors import InvalidParameter

if TYPE_CHECKING:
    from .watch import Patience

DEFAULT_DEFERRABLE: bool = conf.getboolean("operators", "default_deferrable", fallback=False)
"""``[operators] default_deferrable``: the provider's default of ``deferrable``."""


def reject(task: Any, parameter: str, value: Any, wanted: str) -> NoReturn:
    """Raise `InvalidParameter` with what is wrong, where, and what to write instead."""
    raise InvalidParameter(f"task {task.task_id!r}: {parameter}={value!r} is not valid; write {wanted}")


def reject_hidden(task: Any, parameter: str, value: Any, wanted: str) -> NoReturn:
    """`reject` for a value that may hold a secret: the message tells its type only."""
    kind = type(value).__name__
    raise InvalidParameter(f"task {task.task_id!r}: {parameter} is not valid ({kind}); write {wanted}")


def require_choice(task: Any, parameter: str, value: Any, choices: Sequence[str]) -> None:
    """Check that `value` is one of `choices`."""
    if value not in choices:
        reject(task, parameter, value, " or ".join(map(repr, choices)))


def require_codes(task: Any, parameter: str, codes: Any) -> None:
    """Check that `codes` is an exit code, a collection of them, or nothing."""
    if isinstance(codes, str) or not isinstance(codes, int | Container | None):
        reject(task, parameter, codes, "an exit code or a collection of them: 99 or [98, 99]")


def codes_of(codes: int | Container[int] | None) -> Container[int]:
    """Exit codes that were given as one, as a collection, or not at all.

    >>> codes_of(None), codes_of(99), codes_of([98, 99])
    ((), (99,), [98, 99])
    """
    if codes is None:
        return ()
    return codes if isinstance(codes, Container) else (codes,)


def say_instead(task: Any, lost: Mapping[str, tuple[object, str]], *, stacklevel: int = 4) -> None:
    """Warn, once for a task, of parameters that have lost their reason and were given all the same.

    :param lost: name of the parameter to its default and to what happens instead.
    """
    given = {
        name: instead for name, (usual, instead) in lost.items() if getattr(task, name) not in (usual, None)
    }
    if given:
        told = "; ".join(f"{name}: {instead}" for name, instead in given.items())
        text = f"task {task.task_id!r}: {told}. These parameters have lost their reason; leave them out."
        warnings.warn(text, UserWarning, stacklevel=stacklevel)


def may_change(value: Any) -> bool:
    """Whether `value` is known at run time only: a text with a template, or the output of a task."""
    return (isinstance(value, str) and ("{{" in value or "{%" in value)) or hasattr(value, "resolve")


def looks_every(seconds: Any) -> Patience:
    """The patience for a provider's ``waiter_delay``: the longest time between two looks."""
    return settings.current().patience(seconds or None)


def access_of(task: Any) -> dict[str, Any]:
    """The parameters of AWS operators that say how AWS is reached; keywords of `AwsAccess`."""
    return {name: getattr(task, name) for name in ("aws_conn_id", "region_name", "verify", "botocore_config")}


def one_region(task: Any, region_name: str | None, region: str | None) -> str | None:
    """The region, given by its name or by the deprecated one.

    :raises InvalidParameter: both are given and differ.
    """
    if region and region_name and region != region_name:
        reject(task, "region", region, f"region_name={region_name!r} alone")
    if region:
        text = f"task {task.task_id!r}: region is deprecated, write region_name={region!r}"
        warnings.warn(text, DeprecationWarning, stacklevel=5)
    return region_name or region
