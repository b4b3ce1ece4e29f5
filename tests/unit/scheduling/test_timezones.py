"""Local time: the table of the reference, what is refused, which moment and which zone are used."""

import datetime as dt
import re
import sys
from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import jinja2
import lazy_object_proxy
import pendulum
import pytest
from dateutil import tz as dateutil_tz
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_resilient import InvalidParameter, LocalTime, local, local_filters, local_macros
from airflow_resilient.plugin import ResilientPlugin
from airflow_resilient.scheduling.timezones import instant_of, plugin_macros, zone_of

UTC = timezone.utc
NEW_YORK = "America/New_York"
OPTION = "AIRFLOW__AIRFLOW_RESILIENT__LOCAL_TIMEZONE"

WINTER = "2026-01-15T01:00Z"
GAP = "2026-03-08T07:00Z"
FOLD_1 = "2026-11-01T05:30Z"
FOLD_2 = "2026-11-01T06:30Z"

# One row a macro, one column a moment; New York.
TABLE = {
    "local_ds": ("2026-01-14", "2026-03-08", "2026-11-01", "2026-11-01"),
    "local_ds_nodash": ("20260114", "20260308", "20261101", "20261101"),
    "local_ts": (
        "2026-01-14T20:00:00-05:00",
        "2026-03-08T03:00:00-04:00",
        "2026-11-01T01:30:00-04:00",
        "2026-11-01T01:30:00-05:00",
    ),
    "local_ts_nodash": ("20260114T200000", "20260308T030000", "20261101T013000", "20261101T013000"),
    "local_ts_nodash_with_tz": (
        "20260114T200000-0500",
        "20260308T030000-0400",
        "20261101T013000-0400",
        "20261101T013000-0500",
    ),
    "local_day_start": (
        "2026-01-14 00:00:00-05:00",
        "2026-03-08 00:00:00-05:00",
        "2026-11-01 00:00:00-04:00",
        "2026-11-01 00:00:00-04:00",
    ),
    "local_day_end": (
        "2026-01-15 00:00:00-05:00",
        "2026-03-09 00:00:00-04:00",
        "2026-11-02 00:00:00-05:00",
        "2026-11-02 00:00:00-05:00",
    ),
    "local_day_hours": (24, 23, 25, 25),
    "local_yesterday_ds": ("2026-01-13", "2026-03-07", "2026-10-31", "2026-10-31"),
    "local_tomorrow_ds": ("2026-01-15", "2026-03-09", "2026-11-02", "2026-11-02"),
    "local_datetime": (
        "2026-01-14 20:00:00-05:00",
        "2026-03-08 03:00:00-04:00",
        "2026-11-01 01:30:00-04:00",
        "2026-11-01 01:30:00-05:00",
    ),
    "utc_offset": ("-05:00", "-04:00", "-04:00", "-05:00"),
}
CELLS = [
    pytest.param(name, moment, wanted, id=f"{name}-{moment}")
    for name, row in TABLE.items()
    for moment, wanted in zip((WINTER, GAP, FOLD_1, FOLD_2), row, strict=True)
]


def context_of(**keys):
    """What a template sees, with a DAG in UTC that binds nothing."""
    dag = SimpleNamespace(timezone=ZoneInfo("UTC"), user_defined_macros=None, user_defined_filters=None)
    return {"dag": dag, **keys}


def shown(value):
    return str(value) if isinstance(value, datetime) else value


@pytest.mark.parametrize(("name", "moment", "wanted"), CELLS)
def test_every_cell_of_the_table_comes_out_by_macro_filter_plugin_and_in_python(name, moment, wanted):
    plugin = {macro.__name__: macro for macro in plugin_macros()}
    attribute = name.removeprefix("local_")
    assert shown(local_macros(NEW_YORK)[name](context_of(), moment)) == wanted
    assert shown(local_filters(NEW_YORK)[name](context_of(), moment)) == wanted
    assert shown(plugin[name](context_of(), moment, NEW_YORK)) == wanted
    assert shown(getattr(local(context_of(), moment, NEW_YORK), attribute)) == wanted


@pytest.mark.parametrize(
    ("moment", "start", "end"),
    [
        pytest.param(WINTER, "2026-01-14 05:00:00+00:00", "2026-01-15 05:00:00+00:00", id="winter"),
        pytest.param(GAP, "2026-03-08 05:00:00+00:00", "2026-03-09 04:00:00+00:00", id="23-hours"),
        pytest.param(FOLD_2, "2026-11-01 04:00:00+00:00", "2026-11-02 05:00:00+00:00", id="25-hours"),
    ],
)
def test_the_range_of_a_day_is_in_utc(moment, start, end):
    found = local_macros(NEW_YORK)["utc_day_range"](context_of(), moment)
    assert (str(found.start), str(found.end)) == (start, end)
    assert found == LocalTime(moment, NEW_YORK).utc_day_range


# zone, moment, date, when the day begins and ends in local time, hours
DAYS = [
    pytest.param(
        "Australia/Lord_Howe",
        "2026-04-04T15:00Z",
        ("2026-04-05", "2026-04-05 00:00:00+11:00", "2026-04-06 00:00:00+10:30", 24.5),
        id="half-an-hour-more-in-lord-howe",
    ),
    pytest.param(
        "Australia/Lord_Howe",
        "2026-10-04T00:00Z",
        ("2026-10-04", "2026-10-04 00:00:00+10:30", "2026-10-05 00:00:00+11:00", 23.5),
        id="half-an-hour-less-in-lord-howe",
    ),
    pytest.param(
        "America/Santiago",
        "2026-09-06T12:00Z",
        ("2026-09-06", "2026-09-06 01:00:00-03:00", "2026-09-07 00:00:00-03:00", 23),
        id="no-midnight-in-santiago",
    ),
    pytest.param(
        "America/Santiago",
        "2026-04-05T02:30Z",
        ("2026-04-04", "2026-04-04 00:00:00-03:00", "2026-04-05 00:00:00-04:00", 25),
        id="the-hour-before-midnight-twice-in-santiago",
    ),
    pytest.param(
        "America/Havana",
        "2020-11-01T12:00Z",
        ("2020-11-01", "2020-11-01 00:00:00-04:00", "2020-11-02 00:00:00-05:00", 25),
        id="two-midnights-in-havana",
    ),
    pytest.param(
        "Pacific/Apia",
        "2011-12-30T09:00Z",
        ("2011-12-29", "2011-12-29 00:00:00-10:00", "2011-12-31 00:00:00+14:00", 24),
        id="before-the-day-that-samoa-skipped",
    ),
    pytest.param(
        "Pacific/Apia",
        "2011-12-30T10:00Z",
        ("2011-12-31", "2011-12-31 00:00:00+14:00", "2012-01-01 00:00:00+14:00", 24),
        id="after-the-day-that-samoa-skipped",
    ),
    pytest.param(
        "America/Toronto",
        "1919-03-31T12:00Z",
        ("1919-03-31", "1919-03-31 00:30:00-04:00", "1919-04-01 00:00:00-04:00", 23.5),
        id="a-gap-around-midnight-in-toronto",
    ),
    pytest.param(
        "America/St_Johns",
        "2010-11-07T12:00Z",
        ("2010-11-07", "2010-11-07 00:00:00-02:30", "2010-11-08 00:00:00-03:30", 25),
        id="back-over-midnight-in-st-johns",
    ),
    pytest.param(
        "Africa/Monrovia",
        "1971-06-01T00:30:00Z",
        ("1971-05-31", "1971-05-31 00:00:00-00:44:30", "1971-06-01 00:00:00-00:44:30", 24),
        id="an-offset-with-seconds-in-monrovia",
    ),
    pytest.param(
        timezone(timedelta(hours=-5)),
        "2026-07-01T04:59:59Z",
        ("2026-06-30", "2026-06-30 00:00:00-05:00", "2026-07-01 00:00:00-05:00", 24),
        id="a-fixed-offset",
    ),
]


@pytest.mark.parametrize(("zone", "moment", "wanted"), DAYS)
def test_odd_days_come_out_right(zone, moment, wanted):
    there = LocalTime(moment, zone)
    assert (there.ds, str(there.day_start), str(there.day_end), there.day_hours) == wanted
    assert there.utc_day_range == (there.day_start.astimezone(UTC), there.day_end.astimezone(UTC))
    assert instant_of(there.ts) == instant_of(there.ts_nodash_with_tz) == there.instant


def test_days_that_a_zone_skipped_are_neither_yesterday_nor_tomorrow_but_stand_in_the_calendar():
    before, after = (LocalTime(f"2011-12-30T{hour}:00Z", "Pacific/Apia") for hour in ("09", "10"))
    assert before.tomorrow_ds == after.ds == "2011-12-31"
    assert after.yesterday_ds == before.ds == "2011-12-29"
    assert before.ds_add(1) == after.ds_add(-1) == "2011-12-30"


# ----- moments

SAME = datetime(2026, 3, 8, 6, 30, 15, 250000, tzinfo=UTC)
MOMENTS = [
    pytest.param(SAME, id="utc"),
    pytest.param(SAME.astimezone(timezone(timedelta(hours=5, minutes=30))), id="fixed-offset"),
    pytest.param(SAME.astimezone(ZoneInfo("Pacific/Apia")), id="another-zone"),
    pytest.param(pendulum.instance(SAME), id="pendulum"),
    pytest.param(pendulum.instance(SAME).in_timezone("Europe/London"), id="pendulum-in-london"),
    pytest.param(SAME.astimezone(dateutil_tz.gettz("Asia/Tokyo")), id="dateutil"),
    pytest.param(lazy_object_proxy.Proxy(lambda: pendulum.instance(SAME)), id="lazy-pendulum"),
    pytest.param(lazy_object_proxy.Proxy(lambda: SAME), id="lazy"),
    pytest.param("2026-03-08T06:30:15.25Z", id="zulu"),
    pytest.param("2026-03-08t06:30:15,250z", id="small-letters-and-comma"),
    pytest.param("2026-03-08 06:30:15.250000+00:00", id="space"),
    pytest.param("2026-03-08T01:30:15.250000999-05:00", id="nanoseconds"),
    pytest.param("20260308T013015.25-0500", id="basic"),
    pytest.param("2026-03-08T12:00:15.25+05:30", id="half-hours"),
    pytest.param("2026-03-08T06:50:01.25+00:19:46", id="seconds-in-the-offset"),
    pytest.param("  2026-03-08T01:30:15.25-05  ", id="hours-only-and-blanks"),
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_every_way_to_write_an_instant_is_the_same_instant(moment):
    found = instant_of(moment)
    assert found == SAME
    assert type(found) is datetime
    assert found.tzinfo is UTC
    assert LocalTime(moment, NEW_YORK).ts == "2026-03-08T01:30:15.250000-05:00"


def test_both_of_two_equal_wall_clocks_are_read_by_their_fold():
    clock = datetime(2026, 11, 1, 1, 30, tzinfo=ZoneInfo(NEW_YORK))
    assert [LocalTime(clock.replace(fold=fold), NEW_YORK).ts for fold in (0, 1)] == [
        "2026-11-01T01:30:00-04:00",
        "2026-11-01T01:30:00-05:00",
    ]


REFUSED = [
    pytest.param(None, "None has no local time.*local_ds()", id="none"),
    pytest.param(lazy_object_proxy.Proxy(lambda: None), "None has no local time", id="lazy-none"),
    pytest.param(
        jinja2.Undefined(name="logical_date"), "logical_date is not defined.*local_ds()", id="undefined"
    ),
    pytest.param(jinja2.StrictUndefined(name="ds"), "ds is not defined", id="strictly-undefined"),
    pytest.param(jinja2.ChainableUndefined(), "a value is not defined", id="undefined-without-a-name"),
    pytest.param(date(2026, 1, 15), "date without a time.*data_interval_end", id="date"),
    pytest.param(pendulum.date(2026, 1, 15), "date without a time", id="pendulum-date"),
    pytest.param("2026-01-15", "date without a time", id="text-of-a-date"),
    pytest.param("20260115", "date without a time", id="text-of-ds_nodash"),
    pytest.param(SAME.replace(tzinfo=None), "no time zone.*tzinfo", id="naive"),
    pytest.param(pendulum.naive(2026, 1, 15, 1), "no time zone", id="naive-pendulum"),
    pytest.param("2026-01-15T01:00:00", "no offset.*'2026-01-15T01:00:00Z'", id="text-without-offset"),
    pytest.param("20260115T010000", "no offset", id="text-of-ts_nodash"),
    pytest.param("20260307T2000000500", "is not a moment", id="airflows-own-broken-filter"),
    pytest.param("Asia/Kolkata", "is a time zone.*write zone='Asia/Kolkata'", id="zone-in-the-wrong-place"),
    pytest.param("yesterday", "is not a moment.*'2026-01-15T01:00:00", id="prose"),
    pytest.param("", "is not a moment", id="empty"),
    pytest.param("2026-02-30T00:00Z", "is not a valid datetime", id="no-such-day"),
    pytest.param("2026-01-15T24:00Z", "is not a valid datetime", id="no-such-hour"),
    pytest.param("0001-01-01T00:00+01:00", "is not a valid datetime", id="before-all-time"),
    pytest.param("9999-12-31T23:59-01:00", "is not a valid datetime", id="after-all-time"),
    *(
        pytest.param(moment, "is not between the years 2 and 9998", id=f"at-the-edge-{moment}")
        for moment in (
            "0001-01-01T00:00Z",
            "0001-12-31T00:00-05:00",
            "9999-01-01T00:00Z",
            "9999-12-31T23:59Z",
            datetime.min.replace(tzinfo=UTC),
            datetime.max.replace(tzinfo=UTC),
            pendulum.datetime(9999, 12, 31),
        )
    ),
    *(
        pytest.param(f"2026-01-15T01:00{offset}", "no valid offset.*-05:00", id=f"offset-{offset}")
        for offset in ("+99:99", "+24:00", "-24:00", "+05:60", "+9999", "-05:00:60", "+99")
    ),
    pytest.param("٢٠٢٦-01-15T01:00Z", "is not a moment", id="other-digits"),
    pytest.param(1768438800, r"1768438800 \(int\) is not a moment", id="seconds"),
    pytest.param(dt.time(1, tzinfo=UTC), r"\(time\) is not a moment", id="time"),
    pytest.param([SAME], r"\(list\) is not a moment", id="list"),
]


@pytest.mark.parametrize(("moment", "message"), REFUSED)
@pytest.mark.parametrize("use", [local_macros, local_filters], ids=["macro", "filter"])
def test_what_is_no_instant_is_refused_with_what_to_write(use, moment, message):
    with pytest.raises(InvalidParameter, match=message):
        use(NEW_YORK)["local_ds"](context_of(logical_date=SAME), moment)


# ----- zones

ZONES = [
    pytest.param(NEW_YORK, id="name"),
    pytest.param(ZoneInfo(NEW_YORK), id="zoneinfo"),
    pytest.param(pendulum.timezone(NEW_YORK), id="pendulum"),
]


class OldZone(dt.tzinfo):
    """As in pendulum 2: a name, and rules of long ago."""

    name = "Europe/Volgograd"  # +03:00 until October 2018, +04:00 until December 2020, +03:00 since

    def utcoffset(self, when):
        return None if when is None else timedelta(hours=4)

    def dst(self, when):
        return timedelta(0)

    def tzname(self, when):
        return "+04"


@pytest.mark.parametrize("zone", ZONES)
def test_zones_of_any_library_become_the_standard_librarys(zone):
    assert zone_of(zone) == ZoneInfo(NEW_YORK)
    assert type(zone_of(zone)) is ZoneInfo


def test_rules_that_a_library_brings_are_replaced_by_the_systems():
    assert LocalTime("2026-01-15T20:30Z", OldZone()).ts == "2026-01-15T23:30:00+03:00"


@pytest.mark.parametrize(
    "zone",
    [timezone(timedelta(hours=-5)), pendulum.timezone(-5 * 3600), dateutil_tz.tzoffset(None, -5 * 3600)],
    ids=["standard", "pendulum", "dateutil"],
)
def test_offsets_stay_offsets(zone):
    assert zone_of(zone) == timezone(timedelta(hours=-5))
    assert LocalTime(WINTER, zone).ts == "2026-01-14T20:00:00-05:00"


def test_zones_without_a_name_go_by_their_own_rules():
    zone = dateutil_tz.gettz(NEW_YORK)
    assert zone_of(zone) is zone
    for moment in (WINTER, GAP, FOLD_1, FOLD_2):
        own, standard = LocalTime(moment, zone), LocalTime(moment, NEW_YORK)
        assert own.ts == standard.ts
        assert own.utc_day_range == standard.utc_day_range


BAD_ZONES = [
    pytest.param("Mars/Olympus", "unknown; write", id="unknown"),
    pytest.param("america/new_york", "write 'America/New_York'", id="wrong-case"),
    pytest.param("New York", "write 'America/New_York'", id="city"),
    pytest.param("Europe/Berln", "write 'Europe/Berlin'", id="misspelt"),
    pytest.param("PST", "abbreviation", id="abbreviation"),
    pytest.param("America", "unknown", id="folder"),
    pytest.param("zone.tab", "unknown", id="no-zone-but-a-file"),
    pytest.param("../etc/passwd", "unknown", id="path"),
    pytest.param("/etc/localtime", "unknown", id="absolute-path"),
    pytest.param("a\0b", "unknown", id="null-byte"),
    pytest.param("", "is empty", id="empty"),
    pytest.param(" ", "is empty", id="blank"),
    pytest.param("-05:00", "is an offset.*place.*timezone", id="offset"),
    pytest.param("UTC+2", "is an offset", id="offset-of-utc"),
    pytest.param("localtime", "not the same on every machine", id="of-the-machine"),
    pytest.param("Factory", "not the same on every machine", id="not-set-up"),
    pytest.param("right/UTC", "not the same on every machine", id="leap-seconds"),
    pytest.param(5, r"5 \(int\) is not a time zone", id="number"),
    pytest.param(SAME, r"\(datetime\) is not a time zone", id="moment"),
    pytest.param(jinja2.Undefined(name="zone"), "zone is not defined", id="undefined"),
]


@pytest.mark.parametrize(("zone", "message"), BAD_ZONES)
@pytest.mark.parametrize("use", [local_macros, local_filters], ids=["macros", "filters"])
def test_bad_zones_are_refused_when_the_dag_is_parsed(use, zone, message):
    with pytest.raises(InvalidParameter, match=message):
        use(zone)


@pytest.mark.parametrize(("zone", "message"), BAD_ZONES)
def test_bad_zones_are_refused_when_a_template_names_them(zone, message):
    with pytest.raises(InvalidParameter, match=message):
        local_macros()["local_ds"](context_of(), WINTER, zone)


ACCIDENTS = [
    pytest.param("EST", "no summer time.*'America/New_York'.*hours=-5", id="EST"),
    pytest.param("MST", "no summer time.*'America/Denver'.*hours=-7", id="MST"),
    pytest.param("HST", "no summer time.*'Pacific/Honolulu'.*hours=-10", id="HST"),
    pytest.param("GMT", r"no summer time.*'Europe/London'.*timezone\.utc", id="GMT"),
    pytest.param("Etc/GMT+5", "5 h behind UTC.*reversed.*hours=-5", id="west"),
    pytest.param("Etc/GMT-9", "9 h ahead of UTC.*reversed.*hours=9", id="east"),
]


@pytest.mark.parametrize(("zone", "message"), ACCIDENTS)
@pytest.mark.parametrize("written", [str, ZoneInfo], ids=["name", "zoneinfo"])
def test_zones_without_summer_time_by_accident_get_a_warning_that_says_what_to_write(zone, message, written):
    with pytest.warns(UserWarning, match=message) as caught:
        local_macros(written(zone))
    assert caught[0].filename == __file__, "the warning must show the DAG file"
    with pytest.warns(UserWarning, match=message) as caught:
        local(context_of(), WINTER, written(zone))
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match=message):
        local_macros()["local_ds"](context_of(), WINTER, zone)


@pytest.mark.parametrize(
    "zone", ["UTC", "Etc/UTC", "Etc/GMT", "Asia/Kolkata", "America/Phoenix", "EST5EDT", "CET"]
)
def test_zones_that_one_can_mean_get_no_warning(zone):
    assert local_macros(zone)["local_ds"](context_of(), SAME)  # warnings are errors here


# ----- which moment

RUN = SimpleNamespace(logical_date=None, partition_date=None, run_after=SAME)
BEFORE = SAME - timedelta(days=10)
LONG_AGO = SAME - timedelta(days=100)
OWN = [
    pytest.param({"logical_date": SAME, "dag_run": RUN}, SAME, id="logical-date"),
    pytest.param(
        {"dag_run": SimpleNamespace(logical_date=SAME, run_after=BEFORE)}, SAME, id="logical-date-of-the-run"
    ),
    pytest.param(
        {"logical_date": SAME, "partition_date": BEFORE, "dag_run": RUN},
        SAME,
        id="logical-date-before-partition-date",
    ),
    pytest.param({"partition_date": BEFORE, "dag_run": RUN}, BEFORE, id="partition-date"),
    pytest.param(
        {"dag_run": SimpleNamespace(logical_date=None, partition_date=LONG_AGO, run_after=SAME)},
        LONG_AGO,
        id="partition-date-of-the-run",
    ),
    pytest.param({"partition_date": None, "dag_run": RUN}, SAME, id="run-after"),
    pytest.param(
        {"logical_date": None, "dag_run": SimpleNamespace(run_after=BEFORE)}, BEFORE, id="an-older-airflow"
    ),
]


@pytest.mark.parametrize(("keys", "moment"), OWN)
def test_the_runs_own_moment_is_logical_date_else_partition_date_else_run_after(keys, moment):
    wanted = LocalTime(moment, NEW_YORK).ts
    assert local_macros(NEW_YORK)["local_ts"](context_of(**keys)) == wanted
    assert local(context_of(**keys), zone=NEW_YORK).ts == wanted


def test_without_a_run_there_is_an_error_that_says_what_to_write():
    with pytest.raises(InvalidParameter, match=r"no run in this context.*with context"):
        local_macros(NEW_YORK)["local_ds"]({})


@pytest.mark.parametrize("name", ["logical_date", "data_interval_start", "data_interval_end", "run_after"])
def test_moments_of_the_run_have_macros(name):
    macro = local_macros(NEW_YORK)[f"local_{name}"]
    assert str(macro(context_of(**{name: SAME}))) == "2026-03-08 01:30:15.250000-05:00"
    assert str(macro(context_of(dag_run=SimpleNamespace(**{name: SAME})), "Asia/Tokyo")).endswith("+09:00")
    with pytest.raises(InvalidParameter, match=f"no {name}.*local_.*local_ds()"):
        macro(context_of(dag_run=SimpleNamespace()))


# ----- which zone


def dag_with(**more):
    return {
        "dag": SimpleNamespace(**{"timezone": pendulum.timezone("Asia/Tokyo"), **more}),
        "logical_date": SAME,
    }


BOUND = {"user_defined_macros": local_macros("Asia/Kolkata")}
FILTERED = {"user_defined_filters": local_filters("Asia/Kolkata")}
# bound in the call, context, option, argument, offset that shows which zone was taken
WHICH_ZONE = [
    pytest.param(NEW_YORK, dag_with(**BOUND), "Africa/Cairo", "Europe/Paris", "+01:00", id="argument"),
    pytest.param(NEW_YORK, dag_with(**BOUND), "Africa/Cairo", None, "-05:00", id="bound"),
    pytest.param(None, dag_with(**BOUND), "Africa/Cairo", None, "+05:30", id="bound-to-the-dag"),
    pytest.param(None, dag_with(**FILTERED), "Africa/Cairo", None, "+05:30", id="bound-to-the-dags-filters"),
    pytest.param(None, dag_with(user_defined_macros={"x": 1}), "Africa/Cairo", None, "+02:00", id="option"),
    pytest.param(None, dag_with(), "", None, "+09:00", id="timezone-of-the-dag"),
    pytest.param(
        None, dag_with(timezone=pendulum.timezone(-9000)), "", None, "-02:30", id="offset-of-the-dag"
    ),
]


@pytest.mark.parametrize(("bound", "context", "option", "argument", "offset"), WHICH_ZONE)
def test_the_zone_is_argument_else_bound_else_configured_else_the_dags(
    monkeypatch, bound, context, option, argument, offset
):
    monkeypatch.setenv(OPTION, option)
    assert local_macros(bound)["utc_offset"](context, zone=argument) == offset
    assert local_filters(bound)["utc_offset"](context, SAME, argument) == offset
    if bound is None:
        assert local(context, zone=argument).utc_offset == offset
        (macro,) = (macro for macro in ResilientPlugin.macros if macro.__name__ == "utc_offset")
        assert macro(context, zone=argument) == offset


def test_a_bad_zone_in_the_configuration_is_reported_when_the_dag_is_parsed_and_when_it_is_used(monkeypatch):
    monkeypatch.setenv(OPTION, "Mars/Olympus")
    with pytest.raises(InvalidParameter, match=r"\[airflow_resilient\] local_timezone: .*'Mars/Olympus'"):
        local_macros()
    with pytest.raises(InvalidParameter, match=r"\[airflow_resilient\] local_timezone: "):
        local(dag_with())
    assert local(dag_with(**BOUND)).utc_offset == "+05:30"


def test_an_accident_in_the_configuration_gets_a_warning_in_the_dag_file(monkeypatch):
    monkeypatch.setenv(OPTION, "EST")
    with pytest.warns(UserWarning, match="no summer time") as caught:
        local_macros()
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="no summer time"):
        local(dag_with())


def test_an_accident_in_the_dags_start_date_gets_a_warning_too():
    with pytest.warns(UserWarning, match="no summer time"):
        assert local(dag_with(timezone=pendulum.timezone("EST"))).utc_offset == "-05:00"


def test_without_a_dag_there_is_an_error_that_says_what_to_write():
    with pytest.raises(InvalidParameter, match=r"no DAG in this context.*zone="):
        local({"logical_date": SAME})


# ----- arguments of their own


@pytest.mark.parametrize(("n", "wanted"), [(0, "2026-03-08"), (-8, "2026-02-28"), (300, "2027-01-02")])
def test_ds_add_counts_days_of_the_calendar(n, wanted):
    assert local_macros(NEW_YORK)["local_ds_add"](context_of(logical_date=SAME), n) == wanted
    assert local_filters(NEW_YORK)["local_ds_add"](context_of(), SAME, n) == wanted
    assert LocalTime(SAME, NEW_YORK).ds_add(n) == wanted


@pytest.mark.parametrize("n", ["1", 1.0, True, None, jinja2.Undefined(name="n"), 10**7, -(10**7)], ids=repr)
def test_ds_add_refuses_what_is_no_number_of_days(n):
    with pytest.raises(InvalidParameter, match=r"local_ds_add|is not between"):
        LocalTime(SAME, NEW_YORK).ds_add(n)


def test_format_takes_what_strftime_takes():
    macro = local_macros(NEW_YORK)["local_format"]
    assert macro(context_of(logical_date=SAME), "%d.%m.%Y %H:%M %Z") == "08.03.2026 01:30 EST"
    assert local_filters(NEW_YORK)["local_format"](context_of(), SAME, "%H%%s", "Asia/Tokyo") == "15%s"


@pytest.mark.parametrize(
    ("fmt", "message"),
    [
        pytest.param("YYYY-MM-DD", "not a format of strftime.*%Y-%m-%d", id="of-pendulum"),
        pytest.param("", "not a format", id="empty"),
        pytest.param(None, "not a format", id="none"),
        pytest.param("%s", "zone of the machine", id="seconds"),
        pytest.param(jinja2.Undefined(name="fmt"), "fmt is not defined", id="undefined"),
    ],
)
def test_format_refuses_what_would_not_be_a_local_time(fmt, message):
    with pytest.raises(InvalidParameter, match=message):
        LocalTime(SAME, NEW_YORK).format(fmt)


# ----- what Airflow needs


def test_macros_filters_and_plugin_have_the_same_names():
    macros, filters = local_macros(), local_filters()
    assert [macro.__name__ for macro in ResilientPlugin.macros] == list(macros)
    assert set(macros) - set(filters) == {
        "local_logical_date",
        "local_data_interval_start",
        "local_data_interval_end",
        "local_run_after",
    }
    assert set(TABLE) <= set(filters) <= set(macros)


def test_macros_have_names_for_airflows_list_of_plugins():
    for name, macro in local_macros().items():
        assert (macro.__name__, macro.__qualname__) == (name, name)
        assert macro.__module__ == "airflow_resilient.scheduling.timezones"


def test_values_of_local_time_are_compared_by_instant_and_zone_and_cannot_be_changed():
    one = LocalTime(SAME, NEW_YORK)
    assert one == LocalTime(SAME.astimezone(ZoneInfo("Asia/Tokyo")), ZoneInfo(NEW_YORK))
    assert one != LocalTime(SAME, "America/Toronto")
    assert len({one, LocalTime(SAME, NEW_YORK)}) == 1
    with pytest.raises(AttributeError):
        one.zone = UTC


def test_nothing_but_the_standard_library_is_loaded_with_the_conversions():
    """In a process of its own."""
    import subprocess

    script = (
        "import sys, airflow_resilient.scheduling.timezones\n"
        "assert not {'airflow', 'jinja2', 'pendulum'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# ----- properties

MOMENT = st.integers(2 * 86_400_000_000, 2_840_140_800_000_000).map(
    lambda microseconds: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
)
ZONE = st.sampled_from(
    [
        NEW_YORK,
        "America/Santiago",
        "America/St_Johns",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Europe/Dublin",
        "Asia/Kathmandu",
        "Africa/Casablanca",
        "Antarctica/Troll",
        "America/Havana",
        "Asia/Gaza",
        "UTC",
    ]
)


@given(MOMENT, ZONE)
def test_an_instant_comes_back_from_its_text(moment, zone):
    there = LocalTime(moment, zone)
    assert there.instant == instant_of(there.datetime) == moment
    assert instant_of(there.ts) == instant_of(there.ts_nodash_with_tz) == moment
    assert there.ts.startswith(there.ds)
    assert there.ts_nodash == there.format("%Y%m%dT%H%M%S")
    assert there.ds_nodash == there.format("%Y%m%d")
    assert there.utc_offset.replace(":", "")[:5] == there.format("%z")[:5]


@given(MOMENT, ZONE)
def test_a_moment_lies_in_its_local_day(moment, zone):
    there = LocalTime(moment, zone)
    start, end = there.utc_day_range
    if zone == "America/St_Johns" and not start <= moment < end:
        assume(False)  # clocks went back over midnight: the oracle checks these days
    assert start <= moment < end
    assert there.day_hours == (end - start) / timedelta(hours=1)
    assert there.day_end == LocalTime(there.day_end, zone).day_start
    assert there.yesterday_ds < there.ds < there.tomorrow_ds


@given(MOMENT)
def test_in_utc_everything_is_as_airflow_renders_it(moment):
    there = LocalTime(moment, "UTC")
    ts = moment.isoformat()  # source: RuntimeTaskInstance.get_template_context
    assert there.ds == moment.strftime("%Y-%m-%d")
    assert there.ds_nodash == moment.strftime("%Y-%m-%d").replace("-", "")
    assert there.ts == ts
    assert there.ts_nodash == moment.strftime("%Y%m%dT%H%M%S")
    assert there.ts_nodash_with_tz == ts.replace("-", "").replace(":", "")


@given(st.text(), st.sampled_from([NEW_YORK, "UTC"]))
def test_no_text_is_taken_for_a_moment_unless_it_has_an_offset(text, zone):
    try:
        LocalTime(text, zone)
    except InvalidParameter:
        return
    assert re.search(r"(z|[+-][\d:]+)\s*$", text, re.IGNORECASE)


@pytest.mark.parametrize("zone", [NEW_YORK, "UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Asia/Manila"])
@pytest.mark.parametrize("moment", ["0002-01-01T00:00Z", "9998-12-31T23:59:59Z"])
def test_everything_works_up_to_the_first_and_the_last_year(moment, zone):
    there = LocalTime(moment, zone)
    for read in vars(LocalTime).values():
        if isinstance(read, property):
            assert read.fget(there) is not None
    assert LocalTime("2026-01-15T01:00+23:59", zone).instant == datetime(2026, 1, 14, 1, 1, tzinfo=UTC)


@given(MOMENT)
def test_a_wall_clock_is_never_read_as_an_instant(moment):
    with pytest.raises(InvalidParameter):
        instant_of(moment.isoformat()[:19])
    with pytest.raises(InvalidParameter):
        instant_of(moment.astimezone(ZoneInfo("Asia/Kathmandu")).isoformat()[:19] + " Asia/Kathmandu")
