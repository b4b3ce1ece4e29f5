"""A DAG written for the amazon provider's operators: only the two imports have changed."""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG

# START import
# from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
# from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
# from airflow.providers.amazon.aws.sensors.ecs import EcsTaskStateSensor
# from airflow.providers.amazon.aws.sensors.emr import EmrStepSensor
from airflow_resilient import EcsRunTaskOperator, EcsTaskStateSensor, EmrAddStepsOperator, EmrStepSensor

# END import

with DAG(
    dag_id="move_from_the_providers_operators",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
):
    # START dag
    report = EcsRunTaskOperator(
        task_id="report",
        cluster="etl",
        task_definition="report:12",
        overrides={},
        waiter_max_attempts=600,  # accepted, with a warning: execution_timeout limits the wait
    )
    steps = EmrAddStepsOperator(
        task_id="steps",
        job_flow_id="j-0123456789ABC",
        steps=[{"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar"}}],
    )
    sorted_ = EmrStepSensor(
        task_id="sorted",
        job_flow_id="j-0123456789ABC",
        step_id="{{ ti.xcom_pull('steps')[0] }}",
        deferrable=True,  # accepted, with a warning: waiting defers anyway
    )
    stopped = EcsTaskStateSensor(
        task_id="stopped",
        cluster="etl",
        task="{{ ti.xcom_pull('report', key='ecs_task_arn') }}",
        target_state="STOPPED",
    )
    # END dag

    report >> stopped
    steps >> sorted_
