"""The ECS operator and sensor take what the amazon provider's take, and refuse what cannot work."""

import inspect
import json
import warnings
from datetime import timedelta

import pytest
from airflow.providers.amazon.aws.hooks.ecs import EcsTaskStates
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator as ProvidersOperator
from airflow.providers.amazon.aws.sensors.base_aws import AwsBaseSensor
from airflow.providers.amazon.aws.sensors.ecs import EcsTaskStateSensor as ProvidersSensor
from airflow.providers.common.compat.sdk import DAG

from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.errors import InvalidParameter
from airflow_resilient.services.ecs.operator import EcsRunTaskOperator
from airflow_resilient.services.ecs.sensor import EcsTaskStateSensor

# Required by the provider; here a missing one gets a message that names the task, too.
REQUIRED = {"task_definition", "cluster", "overrides", "task"}


def parameters(*classes):
    found = {}
    for each in classes:
        found |= inspect.signature(each.__init__).parameters
    return {name: each for name, each in found.items() if name not in ("self", "kwargs", "args")}


def ours_of(made):
    """The classes of this package that hand parameters on to each other, the most general one first."""
    return [each for each in reversed(made.__mro__) if each.__module__.startswith("airflow_resilient.")]


def operator(**changes):
    return EcsRunTaskOperator(
        **{"task_id": "nightly", "cluster": "etl", "task_definition": "nightly:7", "overrides": {}, **changes}
    )


def sensor(**changes):
    return EcsTaskStateSensor(**{"task_id": "wait", "cluster": "etl", "task": "0123abcd", **changes})


def request(**changes):
    """Keywords that RunTask would be given."""
    return dict(operator(**changes).remote_jobs({}).request)


PAIRS = [
    pytest.param(EcsRunTaskOperator, (ProvidersOperator, AwsBaseOperator), id="operator"),
    pytest.param(EcsTaskStateSensor, (ProvidersSensor, AwsBaseSensor), id="sensor"),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_every_parameter_of_the_providers_is_accepted(ours, theirs):
    assert not set(parameters(*theirs)) - set(parameters(*ours_of(ours)))


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_defaults_are_the_providers(ours, theirs):
    mine = parameters(*ours_of(ours))

    def plain(default):
        return getattr(default, "value", default)

    different = {
        name: (mine[name].default, each.default)
        for name, each in parameters(*theirs).items()
        if name not in REQUIRED | {"region"} and plain(each.default) != mine[name].default
    }
    assert not different


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_templated_is_what_the_provider_templates_and_our_own(ours, theirs):
    assert set(ours.template_fields) - {"run_task_kwargs"} == set(theirs[0].template_fields)
    for name, renderer in theirs[0].template_fields_renderers.items():
        assert ours.template_fields_renderers[name] == renderer


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: operator(run_task_kwargs={"referenceId": "1"}), id="operator"),
        pytest.param(sensor, id="sensor"),
    ],
)
def test_each_templated_parameter_is_an_attribute(make):
    made = make()
    assert all(hasattr(made, name) for name in made.template_fields)


# --- the request ---------------------------------------------------------------------------------


def test_a_plain_operator_asks_for_what_the_providers_asks_for():
    assert request() == {"taskDefinition": "nightly:7", "overrides": {}, "launchType": "EC2"}


def test_every_parameter_reaches_run_task_under_its_name():
    import botocore.session

    asked = request(
        launch_type="FARGATE",
        volume_configurations=[{"name": "data"}],
        group="g",
        placement_constraints=[{"type": "distinctInstance"}],
        placement_strategy=[{"type": "spread"}],
        platform_version="LATEST",
        network_configuration={"awsvpcConfiguration": {"subnets": ["s"]}},
        tags={"team": "data"},
        propagate_tags="TASK_DEFINITION",
        run_task_kwargs={"enableExecuteCommand": True, "referenceId": "r", "count": 1},
    )
    assert asked["tags"] == [{"key": "team", "value": "data"}]
    assert asked["placementStrategy"] == [{"type": "spread"}]
    assert asked["enableExecuteCommand"] is True
    assert "count" not in asked
    members = (
        botocore.session.get_session().get_service_model("ecs").operation_model("RunTask").input_shape.members
    )
    assert not set(asked) - set(members)
    assert set(members) - set(asked) == {
        "capacityProviderStrategy",
        "cluster",
        "count",
        "startedBy",
        "clientToken",
        "enableECSManagedTags",
    }


def test_a_capacity_provider_strategy_replaces_the_launch_type():
    strategy = [{"capacityProvider": "FARGATE_SPOT"}]
    asked = request(capacity_provider_strategy=strategy, launch_type="FARGATE")
    assert asked["capacityProviderStrategy"] == strategy
    assert "launchType" not in asked


def test_no_launch_type_leaves_the_choice_to_the_cluster():
    assert "launchType" not in request(launch_type=None)


def test_the_users_values_are_not_changed():
    overrides = {"containerOverrides": [{"name": "main"}]}
    asked = request(overrides=overrides)
    assert asked["overrides"] == {"containerOverrides": [{"name": "main"}]}
    assert overrides == {"containerOverrides": [{"name": "main"}]}


def test_the_address_has_neither_request_nor_cluster():
    service = operator(
        aws_conn_id="other", region_name="eu-west-1", botocore_config={"read_timeout": 9}
    ).remote_jobs({})
    assert json.loads(json.dumps(service.address())) == {
        "aws_conn_id": "other",
        "region_name": "eu-west-1",
        "verify": None,
        "botocore_config": {"read_timeout": 9},
    }


# --- meaning -------------------------------------------------------------------------------------


def test_waiter_delay_is_the_longest_time_between_two_polls():
    assert operator().poll_policy == PollPolicy(interval=6.0)
    assert operator(waiter_delay=60).poll_policy == PollPolicy(interval=60.0)
    assert operator(waiter_delay=1).poll_policy == PollPolicy(interval=1.0, first_interval=1.0)


def test_a_poll_policy_goes_before_waiter_delay():
    assert operator(waiter_delay=60, poll_policy=PollPolicy(interval=9)).poll_policy == PollPolicy(interval=9)


@pytest.mark.parametrize(
    ("given", "waits"),
    [
        pytest.param({}, True, id="by-default-it-waits"),
        pytest.param({"wait_for_completion": False}, False, id="it-need-not-wait"),
        pytest.param(
            {"wait_for_completion": False, "deferrable": True}, True, id="deferrable-implies-waiting"
        ),
        pytest.param({"wait_for_completion": "False"}, False, id="a-rendered-False-is-false"),
        pytest.param({"wait_for_completion": "True"}, True, id="a-rendered-True-is-true"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*deferrable.*waiting defers anyway")
def test_whether_it_waits(given, waits):
    made = operator(**given)
    made.remote_jobs({})
    assert made.wait_for_completion is waits


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        pytest.param(timedelta(minutes=1), 60.0, id="a-timedelta"),
        pytest.param(5, 5.0, id="seconds"),
        pytest.param("7.5", 7.5, id="a-rendered-number"),
        pytest.param(0, 30.0, id="0-is-the-default"),
        pytest.param(0.001, 1.0, id="at-least-a-second"),
    ],
)
def test_the_log_is_read_as_often_as_awslogs_fetch_interval_says(given, seconds):
    made = operator(awslogs_fetch_interval=given)
    made.remote_jobs({})
    assert made.log_interval == seconds


def test_the_log_is_where_the_parameters_say():
    made = operator(
        awslogs_group="/ecs/nightly",
        awslogs_stream_prefix="ecs",
        container_name="main",
        region_name="eu-west-1",
    )
    where = {"group": "/ecs/nightly", "prefix": "ecs", "region": "eu-west-1", "container": "main"}
    assert made.job_log() == where
    made.awslogs_region = "us-east-1"
    assert made.job_log() == {**where, "region": "us-east-1"}


@pytest.mark.parametrize("given", [{}, {"awslogs_group": "g"}, {"awslogs_stream_prefix": "p"}])
def test_without_group_and_prefix_no_log_is_forwarded(given):
    assert operator(**given).job_log() is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        pytest.param("deferrable", True, "defers anyway", id="deferrable"),
        pytest.param("quota_retry", {"stop_after_attempt": 2}, "infrastructure_retries", id="quota_retry"),
        pytest.param("waiter_max_attempts", 10, "execution_timeout", id="waiter_max_attempts"),
        pytest.param("stop_task_on_failure", False, "on_timeout", id="stop_task_on_failure"),
    ],
)
def test_a_parameter_without_effect_says_what_happens_instead(name, value, says):
    with pytest.warns(UserWarning, match=says) as caught:
        operator(**{name: value})
    assert len(caught) == 1
    assert "'nightly'" in str(caught[0].message)
    assert name in str(caught[0].message)


def test_there_is_one_warning_for_all_of_them():
    with pytest.warns(UserWarning, match="waiter_max_attempts.*stop_task_on_failure") as caught:
        operator(stop_task_on_failure=False, waiter_max_attempts=3)
    assert len(caught) == 1


def test_what_keeps_its_meaning_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operator(deferrable=False, waiter_delay=5, skip_on_exit_code=[1], reattach=True, quota_retry=None)


@pytest.mark.parametrize("make", [operator, sensor], ids=["operator", "sensor"])
def test_region_is_another_name_for_region_name(make):
    with pytest.warns(DeprecationWarning, match="region_name='eu-west-1'"):
        made = make(region="eu-west-1")
    assert made.region_name == "eu-west-1"
    with pytest.raises(InvalidParameter, match="region_name='us-east-1'"):
        make(region="eu-west-1", region_name="us-east-1")


def test_default_args_reach_every_parameter():
    with DAG(
        "d",
        schedule=None,
        default_args={"cluster": "etl", "aws_conn_id": "mine", "infrastructure_retries": 5},
    ):
        made = EcsRunTaskOperator(task_id="a", task_definition="n", overrides={})
    assert (made.cluster, made.aws_conn_id, made.infrastructure_retries) == ("etl", "mine", 5)


def test_it_can_be_mapped():
    with DAG("d", schedule=None):
        EcsRunTaskOperator.partial(task_id="a", cluster="etl", task_definition="n", aws_conn_id=None).expand(
            overrides=[{"cpu": "1"}, {"cpu": "2"}]
        )
        EcsTaskStateSensor.partial(task_id="b", cluster="etl", region_name="eu-west-1").expand(
            task=["1", "2"]
        )


# --- bad input -----------------------------------------------------------------------------------

SECRET = "hunter2"

BAD = [
    pytest.param({"task_definition": " "}, "task_definition", id="an-empty-task-definition"),
    pytest.param({"overrides": [SECRET]}, "overrides", id="overrides-that-are-no-dict"),
    pytest.param({"tags": [{"key": "a", "value": SECRET}]}, "tags", id="tags-that-are-no-dict"),
    pytest.param({"cluster": "{ params.cluster }"}, "cluster='{", id="a-cluster-with-one-brace"),
    pytest.param(
        {"cluster": "arn:aws:ecs:eu-west-1:1:task/etl/1"}, "ARN of a cluster", id="the-arn-of-a-task"
    ),
    pytest.param({"task_definition": "nightly 7"}, "task_definition='nightly 7'", id="a-space-in-a-name"),
    pytest.param({"network_configuration": f"subnet {SECRET}"}, "native_obj", id="a-text-that-is-no-dict"),
    pytest.param({"network_configuration": [SECRET]}, "network_configuration", id="a-list-instead-of-a-dict"),
    pytest.param(
        {"placement_strategy": {"type": SECRET}}, "placement_strategy", id="a-dict-instead-of-a-list"
    ),
    pytest.param({"waiter_delay": 0}, "waiter_delay", id="no-time-between-polls"),
    pytest.param({"waiter_delay": float("inf")}, "waiter_delay", id="no-second-poll"),
    pytest.param({"waiter_delay": float("nan")}, "waiter_delay", id="a-time-that-is-no-number"),
    pytest.param({"poll_policy": PollPolicy(first_interval=0)}, "poll_policy", id="a-policy-without-pauses"),
    pytest.param({"waiter_delay": "often"}, "waiter_delay", id="a-time-that-is-none"),
    pytest.param(
        {"awslogs_fetch_interval": "often"}, "awslogs_fetch_interval", id="a-log-interval-that-is-none"
    ),
    pytest.param({"awslogs_fetch_interval": float("inf")}, "awslogs_fetch_interval", id="no-second-read"),
    pytest.param({"number_logs_exception": -1}, "number_logs_exception", id="fewer-than-no-lines"),
    pytest.param({"skip_on_exit_code": "99"}, "skip_on_exit_code", id="an-exit-code-as-text"),
    pytest.param({"on_clear": "sometimes"}, "on_clear", id="on_clear-sometimes"),
    pytest.param({"on_timeout": "wait"}, "on_timeout", id="on_timeout-wait"),
    pytest.param({"infrastructure_retries": -1}, "infrastructure_retries", id="fewer-than-no-retries"),
    pytest.param({"run_task_kwargs": [SECRET]}, "run_task_kwargs", id="further-parameters-that-are-no-dict"),
    pytest.param({"run_task_kwargs": {"count": 2}}, r"count.*\.expand\(\)", id="more-than-one-task"),
    pytest.param({"run_task_kwargs": {"clientToken": SECRET}}, "clientToken", id="a-client-token"),
    pytest.param({"run_task_kwargs": {"startedBy": SECRET}}, "startedBy", id="a-startedBy"),
    pytest.param(
        {"run_task_kwargs": {"cluster": SECRET}}, "parameter cluster instead", id="a-cluster-elsewhere"
    ),
    pytest.param(
        {"run_task_kwargs": {"taskDefinition": SECRET}},
        "parameter task_definition",
        id="a-definition-elsewhere",
    ),
    pytest.param(
        {"run_task_kwargs": {"launchtype": SECRET}}, "launchtype", id="a-parameter-that-run-task-lacks"
    ),
]


@pytest.mark.parametrize(("given", "says"), BAD)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(given, says):
    with pytest.raises(InvalidParameter, match=says) as caught:
        operator(**given)
    assert "'nightly'" in str(caught.value)
    assert "write" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("missing", ["cluster", "task_definition", "overrides"])
def test_a_missing_parameter_is_named_with_its_task(missing):
    given = {"cluster": "etl", "task_definition": "n", "overrides": {}}
    del given[missing]
    with pytest.raises(InvalidParameter, match=f"'nightly': {missing}"):
        EcsRunTaskOperator(task_id="nightly", **given)


@pytest.mark.parametrize(
    ("name", "template", "rendered"),
    [
        pytest.param("cluster", "{{ params.cluster }}", "", id="cluster"),
        pytest.param("cluster", "{{ params.cluster }}", "None", id="cluster-that-was-not-found"),
        pytest.param("task_definition", "{{ params.task }}", "None", id="task_definition"),
        pytest.param("network_configuration", "{{ params.net }}", "x", id="network_configuration"),
        pytest.param("placement_constraints", "{{ params.place }}", "{}", id="placement_constraints"),
        pytest.param("overrides", "{{ params.overrides }}", "[]", id="overrides"),
        pytest.param("number_logs_exception", "{{ params.lines }}", "many", id="number_logs_exception"),
        pytest.param("run_task_kwargs", "{{ params.more }}", "x", id="run_task_kwargs"),
    ],
)
def test_a_template_is_checked_when_it_has_been_rendered(name, template, rendered):
    made = operator(**{name: template})
    setattr(made, name, rendered)
    with pytest.raises(InvalidParameter, match=name):
        made.remote_jobs({})


STRUCTURES = {
    "overrides": {"containerOverrides": [{"name": "main", "command": ["it's", 'a "b"']}]},
    "network_configuration": {"awsvpcConfiguration": {"subnets": ["s-1"], "assignPublicIp": "ENABLED"}},
    "capacity_provider_strategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}],
    "volume_configurations": [{"name": "data"}],
    "placement_constraints": [{"type": "distinctInstance"}],
    "placement_strategy": [{"type": "spread"}],
    "tags": {"team": "data"},
    "run_task_kwargs": {"enableExecuteCommand": True},
}


@pytest.mark.parametrize("write", [json.dumps, str], ids=["json", "python"])
@pytest.mark.parametrize("given", ["rendered", "at-parse-time"])
def test_a_dict_or_a_list_may_be_the_text_that_a_template_renders(write, given):
    texts = {name: write(value) for name, value in STRUCTURES.items()}
    if given == "rendered":
        made = operator(**dict.fromkeys(texts, "{{ params.it }}"))
        for name, text in texts.items():
            setattr(made, name, text)
    else:
        made = operator(**texts)
    assert dict(made.remote_jobs({}).request) == request(**STRUCTURES)


@pytest.mark.parametrize("text", ["None", "", " "])
def test_an_optional_dict_or_list_that_a_template_has_not_found_is_left_out(text):
    made = operator(**{name: text for name in STRUCTURES if name != "overrides"})
    assert dict(made.remote_jobs({}).request) == request()


def test_the_result_of_another_task_is_checked_when_it_is_there():
    with DAG("d", schedule=None):
        before = operator(task_id="before")
        operator(cluster=before.output, overrides=before.output)


# --- the sensor ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "failures", "until"),
    [
        pytest.param("RUNNING", None, ["RUNNING", "STOPPED"], id="strings"),
        pytest.param(
            EcsTaskStates.STOPPED, {EcsTaskStates.NONE}, ["STOPPED", "NONE"], id="the-providers-enumeration"
        ),
        pytest.param("PENDING", ["STOPPED", "STOPPING"], ["PENDING", "STOPPED", "STOPPING"], id="a-list"),
        pytest.param("PENDING", "STOPPING", ["PENDING", "STOPPING"], id="one-alone"),
    ],
)
def test_the_sensor_waits_for_states_by_name(target, failures, until):
    made = sensor(target_state=target, failure_states=failures)
    assert made.until() == ("last_status", until)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        pytest.param(
            {"task": "{ ti.xcom_pull('x') }"}, "a template {{ ... }}", id="a-template-with-one-brace"
        ),
        pytest.param({"task": "arn:aws:ecs:eu-west-1:1:cluster/etl"}, "task='arn", id="the-arn-of-a-cluster"),
        pytest.param({"cluster": "my etl"}, "cluster='my etl'", id="a-cluster-with-a-space"),
        pytest.param(
            {"target_state": "DANCING"}, "target_state='DANCING'.*RUNNING", id="a-state-that-is-none"
        ),
        pytest.param(
            {"failure_states": {"DEAD"}}, "failure_states='DEAD'", id="a-failure-state-that-is-none"
        ),
    ],
)
def test_the_sensor_refuses_what_cannot_work(given, says):
    with pytest.raises(InvalidParameter, match=says) as caught:
        sensor(**given)
    assert "'wait'" in str(caught.value)


@pytest.mark.parametrize(
    "task", ["0123abcd", "0123-abcd", "arn:aws-cn:ecs:cn-north-1:1:task/etl/0123", "{{ 1 }}"]
)
def test_the_sensor_takes_ids_arns_and_templates(task):
    assert sensor(task=task).task == task


def test_the_sensor_looks_at_a_template_when_it_has_been_rendered():
    made = sensor(task="{{ ti.xcom_pull('x') }}")
    made.task = "None"
    for visit in (made.remote_jobs, made.watched):
        with pytest.raises(InvalidParameter, match="task='None'"):
            visit({})


def test_the_sensor_takes_what_every_sensor_takes():
    with pytest.warns(UserWarning, match=r"mode \(the sensor defers"):
        made = sensor(mode="reschedule", poke_interval=5, timeout=60, soft_fail=True)
    assert (made.poke_interval, made.timeout, made.soft_fail) == (5, 60, True)
    assert sensor(target_state="{{ params.state }}").target_state == "{{ params.state }}"


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        pytest.param(EcsRunTaskOperator, {"task_definition": "nightly", "overrides": {}}, id="operator"),
        pytest.param(EcsTaskStateSensor, {"task": "0123"}, id="sensor"),
    ],
)
def test_a_deprecated_region_is_warned_about_at_the_line_that_gives_it(kind, parameters):
    with pytest.warns(DeprecationWarning, match="write region_name='eu-west-1'") as caught:
        kind(task_id="t", cluster="etl", region="eu-west-1", **parameters)
    assert [each.filename for each in caught if "region_name" in str(each.message)] == [__file__]
