"""The public names as a user writes them. Only type-checked (``tox run -e types``), never run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_resilient import (
    Cause,
    Claim,
    DockerOperator,
    EcsRunTaskOperator,
    EcsTaskStateSensor,
    EmrAddStepsOperator,
    EmrStepSensor,
    Job,
    JobCancelled,
    JobError,
    JobFailed,
    JobLost,
    JobTimeout,
    LatestOnlyIntervalOperator,
    LatestOnlyOperator,
    LocalTime,
    NotSubmitted,
    OrphanSweepOperator,
    Phase,
    PollPolicy,
    RemoteJobOperator,
    RemoteJobSensor,
    RemoteService,
    ResilientError,
    ServiceInfo,
    canary_dag,
    is_latest,
    local,
    local_filters,
    local_macros,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

EcsRunTaskOperator(
    task_id="ecs",
    cluster="etl",
    task_definition="nightly:7",
    overrides={},
    launch_type="FARGATE",
    skip_on_exit_code=[3, 4],
    infrastructure_retries=3,
    on_clear="reattach",
    on_timeout="leave",
    run_task_kwargs={"enableExecuteCommand": True},
    execution_timeout=timedelta(hours=1),
)
DockerOperator(task_id="container", image="etl:7", command=["true"], auto_remove="success", mem_limit="1g")
EcsTaskStateSensor(task_id="ecs_state", cluster="etl", task="0123")
EmrAddStepsOperator(
    task_id="emr",
    job_flow_name="etl",
    cluster_states=["WAITING"],
    steps=[{"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar"}}],
    wait_for_completion=True,
)
EmrStepSensor(task_id="emr_state", job_flow_id="j-1", step_id="s-1")
OrphanSweepOperator(
    task_id="sweep",
    services=["ecs", "docker"],
    scopes={"ecs": ["etl"], "docker": ("tcp://build:2375",)},
    tls={"ca_cert": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"},
    cancel=True,
)
dag = canary_dag(every=timedelta(minutes=5), queues=["default"], beat_url_variable="canary_url_secret")
with dag:
    LatestOnlyOperator(task_id="latest_only")
LatestOnlyIntervalOperator(
    task_id="gate",
    max_lateness=timedelta(minutes=5),
    every=timedelta(hours=1),
    timezone="America/New_York",
    backfill="bucket",
    cleared="recheck",
    count="passes",
    skip_mode="self",
)


def once_an_hour(context: Context) -> bool:
    """Short-circuits, branches and conditions ask the function."""
    return is_latest(every=timedelta(hours=1)) and is_latest(context, max_lateness=timedelta(minutes=5))


class Service(RemoteService):
    """The smallest service that a type checker accepts."""

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        return []

    def submit(self, claim: Claim) -> Job:
        return Job("id", claim, Phase.QUEUED, 0.0, cause=Cause.UNKNOWN)

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        return list(jobs)

    def cancel(self, job: Job, reason: str) -> Job:
        return job

    def is_transient(self, error: Exception) -> bool:
        return False

    def address(self) -> dict[str, Any]:
        return {}


class Half(RemoteService):
    """A service that lacks methods is refused by the type checker already."""

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        return []


Half()  # type: ignore[abstract]
SERVICE = ServiceInfo("made_up", "Made-up jobs", "made_up_jobs:Service", "queue", access=())
Service.connect({}).list_scopes()


class Operator(RemoteJobOperator):
    """The smallest operator."""

    def remote_jobs(self, context: Context) -> RemoteService:
        return Service()


Operator(task_id="made_up", poll_policy=PollPolicy(interval=60.0))


class Sensor(RemoteJobSensor):
    """The smallest sensor."""

    def remote_jobs(self, context: Context) -> RemoteService:
        return Service()

    def watched(self, context: Context) -> Job:
        return Job("id", Claim("", 0), Phase.QUEUED, 0.0)


def what_happened(error: ResilientError) -> str:
    """Facts are attributes."""
    if isinstance(error, NotSubmitted):
        return str(error.response)
    if isinstance(error, JobFailed | JobCancelled | JobLost | JobTimeout):
        job: Job | None = error.job
        return job.reason if job else ""
    return type(error).__name__ if isinstance(error, JobError) else ""


def load(context: Context, due: datetime) -> tuple[str, float]:
    """Local time in Python code."""
    day: LocalTime = local(context, zone="America/New_York")
    other = LocalTime(due, timezone(timedelta(hours=2)))
    of_the_running_task = local(moment=due)
    start, end = day.utc_day_range
    return local(context).ds + other.ds_add(1) + of_the_running_task.ts, (end - start) / timedelta(hours=1)


MACROS = {**local_macros("America/New_York"), "mine": str}
FILTERS = local_filters(timezone.utc)
