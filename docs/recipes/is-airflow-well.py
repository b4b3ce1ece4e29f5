"""A DAG that says what it needs: the watch from outside reads it from the tags."""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_resilient import need_by, start_within, wait_at_most


class Load(BaseOperator):
    """What the desk waits for."""

    def execute(self, context):
        return "loaded"


# START needs
with DAG(
    "positions",
    schedule="0 9 * * 1-5",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=[
        "desk",
        need_by("07:00", "America/New_York"),  # what is due before that must have succeeded by then
        start_within("10m"),  # a run starts that long after it is due, at the latest
        wait_at_most("20m"),  # a task instance waits that long for a slot, at the most
    ],
):
    Load(task_id="load")
# END needs
