"""The EMR classes take what the amazon provider's of the same names take, and refuse what cannot work."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from datetime import timedelta

import pytest
from airflow.providers.amazon.aws.operators import emr as provider_operators
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.sensors import emr as provider_sensors
from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor

from airflow_resilient import EmrAddStepsOperator, EmrStepSensor, InvalidParameter

PAIRS = [
    pytest.param(EmrAddStepsOperator, provider_operators.EmrAddStepsOperator, AwsBaseOperator, id="operator"),
    pytest.param(EmrStepSensor, provider_sensors.EmrStepSensor, AwsBaseSensor, id="sensor"),
]
STEP = {"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["hunter2"]}}


def parameters(*classes):
    found = {}
    for each in classes:
        found.update(inspect.signature(each.__init__).parameters)
    return {name: each.default for name, each in found.items() if name not in {"self", "args", "kwargs"}}


def ours_of(made):
    """The classes of this package that hand parameters on to each other, the most general one first."""
    return [each for each in reversed(made.__mro__) if each.__module__.startswith("airflow_resilient.")]


@pytest.mark.parametrize(("ours", "theirs", "base"), PAIRS)
def test_every_parameter_of_the_providers_class_is_taken_with_its_default(ours, theirs, base):
    wanted = parameters(base, theirs)
    region = wanted.pop("region", None)  # its default is a marker of the provider's own
    mine = parameters(*ours_of(ours))
    assert {name: mine[name] for name in wanted if name in mine} == wanted
    assert region is None or "region" in mine


@pytest.mark.parametrize(("ours", "theirs", "base"), PAIRS)
def test_templates_and_colours_are_the_providers(ours, theirs, base):
    assert tuple(sorted(ours.template_fields)) == tuple(sorted(theirs.template_fields))
    assert tuple(ours.template_ext) == tuple(theirs.template_ext)
    assert ours.template_fields_renderers == theirs.template_fields_renderers
    assert ours.ui_color == theirs.ui_color


def test_the_file_is_light_to_import():
    heavy = ("boto3", "botocore", "moto", "airflow.providers.amazon.aws")
    module = "airflow_resilient.services.emr_steps.operator"
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip().splitlines()[-1] == "[]"


def operator(**kwargs):
    return EmrAddStepsOperator(**{"task_id": "sort", "job_flow_id": "j-1", "steps": [STEP], **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        pytest.param({"job_flow_id": None}, "neither given", id="no-cluster"),
        pytest.param({"job_flow_name": "etl"}, "both given", id="two-clusters"),
        pytest.param({"steps": [STEP] * 257}, "257 steps", id="too-many-steps"),
        pytest.param({"steps": [{"Name": "sort"}]}, "no HadoopJarStep", id="no-jar"),
        pytest.param({"steps": [{"HadoopJarStep": STEP["HadoopJarStep"]}]}, "has no Name", id="no-name"),
        pytest.param({"steps": '[{"Name": "sort"}]'}, "no HadoopJarStep", id="no-jar-in-json"),
        pytest.param({"steps": STEP}, "a dict is not a list", id="a-step-instead-of-a-list"),
        pytest.param(
            {"steps": [{**STEP, "ActionOnFailure": "STOP"}]}, "ActionOnFailure='STOP'", id="bad-action"
        ),
        pytest.param(
            {"region": "eu-west-1", "region_name": "us-east-1"}, "region='eu-west-1'", id="two-regions"
        ),
        pytest.param({"on_clear": "sometimes"}, "on_clear='sometimes'", id="on-clear"),
        pytest.param({"job_flow_id": "etl"}, "job_flow_name instead", id="a-name-instead-of-an-id"),
        pytest.param({"job_flow_id": "{ params.id }"}, "job_flow_id='{", id="a-template-with-one-brace"),
    ],
)
def test_bad_parameters_are_refused_when_the_dag_is_parsed(kwargs, message):
    with pytest.raises(InvalidParameter) as error:
        operator(**kwargs)
    assert "task 'sort'" in str(error.value)
    assert message in str(error.value)
    assert "write" in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "steps", ["{{ ti.xcom_pull('make') }}", "steps.json", ["{{ ti.xcom_pull('make') }}"], [STEP] * 256]
)
def test_templates_and_many_steps_are_taken(steps):
    assert operator(steps=steps).steps == steps


def test_the_output_of_another_task_is_taken():
    from airflow.providers.common.compat.sdk import DAG

    with DAG("d", schedule=None):
        first = operator(task_id="first")
        second = operator(task_id="second", job_flow_id=first.output["job_flow_id"], steps=first.output)
    assert first.task_id in second.upstream_task_ids


@pytest.mark.parametrize(
    ("kwargs", "waits"),
    [
        pytest.param({}, False, id="by-default"),
        pytest.param({"wait_for_completion": True}, True, id="when-asked-to"),
        pytest.param({"wait_for_completion": False}, False, id="not-when-asked-not-to"),
    ],
)
def test_who_waits(kwargs, waits):
    assert operator(**kwargs).wait_for_completion is waits


def test_deferrable_means_to_wait_and_says_so():
    with pytest.warns(UserWarning, match=r"deferrable \(waiting defers anyway"):
        assert operator(deferrable=True).wait_for_completion is True


def test_parameters_without_a_reason_say_what_happens_instead_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        operator(waiter_max_attempts=10, waiter_delay=10)
        EmrStepSensor(task_id="wait", job_flow_id="j-1", step_id="s-1", max_attempts=10)
    messages = [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
    assert [text.split(": ")[2].split()[0] for text in messages] == ["waiter_max_attempts", "max_attempts"]
    assert "execution_timeout" in messages[0]
    assert "timeout" in messages[1]


def test_the_providers_defaults_say_nothing():
    operator(waiter_max_attempts=60, waiter_delay=30, deferrable=False)
    EmrStepSensor(task_id="wait", job_flow_id="j-1", step_id="s-1", max_attempts=60, deferrable=False)


def test_waiter_delay_is_the_longest_time_between_two_polls():
    assert operator(waiter_delay=7).poll_policy.interval == 7
    assert operator(waiter_delay=1).poll_policy.first_interval == 1


def test_region_is_another_name_for_region_name():
    with pytest.warns(DeprecationWarning, match="region_name='eu-west-1'"):
        assert operator(region="eu-west-1").region_name == "eu-west-1"
    with pytest.warns(DeprecationWarning, match="region_name='eu-west-1'"):
        sensor = EmrStepSensor(task_id="wait", job_flow_id="j-1", step_id="s-1", region="eu-west-1")
    assert sensor.region_name == "eu-west-1"


def test_a_sensor_keeps_what_every_sensor_takes():
    sensor = EmrStepSensor(
        task_id="wait",
        job_flow_id="j-1",
        step_id="s-1",
        poke_interval=10,
        timeout=60,
        soft_fail=True,
        execution_timeout=timedelta(minutes=5),
        target_states=["RUNNING", "COMPLETED"],
    )
    assert sensor.until() == ("state", ["RUNNING", "COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"])


@pytest.mark.parametrize("missing", ["job_flow_id", "step_id"])
@pytest.mark.parametrize(
    "value", ["", None, "None", "{ task_instance.xcom_pull('add')[0] }", "['s-1']", "s-1,s-2", "1", 7]
)
def test_a_sensor_without_a_step_to_poll_is_refused(missing, value):
    given = {"task_id": "wait", "job_flow_id": "j-1", "step_id": "s-1"}
    if value:  # an empty one is refused when the task runs
        with pytest.raises(InvalidParameter, match=missing):
            EmrStepSensor(**{**given, missing: value})
    made = EmrStepSensor(**{**given, missing: "{{ ti.xcom_pull('add') }}"})
    setattr(made, missing, value)  # as it is rendered
    for visit in (made.remote_jobs, made.watched):
        with pytest.raises(InvalidParameter, match=missing):
            visit({})


def test_an_operator_looks_at_the_cluster_when_it_has_been_rendered():
    made = operator(job_flow_id="{{ ti.xcom_pull('make') }}")
    made.job_flow_id = "{ j-1 }"
    with pytest.raises(InvalidParameter, match="job_flow_id"):
        made.remote_jobs({})


def test_operators_can_be_mapped():
    from airflow.providers.common.compat.sdk import DAG

    with DAG("d", schedule=None):
        EmrAddStepsOperator.partial(task_id="sort", job_flow_id="j-1", waiter_delay=5).expand(
            steps=[[STEP], [STEP]]
        )
        EmrStepSensor.partial(task_id="wait", job_flow_id="j-1").expand(step_id=["s-1", "s-2"])
