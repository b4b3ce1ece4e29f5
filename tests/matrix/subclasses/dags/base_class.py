"""A base class that all of a company's tasks share, with a link of its own."""

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.sdk import DAG
from team_links import WikiLink


class TeamOperator(EcsRunTaskOperator):
    operator_extra_links = (WikiLink(),)

    def __init__(self, *, job, **kwargs):
        super().__init__(
            cluster="etl",
            task_definition=job,
            overrides={"containerOverrides": [{"name": "main", "command": ["run", job]}]},
            launch_type="FARGATE",
            reattach=True,
            waiter_delay=1,
            **kwargs,
        )


with DAG(dag_id="base_class", schedule=None):
    TeamOperator(task_id="nightly", job="nightly") >> TeamOperator(task_id="report", job="report")
