"""A DAG that works on local business days; its tests check a year of them."""

import logging
from datetime import date, datetime, timedelta, timezone

from airflow.providers.common.compat.sdk import DAG, task

from airflow_resilient import local, local_macros

UTC = timezone.utc
ZONE = "America/New_York"

# START calendar
HOLIDAYS = frozenset(map(date.fromisoformat, ["2026-01-01", "2026-07-03", "2026-11-26", "2026-12-25"]))


def is_business_day(day):
    return day.weekday() < 5 and day not in HOLIDAYS


def business_ds_add(ds, n):
    """Count ``n`` business days from a date, as Airflow's ``macros.ds_add`` counts days."""
    day, step = date.fromisoformat(ds), timedelta(days=1 if n > 0 else -1)
    for _ in range(abs(n)):
        day += step
        while not is_business_day(day):
            day += step
    return day.isoformat()


# END calendar

# START dag
DAYS = {
    "traded": "{{ local_ds(data_interval_end) }}",
    "settled": "{{ business_ds_add(local_ds(data_interval_end), 1) }}",
}

with DAG(
    dag_id="business_days_in_local_time",
    schedule="0 1 * * *",  # UTC, every day; the gate lets business days pass
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    user_defined_macros={**local_macros(ZONE), "business_ds_add": business_ds_add},
) as dag:

    @task.short_circuit
    def only_on_business_days(**context):
        today = local(context, context["data_interval_end"])
        logging.getLogger("airflow.task").info("%s in %s", today.format("%A, %d %B %Y"), today.zone)
        return is_business_day(today.date)

    @task
    def settle(traded, settled):
        return f"{traded} is settled on {settled}"

    only_on_business_days() >> settle(**DAYS)
# END dag


# START year
RUNS = [datetime(2026, 1, 2, 1, tzinfo=UTC) + timedelta(days=day) for day in range(365)]


def context_of(end):
    return {"dag": dag, "logical_date": end, "data_interval_end": end}


def passes(end):
    return only_on_business_days.function(**context_of(end))


def test_every_business_day_of_the_year_passes_once():
    year = [date(2026, 1, 1) + timedelta(days=day) for day in range(365)]
    passed = [local(context_of(end)).date for end in RUNS if passes(end)]
    assert passed == [day for day in year if is_business_day(day)]


def test_a_cron_for_weekdays_in_utc_would_miss_fridays_and_run_on_sundays():
    by_cron = [end for end in RUNS if end.weekday() < 5]  # 0 1 * * MON-FRI
    local_days = {local(context_of(end)).format("%A") for end in by_cron}
    assert local_days == {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday"}


def test_what_is_traded_before_a_weekend_or_a_holiday_is_settled_after_it():
    render = dag.get_task("settle").render_template
    settled = {day["traded"]: day["settled"] for day in (render(DAYS, context_of(end)) for end in RUNS)}
    assert settled["2026-10-30"] == "2026-11-02"  # the weekend on which clocks go back
    assert settled["2026-03-06"] == "2026-03-09"  # and the one on which they go forward
    assert settled["2026-11-25"] == "2026-11-27"
    assert business_ds_add("2026-11-02", -1) == "2026-10-30"


# END year
