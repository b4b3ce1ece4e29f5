"""Operators, sensors and triggers for Apache Airflow that keep working when what is around them breaks.

Every public name is importable from here and is loaded when it is first used, because DAG files are
parsed all day.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aws import AwsAccess as AwsAccess
    from .docker import DockerOperator as DockerOperator
    from .ecs import EcsRunTaskOperator as EcsRunTaskOperator
    from .ecs import EcsTaskStateSensor as EcsTaskStateSensor
    from .emr import EmrAddStepsOperator as EmrAddStepsOperator
    from .emr import EmrStepSensor as EmrStepSensor
    from .errors import (
        InvalidParameter as InvalidParameter,
    )
    from .errors import (
        JobCancelled as JobCancelled,
    )
    from .errors import (
        JobError as JobError,
    )
    from .errors import (
        JobFailed as JobFailed,
    )
    from .errors import (
        JobLost as JobLost,
    )
    from .errors import (
        JobTimeout as JobTimeout,
    )
    from .errors import (
        NoCapacity as NoCapacity,
    )
    from .errors import (
        NotSubmitted as NotSubmitted,
    )
    from .errors import (
        ResilientError as ResilientError,
    )
    from .errors import (
        SubmitRefused as SubmitRefused,
    )
    from .errors import (
        Unobservable as Unobservable,
    )
    from .jobs import (
        Cause as Cause,
    )
    from .jobs import (
        Claim as Claim,
    )
    from .jobs import (
        Job as Job,
    )
    from .jobs import (
        Phase as Phase,
    )
    from .jobs import (
        RemoteJobs as RemoteJobs,
    )
    from .latest_only import (
        LatestOnlyIntervalOperator as LatestOnlyIntervalOperator,
    )
    from .latest_only import (
        is_latest as is_latest,
    )
    from .operators import (
        LogTail as LogTail,
    )
    from .operators import (
        RemoteJobOperator as RemoteJobOperator,
    )
    from .operators import (
        RemoteJobSensor as RemoteJobSensor,
    )
    from .orphans import OrphanSweepOperator as OrphanSweepOperator
    from .timezones import (
        LocalTime as LocalTime,
    )
    from .timezones import (
        local as local,
    )
    from .timezones import (
        local_filters as local_filters,
    )
    from .timezones import (
        local_macros as local_macros,
    )
    from .triggers import RemoteJobTrigger as RemoteJobTrigger
    from .watch import Patience as Patience

_HOME = {
    "AwsAccess": "aws",
    "Cause": "jobs",
    "Claim": "jobs",
    "DockerOperator": "docker",
    "EcsRunTaskOperator": "ecs",
    "EcsTaskStateSensor": "ecs",
    "EmrAddStepsOperator": "emr",
    "EmrStepSensor": "emr",
    "InvalidParameter": "errors",
    "Job": "jobs",
    "JobCancelled": "errors",
    "JobError": "errors",
    "JobFailed": "errors",
    "JobLost": "errors",
    "JobTimeout": "errors",
    "LatestOnlyIntervalOperator": "latest_only",
    "LocalTime": "timezones",
    "LogTail": "operators",
    "NoCapacity": "errors",
    "NotSubmitted": "errors",
    "OrphanSweepOperator": "orphans",
    "Patience": "watch",
    "Phase": "jobs",
    "RemoteJobOperator": "operators",
    "RemoteJobSensor": "operators",
    "RemoteJobTrigger": "triggers",
    "RemoteJobs": "jobs",
    "ResilientError": "errors",
    "SubmitRefused": "errors",
    "Unobservable": "errors",
    "is_latest": "latest_only",
    "local": "timezones",
    "local_filters": "timezones",
    "local_macros": "timezones",
}

__all__ = sorted(_HOME)  # noqa: PLE0605 - one list, kept in one place


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("airflow-resilient")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
