"""Who is an orphan, as a table; and a sweep over jobs in memory and task instances that the test sets."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.core.job import Claim, Job, Phase
from airflow_resilient.core.retry import Runtime
from airflow_resilient.operations.report import span
from airflow_resilient.operations.sweep import (
    CLEANED_AFTER,
    GRACE,
    STALE_WORKER_WINDOW,
    Evidence,
    Finding,
    OrphanStatus,
    OrphanVerdict,
    Report,
    SweepTarget,
    classify,
    evidence,
    search,
    sweep,
    why_not_recognised,
    why_not_this_airflow,
)
from airflow_resilient.operations.task_instances import ENDED, UNFINISHED, AirflowApiError, Instance
from airflow_resilient.testing import InMemoryJobs
from airflow_resilient.testing.in_memory_jobs import Throttled

OURS = "https://airflow.example.com"
NOW = 1_000_000.0
TASK = Instance("etl", "manual__1", "sort", state="deferred", try_number=1, started=NOW - 7200)
TASK_KEY = TASK.task_key(OURS)
LEFT_1, LEFT = "airflow_resilient_left_1", OrphanStatus.LEFT_RUNNING


def a_job(number: int = 1, age: float = 7200, name: str = "job-1", **more) -> Job:
    return Job(name, Claim(TASK_KEY, number), Phase.RUNNING, NOW - age, **more)


def of_call(call: str, number: int = 1, name: str = "job-1", **more) -> Job:
    """The job of an operator that was called inside of the task instance."""
    return replace(a_job(number, name=name, **more), claim=Claim(f"{TASK_KEY}_{call}", number))


def over(state: str = "failed", since: float | None = 3600, **more) -> Instance:
    ended = None if since is None else NOW - since
    return replace(TASK, state=state, ended=ended, **more)


TABLE = [
    *[
        pytest.param(
            a_job(),
            replace(TASK, state=state),
            {},
            OrphanStatus.WANTED,
            f"its task instance is {state}",
            id=row,
        )
        for state, row in [
            ("running", "a-try-is-on-a-worker"),
            ("deferred", "a-trigger-watches-it"),
            ("queued", "a-try-is-on-its-way-to-a-worker"),
            ("scheduled", "a-try-is-scheduled"),
            ("restarting", "cleared-while-it-ran"),
            ("up_for_retry", "the-retry-will-adopt-it"),
            ("up_for_reschedule", "it-comes-back"),
            ("awaiting_input", "a-state-that-a-later-airflow-brings"),
        ]
    ],
    pytest.param(
        a_job(),
        replace(TASK, state=None),
        {},
        OrphanStatus.WANTED,
        "cleared",
        id="cleared-and-not-scheduled-yet",
    ),
    pytest.param(
        a_job(1),
        replace(TASK, try_number=4, max_tries=5),
        {"retries": 2, "others": [a_job(4, name="job-4")]},
        OrphanStatus.WANTED,
        "deferred",
        id="the-live-try-heals-superseded-jobs-itself",
    ),
    pytest.param(
        a_job(), replace(TASK), {"unknown_because": "?"}, OrphanStatus.WANTED, "deferred", id="wanted-is-sure"
    ),
    *[
        pytest.param(
            a_job(),
            over(state),
            {},
            OrphanStatus.ENDED,
            f"{state} (ended 1 h ago)",
            id=f"its-task-instance-is-{state}",
        )
        for state in ENDED
    ],
    pytest.param(a_job(), over(since=None), {}, OrphanStatus.ENDED, "failed", id="ended-nobody-knows-when"),
    pytest.param(
        a_job(age=599), over(), {}, OrphanStatus.YOUNG, "9 min 59 s ago", id="created-within-the-grace-period"
    ),
    pytest.param(
        a_job(age=600), over(), {}, OrphanStatus.ENDED, "failed", id="created-before-the-grace-period"
    ),
    pytest.param(
        a_job(),
        over(since=599),
        {},
        OrphanStatus.YOUNG,
        "ended only 9 min 59 s ago",
        id="ended-within-the-grace-period",
    ),
    pytest.param(
        a_job(), over(since=600), {}, OrphanStatus.ENDED, "10 min", id="ended-before-the-grace-period"
    ),
    pytest.param(
        a_job(age=20),
        over(since=20),
        {"grace": 10},
        OrphanStatus.ENDED,
        "failed",
        id="a-shorter-grace-period",
    ),
    pytest.param(a_job(age=-30), over(), {}, OrphanStatus.YOUNG, "0 s ago", id="aws-s-clock-is-ahead"),
    pytest.param(a_job(), None, {}, OrphanStatus.DELETED, "deleted", id="no-task-instance-has-its-claim"),
    pytest.param(
        a_job(age=10), None, {}, OrphanStatus.YOUNG, "10 s ago", id="young-and-no-task-instance-yet"
    ),
    pytest.param(
        a_job(),
        None,
        {"unknown_because": "no account"},
        OrphanStatus.UNKNOWN,
        "no account",
        id="airflow-does-not-respond",
    ),
    pytest.param(
        a_job(),
        over(),
        {"unknown_because": "denied"},
        OrphanStatus.UNKNOWN,
        "denied",
        id="whether-it-was-left-is-not-known",
    ),
    pytest.param(
        a_job(age=10),
        None,
        {"unknown_because": "?"},
        OrphanStatus.YOUNG,
        "10 s",
        id="young-whatever-airflow-says",
    ),
    *[
        pytest.param(
            a_job(name=name), over("success"), {"xcoms": {LEFT_1: value}}, LEFT, "on purpose", id=row
        )
        for name, value, row in [
            (
                "arn:aws:ecs:eu-west-1:1:task/etl/3ca",
                '["arn:aws:ecs:eu-west-1:1:task/etl/3ca"]',
                "left-on-purpose",
            ),
            ("s-1,s-2", "['s-1,s-2']", "left-as-python-writes-it"),
            ("s-3,s-1", '["s-1,s-2,s-3"]', "left-and-a-step-of-it-has-ended"),
            ("s-1", '"[\\"s-1\\"]"', "left-as-a-text-in-a-text"),
            ("s-1", ["s-1"], "left-as-a-list"),
            ("s-1", "s3://xcoms/etl/manual__1/sort/0f3", "left-and-the-value-is-in-object-storage"),
            ("s-1", '"file:///xcoms/0f3.gz"', "left-and-the-value-is-in-a-file"),
            ("s-1", "gAAAAABm", "left-and-the-value-is-encrypted"),
            ("s-1", {"__var": 1}, "left-and-the-value-has-a-form-of-its-backend"),
            ("s-1", "", "left-and-the-value-is-empty"),
            ("s-1", None, "left-and-the-value-is-not-shown"),
        ]
    ],
    pytest.param(
        a_job(2, name="s-1"),
        over(),
        {"xcoms": {LEFT_1: "s3://x", "airflow_resilient_left_2": "s3://y"}},
        LEFT,
        "on purpose",
        id="two-jobs-were-left-and-this-is-one",
    ),
    pytest.param(
        a_job(2, name="s-1"),
        over(),
        {"xcoms": {LEFT_1: '["s-1"]'}},
        LEFT,
        "on purpose",
        id="left-under-another-number-and-named",
    ),
    pytest.param(
        a_job(2),
        over(),
        {"xcoms": {LEFT_1: "s3://x"}},
        OrphanStatus.ENDED,
        "",
        id="a-job-of-another-number-was-left-and-its-id-is-hidden",
    ),
    pytest.param(
        a_job(2),
        over(),
        {"xcoms": {LEFT_1: '["s-1"]'}},
        OrphanStatus.ENDED,
        "",
        id="a-job-of-another-number-was-left",
    ),
    *[
        pytest.param(
            a_job(name=name),
            over(),
            {"xcoms": {LEFT_1: value}, "others": others},
            OrphanStatus.UNKNOWN,
            words,
            id=row,
        )
        for name, value, others, words, row in [
            ("s-1", '["s-12"]', [], "and not this one", "another-job-of-its-number-was-left"),
            ("s-1,s-9", '["s-1"]', [], "and not this one", "only-a-part-of-it-was-left"),
            ("s-1", "[]", [], "and not this one", "none-is-named-that-was-left"),
            (
                "s-1",
                "s3://x",
                [a_job(name="s-2")],
                "which says which one",
                "one-of-two-was-left-and-which-is-hidden",
            ),
        ]
    ],
    *[
        pytest.param(
            a_job(name="s-1"),
            over(),
            {"xcoms": {key: value}},
            OrphanStatus.UNKNOWN,
            f"an XCom '{key}', which this version does not know",
            id=row,
        )
        for key, value, row in [
            ("airflow_resilient_left", "s3://x", "left-by-a-version-without-numbers-and-the-value-is-hidden"),
            ("airflow_resilient_left", '["s-2"]', "left-by-a-version-without-numbers"),
            ("airflow_resilient_left_all", "true", "left-by-a-later-version"),
            ("airflow_resilient_left_0", "['s-2']", "left-under-a-number-that-no-claim-has"),
            ("airflow_resilient_left_" + "9" * 5000, "x", "left-under-a-number-that-no-int-can-be"),
        ]
    ],
    pytest.param(
        a_job(name="s-1"),
        over(),
        {"xcoms": {"airflow_resilient_left": '["s-1"]'}},
        LEFT,
        "on purpose",
        id="left-by-a-version-without-numbers-and-named",
    ),
    pytest.param(
        a_job(name="s-1", age=6),
        over(since=5),
        {"xcoms": {LEFT_1: "['s-1']"}},
        LEFT,
        "",
        id="left-a-moment-ago",
    ),
    pytest.param(
        a_job(name="s-1", age=6),
        over(),
        {"xcoms": {LEFT_1: "['s-2']"}},
        OrphanStatus.YOUNG,
        "6 s",
        id="young-and-another-was-left",
    ),
    pytest.param(
        a_job(),
        over(),
        {"xcoms": {"remote_job": "s3://xcoms/1"}},
        OrphanStatus.ENDED,
        "failed",
        id="its-memory-is-hidden-and-nothing-was-left",
    ),
    pytest.param(
        a_job(age=CLEANED_AFTER),
        None,
        {},
        OrphanStatus.UNKNOWN,
        "airflow db clean may have deleted the task instance",
        id="so-old-that-its-task-instance-may-have-been-cleaned-away",
    ),
    pytest.param(
        a_job(facts={"unattended": True}),
        None,
        {},
        OrphanStatus.UNKNOWN,
        "the job may run on without it",
        id="its-run-was-deleted-and-it-was-submitted-to-run-on",
    ),
    pytest.param(
        a_job(facts={"unattended": True}),
        over(),
        {},
        OrphanStatus.ENDED,
        "",
        id="it-was-submitted-to-run-on-and-its-task-instance-did-not-leave-it",
    ),
    pytest.param(
        a_job(age=CLEANED_AFTER - 1),
        None,
        {},
        OrphanStatus.DELETED,
        "",
        id="not-old-enough-to-be-cleaned-away",
    ),
    pytest.param(
        a_job(age=2 * CLEANED_AFTER),
        over(since=CLEANED_AFTER),
        {},
        OrphanStatus.UNKNOWN,
        "has no XCom any more: airflow db clean",
        id="so-old-that-its-mark-may-have-been-cleaned-away",
    ),
    pytest.param(
        a_job(age=2 * CLEANED_AFTER),
        over(since=CLEANED_AFTER),
        {"xcoms": {"remote_job": "s3://xcoms/1"}},
        OrphanStatus.ENDED,
        "",
        id="old-and-its-xcoms-are-still-there",
    ),
    pytest.param(
        a_job(),
        over(since=CLEANED_AFTER),
        {},
        OrphanStatus.ENDED,
        "",
        id="its-task-instance-ended-long-before-it",
    ),
    pytest.param(
        a_job(age=2 * CLEANED_AFTER),
        over(),
        {},
        OrphanStatus.ENDED,
        "",
        id="old-and-its-task-instance-is-not",
    ),
    pytest.param(
        a_job(2),
        over(try_number=3, max_tries=4),
        {"retries": 2},
        OrphanStatus.SUPERSEDED,
        "from before the latest clear",
        id="from-before-the-latest-clear",
    ),
    pytest.param(
        a_job(3),
        over(try_number=3, max_tries=4),
        {"retries": 2},
        OrphanStatus.ENDED,
        "",
        id="from-after-the-clear",
    ),
    pytest.param(
        a_job(2),
        over(try_number=3, max_tries=4),
        {},
        OrphanStatus.ENDED,
        "",
        id="the-task-is-not-there-any-more",
    ),
    pytest.param(
        a_job(1),
        over(),
        {"others": [a_job(1), a_job(3, name="job-3"), a_job(2, name="job-2")]},
        OrphanStatus.SUPERSEDED,
        f"af-{TASK_KEY}-3, is alive",
        id="a-later-job-lives-too",
    ),
    pytest.param(
        a_job(3), over(), {"others": [a_job(1)]}, OrphanStatus.ENDED, "", id="an-earlier-job-lives-too"
    ),
    pytest.param(
        a_job(1),
        over(),
        {"others": [Job("x", Claim("a" * 16, 9), Phase.RUNNING, NOW)]},
        OrphanStatus.ENDED,
        "",
        id="another-task-instance-has-a-later-number",
    ),
    # Operators that are called inside of the task instance.
    pytest.param(
        of_call("loadaaaa"),
        replace(TASK, state="running"),
        {},
        OrphanStatus.WANTED,
        "running",
        id="its-call-is-on-a-worker",
    ),
    pytest.param(of_call("loadaaaa"), over(), {}, OrphanStatus.ENDED, "failed", id="its-call-is-over"),
    pytest.param(
        of_call("loadaaaa", 1),
        over(),
        {"others": [of_call("loadbbbb", 2, "job-2"), a_job(3, name="job-3")]},
        OrphanStatus.ENDED,
        "",
        id="another-call-and-the-task-itself-have-a-later-number",
    ),
    pytest.param(
        of_call("loadaaaa", 1),
        over(),
        {"others": [of_call("loadaaaa", 2, "job-2")]},
        OrphanStatus.SUPERSEDED,
        f"af-{TASK_KEY}_loadaaaa-2, is alive",
        id="a-later-job-of-the-same-call-lives-too",
    ),
    pytest.param(
        of_call("loadaaaa"),
        over(),
        {"xcoms": {f"{LEFT_1}_loadaaaa": "s3://x"}},
        LEFT,
        "on purpose",
        id="its-call-left-it-and-the-value-is-hidden",
    ),
    *[
        pytest.param(
            of_call("loadaaaa"),
            over(),
            {"xcoms": {key: "s3://x"}},
            OrphanStatus.ENDED,
            "",
            id=row,
        )
        for key, row in [
            (f"{LEFT_1}_loadbbbb", "another-call-left-a-job-of-its-number"),
            (LEFT_1, "the-task-itself-left-a-job-of-its-number"),
        ]
    ],
    pytest.param(
        a_job(),
        over(),
        {"xcoms": {f"{LEFT_1}_loadaaaa": "s3://x"}},
        OrphanStatus.ENDED,
        "",
        id="a-call-left-a-job-of-its-number",
    ),
    pytest.param(
        of_call("loadaaaa", name="s-1"),
        over(),
        {"xcoms": {f"{LEFT_1}_loadaaaa": '["s-2"]'}},
        OrphanStatus.UNKNOWN,
        "and not this one",
        id="its-call-left-another-job-of-its-number",
    ),
]


@pytest.mark.parametrize(("job", "instance", "more", "status", "words"), TABLE)
def test_what_to_think_of_a_job(job, instance, more, status, words):
    verdict = classify(job, instance, now=NOW, **more)
    assert verdict.status is status
    assert words in verdict.reason


STATES = st.one_of(st.none(), st.sampled_from([*UNFINISHED, *ENDED, "awaiting_input", "shutdown", ""]))
KEYS = st.sampled_from(
    ["remote_job", "airflow_resilient_left", *(f"airflow_resilient_left_{number}" for number in range(1, 10))]
)
VALUES = st.sampled_from(["[]", "['job-1']", "['job-2']", "?", "s3://x", "", None])


@given(
    state=STATES,
    exists=st.booleans(),
    number=st.integers(1, 9),
    age=st.floats(-60, 1e6),
    since=st.one_of(st.none(), st.floats(-60, 1e6)),
    xcoms=st.dictionaries(KEYS, VALUES, max_size=3),
    unknown_because=st.sampled_from(["", "?"]),
    retries=st.one_of(st.none(), st.integers(0, 5)),
    max_tries=st.integers(0, 9),
)
def test_what_may_be_wanted_is_never_an_orphan(
    state, exists, number, age, since, xcoms, unknown_because, retries, max_tries
):
    instance = replace(over("failed", since, max_tries=max_tries), state=state) if exists else None
    verdict = classify(
        a_job(number, age),
        instance,
        now=NOW,
        xcoms=xcoms,
        unknown_because=unknown_because,
        retries=retries,
    )
    assert verdict.reason
    if verdict.status.orphan:
        assert not unknown_because
        assert age >= GRACE
        assert instance is None or state in ENDED
        assert instance is None or since is None or since >= GRACE
        assert instance is None or f"airflow_resilient_left_{number}" not in xcoms
        assert instance is None or "airflow_resilient_left" not in xcoms
        named = [value for key, value in xcoms.items() if key != "remote_job" and "job-1" in (value or "")]
        assert instance is None or not named
        assert instance is not None or age < CLEANED_AFTER


# --- what is proved -------------------------------------------------------------------------------


def remembered(*jobs: tuple[str, str]) -> dict[str, str]:
    """The XCom in which a try keeps its memory, as Airflow 3 shows it."""
    seen = [{"id": job, "scope": scope, "phase": "running"} for job, scope in jobs]
    return {"remote_job": json.dumps({"started": 1.0, "seen": seen, "own_job_ids": []})}


STEPS = a_job(name="s-1,s-2", scope="j-1")


@pytest.mark.parametrize(
    ("job", "xcoms", "says"),
    [
        pytest.param(STEPS, {}, Evidence.SILENT, id="no-xcom"),
        pytest.param(STEPS, remembered(("s-1,s-2", "j-1")), Evidence.NAMED, id="the-try-knows-it"),
        pytest.param(
            STEPS,
            {"remote_job": str(json.loads(remembered(("s-1,s-2", "j-1"))["remote_job"]))},
            Evidence.NAMED,
            id="the-try-knows-it-as-python-writes-it",
        ),
        pytest.param(
            a_job(name="s-2", scope="j-1"),
            remembered(("s-1,s-2", "j-1")),
            Evidence.NAMED,
            id="a-step-has-ended",
        ),
        pytest.param(STEPS, remembered(("s-1,s-2", "j-2")), Evidence.OTHER, id="on-another-cluster"),
        pytest.param(STEPS, remembered(("s-8,s-9", "j-1")), Evidence.OTHER, id="the-try-knows-another"),
        pytest.param(STEPS, remembered(("s-1", "j-1")), Evidence.OTHER, id="the-try-knows-a-part-of-it"),
        pytest.param(
            STEPS, remembered(("s-8", "j-1"), ("s-1,s-2", "j-1")), Evidence.NAMED, id="it-is-one-of-several"
        ),
        pytest.param(STEPS, remembered(("s-1,s-2", "")), Evidence.NAMED, id="a-service-without-scopes"),
        pytest.param(STEPS, remembered(), Evidence.SILENT, id="the-try-has-submitted-none-yet"),
        pytest.param(STEPS, {"remote_job": "s3://xcoms/7"}, Evidence.SILENT, id="the-memory-is-hidden"),
        pytest.param(STEPS, {"remote_job": '{"seen": 1}'}, Evidence.SILENT, id="the-memory-is-none"),
        pytest.param(
            STEPS, {"remote_job": '{"seen": ["s-1", null]}'}, Evidence.SILENT, id="nor-are-its-jobs"
        ),
        pytest.param(STEPS, {LEFT_1: '["s-1,s-2"]'}, Evidence.NAMED, id="left-and-named"),
        pytest.param(STEPS, {LEFT_1: '["s-9"]'}, Evidence.OTHER, id="another-was-left"),
        pytest.param(STEPS, {LEFT_1: "s3://xcoms/7"}, Evidence.SILENT, id="left-and-hidden"),
        pytest.param(
            STEPS,
            {**remembered(("s-9", "j-1")), LEFT_1: "s3://xcoms/7"},
            Evidence.SILENT,
            id="a-part-of-what-is-said-is-hidden",
        ),
        pytest.param(
            a_job(name="arn:aws:ecs:eu-west-1:1:task/etl/3ca", scope="arn:aws:ecs:eu-west-1:1:cluster/etl"),
            remembered(("arn:aws:ecs:eu-west-1:1:task/etl/3ca", "etl")),
            Evidence.NAMED,
            id="a-cluster-by-its-name-and-by-its-arn",
        ),
        pytest.param(
            STEPS,
            {"remote_job_loadaaaa": remembered(("s-1,s-2", "j-1"))["remote_job"]},
            Evidence.NAMED,
            id="a-call-knows-it",
        ),
        pytest.param(
            STEPS,
            {
                **remembered(("s-8,s-9", "j-1")),
                "remote_job_loadaaaa": remembered(("s-1,s-2", "j-1"))["remote_job"],
            },
            Evidence.NAMED,
            id="one-of-several-calls-knows-it",
        ),
    ],
)
def test_what_xcoms_say_of_a_job(job, xcoms, says):
    assert evidence(job, xcoms) is says


SWEEPER = Instance("sweeps", "hourly__1", "sweep", state="running", try_number=2, started=NOW, id="0198-a")
SWEEPER_2_11 = replace(SWEEPER, id="")


@pytest.mark.parametrize(
    ("me", "shown", "problem"),
    [
        pytest.param(SWEEPER, SWEEPER, "", id="itself"),
        pytest.param(SWEEPER, replace(SWEEPER, started=NOW + 3), "", id="the-id-decides"),
        pytest.param(SWEEPER_2_11, SWEEPER_2_11, "", id="itself-on-2.11"),
        pytest.param(
            replace(SWEEPER_2_11, started=NOW + 0.0001),
            SWEEPER_2_11,
            "",
            id="the-same-instant-but-for-rounding",
        ),
        pytest.param(SWEEPER, None, "has no such task instance", id="nobody"),
        pytest.param(
            SWEEPER, replace(SWEEPER, id="0198-b"), "another one of that name", id="its-twin-in-staging"
        ),
        pytest.param(
            SWEEPER_2_11,
            replace(SWEEPER_2_11, started=NOW + 0.2),
            "started at another time",
            id="its-twin-in-staging-on-2.11",
        ),
        pytest.param(SWEEPER, replace(SWEEPER, state="success"), "success, try 2", id="one-that-has-ended"),
        pytest.param(
            SWEEPER, replace(SWEEPER, state="queued"), "queued, try 2", id="one-that-has-not-started"
        ),
        pytest.param(SWEEPER, replace(SWEEPER, state=None), "None, try 2", id="one-that-was-cleared"),
        pytest.param(SWEEPER, replace(SWEEPER, try_number=1), "running, try 1", id="another-try"),
        pytest.param(
            SWEEPER, replace(SWEEPER, id="", started=None), "does not show when", id="no-id-and-no-start"
        ),
        pytest.param(
            replace(SWEEPER_2_11, started=None),
            SWEEPER_2_11,
            "does not show when",
            id="started-nobody-knows-when",
        ),
    ],
)
def test_a_sweep_finds_itself_or_has_asked_another_airflow(me, shown, problem):
    why = why_not_this_airflow(me, shown)
    assert bool(why) is bool(problem)
    assert problem in why
    assert not why or "it is another Airflow. Correct the connection" in why


@pytest.mark.parametrize(
    ("found", "recognised"),
    [
        ([], False),
        ([Evidence.NAMED], True),
        ([Evidence.SILENT], True),
        ([Evidence.OTHER], False),
        ([Evidence.OTHER, Evidence.OTHER, Evidence.NAMED], True),
    ],
)
def test_an_airflow_is_recognised_by_a_job_that_it_knows(found, recognised):
    assert bool(why_not_recognised(found)) is not recognised


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (3600, "1 h"), (3605, "1 h"), (86_400 * 3 + 60, "3 d"), (-5, "0 s")],
)
def test_spans_are_written_in_the_two_largest_units(seconds, text):
    assert span(seconds) == text


# --- a sweep --------------------------------------------------------------------------------------


class Listed(InMemoryJobs):
    """Jobs in memory that can be listed, as a service's must be to be swept."""

    def list_scopes(self):
        return ["memory"]

    def list_jobs(self, scope):
        return [job for real in self.live() if (job := real.observe(self.now())).scope == scope]


class Record:
    """What Airflow knows, set by the test: the rows of task instances, XComs, and what is not answered."""

    def __init__(self, *instances: Instance):
        self.rows = {instance.task_key(OURS): instance for instance in instances}
        self.changed = dict.fromkeys(self.rows, 0.0)
        self.kept: dict[str, dict[str, object]] = {}
        self.hidden = ""
        self.not_readable: set[str] = set()
        self.unanswered: set[str] = set()
        self.asked: list[str] = []
        self.shown = 0
        self.before_current = lambda: None

    def _answer(self, method):
        self.asked.append(method)
        if method in self.unanswered:
            raise AirflowApiError(f"403 to {method}")

    def put(self, instance, changed=0.0):
        name = instance.task_key(OURS)
        self.rows[name], self.changed[name] = instance, changed

    def instances(self, states=(), changed_since=0.0, changed_until=float("inf")):
        self._answer("instances")
        for name, row in list(self.rows.items()):
            in_time = changed_since <= self.changed[name] <= changed_until
            if row.dag_id not in self.not_readable and (not states or row.state in states) and in_time:
                self.shown += 1
                yield row

    def current(self, instance):
        self._answer("current")
        self.before_current()
        return self.rows.get(instance.task_key(OURS))

    def xcoms(self, instance):
        self._answer("xcoms")
        return self.kept.get(instance.task_key(OURS), {})

    def retries(self, instance):
        self._answer("retries")
        return 0

    def deferred_slots(self):
        self._answer("deferred_slots")
        return sum(row.pool_slots for row in self.rows.values() if row.state == "deferred")

    def why_not_every_dag(self):
        self._answer("why_not_every_dag")
        return self.hidden


@pytest.fixture
def service():
    return Listed(seconds=None, cancel_seconds=5)


@pytest.fixture
def record():
    return Record()


@pytest.fixture
def run(service, record):
    """Sweep an hour from now, when nothing is young any more."""

    def run(*, later=3600.0, targets=None, namespace=OURS, **more) -> Report:
        service.advance(later)
        runtime = Runtime(service.now, service.advance, lambda: 0.5)
        more = {"same_airflow": "me" not in more, **more}
        return sweep(targets or [SweepTarget("memory", service)], record, namespace, runtime, **more)

    return run


def start(service, record, state, task_id="sort", number=1, **more) -> Job:
    """A live job, and its task instance in that state, which changed after the job was created."""
    instance = Instance("etl", "manual__1", task_id, state=state, **more)
    record.put(instance, changed=service.now() + 1)
    return service.submit(Claim(instance.task_key(OURS), number))


def statuses(report):
    return {each.job.id: each.verdict.status.value for each in report.findings}


def test_a_dry_run_reports_orphans_and_cancels_nothing(service, record, run):
    orphan, wanted = start(service, record, "failed", "a"), start(service, record, "deferred", "b")
    report = run()
    assert statuses(report) == {orphan.id: "ended", wanted.id: "wanted"}
    assert (report.exit_code, service.calls["cancel"], len(service.live())) == (1, 0, 2)


def test_cancel_ends_the_orphans_and_nothing_else(service, record, run):
    doomed = [start(service, record, state, state) for state in ENDED]
    deleted = service.submit(Claim(Instance("etl", "gone", "x").task_key(OURS), 1))
    spared = [start(service, record, state, state) for state in UNFINISHED]
    left = start(service, record, "success", "left")
    record.kept[left.claim.task_key] = {LEFT_1: json.dumps([left.id])}
    foreign = service.submit(Claim(Instance("etl", "manual__1", "failed").task_key("https://other"), 1))
    report = run(cancel=True)
    assert {real.id for real in service.live()} == {job.id for job in (*spared, left, foreign)}
    assert {each.job.id for each in report.findings if each.ended} == {job.id for job in (*doomed, deleted)}
    assert (report.exit_code, report.foreign) == (0, 1)
    assert all("and has ended" in each.outcome for each in report.findings if each.ended)
    assert foreign.id not in statuses(report)


def test_the_reason_of_a_cancel_names_the_task_instance(service, record, run):
    start(service, record, "failed", "sort", map_index=3)
    run(cancel=True)
    assert service.history[0].stop_reason == "orphan of etl / manual__1 / sort[3]: ended"


def test_a_cancel_is_logged_with_its_service_and_its_reason(service, record, run, caplog):
    start(service, record, "failed")
    with caplog.at_level(logging.INFO, "airflow_resilient"):
        run(cancel=True)
    assert "cancelled memory job job-1, orphan of etl / manual__1 / sort: ended" in caplog.text


def test_nothing_is_asked_of_airflow_when_there_is_no_job_of_ours(service, record, run):
    service.submit(Claim(TASK.task_key("https://other"), 1))
    assert (run().exit_code, record.asked) == (0, [])


def test_the_search_ends_when_every_task_instance_is_found(service, record, run):
    start(service, record, "deferred")
    run()
    assert record.asked == ["instances"], "nothing has to be asked of what has ended"


def test_a_job_being_stopped_is_nobody_s_concern(service, record, run):
    job = start(service, record, "failed")
    service.advance(3600)
    service.cancel(job, "by a person")
    assert run(later=0, cancel=True).findings == ()


def test_a_clear_between_the_listing_and_the_cancel_saves_the_job(service, record, run):
    job = start(service, record, "failed")
    record.before_current = lambda: record.put(replace(next(iter(record.rows.values())), state=None))
    report = run(cancel=True)
    assert (statuses(report), service.calls["cancel"]) == ({job.id: "wanted"}, 0)
    assert report.findings[0].outcome == "not cancelled: it is not an orphan any more"
    assert report.exit_code == 0


def test_a_task_instance_deleted_during_a_sweep_leaves_the_job_for_the_next_one(service, record, run):
    start(service, record, "failed")
    record.before_current = record.rows.clear
    report = run(cancel=True)
    assert (report.findings[0].verdict.status, service.calls["cancel"]) == (OrphanStatus.UNKNOWN, 0)
    assert report.exit_code == 2


def test_a_run_that_is_made_again_under_its_id_before_the_cancel_saves_the_job(service, record, run):
    job = service.submit(Claim(TASK.task_key(OURS), 1))

    class Again(Record):
        def instances(self, states=(), **times):
            if self.asked.count("deferred_slots"):  # the first search is over
                self.put(TASK)
            return super().instances(states, **times)

    report = sweep(
        [SweepTarget("memory", service)],
        Again(),
        OURS,
        Runtime(lambda: service.now() + 3600, service.advance, lambda: 0.5),
        cancel=True,
        same_airflow=True,
    )
    assert (statuses(report), service.calls["cancel"]) == ({job.id: "wanted"}, 0)


def test_a_job_that_ends_by_itself_before_the_cancel_is_left_alone(service, record, run):
    job = start(service, record, "failed")
    record.before_current = lambda: service.finish(job)
    report = run(cancel=True)
    assert (report.findings[0].outcome, service.calls["cancel"]) == ("had ended already", 0)
    assert report.exit_code == 0


def test_a_job_that_does_not_stop_in_time_is_unresolved(record, run, service):
    slow = Listed(seconds=None, cancel_seconds=1000)
    start(slow, record, "failed")
    slow.advance(3600)
    runtime = Runtime(slow.now, slow.advance, lambda: 0.5)
    targets = [SweepTarget("memory", slow)]
    report = sweep(targets, record, OURS, runtime, cancel=True, wait=60, same_airflow=True)
    assert "has not ended within 1 min" in report.findings[0].outcome
    assert report.exit_code == 2


def test_a_cancel_that_is_denied_is_an_error_and_the_others_go_on(service, record, run):
    start(service, record, "failed", "a")
    start(service, record, "failed", "b")
    service.fail_next(PermissionError("denied"), "cancel")
    report = run(cancel=True)
    assert sorted(each.ended for each in report.findings) == [False, True]
    assert any("cannot be cancelled: PermissionError: denied" in each.outcome for each in report.findings)
    assert report.exit_code == 2


def test_a_cancel_that_finds_no_job_of_ours_is_not_reported_as_one(record, run):
    class Changed(Listed):
        """A service whose job turns out to be somebody else's at the last moment."""

        def cancel(self, job, reason):
            return replace(job, phase=Phase.LOST, reason="it was started by somebody else")

    changed = Changed(seconds=None)
    start(changed, record, "failed")
    report = run(cancel=True, targets=[SweepTarget("memory", changed)])
    (finding,) = report.findings
    assert finding.outcome == "not cancelled: it was started by somebody else"
    assert report.exit_code == 2


@pytest.mark.parametrize("method", ["observe", "cancel"])
def test_throttling_is_waited_out(service, record, run, method):
    start(service, record, "failed")
    service.throttle(3, method)
    assert run(cancel=True).exit_code == 0
    assert service.live() == []


def test_a_listing_that_is_throttled_is_repeated_and_one_that_is_denied_is_reported(service, record, run):
    answers = [Throttled("slow"), Throttled("slow"), PermissionError("no ListTasks")]

    class Moody(Listed):
        def list_scopes(self):
            return ["memory", "closed"]

        def list_jobs(self, scope):
            if answers and (scope == "closed" or len(answers) > 1):
                raise answers.pop(0)
            return super().list_jobs(scope)

    moody = Moody(service.name)
    orphan = start(service, record, "failed")
    report = run(targets=[SweepTarget("memory", moody)])
    assert statuses(report) == {orphan.id: "ended"}
    assert report.errors == ("memory: cannot list the jobs of closed: PermissionError: no ListTasks",)
    assert report.exit_code == 2


def test_scopes_that_cannot_be_listed_are_reported(service, record, run):
    class Closed(Listed):
        def list_scopes(self):
            raise PermissionError("no ListClusters")

    report = run(targets=[SweepTarget("memory", Closed(service.name))])
    assert "cannot list the scopes" in report.errors[0]
    assert run(targets=[SweepTarget("memory", Closed(service.name), ("memory",))]).exit_code == 0


@pytest.mark.parametrize("method", ["instances", "deferred_slots", "why_not_every_dag"])
def test_without_an_answer_of_airflow_no_run_counts_as_deleted(service, record, run, method):
    job = service.submit(Claim(TASK.task_key(OURS), 1))
    record.unanswered.add(method)
    report = run(cancel=True)
    assert (statuses(report), report.exit_code) == ({job.id: "unknown"}, 2)
    assert f"403 to {method}" in report.findings[0].verdict.reason
    assert len(service.live()) == 1


@pytest.mark.parametrize("method", ["xcoms", "retries", "current"])
def test_without_an_answer_about_a_task_instance_its_job_is_not_cancelled(service, record, run, method):
    job = start(service, record, "failed")
    record.unanswered.add(method)
    report = run(cancel=True)
    assert (statuses(report), report.exit_code) == ({job.id: "unknown"}, 2)
    assert len(service.live()) == 1


def test_jobs_of_dags_that_the_account_may_not_read_are_not_taken_for_deleted_ones(service, record, run):
    job = start(service, record, "deferred")
    record.not_readable.add("etl")
    report = run(cancel=True)
    assert statuses(report) == {job.id: "unknown"}
    assert (
        "pools have 1 slots of deferred task instances, but its API shows 0"
        in report.findings[0].verdict.reason
    )
    assert len(service.live()) == 1


def test_an_account_that_is_not_known_to_see_every_dag_has_no_deleted_runs(service, record, run):
    deleted = service.submit(Claim(Instance("etl", "gone", "sort").task_key(OURS), 1))
    ended = start(service, record, "failed")
    record.hidden = "https://airflow.example.com does not show every DAG to this account"
    report = run(cancel=True)
    assert statuses(report) == {deleted.id: "unknown", ended.id: "ended"}
    assert report.findings[0].verdict.reason == record.hidden
    assert ([real.id for real in service.live()], report.exit_code) == ([deleted.id], 2)
    assert record.asked.count("why_not_every_dag") == 1


def test_somebody_can_say_that_the_account_sees_every_dag(service, record, run):
    service.submit(Claim(TASK.task_key(OURS), 1))
    record.hidden = "nothing proves it"
    assert run(cancel=True, sees_every_dag=True).exit_code == 0
    assert service.live() == []


def test_what_pools_count_goes_before_what_somebody_says(service, record, run):
    job = start(service, record, "deferred")
    record.not_readable.add("etl")
    assert statuses(run(cancel=True, sees_every_dag=True)) == {job.id: "unknown"}


def test_a_sweep_that_finds_itself_cancels(service, record, run):
    start(service, record, "failed")
    service.submit(Claim(Instance("etl", "gone", "x").task_key(OURS), 1))
    record.put(SWEEPER)
    assert run(cancel=True, me=SWEEPER).exit_code == 0
    assert service.live() == []


def test_a_sweep_that_has_asked_another_airflow_cancels_nothing(service, record, run):
    """Runs and task instances of the same names, as production and staging have them."""
    jobs = [
        start(service, record, "failed", "a"),
        service.submit(Claim(Instance("b", "r", "t").task_key(OURS), 1)),
    ]
    record.put(replace(SWEEPER, id="0198-b"))
    report = run(cancel=True, me=SWEEPER)
    assert statuses(report) == {job.id: "unknown" for job in jobs}
    assert (len(service.live()), report.exit_code) == (2, 2)
    assert "it is another Airflow" in report.findings[0].verdict.reason


@pytest.mark.parametrize(
    ("kept", "status"),
    [
        pytest.param({}, "deleted", id="a-task-instance-that-says-nothing"),
        pytest.param(remembered(("job-1", "memory")), "deleted", id="a-task-instance-that-names-its-job"),
        pytest.param({"remote_job": "s3://xcoms/7"}, "deleted", id="a-task-instance-whose-xcoms-are-hidden"),
        pytest.param(remembered(("job-7", "memory")), "unknown", id="a-task-instance-that-names-another-job"),
        pytest.param(None, "unknown", id="no-task-instance"),
    ],
)
def test_who_asks_from_elsewhere_is_told_whose_airflow_it_is_by_the_jobs_that_it_knows(
    service, record, run, kept, status
):
    if kept is not None:
        record.kept[start(service, record, "deferred").claim.task_key] = kept
    deleted = service.submit(Claim(Instance("etl", "gone", "x").task_key(OURS), 1))
    report = run(cancel=True, same_airflow=False)
    assert statuses(report)[deleted.id] == status
    assert (deleted.id in {real.id for real in service.live()}) is (status == "unknown")
    assert status == "deleted" or "pass --same-airflow" in report.findings[0].verdict.reason
    assert report.exit_code == (0 if status == "deleted" else 2)


def test_whose_airflow_it_is_is_found_out_once(service, record, run):
    record.unanswered.add("xcoms")
    for number in range(5):
        start(service, record, "deferred", f"live-{number}")
        service.submit(Claim(Instance("etl", "gone", f"{number}").task_key(OURS), 1))
    report = run(same_airflow=False)
    assert "403 to xcoms" in report.findings[0].verdict.reason
    assert record.asked.count("xcoms") == 1


class Copied(Listed):
    """A service in which people copy jobs together with their claims."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.asked = 0

    def why_copied(self, job):
        self.asked += 1
        return f"{job.id} is a copy"


@pytest.mark.parametrize("state", ["failed", None], ids=["of-an-ended-task-instance", "of-a-deleted-run"])
def test_a_copy_of_a_job_is_not_cancelled(record, state, service, run):
    service = Copied(service.name)
    task = replace(TASK, state=state)
    if state:
        record.put(task, changed=service.now() + 1)
    job = service.submit(Claim(TASK.task_key(OURS), 1))
    report = run(targets=[SweepTarget("memory", service)], cancel=True)
    assert (statuses(report), report.exit_code) == ({job.id: "unknown"}, 2)
    assert report.findings[0].verdict.reason == f"{job.id} is a copy"
    assert len(service.live()) == 1


def test_a_job_that_its_task_instance_names_is_no_copy(record, service, run):
    service = Copied(service.name)
    job = start(service, record, "failed")
    record.kept[job.claim.task_key] = remembered((job.id, job.scope))
    assert run(targets=[SweepTarget("memory", service)], cancel=True).exit_code == 0
    assert (service.live(), service.asked) == ([], 0)


@pytest.mark.parametrize("namespace", ["", "http://localhost:8080"])
def test_a_namespace_that_another_airflow_may_have_cancels_nothing(service, record, run, namespace):
    service.submit(Claim(TASK.task_key(namespace), 1))
    record.rows[TASK.task_key(namespace)] = over()
    record.changed[TASK.task_key(namespace)] = service.now() + 1
    report = run(namespace=namespace, cancel=True)
    assert report.findings[0].verdict.status is OrphanStatus.UNKNOWN
    assert "set a unique [airflow_resilient] namespace" in report.findings[0].verdict.reason
    assert len(service.live()) == 1


@pytest.mark.parametrize(
    ("state", "changed"),
    [
        pytest.param("running", 0.0, id="running-since-before-the-job-was-created"),
        pytest.param("failed", NOW, id="ended-at-once"),
        pytest.param("failed", NOW + 3 * 86_400, id="ended-days-later"),
        pytest.param(
            None, NOW - STALE_WORKER_WINDOW, id="cleared-and-its-worker-has-not-noticed-when-it-submits"
        ),
    ],
)
def test_a_task_instance_is_found_however_old_its_run_is(state, changed):
    record, instance = Record(), replace(TASK, state=state)
    record.put(instance, changed=changed)
    assert search(record, [a_job(age=0)], OURS) == {TASK_KEY: instance}


def test_what_did_not_wait_for_its_job_is_found_without_reading_all_that_came_later():
    record = Record()
    for number in range(100):
        record.put(replace(over("success"), run_id=f"later-{number}"), changed=NOW + 3600 + number)
    record.put(over("success"), changed=NOW + 2)
    assert search(record, [a_job(age=0)], OURS)
    assert record.shown == 1


def test_a_map_index_is_an_identity_of_its_own(service, record, run):
    start(service, record, "failed", map_index=0)
    live = start(service, record, "deferred", map_index=1)
    run(cancel=True)
    assert [real.id for real in service.live()] == [live.id]


@pytest.mark.parametrize(
    ("finding", "errors", "code"),
    [
        (None, (), 0),
        (None, ("ecs: denied",), 2),
        (Finding("ecs", a_job(), OrphanVerdict(OrphanStatus.WANTED, "")), (), 0),
        (Finding("ecs", a_job(), OrphanVerdict(OrphanStatus.LEFT_RUNNING, "")), (), 0),
        (Finding("ecs", a_job(), OrphanVerdict(OrphanStatus.YOUNG, "")), (), 0),
        (Finding("ecs", a_job(), OrphanVerdict(OrphanStatus.ENDED, "")), (), 1),
        (Finding("ecs", a_job(), OrphanVerdict(OrphanStatus.ENDED, ""), ended=True), (), 0),
        (Finding("ecs", a_job(), OrphanVerdict(OrphanStatus.ENDED, ""), unresolved=True), (), 2),
        (Finding("ecs", a_job(), OrphanVerdict(OrphanStatus.UNKNOWN, "")), (), 2),
        (Finding("ecs", a_job(), OrphanVerdict(OrphanStatus.ENDED, "")), ("emr: denied",), 2),
    ],
    ids=[
        "nothing-there",
        "a-cluster-cannot-be-listed",
        "wanted",
        "left",
        "young",
        "an-orphan",
        "an-orphan-that-has-ended",
        "an-orphan-that-does-not-end",
        "unknown",
        "an-orphan-beside-an-error",
    ],
)
def test_the_exit_code_tells_what_is_left_to_do(finding, errors, code):
    assert Report(OURS, (finding,) if finding else (), errors=errors).exit_code == code


def test_a_finding_is_json():
    row = Finding(
        "ecs", a_job(), OrphanVerdict(OrphanStatus.ENDED, "its task instance is failed"), over()
    ).row()
    assert json.loads(json.dumps(row)) == row
    assert (row["verdict"], row["dag_id"], row["state"]) == ("ended", "etl", "failed")


# --- operators that are called inside of a task ---------------------------------------------------


def call_of(service, record, state, call):
    """The job of an operator that a task instance in that state has called."""
    instance = Instance("etl", "manual__1", "loop", state=state, ended=None if state == "running" else 1.0)
    record.put(instance, changed=service.now() + 1)
    return service.submit(Claim(f"{instance.task_key(OURS)}_{call}", 1))


def test_the_job_of_a_call_is_that_of_the_task_instance_and_of_no_deleted_run(service, record, run):
    jobs = [call_of(service, record, "running", call) for call in ("loadaaaa", "loadbbbb")]
    report = run(cancel=True)
    assert statuses(report) == {job.id: "wanted" for job in jobs}
    assert [str(each.instance) for each in report.findings] == ["etl / manual__1 / loop"] * 2
    assert service.calls["cancel"] == 0


def test_the_job_of_a_call_is_an_orphan_when_the_task_instance_has_ended(service, record, run):
    job = call_of(service, record, "failed", "loadaaaa")
    report = run(cancel=True)
    assert statuses(report) == {job.id: "ended"}
    assert service.calls["cancel"] == 1
