"""DAGs for every version of Airflow, with which ``LocalAirflow`` itself is tested; none needs AWS."""

from __future__ import annotations

from datetime import timedelta
from time import sleep

from airflow.providers.common.compat.sdk import DAG, BaseOperator, Variable, task

try:
    from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
except ImportError:  # Airflow 2.11 brings its own
    from airflow.triggers.temporal import TimeDeltaTrigger

POOL = "two_slots"


class Defer(BaseOperator):
    """Wait in the triggerer."""

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=12)), method_name="resumed")

    def resumed(self, context, event):
        return str(event)


with DAG("greet", schedule=None) as greet_dag:

    @task(pool=POOL)
    def greet(params=None):
        print(Variable.get("greeting"), params)
        return dict(params)

    greet()

with DAG("sleep_in_first_try", schedule=None) as sleep_dag:

    @task(pool=POOL, retries=1, retry_delay=timedelta(seconds=1))
    def sleep_in_first_try(ti=None):
        print("try", ti.try_number)
        if ti.try_number == 1:
            sleep(3600)  # until it is killed or marked

    sleep_in_first_try()

with DAG("fail", schedule=None) as fail_dag:

    @task
    def fail():
        raise ValueError("as the test asked")

    fail()

with DAG("defer", schedule=None) as defer_dag:
    Defer(task_id="defer", pool=POOL)
