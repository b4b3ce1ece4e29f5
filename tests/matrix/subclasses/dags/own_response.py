"""A method that only the provider's sensor calls, and which decides what is a success."""

from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.providers.amazon.aws.sensors.emr import EmrStepSensor
from airflow.sdk import DAG


class LastStepSensor(EmrStepSensor):
    def get_emr_response(self, context):
        found = self.hook.conn.list_steps(ClusterId=self.job_flow_id)
        return {**found, "Step": next(step for step in found["Steps"] if step["Id"] == self.step_id)}


with DAG(dag_id="own_response", schedule=None):
    added = EmrAddStepsOperator(
        task_id="added",
        job_flow_id="j-2AXXXXXXGAPLF",
        steps=[{"Name": "join", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["join"]}}],
    )
    added >> LastStepSensor(
        task_id="done",
        job_flow_id="j-2AXXXXXXGAPLF",
        step_id="{{ ti.xcom_pull(task_ids='added')[0] }}",
        poke_interval=1,
    )
