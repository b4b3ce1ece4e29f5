"""Every rule by which ``unstick`` decides what to do is missed when it is gone, by a row of its tables."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import FunctionType, ModuleType

import pytest
import test_remedies as tables

pytestmark = pytest.mark.pure

PACKAGE = "airflow_resilient.operations"

MUTANTS = {
    "what is not known stops nothing": ("remedies", "if situation.unknown:", "if False:"),
    "no scheduler stops nothing": ("remedies", "if not situation.scheduled:", "if False:"),
    "what was done is done again": (
        "remedies",
        "if not before:\n        return None",
        "if True:\n        return None",
    ),
    "what may not be lost is cleared": ("remedies", "if not lost:", "if False:"),
    "what was queued just now is cleared": (
        "remedies",
        "if waiting.queued is None or situation.now - waiting.queued < each.limit:",
        "if False:",
    ),
    "a tag that cannot be read says nothing": (
        "remedies",
        "if dag is not None and any(",
        "if False and any(",
    ),
    "what was done to a run is forgotten": (
        "remedies",
        "or past.of_run(each.waiting, Do.FAIL_RUN.value)",
        "",
    ),
    "a run that goes on has ghosts": (
        "remedies",
        "if run is not None and run.state not in (None, *ENDED_RUN):",
        "if False:",
    ),
    "failures are woken": ("remedies", "if not run.failed:", "if True:"),
    "a success is failed": ("remedies", 'if run.state != "failed":', "if False:"),
    "what works is ended": ("remedies", "if run.active:", "if False:"),
    "a run that does not exist is marked": ("remedies", "if run.state is None:", "if False:"),
    "what is only scheduled is a ghost": ("remedies", ' and each.waiting.state == "queued"', ""),
    "what waits for ghosts is told, too": (
        "remedies",
        " and not (each.why is Why.GHOSTS and each.subject in pools)",
        "",
    ),
    "any ghost hides what waits for others": ("remedies", "each.subject in pools)", "pools)"),
    "a ghost that waits itself is told, too": ("remedies", "elif each.waiting.key not in freed and", "elif"),
    "any DAG's ghost is skipped": ("remedies", "if bounds.cover(ghost, each.why):", "if True:"),
    "any DAG is acted on": (
        "remedies",
        "for each in _oldest_first(situation.late) if bounds.cover(each.waiting, each.why)]",
        "for each in _oldest_first(situation.late)]",
    ),
    "a cause is not chosen": (
        "remedies",
        "return chosen and (not self.causes or why in self.causes)",
        "return chosen",
    ),
    "as many as there are": ("remedies", "if left < 0:", "if False:"),
    "one too many": ("remedies", "if left < 0:", "if left < -1:"),
    "the hour does not count": ("remedies", "min(bounds.at_most, hourly)", "bounds.at_most"),
    "what is told counts": (
        "remedies",
        "        if each.changes:\n            left -= 1",
        "        if True:\n            left -= 1",
    ),
    "a run is failed for each of its ghosts": (
        "remedies",
        "if each.do is Do.FAIL_RUN and key in runs:",
        "if False:",
    ),
    "changes are merged": ("remedies", "len(found) if each.changes else ", ""),
    "causes of different subjects are merged": (
        "remedies",
        "(each.do, each.why, each.subject, each.reason)",
        "(each.do, each.why, each.reason)",
    ),
    "the newest first": ("remedies", "key=lambda each: (each.since,", "key=lambda each: (-each.since,"),
    "a person's note is replaced": ("remedies", 'before = f"{note}\\n" if note else ""', 'before = ""'),
    "a note may be too long": ("remedies", "if len(done) <= room else", "if True else"),
    "no room is room enough": ("remedies", "if room < min(_MIN_NOTE, len(done)):", "if room < 0:"),
    "what Airflow has refused was done": (
        "acted",
        "act.key == key and act.outcome != REFUSED",
        "act.key == key",
    ),
    "only what is certain was done": (
        "acted",
        "act.key == key and act.outcome != REFUSED",
        "act.key == key and act.is_done",
    ),
    "what Airflow has refused counts": (
        "acted",
        "act.when > moment and act.outcome != REFUSED",
        "act.when > moment",
    ),
    "a day counts as an hour": ("acted", "act.when > moment and", "True and"),
    "what still waits is forgotten": ("acted", "act.key in waiting or ", ""),
    "nothing is forgotten": ("acted", "or now - act.when < KEEP_SECONDS", "or True"),
    "all map indexes are one": ("acted", ", waiting.map_index])", "])"),
    "another queue proves something": ("why_waiting", "if (other.queue, other.executor) == place]", "]"),
    "another executor proves something": (
        "why_waiting",
        "if (other.queue, other.executor) == place]",
        "if other.queue == place[0]]",
    ),
    "the order is kept to the second": ("why_waiting", "    if later > after:", "    if later > 0:"),
    "a long queue is lost": (
        "why_waiting",
        "    if running:\n        return False",
        "    if False:\n        return False",
    ),
    "workers listen everywhere": ("why_waiting", "    if queues_have_workers:", "    if True:"),
    "Amazon MWAA keeps the order": (
        "why_waiting",
        "    if is_mwaa(facts.url):\n        return False",
        "    if False:\n        return False",
    ),
    "all map indexes are cleared": (
        "why_waiting",
        "each.task_id if each.map_index < 0 or not on_3 else [each.task_id, each.map_index]",
        "each.task_id",
    ),
    "a run that has ended goes on": ("why_waiting", '"reset_dag_runs": False', '"reset_dag_runs": True'),
}


def mutate(module: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the functions of a module the code that they have with one rule changed."""
    real = importlib.import_module(f"{PACKAGE}.{module}")
    source = inspect.getsource(real)
    assert source.count(old) == 1, f"this stands {source.count(old)} times in {module}.py: {old}"
    made = ModuleType(real.__name__)
    made.__package__ = PACKAGE
    monkeypatch.setitem(sys.modules, real.__name__, made)  # dataclasses ask for it
    exec(compile(source.replace(old, new), real.__file__, "exec"), made.__dict__)
    monkeypatch.setitem(sys.modules, real.__name__, real)
    for name, value in vars(made).items():
        if isinstance(value, FunctionType) and value.__module__ == real.__name__:
            monkeypatch.setattr(getattr(real, name), "__code__", value.__code__)
        if isinstance(value, type) and value.__module__ == real.__name__:
            for own, method in vars(value).items():
                if isinstance(method, FunctionType) and method.__code__.co_filename == real.__file__:
                    monkeypatch.setattr(vars(getattr(real, name))[own], "__code__", method.__code__)


def first_failure() -> str | None:
    """The first test of the tables that fails."""
    for name, test in inspect.getmembers(tables, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        rows = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        for values in rows[0].args[1] if rows else [()]:
            try:
                test(*getattr(values, "values", values))
            except (AssertionError, AttributeError, KeyError, TypeError, ValueError):
                return f"{name}[{getattr(values, 'id', '')}]"
    return None


def test_the_tables_hold_for_the_rules_as_they_are():
    assert first_failure() is None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_gone_is_missed_by_a_row(name, monkeypatch):
    mutate(*MUTANTS[name], monkeypatch)
    assert first_failure() is not None
