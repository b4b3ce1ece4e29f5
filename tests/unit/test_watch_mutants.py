"""Every rule of the plan and of the budget is missed when it is gone."""

import inspect

import pytest
import test_budget
import test_watch
import watch_mutants

from airflow_resilient import budget, watch

pytestmark = pytest.mark.pure

# Those that simulate are asked last: they take longest.
TESTS = sorted(
    (
        test
        for name, test in inspect.getmembers(test_watch, inspect.isfunction)
        if name.startswith("test_") and "core" in inspect.signature(test).parameters
    ),
    key=lambda test: (hasattr(test, "hypothesis"), test.__name__),
)


def missed(core) -> str | None:
    """The first thing that is found wrong with this core."""
    if wrong := test_watch.wrong_rows(core):
        return wrong[0]
    return next((test.__name__ for test in TESTS if fails(test, core)), None)


def fails(test, core) -> bool:
    """Whether a test fails for this core."""
    try:
        test(core=core)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it fails
        return True
    return False


def test_the_watch_survives_being_taken_apart_and_put_together():
    assert missed(watch_mutants.made(watch, watch_mutants.SOURCES[watch])) is None
    assert test_budget.wrong_rows(watch_mutants.made(budget, watch_mutants.SOURCES[budget])) == []


@pytest.mark.parametrize("name", watch_mutants.WATCH)
def test_it_is_missed_when(name):
    assert missed(watch_mutants.mutant(watch, *watch_mutants.WATCH[name]))


@pytest.mark.parametrize("name", watch_mutants.BUDGET)
def test_it_is_missed_of_the_budget_when(name):
    assert test_budget.wrong_rows(watch_mutants.mutant(budget, *watch_mutants.BUDGET[name]))
