"""From what was seen to figures, and from figures to whether a row held."""

from dataclasses import replace

import pytest

from faults.cases import BY_ID, FATES, ROWS, TWO, Wanted
from faults.judge import Act, Figures, RemoteJob, Seen, figures

WELL = RemoteJob("job-1", made=10, ended=20, outcome="succeeded")
BAD = RemoteJob("job-1", made=10, ended=20, outcome="failed")
LIVE = RemoteJob("job-1", made=10)
NEXT = RemoteJob("job-2", made=30, ended=40, outcome="succeeded")


def stopped(at, name="job-1", made=10.0, **more):
    return RemoteJob(name, made=made, ended=at + 1, outcome="cancelled", cancelled=at, **more)


def of(*jobs, acts=(), **more):
    return figures(Seen(jobs=jobs, acts=tuple(acts), **more))


@pytest.mark.parametrize(
    ("seen", "left"),
    [
        pytest.param(Seen((WELL,)), 0, id="a job that has ended is not left"),
        pytest.param(Seen((LIVE,), state="failed"), 1, id="a job that lives is left"),
        pytest.param(Seen((LIVE, RemoteJob("job-2", made=30)), state="failed"), 2, id="each of them counts"),
    ],
)
def test_jobs_are_left(seen, left):
    assert figures(seen).left == left


CLEARED = [Act(25, "clear")]


@pytest.mark.parametrize(
    ("jobs", "acts", "wronged"),
    [
        pytest.param([stopped(25)], [], 1, id="cancelled although nobody gave it up"),
        pytest.param([stopped(25)], [Act(24, "mark failed")], 0, id="cancelled after it was given up"),
        pytest.param([stopped(25)], [Act(26, "mark failed")], 1, id="cancelled before it was given up"),
        pytest.param([stopped(25)], [Act(5, "clear")], 1, id="made after the clear, which asked for it"),
        pytest.param([stopped(25, by_hand=True)], [], 0, id="a person stopped it in AWS"),
        pytest.param([stopped(25)], [Act(24, "make the run again")], 1, id="a new run gives nothing up"),
        pytest.param([stopped(25)], [Act(24, "deadline")], 0, id="its time was up"),
        pytest.param([replace(WELL, cancelled=25)], [], 0, id="it had ended before"),
        pytest.param([replace(LIVE, cancelled=25)], [], 1, id="it has not stopped yet"),
        pytest.param([replace(WELL, cancelled=19)], [], 1, id="it was faster, but the end was asked for"),
        pytest.param([LIVE, stopped(25, "job-2", made=22)], [], 0, id="a duplicate: the other one lives on"),
        pytest.param([WELL, stopped(25, "job-2", made=22)], [], 1, id="the other one had ended before"),
        pytest.param(
            [stopped(25), stopped(26, "job-2", made=22)], [], 1, id="two, one after the other: one was wanted"
        ),
    ],
)
def test_jobs_are_wronged(jobs, acts, wronged):
    assert of(*jobs, acts=acts).wronged == wronged


@pytest.mark.parametrize(
    ("jobs", "acts", "state", "reported"),
    [
        pytest.param([WELL], [], "success", "equal", id="success for a job that succeeded"),
        pytest.param([BAD, NEXT], [], "success", "equal", id="success for the second job"),
        pytest.param([BAD], [], "failed", "equal", id="failure for a job that failed"),
        pytest.param([BAD], [], "success", "false success", id="success for a job that failed"),
        pytest.param([], [], "success", "false success", id="success without any job"),
        pytest.param([WELL], [], "failed", "false failure", id="failure for a job that succeeded"),
        pytest.param([stopped(25)], [], "failed", "equal", id="failure for a job that was stopped"),
        pytest.param([stopped(25)], [], "success", "false success", id="success for a job that was stopped"),
        pytest.param([LIVE], [], "deferred", "hangs", id="no end"),
        pytest.param([LIVE], [], None, "hangs", id="gone, and nobody deleted it"),
        pytest.param([WELL], CLEARED, "success", "stale", id="success of a job from before the clear"),
        pytest.param([WELL, NEXT], CLEARED, "success", "equal", id="success of the job after the clear"),
        pytest.param([WELL], CLEARED, "failed", "equal", id="failure, although the job before it succeeded"),
        pytest.param([LIVE], [Act(15, "mark failed")], "failed", "equal", id="failed, as asked for"),
        pytest.param([LIVE], [Act(15, "mark success")], "success", "equal", id="success, as asked for"),
        pytest.param([WELL], [Act(15, "mark failed")], "success", "not as asked", id="not as asked for"),
        pytest.param([LIVE], [Act(15, "run timeout")], "skipped", "equal", id="skipped by a run's timeout"),
        pytest.param([LIVE], [Act(15, "delete the run")], None, "equal", id="deleted, as asked for"),
        pytest.param([LIVE], [Act(15, "delete the run")], "failed", "not as asked", id="not deleted"),
        pytest.param([WELL], [Act(22, "deadline")], "success", "equal", id="it ended before its deadline"),
    ],
)
def test_state_is_held_against_what_really_happened(jobs, acts, state, reported):
    assert of(*jobs, acts=acts, state=state).reported == reported


def test_an_end_that_aws_has_forgotten_is_unknown_when_it_is_reported_as_failure():
    forgotten = RemoteJob("job-1", made=10, ended=20, outcome="succeeded", forgotten=True)
    assert of(forgotten, state="failed").reported == "unknown"
    assert of(RemoteJob("job-1", 10, 20, "failed", forgotten=True), state="failed").reported == "unknown"
    assert of(RemoteJob("job-1", 10, 20, "failed", forgotten=True)).reported == "false success"


def test_retries_count_over_all_clears_without_those_of_the_scheduler():
    acts = [Act(15, "clear", retries=1)]
    assert of(WELL, NEXT, acts=acts, retries=2).retries == 3
    assert of(WELL, NEXT, acts=acts, retries=2, by_scheduler=1).retries == 2
    assert of(WELL, by_scheduler=1).retries == 0, "the last try failed that way: nobody retried"


def test_jobs_that_follow_each_other_at_the_same_moment_do_not_live_at_once():
    second = RemoteJob("job-2", made=20)
    assert of(WELL, second, state="failed").at_once == 1
    assert of(LIVE, second, state="failed").at_once == 2
    assert of(state="failed").at_once == 0


# --- rows -------------------------------------------------------------------------------------------------


def test_a_row_holds_when_every_figure_is_as_wanted():
    assert TWO.held(Figures(made=2))
    for wrong in ({"made": 1}, {"left": 1}, {"wronged": 1}, {"reported": "hangs"}, {"retries": 1}):
        assert not TWO.held(Figures(**{"made": 2, **wrong}))


def test_two_jobs_at_once_are_wrong_unless_one_is_left_anyway():
    assert not TWO.held(Figures(made=2, at_once=2))
    assert Wanted(made=2, left=1).held(Figures(made=2, left=1, at_once=2))


def test_a_try_that_the_scheduler_fails_excuses_no_figure_but_a_retry_that_was_wanted():
    assert Wanted(retries=1).held(Figures(made=1, retries=0, by_scheduler=1))
    assert not Wanted(retries=1).held(Figures(made=1, retries=0))
    assert not Wanted().held(Figures(made=1, retries=1, by_scheduler=1))
    assert not Wanted().held(Figures(made=2, by_scheduler=1))


def test_where_a_task_may_go_on_fewer_retries_are_as_good():
    wanted = Wanted(retries=1, or_fewer=True)
    assert wanted.held(Figures(made=1, retries=0))
    assert wanted.held(Figures(made=1, retries=1))
    assert not wanted.held(Figures(made=1, retries=2))
    assert not wanted.held(Figures(made=1, retries=0, wronged=1))


def test_every_row_says_what_is_wanted_for_fates_that_it_has():
    for row in ROWS:
        assert set(row.fates) <= set(FATES), row.id
        assert set(row.wanted) <= set(FATES), row.id
        for limit in row.impossible:
            for case in limit.comes:
                assert (case if isinstance(case, str) else case[1]) in row.fates, row.id
        costs = any(row.ideal(fate) != Wanted() for fate in row.fates)
        assert bool(row.note) == costs, f"{row.id}: a reason belongs to more than one job, or a retry"


def test_what_is_impossible_differs_from_what_is_wanted_and_names_what_heals_it():
    for row in ROWS:
        for limit in row.impossible:
            assert limit.why.endswith(".")
            assert limit.heals.endswith(".")
            for case, comes in limit.comes.items():
                fate = case if isinstance(case, str) else case[1]
                assert list(comes) != [row.ideal(fate)], row.id


def test_emr_forgets_no_steps():
    assert not any(row.applies("emr", "forgotten") for row in ROWS)
    assert BY_ID["kill-unread"].applies("ecs", "forgotten")
