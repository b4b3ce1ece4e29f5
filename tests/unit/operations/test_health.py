"""What is wrong with an Airflow, why, and what to do: one row for each situation."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

import pytest

from airflow_resilient.core.needs import read_needs
from airflow_resilient.operations.first_seen import FirstSeen
from airflow_resilient.operations.health import Kind, Severity, diagnose
from airflow_resilient.operations.limits import DagLimits, Limits
from airflow_resilient.operations.snapshot import (
    Component,
    Dag,
    Gap,
    ImportProblem,
    Leg,
    Pool,
    Requeue,
    Run,
    Snapshot,
    Waiting,
)

NOW = datetime(2026, 11, 2, 12, 30, tzinfo=timezone.utc).timestamp()
HOUR = 3600.0
EARLIER = FirstSeen("http://airflow", last=NOW - 30, looked=NOW - 30)

OVERALL = tuple(Component(kind, NOW - 3) for kind in ("scheduler", "triggerer", "dag_processor"))
PEERS = tuple(
    Component(each.kind, NOW - 3, f"{each.kind}-1", number, "LocalExecutor" if number == 1 else "")
    for number, each in enumerate(OVERALL, 1)
)
HOURLY = Dag("hourly", NOW + 1800, NOW - 20)
POOL = Pool("default_pool", 128)
RUN = Run("hourly", "run-1", "running", NOW - 1800, NOW - 1799, NOW - 1798, NOW - 2)
WELL = Snapshot(
    "http://airflow",
    NOW,
    version="3.3.2",
    clock_ahead=0.0,
    database=True,
    overall=OVERALL,
    peers=PEERS,
    pools=(POOL,),
    waiting=(),
    running=(),
    deferred=(),
    runs=(RUN,),
    dags=(HOURLY,),
    import_errors=(),
    requeues=(),
    needed=(),
    legs=(),
)
ON_2 = {"version": "2.11.2", "peers": None}


def found(snapshot, seen=EARLIER, limits=None):
    return diagnose(snapshot, seen, limits or Limits(), NOW)[0]


def look(**changed):
    return replace(WELL, **changed)


def without(kind, heartbeat=None):
    """Its heartbeat is so old, or there never was one."""
    return tuple(replace(each, heartbeat=heartbeat) if each.kind == kind else each for each in OVERALL)


def task(task_id="load", *, state="scheduled", since=NOW - HOUR, **more):
    return Waiting("hourly", "run-1", task_id, state=state, since=since, **more)


def shown(findings):
    return [(each.kind.value, each.subject, each.severity.value) for each in findings]


IDLE = Run("hourly", "run-1", "running", NOW - 2 * HOUR, NOW - 2 * HOUR, NOW - 2 * HOUR, NOW - 600)
OVERDUE = replace(HOURLY, next_due=NOW - 600)
OTHER = Dag("other", NOW + 60, NOW - 20)
QUEUED = Run("hourly", "run-2", "queued", NOW - 1200, NOW - 1200)
BACKFILL = Run("hourly", "b", "queued", NOW - 99 * HOUR, NOW - 1200, automatic=False, backfill=True)


def remembered(*marks, since=NOW - HOUR, **more):
    """An earlier look that has seen this already."""
    return replace(EARLIER, marks=dict.fromkeys(marks, since), **more)


LEGS = {"queue-default": "default", "queue-spark": "spark", "triggerer": "default"}
"""Legs of the canary, and the queues on which they start."""
CANARY = Dag(
    "canary",
    NOW + 300,
    NOW - 20,
    max_active_runs=1,
    needs=read_needs(["canary_every=10m", *(f"canary_leg={leg}" for leg in LEGS)]),
)


def with_canary(*late, success=NOW - HOUR, tried=NOW - HOUR + 600, pool="default_pool", dag=CANARY, **more):
    """A look that shows a canary, and which of its legs have not succeeded for so long."""
    bad = {"succeeded": success, "tried": tried}
    legs = (
        Leg(dag.dag_id, leg, pool=pool, queue=queue, **(bad if leg in late else {"succeeded": NOW - 60}))
        for leg, queue in LEGS.items()
    )
    return look(**{"dags": (HOURLY, dag), "legs": tuple(legs), **more})


def expected(*more, since=NOW - HOUR, **changed):
    """An earlier look that has seen the canary already."""
    return remembered(*(f"leg/600/canary/{leg}" for leg in LEGS), *more, since=since, **changed)


CANARY_LATE = [("canary-late", "canary", "page")]
DUE = f"due/hourly/{NOW - 600:.0f}"
ROWS = [
    pytest.param(WELL, EARLIER, [], id="a-healthy-airflow-has-no-findings"),
    pytest.param(WELL, FirstSeen(), [], id="nor-has-it-at-the-first-look"),
    pytest.param(look(**ON_2, overall=OVERALL[:2]), EARLIER, [], id="nor-has-2.11-without-a-dag-processor"),
    pytest.param(
        look(dags=(), runs=(), overall=OVERALL), EARLIER, [], id="nothing-is-expected-of-an-empty-airflow"
    ),
    # --- no answer
    pytest.param(
        Snapshot("http://airflow", NOW, silent="it does not respond"),
        EARLIER,
        [("api-silent", "http://airflow", "unknown")],
        id="an-api-server-that-restarts-is-unknown",
    ),
    pytest.param(
        Snapshot("http://airflow", NOW, silent="it does not respond"),
        remembered("api-silent"),
        [("api-silent", "http://airflow", "page")],
        id="one-that-stays-silent-is-a-page",
    ),
    pytest.param(
        Snapshot("http://airflow", NOW, silent="401", login_refused=True),
        remembered("login-refused"),
        [("login-refused", "http://airflow", "page")],
        id="an-expired-token-is-not-a-silent-airflow",
    ),
    pytest.param(
        look(pools=None, gaps=(Gap("pools", "403", denied=True),)),
        EARLIER,
        [("not-shown", "pools", "unknown")],
        id="what-may-not-be-read-is-unknown",
    ),
    pytest.param(
        look(overall=None, runs=None, dags=(OVERDUE,), gaps=(Gap("health", "500"), Gap("runs", "500"))),
        remembered(DUE),
        [("not-shown", "health", "unknown"), ("not-shown", "runs", "unknown")],
        id="without-runs-nobody-knows-whether-a-run-is-overdue",
    ),
    # --- components
    pytest.param(
        look(overall=without("scheduler", NOW - 300), dags=(OVERDUE,), pools=(), waiting=(task(),)),
        remembered(DUE),
        [("heartbeat-lost", "scheduler", "page")],
        id="a-lost-scheduler-explains-what-is-overdue-and-what-waits",
    ),
    pytest.param(
        look(overall=without("scheduler", NOW - 100)),
        EARLIER,
        [],
        id="a-scheduler-that-restarts-is-no-finding",
    ),
    pytest.param(
        look(overall=without("scheduler")),
        remembered("no-heartbeat/scheduler"),
        [("heartbeat-lost", "scheduler", "page")],
        id="a-scheduler-that-was-never-seen",
    ),
    pytest.param(
        look(overall=without("scheduler")), EARLIER, [], id="a-scheduler-that-starts-for-the-first-time"
    ),
    pytest.param(
        look(database=False, overall=without("scheduler"), deferred=(task(state="deferred"),)),
        remembered("no-heartbeat/scheduler"),
        [("database-unhealthy", "metadata database", "unknown")],
        id="a-database-that-fails-over-hides-the-heartbeats",
    ),
    pytest.param(
        look(overall=without("triggerer", NOW - 300), deferred=(task(state="deferred"),)),
        remembered("unattended/hourly/run-1/load/-1/1"),
        [("heartbeat-lost", "triggerer", "page")],
        id="a-lost-triggerer-explains-what-is-deferred",
    ),
    pytest.param(
        look(overall=without("triggerer")),
        remembered("no-heartbeat/triggerer"),
        [],
        id="without-deferred-tasks-no-triggerer-is-needed",
    ),
    pytest.param(
        look(overall=without("triggerer"), peers=None, deferred=(task(state="deferred"),)),
        EARLIER,
        [("no-triggerer", "triggerer", "page")],
        id="deferred-and-there-never-was-a-triggerer",
    ),
    pytest.param(
        look(overall=without("dag_processor", NOW - 300), dags=(replace(HOURLY, parsed=NOW - HOUR),)),
        EARLIER,
        [("heartbeat-lost", "DAG processor", "page")],
        id="a-lost-dag-processor-explains-files-that-are-not-read",
    ),
    pytest.param(
        look(clock_ahead=-200.0, overall=tuple(replace(each, heartbeat=NOW - 203) for each in OVERALL)),
        EARLIER,
        [("clock-skew", "http://airflow", "ticket")],
        id="a-clock-that-is-behind-makes-no-heartbeat-old",
    ),
    pytest.param(
        WELL,
        remembered("peer-lost/scheduler", alive={"scheduler": {"2": (NOW - 3 * HOUR, NOW - HOUR)}}),
        [("peer-lost", "scheduler", "ticket")],
        id="one-of-two-schedulers-is-gone",
    ),
    pytest.param(
        WELL,
        replace(EARLIER, alive={"scheduler": {"2": (NOW - 3 * HOUR, NOW - HOUR)}}),
        [],
        id="one-of-two-schedulers-restarts",
    ),
    pytest.param(
        WELL,
        remembered("peer-lost/scheduler", alive={"scheduler": {"2": (NOW - 30 * HOUR, NOW - 24 * HOUR)}}),
        [],
        id="there-were-two-schedulers-yesterday",
    ),
    pytest.param(
        WELL,
        replace(EARLIER, answered=((NOW - 90, "3.3.2"), (NOW - 60, "3.2.2"))),
        [("version-skew", "http://airflow", "ticket")],
        id="two-versions-answer-in-turns",
    ),
    pytest.param(WELL, replace(EARLIER, answered=((NOW - 90, "3.2.2"),)), [], id="an-upgrade-is-no-skew"),
    # --- runs
    pytest.param(
        look(dags=(OVERDUE, OTHER)),
        remembered(DUE),
        [("run-overdue", "hourly", "page")],
        id="one-dag-is-overdue-while-others-are-scheduled",
    ),
    pytest.param(
        look(dags=(OVERDUE,), runs=(IDLE,)),
        remembered(DUE),
        [("not-scheduling", "scheduler", "page")],
        id="a-scheduler-beats-and-schedules-nothing",
    ),
    pytest.param(
        look(runs=(IDLE,)),
        remembered(f"undecided/hourly/run-1/{NOW - 600:.0f}"),
        [("not-scheduling", "scheduler", "page")],
        id="a-scheduler-beats-and-no-run-goes-on",
    ),
    pytest.param(
        look(runs=(IDLE,)), EARLIER, [], id="a-dag-was-just-unpaused-whose-run-nobody-has-looked-at-for-long"
    ),
    pytest.param(
        look(dags=(OTHER, HOURLY), runs=(RUN, QUEUED)),
        remembered("queued/hourly/run-2"),
        [("run-not-started", "hourly", "page")],
        id="a-run-is-queued-and-never-starts",
    ),
    pytest.param(look(dags=(OTHER, HOURLY), runs=(RUN, QUEUED)), EARLIER, [], id="a-run-was-queued-just-now"),
    pytest.param(
        look(dags=(replace(HOURLY, max_active_runs=1),), runs=(RUN, QUEUED)),
        remembered("queued/hourly/run-2"),
        [],
        id="a-run-is-queued-behind-max-active-runs",
    ),
    pytest.param(
        look(
            dags=(replace(HOURLY, max_active_runs=1, needs=read_needs(["start_within=10m"])),),
            runs=(RUN, QUEUED),
        ),
        EARLIER,
        [("run-not-started", "hourly", "page")],
        id="behind-max-active-runs-although-the-dag-needs-it-started",
    ),
    pytest.param(
        look(dags=(HOURLY,), runs=(QUEUED,)),
        remembered("queued/hourly/run-2"),
        [("not-scheduling", "scheduler", "page")],
        id="a-scheduler-beats-and-no-run-starts",
    ),
    pytest.param(
        look(dags=(OVERDUE, OTHER), runs=(RUN, *(replace(BACKFILL, run_id=f"b-{n}") for n in range(20)))),
        remembered(DUE),
        [("run-overdue", "hourly", "page")],
        id="a-backfill-is-no-reason",
    ),
    pytest.param(
        look(
            clock_ahead=-300.0,
            overall=tuple(replace(each, heartbeat=NOW - 303) for each in OVERALL),
            peers=None,
            runs=(replace(RUN, queued=NOW - 2100, started=NOW - 2100, decided=NOW - 302),),
            dags=(replace(HOURLY, parsed=NOW - 1000),),
        ),
        EARLIER,
        [("clock-skew", "http://airflow", "ticket")],
        id="a-clock-that-is-behind-makes-nothing-late",
    ),
    pytest.param(
        look(runs=(replace(IDLE, dag_id="paused"),)),
        remembered(f"undecided/paused/run-1/{NOW - 600:.0f}"),
        [],
        id="a-run-of-a-paused-dag-is-not-meant-to-go-on",
    ),
    pytest.param(
        look(dags=(OVERDUE,), runs=()),
        FirstSeen(),
        [("not-scheduling", "scheduler", "page")],
        id="the-first-look-takes-airflow-s-times",
    ),
    pytest.param(
        look(dags=(OVERDUE, OTHER)),
        EARLIER,
        [],
        id="a-dag-that-was-just-unpaused-is-due-since-long-ago",
    ),
    pytest.param(
        look(dags=(OVERDUE, OTHER), runs=(RUN, replace(RUN, run_id="run-2"))),
        remembered(DUE),
        [("run-overdue", "hourly", "page")],
        id="two-of-sixteen-runs-are-no-reason",
    ),
    pytest.param(
        look(dags=(replace(OVERDUE, max_active_runs=1), OTHER)),
        remembered(DUE),
        [],
        id="max-active-runs-is-reached-on-purpose",
    ),
    pytest.param(
        look(dags=(replace(OVERDUE, needs=read_needs(["start_within=1h"])), OTHER)),
        remembered(DUE, since=NOW - 600),
        [],
        id="the-dag-itself-allows-an-hour",
    ),
    pytest.param(
        look(dags=(replace(HOURLY, next_due=None, end=0.0),), runs=()),
        remembered("never/hourly"),
        [("never-runs-again", "hourly", "page")],
        id="a-dag-with-a-schedule-has-no-next-run",
    ),
    pytest.param(
        look(dags=(replace(HOURLY, next_due=None, end=NOW - HOUR),), runs=()),
        remembered("never/hourly"),
        [],
        id="its-end-date-has-passed",
    ),
    pytest.param(
        look(dags=(replace(HOURLY, next_due=None),), runs=()),
        remembered("never/hourly"),
        [("never-runs-again", "hourly", "ticket")],
        id="its-end-date-is-not-known",
    ),
    pytest.param(
        look(dags=(replace(HOURLY, next_due=None),)),
        remembered("never/hourly"),
        [],
        id="up-to-3.1-it-has-none-while-its-runs-are-at-the-limit",
    ),
    pytest.param(
        look(dags=(replace(HOURLY, next_due=None),), runs=()), EARLIER, [], id="it-has-none-for-a-moment"
    ),
    pytest.param(
        look(dags=(replace(HOURLY, next_due=None, scheduled=False),), runs=()),
        remembered("never/hourly"),
        [],
        id="an-asset-or-a-person-starts-its-runs",
    ),
    # --- DAG files
    pytest.param(
        look(dags=(replace(HOURLY, parsed=NOW - HOUR),)),
        EARLIER,
        [("not-parsed", "DAG files", "page")],
        id="a-dag-processor-beats-and-reads-nothing",
    ),
    pytest.param(
        look(dags=(HOURLY, replace(OTHER, parsed=NOW - HOUR))), EARLIER, [], id="one-file-is-read-rarely"
    ),
    pytest.param(
        WELL,
        remembered("dags-vanished", active=dict.fromkeys("abcd", NOW - 600)),
        [("dags-vanished", "DAG files", "page")],
        id="the-folder-of-dag-files-was-emptied",
    ),
    pytest.param(
        look(paused=frozenset("abcd")),
        remembered("dags-vanished", active=dict.fromkeys("abcd", NOW - 600)),
        [],
        id="they-were-paused",
    ),
    pytest.param(
        WELL, remembered("dags-vanished", active={"a": NOW - 600}), [], id="one-dag-of-two-was-deleted"
    ),
    pytest.param(
        WELL,
        remembered(
            "dags-vanished", active={"a": NOW - 600, **dict.fromkeys([*"bcdefg", "hourly"], NOW - 99 * HOUR)}
        ),
        [],
        id="one-dag-of-eight-was-deleted",
    ),
    pytest.param(
        look(import_errors=(ImportProblem("etl.py", NOW - 60, "NameError: no"),)),
        EARLIER,
        [("import-error", "etl.py", "ticket")],
        id="a-file-cannot-be-imported",
    ),
    # --- the rest
    pytest.param(
        look(database=False),
        remembered("database"),
        [("database-unhealthy", "metadata database", "page")],
        id="the-database-is-unhealthy",
    ),
    pytest.param(
        look(requeues=tuple(Requeue("a / b / c", NOW - each, gave_up=False) for each in range(3))),
        EARLIER,
        [("requeued", "a / b / c", "ticket")],
        id="requeued-again-and-again",
    ),
    pytest.param(
        look(requeues=(Requeue("a / b / c", NOW - 9, gave_up=False),)), EARLIER, [], id="requeued-once"
    ),
    pytest.param(
        look(requeues=(Requeue("a / b / c", NOW - 9, gave_up=True),)),
        EARLIER,
        [("requeued", "a / b / c", "ticket")],
        id="requeued-and-given-up",
    ),
    pytest.param(
        look(deferred=(task(state="deferred", triggerer=2),)),
        remembered("unattended/hourly/run-1/load/-1/1"),
        [],
        id="deferred-in-good-hands",
    ),
    pytest.param(
        look(deferred=(task(state="deferred", triggerer=99),)),
        remembered("unattended/hourly/run-1/load/-1/1"),
        [("no-triggerer", "triggerer", "page")],
        id="deferred-on-a-triggerer-that-is-gone",
    ),
    pytest.param(
        look(deferred=(task(state="deferred", triggerer=99),)), EARLIER, [], id="another-one-takes-it-over"
    ),
    pytest.param(
        look(dags=(replace(HOURLY, needs=read_needs(["need_by=7 o'clock"])),)),
        EARLIER,
        [("need-unreadable", "hourly", "unknown")],
        id="a-tag-that-cannot-be-read-is-unknown",
    ),
    # --- canaries
    pytest.param(with_canary(), expected(), [], id="all-legs-of-the-canary-succeed"),
    pytest.param(with_canary("triggerer"), expected(), CANARY_LATE, id="a-leg-does-not-succeed"),
    pytest.param(with_canary(*LEGS), expected(), CANARY_LATE, id="many-late-legs-are-one-finding"),
    pytest.param(
        with_canary(*LEGS, success=None, tried=None), expected(), CANARY_LATE, id="a-canary-never-succeeds"
    ),
    pytest.param(with_canary(*LEGS), EARLIER, [], id="a-canary-was-just-unpaused"),
    pytest.param(
        with_canary(*LEGS, success=None), expected(since=NOW - 1400), [], id="a-canary-was-just-deployed"
    ),
    pytest.param(
        with_canary("triggerer", success=NOW - 1400), expected(), [], id="a-leg-is-not-late-for-two-intervals"
    ),
    pytest.param(
        with_canary("triggerer", success=NOW - 1600), expected(), CANARY_LATE, id="nor-for-half-of-one-more"
    ),
    pytest.param(with_canary(*LEGS, tried=None), FirstSeen(), [], id="the-watch-has-just-started"),
    pytest.param(
        with_canary(*LEGS, tried=NOW - 600), FirstSeen(), [], id="the-first-look-shows-one-run-in-vain"
    ),
    pytest.param(with_canary(*LEGS), FirstSeen(), CANARY_LATE, id="the-first-look-shows-runs-in-vain"),
    pytest.param(
        with_canary(*LEGS, overall=without("scheduler", NOW - 300)),
        expected(),
        [("heartbeat-lost", "scheduler", "page")],
        id="a-lost-scheduler-explains-late-legs",
    ),
    pytest.param(
        with_canary(*LEGS, dags=(OVERDUE, CANARY), runs=(IDLE,)),
        expected(DUE),
        [("not-scheduling", "scheduler", "page")],
        id="a-scheduler-that-stands-still-explains-late-legs",
    ),
    pytest.param(
        with_canary("triggerer", overall=without("triggerer", NOW - 300)),
        expected(),
        [("heartbeat-lost", "triggerer", "page")],
        id="a-lost-triggerer-explains-its-leg",
    ),
    pytest.param(
        with_canary("queue-spark", overall=without("triggerer", NOW - 300)),
        expected(),
        [*CANARY_LATE, ("heartbeat-lost", "triggerer", "page")],
        id="and-no-other-leg",
    ),
    pytest.param(
        with_canary("triggerer", deferred=(task(state="deferred", triggerer=99),)),
        expected("unattended/hourly/run-1/load/-1/1"),
        [("no-triggerer", "triggerer", "page")],
        id="no-triggerer-takes-anything-and-so-not-the-leg",
    ),
    pytest.param(
        with_canary(*LEGS, dags=(OTHER, replace(CANARY, next_due=NOW - 600))),
        expected(f"due/canary/{NOW - 600:.0f}"),
        [("run-overdue", "canary", "page")],
        id="a-canary-without-runs-is-overdue-and-not-late",
    ),
    pytest.param(
        with_canary(*LEGS, pool="gone", waiting=(task(pool="gone"),)),
        expected("waiting/hourly/run-1/load/-1/1"),
        [("waiting", "gone", "page")],
        id="what-waits-for-the-same-pool-explains-late-legs",
    ),
    pytest.param(
        with_canary(
            "queue-spark",
            peers=(replace(PEERS[0], executor="CeleryExecutor"), *PEERS[1:]),
            waiting=(task(state="queued", queue="spark", queued=NOW - HOUR),),
        ),
        expected(f"starting/queued/{NOW - HOUR:.0f}/hourly/run-1/load/-1/1"),
        [("waiting", "spark", "page")],
        id="a-queue-without-a-worker-explains-its-leg",
    ),
    pytest.param(
        replace(with_canary(), legs=None, gaps=(Gap("canaries", "500"),)),
        expected(),
        [("not-shown", "canaries", "unknown")],
        id="a-canary-that-cannot-be-read-is-unknown",
    ),
    pytest.param(
        replace(with_canary(*LEGS), gaps=(Gap("canaries", "there are 900, of which 100 were read"),)),
        expected(),
        [("not-shown", "canaries", "unknown")],
        id="what-is-not-read-of-a-canary-may-have-succeeded",
    ),
    pytest.param(
        with_canary(
            *LEGS,
            success=NOW - 1700,
            clock_ahead=-300.0,
            overall=tuple(replace(each, heartbeat=NOW - 303) for each in OVERALL),
            peers=None,
        ),
        expected(),
        [("clock-skew", "http://airflow", "ticket")],
        id="a-clock-that-is-behind-makes-no-leg-late",
    ),
    pytest.param(
        with_canary(*LEGS, dag=replace(CANARY, needs=read_needs(["canary_every=10m"])), legs=()),
        EARLIER,
        [("need-unreadable", "canary", "unknown")],
        id="a-canary-without-legs-is-unknown",
    ),
]


@pytest.mark.parametrize(("snapshot", "seen", "wanted"), ROWS)
def test_a_situation_has_these_findings_and_no_others(snapshot, seen, wanted):
    findings = found(snapshot, seen)
    assert shown(findings) == wanted
    for each in findings:
        assert all((each.evidence, each.cause, each.next_step, each.key)), each
        assert each.since is not None
        assert each.since <= NOW


# --- why a leg of a canary is late -----------------------------------------------------------------------

ONE_LEG = replace(CANARY, needs=read_needs(["canary_every=10m", "canary_leg=queue-spark"]))
EXECUTOR = tuple(Leg("canary", leg, NOW - wait) for leg, wait in [("executor-Kube", HOUR), ("triggerer", 60)])
CELERY = (replace(PEERS[0], executor="CeleryExecutor"), *PEERS[1:])
LATE = [
    pytest.param(
        ["queue-spark"],
        {},
        "'spark' succeeds: the executor does not run it",
        "look at the newest task instance of canary / queue-spark",
    ),
    pytest.param(
        ["triggerer"],
        {"overall": None, "gaps": (Gap("health", "500"),)},
        "whether a triggerer is alive is not known",
        "restart it",
    ),
    pytest.param(["triggerer"], {}, "a triggerer sends heartbeats, and runs nothing", "airflow triggerer"),
    pytest.param(
        ["triggerer"],
        {"overall": without("triggerer")},
        "no triggerer has ever run",
        "start one: airflow triggerer",
    ),
    pytest.param(
        ["queue-spark"],
        {"peers": None},
        "nothing of the queue 'spark' succeeds",
        "airflow celery worker --queues spark",
    ),
    pytest.param(
        ["queue-spark", "triggerer"],
        {"peers": None},
        "the queue 'spark' succeeds: probably no worker listens on it; a triggerer sends heartbeats",
        "--queues spark; restart it: airflow triggerer",
    ),
    pytest.param(
        ["queue-default", "triggerer"],
        {"peers": CELERY},
        "nothing of the queue 'default' succeeds: probably no worker listens on it",
        "airflow celery worker --queues default",
    ),
    pytest.param([], {"legs": EXECUTOR}, "the executor 'Kube' runs nothing", "scheduler's log"),
    pytest.param(list(LEGS), {}, "Airflow as a whole", "look at the newest run of canary"),
    pytest.param(list(LEGS), {"pool": "gone"}, "there is no pool 'gone'", "airflow pools set gone 128 ''"),
    pytest.param(
        list(LEGS),
        {"pools": (Pool("default_pool", 8, occupied=8),)},
        "the pool 'default_pool' is full",
        "more slots",
    ),
    pytest.param(
        ["triggerer"], {"pools": (Pool("default_pool", 8, occupied=8),)}, "a triggerer", "airflow trig"
    ),
    pytest.param(
        [],
        {"peers": CELERY, "dag": ONE_LEG, "legs": (Leg("canary", "queue-spark", NOW - HOUR, queue="spark"),)},
        "nothing of the queue 'spark' succeeds",
        "airflow celery worker --queues spark",
    ),
]


@pytest.mark.parametrize(("late", "changed", "cause", "step"), LATE)
def test_which_legs_are_late_says_why(late, changed, cause, step):
    seen = expected("leg/600/canary/executor-Kube")
    (finding,) = (
        each for each in found(with_canary(*late, **changed), seen) if each.kind.value == "canary-late"
    )
    assert cause in finding.cause
    assert step in finding.next_step
    if cause.endswith("listens on it"):
        assert "triggerer" not in finding.cause, "its leg starts on that queue"


def test_a_late_leg_is_named_with_its_last_success():
    (finding,) = found(with_canary("triggerer"), expected())
    text = "1 of 3 legs has not succeeded for 1 h: triggerer (last success: 2026-11-02 11:30:00Z)"
    assert (finding.evidence, finding.since, finding.key) == (text, NOW - HOUR, "canary-late/canary")
    (finding,) = found(with_canary(*LEGS, success=None), expected(since=NOW - 2 * HOUR))
    assert finding.evidence.startswith(
        "3 of 3 legs have not succeeded for 2 h: queue-default (last success: none"
    )


@pytest.mark.parametrize(("limit", "late"), [(0.0, True), (2 * HOUR, False), (30.0, True)])
def test_the_limit_of_all_canaries_goes_before_the_intervals(limit, late):
    assert bool(found(with_canary("triggerer"), expected(), Limits(canary=limit))) is late
    assert found(with_canary(), expected(), Limits(canary=limit)) == [], "a healthy one is not late"


def test_after_a_scheduler_was_gone_a_leg_has_its_time_once_more():
    down = with_canary(*LEGS, overall=without("scheduler", NOW - 300))
    _, seen = diagnose(down, expected(), Limits(), NOW)
    assert shown(diagnose(with_canary(*LEGS), seen, Limits(), NOW)[0]) == []
    silent = Snapshot("http://airflow", NOW, silent="it does not respond")
    for gone in (silent, replace(with_canary(), legs=None, gaps=(Gap("canaries", "500"),))):
        _, seen = diagnose(gone, expected(), Limits(), NOW)
        assert shown(diagnose(with_canary(*LEGS), seen, Limits(), NOW)[0]) == CANARY_LATE, "it may have stood"


# --- why something waits --------------------------------------------------------------------------------

FULL = Pool("default_pool", 8, occupied=8, queued=5)
GHOST = Waiting("old", "run-9", "left", state="queued", since=NOW - 60)
WAITING = [
    pytest.param({"pools": (FULL,)}, {}, "pool-full", "more slots", id="the-pool-is-full"),
    pytest.param({"pools": ()}, {}, "pool-missing", "airflow pools set default_pool", id="there-is-no-pool"),
    pytest.param(
        {"pools": (Pool("default_pool", -5),)}, {}, "pool-negative", "update_mask=slots", id="negative"
    ),
    pytest.param(
        {"pools": (replace(FULL, occupied=12),)}, {}, "pool-overcommitted", "more slots", id="overcommitted"
    ),
    pytest.param({"pools": (Pool("default_pool", 0),)}, {}, "pool-too-small", "curl -X PATCH", id="no-slots"),
    pytest.param(
        {"pools": (Pool("default_pool", 8),)},
        {"slots": 9},
        "pool-too-small",
        '"slots": 9',
        id="it-needs-more-slots-than-there-are",
    ),
    pytest.param(
        {"pools": (FULL,)}, {"more": (GHOST,)}, "ghosts", "/dags/old/dagRuns/run-9/", id="full-of-ghosts"
    ),
    pytest.param({"runs": ()}, {"state": "queued"}, "run-ended", "curl -X PATCH", id="its-own-run-has-ended"),
    pytest.param({"dags": (OTHER,)}, {}, "dag-paused", "airflow dags unpause hourly", id="its-dag-is-paused"),
    pytest.param(
        {"dags": (replace(HOURLY, max_active_tasks=1),), "running": (task("long", state="running"),)},
        {},
        "max-active-tasks",
        "max_active_tasks",
        id="as-many-task-instances-as-the-dag-may-have",
    ),
    pytest.param(
        {
            "dags": (replace(HOURLY, max_active_tasks=1),),
            "running": (replace(task("long", state="running"), run_id="run-2"),),
        },
        {},
        "unknown",
        "log",
        id="on-3-each-run-counts-for-itself",
    ),
    pytest.param(
        {
            **ON_2,
            "overall": OVERALL,
            "dags": (replace(HOURLY, max_active_tasks=1),),
            "running": (replace(task("long", state="running"), run_id="run-2"),),
        },
        {},
        "max-active-tasks",
        "max_active_tasks",
        id="on-2-all-runs-count-together",
    ),
    pytest.param(
        {}, {"state": "queued"}, "not-started", "clearTaskInstances", id="the-executor-does-not-start-it"
    ),
    pytest.param(
        {
            "peers": (replace(PEERS[0], executor="CeleryExecutor"), *PEERS[1:]),
            "running": (task("long", state="running"),),
        },
        {"state": "queued", "queue": "gpu"},
        "no-worker",
        "airflow celery worker --queues gpu",
        id="no-worker-listens-on-its-queue",
    ),
    pytest.param({"pools": None, "gaps": (Gap("pools", "500"),)}, {}, "unknown", "log", id="no-pools-known"),
    pytest.param({}, {}, "unknown", "log", id="nothing-explains-it"),
]


@pytest.mark.parametrize(("changed", "its", "why", "step"), WAITING)
def test_what_waits_too_long_is_explained(changed, its, why, step):
    own = {name: value for name, value in its.items() if name != "more"}
    snapshot = look(**{"waiting": (task(**own), *its.get("more", ())), **changed})
    marks = [f"starting/{state}/0/hourly/run-1/load/-1/1" for state in ("scheduled", "queued")]
    seen = remembered(*marks, f"ended/{GHOST.key}", "ended/hourly/run-1/load/-1/1")
    (finding,) = [each for each in found(snapshot, seen) if each.kind is Kind.WAITING]
    assert finding.key.split("/")[1] == why
    assert step in finding.next_step
    assert finding.since == NOW - HOUR
    assert "hourly / run-1 / load" in finding.evidence


FROZEN = replace(IDLE, dag_id="paused", decided=NOW - HOUR)


@pytest.mark.parametrize(
    ("changed", "seen", "ticket"),
    [
        pytest.param({}, remembered("frozen/paused/run-1"), True, id="paused-in-the-middle"),
        pytest.param({}, FirstSeen(), True, id="at-the-first-look"),
        pytest.param({}, EARLIER, False, id="paused-just-now"),
        pytest.param(
            {"running": (replace(task(state="running"), dag_id="paused"),)},
            remembered("frozen/paused/run-1"),
            False,
            id="a-task-of-it-still-runs",
        ),
        pytest.param(
            {"running": None, "gaps": (Gap("running task instances", "500"),)},
            remembered("frozen/paused/run-1"),
            False,
            id="whether-one-runs-is-not-known",
        ),
        pytest.param(
            {"waiting": (replace(task(), dag_id="paused"),)},
            remembered("frozen/paused/run-1"),
            True,
            id="it-is-one-finding-with-what-waits",
        ),
    ],
)
def test_a_run_that_was_paused_in_the_middle_is_a_ticket(changed, seen, ticket):
    findings = [
        each for each in found(look(runs=(RUN, FROZEN), **changed), seen) if each.kind is Kind.WAITING
    ]
    assert [each.severity for each in findings] == [Severity.TICKET] * ticket
    assert all("airflow dags unpause paused" in each.next_step for each in findings)


def test_a_run_is_late_although_nobody_knows_whether_a_scheduler_is_alive():
    snapshot = look(dags=(OVERDUE, OTHER), overall=None, gaps=(Gap("health", "500"),))
    late = [each for each in found(snapshot, remembered(DUE)) if each.kind is Kind.RUN_OVERDUE]
    assert [each.cause.partition(";")[0] for each in late] == ["whether a scheduler is alive is not known"]


def test_many_that_wait_for_one_cause_are_one_finding():
    waiting = tuple(task(f"load-{number}", since=NOW - HOUR + number) for number in range(50))
    (finding,) = found(look(pools=(FULL,), waiting=waiting))
    assert "50 task instances have waited too long" in finding.evidence
    assert "and 47 more" in finding.evidence


@pytest.mark.parametrize(
    ("minutes", "limits", "tags", "late"),
    [
        pytest.param(14, Limits(), [], False, id="within-the-limit"),
        pytest.param(16, Limits(), [], True, id="beyond-it"),
        pytest.param(16, Limits(dags={"h*": DagLimits(waiting=1200.0)}), [], False, id="the-file-allows-it"),
        pytest.param(16, Limits(dags={"x*": DagLimits(waiting=1200.0)}), [], True, id="for-another-dag"),
        pytest.param(16, Limits(dags={"h*": DagLimits(waiting=60.0)}), ["wait_at_most=20m"], False, id="tag"),
        pytest.param(6, Limits(), ["wait_at_most=5m"], True, id="the-dag-itself-is-in-a-hurry"),
    ],
)
def test_how_long_is_too_long_is_said_by_the_dag_then_by_the_file(minutes, limits, tags, late):
    dag = replace(HOURLY, needs=read_needs(tags))
    snapshot = look(dags=(dag,), pools=(FULL,), waiting=(task(since=NOW - 60 * minutes),))
    assert bool(found(snapshot, limits=limits)) is late


def test_a_run_that_a_look_has_missed_once_has_not_ended():
    """Runs come and go between two requests: a task instance of a new one is no ghost."""
    snapshot = look(runs=(), pools=(FULL,), waiting=(task(state="queued", queued=NOW - HOUR),))
    (finding,) = found(snapshot, remembered(f"starting/queued/{NOW - HOUR:.0f}/hourly/run-1/load/-1/1"))
    assert finding.key == "waiting/not-started/default"


def test_a_wait_counts_from_the_first_look_although_airflow_sets_its_times_anew():
    """Every requeue, and every restart of a scheduler, sets ``queued_when`` again."""
    snapshot = look(pools=(FULL,), waiting=(task(since=NOW - 20),))
    assert found(snapshot) == []
    mark = "waiting/hourly/run-1/load/-1/1"
    (finding,) = found(snapshot, remembered(mark))
    assert finding.since == NOW - HOUR


@pytest.mark.parametrize("state", ["scheduled", "queued"])
def test_what_has_waited_for_long_and_is_about_to_start_is_no_finding(state):
    """Somebody has made room: the scheduler and the executor need a moment."""
    waiting = task(state=state, queued=NOW - 5 if state == "queued" else None)
    marks = {"waiting/hourly/run-1/load/-1/1": NOW - HOUR}
    free = f"starting/{state}/{waiting.queued or 0:.0f}/hourly/run-1/load/-1/1"
    assert found(look(waiting=(waiting,)), replace(EARLIER, marks=marks)) == []
    assert found(look(waiting=(waiting,)), replace(EARLIER, marks={**marks, free: NOW - 60})) == []
    assert len(found(look(waiting=(waiting,)), replace(EARLIER, marks={**marks, free: NOW - 600}))) == 1


def test_without_a_memory_airflow_says_since_when_it_is_queued():
    just, long = (task(state="queued", queued=NOW - seconds) for seconds in (5, 600))
    assert found(look(waiting=(just,)), FirstSeen()) == []
    assert len(found(look(waiting=(long,)), FirstSeen())) == 1


# --- what a DAG needs -----------------------------------------------------------------------------------

SEVEN = datetime(2026, 11, 2, 12, 0, tzinfo=timezone.utc).timestamp()  # 07:00 in New York
NEEDED = replace(HOURLY, next_due=SEVEN + 22 * HOUR, needs=read_needs(["need_by=07:00 America/New_York"]))
TODAYS = Run("hourly", "run-2", "success", SEVEN - 2 * HOUR)


@pytest.mark.parametrize(
    ("dag", "runs", "evidence"),
    [
        pytest.param(NEEDED, [TODAYS], None, id="it-has-succeeded"),
        pytest.param(NEEDED, [replace(TODAYS, state="failed")], "run-2 is failed", id="it-has-failed"),
        pytest.param(NEEDED, [replace(TODAYS, state="running")], "run-2 is running", id="it-still-runs"),
        pytest.param(NEEDED, [], None, id="nothing-was-due-today"),
        pytest.param(
            replace(NEEDED, next_due=SEVEN - 2 * HOUR, max_active_runs=1),
            [replace(TODAYS, run_id="run-1", due=SEVEN - 26 * HOUR, state="running")],
            "was never created",
            id="it-was-never-created",
        ),
        pytest.param(
            replace(NEEDED, next_due=None, max_active_runs=1),
            [replace(TODAYS, run_id="run-1", due=SEVEN - 26 * HOUR, state="running")],
            "run run-1, which was due before, still runs",
            id="up-to-3.1-it-has-no-next-run-meanwhile",
        ),
        pytest.param(
            NEEDED, [replace(TODAYS, state="failed", due=SEVEN - 26 * HOUR)], None, id="yesterday-has-failed"
        ),
        pytest.param(
            NEEDED, [replace(TODAYS, state="running", due=SEVEN + 60)], None, id="it-is-due-after-that"
        ),
        pytest.param(
            NEEDED,
            [TODAYS, replace(TODAYS, run_id="by-hand", state="failed", automatic=False)],
            None,
            id="a-run-by-hand-does-not-count",
        ),
    ],
)
def test_a_need_by_is_missed_when_what_was_due_has_not_succeeded(dag, runs, evidence):
    own = tuple(run for run in runs if run.state == "running")
    seen = replace(EARLIER, joined={"hourly": NOW - 99 * HOUR})
    findings = found(look(dags=(dag,), runs=(RUN, *own), needed=tuple(runs)), seen)
    missed = [each for each in findings if each.kind is Kind.NEED_BY_MISSED]
    assert bool(missed) is (evidence is not None)
    for each in missed:
        assert evidence in each.evidence
        assert each.since == SEVEN
        assert each.severity is Severity.PAGE


@pytest.mark.parametrize(
    ("seen", "missed"),
    [
        pytest.param(replace(EARLIER, joined={"hourly": SEVEN - 60}), True, id="before-the-deadline"),
        pytest.param(replace(EARLIER, joined={"hourly": SEVEN + 60}), False, id="after-it"),
        pytest.param(EARLIER, False, id="just-now"),
        pytest.param(FirstSeen(), True, id="nobody-knows"),
    ],
)
def test_a_dag_that_was_deployed_after_the_deadline_has_not_missed_it(seen, missed):
    late = replace(TODAYS, state="running")
    findings = found(look(dags=(NEEDED,), runs=(RUN, late), needed=(late,)), seen)
    assert [each.kind for each in findings] == [Kind.NEED_BY_MISSED] * missed


# --- over several looks ---------------------------------------------------------------------------------


def test_a_catchup_of_fifty_runs_is_no_finding():
    """The next run is due weeks ago at each look, and each look sees another one."""
    seen, now = EARLIER, NOW
    for number in range(50):
        now = NOW + 30.0 * number
        fresh = tuple(replace(each, heartbeat=now) for each in OVERALL)
        dag = replace(HOURLY, next_due=NOW - (50 - number) * 86_400, parsed=now)
        snapshot = look(overall=fresh, peers=None, dags=(dag,), runs=())
        findings, seen = diagnose(snapshot, seen, Limits(), now)
        assert findings == []


def test_a_finding_keeps_its_key_and_its_beginning_while_it_lasts():
    seen, begins = replace(EARLIER, active=dict.fromkeys("abcd", NOW)), set()
    for number in range(10):
        now = NOW + 30.0 * number
        fresh = {"overall": tuple(replace(each, heartbeat=now) for each in OVERALL), "peers": None}
        snapshot = look(**fresh, dags=(replace(HOURLY, parsed=now),), runs=(replace(RUN, decided=now),))
        findings, seen = diagnose(snapshot, seen, Limits(), now)
        begins |= {(each.key, each.since) for each in findings}
    assert begins == {("dags-vanished", NOW)}


def test_a_look_that_fails_does_not_make_the_watch_forget():
    seen = remembered("waiting/hourly/run-1/load/-1/1", due={"hourly": NOW + 5})
    silent = Snapshot("http://airflow", NOW, silent="it does not respond")
    _, seen = diagnose(silent, seen, Limits(), NOW)
    partial = look(waiting=None, gaps=(Gap("task instances", "500"),))
    _, seen = diagnose(partial, seen, Limits(), NOW)
    assert seen.marks["waiting/hourly/run-1/load/-1/1"] == NOW - HOUR
    _, seen = diagnose(WELL, seen, Limits(), NOW)
    assert "waiting/hourly/run-1/load/-1/1" not in seen.marks, "and what is over is forgotten"


# --- a next run that moves on although nothing is scheduled ---------------------------------------------


def in_turn(looks, limits=None):
    """What is found in each look of a row, a minute apart."""
    seen, shown_each = FirstSeen("http://airflow"), []
    for minute, changed in enumerate(looks):
        now = NOW + 60 * minute
        alive = tuple(replace(each, heartbeat=now - 3) for each in OVERALL)
        snapshot = replace(WELL, **{"taken": now, "overall": alive, "peers": None, "runs": (), **changed})
        findings, seen = diagnose(snapshot, seen, limits or Limits(), now)
        shown_each.append([(each.kind.value, each.subject) for each in findings])
    return shown_each


def each_minute(count, *, started=(), **more):
    """Looks at a DAG whose next run is always the latest full minute: it is due since five seconds."""
    return [
        {
            "dags": (Dag("often", NOW + 60 * minute - 5, NOW + 60 * minute - 4),),
            "started": tuple(each for each in started if each.started <= NOW + 60 * minute),
            **more,
        }
        for minute in range(count)
    ]


def started(minute, dag_id="often"):
    """A run that was due at a minute, and has started at once."""
    due = NOW + 60 * minute - 5
    return Run(dag_id, f"run-{minute}", "success", due, due + 1, due + 2, due + 3)


def test_a_run_that_is_never_created_is_late_although_the_dag_processor_moves_the_next_one_on():
    """Where ``catchup`` is off, and the interval is shorter than any limit."""
    found = in_turn(each_minute(6))
    assert found == [[], [], *[[("not-scheduling", "scheduler")]] * 4]


def test_a_dag_that_is_due_at_the_moment_of_each_look_is_well_if_its_runs_start():
    assert in_turn(each_minute(9, started=[started(minute) for minute in range(9)])) == [[]] * 9


def test_if_others_start_it_is_this_dag_that_is_late():
    others = [started(minute, "other") for minute in range(9)]
    found = in_turn(each_minute(6, started=others))
    assert found == [[], [], *[[("run-overdue", "often")]] * 4]


def test_it_is_over_with_the_next_run_that_is_created():
    found = in_turn(each_minute(6, started=[started(4)]))
    assert found == [[], [], *[[("not-scheduling", "scheduler")]] * 2, [], []]


def test_what_the_next_run_waits_for_on_purpose_is_not_late_nor_is_it_when_that_ends():
    busy = Run("often", "long", "running", NOW - 900, NOW - 900, NOW - 900, NOW + 900)
    looks = [
        {
            **changed,
            "runs": (busy,) if minute < 6 else (),
            "dags": tuple(replace(dag, max_active_runs=1) for dag in changed["dags"]),
        }
        for minute, changed in enumerate(each_minute(7))
    ]
    assert in_turn(looks) == [[]] * 7


def test_a_schedule_that_was_changed_leaves_nothing_that_is_late():
    later = {"dags": (Dag("often", NOW + 295, NOW),), "started": ()}
    assert in_turn([*each_minute(2), *[later] * 5]) == [[]] * 7


def test_a_moved_run_is_not_judged_where_starts_could_not_be_read():
    gap = Gap("runs that have started", "500")
    found = in_turn(each_minute(6, gaps=(gap,)))
    assert found == [[("not-shown", "runs that have started")]] * 6


def test_a_task_instance_that_is_queued_once_more_has_its_moment_once_more():
    """As a sensor in reschedule mode is, before each poke."""
    marks = {"waiting/hourly/run-1/load/-1/1": NOW - HOUR}
    before = f"starting/queued/{NOW - HOUR:.0f}/hourly/run-1/load/-1/1"
    again = look(waiting=(task(state="queued", queued=NOW - 5),))
    assert found(again, replace(EARLIER, marks={**marks, before: NOW - HOUR})) == []


# --- what earlier looks could not see -------------------------------------------------------------------


def test_what_is_late_when_a_scheduler_comes_back_has_its_time_once_more():
    late = look(dags=(replace(HOURLY, next_due=NOW - HOUR),), runs=())
    down = replace(late, overall=without("scheduler", NOW - HOUR))
    findings, seen = diagnose(down, remembered(f"due/hourly/{NOW - HOUR:.0f}"), Limits(), NOW)
    assert shown(findings) == [("heartbeat-lost", "scheduler", "page")]
    kinds = []
    for minute in range(5):
        now = NOW + 60 * minute
        alive = tuple(replace(each, heartbeat=now - 3) for each in OVERALL)
        findings, seen = diagnose(replace(late, taken=now, overall=alive, peers=None), seen, Limits(), now)
        kinds.append([each.kind.value for each in findings])
    assert kinds == [[], [], [], ["not-scheduling"], ["not-scheduling"]]


def test_a_canary_that_airflow_was_silent_about_has_its_time_once_more():
    seen = expected()
    silent = Snapshot("http://airflow", NOW, silent="it does not respond")
    for minute in range(20):
        _, seen = diagnose(silent, seen, Limits(), NOW + 60 * minute)
    for minute in range(20, 23):
        now = NOW + 60 * minute
        late = with_canary(*LEGS, success=NOW - 900, tried=None, taken=now, runs=(), peers=None)
        alive = tuple(replace(each, heartbeat=now - 3) for each in OVERALL)
        dag = replace(CANARY, next_due=now + 60, parsed=now - 5)
        findings, seen = diagnose(replace(late, overall=alive, dags=(dag,)), seen, Limits(), now)
        assert shown(findings) == []


def test_a_canary_with_another_interval_is_new():
    """A deploy has made it shorter: the old last success says nothing."""
    old = remembered(*(f"leg/3600/canary/{leg}" for leg in LEGS))
    assert shown(found(with_canary(*LEGS, success=None, tried=None), old)) == []


def test_a_pool_that_is_too_small_for_one_task_explains_no_late_leg():
    large = task(slots=200)
    shown_kinds = [each.kind.value for each in found(with_canary("triggerer", waiting=(large,)), expected())]
    assert sorted(shown_kinds) == ["canary-late", "waiting"]


@pytest.mark.parametrize("due", [NOW + HOUR, NOW + 5])
def test_a_run_that_is_meant_for_later_is_not_late(due):
    later = replace(QUEUED, due=due, automatic=False)
    assert shown(found(look(runs=(RUN, later)), remembered("queued/hourly/run-2"))) == []


def test_the_backfill_of_2_11_counts_for_max_active_runs_and_is_left_to_its_command():
    busy = replace(BACKFILL, run_id="b2", state="running", started=NOW - HOUR, decided=NOW - HOUR)
    one = replace(HOURLY, max_active_runs=1, next_due=None)
    seen = remembered("queued/hourly/run-2", f"undecided/hourly/b2/{NOW - HOUR:.0f}", "never/hourly")
    given = look(**ON_2, dags=(one,), runs=(busy, QUEUED), overall=OVERALL[:2])
    assert shown(found(given, seen)) == []
    assert shown(found(replace(given, version="3.3.2"), seen)) != []


@pytest.mark.parametrize("part", ["health", "dags", "runs"])
def test_what_tells_whether_anything_is_scheduled_is_a_page_if_it_stays_hidden(part):
    hidden = look(gaps=(Gap(part, "500"),), **{"overall" if part == "health" else part: None})
    severities = [shown(found(hidden, seen))[0][2] for seen in (EARLIER, remembered(f"not-shown/{part}"))]
    assert severities == ["unknown", "page"]
    denied = replace(hidden, gaps=(Gap(part, "403", denied=True),))
    assert shown(found(denied, remembered(f"not-shown/{part}")))[0][2] == "unknown"


def test_a_needed_dag_whose_file_is_gone_is_a_page_after_a_deploy_would_be_over():
    gone = look(stale=frozenset({"needed"}))
    assert shown(found(gone)) == []
    assert shown(found(gone, remembered("stale"))) == [("dags-vanished", "DAGs that are needed", "page")]


def test_a_triggerer_that_nobody_needs_is_a_ticket():
    """Some are started only when something is deferred."""
    lost = without("triggerer", NOW - HOUR)
    pool = replace(POOL, deferred=1)
    given = [{}, {"pools": (pool,)}, {"deferred": (task(state="deferred"),)}, {"pools": None}]
    assert [shown(found(look(overall=lost, **each)))[0][2] for each in given] == ["ticket", *["page"] * 3]


def test_after_a_long_break_airflow_s_own_times_count():
    """As with a watch that looks every quarter of an hour."""
    seen = remembered(last=NOW - 900, looked=NOW - 900)
    late = look(dags=(replace(HOURLY, next_due=NOW - HOUR),), runs=(replace(RUN, decided=NOW - 2),))
    assert [each.kind.value for each in found(late, seen)] == ["run-overdue"]


def test_what_is_late_when_a_scheduler_moves_again_has_its_time_once_more():
    """It makes one run after the other: the first one that it makes is a sign, and others are still due."""
    others = [started(minute, "other") for minute in range(4, 9)]
    found = in_turn(each_minute(8, started=others))
    still = [[("not-scheduling", "scheduler")]] * 2
    assert found == [[], [], *still, [], [], [], [("run-overdue", "often")]]


def test_dags_have_not_vanished_where_the_paused_ones_could_not_be_read():
    """All of them may have been paused."""
    gone = look(gaps=(Gap("paused DAGs", "500"),))
    seen = remembered("dags-vanished", active=dict.fromkeys("abcd", NOW - 600))
    assert [each.kind.value for each in found(gone, seen)] == ["not-shown"]
    assert "dags-vanished" in [each.kind.value for each in found(WELL, seen)]
