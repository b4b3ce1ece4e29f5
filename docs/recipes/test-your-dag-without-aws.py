"""A DAG and its tests; ``pytest docs/recipes/test-your-dag-without-aws.py`` runs them."""

from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EcsRunTaskOperator
from airflow_resilient.testing import FakeAws

# START dag
with DAG(
    dag_id="test_your_dag_without_aws",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    default_args={"retries": 0, "retry_delay": timedelta(seconds=1)},
) as dag:
    report = EcsRunTaskOperator(task_id="report", cluster="etl", task_definition="report", overrides={})
    publish = EcsRunTaskOperator(task_id="publish", cluster="etl", task_definition="publish", overrides={})
    report >> publish
# END dag


# START fixture
@pytest.fixture
def aws():
    with FakeAws() as fake:
        fake.make_ecs_cluster("etl")
        fake.make_task_definition("report")
        fake.make_task_definition("publish")
        yield fake


# END fixture


# START success
def test_each_container_runs_once(aws):
    run = dag.test()

    assert run.state == "success"
    assert aws.calls["ecs:RunTask"] == 2


# END success


# START failure
def test_nothing_is_published_without_a_report(aws):
    aws.ecs.plan("report", exit_code=1)

    run = dag.test()

    assert run.state == "failed"
    assert [task.exit_code for task in aws.ecs.tasks()] == [1]


# END failure


# START lost-answer
def test_a_lost_answer_does_not_run_a_container_twice(aws):
    aws.fail_next("ecs:RunTask", carried_out=True)

    run = dag.test()

    assert run.state == "success"
    assert len(aws.ecs.tasks()) == 2


# END lost-answer
