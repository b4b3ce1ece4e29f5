"""One task for each policy of the page."""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import EcsRunTaskOperator, EcsTaskStateSensor, EmrAddStepsOperator, EmrStepSensor

with DAG(
    dag_id="iam_policies",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
):
    # START ecs
    ecs = EcsRunTaskOperator(
        task_id="ecs",
        aws_conn_id="aws_ecs",
        cluster="etl",
        task_definition="nightly",
        overrides={},
        awslogs_group="/ecs/nightly",
        awslogs_stream_prefix="ecs",
    )
    # END ecs

    # START ecs-sensor
    ecs_state = EcsTaskStateSensor(
        task_id="ecs_state",
        aws_conn_id="aws_watch",
        cluster="etl",
        task="{{ ti.xcom_pull('ecs', key='ecs_task_arn') }}",
        target_state="STOPPED",
    )
    # END ecs-sensor

    # START emr
    emr = EmrAddStepsOperator(
        task_id="emr",
        aws_conn_id="aws_emr",
        job_flow_name="etl",
        cluster_states=["WAITING", "RUNNING"],
        steps=[{"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar"}}],
        wait_for_completion=True,
    )
    # END emr

    # START emr-sensor
    emr_state = EmrStepSensor(
        task_id="emr_state",
        aws_conn_id="aws_watch",
        job_flow_id="{{ ti.xcom_pull('emr', key='job_flow_id') }}",
        step_id="{{ ti.xcom_pull('emr')[0] }}",
    )
    # END emr-sensor

    ecs >> ecs_state
    emr >> emr_state
