"""The names under which triggers and tries store a service, and what they mean elsewhere."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from airflow_resilient import InvalidParameter, RemoteService, ServiceInfo, registry
from airflow_resilient.core.job import Claim, task_key
from airflow_resilient.deployment import load_service, namespace, service_class, service_name, submitted_here
from airflow_resilient.services.docker.client import DockerContainers
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.emr_steps.client import EmrSteps
from airflow_resilient.testing import InMemoryJobs

TASK = SimpleNamespace(task_id="sort")


class OwnJobs(InMemoryJobs):
    """A service of the user."""


class OwnTasks(EcsTasks):
    """A service of the user that inherits a registered one, and its name."""


class Talkative(InMemoryJobs):
    """Its address is no JSON."""

    def address(self):
        return {"lock": object()}


class Outer:
    class Nested(InMemoryJobs):
        """Where `module:Class` does not reach."""


class Lookalike:
    """Has every method of a service, and is none."""

    find = submit = observe = cancel = is_transient = InMemoryJobs.find

    def address(self):
        return {}


SERVICES = [
    pytest.param(EcsTasks(cluster="etl", region_name="eu-west-1"), "ecs", id="ecs"),
    pytest.param(EmrSteps(job_flow_id="j-1", aws_conn_id=None), "emr_steps", id="emr-steps"),
    pytest.param(DockerContainers(docker_url=["tcp://a:2375", "tcp://b:2375"]), "docker", id="docker"),
    pytest.param(
        InMemoryJobs("named"), "airflow_resilient.testing.in_memory_jobs:InMemoryJobs", id="module-and-class"
    ),
    pytest.param(OwnJobs("own"), f"{__name__}:OwnJobs", id="a-class-of-the-user"),
    pytest.param(OwnJobs("ecs"), f"{__name__}:OwnJobs", id="a-class-of-the-user-by-a-name-of-ours"),
    pytest.param(OwnTasks(cluster="etl"), f"{__name__}:OwnTasks", id="a-subclass-of-a-registered-one"),
]


@pytest.mark.parametrize(("service", "name"), SERVICES)
def test_a_service_is_stored_under_its_name_in_the_registry_or_by_module_and_class(service, name):
    assert service_name(TASK, service) == name
    assert service_class(name) is type(service)


@pytest.mark.parametrize(("service", "name"), SERVICES)
def test_what_was_stored_is_enough_to_reach_the_same_elsewhere(service, name):
    loaded = load_service(name, json.loads(json.dumps(service.address())))
    assert type(loaded) is type(service)
    assert loaded.address() == service.address()


def of_a_dag_file(module):
    kind = type("InADagFile", (InMemoryJobs,), {"__module__": module})
    kind.__qualname__ = "InADagFile"
    return kind("x")


def test_a_class_of_a_dag_file_is_refused_with_the_file(monkeypatch):
    import sys

    name = "unusual_prefix_0123_my_dag"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(__file__="/dags/my_dag.py"))
    with pytest.raises(
        InvalidParameter, match=r"'sort': InADagFile is defined in /dags/my_dag\.py.*Python path"
    ):
        service_name(TASK, of_a_dag_file(name))


@pytest.mark.parametrize("module", ["__main__", "unusual_prefix_0123_gone"])
def test_a_class_that_only_this_process_can_import_is_refused(module):
    with pytest.raises(InvalidParameter, match=r"'sort': InADagFile is defined in .*triggerer cannot import"):
        service_name(TASK, of_a_dag_file(module))


def test_a_nested_class_is_refused():
    class Local(InMemoryJobs):
        pass

    for service in (Outer.Nested("x"), Local("x")):
        with pytest.raises(
            InvalidParameter, match=r"'sort': .*(Nested|Local) is nested in a function or a class"
        ):
            service_name(TASK, service)


def test_a_class_that_its_module_does_not_have_under_its_name_is_refused():
    made = type("MadeAtRunTime", (InMemoryJobs,), {"__module__": __name__})
    namesake = type("Talkative", (InMemoryJobs,), {"__module__": __name__})
    for kind in (made, namesake):
        kind.__qualname__ = kind.__name__
        with pytest.raises(
            InvalidParameter, match=rf"'sort': .*:{kind.__name__} is not the class .*top level"
        ):
            service_name(TASK, kind("x"))


@pytest.mark.parametrize(
    "client", ["json:dumps", f"{__name__}:Lookalike", f"{__name__}:Outer.Nested", "json:no"]
)
def test_a_description_whose_client_is_no_service_is_an_error(client):
    info = ServiceInfo("made_up", "Made-up jobs", client, "place")
    with pytest.raises(LookupError, match=r"service 'made_up': .*is not a subclass of"):
        registry.client_class(info)


def test_what_inherits_from_no_service_is_refused_whatever_methods_it_has():
    with pytest.raises(
        InvalidParameter, match=r"'sort': remote_jobs\(\) returns a Lookalike, .*inherit from"
    ):
        service_name(TASK, Lookalike())


def test_an_address_that_is_no_json_is_refused():
    with pytest.raises(InvalidParameter, match=r"'sort': Talkative\.address\(\) must return JSON values"):
        service_name(TASK, Talkative("x"))


@pytest.mark.parametrize("name", registry.SERVICES)
def test_every_registered_name_is_a_service(name):
    assert issubclass(service_class(name), RemoteService)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param(
            "glue", "no service 'glue'; the services are ecs, emr_steps, docker", id="an-unknown-name"
        ),
        pytest.param("", "no service ''", id="nothing"),
        pytest.param(f"{__name__}:Lookalike", "is not a subclass of", id="no-service"),
        pytest.param(f"{__name__}:Nobody", "is not a subclass of", id="no-such-class"),
        pytest.param(f"{__name__}:Outer.Nested", "is not a subclass of", id="a-nested-class"),
        pytest.param("json:dumps", "json:dumps is not a subclass of", id="a-function"),
        pytest.param(f"{__name__}:TASK", "is not a subclass of", id="no-class"),
    ],
)
def test_a_name_that_is_none_of_a_service_is_an_error(name, words):
    with pytest.raises(LookupError, match=words):
        service_class(name)


def test_a_module_that_is_not_there_is_an_error_that_names_it():
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        load_service("nowhere:Service", {})


@pytest.mark.parametrize("missing", ["find", "submit", "observe", "cancel", "is_transient", "address"])
def test_a_service_that_lacks_one_of_the_six_methods_cannot_be_made(missing):
    methods = {name: getattr(InMemoryJobs, name) for name in RemoteService.__abstractmethods__ - {missing}}
    with pytest.raises(TypeError, match=f"{missing}"):
        type("Half", (RemoteService,), methods)()


def test_claims_of_this_deployment_are_known_by_its_namespace(monkeypatch):
    monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE", "prod")
    assert namespace() == "prod"
    ours, theirs = (Claim(task_key(each, "etl", "run", "sort", -1), 1) for each in ("prod", "staging"))
    assert (submitted_here(ours), submitted_here(theirs)) == (True, False)
