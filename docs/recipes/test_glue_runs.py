"""The service of the recipe passes the contract of every service."""

import json

import boto3
import pytest
from glue_runs import GlueRuns
from moto.backends import get_backend
from moto.glue.responses import GlueResponse
from moto.moto_api import state_manager

from airflow_resilient.testing import FakeAws, RemoteJobsContract


def run_of(run_id):
    return get_backend("glue")["123456789012"]["us-east-1"].jobs["compact"].get_job_run(run_id)


@pytest.fixture(autouse=True)
def _stops_runs(monkeypatch):
    """Add BatchStopJobRun, which moto lacks."""

    def batch_stop_job_run(self):
        asked = json.loads(self.body)["JobRunIds"]
        live = [run for run in map(run_of, asked) if run.status in ("STARTING", "RUNNING")]
        for run in live:
            run.status = "STOPPED"
        stopped = [{"JobName": "compact", "JobRunId": run.job_run_id} for run in live]
        return json.dumps({"SuccessfulSubmissions": stopped, "Errors": []})

    monkeypatch.setattr(GlueResponse, "batch_stop_job_run", batch_stop_job_run, raising=False)


# START contract
class TestGlueRuns(RemoteJobsContract):
    tokens = False

    @pytest.fixture(autouse=True)
    def _aws(self):
        with FakeAws() as self.aws:
            state_manager.set_transition("glue::job_run", {"progression": "manual", "times": 10**6})
            boto3.client("glue").create_job(
                Name="compact",
                Role="r",
                Command={"Name": "glueetl"},
                ExecutionProperty={"MaxConcurrentRuns": 9},
            )
            yield
            state_manager.unset_transition("glue::job_run")

    def service(self):
        return GlueRuns("compact", aws_conn_id=None, botocore_config={"retries": {"total_max_attempts": 1}})

    def let_time_pass(self, seconds):
        """moto lists a run as soon as it has accepted it."""

    def finish(self, job, succeeded=True):
        run_of(job.id).status = "SUCCEEDED" if succeeded else "FAILED"

    def lose_answer_of_next_submit(self):
        self.aws.fail_next("glue:StartJobRun", carried_out=True, answer="drop")

    def throttle_next_call(self):
        self.aws.fail_next("glue:*", "ThrottlingException")
        # END contract
