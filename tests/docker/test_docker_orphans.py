"""A sweep over an engine ends containers that nobody needs, and removes those that `auto_remove` names."""

import json

import engines
import pytest

from airflow_resilient.cli import main
from airflow_resilient.core.job import Claim, Phase
from airflow_resilient.core.retry import Runtime
from airflow_resilient.operations.airflow_api import AirflowApi
from airflow_resilient.operations.explain import locate
from airflow_resilient.operations.orphans import format_report, sweep_targets
from airflow_resilient.operations.sweep import sweep
from airflow_resilient.operations.task_instances import Instance
from airflow_resilient.services.docker.client import DockerContainers
from airflow_resilient.testing import FakeDocker

OURS = "https://airflow.example.com"
TASK = Instance("etl", "manual__1", "sort", state="success", try_number=1, ended=1.0)
TASK_KEY = TASK.task_key(OURS)


class Airflow:
    """Airflow, as far as a sweep asks it: task instances in a dict."""

    def __init__(self, *instances):
        self.all = instances

    def instances(self, states=(), changed_since=0.0, changed_until=None):
        return iter([each for each in self.all if not states or each.state in states])

    def current(self, instance):
        return next((each for each in self.all if each.dag_id == instance.dag_id), None)

    def xcoms(self, instance):
        return {}

    def why_not_every_dag(self):
        return ""

    def retries(self, instance):
        return 0

    def deferred_slots(self):
        return 0


@pytest.fixture
def engine():
    with FakeDocker() as fake:
        fake.plan("etl:7")
        yield fake


def submit(engine, claim, *, code=None, start=True, **request):
    made = DockerContainers(docker_url=engine.url, request=engines.request("etl:7", **request))
    if not start:
        engine.fail_next("start", status=400)
        with pytest.raises(Exception, match="400"):
            made.submit(claim)
        return engine.made[-1].id
    job = made.submit(claim)
    if code is not None:
        engine.finish(job.id, code)
    return job.id


def swept(engine, *instances, later=7200.0, **options):
    (target,) = sweep_targets({}, None, {"docker": [engine.url]})
    runtime = Runtime(lambda: engine.now() + later, engine.advance, lambda: 0.5)
    return sweep([target], Airflow(*instances), OURS, runtime, **options)


def test_a_container_of_a_task_instance_that_has_ended_is_stopped(engine):
    live = submit(engine, Claim(TASK_KEY, 1))
    foreign = submit(engine, Claim("a" * 16, 1))
    report = swept(engine, TASK)
    assert [(each.job.id, each.verdict.status.value) for each in report.orphans] == [(live, "ended")]
    assert report.foreign == 1
    report = swept(engine, TASK, cancel=True)
    assert (report.exit_code, report.findings[0].job.phase) == (0, Phase.CANCELLED)
    assert [one.id for one in engine.live()] == [foreign]


@pytest.mark.parametrize("instances", [(TASK,), ()], ids=["of-an-ended-task-instance", "of-a-deleted-run"])
@pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
def test_a_container_from_an_image_that_was_committed_is_neither_stopped_nor_removed(
    engine, instances, ended
):
    """``docker commit`` keeps labels in the image."""
    original = submit(engine, Claim(TASK_KEY, 1), code=0, auto_remove="force")
    client = DockerContainers(docker_url=engine.url).engines.client(engine.url)
    copy = client.create_container("etl:7", name="eager_hopper", labels=engine.containers[original].labels)[
        "Id"
    ]
    client.start(copy)
    if ended:
        engine.finish(copy, 0)
    report = swept(engine, *instances, cancel=True, same_airflow=True)
    assert list(engine.containers) == [copy]
    assert ended or (report.exit_code, [one.id for one in engine.live()]) == (2, [copy])


def test_a_container_for_which_nobody_waits_is_not_stopped_when_its_run_is_deleted(engine):
    service = DockerContainers(docker_url=engine.url, request=engines.request("etl:7"))
    service.unattended = True
    job = service.submit(Claim(TASK_KEY, 1))
    report = swept(engine, cancel=True, same_airflow=True)
    assert [each.verdict.status.value for each in report.findings] == ["unknown"]
    assert [one.id for one in engine.live()] == [job.id]


def test_containers_whose_name_the_user_has_chosen_are_swept(engine):
    submit(engine, Claim(TASK_KEY, 1), name="nightly")
    assert swept(engine, TASK, cancel=True).exit_code == 0
    assert engine.live() == []


def test_a_container_that_was_made_and_never_started_is_removed(engine):
    submit(engine, Claim(TASK_KEY, 1), start=False)
    report = swept(engine, TASK, cancel=True)
    assert report.findings[0].ended
    assert not engine.containers


@pytest.mark.parametrize(
    ("auto_remove", "code", "removed"),
    [
        ("force", 1, True),
        ("force", 0, True),
        ("success", 0, True),
        ("success", 1, False),
        ("never", 0, False),
    ],
)
def test_what_was_to_be_removed_is_removed_when_nobody_can_want_it_any_more(
    engine, auto_remove, code, removed
):
    submit(engine, Claim(TASK_KEY, 1), code=code, auto_remove=auto_remove)
    assert len(swept(engine, TASK).removable) == removed
    assert len(engine.containers) == 1, "that was a dry run"
    report = swept(engine, TASK, cancel=True)
    assert bool(engine.containers) is not removed
    assert ("1 of them removed" in "\n".join(format_report(report))) is removed


def test_what_a_live_task_instance_may_want_to_know_of_stays(engine):
    submit(engine, Claim(TASK_KEY, 1), code=0, auto_remove="force")
    deferred = Instance("etl", "manual__1", "sort", state="deferred", try_number=1)
    assert swept(engine, deferred, cancel=True).removable == ()
    assert swept(engine, TASK, later=0.0, cancel=True).removable == (), "nor what has ended a moment ago"
    assert len(engine.containers) == 1


def test_an_engine_that_does_not_answer_is_reported(engine):
    engine.close()
    report = swept(engine, TASK)
    assert report.exit_code == 2
    assert "cannot list the jobs of" in report.errors[0]


def test_the_engine_of_a_task_instance_is_asked_by_explain(engine, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    found = locate(Instance("etl", "r", "t", raw={"operator_name": "DockerOperator"}), {})
    submit(engine, Claim(TASK_KEY, 1))
    (job,) = found.client().find([Claim(TASK_KEY, 1)])
    assert found.stop_command(job) == f"docker -H {engine.url} stop {job.id[:12]}"


def test_the_command_line_searches_an_engine(engine, monkeypatch, capsys):
    submit(engine, Claim(TASK_KEY, 1))
    monkeypatch.setattr(AirflowApi, "instances", lambda *_, **__: iter([TASK]))
    monkeypatch.setattr(AirflowApi, "xcoms", lambda *_: {})
    monkeypatch.setattr(AirflowApi, "retries", lambda *_: 0)
    arguments = ["orphans", "--docker-url", engine.url, "--airflow-url", OURS, "--namespace", OURS]
    assert main([*arguments, "--grace", "0s", "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["service"], finding["scope"], finding["verdict"]) == ("docker", engine.url, "ended")
