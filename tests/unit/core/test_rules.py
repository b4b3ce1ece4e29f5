"""The smaller rules around `decide` as tables: one row per situation.

A row is what a rule is given and what it says; `wrong_rows` takes the core that it tests, so that
`test_mutants` can hand it one with a broken rule.
"""

from dataclasses import replace

import pytest
from test_decide import OTHER_RUN, RUN_STARTED, TASK_KEY, job, owner
from test_request import CHANGED, changed
from whole_core import REAL

from airflow_resilient.core.job import CLOCK_SKEW, Claim, Phase
from airflow_resilient.core.reconcile import Memory

JOB = job("a", 1)


# --- must_search ----------------------------------------------------------------------------------

SUBMIT = ("Submit", {"claim": Claim(TASK_KEY, 1)})
CANCEL = ("Cancel", {"job": JOB})
WATCH = ("Watch", {"jobs": (JOB,)})
FINISH = ("Finish", {"job": JOB})
TIMED_OUT = ("TimedOut", {"job": JOB})
TIMED_OUT_WITHOUT_A_JOB = ("TimedOut", {"job": None})
OUT_OF_CAPACITY = ("OutOfCapacity", {"refusals": 3})
SURE, UNSURE = 0, 2
STILL_TIME, TIME_IS_OVER = False, True


def must_search(core, action, unconfirmed, over):
    kind, fields = action
    return core.must_search(getattr(core, kind)(**fields, why="a test"), unconfirmed, cancel_grace_over=over)


MUST_SEARCH = {
    "an earlier try may have left a job that a submission would double": (SUBMIT, SURE, STILL_TIME, True),
    "a timeout that names no job may have missed one": (TIMED_OUT_WITHOUT_A_JOB, SURE, STILL_TIME, True),
    "a timeout that names its job has missed none": (TIMED_OUT, SURE, STILL_TIME, False),
    "what is cancelled is known": (CANCEL, SURE, STILL_TIME, False),
    "what is watched is known": (WATCH, SURE, STILL_TIME, False),
    "what is reported is known": (FINISH, SURE, STILL_TIME, False),
    "a service without capacity has no job": (OUT_OF_CAPACITY, SURE, STILL_TIME, False),
    "after a lost answer a submission may have taken effect": (SUBMIT, UNSURE, STILL_TIME, True),
    "after a lost answer a cancel waits for the search": (CANCEL, UNSURE, STILL_TIME, True),
    "after a lost answer a wait waits for the search": (WATCH, UNSURE, STILL_TIME, True),
    "after a lost answer an end is not reported before the search": (FINISH, UNSURE, STILL_TIME, True),
    "after a lost answer a timeout is not reported before the search": (TIMED_OUT, UNSURE, STILL_TIME, True),
    "after a lost answer nothing is given up before the search": (OUT_OF_CAPACITY, UNSURE, STILL_TIME, True),
    "nothing is asked before a submission when the time is over": (SUBMIT, SURE, TIME_IS_OVER, False),
    "nothing is asked before a timeout when the time is over": (
        TIMED_OUT_WITHOUT_A_JOB,
        SURE,
        TIME_IS_OVER,
        False,
    ),
    "nothing is asked after a lost answer when the time is over": (FINISH, UNSURE, TIME_IS_OVER, False),
}


# --- forgotten_claims -----------------------------------------------------------------------------

SURE_OF_ITS_OWN, UNSURE_OF_ITS_OWN = False, True


def forgotten_claims(core, me, shown, unconfirmed):
    jobs = [core.Job(**vars(each)) for each in shown]
    claims = core.forgotten_claims(core.Owner(**vars(me)), jobs, unconfirmed=unconfirmed)
    return [claim.number for claim in claims]


FORGOTTEN_CLAIMS = {
    "a first try has left nothing": (owner(1), [], SURE_OF_ITS_OWN, []),
    "nothing is shown, so any earlier try may have left a job": (owner(3), [], SURE_OF_ITS_OWN, [1, 2]),
    "what is shown of the try before is what it has left": (owner(2), [JOB], SURE_OF_ITS_OWN, []),
    "smaller numbers have been reported, greater ones not": (
        owner(5),
        [job("a", 1, Phase.FAILED), job("b", 3, Phase.FAILED)],
        SURE_OF_ITS_OWN,
        [4],
    ),
    "its own job may have been forgotten after a lost answer": (owner(2), [], UNSURE_OF_ITS_OWN, [1, 2]),
    "or while it was begun again": (owner(2, restarted=True), [], SURE_OF_ITS_OWN, [1, 2]),
    "a job of a later try hides all": (owner(2), [job("a", 3)], UNSURE_OF_ITS_OWN, []),
}


# --- submitted_by_this_try ------------------------------------------------------------------------


def submitted_by_this_try(core, found, me, unconfirmed):
    return core.submitted_by_this_try(core.Job(**vars(found)), core.Owner(**vars(me)), unconfirmed)


SUBMITTED_BY_THIS_TRY = {
    "a job of an earlier number is history": (job("a", 1), owner(2), 0, False),
    "a job of this number is not ours for its number alone": (job("a", 2), owner(2), 0, False),
    "the job behind a lost answer is ours": (job("a", 2), owner(2), 2, True),
    "the job behind a lost answer may have an earlier number": (job("a", 1), owner(3), 1, True),
    "a job of another number is not what was sent": (job("a", 1), owner(2), 2, False),
    "what has the number but belongs to another run is not ours": (
        job("a", 1, after=OTHER_RUN),
        owner(1),
        1,
        False,
    ),
    "what has the number but is from before the clear is not ours": (
        job("a", 1),
        owner(2, cleared_after_try=1),
        1,
        False,
    ),
    "a try that is begun again has given its own number": (job("a", 2), owner(2, restarted=True), 0, True),
    "a try that is begun again has not given an earlier one": (
        job("a", 1),
        owner(2, restarted=True),
        0,
        False,
    ),
    "a try that is begun again may have lost an answer, too": (
        job("a", 1),
        owner(2, restarted=True),
        1,
        True,
    ),
    "a try that is begun again does not own another run's job": (
        job("a", 1, after=OTHER_RUN),
        owner(1, restarted=True),
        0,
        False,
    ),
    "it does not matter whether the job lives": (job("a", 2, Phase.FAILED), owner(2), 2, True),
}


# --- token_was_spent ------------------------------------------------------------------------------

ASKED = RUN_STARTED + 1000.0
LONG_AGO = 1000.0 - CLOCK_SKEW - 1.0
JUST_NOW = 1000.0
NEW, KNOWN = False, True


def token_was_spent(core, answer, me, known):
    return core.token_was_spent(core.Job(**vars(answer)), core.Owner(**vars(me)), ASKED, known=known)


TOKEN_WAS_SPENT = {
    "a new job is what was asked for": (job("a", 1, after=JUST_NOW), owner(1), NEW, False),
    "a new job may have failed at once": (job("a", 1, Phase.FAILED, JUST_NOW), owner(1), NEW, False),
    "a new job may have succeeded at once": (job("a", 1, Phase.SUCCEEDED, JUST_NOW), owner(1), NEW, False),
    "clocks may differ by a minute": (
        job("a", 1, Phase.FAILED, JUST_NOW - CLOCK_SKEW),
        owner(1),
        NEW,
        False,
    ),
    "an old job that lives is taken over": (job("a", 1, after=LONG_AGO), owner(2), NEW, False),
    "an old job that waits for its turn is taken over": (
        job("a", 1, Phase.QUEUED, LONG_AGO),
        owner(2),
        NEW,
        False,
    ),
    "an old job that has failed is history": (job("a", 1, Phase.FAILED, LONG_AGO), owner(2), NEW, True),
    "an old job that has succeeded is history, too": (
        job("a", 1, Phase.SUCCEEDED, LONG_AGO),
        owner(2),
        NEW,
        True,
    ),
    "a job that was known before is old however young it is": (
        job("a", 1, Phase.FAILED, JUST_NOW),
        owner(2),
        KNOWN,
        True,
    ),
    "a job that was known before and lives is taken over": (
        job("a", 1, after=JUST_NOW),
        owner(2),
        KNOWN,
        False,
    ),
    "what is being stopped was given up by somebody before": (
        job("a", 1, Phase.STOPPING, JUST_NOW),
        owner(1),
        NEW,
        True,
    ),
    "what was stopped was given up by somebody before": (
        job("a", 1, Phase.CANCELLED, JUST_NOW),
        owner(1),
        NEW,
        True,
    ),
    "a live job of a deleted run is not ours": (job("a", 1, after=OTHER_RUN), owner(1), NEW, True),
    "a live job from before the clear is not ours": (
        job("a", 1, after=JUST_NOW),
        owner(2, cleared_after_try=1),
        NEW,
        True,
    ),
    "a live job from before the clear is ours where it is to survive": (
        job("a", 1, after=JUST_NOW),
        owner(2, cleared_after_try=1, reattach=True),
        NEW,
        False,
    ),
}


# --- after_cancel ---------------------------------------------------------------------------------


def after_cancel(core, phase):
    answer = core.Job(**vars(replace(JOB, phase=phase, reason="as reported")))
    after = core.after_cancel(answer)
    assert after == replace(answer, phase=after.phase), "nothing but the phase is made up"
    return after.phase


AFTER_CANCEL = {
    "a job that is still queued is going to stop": (Phase.QUEUED, Phase.STOPPING),
    "a job that still runs is going to stop": (Phase.RUNNING, Phase.STOPPING),
    "a job that is being stopped is being stopped": (Phase.STOPPING, Phase.STOPPING),
    "a job that the service does not know is watched": (Phase.LOST, Phase.STOPPING),
    "a job that has stopped at once has stopped": (Phase.CANCELLED, Phase.CANCELLED),
    "a job that had failed before has failed": (Phase.FAILED, Phase.FAILED),
    "a job that had succeeded before has succeeded": (Phase.SUCCEEDED, Phase.SUCCEEDED),
}


# --- taken_over -----------------------------------------------------------------------------------


def taken_over(core, watched, me):
    return core.taken_over(core.Job(**vars(watched)), core.Owner(**vars(me)))


TAKEN_OVER = {
    "a job that this try has submitted is its own": (job("a", 1), owner(1), True),
    "a job that an earlier try left running is taken over": (job("a", 1), owner(2), True),
    "a job that waits for its turn is taken over": (job("a", 1, Phase.QUEUED), owner(2), True),
    "a job that was being stopped when it was found was given up": (
        job("a", 1, Phase.STOPPING),
        owner(2),
        False,
    ),
    "a job from before the clear is not taken over": (job("a", 1), owner(2, cleared_after_try=1), False),
    "a job from before the clear is taken over where it is to survive": (
        job("a", 1),
        owner(2, cleared_after_try=1, reattach=True),
        True,
    ),
    "a job to survive the clear that is being stopped was given up": (
        job("a", 1, Phase.STOPPING),
        owner(2, cleared_after_try=1, reattach=True),
        False,
    ),
    "a job of a deleted run is not taken over": (job("a", 1, after=OTHER_RUN), owner(1), False),
}


# --- should_cancel --------------------------------------------------------------------------------


def should_cancel(core, state, on_clear):
    return core.should_cancel(state, on_clear)


SHOULD_CANCEL = {
    "marked as failed": ("failed", "restart", True),
    "marked as success": ("success", "restart", True),
    "skipped": ("skipped", "restart", True),
    "failed with what it depends on": ("upstream_failed", "restart", True),
    "cleared, or its run deleted": (None, "restart", True),
    "removed from its DAG": ("removed", "restart", True),
    "cleared while it is on a worker": ("restarting", "restart", True),
    "cleared while it is on a worker, and the job survives": ("restarting", "reattach", False),
    "marked as failed, though a job survives a clear": ("failed", "reattach", True),
    "marked as success, though a job survives a clear": ("success", "reattach", True),
    "skipped, though a job survives a clear": ("skipped", "reattach", True),
    "failed with what it depends on, though a job survives a clear": ("upstream_failed", "reattach", True),
    "cleared, and the job survives": (None, "reattach", False),
    "removed from its DAG, and the job survives": ("removed", "reattach", False),
    "still deferred, as when the triggerer stops": ("deferred", "restart", False),
    "scheduled for its next step": ("scheduled", "restart", False),
    "queued for its next step": ("queued", "restart", False),
    "running already": ("running", "restart", False),
    "waiting for a retry, which cancels by itself": ("up_for_retry", "restart", False),
    "waiting for its turn again": ("up_for_reschedule", "restart", False),
    "still deferred, and a job survives a clear": ("deferred", "reattach", False),
}


# --- transient_error_limit --------------------------------------------------------------------------------


def transient_error_limit(core, timeout, at_stake, may_have_left, answered):
    policy = core.Policy(transient_error_timeout=timeout)
    return core.transient_error_limit(
        policy, at_stake=at_stake, may_have_left=may_have_left, answered=answered
    )


TRANSIENT_ERROR_LIMIT = {
    "nothing is at stake, and the service has answered before": (3600.0, False, False, True, 3600.0),
    "nothing is at stake, and the service has never answered": (3600.0, False, False, False, 600.0),
    "a short limit is kept where the service has never answered": (60.0, False, False, False, 60.0),
    "an earlier try may have left a job": (3600.0, False, True, False, 3600.0),
    "an earlier try may have left a job, though the service answers": (3600.0, False, True, True, 3600.0),
    "a job may run": (3600.0, True, False, True, None),
    "a job may run that no answer has confirmed": (3600.0, True, False, False, None),
    "a job may run, and an earlier one, too": (3600.0, True, True, False, None),
}


# --- owns: whose job is it ------------------------------------------------------------------------


def owns(core, found, me):
    return core.Owner(**vars(me)).owns(core.Job(**vars(found)))


def of(generation, number=1, phase=Phase.SUCCEEDED, after=0.0):
    """A job that a try of this generation has submitted: ``max_tries.retries``, as that worker read them."""
    return replace(job("a", number, phase, after), claim=Claim(TASK_KEY, number, generation=generation))


def me(try_number, max_tries, retries, **more):
    """A try as the operator makes it, on a worker that reads these ``retries``."""
    cleared = min(max(0, max_tries - retries), try_number - 1)
    return owner(try_number, cleared_after_try=cleared, generation=f"{max_tries}.{retries}", **more)


FOREIGN = replace(job("a", 1), claim=Claim("a" * 16, 1))

OWNS = {
    "a job of another task instance is not ours": (FOREIGN, owner(1), False),
    "nor where a job from before the clear is taken over": (FOREIGN, owner(1, reattach=True), False),
    "a job that bears no claim is not ours": (replace(JOB, claim=Claim("", 0)), owner(1), False),
    # Somebody changes `retries`: what the job tells, what this try reads, and whether the job is ours.
    # (The first number of a generation is max_tries, the second is retries.)
    "no clear, retries as they were": (of("3.3"), me(2, 3, 3), True),
    "no clear, retries raised since the job was submitted": (of("1.1"), me(2, 1, 3), True),
    "no clear, retries lowered since the job was submitted": (of("3.3"), me(2, 3, 1), True),
    "no clear, retries lowered to none": (of("3.3"), me(2, 3, 0), True),
    "a clear, retries as they were": (of("3.3"), me(2, 4, 3), False),
    "a clear, retries raised between the clear and its run": (of("1.1"), me(2, 2, 3), False),
    "a clear, retries raised by one between the clear and its run": (of("3.3"), me(2, 4, 4), False),
    "a clear, retries raised before it": (of("1.1"), me(2, 4, 3), False),
    "a clear, retries lowered before it": (of("3.3"), me(2, 2, 1), False),
    "a clear, retries lowered after it": (of("3.3"), me(2, 4, 1), False),
    "a clear, retries lowered before it by as many as there were tries": (of("3.3"), me(2, 3, 2), False),
    "a clear of a task instance that was cleared before": (of("4.3", 2), me(3, 5, 3), False),
    "a retry after a clear": (of("4.3", 2), me(3, 4, 3), True),
    "a retry after a clear, retries raised": (of("4.3", 2), me(3, 4, 9), True),
    "a retry after a clear, retries lowered: the clear cannot be later than the job": (
        of("4.3", 2),
        me(3, 4, 0),
        True,
    ),
    "workers that always read other retries than the scheduler": (of("3.0"), me(4, 3, 0), True),
    "workers that always read other retries than the scheduler, after a clear": (
        of("3.0"),
        me(2, 4, 0),
        False,
    ),
    "a job that does not tell its generation, from after the clear": (of("", 2), me(3, 4, 3), True),
    "a job that does not tell its generation, from before the clear": (of(""), me(3, 4, 3), False),
    "a job whose generation is nonsense counts as one that does not tell": (of("4", 2), me(3, 4, 3), True),
    "a try that does not know its generation goes by the number": (of("9.9", 2), owner(3, 1), True),
    "a job of this generation from a deleted run is not ours": (
        of("3.3", after=OTHER_RUN),
        me(2, 3, 3),
        False,
    ),
    "a live job from before the clear is ours where it is to survive": (
        of("3.3", phase=Phase.RUNNING),
        me(2, 4, 3, reattach=True),
        True,
    ),
}


# --- from_before_clear ----------------------------------------------------------------------------


def from_before_clear(core, jobs, me):
    found = core.Owner(**vars(me)).from_before_clear(core.Job(**vars(each)) for each in jobs)
    return [each.claim.number for each in found]


FROM_BEFORE_CLEAR = {
    "nothing is known": ([], me(2, 4, 3), []),
    "a job shows a clear that the numbers hide": ([of("1.1", 1)], me(2, 2, 3), [1]),
    "one of two jobs does": ([of("1.1", 1), of("2.3", 2)], me(3, 2, 3), [1]),
    "a job from after the clear shows none": ([of("2.0", 2)], me(3, 2, 1), []),
    "a stale try of a deleted run shows nothing": ([of("3.2", 2)], me(2, 2, 2), []),
    "a job of a deleted run shows nothing": ([of("1.1", 2, after=OTHER_RUN)], me(3, 3, 3), []),
    "a job that does not tell its generation shows nothing": ([of("", 1)], me(3, 5, 3), []),
}


# --- proved ---------------------------------------------------------------------------------------


def proved(core, remembered, seen, others):
    kept = core.proved(core.Job(**vars(remembered)), seen and core.Job(**vars(seen)), others_live=others)
    return kept and (kept.phase, kept.claim.generation, kept.claim.resubmission)


ALONE, OTHERS_LIVE = False, True
SAID_SO = of("3.3", phase=Phase.SUCCEEDED)
RUNS = of("2.2", phase=Phase.RUNNING)

PROVED = {
    "what the service says counts": (SAID_SO, RUNS, ALONE, (Phase.RUNNING, "2.2", 0)),
    "also when it has ended meanwhile": (RUNS, SAID_SO, ALONE, (Phase.SUCCEEDED, "3.3", 0)),
    "the token is remembered": (
        replace(RUNS, claim=Claim(TASK_KEY, 1, 4, "2.2")),
        RUNS,
        ALONE,
        (Phase.RUNNING, "2.2", 4),
    ),
    "a live job may not be known yet": (RUNS, None, ALONE, (Phase.RUNNING, "", 0)),
    "a live job that nobody knows does not stand beside one that is known": (RUNS, None, OTHERS_LIVE, None),
    "a success that nobody knows is none": (SAID_SO, None, ALONE, (Phase.LOST, "", 0)),
    "a failure is believed, but not when it was": (
        of("2.2", phase=Phase.FAILED),
        None,
        ALONE,
        (Phase.FAILED, "", 0),
    ),
    "a failure is believed beside a live job": (
        job("a", 1, Phase.FAILED),
        None,
        OTHERS_LIVE,
        (Phase.FAILED, "", 0),
    ),
}


# --- recall: what an XCom may contain -------------------------------------------------------------


def recall(core, stored, me):
    try:
        memory = core.Memory.recall(stored, core.Owner(**vars(me)))
    except Exception as error:  # noqa: BLE001 - a mutant may raise any
        return repr(error)
    believed = memory and (memory.overdue_since, memory.transient_for, memory.cleared_after_try)
    if memory and (not memory.unproved or memory.searched or believed != (None, 0.0, None)):
        return "believed as it is"
    return memory and (sorted(each.id for each in memory.seen), sorted(memory.own_job_ids))


def stored(*jobs, own="a", **changes):
    """The XCom of a try that has seen these jobs."""
    memory = Memory(5.0, jobs, frozenset(own.split()), searched=True, cleared_after_try=0, generation="9.9")
    memory = {**memory.to_dict(), "service": "ecs"}
    return {**memory, **changes}


def but(**changes):
    """The XCom of a try with one job, of which something is changed."""
    return stored(seen=[{**JOB.to_dict(), **changes}])


RECALL = {
    "what the try has stored": (stored(JOB), owner(1), (["a"], ["a"])),
    "a predecessor that still stops": (stored(JOB, own=""), owner(2, 1), (["a"], [])),
    "a job of another task instance is dropped": (stored(FOREIGN), owner(1), ([], [])),
    "ids of no job are dropped": (stored(JOB, own="a b"), owner(1), (["a"], ["a"])),
    "a text": ("remote_job", owner(1), None),
    "a list": ([1], owner(1), None),
    "nothing of a memory": ({"a": 1}, owner(1), None),
    "no jobs": (stored(seen=None), owner(1), None),
    "jobs that are none": (stored(seen=[5]), owner(1), None),
    "ids that are none": (stored(JOB, own_job_ids=[{}]), owner(1), None),
    "a start that is no time": (stored(JOB, started="now"), owner(1), None),
    "a start that is no number": (stored(JOB, started=float("nan")), owner(1), None),
    "a count that is none": (stored(JOB, crashes=True), owner(1), None),
    "a count that is a part": (stored(JOB, refusals=0.5), owner(1), None),
    "a flag that is none": (stored(JOB, answered="no"), owner(1), None),
    "a moment that may be missing": (stored(JOB, overdue_since=7.0), owner(1), (["a"], ["a"])),
    "a moment of the first error": (stored(JOB, transient_for=7.0), owner(1), (["a"], ["a"])),
    "a moment that is no time": (stored(JOB, overdue_since="late"), owner(1), None),
    "a job without an id": (but(id=None), owner(1), None),
    "a job of a phase that a later version has is asked for again": (
        but(phase="over"),
        owner(1),
        (["a"], ["a"]),
    ),
    "a job whose facts are none": (but(facts=[]), owner(1), None),
    "a job whose claim is none": (but(claim="af"), owner(1), None),
    "a job whose number is none": (but(claim={"task_key": TASK_KEY, "number": "1"}), owner(1), None),
}


# --- answered -------------------------------------------------------------------------------------


def answered(core, answer, claim):
    claim = core.answered(core.Job(**vars(answer)), claim).claim
    return claim.task_key, claim.token, claim.generation


ANSWERED = {
    "the token that was used is kept": (
        job("a", 1),
        Claim(TASK_KEY, 1, 3),
        (TASK_KEY, f"af-{TASK_KEY}-1-3", ""),
    ),
    "the job tells when it was submitted": (
        of("1.1"),
        Claim(TASK_KEY, 1, 0, "2.1"),
        (TASK_KEY, f"af-{TASK_KEY}-1", "1.1"),
    ),
    "a job of another task instance does not become ours": (
        FOREIGN,
        Claim(TASK_KEY, 1),
        ("a" * 16, f"af-{'a' * 16}-1", ""),
    ),
}


RULES = {
    transient_error_limit: TRANSIENT_ERROR_LIMIT,
    owns: OWNS,
    from_before_clear: FROM_BEFORE_CLEAR,
    proved: PROVED,
    recall: RECALL,
    answered: ANSWERED,
    must_search: MUST_SEARCH,
    forgotten_claims: FORGOTTEN_CLAIMS,
    submitted_by_this_try: SUBMITTED_BY_THIS_TRY,
    token_was_spent: TOKEN_WAS_SPENT,
    after_cancel: AFTER_CANCEL,
    taken_over: TAKEN_OVER,
    should_cancel: SHOULD_CANCEL,
    changed: CHANGED,
}


def wrong_rows(core) -> list[str]:
    """Rows that `core` gets wrong."""
    return [
        f"{rule.__name__}: {name}"
        for rule, table in RULES.items()
        for name, (*given, expected) in table.items()
        if rule(core, *given) != expected
    ]


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        pytest.param(rule, given, expected, id=f"{rule.__name__}: {name}")
        for rule, table in RULES.items()
        for name, (*given, expected) in table.items()
    ],
)
def test_what_a_rule_says_when(rule, given, expected):
    assert rule(REAL, *given) == expected
