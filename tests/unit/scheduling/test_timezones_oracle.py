"""Local days of every zone of the tz database around each of its transitions since 1970.

The oracle knows nothing of the code under test, and calculates with whole numbers only: seconds since 1970,
and stretches of time during which a zone's offset is constant.  When those begin is read from the compiled
database.
"""

import struct
import zoneinfo
from bisect import bisect_right
from datetime import date, datetime, timedelta, timezone
from functools import cache
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_resilient import LocalTime
from airflow_resilient.scheduling.timezones import first_instant, instant_of

UTC = timezone.utc
DAY = 86400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_DAY = date(1970, 1, 1).toordinal()
END = int(datetime(2038, 1, 1, tzinfo=UTC).timestamp())
# Names that mean something else on another machine; the library refuses them.
NAMES = sorted(zoneinfo.available_timezones() - {"localtime", "posixrules", "Factory"})


def instant(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def compiled(name: str) -> bytes:
    """The file that zoneinfo reads: the system's, else tzdata's."""
    for root in zoneinfo.TZPATH:
        if (Path(root) / name).is_file():
            return (Path(root) / name).read_bytes()
    return resources.files("tzdata.zoneinfo").joinpath(name).read_bytes()


def listed_transitions(data: bytes) -> tuple[list[int], str]:
    """Seconds of the transitions in a TZif file (RFC 8536), and its rule for what comes after them."""
    header = struct.Struct(">4sc15x6l")

    def counts(at):
        magic, version, *six = header.unpack_from(data, at)
        assert magic == b"TZif"
        assert version >= b"2"
        return six

    utc, standard, leaps, times, types, letters = counts(0)
    second = header.size + times * 5 + types * 6 + letters + leaps * 8 + standard + utc
    utc, standard, leaps, times, types, letters = counts(second)
    assert leaps == 0
    begin = second + header.size
    end = begin + times * 9 + types * 6 + letters + leaps * 12 + standard + utc
    return list(struct.unpack_from(f">{times}q", data, begin)), data[end:].decode().strip()


@cache
def stretches(data: bytes, name: str) -> list[tuple[int, int]]:
    """Beginning and offset of each stretch of constant offset, from 1970 to 2037; the first began earlier."""
    zone = zoneinfo.ZoneInfo(name)

    def offset(seconds):
        return int(instant(seconds).astimezone(zone).utcoffset().total_seconds())

    listed, rule = listed_transitions(data)
    moments = [seconds for seconds in listed if 0 < seconds < END]
    if "," in rule:  # summer time forever: not listed, so searched for
        known = max([0, *moments])
        for before, after in pairwise(range(known, END, 10 * DAY)):
            if offset(before) != offset(after):
                span = range(before, after + 1)
                moments.append(
                    span[bisect_right(span, False, key=lambda at, old=before: offset(at) != offset(old))]
                )
    found = [(-DAY, offset(0))]
    for seconds in sorted(moments):
        if offset(seconds) != found[-1][1]:  # a new name for the same offset is no transition for us
            assert offset(seconds - 1) == found[-1][1], "the oracle missed one"
            found.append((seconds, offset(seconds)))
    return found


def first_shown(day: int, known: list[tuple[int, int]]) -> int:
    """When clocks first show that day (days since 1970) or a later one."""
    for (begin, offset), (end, _) in pairwise([*known, (END * 2, 0)]):
        if end + offset > day * DAY:
            return max(begin, day * DAY - offset)
    raise AssertionError


def shown(seconds: int, known: list[tuple[int, int]]) -> int:
    """Seconds since 1970 as local clocks and calendars show them."""
    return seconds + known[bisect_right(known, seconds, key=lambda stretch: stretch[0]) - 1][1]


def text_of(day: int) -> str:
    return date.fromordinal(FIRST_DAY + day).isoformat()


CHECKED: dict[bytes, str] = {}


@pytest.mark.parametrize("name", NAMES)
def test_days_around_every_transition_since_1970_are_right(name):
    data = compiled(name)
    if name == CHECKED.setdefault(data, name):  # many names are links to the same rules
        for before, (moment, after) in pairwise(stretches(data, name)):
            check_around(name, moment, before[1], after)
    assert LocalTime(EPOCH, name).datetime.utcoffset() == timedelta(seconds=stretches(data, name)[0][1])


def check_around(name: str, transition: int, before: int, after: int) -> None:
    zone = zoneinfo.ZoneInfo(name)
    known = near(name, transition)
    # An instant converts and comes back, and shows what the oracle's clock shows.
    for seconds in (
        transition - 1,
        transition,
        transition + 1,
        transition - abs(after - before),
        transition + DAY,
    ):
        moment = instant(seconds)
        there = LocalTime(moment, name)
        assert there.datetime.astimezone(UTC) == instant_of(there.ts) == moment, there.ts
        wall = instant(shown(seconds, known))
        assert there.ts_nodash == wall.strftime("%Y%m%dT%H%M%S")
        assert there.ds == text_of(shown(seconds, known) // DAY)
    # The days around it begin where the oracle says, in the order of the calendar, without gap or overlap.
    days = range((transition + min(before, after)) // DAY - 1, (transition + max(before, after)) // DAY + 3)
    starts = [first_instant(date.fromordinal(FIRST_DAY + day), zone) for day in days]
    assert starts == [instant(first_shown(day, known)) for day in days]
    for day, start, end in zip(days, starts, starts[1:], strict=False):
        # The bounds of a day are instants whose neighbours fall into other days.
        for bound, of in ((start, day), (end, day + 1)):
            assert (bound - timedelta(microseconds=1)).astimezone(zone).date().isoformat() < text_of(of)
            assert bound.astimezone(zone).date().isoformat() >= text_of(of)
        if start == end:  # skipped: no clock ever showed it
            assert start.astimezone(zone).date().isoformat() > text_of(day)
            continue
        there = LocalTime(start, zone)
        assert there.ds == text_of(day)
        assert there.utc_day_range == (start, end)
        # Aware datetimes that clocks show twice are equal to nothing (PEP 495), so compare in UTC.
        assert (there.day_start.astimezone(UTC), there.day_end.astimezone(UTC)) == (start, end)
        assert there.day_start.utcoffset() == start.astimezone(zone).utcoffset()
        assert there.day_hours * 3600 == pytest.approx((end - start).total_seconds(), abs=1e-6)
        # The neighbours meet at the bounds.
        assert LocalTime(end, zone).utc_day_range.start == end
        assert there.tomorrow_ds == LocalTime(end, zone).ds
        assert LocalTime(end, zone).yesterday_ds == there.ds


def near(name: str, transition: int) -> list[tuple[int, int]]:
    """The stretches within some days of a transition; the first one reaches back without end."""
    known = stretches(compiled(name), name)
    at = [begin for begin, _ in known].index(transition)
    return known[max(0, at - 4) : at + 4]


def test_the_oracle_covers_every_kind_of_transition():
    """So many zones and transitions, and each kind of odd day among them."""
    every = {name: stretches(compiled(name), name) for name in NAMES}
    assert len(every) > 400
    assert sum(len(known) - 1 for known in every.values()) > 20_000
    steps = {
        name: {(after - before) for (_, before), (_, after) in pairwise(known)}
        for name, known in every.items()
    }
    assert 1800 in steps["Australia/Lord_Howe"]
    assert DAY in steps["Pacific/Apia"]
    assert 7200 in steps["Antarctica/Troll"]
    assert any(step % 60 for step in steps["Africa/Monrovia"]), "1972: from an offset with seconds"
    # St. John's: one minute after midnight, clocks went back to the day before.
    back = [
        name
        for name, known in every.items()
        for (_, before), (moment, after) in pairwise(known)
        if after < before and (moment + before) % DAY < before - after and (moment + before) % DAY
    ]
    assert "America/St_Johns" in back


def test_all_days_of_70_years_tile_the_time_line():
    for name in (
        "America/New_York",
        "America/St_Johns",
        "Pacific/Apia",
        "Australia/Lord_Howe",
        "Africa/Casablanca",
    ):
        zone = zoneinfo.ZoneInfo(name)
        known = stretches(compiled(name), name)
        days = range(1, END // DAY - 1)
        starts = [first_instant(date.fromordinal(FIRST_DAY + day), zone) for day in days]
        assert starts == sorted(starts)
        for at in range(0, len(days), 97):
            assert starts[at] == instant(first_shown(days[at], known))
