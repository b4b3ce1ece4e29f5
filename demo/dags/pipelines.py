"""Five DAGs that share a pool of two slots; the steps of some read what the steps of others write.

These are the DAGs with the amazon provider's operators.  For its second half the demo replaces the lines
between the two markers by ``from airflow_resilient import …`` and changes nothing else.
"""

from datetime import timedelta

# START operators
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.amazon.aws.sensors.emr import EmrStepSensor

# END operators
from airflow.sdk import DAG, chain

SETTINGS = {
    "schedule": None,
    "default_args": {"pool": "two_slots", "retries": 2, "retry_delay": timedelta(seconds=1)},
}


def add_step(name: str, **more: object) -> EmrAddStepsOperator:
    """Add one step to the cluster named ``demo``."""
    step = {
        "Name": name,
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["spark-submit", f"s3://demo/{name}.py"]},
    }
    return EmrAddStepsOperator(
        task_id=name, job_flow_name="demo", cluster_states=["RUNNING", "WAITING"], steps=[step], **more
    )


def wait_for_step(name: str) -> EmrStepSensor:
    """Wait for the step that ``add_step(name)`` added."""
    return EmrStepSensor(
        task_id=f"wait_for_{name}",
        job_flow_id=f"{{{{ ti.xcom_pull(task_ids='{name}', key='job_flow_id') }}}}",
        step_id=f"{{{{ ti.xcom_pull(task_ids='{name}')[0] }}}}",
        poke_interval=2,
    )


# Both convert currencies: their steps wait for the rates that the DAG below publishes.
for name in ("orders", "stock"):
    with DAG(name, **SETTINGS):
        chain(add_step(f"load_{name}"), wait_for_step(f"load_{name}"))

# check_rates reads the orders and the stock: these DAGs need each other.
with DAG("rates", **SETTINGS):
    chain(
        add_step("publish_rates", wait_for_completion=True, waiter_delay=2),
        add_step("check_rates", wait_for_completion=True, waiter_delay=2),
    )

with DAG("report", **SETTINGS):
    add_step("build_report", wait_for_completion=True, waiter_delay=2)

# ECS tasks beside them, in the same pool.
with DAG("invoices", **SETTINGS):
    for region in ("north", "south"):
        EcsRunTaskOperator(
            task_id=f"invoice_{region}",
            cluster="demo",
            task_definition=f"invoice_{region}",
            launch_type="FARGATE",
            overrides={"containerOverrides": [{"name": "main", "command": ["sh", "-c", "sleep 15"]}]},
            waiter_delay=2,
        )
