"""A canary: the DAG that it is, what its legs do, and that the URL of the switch stays a secret."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred

from airflow_resilient import InvalidParameter, ResilientError, canary_dag
from airflow_resilient.core.needs import LONGEST_TAG, Canary, read_needs

SECRET = "b4f5c9b2-0000-4000-8000-secretsecret"
VARIABLE = "canary_url_secret"


def stored(dag) -> str:
    """What Airflow stores of a DAG."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized  # 3.2 and later
    except ImportError:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized
    return json.dumps(Serialized.to_dict(dag), default=str)


def load(path: Path):
    """Read DAG files, as Airflow does by default: only those with the words of a DAG file."""
    try:
        from airflow.dag_processing.dagbag import DagBag  # 3.2 and later
    except ImportError:
        from airflow.models.dagbag import DagBag
    return DagBag(dag_folder=str(path), safe_mode=True)


def limits(dag: DAG):
    return (dag.catchup, dag.max_active_runs, dag.dagrun_timeout, dag.is_paused_upon_creation)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("from airflow_resilient import canary_dag\ndag = canary_dag()\n", id="assigned"),
        pytest.param("from airflow_resilient import canary_dag\ncanary_dag()\n", id="not-assigned"),
    ],
)
def test_a_file_of_two_lines_is_a_dag_file(tmp_path, text):
    (tmp_path / "canary.py").write_text(text)
    bag = load(tmp_path)
    assert not bag.import_errors
    assert list(bag.dags) == ["airflow_resilient_canary"]
    dag = bag.dags["airflow_resilient_canary"]
    assert dag.fileloc == str(tmp_path / "canary.py")
    assert sorted(dag.task_ids) == ["queue-default", "triggerer"]


def test_a_run_that_is_stuck_ends_before_the_next_one_is_due():
    dag = canary_dag(every="10m")
    assert limits(dag) == (False, 1, timedelta(minutes=8), False)
    assert dag.max_consecutive_failed_dag_runs > 1000, "Airflow would pause it"


def test_each_queue_and_each_executor_has_a_leg():
    queues, executors = ("default", "spark/big jobs"), ("LocalExecutor", "CeleryExecutor")
    dag = canary_dag(queues=queues, executors=executors, pool="canary", beat_url_variable=VARIABLE)
    where = {task.task_id: (task.queue, task.executor) for task in dag.tasks}
    assert where == {
        "queue-default": ("default", None),
        "queue-spark_big_jobs": ("spark/big jobs", None),
        "executor-LocalExecutor": ("default", "LocalExecutor"),
        "executor-CeleryExecutor": ("default", "CeleryExecutor"),
        "triggerer": ("default", None),
        "beat": ("default", None),
    }
    assert {(task.pool, task.retries, task.priority_weight) for task in dag.tasks} == {
        ("canary", 0, 1_000_000)
    }
    assert stored(dag).count('"weight_rule": "absolute", ') >= len(where), "Airflow adds nothing to it"
    beat = dag.get_task("beat")
    assert beat.upstream_task_ids == where.keys() - {"beat"}
    assert beat.trigger_rule == "all_success"


def test_without_queues_airflow_s_default_queue_has_a_leg(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_QUEUE", "main")
    assert sorted(canary_dag().task_ids) == ["queue-main", "triggerer"]
    assert sorted(canary_dag(executors=("LocalExecutor",)).task_ids) == [
        "executor-LocalExecutor",
        "triggerer",
    ]
    assert canary_dag(queues=()).task_ids == ["triggerer"]


@pytest.mark.parametrize("every", ["90m", timedelta(minutes=90)])
def test_the_watch_knows_the_legs_by_the_tags(every):
    dag = canary_dag(every=every, queues=("b", "a"), deferrable=False, beat_url_variable="x", tags=["ops"])
    assert "ops" in dag.tags
    found = read_needs(dag.tags)
    assert (found.canary, found.wrong) == (Canary(5400.0, ("queue-a", "queue-b")), ())
    assert found.canary.late_after(0.0) == 2.5 * 5400
    assert found.canary.late_after(60.0) == 1.5 * 5400, "a healthy one is not late"
    assert found.canary.late_after(9e4) == 9e4


@pytest.mark.parametrize(
    ("tags", "wrong"),
    [
        pytest.param(
            ["canary_every=soon", "canary_leg=a"], ("canary_every=soon", "canary_leg=a"), id="length"
        ),
        pytest.param(["canary_every=10m"], ("canary_every=10m",), id="no-leg"),
        pytest.param(["canary_leg=a"], ("canary_leg=a",), id="no-interval"),
        pytest.param(["canary_every=0m", "canary_leg=a"], ("canary_every=0m", "canary_leg=a"), id="zero"),
        pytest.param(["canary", "canary=yes", "yellow=canary_leg"], (), id="other-tags"),
    ],
)
def test_a_canary_that_cannot_be_read_is_none_and_is_wrong(tags, wrong):
    found = read_needs(tags)
    assert (found.canary, found.wrong) == (None, wrong)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"every": "59s"}, "every='59s' is not valid; write one minute"),
        ({"every": timedelta(seconds=30)}, "write one minute"),
        ({"every": timedelta(seconds=90.5)}, "write a timedelta of whole seconds"),
        ({"every": "soon"}, r"canary_dag: every\('soon'\) is not valid; write a timedelta"),
        ({"every": 600}, "write a timedelta"),
        ({"every": None}, "write a timedelta"),
        ({"queues": (), "deferrable": False}, "it has no leg; name queues or executors"),
        ({"queues": ("a", "a")}, "queues has 'a' twice"),
        ({"queues": ("a b", "a_b")}, "a name that gives the same task, 'queue-a_b'"),
        ({"executors": ("x", "x")}, "executors has 'x' twice"),
        ({"queues": "default"}, r"queues='default' is not valid; write names: \(\"default\",\)"),
        ({"queues": ("",)}, "write names"),
        ({"executors": (None,)}, "write names"),
        ({"queues": ("q" * LONGEST_TAG,)}, "more than 100 characters"),
        ({"deferrable": "yes"}, "write True or False"),
        ({"pool": ""}, "pool='' is not valid; write the name of a pool"),
        ({"pool": None}, "pool=None is not valid"),
        ({"beat_url_variable": ""}, "write the name of an Airflow variable"),
    ],
)
def test_what_is_not_valid_is_refused_when_the_dag_is_parsed(parameters, words):
    with pytest.raises(InvalidParameter, match=words):
        canary_dag(**parameters)


def test_a_url_in_place_of_the_variable_is_refused_and_not_shown():
    with pytest.raises(InvalidParameter, match="not the URL itself") as caught:
        canary_dag(beat_url_variable=f"https://hc-ping.com/{SECRET}")
    assert SECRET not in str(caught.value)


# --- what the tasks do ------------------------------------------------------------------------------------


def test_the_deferred_leg_succeeds_once_the_trigger_has_fired():
    leg = canary_dag().get_task("triggerer")
    with pytest.raises(TaskDeferred) as caught:
        leg.execute({})
    assert caught.value.timeout == timedelta(minutes=8)

    async def first_event():
        return await anext(aiter(caught.value.trigger.run()))

    event = asyncio.run(asyncio.wait_for(first_event(), 60))
    getattr(leg, caught.value.method_name)({}, event.payload)
    canary_dag().get_task("queue-default").execute({})


@pytest.fixture
def switch(serve, monkeypatch):
    """A dead man's switch, whose URL is in the variable."""

    class Switch:
        status, beats = 200, []

    made = Switch()

    def answer(method, path, query, body):
        made.beats = [*made.beats, (method, path, body.decode())]
        return made.status, {}

    made.url = f"{serve(answer)}/ping/{SECRET}"
    monkeypatch.setenv(f"AIRFLOW_VAR_{VARIABLE.upper()}", made.url)
    return made


def beat_of(dag):
    dag.get_task("beat").execute({})


def test_the_beat_goes_to_the_url_in_the_variable_and_nothing_shows_it(switch, caplog):
    caplog.set_level(logging.DEBUG)
    dag = canary_dag(beat_url_variable=VARIABLE)
    beat_of(dag)
    text = "airflow_resilient_canary: all legs have succeeded"
    assert switch.beats == [("POST", f"/ping/{SECRET}", text)]
    shown = stored(dag) + caplog.text + repr(vars(dag.get_task("beat")))
    assert "CanaryBeat" in shown
    assert SECRET not in shown


def everything_of(error: BaseException | None) -> str:
    """An error, and those that it comes from."""
    if error is None:
        return ""
    return f"{error!r} {error.args} {everything_of(error.__cause__)} {everything_of(error.__context__)}"


@pytest.mark.parametrize("status", [404, 500])
def test_a_switch_that_does_not_take_the_beat_fails_the_task_without_its_url(switch, status):
    switch.status = status
    with pytest.raises(
        ResilientError, match=f"at 127.0.0.1 could not be reached: it answers {status}"
    ) as caught:
        beat_of(canary_dag(beat_url_variable=VARIABLE))
    assert SECRET not in everything_of(caught.value)


@pytest.mark.parametrize("url", [f"ftp://me:{SECRET}@host/", SECRET, "", "https://", f"http://h:x/{SECRET}"])
def test_a_variable_without_a_url_fails_the_task_and_is_not_shown(monkeypatch, url):
    monkeypatch.setenv(f"AIRFLOW_VAR_{VARIABLE.upper()}", url)
    with pytest.raises(
        InvalidParameter, match="no URL of a switch is in the variable 'canary_url_sec"
    ) as caught:
        beat_of(canary_dag(beat_url_variable=VARIABLE))
    assert SECRET not in everything_of(caught.value)
