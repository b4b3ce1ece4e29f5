"""An operator is made and executed in a loop inside of a Python task."""

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.sdk import DAG, get_current_context, task


@task
def regions(names):
    context = get_current_context()
    for name in names:
        EcsRunTaskOperator(
            task_id="region",
            cluster="etl",
            task_definition="region",
            overrides={"containerOverrides": [{"name": "main", "command": ["load", name]}]},
            launch_type="FARGATE",
            waiter_delay=1,
        ).execute(context)
    return len(names)


with DAG(dag_id="inside_a_task", schedule=None):
    regions(["eu", "us", "ap"])
