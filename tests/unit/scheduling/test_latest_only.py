"""Which runs pass: the table of the decision, buckets of local time, parameters, sentences."""

# ruff: noqa: DTZ001 - what a clock on the wall shows has no zone

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import groupby, pairwise
from types import SimpleNamespace
from zoneinfo import ZoneInfo, available_timezones

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowSkipException
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_resilient import InvalidParameter, LatestOnlyIntervalOperator, is_latest
from airflow_resilient.compat import airflow_version
from airflow_resilient.scheduling.latest_only import Bucket, Rule, Run, bucket_of, decide, shortest_interval

UTC = timezone.utc
FIVE = timedelta(minutes=5)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(clock, day=2):
    hour, minute = clock.split(":")
    return datetime(2026, 3, day, int(hour), int(minute), tzinfo=UTC)


def run(due="12:00", started=None, kind="scheduled", **more):
    return Run(kind, at(due), at(started or due), **more)


# ----- the table

RULES = {
    "lateness-5-minutes": Rule(max_lateness=FIVE),
    "lateness-1-hour": Rule(max_lateness=HOUR),
    "every-hour": Rule(every=HOUR),
    "both": Rule(max_lateness=HOUR, every=HOUR),
}
ON_TIME = run("11:55")
TABLE = [
    # columns: the run, the runs before it, and whether it passes by each rule
    pytest.param(run("12:00"), [ON_TIME], "run run run run", id="first-of-its-hour-in-time"),
    pytest.param(run("12:05"), [run("12:00"), ON_TIME], "run run skip skip", id="second-of-its-hour-in-time"),
    # When the gate itself runs, late or in a retry, is no fact that it could know.
    pytest.param(run("12:00"), [ON_TIME], "run run run run", id="slow-work-before-the-gate-until-12-09"),
    pytest.param(run("12:00", "12:07"), [ON_TIME], "skip run run run", id="started-seven-minutes-late"),
    pytest.param(run("12:00", "12:05"), [ON_TIME], "run run run run", id="as-late-as-is-allowed"),
    pytest.param(run("12:10"), [run("11:20")], "run run run run", id="first-run-after-an-outage"),
    pytest.param(run("12:00"), [], "run run run run", id="the-very-first-run"),
    pytest.param(run("09:00", "12:00"), [run("08:55", "12:00")], "skip skip run skip", id="of-a-backlog"),
    pytest.param(
        run("12:00", "15:00", cleared=True), [ON_TIME], "run run run run", id="cleared-first-of-its-hour"
    ),
    pytest.param(
        run("12:05", "15:00", cleared=True),
        [run("12:00")],
        "run run run run",
        id="cleared-second-of-its-hour",
    ),
    pytest.param(run("12:05", "15:00", "manual"), [run("12:00")], "run run run run", id="by-hand"),
    pytest.param(
        run("12:05", "15:00", "operator_triggered"), [run("12:00")], "run run run run", id="by-another-dag"
    ),
    pytest.param(
        run("12:05", "15:00", "asset_triggered"), [run("12:00")], "run run run run", id="by-an-asset"
    ),
    pytest.param(
        run("12:05", "15:00", "asset_materialization"),
        [run("12:00")],
        "run run run run",
        id="to-materialize-an-asset",
    ),
    pytest.param(
        run("12:05", "15:00", "dataset_triggered"), [run("12:00")], "run run run run", id="by-a-dataset"
    ),
    pytest.param(run("12:05", kind="of_the_future"), [run("12:00")], "run run run run", id="of-unknown-type"),
    pytest.param(
        Run("scheduled", None, at("12:00")), [run("12:00")], "run run run run", id="without-logical-date"
    ),
    pytest.param(run("12:00", "15:00", "backfill"), [], "skip skip skip skip", id="of-a-backfill"),
    pytest.param(
        run("12:00", "15:00", "backfill", cleared=True),
        [],
        "skip skip skip skip",
        id="made-a-backfill-run-by-being-cleared",
    ),
    pytest.param(
        run("12:05"), [run("12:03", kind="manual"), run("12:00")], "run run skip skip", id="after-one-by-hand"
    ),
    pytest.param(
        run("12:05"), [run("12:03", kind="manual")], "run run run run", id="first-scheduled-after-one-by-hand"
    ),
    pytest.param(
        run("12:05"), [run("12:00", kind="backfill")], "run run run run", id="after-a-skipped-backfill-run"
    ),
    pytest.param(
        run("12:05"), [Run("asset_triggered", None, at("12:01"))], "run run run run", id="after-an-asset-run"
    ),
    pytest.param(
        replace(run("12:00"), started=None), [ON_TIME], "run run run run", id="start-is-not-recorded"
    ),
]


@pytest.mark.parametrize(("name", "column"), [(name, n) for n, name in enumerate(RULES)], ids=RULES)
@pytest.mark.parametrize(("run", "earlier", "answers"), TABLE)
def test_the_truth_table(run, earlier, answers, name, column):
    decision = decide(RULES[name], run, iter(earlier))
    assert decision.passes is (answers.split()[column] == "run"), decision.reason


LATE = run("12:00", "12:20")
BOTH = Rule(max_lateness=FIVE, every=HOUR)
BUCKET = Rule(max_lateness=FIVE, every=HOUR, backfill="bucket")
PASSES = Rule(every=HOUR, count="passes")
MORE = [
    pytest.param(BOTH, run("12:20"), [LATE], True, id="late-runs-do-not-close-a-bucket-for-those-in-time"),
    pytest.param(BOTH, run("12:20"), [run("12:15"), LATE], False, id="one-in-time-does"),
    pytest.param(
        BOTH, run("12:20"), [replace(LATE, cleared=True)], False, id="one-that-was-cleared-may-have-passed"
    ),
    pytest.param(
        BOTH,
        run("12:05"),
        [replace(run("12:00"), started=None)],
        False,
        id="one-that-may-still-start-in-time-closes",
    ),
    pytest.param(
        BOTH,
        run("12:10"),
        [replace(run("12:00"), started=None)],
        True,
        id="one-that-cannot-any-more-does-not",
    ),
    pytest.param(
        Rule(max_lateness=FIVE, cleared="recheck"),
        run("12:00", "15:00", cleared=True),
        [],
        False,
        id="cleared-and-checked-again-is-late",
    ),
    pytest.param(
        Rule(every=HOUR, cleared="recheck"),
        run("12:00", "15:00", cleared=True),
        [ON_TIME],
        True,
        id="cleared-and-checked-again-has-its-bucket",
    ),
    pytest.param(
        Rule(max_lateness=FIVE, backfill="run"),
        run("12:00", "15:00", "backfill"),
        [],
        True,
        id="backfill-run",
    ),
    pytest.param(
        BUCKET, run("12:00", "15:00", "backfill"), [ON_TIME], True, id="backfill-by-bucket-is-never-late"
    ),
    pytest.param(
        BUCKET,
        run("12:05", "15:00", "backfill"),
        [run("12:00", "15:00", "backfill")],
        False,
        id="backfill-by-bucket-one-each",
    ),
    pytest.param(
        BUCKET, run("12:05"), [run("12:00", "15:00", "backfill")], False, id="backfill-by-bucket-counts"
    ),
    pytest.param(PASSES, run("12:20"), [run("11:00")], True, id="no-pass-in-this-hour"),
    pytest.param(PASSES, run("12:20"), [run("12:05")], False, id="a-pass-in-this-hour"),
    pytest.param(
        PASSES, run("12:20"), [run("12:15", kind="manual"), run("11:00")], True, id="a-pass-by-hand-is-none"
    ),
    pytest.param(
        replace(PASSES, max_lateness=FIVE), run("12:20"), [LATE], False, id="a-pass-counts-however-late"
    ),
]


@pytest.mark.parametrize(("rule", "run", "earlier", "passes"), MORE)
def test_both_parameters_backfills_clears_and_passes(rule, run, earlier, passes):
    decision = decide(rule, run, iter(earlier))
    assert decision.passes is passes, decision.reason


def test_no_earlier_run_is_read_without_need():
    def never():
        raise AssertionError("earlier runs were read")
        yield

    for asked in (run("12:00"), run("12:00", "13:30"), run(kind="manual"), run(kind="backfill")):
        decide(RULES["lateness-5-minutes"], asked, never())
    for asked in (run(kind="manual"), run(kind="backfill"), run(cleared=True), Run("scheduled", None)):
        decide(RULES["every-hour"], asked, never())


def test_looking_back_ends_where_the_bucket_begins():
    seen = []
    earlier = (seen.append(each) or each for each in [run("11:55"), run("11:50"), run("11:45")])
    decide(RULES["every-hour"], run("12:00"), earlier)
    assert len(seen) == 1


BEFORE = [
    pytest.param("backfill", 1, id="runs-of-a-backfill"),
    pytest.param("scheduled", 1, id="scheduled-runs"),
    pytest.param("manual", 15 * 24 * 12, id="runs-by-hand-of-a-fortnight"),
    pytest.param("asset_triggered", 15 * 24 * 12, id="runs-by-assets-of-a-fortnight"),
]


@pytest.mark.parametrize(("kind", "most"), BEFORE)
def test_thousands_of_runs_before_the_bucket_are_not_looked_at(kind, most):
    seen = []

    def earlier():
        for number in range(50_000):
            seen.append(number)
            due = at("11:55") - number * FIVE
            yield Run(kind, due, due, logical_date=due - FIVE)

    now = Run("scheduled", at("12:00"), at("12:00"), logical_date=at("11:55"))
    assert decide(Rule(every=HOUR), now, earlier()).passes
    assert len(seen) <= most


@pytest.mark.parametrize("kind", ["manual", "asset_triggered", "operator_triggered"])
def test_a_run_by_hand_does_not_hide_a_scheduled_run_with_an_earlier_logical_date(kind):
    """The run of Friday, which is due on Monday, has an earlier logical date than one by hand on Saturday."""
    friday = Run("scheduled", at("00:00", 2), at("00:00", 2), logical_date=at("00:00", 2) - 3 * DAY)
    by_hand = Run(kind, at("09:00", 1) - DAY, at("09:00", 1), logical_date=at("09:00", 1) - DAY)
    now = Run("scheduled", at("00:00", 3), at("00:00", 3), logical_date=at("00:00", 2))
    assert not decide(Rule(every=7 * DAY), now, iter([by_hand, friday])).passes


def test_a_backfill_within_the_bucket_does_not_hide_an_earlier_scheduled_run():
    between = [replace(run(f"12:{minute:02}", kind="backfill")) for minute in range(50, 4, -5)]
    assert not decide(Rule(every=HOUR), run("12:55"), iter([*between, run("12:00")])).passes


# ----- buckets

ZONES = {
    "America/New_York": [(2026, 3, 8), (2026, 11, 1), (2026, 7, 1)],
    "Australia/Lord_Howe": [(2026, 4, 5), (2026, 10, 4)],  # half an hour
    "America/Santiago": [(2026, 4, 5), (2026, 9, 6)],  # no midnight, and 23 o'clock twice
    "America/Havana": [(2026, 3, 8), (2026, 11, 1)],  # midnight twice
    "America/St_Johns": [(2010, 3, 14), (2010, 11, 7)],  # set back at a minute past midnight, to 23:01
    "Pacific/Apia": [(2011, 12, 30)],  # a day that did not exist
    "Antarctica/Troll": [(2026, 3, 29), (2026, 10, 25)],  # two hours
    "Europe/Dublin": [(2026, 3, 29), (2026, 10, 25)],
    "Asia/Kathmandu": [(2026, 1, 1)],
    "UTC": [(2026, 1, 1)],
}
DAYS = [(zone, day) for zone, days in ZONES.items() for day in days]
LENGTHS = [5, 15, 20, 30, 40, 60, 90, 120, 180, 360, 720, 1440, 2880, 10080]  # minutes


STEP = timedelta(minutes=5)


@cache
def clock(zone, day):
    """What a clock on the wall shows in the days around this one, every five minutes."""
    tz, first = ZoneInfo(zone), datetime(*day, tzinfo=UTC) - 36 * HOUR
    moments = [first + n * STEP for n in range(72 * 12)]
    return [(each, each.astimezone(tz).replace(tzinfo=None, fold=0)) for each in moments]


def beginnings(watched, every):
    """The oracle: at which readings of the clock a bucket begins."""
    shown, before = {}, watched[0][1] - STEP
    for number, (moment, reading) in enumerate(watched):
        since = (reading - datetime(1, 1, 1)) % every
        if reading == before + STEP or reading < before:
            begins = not since and (reading not in shown or moment - shown[reading] >= every)
        else:  # set forward: what it did not show would have begun a bucket, or what it shows does
            begins = since <= reading - before - STEP
        if begins:
            yield number
        shown.setdefault(reading, moment)
        before = reading


@pytest.mark.parametrize(("zone", "day"), DAYS)
def test_buckets_begin_when_the_clock_on_the_wall_says_so(zone, day):
    watched = clock(zone, day)
    for minutes in LENGTHS:
        every = timedelta(minutes=minutes)
        ids = [bucket_of(moment, every, ZoneInfo(zone)) for moment, _ in watched]
        changes = {n for n in range(1, len(ids)) if ids[n] != ids[n - 1]}
        assert changes == set(beginnings(watched, every)) - {0}, every
        assert len(set(ids)) == len(changes) + 1, "a bucket came again"


@given(
    st.sampled_from(sorted(available_timezones())),
    st.integers(1970, 2037),
    st.sampled_from(LENGTHS),
    st.integers(0, 11),
)
def test_buckets_follow_each_other_in_every_zone_around_a_change_of_its_clock(name, year, minutes, which):
    zone, every = ZoneInfo(name), timedelta(minutes=minutes)
    noons = [datetime(year, 1, 1, 12, tzinfo=UTC) + n * DAY for n in range(366)]
    changes = [
        a for a, b in pairwise(noons) if a.astimezone(zone).utcoffset() != b.astimezone(zone).utcoffset()
    ]
    first = changes[which % len(changes)] - 12 * HOUR if changes else noons[0]
    moments = [first + n * STEP for n in range(2 * 288)]
    groups = [(key, len(list(group))) for key, group in groupby(bucket_of(m, every, zone) for m in moments)]
    assert len({key for key, _ in groups}) == len(groups), "a bucket came again"
    assert all(number * STEP <= every + DAY for _, number in groups)
    if not changes:
        assert {number * STEP for _, number in groups[1:-1]} <= {every}


HOURS_OF_A_DAY = [
    pytest.param("America/New_York", (2026, 3, 8), 23, 4, id="23-hours"),
    pytest.param("America/New_York", (2026, 7, 1), 24, 4, id="24-hours"),
    pytest.param("America/New_York", (2026, 11, 1), 25, 4, id="25-hours"),
    pytest.param("Australia/Lord_Howe", (2026, 4, 5), 24, 4, id="24-and-a-half-hours"),
    pytest.param("Australia/Lord_Howe", (2026, 10, 4), 24, 4, id="23-and-a-half-hours"),
    pytest.param("America/Santiago", (2026, 9, 6), 23, 4, id="without-midnight"),
]


@pytest.mark.parametrize(("zone", "day", "hourly", "quarterly"), HOURS_OF_A_DAY)
def test_a_long_or_short_day_has_as_many_buckets_as_its_clock_shows(zone, day, hourly, quarterly):
    tz = ZoneInfo(zone)
    moments = [datetime(*day, tzinfo=UTC) - DAY + timedelta(minutes=5 * n) for n in range(3 * 288)]
    of_day = [each for each in moments if each.astimezone(tz).date() == datetime(*day).date()]
    for every, number in ((HOUR, hourly), (6 * HOUR, quarterly), (DAY, 1)):
        assert len({bucket_of(each, every, tz) for each in of_day}) == number


def test_weeks_begin_on_monday():
    assert bucket_of(at("12:00"), 7 * DAY, UTC).start == datetime(2026, 3, 2)  # a Monday
    assert bucket_of(at("12:00", 8), 7 * DAY, UTC).start == datetime(2026, 3, 2)
    assert bucket_of(at("00:00", 9), 7 * DAY, UTC).start == datetime(2026, 3, 9)


def test_the_hour_that_comes_twice_is_two_buckets():
    tz = ZoneInfo("America/New_York")
    first, second = (datetime(2026, 11, 1, hour, 30, tzinfo=UTC) for hour in (5, 6))
    assert bucket_of(first, HOUR, tz) == Bucket(datetime(2026, 11, 1, 1))
    assert bucket_of(second, HOUR, tz) == Bucket(datetime(2026, 11, 1, 1), 1)
    assert bucket_of(first, 2 * HOUR, tz) == bucket_of(second, 2 * HOUR, tz)


# ----- histories


@dataclass(frozen=True)
class History:
    """Scheduled runs around a day, five to sixty minutes apart, with when each started."""

    zone: ZoneInfo
    every: timedelta
    runs: list[Run] = field(repr=False)

    def decided(self, rule):
        return [decide(rule, each, reversed(self.runs[:n])) for n, each in enumerate(self.runs)]

    def buckets(self):
        return [bucket_of(each.due, self.every, self.zone) for each in self.runs]


@st.composite
def histories(draw):
    zone, day = draw(st.sampled_from(DAYS))
    between = timedelta(minutes=draw(st.sampled_from([5, 10, 15, 60])))
    every = timedelta(minutes=draw(st.sampled_from([each for each in LENGTHS if each >= 60])))
    first = datetime(*day, tzinfo=UTC) + timedelta(hours=draw(st.integers(-20, 12)))
    missing = draw(st.sets(st.integers(0, 99), max_size=60))  # outages without catchup
    delays = draw(st.lists(st.integers(0, 300), min_size=100, max_size=100))
    runs = [
        Run("scheduled", due := first + n * between, due + timedelta(minutes=delays[n]))
        for n in range(100)
        if n not in missing
    ]
    assume(runs)
    return History(ZoneInfo(zone), every, runs)


@given(histories())
def test_exactly_one_pass_in_each_bucket_however_late_the_runs_are(history):
    passed = [
        bucket
        for bucket, each in zip(
            history.buckets(), history.decided(Rule(every=history.every, zone=history.zone)), strict=True
        )
        if each.passes
    ]
    assert sorted(passed, key=str) == sorted(set(history.buckets()), key=str)


@given(histories(), st.integers(0, 120))
def test_with_both_the_first_run_in_time_of_each_bucket_passes_and_no_other(history, minutes):
    lateness = timedelta(minutes=minutes) + timedelta(seconds=1)
    rule = Rule(max_lateness=lateness, every=history.every, zone=history.zone)
    expected, seen = [], set()
    for each, bucket in zip(history.runs, history.buckets(), strict=True):
        in_time = each.started - each.due <= lateness
        expected.append(in_time and bucket not in seen)
        if in_time:
            seen.add(bucket)
    assert [each.passes for each in history.decided(rule)] == expected


@given(histories())
def test_no_run_that_starts_in_time_is_skipped_for_being_late(history):
    on_time = [replace(each, started=each.due + timedelta(seconds=3)) for each in history.runs]
    calm = replace(history, runs=on_time)
    assert all(each.passes for each in calm.decided(Rule(max_lateness=timedelta(seconds=10))))
    rule = Rule(max_lateness=timedelta(seconds=10), every=history.every, zone=history.zone)
    assert sum(each.passes for each in calm.decided(rule)) == len(set(history.buckets()))


@given(histories(), st.integers(0, 99), st.booleans())
def test_a_retry_gets_the_same_answer_whatever_happened_since(history, which, late):
    n = which % len(history.runs)
    lateness = timedelta(minutes=60) if late else None
    rule = Rule(max_lateness=lateness, every=history.every, zone=history.zone)
    asked, before = history.runs[n], history.runs[:n]
    # What had not started when the run did may have started when the retry reads them.
    then = [replace(each, started=None if each.started > asked.started else each.started) for each in before]
    first, again = (decide(rule, asked, reversed(seen)) for seen in (then, before))
    if lateness is None:
        assert first == again
    elif first.passes:
        assert again.passes, "a run that passed is not skipped by its retry"


@given(histories(), st.sets(st.integers(0, 99)))
def test_with_counted_passes_a_bucket_is_open_until_one_has_passed(history, broken):
    """Runs one after the other; the broken ones never come to the gate."""
    rule = Rule(every=history.every, zone=history.zone, count="passes")
    passed, expected = [], set()
    for n, each in enumerate(history.runs):
        if n in broken:
            continue
        expected.add(bucket_of(each.due, history.every, history.zone))
        if decide(rule, each, reversed(passed)).passes:
            passed.append(each)
    assert [bucket_of(each.due, history.every, history.zone) for each in passed] == sorted(
        expected, key=lambda bucket: (bucket.start, bucket.fold)
    )


# ----- sentences

NEW_YORK = ZoneInfo("America/New_York")
SENTENCES = [
    pytest.param(
        Rule(max_lateness=FIVE),
        run("12:00", "12:07"),
        [],
        "skipped: run 2026-03-02 12:00 UTC started at 12:07, 7 min late (max_lateness 5 min)",
        id="late",
    ),
    pytest.param(
        Rule(max_lateness=HOUR, zone=NEW_YORK),
        Run("scheduled", at("12:00"), at("12:00", 3)),
        [],
        "skipped: run 2026-03-02 07:00 EST started at 2026-03-03 07:00 EST, 1 d late (max_lateness 1 h)",
        id="next-day",
    ),
    pytest.param(
        Rule(max_lateness=FIVE),
        Run("scheduled", at("12:00"), at("12:00") + timedelta(seconds=3)),
        [],
        "passed: run 2026-03-02 12:00 UTC started at 12:00:03, 3 s late (max_lateness 5 min)",
        id="in-time",
    ),
    pytest.param(
        Rule(every=HOUR),
        run("12:05"),
        [run("12:00")],
        "skipped: run 2026-03-02 12:05 UTC is in the hour that begins at 12:00, "
        "in which run 12:00 came first",
        id="second",
    ),
    pytest.param(
        Rule(every=DAY),
        run("12:05"),
        [],
        "passed: run 2026-03-02 12:05 UTC is the first run in the day that begins at 00:00",
        id="first",
    ),
    pytest.param(
        PASSES,
        run("12:05"),
        [run("12:00")],
        "skipped: run 2026-03-02 12:05 UTC is in the hour that begins at 12:00, "
        "in which run 12:00 has passed",
        id="passes",
    ),
    pytest.param(
        Rule(every=7 * DAY),
        Run("scheduled", at("12:05", 4), at("12:05", 4)),
        [],
        "passed: run 2026-03-04 12:05 UTC is the first run in the week that begins at 2026-03-02 00:00",
        id="week",
    ),
    pytest.param(
        Rule(every=HOUR),
        run(kind="operator_triggered"),
        [],
        "passed: run 2026-03-02 12:00 UTC was not scheduled (operator_triggered)",
        id="triggered",
    ),
    pytest.param(
        Rule(every=HOUR),
        run(kind="backfill"),
        [],
        "skipped: run 2026-03-02 12:00 UTC belongs to a backfill (backfill='skip')",
        id="backfill",
    ),
    pytest.param(
        Rule(every=HOUR),
        run(cleared=True),
        [],
        "passed: run 2026-03-02 12:00 UTC was cleared (cleared='run')",
        id="cleared",
    ),
    pytest.param(
        Rule(every=HOUR),
        Run("asset_triggered", None),
        [],
        "passed: a run without a logical date (asset_triggered) always passes",
        id="no-date",
    ),
]


BUCKETS = [
    pytest.param(timedelta(seconds=1), "the second that begins at 12:05", id="second"),
    pytest.param(timedelta(seconds=1.5), "the 1.5 seconds from 12:05", id="a-second-and-a-half"),
    pytest.param(timedelta(seconds=30), "the 30 seconds from 12:05", id="seconds"),
    pytest.param(timedelta(minutes=1), "the minute that begins at 12:05", id="minute"),
    pytest.param(FIVE, "the 5 minutes from 12:05", id="minutes"),
    pytest.param(timedelta(minutes=90), "the 90 minutes from 12:00", id="an-hour-and-a-half"),
    pytest.param(HOUR, "the hour that begins at 12:00", id="hour"),
    pytest.param(4 * HOUR, "the 4 hours from 12:00", id="hours"),
    pytest.param(DAY, "the day that begins at 00:00", id="day"),
    pytest.param(2 * DAY, "the 2 days from 00:00", id="days"),
    pytest.param(7 * DAY, "the week that begins at 00:00", id="week"),
    pytest.param(14 * DAY, "the 2 weeks from 00:00", id="weeks"),
]


@pytest.mark.parametrize(("every", "interval"), BUCKETS)
def test_every_length_of_a_bucket_is_named_in_plain_words(every, interval):
    expected = f"passed: run 2026-03-02 12:05 UTC is the first run in {interval}"
    assert decide(Rule(every=every), run("12:05"), iter([])).reason == expected


@pytest.mark.parametrize(("rule", "run", "earlier", "sentence"), SENTENCES)
def test_one_sentence_explains_the_decision(rule, run, earlier, sentence):
    assert decide(rule, run, iter(earlier)).reason == sentence


# ----- parameters


def gate(**parameters):
    return LatestOnlyIntervalOperator(**{"task_id": "gate", **parameters})


REFUSED = [
    pytest.param({}, "at least one of max_lateness and every", id="neither"),
    pytest.param({"max_lateness": timedelta(0)}, "longer than zero", id="zero"),
    pytest.param({"max_lateness": -FIVE}, "longer than zero", id="negative"),
    pytest.param({"every": -HOUR}, "longer than zero", id="negative-every"),
    pytest.param({"max_lateness": 300}, "a timedelta", id="number"),
    pytest.param({"every": "1h"}, "a timedelta", id="text"),
    pytest.param({"every": timedelta(hours=7)}, "divides a day evenly", id="seven-hours"),
    pytest.param({"every": timedelta(hours=36)}, "whole days", id="a-day-and-a-half"),
    pytest.param({"every": timedelta(milliseconds=500)}, "divides a day evenly", id="half-a-second"),
    pytest.param({"every": pendulum.duration(months=1)}, "months and years differ", id="month"),
    pytest.param({"every": HOUR, "timezone": "Mars/Olympus"}, "America/New_York", id="unknown-zone"),
    pytest.param({"every": HOUR, "timezone": "America"}, "timezone=", id="folder-of-zones"),
    pytest.param({"every": HOUR, "timezone": ""}, "timezone=", id="empty-zone"),
    pytest.param({"every": HOUR, "timezone": 5}, "timezone=", id="zone-is-a-number"),
    pytest.param({"every": HOUR, "backfill": "yes"}, "'skip' or 'run' or 'bucket'", id="backfill"),
    pytest.param({"max_lateness": HOUR, "backfill": "bucket"}, "every, too", id="bucket-without-every"),
    pytest.param({"max_lateness": HOUR, "count": "passes"}, "every, too", id="passes-without-every"),
    pytest.param({"every": HOUR, "cleared": "skip"}, "'run' or 'recheck'", id="cleared"),
    pytest.param({"every": HOUR, "count": "days"}, "'runs' or 'passes'", id="count"),
    pytest.param({"every": HOUR, "skip_mode": "all"}, "'self' or 'downstream'", id="skip-mode"),
    pytest.param(
        {"every": HOUR, "count": "passes", "skip_mode": "downstream"}, "skip_mode='self'", id="no-record"
    ),
]


@pytest.mark.parametrize(("parameters", "message"), REFUSED)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(parameters, message):
    with pytest.raises(InvalidParameter, match=message) as refused:
        gate(**parameters)
    assert "task 'gate'" in str(refused.value)


ACCEPTED = [
    pytest.param({"max_lateness": pendulum.duration(minutes=5)}, id="pendulum-duration"),
    pytest.param({"every": pendulum.duration(days=1)}, id="pendulum-day"),
    pytest.param({"every": timedelta(minutes=40)}, id="forty-minutes"),
    pytest.param({"every": 7 * DAY, "timezone": "Australia/Lord_Howe"}, id="week"),
    pytest.param({"every": HOUR, "timezone": ZoneInfo("Asia/Kolkata")}, id="zone-object"),
    pytest.param({"every": HOUR, "timezone": pendulum.timezone("Asia/Kolkata")}, id="pendulum-zone"),
    pytest.param({"every": HOUR, "timezone": timezone(timedelta(hours=-5))}, id="fixed-offset"),
]


@pytest.mark.parametrize("parameters", ACCEPTED)
def test_what_can_work_is_accepted(parameters):
    gate(**parameters)


def test_a_zone_without_summer_time_gets_a_warning_that_points_at_the_dag_file():
    with pytest.warns(UserWarning, match="has no summer time") as warned:
        LatestOnlyIntervalOperator(task_id="gate", every=HOUR, timezone="EST")
    assert warned[0].filename == __file__


SCHEDULES = [
    pytest.param("*/5 * * * *", timedelta(minutes=5), id="cron"),
    pytest.param("@hourly", HOUR, id="preset"),
    pytest.param("0 9-17 * * 1-5", HOUR, id="office-hours"),
    pytest.param(timedelta(minutes=20), timedelta(minutes=20), id="delta"),
    pytest.param("@once", None, id="once"),
    pytest.param(None, None, id="none"),
]


@pytest.mark.parametrize(("schedule", "between"), SCHEDULES)
def test_the_shortest_time_between_two_runs_is_read_from_the_schedule(schedule, between):
    with DAG("any", schedule=schedule, start_date=BEGIN) as dag:
        assert shortest_interval(dag.timetable) == between


def test_what_is_not_cron_is_not_read_as_cron():
    assert shortest_interval(SimpleNamespace(expression="every full moon")) is None


@pytest.mark.parametrize("schedule", ["@hourly", timedelta(hours=1)])
def test_an_interval_shorter_than_the_schedule_is_refused(schedule):
    with (
        DAG("any", schedule=schedule, start_date=BEGIN),
        pytest.raises(InvalidParameter, match="at least 1 h, the time between two runs"),
    ):
        gate(every=timedelta(minutes=30))


def test_an_interval_as_long_as_the_schedule_is_accepted():
    with DAG("any", schedule="@hourly", start_date=BEGIN):
        gate(every=HOUR)


def test_downstream_skips_are_refused_in_a_mapped_group_where_airflow_ignores_them():
    from airflow.providers.common.compat.sdk import task_group

    @task_group
    def each(number):
        gate(max_lateness=HOUR, skip_mode="downstream")

    with (
        DAG("any", schedule="@hourly", start_date=BEGIN),
        pytest.raises(InvalidParameter, match="Airflow ignores 'downstream' in a mapped group"),
    ):
        each.expand(number=[1, 2])


# ----- from Airflow's records to the answer


class Instance:
    """As much of a task instance as looking back needs, over runs in a list."""

    task_id = "gate"
    dag_id = "any"
    map_index = -1

    def __init__(self, runs, current, passed=()):
        self.runs, self.current, self.passed = runs, current, passed
        Instance.known = runs
        self.pushed = {}
        if airflow_version() >= (3, 2):
            self.get_previous_ti = self._previous_ti

    def get_template_context(self):
        return {"dag_run": self.current}

    def get_previous_dagrun(self, state=None):
        # Called with whatever has dag_id and get_template_context, as Airflow's is.
        moment = self.get_template_context()["dag_run"].logical_date
        return latest(each for each in Instance.known if each.logical_date < moment)

    def _previous_ti(self, state, logical_date, map_index):
        assert (state, map_index) == ("success", -1)
        return latest(r for r in self.runs if r.run_id in self.passed and r.logical_date < logical_date)

    def get_task_states(self, dag_id, task_ids, run_ids, map_index):
        return {each: {"gate": "success" if each in self.passed else "skipped"} for each in run_ids}

    def xcom_push(self, key, value):
        self.pushed[key] = value


def record(due, started=None, kind="scheduled", between=FIVE, cleared=0, **more):
    """A DAG run as Airflow 2.11 and 3.x show it to tasks."""
    made = SimpleNamespace(
        id=due,
        run_id=f"run-{due}",
        run_type=SimpleNamespace(value=kind),
        logical_date=at(due) - between,
        data_interval_start=at(due) - between,
        data_interval_end=at(due),
        start_date=at(started or due),
        clear_number=cleared,
    )
    vars(made).update(more)
    return made


def latest(runs):
    return max(runs, key=lambda run: run.logical_date, default=None)


def context_of(runs, passed=(), dag=None):
    def previous(number):  # Airflow 2.11, where an id is when it was due
        moment = next(each.logical_date for each in runs if each.id == number)
        return latest(r for r in runs if r.logical_date < moment and r.run_type.value != "manual")

    for each in runs:
        each.get_previous_scheduled_dagrun = previous
        each.get_task_instance = lambda task_id, map_index, each=each: SimpleNamespace(
            state="success" if each.run_id in passed else "skipped"
        )
    return {
        "dag_run": runs[-1],
        "ti": Instance(runs, runs[-1], passed),
        "dag": dag or SimpleNamespace(timezone=UTC),
    }


def passes(task, context):
    try:
        task.execute(context)
    except AirflowSkipException:
        return False
    return True


def test_the_operator_passes_the_first_run_of_each_hour():
    runs = [record("11:55"), record("12:00"), record("12:05"), record("12:10")]
    found = [passes(gate(every=HOUR), context_of(runs[:n])) for n in range(1, 5)]
    assert found == [True, True, False, False]


def test_dates_of_pendulum_as_airflow_2_has_them_are_read(caplog):
    runs = [record("12:00"), record("12:05", "12:07")]
    for each in runs:
        for name in ("logical_date", "data_interval_start", "data_interval_end", "start_date"):
            setattr(each, name, pendulum.instance(getattr(each, name)))
    both = {"max_lateness": FIVE, "every": HOUR, "timezone": "America/New_York"}
    with caplog.at_level(logging.INFO):
        assert is_latest(context_of(runs[:1]), **both)
        assert not is_latest(context_of(runs), **both)
        assert is_latest(context_of(runs), max_lateness=FIVE)
    assert "started at 12:07, 2 min late (max_lateness 5 min)" in caplog.text


def test_the_operator_looks_back_over_runs_that_were_not_scheduled():
    stop_command = [record(f"12:0{n}", kind="manual") for n in (1, 2, 3)]
    runs = [record("12:00"), record("12:04", kind="backfill"), *stop_command, record("12:05")]
    assert not passes(gate(every=HOUR), context_of(runs))
    assert passes(gate(every=HOUR), context_of(runs[1:]))


def test_the_operator_counts_passes_where_it_is_asked_to():
    runs = [record("11:55"), record("12:00"), record("12:05")]
    counting = gate(every=HOUR, count="passes")
    assert passes(counting, context_of(runs, passed=["run-11:55"]))
    assert not passes(counting, context_of(runs, passed=["run-11:55", "run-12:00"]))
    assert passes(counting, context_of(runs, passed=[]))


def test_a_skipped_gate_says_why(caplog):
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(AirflowSkipException, match=r"7 min late \(max_lateness 5 min\)"),
    ):
        gate(max_lateness=FIVE).execute(context_of([record("12:00", "12:07")]))


def test_the_runs_own_data_interval_ends_when_it_is_due():
    long = record("12:00", "12:00", between=DAY)
    assert passes(gate(max_lateness=FIVE), context_of([long]))


def test_a_timetable_that_waits_after_its_interval_does_not_make_its_runs_late():
    patient = record("12:00", "15:00", run_after=at("15:00"))
    assert passes(gate(max_lateness=FIVE), context_of([patient]))


def test_the_dags_own_zone_counts_unless_another_is_given():
    kolkata = pendulum.timezone("Asia/Kolkata")
    runs = [record("18:25"), record("18:30")]  # midnight in Kolkata
    with DAG("any", schedule="*/5 * * * *", start_date=pendulum.datetime(2026, 1, 1, tz=kolkata)):
        assert passes(gate(every=DAY), context_of(runs))
        assert not passes(gate(task_id="other", every=DAY, timezone="UTC"), context_of(runs))


def test_the_function_answers_like_the_operator(caplog):
    runs = [record("12:00"), record("12:05")]
    with caplog.at_level(logging.INFO):
        assert is_latest(context_of(runs[:1]), every=HOUR) is True
        assert is_latest(context_of(runs), every=HOUR) is False
    assert "in which run 12:00 came first" in caplog.text


def test_the_function_refuses_what_the_operator_refuses():
    with pytest.raises(InvalidParameter, match="task 'gate'"):
        is_latest(context_of([record("12:00")]))


def test_a_gate_is_serialized_and_read_again():
    with DAG("any", schedule="*/5 * * * *", start_date=BEGIN) as dag:
        gate(every=HOUR) >> gate(task_id="after", max_lateness=FIVE)
    if airflow_version() >= (3, 2):
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    else:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized
    read = Serialized.from_dict(Serialized.to_dict(dag))
    assert read.get_task("gate").task_type == "LatestOnlyIntervalOperator"
