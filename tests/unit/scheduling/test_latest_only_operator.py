"""Airflow's name, answered from the run's record: `LatestOnlyOperator`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowSkipException, BaseOperator, task_group

from airflow_resilient import InvalidParameter, LatestOnlyOperator
from airflow_resilient.compat import airflow_version
from airflow_resilient.scheduling.latest_only import next_due

UTC = timezone.utc
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(text):
    return datetime.fromisoformat(f"2026-{text}").replace(tzinfo=UTC)


def timetable_of(schedule):
    with DAG("any", schedule=schedule, start_date=BEGIN, max_active_runs=1) as dag:
        return dag.timetable


def several_crons():
    if airflow_version() >= (3, 0):
        from airflow.timetables.trigger import MultipleCronTriggerTimetable

        return MultipleCronTriggerTimetable("0 6 * * *", "0 18 * * *", timezone="UTC")
    return SimpleNamespace(_timetables=[timetable_of("0 6 * * *"), timetable_of("0 18 * * *")])


def in_new_york(expression):
    from airflow.timetables.interval import CronDataIntervalTimetable

    return CronDataIntervalTimetable(expression, timezone=pendulum.timezone("America/New_York"))


def on_dates():
    from airflow.timetables.events import EventsTimetable

    return EventsTimetable(event_dates=[pendulum.datetime(2026, 3, day) for day in (2, 9, 20)])


NEXT = [
    pytest.param(timetable_of("*/5 * * * *"), "03-02T12:00", "03-02T12:05", id="cron"),
    pytest.param(timetable_of("@hourly"), "03-02T12:00", "03-02T13:00", id="preset"),
    pytest.param(timetable_of(timedelta(minutes=20)), "03-02T12:00", "03-02T12:20", id="delta"),
    pytest.param(timetable_of("0 9 * * 1-5"), "03-06T09:00", "03-09T09:00", id="over-a-weekend"),
    pytest.param(several_crons(), "03-02T06:00", "03-02T18:00", id="the-first-of-several-crons"),
    pytest.param(
        SimpleNamespace(timetable=timetable_of("@hourly")), "03-02T12:00", "03-02T13:00", id="assets-or-time"
    ),
    pytest.param(on_dates(), "03-02T00:00", "03-09T00:00", id="dates"),
    pytest.param(on_dates(), "03-20T00:00", None, id="the-last-of-the-dates"),
    # New York sets the clock forward on 8 March and back on 1 November.
    pytest.param(in_new_york("0 9 * * *"), "03-07T14:00", "03-08T13:00", id="a-day-of-23-hours"),
    pytest.param(in_new_york("0 9 * * *"), "10-31T13:00", "11-01T14:00", id="a-day-of-25-hours"),
    pytest.param(in_new_york("0 * * * *"), "11-01T06:00", "11-01T07:00", id="in-the-repeated-hour"),
    pytest.param(timetable_of("@once"), "03-02T12:00", None, id="once"),
    pytest.param(timetable_of("@continuous"), "03-02T12:00", None, id="continuous"),
    pytest.param(timetable_of(None), "03-02T12:00", None, id="none"),
    pytest.param(SimpleNamespace(expression="every full moon"), "03-02T12:00", None, id="not-cron"),
    pytest.param(SimpleNamespace(expression="0 0 31 2 *"), "03-02T12:00", None, id="a-date-that-never-comes"),
]


@pytest.mark.parametrize(("timetable", "due", "following"), NEXT)
def test_when_the_next_run_is_due_is_read_from_the_schedule(timetable, due, following):
    assert next_due(timetable, at(due)) == (following and at(following))


class Instance:
    """As much of a task instance as a skip needs."""

    map_index = -1

    def __init__(self, task):
        self.task = task
        self.pushed = {}

    def xcom_push(self, key, value):
        self.pushed[key] = value


def outcome(run, *, schedule="*/5 * * * *", **parameters):
    """Which of the two tasks after the gate run; ``"self"``: the gate is skipped."""
    with DAG("any", schedule=schedule, start_date=BEGIN, max_active_runs=1) as dag:
        gate = LatestOnlyOperator(task_id="gate", **parameters)
        gate >> [BaseOperator(task_id="one"), BaseOperator(task_id="two")]
    ti = Instance(gate)
    return executed(gate, {"dag_run": run, "ti": ti, "dag": dag}), ti


def executed(gate, context):
    from airflow.providers.common.compat.sdk import DownstreamTasksSkipped

    try:
        return gate.execute(context)
    except DownstreamTasksSkipped as skipped:
        return {task for task, _ in skipped.tasks}
    except AirflowSkipException:
        return "self"


def record(due="12:00", started=None, kind="scheduled", between=timedelta(minutes=5), cleared=0):
    hour, minute = map(int, due.split(":"))
    moment = datetime(2026, 3, 2, hour, minute, tzinfo=UTC)
    late = timedelta(minutes=started or 0)
    return SimpleNamespace(
        run_type=SimpleNamespace(value=kind),
        logical_date=moment - between,
        data_interval_start=moment - between,
        data_interval_end=moment,
        start_date=moment + late,
        clear_number=cleared,
    )


# Airflow 2 skips tasks in its database; dags/every_version of the system tests has the operator, too.
ON_AIRFLOW_3 = pytest.mark.skipif(airflow_version() < (3, 0), reason="Airflow 2 skips in its database")

PASSES = [
    pytest.param(record(), {}, id="in-time"),
    pytest.param(record(started=5), {}, id="as-late-as-an-interval"),
    pytest.param(record(started=600, kind="manual"), {}, id="by-hand"),
    pytest.param(record(started=600, kind="asset_triggered"), {}, id="by-an-asset"),
    pytest.param(record(started=600, cleared=1), {}, id="cleared"),
    pytest.param(record(started=59, between=timedelta(hours=1)), {"schedule": None}, id="its-own-interval"),
    pytest.param(record(started=600, between=timedelta(0)), {"schedule": "@once"}, id="no-next-run"),
    pytest.param(record(started=9), {"max_lateness": timedelta(minutes=10)}, id="longer-by-parameter"),
]


@ON_AIRFLOW_3
@pytest.mark.parametrize(("run", "more"), PASSES)
def test_the_latest_run_lets_all_direct_downstream_tasks_run(run, more):
    found, ti = outcome(run, **more)
    assert found == ["one", "two"]
    assert sorted(ti.pushed["skipmixin_key"]["followed"]) == ["one", "two"]


SKIPS = [
    pytest.param(record(started=6), {}, id="later-than-an-interval"),
    pytest.param(record(kind="backfill"), {}, id="backfill"),
    pytest.param(record(started=61, between=timedelta(hours=1)), {"schedule": None}, id="its-own-interval"),
    pytest.param(record(started=3), {"max_lateness": timedelta(minutes=2)}, id="shorter-by-parameter"),
]


@ON_AIRFLOW_3
@pytest.mark.parametrize(("run", "more"), SKIPS)
def test_a_run_that_started_too_late_skips_all_direct_downstream_tasks(run, more):
    found, ti = outcome(run, **more)
    assert found == {"one", "two"}
    assert ti.pushed == {"skipmixin_key": {"followed": []}}


@ON_AIRFLOW_3
def test_in_a_mapped_task_group_the_gate_skips_itself():
    made = []

    @task_group
    def each(number):
        made.append(LatestOnlyOperator(task_id="gate"))

    with DAG("any", schedule="*/5 * * * *", start_date=BEGIN) as dag:
        each.expand(number=[1, 2])
    (gate,) = made
    assert executed(gate, {"dag_run": record(started=6), "ti": Instance(gate), "dag": dag}) == "self"
    assert executed(gate, {"dag_run": record(), "ti": Instance(gate), "dag": dag}) == []


def test_a_wrong_lateness_is_refused_when_the_dag_is_parsed():
    with pytest.raises(InvalidParameter, match=r"max_lateness=300.*timedelta"):
        LatestOnlyOperator(task_id="gate", max_lateness=300)
