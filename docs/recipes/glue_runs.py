"""AWS Glue job runs as remote jobs. A module of its own, because triggerers import it and no DAG file."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from airflow_resilient import AwsAccess, Cause, Claim, Job, Phase, RemoteJobOperator

# START service
PHASES = {
    "WAITING": Phase.QUEUED,
    "STARTING": Phase.QUEUED,
    "RUNNING": Phase.RUNNING,
    "STOPPING": Phase.STOPPING,
    "STOPPED": Phase.CANCELLED,
    "SUCCEEDED": Phase.SUCCEEDED,
    **dict.fromkeys(["FAILED", "ERROR", "TIMEOUT", "EXPIRED"], Phase.FAILED),
}  # a state that Glue may invent is no end: it is looked at again


class GlueRuns:
    """Glue takes no idempotency token; the claim travels as an argument of the run."""

    def __init__(self, job_name: str, arguments: Mapping[str, str] | None = None, **access: Any) -> None:
        self.job_name, self.arguments, self.access = job_name, arguments or {}, AwsAccess(**access)
        self.is_transient = self.access.is_transient

    def address(self) -> dict[str, Any]:
        return {"job_name": self.job_name, **self.access.address()}

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        pages = self.access.client("glue").get_paginator("get_job_runs").paginate(JobName=self.job_name)
        jobs = [read_run(run) for page in pages for run in page["JobRuns"]]
        return [job for job in jobs if job and job.claim in claims]

    def submit(self, claim: Claim) -> Job:
        once = self.access.client("glue", retries=False)  # botocore would send it again: two runs
        arguments = {**self.arguments, "--claim": str(claim)}
        run = once.start_job_run(JobName=self.job_name, Arguments=arguments)["JobRunId"]
        return Job(run, claim, Phase.QUEUED, datetime.now(timezone.utc).timestamp())

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        client, looks = self.access.client("glue"), []
        for job in jobs:
            try:
                looks.append(read_run(client.get_job_run(JobName=self.job_name, RunId=job.id)["JobRun"]))
            except client.exceptions.EntityNotFoundException:
                continue  # left out: unknown is no news
        return [look for look in looks if look]

    def cancel(self, job: Job, reason: str) -> Job:
        self.access.client("glue").batch_stop_job_run(JobName=self.job_name, JobRunIds=[job.id])
        return next(iter(self.observe([job])), job)


# END service


# START read
def read_run(run: Mapping[str, Any]) -> Job | None:
    """Translate one element of GetJobRuns; nothing when it bears no claim."""
    claim = Claim.read(run.get("Arguments", {}).get("--claim", ""))
    if claim is None:
        return None
    phase = PHASES.get(run["JobRunState"], Phase.RUNNING)
    lost = run["JobRunState"] in {"ERROR", "EXPIRED"}  # Glue's doing, not the script's
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
