"""AWS Glue job runs as remote jobs, in a module that triggerers can import, unlike DAG files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from airflow_resilient import AwsAccess, Cause, Claim, Job, Phase, RemoteJobOperator, RemoteService

# START service
PHASES = {
    "WAITING": Phase.QUEUED,
    "STARTING": Phase.QUEUED,
    "RUNNING": Phase.RUNNING,
    "STOPPING": Phase.STOPPING,
    "STOPPED": Phase.CANCELLED,
    "SUCCEEDED": Phase.SUCCEEDED,
    **dict.fromkeys(["FAILED", "ERROR", "TIMEOUT", "EXPIRED"], Phase.FAILED),
}  # any other state is no end: the run is polled again


class GlueRuns(RemoteService):
    """Glue takes no idempotency token; an argument of the run carries the claim."""

    def __init__(self, job_name: str, arguments: Mapping[str, str] | None = None, **access: Any) -> None:
        self.job_name, self.arguments, self.access = job_name, arguments or {}, AwsAccess(**access)

    def address(self) -> dict[str, Any]:
        return {"job_name": self.job_name, **self.access.address()}

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        pages = self.access.client("glue").get_paginator("get_job_runs").paginate(JobName=self.job_name)
        jobs = [read_run(run) for page in pages for run in page["JobRuns"]]
        return [job for job in jobs if job and job.claim in claims]

    def submit(self, claim: Claim) -> Job:
        once = self.access.client("glue", retries=False)  # a second attempt would start a second run
        arguments = {**self.arguments, "--claim": claim.full_name}
        run = once.start_job_run(JobName=self.job_name, Arguments=arguments)["JobRunId"]
        return Job(run, claim, Phase.QUEUED, datetime.now(timezone.utc).timestamp())

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        client, found = self.access.client("glue"), []
        for job in jobs:
            try:
                seen = read_run(client.get_job_run(JobName=self.job_name, RunId=job.id)["JobRun"])
            except client.exceptions.EntityNotFoundException:
                continue  # left out: Glue does not know it
            if seen and seen.claim == job.claim:  # an id alone proves nothing
                found.append(seen)
        return found

    def cancel(self, job: Job, reason: str) -> Job:
        for seen in self.observe([job]):  # nothing is stopped that does not bear the claim
            if seen.live:
                self.access.client("glue").batch_stop_job_run(JobName=self.job_name, JobRunIds=[job.id])
            return next(iter(self.observe([job])), seen)
        return replace(job, phase=Phase.LOST, reason="Glue knows no such run of this task")

    def is_transient(self, error: Exception) -> bool:
        return self.access.is_transient(error)


# END service


# START read
def read_run(run: Mapping[str, Any]) -> Job | None:
    """The job that an element of GetJobRuns describes; ``None`` if it carries no claim."""
    claim = Claim.read(run.get("Arguments", {}).get("--claim", ""))
    if claim is None:
        return None
    phase = PHASES.get(run["JobRunState"], Phase.RUNNING)
    lost = run["JobRunState"] in {"ERROR", "EXPIRED"}  # Glue ended it, not the script
    cause = Cause.USER if phase is Phase.CANCELLED else Cause.INFRASTRUCTURE if lost else Cause.APPLICATION
    return Job(
        run["Id"], claim, phase, run["StartedOn"].timestamp(), reason=run.get("ErrorMessage", ""), cause=cause
    )


# END read


# START operator
class GlueJobOperator(RemoteJobOperator):
    """Run a Glue job once, whatever dies in between."""

    template_fields = ("job_name", "arguments")

    def __init__(
        self,
        *,
        job_name: str,
        arguments: Mapping[str, str] | None = None,
        aws_conn_id: str = "aws_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name, self.arguments, self.aws_conn_id = job_name, arguments, aws_conn_id

    def remote_jobs(self, context: Any) -> GlueRuns:
        return GlueRuns(self.job_name, self.arguments, aws_conn_id=self.aws_conn_id)


# END operator
