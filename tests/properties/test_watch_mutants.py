"""Every rule of the plan and of the budget is missed when it is gone."""

import inspect

import pytest
import test_budget
import test_watch
import test_watches
import watch_mutants

from airflow_resilient.core import polling
from airflow_resilient.watching import budget, plan, watches

pytestmark = pytest.mark.pure


def with_a_core(module):
    """Tests that take the core; those that simulate are last, because they take longest."""
    return sorted(
        (
            test
            for name, test in inspect.getmembers(module, inspect.isfunction)
            if name.startswith("test_") and "core" in inspect.signature(test).parameters
        ),
        key=lambda test: (hasattr(test, "hypothesis"), test.__name__),
    )


TESTS = with_a_core(test_watch)


def missed(core) -> str | None:
    """The first thing that is found wrong with this core."""
    if wrong := test_watch.wrong_rows(core):
        return wrong[0]
    return next((test.__name__ for test in TESTS if fails(test, core)), None)


def fails(test, core) -> bool:
    """Whether a test fails for this core, with one of its parameters at least."""
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    cases = [{mark.args[0]: value} for mark in marks for value in mark.args[1]] or [{}]
    try:
        for case in cases:
            test(core=core, **case)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it fails
        return True
    return False


def test_the_plan_and_the_budget_survive_being_taken_apart_and_put_together():
    for module in (plan, polling):
        core = watch_mutants.made(module, watch_mutants.SOURCES[module])
        assert missed(watch_mutants.with_plan(module, core)) is None
    assert test_budget.wrong_rows(watch_mutants.made(budget, watch_mutants.SOURCES[budget])) == []
    core = watch_mutants.made(watches, watch_mutants.SOURCES[watches])
    assert [test.__name__ for test in with_a_core(test_watches) if fails(test, core)] == []


@pytest.mark.parametrize("name", watch_mutants.PLAN)
def test_it_is_missed_when(name):
    core = watch_mutants.mutant(plan, *watch_mutants.PLAN[name])
    assert missed(watch_mutants.with_plan(plan, core))


@pytest.mark.parametrize("name", watch_mutants.POLLING)
def test_it_is_missed_of_one_wait_when(name):
    core = watch_mutants.mutant(polling, *watch_mutants.POLLING[name])
    assert missed(watch_mutants.with_plan(polling, core))


@pytest.mark.parametrize("name", watch_mutants.BUDGET)
def test_it_is_missed_of_the_budget_when(name):
    assert test_budget.wrong_rows(watch_mutants.mutant(budget, *watch_mutants.BUDGET[name]))


@pytest.mark.parametrize("name", watch_mutants.WATCHES)
def test_it_is_missed_of_the_watches_when(name):
    core = watch_mutants.mutant(watches, *watch_mutants.WATCHES[name])
    assert any(fails(test, core) for test in with_a_core(test_watches))
