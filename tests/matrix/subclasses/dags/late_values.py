"""Values that are missing where the file is parsed, or that are the text of a list."""

import json
import os

from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator
from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator
from airflow.sdk import DAG

STEPS = [{"Name": "sum", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["sum"]}}]


class FilledIn(EmrAddStepsOperator):
    def execute(self, context):
        self.steps = STEPS
        return len(super().execute(context))


with DAG(dag_id="late_values", schedule=None):
    EmrAddStepsOperator(task_id="text", job_flow_id="j-2AXXXXXXGAPLF", steps=json.dumps(STEPS))
    FilledIn(task_id="filled_in", job_flow_id="j-2AXXXXXXGAPLF", steps=[])

with DAG(dag_id="late_values_elsewhere", schedule=None):  # where the variable is set, there it runs
    EcsRunTaskOperator(
        task_id="run", cluster="etl", task_definition=os.getenv("TASK_DEFINITION"), overrides=None
    )
