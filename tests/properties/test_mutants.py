"""Every rule of the core is missed when it is gone: by a row of a table or a test of `reconcile`; many by
histories, too."""

import inspect
import random

import mutants
import pytest
import test_decide
import test_reconcile
import test_rules
import whole_core
from simulator import play, worlds

pytestmark = pytest.mark.pure

SEEDS = range(25)
# What random histories have to find by themselves, without a row or a test that was written for it.
BY_HISTORIES = {
    "a clear is not distinguished from a retry",
    "reattach takes over what has ended",
    "the end of predecessors is not awaited",
    "a success that was found is not adopted",
    "a success before the clear is adopted",
    "history is reported",
    "resubmissions share a token",
    "resubmissions use up a number",
    "numbers begin at 1 after a clear",
    "the number is Airflow's try number",
    "past the deadline it is submitted",
    "no search is made before a submission",
    "only retries search, not tries after a clear",
    "a try that is restarted does not search",
    "a lost answer does not lead to a search",
    "listings are believed at once",
    "a transient error fails the try",
    "the end of a predecessor is reported",
    "the earlier phase wins",
    "the back-off is served again at each visit",
    "the deadline is ignored",
    "what the watch saw is ignored",
}


def missed_by_a_table(core) -> str | None:
    """The first row of a table that this core gets wrong."""
    tables = [(test_decide.TABLE, test_decide.POLICY), (test_decide.LEAVE_TABLE, test_decide.LEAVE)]
    for table, policy in tables:
        for name, (owner, facts, expected) in table.items():
            jobs = tuple(core.Job(**vars(job)) for job in facts.jobs)
            known = core.Facts(**{**vars(facts), "jobs": jobs})
            if test_decide.gist(core.decide(core.Owner(**vars(owner)), known, policy)) != expected:
                return name
    return next(iter(test_rules.wrong_rows(core)), None)


def missed_by_reconcile(core) -> str | None:
    """The first test of `reconcile` that fails for this core."""
    for name, test in inspect.getmembers(test_reconcile, inspect.isfunction):
        if name.startswith("test_"):
            try:
                test(core)
            except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it fails
                return name
    return None


def missed_by_histories(core) -> str | None:
    """The first history in which this core violates an invariant."""
    for seed in SEEDS:
        for name, rules in worlds().items():
            violations = play(rules, random.Random(seed), core).violations
            if violations:
                return f"{name}, seed {seed}: {violations[0]}"
    return None


def test_the_core_itself_survives_being_taken_apart_and_put_together():
    core = whole_core.core()
    assert missed_by_a_table(core) is None
    assert missed_by_reconcile(core) is None
    for name, rules in worlds().items():
        assert not play(rules, random.Random(1), core).violations, name


@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_it_is_missed_when(name):
    core = mutants.mutant(name)
    assert missed_by_a_table(core) or missed_by_reconcile(core)


@pytest.mark.parametrize("name", sorted(BY_HISTORIES))
def test_histories_show_when(name):
    assert missed_by_histories(mutants.mutant(name))
