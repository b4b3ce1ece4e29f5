"""Operators, sensors and triggers for Apache Airflow that survive failures of what they depend on.

Every public name can be imported from here. It is loaded at its first use, because DAG files are parsed all
the time. The names of the services come from the registry.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aws.access import AwsAccess as AwsAccess
    from .core.job import Cause as Cause
    from .core.job import Claim as Claim
    from .core.job import Job as Job
    from .core.job import LogTail as LogTail
    from .core.job import Phase as Phase
    from .core.polling import PollPolicy as PollPolicy
    from .core.service import AccessOption as AccessOption
    from .core.service import Budget as Budget
    from .core.service import JobEvent as JobEvent
    from .core.service import RemoteService as RemoteService
    from .core.service import ServiceInfo as ServiceInfo
    from .core.service import Way as Way
    from .errors import InvalidParameter as InvalidParameter
    from .errors import JobCancelled as JobCancelled
    from .errors import JobError as JobError
    from .errors import JobFailed as JobFailed
    from .errors import JobLost as JobLost
    from .errors import JobTimeout as JobTimeout
    from .errors import JobUnreachable as JobUnreachable
    from .errors import NoCapacity as NoCapacity
    from .errors import NotSubmitted as NotSubmitted
    from .errors import ResilientError as ResilientError
    from .errors import SubmitRefused as SubmitRefused
    from .operations.orphans import OrphanSweepOperator as OrphanSweepOperator
    from .operators import RemoteJobOperator as RemoteJobOperator
    from .scheduling.canary import canary_dag as canary_dag
    from .scheduling.latest_only import LatestOnlyIntervalOperator as LatestOnlyIntervalOperator
    from .scheduling.latest_only import LatestOnlyOperator as LatestOnlyOperator
    from .scheduling.latest_only import is_latest as is_latest
    from .scheduling.needs import need_by as need_by
    from .scheduling.needs import start_within as start_within
    from .scheduling.needs import wait_at_most as wait_at_most
    from .scheduling.timezones import LocalTime as LocalTime
    from .scheduling.timezones import local as local
    from .scheduling.timezones import local_filters as local_filters
    from .scheduling.timezones import local_macros as local_macros
    from .sensors import RemoteJobSensor as RemoteJobSensor
    from .services.docker.operator import DockerOperator as DockerOperator
    from .services.ecs.operator import EcsRunTaskOperator as EcsRunTaskOperator
    from .services.ecs.sensor import EcsTaskStateSensor as EcsTaskStateSensor
    from .services.emr_steps.operator import EmrAddStepsOperator as EmrAddStepsOperator
    from .services.emr_steps.sensor import EmrStepSensor as EmrStepSensor
    from .triggers import RemoteJobTrigger as RemoteJobTrigger

_HOMES = {
    "AccessOption": "core.service",
    "AwsAccess": "aws.access",
    "Budget": "core.service",
    "Cause": "core.job",
    "Claim": "core.job",
    "InvalidParameter": "errors",
    "Job": "core.job",
    "JobCancelled": "errors",
    "JobError": "errors",
    "JobEvent": "core.service",
    "JobFailed": "errors",
    "JobLost": "errors",
    "JobTimeout": "errors",
    "JobUnreachable": "errors",
    "LatestOnlyIntervalOperator": "scheduling.latest_only",
    "LatestOnlyOperator": "scheduling.latest_only",
    "LocalTime": "scheduling.timezones",
    "LogTail": "core.job",
    "NoCapacity": "errors",
    "NotSubmitted": "errors",
    "OrphanSweepOperator": "operations.orphans",
    "Phase": "core.job",
    "PollPolicy": "core.polling",
    "RemoteJobOperator": "operators",
    "RemoteJobSensor": "sensors",
    "RemoteJobTrigger": "triggers",
    "RemoteService": "core.service",
    "ResilientError": "errors",
    "ServiceInfo": "core.service",
    "SubmitRefused": "errors",
    "Way": "core.service",
    "canary_dag": "scheduling.canary",
    "is_latest": "scheduling.latest_only",
    "local": "scheduling.timezones",
    "local_filters": "scheduling.timezones",
    "local_macros": "scheduling.timezones",
    "need_by": "scheduling.needs",
    "start_within": "scheduling.needs",
    "wait_at_most": "scheduling.needs",
}


def _homes() -> dict[str, str]:
    """Public names, and the full names of the modules that define them."""
    from .registry import public_names

    own = {name: f"{__name__}.{module}" for name, module in _HOMES.items()}
    return own | public_names()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("airflow-resilient")
    if name == "__all__":
        return sorted(_homes())
    if name in _HOMES:  # without loading the services
        module = f"{__name__}.{_HOMES[name]}"
    elif name.startswith("_") or name not in _homes():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        module = _homes()[name]
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*sorted(_homes()), "__version__"]
