"""Gates on a real scheduler; the scheduled DAGs are paused until a test wants them."""

from datetime import datetime, timedelta, timezone
from time import sleep

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.latest_only import LatestOnlyOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, task, task_group

import airflow_resilient
from airflow_resilient import LatestOnlyIntervalOperator, is_latest

SCHEDULED = {
    "start_date": datetime(2022, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    "is_paused_upon_creation": True,
}
EVERY = timedelta(seconds=60)
SECOND = timedelta(seconds=1)


class AnswersTwice(LatestOnlyIntervalOperator):
    """Its first try decides and then dies, so that a second one decides again."""

    def execute(self, context):
        try:
            super().execute(context)
        finally:
            if context["ti"].try_number == 1:
                raise RuntimeError("as the test asked")


# The work before the gates takes longer than the interval between two runs.
with DAG("latest_only_slow", schedule=timedelta(seconds=10), max_active_runs=6, **SCHEDULED):

    @task
    def work():
        sleep(11)

    gates = [
        LatestOnlyOperator(task_id="theirs"),
        airflow_resilient.LatestOnlyOperator(task_id="same_name"),
        LatestOnlyIntervalOperator(task_id="lateness", max_lateness=timedelta(hours=2)),
        LatestOnlyIntervalOperator(task_id="bucket", every=EVERY, cleared="recheck"),
        LatestOnlyIntervalOperator(task_id="passes", every=EVERY, count="passes"),
    ]
    worked = work()
    for gate in gates:
        worked >> gate >> EmptyOperator(task_id=f"after_{gate.task_id}")

# Its one run was due on New Year's Day: every gate skips.  With a run a day it would depend on the hour.
with DAG("latest_only_late", schedule="@yearly", **SCHEDULED):
    gate = LatestOnlyIntervalOperator(task_id="gate", max_lateness=SECOND)
    hard = LatestOnlyIntervalOperator(task_id="hard", max_lateness=SECOND, skip_mode="downstream")
    for rule in ("all_success", "all_done", "none_failed", "none_failed_min_one_success"):
        gate >> EmptyOperator(task_id=rule, trigger_rule=rule)
    hard >> EmptyOperator(task_id="all_done_after_hard", trigger_rule="all_done")
    same_name = airflow_resilient.LatestOnlyOperator(task_id="same_name", max_lateness=SECOND)
    same_name >> EmptyOperator(task_id="all_done_after_same_name", trigger_rule="all_done")
    AnswersTwice(task_id="twice", max_lateness=SECOND, retries=1, retry_delay=SECOND)
    LatestOnlyIntervalOperator(task_id="again", max_lateness=SECOND, cleared="recheck")

    @task_group
    def each(number):
        LatestOnlyIntervalOperator(task_id="gate", max_lateness=SECOND) >> EmptyOperator(task_id="after")
        gate = airflow_resilient.LatestOnlyOperator(task_id="same_name", max_lateness=SECOND)
        gate >> EmptyOperator(task_id="after_same_name")

    each.expand(number=[1, 2])

    @task.short_circuit
    def short_circuit():
        return is_latest(max_lateness=SECOND)

    @task.run_if(lambda context: is_latest(context, max_lateness=SECOND))
    @task
    def run_if():
        return "it ran"

    short_circuit() >> EmptyOperator(task_id="after_short_circuit")
    run_if()

wares = Asset("latest_only_wares")

with DAG("latest_only_triggered", schedule=None):
    LatestOnlyIntervalOperator(task_id="gate", max_lateness=SECOND, every=EVERY)

with DAG("latest_only_of_assets", schedule=[wares]):
    LatestOnlyIntervalOperator(task_id="gate", max_lateness=SECOND, every=EVERY)

with DAG("latest_only_upstream", schedule=None):
    (
        TriggerDagRunOperator(
            task_id="trigger",
            trigger_dag_id="latest_only_triggered",
            logical_date="2026-01-02T03:04:05+00:00",
        )
        >> EmptyOperator(task_id="publish", outlets=[wares])
    )
