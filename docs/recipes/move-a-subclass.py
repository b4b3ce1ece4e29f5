"""Subclasses that wait without a worker slot: what stood in `execute` stands in hooks."""

from datetime import datetime, timezone

from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, get_current_context

from airflow_resilient import (
    DockerOperator,
    EcsRunTaskOperator,
    EcsTaskStateSensor,
    EmrAddStepsOperator,
    EmrStepSensor,
)

EMR_CLUSTER = "j-2AXXXXXXGAPLF"
START = datetime(2026, 1, 1, tzinfo=timezone.utc)
ECS = {"launch_type": "FARGATE", "waiter_delay": 1}


# START request
class ExportOperator(EcsRunTaskOperator):
    def remote_jobs(self, context):
        day = context["dag_run"].conf["day"]
        self.overrides = {"containerOverrides": [{"name": "main", "command": ["export", day]}]}
        return super().remote_jobs(context)


# END request

with DAG(dag_id="own_request", schedule=None, start_date=START):
    ExportOperator(task_id="export", cluster="etl", task_definition="export", overrides={}, **ECS)


# START outcome
class LoadOperator(EcsRunTaskOperator):
    def conclude(self, context, job, log):  # the job has succeeded
        context["ti"].xcom_push(key="rows", value=42)
        return True

    def failure(self, context, job, log):  # it has not
        return AirflowSkipException("nothing to load today")


# END outcome

with DAG(dag_id="own_outcome", schedule=None, start_date=START):
    for name in ("good", "bad"):
        LoadOperator(task_id=name, cluster="etl", task_definition=f"load-{name}", overrides={}, **ECS)

with DAG(dag_id="inside_a_task", schedule=None, start_date=START):
    # START mapped
    EcsRunTaskOperator.partial(task_id="region", cluster="etl", task_definition="region", **ECS).expand(
        overrides=[
            {"containerOverrides": [{"name": "main", "command": ["load", region]}]}
            for region in ("eu", "us", "ap")
        ]
    )
    # END mapped


# START insides
class AskEcs(EcsRunTaskOperator):
    def conclude(self, context, job, log):
        (found,) = self.client.describe_tasks(cluster=self.cluster, tasks=[self.arn])["tasks"]
        return [found["taskArn"] == self.arn, found["lastStatus"], found["containers"][0]["exitCode"]]


class AskEmr(EmrAddStepsOperator):
    def conclude(self, context, job, log):
        (step_id,) = super().conclude(context, job, log)
        client = self.hook.get_conn()
        return client.describe_step(ClusterId=self.job_flow_id, StepId=step_id)["Step"]["Status"]["State"]


class AskDocker(DockerOperator):
    def conclude(self, context, job, log):
        state = self.cli.inspect_container(self.container["Id"])["State"]
        return [super().conclude(context, job, log), state["Status"], state["ExitCode"]]


# END insides

with DAG(dag_id="insides", schedule=None, start_date=START):
    AskEcs(task_id="ecs", cluster="etl", task_definition="nightly", overrides={}, **ECS)
    AskEmr(
        task_id="emr",
        job_flow_id=EMR_CLUSTER,
        steps=[{"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["sort"]}}],
        wait_for_completion=True,
        waiter_delay=1,
    )
    AskDocker(
        task_id="docker",
        image="local/busybox:1",
        command=["echo", "hello"],
        network_mode="none",
        mount_tmp_dir=False,
    )


# START arrived
class StoppedSensor(EcsTaskStateSensor):
    def arrived(self, job):
        if not super().arrived(job):
            return False
        get_current_context()["ti"].xcom_push(key="exit_code", value=job.exit_code)
        return True


# END arrived

with DAG(dag_id="own_poke", schedule=None, start_date=START):
    started = EcsRunTaskOperator(
        task_id="started",
        cluster="etl",
        task_definition="nightly",
        overrides={},
        wait_for_completion=False,
        **ECS,
    )
    started >> StoppedSensor(
        task_id="stopped",
        cluster="etl",
        task="{{ ti.xcom_pull(task_ids='started', key='ecs_task_arn') }}",
        target_state="STOPPED",
        failure_states={"NONE"},
        poke_interval=1,
    )


# START container
class GpuOperator(DockerOperator):
    def remote_jobs(self, context):
        self.environment = {**self.environment, "NVIDIA_VISIBLE_DEVICES": "all"}
        return super().remote_jobs(context)


# END container

with DAG(dag_id="own_container", schedule=None, start_date=START):
    GpuOperator(
        task_id="train",
        image="local/busybox:1",
        command=["echo", "trained"],
        network_mode="none",
        mount_tmp_dir=False,
    )


# START step
class LastStepSensor(EmrStepSensor):
    def arrived(self, job):
        state = job.facts.get("state")  # EMR's, from the last poll
        return state == "COMPLETED" or super().arrived(job)


# END step

with DAG(dag_id="own_response", schedule=None, start_date=START):
    added = EmrAddStepsOperator(
        task_id="added",
        job_flow_id=EMR_CLUSTER,
        steps=[{"Name": "join", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["join"]}}],
    )
    added >> LastStepSensor(
        task_id="done",
        job_flow_id=EMR_CLUSTER,
        step_id="{{ ti.xcom_pull(task_ids='added')[0] }}",
        poke_interval=1,
    )
