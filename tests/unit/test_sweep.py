"""Who is an orphan, as a table; and a sweep over jobs in memory and task instances kept by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.jobs import Claim, Job, Phase, Senses
from airflow_resilient.sweep import (
    ENDED,
    GRACE,
    LOST_LEASE,
    UNFINISHED,
    Finding,
    Instance,
    Kind,
    NoAnswer,
    Place,
    Report,
    Verdict,
    judge,
    search,
    span,
    sweep,
)
from airflow_resilient.testing import InMemoryJobs
from airflow_resilient.testing.memory import Throttled

OURS = "https://airflow.example.com"
NOW = 1_000_000.0
TASK = Instance("etl", "manual__1", "sort", state="deferred", try_number=1, started=NOW - 7200)
FAMILY = TASK.family(OURS)


def a_job(number: int = 1, age: float = 7200, name: str = "job-1", **more) -> Job:
    return Job(name, Claim(FAMILY, number), Phase.RUNNING, NOW - age, **more)


def over(state: str = "failed", since: float | None = 3600, **more) -> Instance:
    ended = None if since is None else NOW - since
    return replace(TASK, state=state, ended=ended, **more)


TABLE = [
    *[
        pytest.param(
            a_job(), replace(TASK, state=state), {}, Kind.WANTED, f"its task instance is {state}", id=row
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
        a_job(), replace(TASK, state=None), {}, Kind.WANTED, "cleared", id="cleared-and-not-scheduled-yet"
    ),
    pytest.param(
        a_job(1),
        replace(TASK, try_number=4, max_tries=5),
        {"retries": 2, "others": [a_job(4, name="job-4")]},
        Kind.WANTED,
        "deferred",
        id="the-live-try-heals-superseded-jobs-itself",
    ),
    pytest.param(a_job(), replace(TASK), {"unsure": "?"}, Kind.WANTED, "deferred", id="wanted-is-sure"),
    *[
        pytest.param(
            a_job(), over(state), {}, Kind.ENDED, f"{state} since 1 h", id=f"its-task-instance-is-{state}"
        )
        for state in ENDED
    ],
    pytest.param(a_job(), over(since=None), {}, Kind.ENDED, "failed", id="ended-nobody-knows-when"),
    pytest.param(
        a_job(age=599), over(), {}, Kind.YOUNG, "9 min 59 s ago", id="created-within-the-grace-period"
    ),
    pytest.param(a_job(age=600), over(), {}, Kind.ENDED, "failed", id="created-before-the-grace-period"),
    pytest.param(
        a_job(), over(since=599), {}, Kind.YOUNG, "9 min 59 s only", id="ended-within-the-grace-period"
    ),
    pytest.param(a_job(), over(since=600), {}, Kind.ENDED, "10 min", id="ended-before-the-grace-period"),
    pytest.param(
        a_job(age=20), over(since=20), {"grace": 10}, Kind.ENDED, "failed", id="a-shorter-grace-period"
    ),
    pytest.param(a_job(age=-30), over(), {}, Kind.YOUNG, "0 s ago", id="aws-s-clock-is-ahead"),
    pytest.param(a_job(), None, {}, Kind.DELETED, "deleted", id="no-task-instance-has-its-claim"),
    pytest.param(a_job(age=10), None, {}, Kind.YOUNG, "10 s ago", id="young-and-no-task-instance-yet"),
    pytest.param(
        a_job(), None, {"unsure": "no account"}, Kind.UNKNOWN, "no account", id="airflow-does-not-tell"
    ),
    pytest.param(
        a_job(), over(), {"unsure": "denied"}, Kind.UNKNOWN, "denied", id="whether-it-was-left-is-not-known"
    ),
    pytest.param(a_job(age=10), None, {"unsure": "?"}, Kind.YOUNG, "10 s", id="young-whatever-airflow-says"),
    pytest.param(
        a_job(name="arn:aws:ecs:eu-west-1:1:task/etl/3ca"),
        over("success"),
        {"left": json.dumps(["arn:aws:ecs:eu-west-1:1:task/etl/3ca"])},
        Kind.LEFT,
        "success and left it running on purpose",
        id="left-on-purpose",
    ),
    pytest.param(
        a_job(name="s-1,s-2"), over(), {"left": "['s-1,s-2']"}, Kind.LEFT, "", id="left-as-python-writes-it"
    ),
    pytest.param(
        a_job(name="s-3,s-1"),
        over(),
        {"left": '["s-1,s-2,s-3"]'},
        Kind.LEFT,
        "",
        id="left-and-a-step-of-it-has-ended",
    ),
    pytest.param(
        a_job(name="s-1"), over(), {"left": '"[\\"s-1\\"]"'}, Kind.LEFT, "", id="left-as-a-text-in-a-text"
    ),
    pytest.param(a_job(name="s-1"), over(), {"left": '["s-12"]'}, Kind.ENDED, "", id="another-job-was-left"),
    pytest.param(
        a_job(name="s-1,s-9"), over(), {"left": '["s-1"]'}, Kind.ENDED, "", id="only-a-part-of-it-was-left"
    ),
    pytest.param(a_job(), over(), {"left": "[]"}, Kind.ENDED, "", id="nothing-was-left"),
    pytest.param(
        a_job(name="s-1", age=6), over(since=5), {"left": "['s-1']"}, Kind.LEFT, "", id="left-a-moment-ago"
    ),
    pytest.param(
        a_job(name="s-1", age=6),
        over(),
        {"left": "['s-2']"},
        Kind.YOUNG,
        "6 s",
        id="young-and-another-was-left",
    ),
    pytest.param(
        a_job(2),
        over(try_number=3, max_tries=4),
        {"retries": 2},
        Kind.SUPERSEDED,
        "from before the latest clear",
        id="from-before-the-latest-clear",
    ),
    pytest.param(
        a_job(3), over(try_number=3, max_tries=4), {"retries": 2}, Kind.ENDED, "", id="from-after-the-clear"
    ),
    pytest.param(
        a_job(2), over(try_number=3, max_tries=4), {}, Kind.ENDED, "", id="the-task-is-not-there-any-more"
    ),
    pytest.param(
        a_job(1),
        over(),
        {"others": [a_job(1), a_job(3, name="job-3"), a_job(2, name="job-2")]},
        Kind.SUPERSEDED,
        f"af-{FAMILY}-3 came after it",
        id="a-later-job-lives-too",
    ),
    pytest.param(a_job(3), over(), {"others": [a_job(1)]}, Kind.ENDED, "", id="an-earlier-job-lives-too"),
    pytest.param(
        a_job(1),
        over(),
        {"others": [Job("x", Claim("a" * 16, 9), Phase.RUNNING, NOW)]},
        Kind.ENDED,
        "",
        id="another-task-instance-has-a-later-number",
    ),
]


@pytest.mark.parametrize(("job", "instance", "more", "kind", "words"), TABLE)
def test_judge(job, instance, more, kind, words):
    verdict = judge(job, instance, now=NOW, **more)
    assert verdict.kind is kind
    assert words in verdict.reason


STATES = st.one_of(st.none(), st.sampled_from([*UNFINISHED, *ENDED, "awaiting_input", "shutdown", ""]))
TEXTS = st.one_of(st.none(), st.sampled_from(["[]", "['job-1']", "?"]))


@given(
    state=STATES,
    exists=st.booleans(),
    number=st.integers(1, 9),
    age=st.floats(-60, 1e6),
    since=st.one_of(st.none(), st.floats(-60, 1e6)),
    left=TEXTS,
    unsure=st.sampled_from(["", "?"]),
    retries=st.one_of(st.none(), st.integers(0, 5)),
    max_tries=st.integers(0, 9),
)
def test_what_may_be_wanted_is_never_an_orphan(  # noqa: PLR0917 - hypothesis names them
    state, exists, number, age, since, left, unsure, retries, max_tries
):
    instance = replace(over("failed", since, max_tries=max_tries), state=state) if exists else None
    verdict = judge(a_job(number, age), instance, now=NOW, left=left, unsure=unsure, retries=retries)
    assert verdict.reason
    if verdict.kind.orphan:
        assert not unsure
        assert age >= GRACE
        assert instance is None or state in ENDED
        assert instance is None or since is None or since >= GRACE
        assert instance is None or left is None or "job-1" not in left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (3600, "1 h"), (3605, "1 h"), (86_400 * 3 + 60, "3 d"), (-5, "0 s")],
)
def test_spans_are_told_in_the_two_largest_units(seconds, text):
    assert span(seconds) == text


# --- a sweep --------------------------------------------------------------------------------------


class Listed(InMemoryJobs):
    """Jobs in memory that can be listed, as a service's must be to be swept."""

    def scopes(self):
        return ["memory"]

    def claimed(self, scope):
        return [job for real in self.live() if (job := real.look(self.now())).scope == scope]


class Record:
    """What Airflow knows, kept by hand: the rows of task instances, XComs, and what is not answered."""

    def __init__(self, *instances: Instance):
        self.rows = {instance.family(OURS): instance for instance in instances}
        self.changed = dict.fromkeys(self.rows, 0.0)
        self.xcoms: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.unanswered: set[str] = set()
        self.asked: list[str] = []
        self.shown = 0
        self.before_look = lambda: None

    def _answer(self, method):
        self.asked.append(method)
        if method in self.unanswered:
            raise NoAnswer(f"403 to {method}")

    def put(self, instance, changed=0.0):
        name = instance.family(OURS)
        self.rows[name], self.changed[name] = instance, changed

    def instances(self, states=(), changed_since=0.0, changed_until=float("inf")):
        self._answer("instances")
        for name, row in list(self.rows.items()):
            in_time = changed_since <= self.changed[name] <= changed_until
            if row.dag_id not in self.hidden and (not states or row.state in states) and in_time:
                self.shown += 1
                yield row

    def look(self, instance):
        self._answer("look")
        self.before_look()
        return self.rows.get(instance.family(OURS))

    def left(self, instance):
        self._answer("left")
        return self.xcoms.get(instance.family(OURS))

    def retries(self, instance):
        self._answer("retries")
        return 0

    def deferred_slots(self):
        self._answer("deferred_slots")
        return sum(row.pool_slots for row in self.rows.values() if row.state == "deferred")


@pytest.fixture
def service():
    return Listed(seconds=None, cancel_seconds=5)


@pytest.fixture
def record():
    return Record()


@pytest.fixture
def run(service, record):
    """Sweep an hour from now, when nothing is young any more."""

    def run(*, later=3600.0, places=None, namespace=OURS, **more) -> Report:
        service.advance(later)
        senses = Senses(service.now, service.advance, lambda: 0.5)
        return sweep(places or [Place("memory", service)], record, namespace, senses, **more)

    return run


def start(service, record, state, task_id="sort", number=1, **more) -> Job:
    """A live job, and its task instance in that state, which changed after the job was created."""
    instance = Instance("etl", "manual__1", task_id, state=state, **more)
    record.put(instance, changed=service.now() + 1)
    return service.submit(Claim(instance.family(OURS), number))


def kinds(report):
    return {each.job.id: each.verdict.kind.value for each in report.findings}


def test_a_dry_run_reports_orphans_and_cancels_nothing(service, record, run):
    orphan, wanted = start(service, record, "failed", "a"), start(service, record, "deferred", "b")
    report = run()
    assert kinds(report) == {orphan.id: "ended", wanted.id: "wanted"}
    assert (report.exit_code, service.calls["cancel"], len(service.live())) == (1, 0, 2)


def test_cancel_ends_the_orphans_and_nothing_else(service, record, run):
    doomed = [start(service, record, state, state) for state in ENDED]
    deleted = service.submit(Claim(Instance("etl", "gone", "x").family(OURS), 1))
    spared = [start(service, record, state, state) for state in UNFINISHED]
    left = start(service, record, "success", "left")
    record.xcoms[next(iter(record.rows.keys() & {left.claim.family}))] = json.dumps([left.id])
    foreign = service.submit(Claim(Instance("etl", "manual__1", "failed").family("https://other"), 1))
    report = run(cancel=True)
    assert {real.id for real in service.live()} == {job.id for job in (*spared, left, foreign)}
    assert {each.job.id for each in report.findings if each.ended} == {job.id for job in (*doomed, deleted)}
    assert (report.exit_code, report.foreign) == (0, 1)
    assert all("seen to end" in each.outcome for each in report.findings if each.ended)
    assert foreign.id not in kinds(report)


def test_the_reason_of_a_cancel_names_the_task_instance(service, record, run):
    start(service, record, "failed", "sort", map_index=3)
    run(cancel=True)
    assert service.history[0].stop_reason == "orphan of etl / manual__1 / sort[3]: ended"


def test_nothing_is_asked_of_airflow_when_there_is_no_job_of_ours(service, record, run):
    service.submit(Claim(TASK.family("https://other"), 1))
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


def test_a_clear_between_the_first_look_and_the_cancel_saves_the_job(service, record, run):
    job = start(service, record, "failed")
    record.before_look = lambda: record.put(replace(next(iter(record.rows.values())), state=None))
    report = run(cancel=True)
    assert (kinds(report), service.calls["cancel"]) == ({job.id: "wanted"}, 0)
    assert report.findings[0].outcome == "not cancelled: it is no orphan any more"
    assert report.exit_code == 0


def test_a_task_instance_deleted_between_the_looks_leaves_the_job_for_the_next_sweep(service, record, run):
    start(service, record, "failed")
    record.before_look = record.rows.clear
    report = run(cancel=True)
    assert (report.findings[0].verdict.kind, service.calls["cancel"]) == (Kind.UNKNOWN, 0)
    assert report.exit_code == 2


def test_a_run_that_is_made_again_under_its_id_before_the_cancel_saves_the_job(service, record, run):
    job = service.submit(Claim(TASK.family(OURS), 1))

    class Again(Record):
        def instances(self, states=(), **times):
            if self.asked.count("deferred_slots"):  # the first search is over
                self.put(TASK)
            return super().instances(states, **times)

    report = sweep(
        [Place("memory", service)],
        Again(),
        OURS,
        Senses(lambda: service.now() + 3600, service.advance, lambda: 0.5),
        cancel=True,
    )
    assert (kinds(report), service.calls["cancel"]) == ({job.id: "wanted"}, 0)


def test_a_job_that_ends_by_itself_before_the_cancel_is_left_alone(service, record, run):
    job = start(service, record, "failed")
    record.before_look = lambda: service.finish(job)
    report = run(cancel=True)
    assert (report.findings[0].outcome, service.calls["cancel"]) == ("it had ended by itself", 0)
    assert report.exit_code == 0


def test_a_job_that_does_not_stop_in_time_is_trouble(record, run, service):
    slow = Listed(seconds=None, cancel_seconds=1000)
    start(slow, record, "failed")
    slow.advance(3600)
    senses = Senses(slow.now, slow.advance, lambda: 0.5)
    report = sweep([Place("memory", slow)], record, OURS, senses, cancel=True, wait=60)
    assert "not seen to end within 1 min" in report.findings[0].outcome
    assert report.exit_code == 2


def test_a_cancel_that_is_denied_is_trouble_and_the_others_go_on(service, record, run):
    start(service, record, "failed", "a")
    start(service, record, "failed", "b")
    service.fail_next(PermissionError("denied"), "cancel")
    report = run(cancel=True)
    assert sorted(each.ended for each in report.findings) == [False, True]
    assert any("could not be cancelled: PermissionError: denied" in each.outcome for each in report.findings)
    assert report.exit_code == 2


@pytest.mark.parametrize("method", ["observe", "cancel"])
def test_throttling_is_waited_out(service, record, run, method):
    start(service, record, "failed")
    service.throttle(3, method)
    assert run(cancel=True).exit_code == 0
    assert service.live() == []


def test_a_listing_that_is_throttled_is_asked_again_and_one_that_is_denied_is_said(service, record, run):
    answers = [Throttled("slow"), Throttled("slow"), PermissionError("no ListTasks")]

    class Moody(Listed):
        def scopes(self):
            return ["memory", "closed"]

        def claimed(self, scope):
            if answers and (scope == "closed" or len(answers) > 1):
                raise answers.pop(0)
            return super().claimed(scope)

    moody = Moody(service.name)
    orphan = start(service, record, "failed")
    report = run(places=[Place("memory", moody)])
    assert kinds(report) == {orphan.id: "ended"}
    assert report.troubles == ("memory: the jobs of closed cannot be listed: PermissionError: no ListTasks",)
    assert report.exit_code == 2


def test_clusters_that_cannot_be_listed_are_said(service, record, run):
    class Closed(Listed):
        def scopes(self):
            raise PermissionError("no ListClusters")

    report = run(places=[Place("memory", Closed(service.name))])
    assert "the clusters cannot be listed" in report.troubles[0]
    assert run(places=[Place("memory", Closed(service.name), ("memory",))]).exit_code == 0


@pytest.mark.parametrize("method", ["instances", "deferred_slots"])
def test_without_an_answer_of_airflow_no_run_counts_as_deleted(service, record, run, method):
    job = service.submit(Claim(TASK.family(OURS), 1))
    record.unanswered.add(method)
    report = run(cancel=True)
    assert (kinds(report), report.exit_code) == ({job.id: "unknown"}, 2)
    assert f"403 to {method}" in report.findings[0].verdict.reason
    assert len(service.live()) == 1


@pytest.mark.parametrize("method", ["left", "retries", "look"])
def test_without_an_answer_about_a_task_instance_its_job_is_not_cancelled(service, record, run, method):
    job = start(service, record, "failed")
    record.unanswered.add(method)
    report = run(cancel=True)
    assert (kinds(report), report.exit_code) == ({job.id: "unknown"}, 2)
    assert len(service.live()) == 1


def test_jobs_of_dags_that_the_account_may_not_read_are_not_taken_for_deleted_ones(service, record, run):
    job = start(service, record, "deferred")
    record.hidden.add("etl")
    report = run(cancel=True)
    assert kinds(report) == {job.id: "unknown"}
    assert (
        "pools count 1 slots of deferred task instances, but it shows us 0"
        in report.findings[0].verdict.reason
    )
    assert len(service.live()) == 1


@pytest.mark.parametrize("namespace", ["", "http://localhost:8080"])
def test_a_namespace_that_another_airflow_may_have_cancels_nothing(service, record, run, namespace):
    service.submit(Claim(TASK.family(namespace), 1))
    record.rows[TASK.family(namespace)] = over()
    record.changed[TASK.family(namespace)] = service.now() + 1
    report = run(namespace=namespace, cancel=True)
    assert report.findings[0].verdict.kind is Kind.UNKNOWN
    assert "set [airflow_resilient] namespace" in report.findings[0].verdict.reason
    assert len(service.live()) == 1


@pytest.mark.parametrize(
    ("state", "changed"),
    [
        pytest.param("running", 0.0, id="running-since-before-the-job-was-created"),
        pytest.param("failed", NOW, id="ended-at-once"),
        pytest.param("failed", NOW + 3 * 86_400, id="ended-days-later"),
        pytest.param(None, NOW - LOST_LEASE, id="cleared-and-its-worker-has-not-noticed-when-it-submits"),
    ],
)
def test_a_task_instance_is_found_however_old_its_run_is(state, changed):
    record, instance = Record(), replace(TASK, state=state)
    record.put(instance, changed=changed)
    assert search(record, [a_job(age=0)], OURS) == {FAMILY: instance}


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
    ("finding", "troubles", "code"),
    [
        (None, (), 0),
        (None, ("ecs: denied",), 2),
        (Finding("ecs", a_job(), Verdict(Kind.WANTED, "")), (), 0),
        (Finding("ecs", a_job(), Verdict(Kind.LEFT, "")), (), 0),
        (Finding("ecs", a_job(), Verdict(Kind.YOUNG, "")), (), 0),
        (Finding("ecs", a_job(), Verdict(Kind.ENDED, "")), (), 1),
        (Finding("ecs", a_job(), Verdict(Kind.ENDED, ""), ended=True), (), 0),
        (Finding("ecs", a_job(), Verdict(Kind.ENDED, ""), trouble=True), (), 2),
        (Finding("ecs", a_job(), Verdict(Kind.UNKNOWN, "")), (), 2),
        (Finding("ecs", a_job(), Verdict(Kind.ENDED, "")), ("emr: denied",), 2),
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
        "an-orphan-beside-trouble",
    ],
)
def test_the_exit_code_tells_what_is_left_to_do(finding, troubles, code):
    assert Report(OURS, (finding,) if finding else (), troubles=troubles).exit_code == code


def test_a_finding_is_json():
    row = Finding("ecs", a_job(), Verdict(Kind.ENDED, "its task instance is failed"), over()).row()
    assert json.loads(json.dumps(row)) == row
    assert (row["verdict"], row["dag_id"], row["state"]) == ("ended", "etl", "failed")
