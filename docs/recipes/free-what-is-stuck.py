"""A DAG that says after which time its task instances are stuck, so that they are freed."""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_resilient import wait_at_most


class Load(BaseOperator):
    """Loads the prices; a second start of it does no harm."""

    def execute(self, context):
        return "loaded"


# START limit
with DAG(
    "prices",
    schedule="*/10 * * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=[wait_at_most("10m")],  # one that is queued for longer is stuck
):
    Load(task_id="load", retries=2)
# END limit
