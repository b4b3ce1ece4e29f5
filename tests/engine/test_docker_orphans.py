"""A sweep over an engine ends the containers that nobody wants and removes what was to be removed."""

import json

import engines
import pytest

from airflow_resilient.airflow_api import AirflowApi
from airflow_resilient.cli import main
from airflow_resilient.docker import DockerContainers
from airflow_resilient.explain import by_hand, service_of
from airflow_resilient.jobs import Claim, Phase, Senses
from airflow_resilient.orphans import places, told
from airflow_resilient.sweep import Instance, sweep
from airflow_resilient.testing import FakeDocker

OURS = "https://airflow.example.com"
TASK = Instance("etl", "manual__1", "sort", state="success", try_number=1, ended=1.0)
FAMILY = TASK.family(OURS)


class Airflow:
    """Task instances kept by hand."""

    def __init__(self, *instances):
        self.all = instances

    def instances(self, states=(), changed_since=0.0, changed_until=None):
        return iter([each for each in self.all if not states or each.state in states])

    def look(self, instance):
        return next((each for each in self.all if each.dag_id == instance.dag_id), None)

    def left(self, instance):
        return None

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
    (place,) = places({}, None, (), (), docker_urls=[engine.url])
    senses = Senses(lambda: engine.now() + later, engine.advance, lambda: 0.5)
    return sweep([place], Airflow(*instances), OURS, senses, **options)


def test_a_container_of_a_task_instance_that_has_ended_is_stopped(engine):
    live = submit(engine, Claim(FAMILY, 1))
    foreign = submit(engine, Claim("a" * 16, 1))
    report = swept(engine, TASK)
    assert [(each.job.id, each.verdict.kind.value) for each in report.orphans] == [(live, "ended")]
    assert report.foreign == 1
    report = swept(engine, TASK, cancel=True)
    assert (report.exit_code, report.findings[0].job.phase) == (0, Phase.CANCELLED)
    assert [one.id for one in engine.live()] == [foreign]


def test_a_container_that_was_made_and_never_started_is_removed(engine):
    submit(engine, Claim(FAMILY, 1), start=False)
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
    submit(engine, Claim(FAMILY, 1), code=code, auto_remove=auto_remove)
    assert len(swept(engine, TASK).leftovers) == removed
    assert len(engine.containers) == 1, "that was a dry run"
    report = swept(engine, TASK, cancel=True)
    assert bool(engine.containers) is not removed
    assert ("1 of them removed" in "\n".join(told(report))) is removed


def test_what_a_live_task_instance_may_want_to_know_of_stays(engine):
    submit(engine, Claim(FAMILY, 1), code=0, auto_remove="force")
    deferred = Instance("etl", "manual__1", "sort", state="deferred", try_number=1)
    assert swept(engine, deferred, cancel=True).leftovers == ()
    assert swept(engine, TASK, later=0.0, cancel=True).leftovers == (), "nor what has ended a moment ago"
    assert len(engine.containers) == 1


def test_an_engine_that_does_not_answer_is_told(engine, monkeypatch):
    monkeypatch.setattr("airflow_resilient.sweep.ATTEMPTS", 1)
    engine.close()
    report = swept(engine, TASK)
    assert report.exit_code == 2
    assert "cannot be listed" in report.troubles[0]


def test_the_engine_of_a_task_instance_is_asked_by_explain(engine, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    fields = {"image": "etl:7", "container_name": None, "docker_conn_id": None}
    found = service_of(Instance("etl", "r", "t", raw={"rendered_fields": fields}))
    submit(engine, Claim(FAMILY, 1))
    (job,) = found.find([Claim(FAMILY, 1)])
    assert by_hand(job) == f"docker -H {engine.url} stop {job.id[:12]}"


def test_the_command_line_looks_on_an_engine(engine, monkeypatch, capsys):
    submit(engine, Claim(FAMILY, 1))
    monkeypatch.setattr(AirflowApi, "instances", lambda *_, **__: iter([TASK]))
    monkeypatch.setattr(AirflowApi, "left", lambda *_: None)
    monkeypatch.setattr(AirflowApi, "retries", lambda *_: 0)
    arguments = ["orphans", "--docker-url", engine.url, "--airflow-url", OURS, "--namespace", OURS]
    assert main([*arguments, "--grace", "0s", "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["service"], finding["cluster"], finding["verdict"]) == ("docker", engine.url, "ended")
