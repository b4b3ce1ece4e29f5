"""DAGs with which ``LocalAirflow`` itself is tested; none needs AWS."""

from datetime import timedelta
from time import sleep

from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG, Variable, task

POOL = "two_slots"

with DAG("greet", schedule=None):

    @task(pool=POOL)
    def greet(params=None):
        print(Variable.get("greeting"), params)
        return params

    greet()

with DAG("sleep_in_first_try", schedule=None):

    @task(pool=POOL, retries=1, retry_delay=timedelta(seconds=1))
    def sleep_in_first_try(ti=None):
        print("try", ti.try_number)
        if ti.try_number == 1:
            sleep(600)

    sleep_in_first_try()

with DAG("fail", schedule=None):

    @task
    def fail():
        raise ValueError("as the test asked")

    fail()

with DAG("defer", schedule=None):
    TimeDeltaSensor(task_id="defer", delta=timedelta(seconds=12), deferrable=True, pool=POOL)
