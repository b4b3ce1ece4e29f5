"""Any JSON value in any parameter: it is taken, or refused with the place and what to write there.

The parameters are those of the signatures of every operator and sensor of the registry. What the SDK that
sends the request refuses because of its shape is refused before, and no message of ours stumbles over it.
"""

from __future__ import annotations

import inspect
import warnings
from datetime import datetime, timezone
from importlib import import_module
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_resilient import registry
from airflow_resilient.compat import AirflowException
from airflow_resilient.core.shapes import Fields, ListOf, MapOf, OneOf, Plain, Shape
from airflow_resilient.errors import InvalidParameter
from airflow_resilient.operators import RemoteJobOperator
from airflow_resilient.services.ecs.request import SHAPES as ECS_SHAPES
from airflow_resilient.services.emr_steps.request import STEP

SECRET = "hunter2"

TEXTS = st.sampled_from([SECRET, "", "a", "s-1", "1", "1g"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)

REQUIRED = {"cluster", "task_definition", "overrides", "task", "job_flow_id", "step_id", "steps", "image"}
FITS = {"overrides": ({},), "job_flow_id": (None, "")}
"""Empty values that are right, or that are refused with the look-up of the cluster."""

GIVEN = {
    "cluster": "etl",
    "task_definition": "nightly",
    "overrides": {},
    "aws_conn_id": None,
    "task": "0123abcd",
    "job_flow_id": "j-1",
    "step_id": "s-1",
    "steps": [{"Name": "sort", "HadoopJarStep": {"Jar": "a.jar"}}],
    "image": "etl:7",
    "docker_url": "unix://nowhere.sock",
}
"""Values for the parameters that must be given."""

NOT_SHAPED = {
    "poll_policy": "no JSON value is one",
    "deferrable": "only its truth counts",
    "mode": "Airflow checks it",
}


def classes():
    for name, module in registry.public_names().items():
        yield getattr(import_module(module), name)


def parameters(kind):
    ours = [each for each in kind.__mro__ if each.__module__.startswith("airflow_resilient")]
    found = {name for each in ours for name in inspect.signature(each.__init__).parameters}
    return sorted(found - {"self", "args", "kwargs"})


def given_of(kind, changed=""):
    """The parameters that must be given, beside one that is about to be changed."""
    without = {"job_flow_name": "job_flow_id"}.get(changed)
    return {name: value for name, value in GIVEN.items() if name in parameters(kind) and name != without}


def context(task):
    ti = SimpleNamespace(
        dag_id="d",
        run_id="r",
        task_id="t",
        map_index=-1,
        try_number=1,
        max_tries=0,
        start_date=None,
        task=task,
        xcom_push=lambda key, value: None,
    )
    return {"ti": ti, "dag_run": SimpleNamespace(start_date=datetime.now(timezone.utc))}


def shape_toward(shape: Shape) -> st.SearchStrategy:
    """Values that are right at most places, and any JSON value at some."""
    right: st.SearchStrategy
    if isinstance(shape, Plain):
        fitting = {str: TEXTS, int: st.integers(), float: st.floats(allow_nan=False, allow_infinity=False)}
        fitting |= {bool: st.booleans(), type(None): st.none()}
        right = st.one_of(*(fitting[each] for each in shape.types if each in fitting)) | st.nothing()
        right = JSON if right.is_empty else right
    elif isinstance(shape, ListOf):
        right = st.lists(shape_toward(shape.each), max_size=2)
    elif isinstance(shape, MapOf):
        right = st.dictionaries(TEXTS, shape_toward(shape.each), max_size=2)
    elif isinstance(shape, Fields):
        known = {name: shape_toward(each) for name, each in shape.known.items()}
        required = {name: each for name, each in known.items() if name in shape.required}
        unneeded = {name: each for name, each in known.items() if name not in required}
        right = st.fixed_dictionaries(required, optional={**unneeded, "unknown": JSON})
    else:
        assert isinstance(shape, OneOf)
        right = st.one_of(*map(shape_toward, shape.shapes))
    return st.integers(0, 9).flatmap(lambda dice: JSON if dice == 0 else right)


def shapes_of(kind):
    request = import_module(kind.__module__.rpartition(".")[0] + ".request")
    shapes = {each.lstrip("_"): shape for each, shape in request.SHAPES.items()}
    return {**shapes, "steps": ListOf(STEP, "")}


def nested(kind, name):
    """Whether the parameter is a list or a dict."""
    shape = shapes_of(kind).get(name)
    return shape is not None and not all(
        isinstance(each, Plain) for each in getattr(shape, "shapes", [shape])
    )


def values_for(kind, name):
    return JSON | shape_toward(shapes_of(kind)[name])


PARAMETERS = [
    pytest.param(kind, name, id=f"{kind.__name__}-{name}")
    for kind in classes()
    for name in parameters(kind)
    if name not in NOT_SHAPED
]


def taken(kind, name, value):
    """Hand the value over as the DAG's author does: the service, or ``None`` if it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = kind(task_id="t", **{**given_of(kind, name), name: value})
            service = made.remote_jobs(context(made))
            if name == "steps":
                service._checked_steps()
        except InvalidParameter as error:
            check_message(error, name)
            return None
        return service


def rendered(kind, name, value):
    """Hand it over as a template that is rendered to the value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = kind(task_id="t", **{**given_of(kind, name), name: "{{ params.value }}"})
        setattr(made, name, value)
        try:
            service = made.remote_jobs(context(made))
            if name == "steps":
                service._checked_steps()
            if hasattr(made, "until"):
                made.until()
        except InvalidParameter as error:
            check_message(error, name)


def check_message(error, name):
    text = str(error)
    assert name in text, "it names the parameter"
    assert "write" in text, "it says what to write"
    assert "\n" not in text


WRONG = [
    *(None, True, 5, 0.5, float("nan"), 10**400, "", "a", [], [None], [5], ["a"], [[]], {}),
    *({"a": None}, {"a": 5}, {"a": {"b": [SECRET]}}, [{"a": SECRET}], [{"Name": 5}], {"a": [SECRET]}),
]


@pytest.mark.parametrize(("kind", "name"), PARAMETERS)
def test_any_value_is_taken_or_refused_with_its_place(kind, name):
    for value in WRONG:
        taken(kind, name, value)
        if name in kind.template_fields:
            rendered(kind, name, value)


@pytest.mark.parametrize(
    ("kind", "name"), [pytest.param(*each.values, id=each.id) for each in PARAMETERS if nested(*each.values)]
)
def test_a_value_that_is_wrong_somewhere_inside_is_taken_or_refused_with_its_place(kind, name):
    @settings(max_examples=50)
    @given(value=values_for(kind, name))
    def try_it(value):
        taken(kind, name, value)
        if name in kind.template_fields:
            rendered(kind, name, value)

    try_it()


STRUCTURED = [
    "overrides",
    "tags",
    "run_task_kwargs",
    "volume_configurations",
    "steps",
    "environment",
    "mounts",
]


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*each.values, id=each.id) for each in PARAMETERS if each.values[1] in STRUCTURED],
)
def test_a_refused_structure_does_not_show_what_is_in_it(kind, name):
    @settings(max_examples=50, suppress_health_check=list(HealthCheck))
    @given(value=values_for(kind, name).filter(lambda value: isinstance(value, list | dict)))
    def try_it(value):
        message = ""
        try:
            kind(task_id="t", **{**given_of(kind), name: value})
        except InvalidParameter as error:
            message = str(error)
        assert SECRET not in message.replace(f"'{SECRET}'", "")  # a key is a name

    try_it()


# --- the SDK as an oracle -------------------------------------------------------------------------


def complaints(service, operation, request):
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    shape = get_session().get_service_model(service).operation_model(operation).input_shape
    found = ParamValidator().validate(request, shape)
    report = found.generate_report().splitlines()
    return [line for line in report if line.startswith(("Invalid type", "Missing required"))]


ECS_ARGUMENTS = [
    name for name in ECS_SHAPES if name not in ("cluster", "container_name") and "awslogs" not in name
]


@pytest.mark.parametrize("name", ECS_ARGUMENTS)
def test_what_boto3_refuses_because_of_its_shape_is_refused_before_for_ecs(name):
    from airflow_resilient import EcsRunTaskOperator

    @settings(max_examples=60)
    @given(value=shape_toward(ECS_SHAPES[name]))
    def try_it(value):
        service = taken(EcsRunTaskOperator, name, value)
        if service is not None:
            assert not complaints("ecs", "RunTask", service.request)

    try_it()


@settings(max_examples=100)
@given(value=st.lists(shape_toward(STEP), min_size=1, max_size=2))
def test_what_boto3_refuses_because_of_its_shape_is_refused_before_for_emr(value):
    from airflow_resilient import EmrAddStepsOperator

    service = taken(EmrAddStepsOperator, "steps", value)
    if service is not None:
        assert not complaints(
            "emr", "AddJobFlowSteps", {"JobFlowId": "j-1", "Steps": service._checked_steps()}
        )


def model(service, operation):
    from botocore.session import get_session

    return get_session().get_service_model(service).operation_model(operation).input_shape


TYPES = {"string": str, "integer": int, "boolean": bool}


def differences(shape, ours, place):
    """Where a table of shapes differs from botocore's model."""
    if isinstance(ours, OneOf):
        ours = ours.shapes[-1]
    if shape.type_name == "list":
        if not isinstance(ours, ListOf):
            return [f"{place}: {ours}"]
        return differences(shape.member, ours.each, f"{place}[]")
    if shape.type_name == "structure":
        if not isinstance(ours, Fields):
            return [f"{place}: {ours}"]
        new = set(shape.members) - set(ours.known)  # an older boto3 has fewer
        found = [f"{place}: {new}"] if new else []
        if set(shape.required_members) != set(ours.required):
            found.append(f"{place}: required {shape.required_members}")
        for name in set(shape.members) & set(ours.known):
            found += differences(shape.members[name], ours.known[name], f"{place}.{name}")
        return found
    return [] if ours.types == (TYPES[shape.type_name],) else [f"{place}: {ours.types}"]


def test_the_shapes_of_run_task_are_those_of_boto3():
    from airflow_resilient.services.ecs.operator import _REQUEST

    members = model("ecs", "RunTask").members
    found = []
    for ours, name in _REQUEST.items():
        if ours != "tags":  # a dict here, a list there
            found += differences(members[name], ECS_SHAPES[ours], name)
    assert not found, "adapt services/ecs/request.py"


def test_the_shape_of_a_step_is_that_of_boto3():
    found = differences(model("emr", "AddJobFlowSteps").members["Steps"].member, STEP, "Steps[]")
    assert [each for each in found if "required" not in each] == [], "adapt services/emr_steps/request.py"


# --- rows -----------------------------------------------------------------------------------------

STEP_OF = {"Name": "sort", "HadoopJarStep": {"Jar": "a.jar"}}


def step(**jar):
    return [{**STEP_OF, "HadoopJarStep": {"Jar": "a.jar", **jar}}]


def overrides(**container):
    return {"containerOverrides": [{"name": "main", **container}]}


ROWS = [
    (
        "EmrAddStepsOperator",
        "steps",
        step(Properties={"fs.s3a.secret.key": SECRET}),
        "['Properties'] is a dict",
    ),
    ("EmrAddStepsOperator", "steps", step(Properties=[SECRET]), "['Properties'][0] is a str"),
    ("EmrAddStepsOperator", "steps", step(Properties=[{"Key": "a", "Value": 5}]), "[0]['Value'] is a int"),
    ("EmrAddStepsOperator", "steps", step(Args=5), "['Args'] is a int"),
    ("EmrAddStepsOperator", "steps", step(Args=SECRET), "['Args'] is a str"),
    ("EmrAddStepsOperator", "steps", step(Args=["a", 5]), "['Args'][1] is a int"),
    (
        "EmrAddStepsOperator",
        "steps",
        [{"Name": {"a": SECRET}, "HadoopJarStep": {"Jar": "a"}}],
        "['Name'] is a dict",
    ),
    ("EmrAddStepsOperator", "steps", [{**STEP_OF, "HadoopJarStep": [SECRET]}], "['HadoopJarStep'] is a list"),
    ("EmrAddStepsOperator", "steps", step(Jar=[SECRET]), "['Jar'] is a list"),
    ("EmrAddStepsOperator", "cluster_states", {"a": SECRET}, "cluster_states is not valid (dict)"),
    ("EcsRunTaskOperator", "overrides", [SECRET], "overrides is not valid (list)"),
    (
        "EcsRunTaskOperator",
        "overrides",
        {"containerOverrides": {"main": SECRET}},
        "['containerOverrides'] is",
    ),
    (
        "EcsRunTaskOperator",
        "overrides",
        overrides(environment={"A": SECRET}),
        "['environment'] is not valid (dict)",
    ),
    (
        "EcsRunTaskOperator",
        "overrides",
        overrides(environment=[{"name": "A", "value": 5}]),
        "[0]['value'] is not",
    ),
    ("EcsRunTaskOperator", "overrides", overrides(command=SECRET), "['command'] is not valid (str)"),
    ("EcsRunTaskOperator", "overrides", overrides(cpu="1024"), "['cpu'] is not valid (str)"),
    ("EcsRunTaskOperator", "tags", [{"key": "a", "value": SECRET}], "tags is not valid (list)"),
    ("EcsRunTaskOperator", "tags", {"a": 5}, "tags['a'] is not valid (int)"),
    (
        "EcsRunTaskOperator",
        "network_configuration",
        {"awsvpcConfiguration": ["s"]},
        "['awsvpcConfiguration'] is",
    ),
    (
        "EcsRunTaskOperator",
        "network_configuration",
        {"awsvpcConfiguration": {"assignPublicIp": "ENABLED"}},
        "['subnets'] is not valid",
    ),
    ("EcsRunTaskOperator", "network_configuration", ["s"], "network_configuration is not valid (list)"),
    ("EcsRunTaskOperator", "capacity_provider_strategy", {"capacityProvider": "a"}, "is not valid (dict)"),
    ("EcsRunTaskOperator", "botocore_config", [1], "botocore_config is not valid (list)"),
    ("EcsRunTaskOperator", "poll_policy", {"interval": 5}, "poll_policy is not valid (dict)"),
    ("EcsRunTaskOperator", "cluster", {"a": SECRET}, "cluster is not valid (dict)"),
    ("EmrStepSensor", "target_states", 5, "target_states is not valid (int)"),
    ("EcsTaskStateSensor", "failure_states", [{"a": SECRET}], "failure_states is not valid (dict)"),
    ("DockerOperator", "environment", [f"A={SECRET}"], "environment is not valid (list)"),
    ("DockerOperator", "environment", {"A": {"b": SECRET}}, "environment['A'] is not valid (dict)"),
    ("DockerOperator", "private_environment", SECRET, "private_environment is not valid (str)"),
    (
        "DockerOperator",
        "private_environment",
        {"A": [SECRET]},
        "private_environment['A'] is not valid (list)",
    ),
    ("DockerOperator", "mounts", {"target": "/a"}, "mounts is not valid (dict)"),
    ("DockerOperator", "mounts", ["/a:/b"], "mounts[0] is not valid (str)"),
    ("DockerOperator", "mounts", [{"target": 5}], "mounts[0]['target'] is not valid (int)"),
    ("DockerOperator", "command", {"a": SECRET}, "command is not valid (dict)"),
    ("DockerOperator", "command", ["a", 5], "command[1] is not valid (int)"),
    ("DockerOperator", "labels", {"a": 5}, "labels['a'] is not valid (int)"),
    ("DockerOperator", "docker_url", f"tcp://me:{SECRET}@build:2375", "docker_url is not valid"),
    ("DockerOperator", "cpus", "two", "cpus is not valid (str)"),
    ("DockerOperator", "skip_on_exit_code", ["99"], "skip_on_exit_code is not valid (list)"),
]


@pytest.mark.parametrize("value", [None, "", [], {}])
@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*each.values, id=each.id) for each in PARAMETERS if each.values[1] in REQUIRED],
)
def test_an_empty_value_is_refused_when_the_task_runs_and_not_when_the_dag_is_parsed(kind, name, value):
    """A variable that is missing where DAGs are only parsed must not break a file; a subclass may fill in."""
    if value in FITS.get(name, ()):
        return
    made = kind(task_id="t", **{**given_of(kind, name), name: value})

    def run():
        service = made.remote_jobs(context(made))
        if name == "steps":
            service._checked_steps()

    with pytest.raises(InvalidParameter, match=rf"{name}.*write"):
        run()
    setattr(made, name, given_of(kind)[name])
    made.remote_jobs(context(made))


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*each.values, id=each.id) for each in PARAMETERS if each.values[1] in REQUIRED - {"steps"}],
)
def test_a_required_parameter_that_is_not_given_is_refused_when_the_dag_is_parsed(kind, name):
    given = {key: value for key, value in given_of(kind).items() if key != name}
    with pytest.raises((InvalidParameter, TypeError, AirflowException), match=name):
        kind(task_id="t", **given)


def test_an_empty_value_deep_inside_is_refused_when_the_task_runs():
    from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator

    unset = overrides(environment=[{"name": "TOKEN", "value": None}])
    made = EcsRunTaskOperator(task_id="t", **{**given_of(EcsRunTaskOperator), "overrides": unset})
    with pytest.raises(
        InvalidParameter, match=r"\['environment'\]\[0\]\['value'\] is not valid \(NoneType\)"
    ):
        made.remote_jobs(context(made))
    made = EmrAddStepsOperator(task_id="t", **{**given_of(EmrAddStepsOperator), "steps": step(Args=[None])})
    with pytest.raises(InvalidParameter, match=r"\['Args'\]\[0\] has no value"):
        made.remote_jobs(context(made))._checked_steps()


@pytest.mark.parametrize(("kind", "name", "value", "says"), ROWS)
def test_a_wrong_shape_is_refused_when_the_dag_is_parsed(kind, name, value, says):
    (found,) = [each for each in classes() if each.__name__ == kind]
    with pytest.raises(InvalidParameter) as caught:
        found(task_id="t", **{**given_of(found), name: value})
    assert "'t'" in str(caught.value)
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        pytest.param("mounts", [{"src": "/a", "target": "/b"}], "mounts[0]", id="a-keyword-that-mounts-lack"),
        pytest.param(
            "mounts", [{"target": "/b", "type": "drive"}], "mounts[0]", id="a-type-that-mounts-lack"
        ),
        pytest.param("mem_limit", "lots", "mem_limit", id="no-size"),
        pytest.param("ulimits", [{"limit": 1}], "ulimits", id="a-keyword-that-ulimits-lack"),
        pytest.param("port_bindings", {"a": {"b": "c"}}, "port", id="no-port"),
    ],
)
def test_what_only_the_docker_sdk_refuses_is_refused_before_any_call(name, value, says):
    from airflow_resilient import DockerOperator

    made = DockerOperator(task_id="t", image="etl:7", **{name: value})
    with pytest.raises(InvalidParameter, match="'t'") as caught:
        made.remote_jobs(context(made))
    assert says in str(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


@pytest.mark.parametrize("kind", [kind for kind in classes() if issubclass(kind, RemoteJobOperator)])
def test_a_template_inside_of_a_structure_is_checked_when_it_has_been_rendered(kind):
    (name, _), *_ = [
        (name.lstrip("_"), shape)
        for name, shape in import_module(kind.__module__.rpartition(".")[0] + ".request").SHAPES.items()
        if name in kind.template_fields and not isinstance(shape, Plain)
    ]
    made = kind(task_id="t", **{**given_of(kind), name: "{{ params.value }}"})
    setattr(made, name, 5.5)
    with pytest.raises(InvalidParameter, match=name):
        made.remote_jobs(context(made))
