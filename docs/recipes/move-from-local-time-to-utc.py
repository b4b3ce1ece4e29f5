"""A DAG whose schedule is UTC and whose receivers get local dates; its tests compare a year."""

from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import pairwise

import pendulum
from airflow.providers.common.compat.sdk import DAG, task

from airflow_resilient import local_filters, local_macros

UTC = timezone.utc
ZONE = "America/New_York"


# START before
def before(next_execution_date):
    """What the receivers got from the DAG that ran at 20:00 in New York, on Airflow 2."""
    there = pendulum.instance(next_execution_date).in_timezone(ZONE)
    return {
        "billing_date": there.strftime("%Y-%m-%d"),
        "week_before": there.subtract(days=7).strftime("%Y-%m-%d"),
        "rows_since": there.start_of("day").in_timezone("UTC").isoformat(),
        "rows_until": there.add(days=1).start_of("day").in_timezone("UTC").isoformat(),
    }


# END before

# START after
MESSAGE = {
    # for receivers that expect local dates
    "billing_date": "{{ data_interval_end | local_ds }}",
    "week_before": "{{ data_interval_end | local_ds_add(-7) }}",
    # rows of the local day, in a table that stores UTC
    "rows_since": "{{ (data_interval_end | utc_day_range).start.isoformat() }}",
    "rows_until": "{{ (data_interval_end | utc_day_range).end.isoformat() }}",
}
NEW = {
    # unique for each run, also in the hour that clocks repeat
    "file": "takings-{{ data_interval_end | local_ts_nodash_with_tz }}.csv",
    # for receivers that expect UTC
    "run": "{{ data_interval_end.isoformat() }}",
}

with DAG(
    dag_id="move_from_local_time_to_utc",
    schedule="0 1 * * *",  # UTC: 20:00 in New York in winter, 21:00 in summer
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    user_defined_macros=local_macros(ZONE),
    user_defined_filters=local_filters(ZONE),
) as dag:

    @task
    def send(message):
        return message

    send({**MESSAGE, **NEW})
# END after


# START year
OLD_RUNS = [pendulum.datetime(2026, 1, 1, 20, tz=ZONE).add(days=day) for day in range(365)]
RUNS = [datetime(2026, 1, 2, 1, tzinfo=UTC) + timedelta(days=day) for day in range(365)]


@cache
def after(end, logical_date=None):
    """Render what the receivers get now from the run whose data interval ends then."""
    context = {"dag": dag, "logical_date": logical_date or end, "data_interval_end": end}
    return dag.get_task("send").render_template({**MESSAGE, **NEW}, context)


def test_receivers_get_what_they_got():
    for then, now in zip(OLD_RUNS, RUNS, strict=True):
        assert before(then).items() <= after(now).items()


def test_ds_would_have_sent_the_next_day_all_year():
    assert all(f"{run:%Y-%m-%d}" > after(run)["billing_date"] for run in RUNS)


def test_rows_of_all_days_make_up_the_year():
    """None twice and none left out, on the days of 23 and 25 hours, too."""
    assert all(one["rows_until"] == two["rows_since"] for one, two in pairwise(map(after, RUNS)))
    since, until = (
        [datetime.fromisoformat(after(run)[f"rows_{end}"]) for run in RUNS] for end in ("since", "until")
    )
    hours = {
        after(run)["billing_date"]: (b - a) / timedelta(hours=1)
        for run, a, b in zip(RUNS, since, until, strict=True)
    }
    assert {day: length for day, length in hours.items() if length != 24} == {
        "2026-03-08": 23,
        "2026-11-01": 25,
    }


def test_files_of_hourly_runs_have_names_of_their_own_when_clocks_go_back():
    hours = [datetime(2026, 11, 1, hour, tzinfo=UTC) for hour in range(24)]
    assert len({after(hour)["file"] for hour in hours}) == 24


def test_airflow_2_and_airflow_3_send_the_same():
    """For the same run their logical dates are a day apart; the end of its data interval is the same."""
    assert all(after(run, run - timedelta(days=1)) == after(run) for run in RUNS[::30])


# END year
