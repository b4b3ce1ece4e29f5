"""A value of the user's stands in no message, log, XCom, event, exception or command-line output.

The parameters are those of the signatures of every operator and sensor of the registry. Each holds a mark in
every place that takes a text, unless it stands in one of the tables below, with the reason why it is shown.
"""

from __future__ import annotations

import copy
import inspect
import json
import logging
import pickle
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import PollPolicy, compat, registry
from airflow_resilient.core.shapes import Fields, ListOf, MapOf, OneOf, Plain
from airflow_resilient.errors import InvalidParameter, ResilientError
from airflow_resilient.operations.explain import explain, format_explanation
from airflow_resilient.operations.task_instances import Instance
from airflow_resilient.operators import RemoteJobOperator
from airflow_resilient.services._aws import ACCESS_SHAPES
from airflow_resilient.services.emr_steps.request import STEP
from airflow_resilient.testing import FakeAws, FakeDocker, TaskTries
from airflow_resilient.testing.task_tries import Deferred

CORE = "hunter2"
"""Part of every mark: it must be nowhere."""

MARKS = {
    "plain": f"{CORE}-{{}}",
    "escaped-in-json-and-urls": f"{CORE} \"{{}}\" 'ü' \\ & =",
    "several-lines": f"{CORE}\n  and {{}} more\n",
}

NAMES = "the name, id or place of a thing that exists; no message could say what is meant without it"
CHOICES = "one of the service's own words"
PATHS = "a path or a URL, refused with a password in it"

SHOWN = {
    # AWS
    **dict.fromkeys(["aws_conn_id", "region_name", "region", "awslogs_region"], NAMES),
    **dict.fromkeys(["cluster", "task_definition", "group", "container_name", "platform_version"], NAMES),
    **dict.fromkeys(["capacity_provider_strategy", "network_configuration"], NAMES),
    **dict.fromkeys(["awslogs_group", "awslogs_stream_prefix", "task"], NAMES),
    **dict.fromkeys(["job_flow_id", "job_flow_name", "execution_role_arn", "step_id"], NAMES),
    **dict.fromkeys(
        ["launch_type", "propagate_tags", "placement_constraints", "placement_strategy"], CHOICES
    ),
    **dict.fromkeys(["cluster_states", "target_states", "failed_states"], CHOICES),
    **dict.fromkeys(["target_state", "failure_states"], CHOICES),
    "verify": PATHS,
    "mode": CHOICES,
    # Docker
    **dict.fromkeys(["image", "network_mode", "user", "hostname", "docker_conn_id", "ipc_mode"], NAMES),
    **dict.fromkeys(["dns", "dns_search", "extra_hosts", "port_bindings", "mem_limit", "shm_size"], NAMES),
    **dict.fromkeys(["cap_add", "device_requests", "ulimits", "api_version", "auto_remove"], CHOICES),
    **dict.fromkeys(["log_opts_max_size", "log_opts_max_file", "tls_hostname", "tls_ssl_version"], CHOICES),
    **dict.fromkeys(["docker_url", "tls_ca_cert", "tls_client_cert", "tls_client_key"], PATHS),
    **dict.fromkeys(["working_dir", "tmp_dir", "host_tmp_dir", "retrieve_output_path"], PATHS),
}
"""Parameters whose values may stand in a message."""

FIELDS = {
    **dict.fromkeys(
        ["name", "key", "Name", "Key", "LogUri", "EncryptionKeyArn", "Jar", "MainClass", "executionRoleArn"],
        NAMES,
    ),
    **dict.fromkeys(["taskRoleArn", "roleArn", "target", "source", "Target", "Source"], NAMES),
    **dict.fromkeys(
        ["type", "Type", "resourceType", "volumeType", "filesystemType", "ActionOnFailure"], CHOICES
    ),
    **dict.fromkeys(["cpu", "memory", "memoryReservation", "sizeInGiB", "tmpfs_size"], "a number"),
    **dict.fromkeys(
        ["read_only", "ReadOnly", "no_copy", "consistency", "Consistency", "propagation"], CHOICES
    ),
    **dict.fromkeys(["BindOptions", "TmpfsOptions"], CHOICES),
}
"""Fields inside of structured parameters whose values may stand in a message."""


NEUTRAL = {"ActionOnFailure": "CONTINUE", "type": "s3"}

TRUTHS = (
    *("deferrable", "openlineage_inject_parent_job_info", "wait_for_completion", "reattach"),
    *("stop_task_on_failure", "force_pull", "xcom_all", "retrieve_output", "mount_tmp_dir", "tls_verify"),
)
"""Parameters of which only the truth counts."""

NOT_SENT = ("botocore_config", "quota_retry", "waiter_max_attempts")
"""Parameters that no service gets, so that none quotes them."""


# --- marks ----------------------------------------------------------------------------------------


@dataclass
class Marks:
    """Makes values with a different mark in each place that takes a text."""

    text: str
    made: list[str]

    def new(self) -> str:
        self.made.append(self.text.format(len(self.made)))
        return self.made[-1]

    def value(self, shape):
        """A value of that shape, full of marks."""
        if isinstance(shape, Plain):
            if str in shape.types or object in shape.types:
                return self.new()
            return next((one for one in (True, 1, None, {}) if shape.fits(one)), None)
        if isinstance(shape, ListOf):
            return [self.value(shape.each)]
        if isinstance(shape, MapOf):
            return {f"NAME_{len(self.made)}": self.value(shape.each)}  # none replaces another
        if isinstance(shape, Fields):
            return {
                name: NEUTRAL.get(name, "x") if name in FIELDS and takes_text(each) else self.value(each)
                for name, each in shape.known.items()
            }
        assert isinstance(shape, OneOf)
        return self.value(max(shape.shapes, key=takes_text))


def takes_text(shape) -> bool:
    if isinstance(shape, Plain):
        return str in shape.types or object in shape.types
    if isinstance(shape, ListOf | MapOf):
        return takes_text(shape.each)
    return any(map(takes_text, shape.known.values() if isinstance(shape, Fields) else shape.shapes))


# --- parameters -----------------------------------------------------------------------------------


def classes():
    for name, module in registry.public_names().items():
        yield getattr(import_module(module), name)


def parameters(kind):
    """Names of the parameters that this package adds to Airflow's."""
    ours = [each for each in kind.__mro__ if each.__module__.startswith("airflow_resilient")]
    found = {name for each in ours for name in inspect.signature(each.__init__).parameters}
    return sorted(found - {"self", "args", "kwargs"})


def shapes_of(kind):
    folder = import_module(kind.__module__.rpartition(".")[0] + ".request")
    found = {**ACCESS_SHAPES, **folder.SHAPES, "steps": ListOf(STEP, "")}
    return {name.lstrip("_"): shape for name, shape in found.items()}


SPECIAL = {
    # Keywords of botocore's: only the URL of a proxy holds a secret.
    "botocore_config": lambda marks: {
        "retries": {"total_max_attempts": 1},
        "proxies": {"https": f"http://me:{quote(marks.new())}@proxy.example.com:3128"},
    },
    "env_file": lambda marks: f"TOKEN='{marks.new()}'\n",
    # Both forms of a mount: the SDK's keywords, and the API's with a password for a share.
    "mounts": lambda marks: [
        {
            "target": "/a",
            "source": "a",
            "type": "volume",
            "driver_config": {"Name": "local", "Options": {"o": f"username=etl,password={marks.new()}"}},
        },
        {
            "Target": "/b",
            "Type": "volume",
            "VolumeOptions": {"DriverConfig": {"Options": {"o": f"password={marks.new()}"}}},
        },
    ],
    "quota_retry": lambda marks: {"stop": marks.new()},
}
"""Where a mark anywhere in the value would be no secret, or nothing that is taken."""


@dataclass
class Scene:
    """How the operator of a service is run against its fake.

    :param given: parameters without which it cannot run.
    :param ways: by name: ``way(fake, quoted)`` lets the fake answer with a text that quotes the request.
    :param ends: ways that quote only these parameters: of an ended job AWS knows no more.
    """

    open: object
    given: dict
    ways: dict
    ends: dict = field(default_factory=dict)


def marked(kind, given, text):
    """Parameters full of marks, and the marks of each; refused ones hold no text."""
    marks, shapes, found, made = Marks(text, []), shapes_of(kind), {}, {}
    for name in parameters(kind):
        if name in SHOWN or name in TRUTHS:
            continue
        before = len(marks.made)
        if name in SPECIAL:
            value = SPECIAL[name](marks)
        elif name in shapes:
            value = marks.value(shapes[name])
        else:
            value = marks.new()
        if len(marks.made) == before:
            continue
        try:
            kind(task_id="t", **{**given, name: value})
        except InvalidParameter:
            continue  # it holds a number or one of a few words
        found[name], made[name] = value, marks.made[before:]
    return found, made


# --- the fakes ------------------------------------------------------------------------------------


@contextmanager
def ecs():
    with FakeAws() as fake:
        fake.make_ecs_cluster("etl")
        fake.make_task_definition("nightly", containers=("x",))
        fake.ecs.plan("nightly", seconds=0.1)
        yield fake, {}


@contextmanager
def emr():
    with FakeAws() as fake:
        fake.emr.plan(seconds=0.1)
        yield fake, {"job_flow_id": fake.make_emr_cluster("etl")}


@contextmanager
def docker():
    with FakeDocker() as fake:
        fake.plan("etl:7", seconds=0.1)
        yield fake, {"docker_url": fake.url}


def aws_error(operation, code, text="{}", **more):
    return lambda fake, quoted: fake.fail_next(
        operation, code, message=text.replace("{}", quoted), times=None, **more
    )


def engine_error(operation, status, text="bad value {}"):
    return lambda fake, quoted: fake.fail_next(
        operation, status=status, message=text.replace("{}", quoted), times=None
    )


def nothing(fake, quoted):
    """It succeeds."""


SCENES = {
    "ecs": Scene(
        ecs,
        {"cluster": "etl", "task_definition": "nightly", "launch_type": "FARGATE", "aws_conn_id": None},
        {
            "it-succeeds": nothing,
            "refused": aws_error("ecs:RunTask", "InvalidParameterException"),
            "denied": aws_error("ecs:RunTask", "AccessDeniedException"),
            "an-error-of-another-kind": aws_error("ecs:RunTask", "SomethingNewException", status=418),
            "throttled": aws_error("ecs:RunTask", "ThrottlingException"),
            "an-error-of-aws": aws_error("ecs:RunTask", "ServerException", status=500),
            "no-capacity": aws_error(
                "ecs:RunTask", "ClientException", "Capacity is unavailable at this time {}"
            ),
            "a-failure": lambda fake, quoted: fake.ecs.plan("nightly", failure=f"MISSING {quoted}"),
            "a-failure-for-lack-of-capacity": lambda fake, quoted: fake.ecs.plan(
                "nightly", failure=f"RESOURCE:{quoted}"
            ),
            "it-cannot-start": lambda fake, quoted: fake.ecs.plan(
                "nightly", stop_code="TaskFailedToStart", reason=f"exec {quoted}", container_reason=quoted
            ),
            "it-fails": lambda fake, quoted: fake.ecs.plan(
                "nightly", seconds=0.1, exit_code=1, reason=quoted, container_reason=quoted
            ),
        },
        {"it-cannot-start": ["overrides"], "it-fails": ["overrides"]},
    ),
    "emr_steps": Scene(
        emr,
        {"aws_conn_id": None, "wait_for_completion": True},
        {
            "it-succeeds": nothing,
            "refused": aws_error("emr:AddJobFlowSteps", "ValidationException"),
            "denied": aws_error("emr:AddJobFlowSteps", "AccessDeniedException"),
            "an-error-of-another-kind": aws_error("emr:AddJobFlowSteps", "SomethingNewException", status=418),
            "throttled": aws_error("emr:AddJobFlowSteps", "ThrottlingException"),
            "an-error-of-aws": aws_error("emr:AddJobFlowSteps", "InternalServerException", status=500),
            "no-capacity": aws_error(
                "emr:AddJobFlowSteps", "ValidationException", "Maximum number of active steps {}"
            ),
            "it-fails": lambda fake, quoted: fake.emr.plan(
                seconds=0.1, outcome="FAILED", failure_message=quoted
            ),
        },
    ),
    "docker": Scene(
        docker,
        {"image": "etl:7"},
        {
            "it-succeeds": nothing,
            "refused": engine_error("create", 400),
            "an-error-of-the-engine": engine_error("create", 500),
            "not-implemented": engine_error("create", 501),
            "no-space": engine_error("create", 500, "no space left on device {}"),
            "podman-cannot-start": engine_error(
                "start", 500, "OCI runtime attempted to invoke a command that was not found {}"
            ),
            "start-refused": engine_error("start", 400),
            "it-cannot-start": lambda fake, quoted: fake.plan(
                "etl:7", start_error=f'exec: "{quoted}": executable file not found', exit_code=127
            ),
            "the-result-cannot-be-read": engine_error("logs", 400, "no log"),  # it knows the id alone
        },
    ),
}


def operator_of(service):
    info = registry.service(service)
    kinds = [getattr(import_module(info.path_of(module)), name) for name, module in info.public.items()]
    (kind,) = [each for each in kinds if issubclass(each, RemoteJobOperator)]

    class Impatient(kind):
        """The operator with short waits between its attempts, as a test needs them."""

        def remote_jobs(self, context):
            made = super().remote_jobs(context)
            made.listing_lag = 0.01
            return made

        def _policy(self):
            return replace(super()._policy(), first_backoff=0.02, first_pause=0.01, max_backoff=0.02)

    return kind, Impatient


# --- outputs --------------------------------------------------------------------------------------


def texts_of_error(error):
    """Whatever can be shown of an exception: itself, its chain, its attributes, its traceback."""
    waiting, seen = [error], []
    while waiting:
        each = waiting.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        waiting += [each.__cause__, each.__context__]
        yield f"{each!r} {each} {vars(each)!r}"
        yield "".join(traceback.format_exception(type(each), each, each.__traceback__))
    if isinstance(error, ResilientError):
        yield repr(pickle.dumps(error))


def texts_of_explain(tries, service, fields, way):
    """What the command line prints of the task instance after the try."""
    name = next(name for name in registry.service(service).public if name.endswith("Operator"))
    raw = {"operator_name": name, "rendered_fields": fields}
    instance = Instance(tries.dag_id, tries.run_id, "t", state="running", try_number=1, raw=raw)
    api = SimpleNamespace(
        url="http://airflow",
        current=lambda _: instance,
        task=lambda _: {"retries": 0},
        run_start=lambda _: 0.0,
        xcoms=lambda _: dict(tries.xcoms),
    )
    from airflow_resilient.deployment import namespace

    found = explain(
        api,
        instance,
        namespace(),
        service=service,
        access={"aws_conn_id": None} if service != "docker" else {},
    )
    assert found["jobs"] or way != "it-succeeds"
    yield json.dumps(found)
    yield from format_explanation(found)


QUICK = PollPolicy(
    interval=0.05,
    first_interval=0.01,
    max_backoff=0.1,
    lost_after_polls=2,
    lost_after_seconds=0.0,
    give_up_after_denials=2,
)


@pytest.mark.filterwarnings("ignore:.*accepted and ignored")
@pytest.mark.parametrize("text", MARKS.values(), ids=MARKS)
@pytest.mark.parametrize(
    ("service", "way"), [(service, way) for service, scene in SCENES.items() for way in scene.ways]
)
def test_a_mark_is_nowhere(service, way, text, caplog, capsys):
    kind, impatient = operator_of(service)
    scene, shown = SCENES[service], []
    with scene.open() as (fake, more):
        given = {**scene.given, **more, "poll_policy": QUICK, "overrides": {}, "steps": "{{ steps }}"}
        given = {name: value for name, value in given.items() if name in parameters(kind)}
        full, marks = marked(kind, given, text)
        quotable = [name for name in scene.ends.get(way, marks) if name in marks and name not in NOT_SENT]
        assert quotable
        quoted = [mark for name in quotable for mark in marks[name]]
        scene.ways[way](fake, " ".join([*quoted, *map(json.dumps, quoted), *map(repr, quoted)]))
        operators = []

        def make():
            operators.append(impatient(task_id="t", **{**given, **full}))
            return operators[-1]

        tries = TaskTries(make)
        with (
            caplog.at_level(logging.DEBUG, logger="airflow"),
            caplog.at_level(logging.DEBUG, "airflow_resilient"),
        ):
            try:
                outcome = tries.start()
                while isinstance(outcome, Deferred):
                    shown += [json.dumps(without_proxy(outcome.kwargs)), repr(outcome.trigger())]
                    if not outcome.kwargs["jobs"]:
                        break  # it waits until the trouble is over
                    payload = tries.watch(outcome)
                    shown.append(json.dumps(payload))
                    outcome = tries.resume(outcome, payload)
                else:
                    shown.append(repr(outcome))
            except Exception as error:  # noqa: BLE001 - its texts are looked at
                shown += texts_of_error(error)
            shown += texts_of_explain(tries, service, {**scene.given, **more}, way)
        shown += [json.dumps(tries.xcoms), caplog.text, *capsys.readouterr()]
        shown += [repr(each) + str(each) for each in operators]
        for each in operators:
            copied = copy.deepcopy(each)
            assert (copied.task_id, copied._current) == ("t", None), "a copy of an operator has not run"
    found = [each for each in shown if CORE in each]
    assert not found, found[0][max(0, found[0].index(CORE) - 300) :][:600]


def without_proxy(kwargs):
    """A trigger's arguments but for the client's configuration: Airflow stores them encrypted."""
    assert CORE not in json.dumps({**kwargs, "address": {**kwargs["address"], "botocore_config": None}})
    return {**kwargs, "address": {}}


def test_every_service_has_a_scene():
    assert set(SCENES) == set(registry.SERVICES)


@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore:.*accepted and ignored", "ignore:.*region is deprecated")
def test_a_parameter_in_the_table_of_shown_ones_exists_and_the_others_are_marked(kind):
    service = kind.__module__.split(".")[-2]
    given = {
        **SCENES[service].given,
        "overrides": {},
        "steps": "{{ steps }}",
        "step_id": "s-1",
        "job_flow_id": "j-1",
        "task": "t",
    }
    given = {name: value for name, value in given.items() if name in parameters(kind)}
    full, _ = marked(kind, given, MARKS["plain"])
    hidden = set(full)
    assert hidden.isdisjoint(SHOWN)
    if issubclass(kind, RemoteJobOperator):
        assert hidden, "an operator has a request"


def test_no_row_of_the_table_of_shown_parameters_is_left_over():
    known = {name for kind in classes() for name in parameters(kind)}
    assert set(SHOWN) <= known


def test_the_fields_that_services_show_are_those_with_a_reason():
    shown = set()
    for service in registry.SERVICES:
        shown |= import_module(f"airflow_resilient.services.{service}.request")._SHOWN_FIELDS
    assert shown - {"Type"} <= set(FIELDS), "say in FIELDS why they may be shown"


# --- the serialized DAG ---------------------------------------------------------------------------


def serialized(dag):
    if compat.airflow_version() >= (3, 2):
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    else:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized
    return json.dumps(Serialized.to_dict(dag))


@pytest.mark.filterwarnings("ignore:.*accepted and ignored")
@pytest.mark.parametrize("service", SCENES)
def test_the_serialized_dag_shows_what_is_templated_and_nothing_else(service):
    kind, _ = operator_of(service)
    given = {**SCENES[service].given, "job_flow_id": "j-1", "overrides": {}, "steps": "{{ steps }}"}
    given = {name: value for name, value in given.items() if name in parameters(kind)}
    full, _ = marked(kind, given, MARKS["plain"])
    shown = set()
    for name, value in full.items():
        with DAG("d", schedule=None) as dag:
            kind(task_id="t", **{**given, name: value})
        if CORE in serialized(dag):
            shown.add(name)
    assert shown <= set(kind.template_fields)


def test_a_mapped_operator_shows_every_parameter_of_partial():
    """The page about secrets says so: Airflow stores what ``partial`` is given, templated or not."""
    from airflow_resilient import DockerOperator

    with DAG("d", schedule=None) as dag:
        DockerOperator.partial(task_id="t", image="etl:7", private_environment={"PASSWORD": CORE}).expand(
            command=[["a"], ["b"]]
        )
    assert CORE in serialized(dag)
