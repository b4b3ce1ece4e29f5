"""What is done about what waits too long, by cause: one row for each situation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from airflow_resilient.core.needs import read_needs
from airflow_resilient.operations.acted import DONE, INTENDED, REFUSED, UNCLEAR, Act, Acted, key_of
from airflow_resilient.operations.remedies import (
    MAX_NOTE,
    Bounds,
    Do,
    EndedRun,
    Situation,
    ghosts,
    how_to_free,
    note_of,
    noted,
    plan,
)
from airflow_resilient.operations.snapshot import Dag, Pool, Waiting
from airflow_resilient.operations.why_waiting import Late, WaitingFacts, Why

NOW = 1_793_622_600.0
HOUR = 3600.0
STUCK = Waiting("etl", "run-1", "load", state="queued", since=NOW - HOUR, queued=NOW - HOUR)
WAITS = Waiting("other", "run-1", "work", state="scheduled", pool="small", since=NOW - HOUR)
GHOST = Waiting(
    "old", "run-9", "gone", state="queued", pool="small", since=NOW - 9 * HOUR, queued=NOW - 9 * HOUR
)
RUNS = Waiting("etl", "run-2", "load", state="running", since=NOW - 60, queued=NOW - 60)
FACTS = WaitingFacts(
    url="http://airflow",
    dags={name: Dag(name) for name in ("etl", "other", "old")},
    pools={"small": Pool("small", 1, occupied=1, queued=1), "default_pool": Pool("default_pool", 128)},
    waiting=(STUCK,),
    running=(),
)
WITH_GHOST = replace(FACTS, ended=frozenset({GHOST.key}), waiting=(GHOST, WAITS))
NOTHING = Acted("http://airflow")
GOES_ON = {("old", "run-9"): EndedRun("running")}


def late(waiting=STUCK, why=Why.NOT_STARTED, subject="default", since=NOW - HOUR):
    return Late(waiting, since, why, subject)


def situation(*found, facts=FACTS, run=None, queues_have_workers=True, **more):
    runs = {("old", "run-9"): run} if run is not None else {}
    more = {"runs": runs, "queues_have_workers": queues_have_workers, **more}
    return Situation(found, facts, NOW, **more)


def before(*outcomes, waiting=STUCK, try_number=1, when=NOW - 600):
    acts = (Act(key_of(waiting), try_number, "clear", when, outcome) for outcome in outcomes)
    return Acted("http://airflow", tuple(acts))


def shown(actions):
    return [(each.do.value, each.waiting.name if each.waiting else None, each.count) for each in actions]


LOAD, GONE, WORK = STUCK.name, GHOST.name, WAITS.name
BY_GHOSTS = late(WAITS, Why.GHOSTS, "small")
ENDED = late(GHOST, Why.RUN_ENDED, "small", NOW - 9 * HOUR)
ROWS = [
    pytest.param(situation(), NOTHING, [], id="nothing-waits"),
    # --- a queued task instance that the executor does not start
    pytest.param(situation(late()), NOTHING, [("clear", LOAD, 1)], id="it-is-cleared"),
    pytest.param(
        situation(late(), facts=replace(FACTS, running=(RUNS,))),
        NOTHING,
        [("clear", LOAD, 1)],
        id="something-that-was-queued-later-runs-already",
    ),
    pytest.param(
        situation(late(), facts=replace(FACTS, running=(replace(RUNS, queued=NOW - 2 * HOUR),))),
        NOTHING,
        [("tell", LOAD, 1)],
        id="its-queue-is-long",
    ),
    pytest.param(
        situation(
            late(), facts=replace(FACTS, running=(replace(RUNS, queue="slow", queued=NOW - 2 * HOUR),))
        ),
        NOTHING,
        [("clear", LOAD, 1)],
        id="another-queue-is-long",
    ),
    pytest.param(
        situation(late(), facts=replace(FACTS, running=(replace(RUNS, queued=None),))),
        NOTHING,
        [("tell", LOAD, 1)],
        id="when-what-runs-was-queued-is-not-known",
    ),
    pytest.param(
        situation(late(replace(STUCK, queued=None))),
        NOTHING,
        [("tell", LOAD, 1)],
        id="when-it-was-queued-is-not-known",
    ),
    pytest.param(
        situation(late(), queues_have_workers=False),
        NOTHING,
        [("tell", LOAD, 1)],
        id="perhaps-no-worker-listens-on-its-queue",
    ),
    pytest.param(
        situation(late(), facts=replace(FACTS, running=(RUNS,)), queues_have_workers=False),
        NOTHING,
        [("clear", LOAD, 1)],
        id="what-was-queued-much-later-proves-that-workers-listen",
    ),
    pytest.param(
        situation(late(), facts=replace(FACTS, running=(replace(RUNS, queued=STUCK.queued + 60),))),
        NOTHING,
        [("tell", LOAD, 1)],
        id="what-was-queued-a-little-later-proves-nothing",
    ),
    pytest.param(
        situation(
            late(), facts=replace(FACTS, running=(replace(RUNS, executor="Kube"),)), queues_have_workers=False
        ),
        NOTHING,
        [("tell", LOAD, 1)],
        id="another-executor-proves-nothing",
    ),
    pytest.param(
        situation(late(), facts=replace(FACTS, url="mwaa://prod", running=(RUNS,))),
        NOTHING,
        [("tell", LOAD, 1)],
        id="the-queue-of-amazon-mwaa-keeps-no-order",
    ),
    pytest.param(
        situation(replace(late(replace(STUCK, queued=NOW - 200)), limit=900.0)),
        NOTHING,
        [("tell", LOAD, 1)],
        id="it-has-waited-for-long-and-was-queued-just-now",
    ),
    pytest.param(
        situation(
            late(), facts=replace(FACTS, dags={"etl": Dag("etl", needs=read_needs(["wait_at_most=soon"]))})
        ),
        NOTHING,
        [("tell", LOAD, 1)],
        id="nobody-knows-how-long-it-may-wait",
    ),
    # --- never twice
    pytest.param(situation(late()), before(DONE), [("tell", LOAD, 1)], id="it-was-cleared"),
    pytest.param(situation(late()), before(INTENDED), [("tell", LOAD, 1)], id="it-may-have-been-cleared"),
    pytest.param(situation(late()), before(UNCLEAR), [("tell", LOAD, 1)], id="nobody-knows-whether"),
    pytest.param(situation(late()), before(REFUSED), [("clear", LOAD, 1)], id="airflow-has-refused-it"),
    pytest.param(
        situation(late(replace(STUCK, try_number=2))),
        before(DONE),
        [("tell", LOAD, 1)],
        id="its-next-try-is-stuck-again",
    ),
    pytest.param(
        situation(late()),
        before(DONE, waiting=replace(STUCK, map_index=3)),
        [("clear", LOAD, 1)],
        id="another-map-index-was-cleared",
    ),
    # --- ghosts
    pytest.param(
        situation(BY_GHOSTS, facts=WITH_GHOST, run=EndedRun("success")),
        NOTHING,
        [("skip", GONE, 1)],
        id="a-ghost-is-skipped-and-nobody-is-told-of-what-waits",
    ),
    pytest.param(
        situation(BY_GHOSTS, ENDED, facts=WITH_GHOST, run=EndedRun("success")),
        NOTHING,
        [("skip", GONE, 1)],
        id="once-although-it-waits-itself",
    ),
    pytest.param(
        situation(ENDED, facts=WITH_GHOST, run=EndedRun("failed", failed=2)),
        NOTHING,
        [("fail-run", GONE, 1)],
        id="of-a-run-with-failures-the-run-is-failed-again",
    ),
    pytest.param(
        situation(ENDED, facts=WITH_GHOST, run=EndedRun("success", failed=2)),
        NOTHING,
        [("tell", GONE, 1)],
        id="of-a-success-with-failures-a-person-decides",
    ),
    pytest.param(situation(ENDED, facts=WITH_GHOST), NOTHING, [("later", GONE, 1)], id="a-run-not-read"),
    pytest.param(
        situation(ENDED, facts=WITH_GHOST, runs=GOES_ON), NOTHING, [], id="the-run-goes-on-so-it-is-no-ghost"
    ),
    pytest.param(
        situation(late(replace(GHOST, state="scheduled"), Why.RUN_ENDED, "small"), facts=WITH_GHOST),
        NOTHING,
        [("tell", GONE, 1)],
        id="what-is-only-scheduled-occupies-nothing",
    ),
    pytest.param(
        situation(ENDED, facts=WITH_GHOST, run=EndedRun("success")),
        before(DONE, waiting=GHOST),
        [("tell", GONE, 1)],
        id="a-ghost-that-was-skipped-and-still-waits",
    ),
    # --- nothing that a program should do
    *(
        pytest.param(
            situation(late(WAITS, why, "p"), late(replace(WAITS, slots=2), why, "p", NOW - 9)),
            NOTHING,
            [("tell", WORK, 2)],
            id=f"{why.value}-is-for-a-person",
        )
        for why in Why
        if why not in (Why.NOT_STARTED, Why.RUN_ENDED, Why.GHOSTS)
    ),
    # --- nothing at all
    pytest.param(
        situation(late(), scheduled=False), NOTHING, [("tell", None, 1)], id="no-scheduler-would-start-it"
    ),
    pytest.param(
        situation(late(), unknown=("dags: 403",)), NOTHING, [("unknown", None, 1)], id="what-is-not-known"
    ),
]


@pytest.mark.parametrize(("given", "past", "wanted"), ROWS)
def test_the_plan(given, past, wanted):
    assert shown(plan(given, past, Bounds())) == wanted


@pytest.mark.parametrize(
    ("run", "wanted"),
    [
        (EndedRun(None), Do.TELL),
        (EndedRun("success"), Do.SKIP),
        (EndedRun("failed"), Do.SKIP),
        (EndedRun("failed", active=1), Do.SKIP),
        (EndedRun("failed", failed=1), Do.FAIL_RUN),
        (EndedRun("failed", failed=1, active=1), Do.TELL),
        (EndedRun("failed", failed=1, active=-1), Do.TELL),
        (EndedRun("success", failed=1), Do.TELL),
    ],
)
def test_a_ghost_is_freed_by_the_least_that_does_not_let_its_run_go_on(run, wanted):
    assert how_to_free(run)[0] is wanted


@pytest.mark.parametrize(
    ("found", "on_3", "wanted"),
    [
        pytest.param(
            late(),
            True,
            (
                "POST",
                "/dags/etl/clearTaskInstances",
                {
                    "dry_run": False,
                    "only_failed": False,
                    "reset_dag_runs": False,
                    "task_ids": ["load"],
                    "dag_run_id": "run-1",
                },
            ),
            id="clear",
        ),
        pytest.param(
            ENDED,
            True,
            ("PATCH", "/dags/old/dagRuns/run-9/taskInstances/gone", {"new_state": "skipped"}),
            id="skip",
        ),
        pytest.param(
            ENDED,
            False,
            (
                "PATCH",
                "/dags/old/dagRuns/run-9/taskInstances/gone",
                {"dry_run": False, "new_state": "skipped"},
            ),
            id="skip-on-2",
        ),
    ],
)
def test_a_change_is_one_request_about_this_task_instance_alone(found, on_3, wanted):
    given = situation(found, facts=replace(WITH_GHOST, on_3=on_3), run=EndedRun("success"))
    (action,) = plan(given, NOTHING, Bounds())
    assert (action.request.method, action.request.path, action.request.body) == wanted


def test_one_map_index_is_cleared_where_airflow_can():
    mapped = late(replace(STUCK, map_index=3))
    (on_3,) = plan(situation(mapped), NOTHING, Bounds())
    (on_2,) = plan(situation(mapped, facts=replace(FACTS, on_3=False)), NOTHING, Bounds())
    assert on_3.request.body["task_ids"] == [["load", 3]]
    assert on_2.request.body["task_ids"] == ["load"]


def many(number, waiting=STUCK, why=Why.NOT_STARTED):
    return [
        late(replace(waiting, task_id=f"t{each}"), why, since=NOW - HOUR + each) for each in range(number)
    ]


@pytest.mark.parametrize(
    ("bounds", "past", "clears", "reason"),
    [
        (Bounds(), NOTHING, 10, "--at-most is reached"),
        (Bounds(at_most=3), NOTHING, 3, "--at-most is reached"),
        (Bounds(at_most=0), NOTHING, 0, "--at-most is reached"),
        (Bounds(at_most=9, at_most_hourly=5), NOTHING, 5, "--at-most-hourly is reached"),
        (Bounds(at_most_hourly=5), before(*[DONE] * 3, waiting=GHOST), 2, "--at-most-hourly is reached"),
        (Bounds(at_most_hourly=5), before(*[INTENDED] * 9, waiting=GHOST), 0, "--at-most-hourly is reached"),
        (Bounds(at_most_hourly=5), before(*[REFUSED] * 9, waiting=GHOST), 5, "--at-most-hourly is reached"),
        (Bounds(), before(*[DONE] * 30, waiting=GHOST, when=NOW - 2 * HOUR), 10, "--at-most is reached"),
    ],
)
def test_no_more_is_done_than_may_be_and_the_oldest_first(bounds, past, clears, reason):
    *found, rest = plan(situation(*reversed(many(12))), past, bounds)
    assert [each.waiting.task_id for each in found] == [f"t{each}" for each in range(clears)]
    assert (rest.do, rest.count, rest.reason, rest.request) == (Do.LATER, 12 - clears, reason, None)


def test_what_is_told_is_no_change():
    given = situation(late(), *many(1, replace(STUCK, dag_id="other")))
    actions = plan(given, before(DONE), Bounds(at_most=1))
    assert [each.do for each in actions] == [Do.TELL, Do.CLEAR]


def test_a_run_that_is_failed_again_is_one_change_for_all_its_ghosts():
    three = many(3, GHOST, Why.RUN_ENDED)
    given = situation(*three, facts=WITH_GHOST, run=EndedRun("failed", failed=1))
    (action,) = plan(given, NOTHING, Bounds(at_most=1))
    assert (action.do, action.count) == (Do.FAIL_RUN, 3)
    assert (action.request.path, action.request.body) == ("/dags/old/dagRuns/run-9", {"state": "failed"})


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [
        (Bounds(dags=("et*",)), ["clear"]),
        (Bounds(dags=("o*",)), ["skip"]),
        (Bounds(dags=("old", "etl")), ["skip", "clear"]),
        (Bounds(dags=("other",)), ["tell"]),
        (Bounds(causes=(Why.NOT_STARTED,)), ["clear"]),
        (Bounds(causes=(Why.GHOSTS,)), ["skip"]),
        (Bounds(causes=(Why.POOL_FULL,)), []),
    ],
)
def test_dags_and_causes_may_be_chosen_and_no_other_dag_is_touched(bounds, wanted):
    given = situation(late(), BY_GHOSTS, facts=WITH_GHOST, run=EndedRun("success"))
    assert [each.do.value for each in plan(given, NOTHING, bounds)] == wanted


def test_each_paused_dag_is_told_with_its_own_step():
    found = [late(replace(WAITS, dag_id=each), Why.DAG_PAUSED, each) for each in ("etl", "other")]
    steps = [each.next_step for each in plan(situation(*found), NOTHING, Bounds())]
    assert steps == ["airflow dags unpause etl", "airflow dags unpause other"]


def test_all_ghosts_that_a_person_must_see_are_told_once():
    given = situation(*many(5, GHOST, Why.RUN_ENDED), facts=WITH_GHOST, run=EndedRun("success", failed=1))
    assert [(each.do, each.count) for each in plan(given, NOTHING, Bounds())] == [(Do.TELL, 5)]


def test_ghosts_of_another_pool_hide_nothing():
    elsewhere = late(replace(WAITS, pool="big"), Why.GHOSTS, "big")
    given = situation(BY_GHOSTS, elsewhere, facts=WITH_GHOST, run=EndedRun("success"))
    assert [each.do.value for each in plan(given, NOTHING, Bounds())] == ["skip", "tell"]


def test_the_ghosts_of_a_pool_are_found_by_what_waits_for_them():
    assert list(ghosts(situation(BY_GHOSTS, facts=WITH_GHOST), Bounds())) == [GHOST.key]


def test_a_person_is_told_what_was_done_and_what_helps():
    (told,) = plan(situation(late(replace(STUCK, try_number=2))), before(DONE), Bounds())
    assert told.reason.startswith("clear was done at 2026-11-02 12:20:00Z (try 1), and it is stuck again")
    assert "restart the scheduler" in told.next_step


# --- what is remembered ---------------------------------------------------------------------------------


def test_an_action_is_kept_while_its_task_instance_waits_and_for_a_week():
    old = before(DONE, when=NOW - 8 * 86_400)
    assert old.kept({key_of(STUCK)}, NOW) == old
    assert old.kept(set(), NOW).acts == ()
    assert before(DONE).kept(set(), NOW) == before(DONE)


def test_keys_of_task_instances_are_not_mixed_up():
    assert key_of(Waiting("a", "b/c", "d")) != key_of(Waiting("a/b", "c", "d"))


# --- notes ----------------------------------------------------------------------------------------------


def test_a_note_says_what_was_done_when_and_why():
    (action,) = plan(situation(late()), NOTHING, Bounds())
    assert note_of(action, NOW) == (
        "airflow-resilient unstick, 2026-11-02 12:30:00Z: cleared it (try 1, waiting for 1 h): it has its "
        "slot, and the executor does not start it: nothing of its queue runs, although workers listen on it"
    )


@pytest.mark.parametrize(
    ("note", "done", "wanted"),
    [
        (None, "done", "done"),
        ("", "done", "done"),
        ("a person's", "done", "a person's\ndone"),
        ("p" * 900, "d" * 200, f"{'p' * 900}\n{'d' * 98}…"),
        ("p" * 990, "d" * 200, None),
        ("p" * MAX_NOTE, "done", None),
    ],
)
def test_what_a_person_has_noted_stays_whole(note, done, wanted):
    assert noted(note, done) == wanted
    assert wanted is None or len(wanted) <= MAX_NOTE


def test_a_run_that_may_have_been_marked_is_not_marked_again_for_another_ghost():
    other = replace(GHOST, task_id="other")
    facts = replace(WITH_GHOST, ended=frozenset({GHOST.key, other.key}), waiting=(GHOST, other, WAITS))
    marked = Acted("http://airflow", (Act(key_of(GHOST), 1, Do.FAIL_RUN.value, NOW - 300, UNCLEAR),))
    given = situation(late(other, Why.RUN_ENDED, "small"), facts=facts, run=EndedRun("failed", failed=1))
    assert [each.do for each in plan(given, marked, Bounds())] == [Do.TELL]
    assert [each.do for each in plan(given, NOTHING, Bounds())] == [Do.FAIL_RUN]


def test_a_next_step_for_amazon_mwaa_can_be_run_there():
    missing = late(replace(WAITS, pool="nope"), Why.POOL_MISSING, "nope")
    (told,) = plan(situation(missing, facts=replace(FACTS, url="mwaa://prod")), NOTHING, Bounds())
    assert told.next_step.startswith("aws mwaa invoke-rest-api")


def test_where_nothing_is_scheduled_the_step_for_amazon_mwaa_can_be_done_there():
    facts = replace(FACTS, url="mwaa://prod")
    (told,) = plan(situation(late(), facts=facts, scheduled=False), NOTHING, Bounds())
    assert "aws mwaa get-environment" in told.next_step
