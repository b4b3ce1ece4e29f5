"""Local time: dates in the time zone of the business, for templates and for Python code.

``{{ ds }}``, ``{{ ts }}`` and everything else that Airflow renders is UTC, whatever the zone of the DAG: the
run of 31 October, 20:00, in New York renders ``2026-11-01``. Here an instant is converted to local time once,
and all further calculations use dates or UTC, never wall clocks::

    DAG(..., user_defined_macros=local_macros("America/New_York"))  # {{ local_ds() }}
    DAG(..., user_defined_filters=local_filters("America/New_York"))  # {{ data_interval_end | local_ds }}

    @task
    def load(**context):
        print(local(context).ds)

**Which moment.** Without an argument it is the run's own: its logical date; without one (triggered by hand
or by an asset) its partition date; without one its ``run_after``.

**Which zone.** The argument ``zone``, else the one bound to the DAG by `local_macros` or `local_filters`,
else ``[airflow_resilient] local_timezone``, else ``dag.timezone``.

**A local day** begins when local clocks first show its date and ends when the next one begins, so that days
follow each other without gap or overlap: a day has 23, 24, 25 or, in Lord Howe, 24.5 hours; it begins at
01:00 where clocks skip midnight; a day that a zone skipped has no length. (Where clocks go back over
midnight, as in St. John's until 2011, the previous date is shown again within a day that has begun.)

Values that are not an instant (a date, a time without an offset, ``None``) are rejected, because a guess
would be a wrong date that is not noticed.
"""

from __future__ import annotations

import datetime as dt
import re
import sys
import warnings
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

if TYPE_CHECKING:
    from airflow.sdk import Context


__all__ = ["LocalTime", "UtcDayRange", "local", "local_filters", "local_macros"]

ONE_DAY = dt.timedelta(days=1)


class _Own(Enum):
    """The default of a parameter for the run's own moment; ``None`` would be a missing value."""

    MOMENT = "the run's own moment"


OWN_MOMENT = _Own.MOMENT

# ----- errors


def _refuse(message: str) -> NoReturn:
    """Raise `InvalidParameter`, which is imported late because every process of Airflow imports plugins."""
    from ..errors import InvalidParameter

    raise InvalidParameter(message)


def _undefined_name(value: Any) -> str | None:
    """The name of an undefined template variable, if `value` is one; then jinja2 is loaded."""
    jinja2 = sys.modules.get("jinja2")
    if jinja2 is None or not isinstance(value, jinja2.Undefined):
        return None
    return str(getattr(value, "_undefined_name", None) or "a value")


# ----- moments

_ISO = re.compile(
    r"(\d{4})-?(\d\d)-?(\d\d)[T ](\d\d):?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?"
    r"(?:(Z)|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?)?",
    re.IGNORECASE | re.ASCII,
)

_DATE = re.compile(r"\d{4}-?\d\d-?\d\d", re.ASCII)


def instant_of(moment: Any) -> dt.datetime:
    """Convert a moment to an instant in UTC.

    :param moment: an aware ``datetime`` (also pendulum's and Airflow's lazy ones), or ISO 8601 text with an
        offset.
    :raises InvalidParameter: it is not an instant; the message says what to write.

    >>> instant_of("2026-01-15T01:00:00Z").isoformat()
    '2026-01-15T01:00:00+00:00'
    """
    if (name := _undefined_name(moment)) is not None:
        _refuse(
            f"{name} is not defined here, so it has no local time. A run that was triggered by hand or by an "
            "asset has no logical date and no data interval: leave the argument out, as in local_ds(), to "
            "use the run's own moment, or write dag_run.run_after"
        )
    if isinstance(moment, str):
        return _parsed(str(moment).strip())
    if isinstance(moment, dt.datetime):
        offset = moment.utcoffset()
        if offset is None:
            _refuse(
                f"{moment} has no time zone, so it is not an instant; write it with tzinfo, for example "
                "datetime(2026, 1, 15, 1, tzinfo=timezone.utc)"
            )
        # Field by field: lazy proxies and pendulum's datetimes have different arithmetic, or none.
        parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
        return _utc(parts, moment.microsecond, offset, moment)
    if isinstance(moment, dt.date):
        _refuse_date(moment)
    if isinstance(moment, type(None)):  # noqa: FURB168 - Airflow's lazy proxies are not None, but of its type
        _refuse(
            "None has no local time. Leave the argument out, as in local_ds(), to use the run's own moment; "
            "a value that a first run does not have needs a condition: {% if prev_start_date_success %}"
        )
    _refuse(
        f"{moment!r} ({type(moment).__name__}) is not a moment; write an aware datetime such as "
        "data_interval_end, or text with an offset such as '2026-01-15T01:00:00+00:00'"
    )


def _refuse_date(day: object) -> NoReturn:
    _refuse(
        f"{str(day)!r} is a date without a time, so it is not an instant: the local date can be another one. "
        "Write a moment, such as data_interval_end; local_ds_add(n) counts days from the run's local date"
    )


def _parsed(text: str) -> dt.datetime:
    """Parse ISO 8601 text with an offset, in the same way on every version of Python."""
    found = _ISO.fullmatch(text)
    if found is None:
        if _DATE.fullmatch(text):
            _refuse_date(text)
        if _loaded(text):
            _refuse(f"{text!r} is a time zone, not a moment; write zone={text!r}")
        _refuse(f"{text!r} is not a moment; write text with an offset, such as '2026-01-15T01:00:00+00:00'")
    *parts, fraction, zulu, sign, hours, minutes, seconds = found.groups()
    if zulu is None and sign is None:
        _refuse(
            f"{text!r} has no offset, so it is not an instant; write '{text}Z' if it is UTC, or its offset, "
            f"such as '{text}-05:00'"
        )
    if int(hours or 0) > 23 or int(minutes or 0) > 59 or int(seconds or 0) > 59:  # noqa: PLR2004 - ISO 8601
        _refuse(f"{text!r} has no valid offset; write one from -23:59 to +23:59, such as -05:00")
    offset = dt.timedelta(hours=int(hours or 0), minutes=int(minutes or 0), seconds=int(seconds or 0))
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    return _utc(
        tuple(int(part or 0) for part in parts), microsecond, -offset if sign == "-" else offset, text
    )


def _utc(parts: tuple[int, ...], microsecond: int, offset: dt.timedelta, original: object) -> dt.datetime:
    """Return the instant of a wall clock's reading, given its offset from UTC."""
    year, month, day, hour, minute, second = parts
    try:
        wall = dt.datetime(year, month, day, hour, minute, second, microsecond, tzinfo=dt.timezone.utc)
        instant = wall - offset
    except (ValueError, OverflowError) as error:
        _refuse(f"{str(original)!r} is not a valid datetime ({error})")
    if not dt.MINYEAR < instant.year < dt.MAXYEAR:  # their neighbouring days do not exist for Python
        _refuse(f"{str(original)!r} is not between the years {dt.MINYEAR + 1} and {dt.MAXYEAR - 1}")
    return instant


# ----- zones

# Names that mean something else on another machine, or count leap seconds.
_NOT_PLACES = re.compile(r"localtime|posixrules|Factory|posix/.*|right/.*")

_OFFSET = re.compile(r"(?:UTC|GMT)?[+-]\d{1,2}(:?\d\d)?", re.IGNORECASE | re.ASCII)

# Zones without summer time whose users usually mean a place with summer time: hours of their offset, place.
_FIXED_BY_ACCIDENT = {
    "EST": (-5, "America/New_York"),
    "MST": (-7, "America/Denver"),
    "HST": (-10, "Pacific/Honolulu"),
    "GMT": (0, "Europe/London"),
}

_ETC = re.compile(r"Etc/GMT([+-])(\d{1,2})")


@lru_cache(maxsize=1024)
def _loaded(name: str) -> ZoneInfo | None:
    """Load a zone by its name; ``None`` when it does not exist."""
    if _NOT_PLACES.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of the database
        return None


def _named(name: str) -> ZoneInfo:
    """Load a zone by its name, or raise an error that says what to write instead."""
    found = _loaded(name)
    if found is not None:
        return found
    if not name.strip():
        _refuse("the name of the time zone is empty; write a place, such as 'America/New_York'")
    if _OFFSET.fullmatch(name):
        _refuse(
            f"time zone {name!r} is an offset, which is wrong for half of the year wherever clocks change; "
            "write a place, such as 'America/New_York', or, if a fixed offset is intended, "
            "datetime.timezone(timedelta(hours=...))"
        )
    if _NOT_PLACES.fullmatch(name):
        _refuse(
            f"time zone {name!r} is not the same on every machine; write a place, such as 'America/New_York'"
        )
    _refuse(f"time zone {name!r} is unknown; write {_instead_of(name)}")


def _instead_of(name: str) -> str:
    """Suggest zones for an unknown name."""
    from difflib import get_close_matches
    from zoneinfo import available_timezones

    if re.fullmatch(r"[A-Z]{2,5}", name):
        return (
            "a place, such as 'America/New_York': an abbreviation can stand for several zones, and often for "
            "one half of the year only"
        )
    wanted = name.strip().replace(" ", "_").casefold()
    zones = sorted(zone for zone in available_timezones() if "/" in zone and not _NOT_PLACES.fullmatch(zone))
    known = {zone.casefold(): zone for zone in zones}
    places = {zone.rpartition("/")[2]: zone for zone in known}
    if wanted in known:
        return repr(known[wanted])
    if wanted in places:
        return repr(known[places[wanted]])
    close = get_close_matches(wanted, known, n=3, cutoff=0.8)
    close += [places[place] for place in get_close_matches(wanted, places, n=3, cutoff=0.8)]
    if close:
        return " or ".join(repr(known[zone]) for zone in list(dict.fromkeys(close))[:3])
    return "a place, such as 'America/New_York'; zoneinfo.available_timezones() lists all names"


def zone_of(zone: Any) -> dt.tzinfo:
    """Convert the name of a zone, or a zone of any library, to the standard library's zone of that name.

    Zones of pendulum 2 and pytz have their own data, which may be years older than the system's, so only
    their names are used. A zone without a name keeps its offset.

    :raises InvalidParameter: there is no such zone; the message says what to write.

    >>> zone_of("America/New_York")
    zoneinfo.ZoneInfo(key='America/New_York')
    """
    if type(zone) is ZoneInfo:
        return zone
    if (name := _undefined_name(zone)) is not None:
        _refuse(f"{name} is not defined here; write zone='America/New_York'")
    if isinstance(zone, str):
        return _named(str(zone))
    if isinstance(zone, dt.tzinfo):
        for attribute in ("key", "zone", "name"):  # zoneinfo and pendulum 3, pytz, pendulum 2
            name = getattr(zone, attribute, None)
            if isinstance(name, str) and (found := _loaded(name)) is not None:
                return found
        offset = zone.utcoffset(None)
        return zone if offset is None else dt.timezone(offset)
    _refuse(f"{zone!r} ({type(zone).__name__}) is not a time zone; write a name, such as 'America/New_York'")


def checked_zone(zone: Any, *, stacklevel: int) -> dt.tzinfo:
    """`zone_of`, with a warning for a zone without summer time, which is rarely intended."""
    found = zone_of(zone)
    name = zone if isinstance(zone, str) else str(getattr(found, "key", ""))
    etc = _ETC.fullmatch(name)
    hours, place = _FIXED_BY_ACCIDENT.get(name, (0, ""))
    problem = "has no summer time"
    if etc and int(etc[2]):
        hours, place = int(etc[2]) * (-1 if etc[1] == "+" else 1), "America/New_York"
        problem = (
            f"is {abs(hours)} h {'behind' if hours < 0 else 'ahead of'} UTC all year (its sign is reversed)"
        )
    if place:
        fixed = f"timezone(timedelta(hours={hours}))" if hours else "timezone.utc"
        instead = f"a place, such as {place!r}, or datetime.{fixed} if that is intended"
        warnings.warn(f"time zone {name!r} {problem}; write {instead}", UserWarning, stacklevel=stacklevel)
    return found


# ----- local time


class UtcDayRange(NamedTuple):
    """A local day in UTC: ``start <= moment < end``."""

    start: dt.datetime
    end: dt.datetime


def first_instant(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    """Return the start of a local day in UTC: when local clocks first show that date or a later one.

    Where clocks go back over midnight, it is the first of two midnights; where they skip midnight, it is the
    moment when they do so; a day that the zone skipped begins when the next one does.

    >>> santiago = ZoneInfo("America/Santiago")
    >>> first_instant(dt.date(2026, 9, 6), santiago).astimezone(santiago).isoformat()
    '2026-09-06T01:00:00-03:00'
    """
    midnight = dt.datetime(day.year, day.month, day.day)  # noqa: DTZ001 - a wall clock's reading
    candidates = []
    for fold in (0, 1):
        offset = midnight.replace(tzinfo=zone, fold=fold).utcoffset() or dt.timedelta()
        candidates.append((midnight - offset).replace(tzinfo=dt.timezone.utc))
        if candidates[-1].astimezone(zone).replace(tzinfo=None) == midnight:
            return candidates[-1]
    # The clock skips midnight: search for the jump, which is on a full second.
    early = min(candidates) - ONE_DAY
    seconds = int((max(candidates) + ONE_DAY - early).total_seconds())
    return early + dt.timedelta(
        seconds=bisect_left(
            range(seconds),
            True,
            key=lambda after: (early + dt.timedelta(seconds=after)).astimezone(zone).date() >= day,
        )
    )


@dataclass(frozen=True, init=False)
class LocalTime:
    """A moment in local time.

    :param moment: an aware ``datetime``, or text with an offset.
    :param zone: name of a zone, or a ``tzinfo``.
    :raises InvalidParameter: the moment is not an instant, or there is no such zone.

    >>> evening = LocalTime("2026-11-01T00:00:00Z", "America/New_York")
    >>> evening.ds, evening.ts, evening.day_hours
    ('2026-10-31', '2026-10-31T20:00:00-04:00', 24)
    """

    instant: dt.datetime
    """The moment in UTC."""

    zone: dt.tzinfo

    def __init__(self, moment: dt.datetime | str, zone: str | dt.tzinfo) -> None:
        object.__setattr__(self, "instant", instant_of(moment))
        object.__setattr__(self, "zone", zone_of(zone))

    @property
    def datetime(self) -> dt.datetime:
        """The moment in local time; compare and subtract `instant`, because wall clocks repeat readings."""
        return self.instant.astimezone(self.zone)

    @property
    def date(self) -> dt.date:
        """The local date."""
        return self.datetime.date()

    @property
    def ds(self) -> str:
        """The local date, ``2026-01-14``."""
        return self.date.isoformat()

    @property
    def ds_nodash(self) -> str:
        """The local date, ``20260114``."""
        return self.ds.replace("-", "")

    @property
    def ts(self) -> str:
        """Local date, time and offset, ``2026-01-14T20:00:00-05:00``."""
        return self.datetime.isoformat()

    @property
    def ts_nodash(self) -> str:
        """Local date and time, ``20260114T200000``; ambiguous in the hour that clocks repeat."""
        wall = self.datetime.replace(microsecond=0, tzinfo=None)
        return wall.isoformat().replace("-", "").replace(":", "")

    @property
    def ts_nodash_with_tz(self) -> str:
        """Local date, time (with its microseconds, as in Airflow) and offset, ``20260114T200000-0500``."""
        wall = self.datetime.replace(tzinfo=None).isoformat().replace("-", "").replace(":", "")
        return wall + self.utc_offset.replace(":", "")

    @property
    def utc_offset(self) -> str:
        """The offset of local clocks from UTC, ``-05:00``."""
        return self.datetime.replace(microsecond=0).isoformat()[19:]

    @property
    def day_start(self) -> dt.datetime:
        """When the local day begins, in local time."""
        return first_instant(self.date, self.zone).astimezone(self.zone)

    @property
    def day_end(self) -> dt.datetime:
        """When the next local day begins, in local time."""
        return first_instant(self.date + ONE_DAY, self.zone).astimezone(self.zone)

    @property
    def utc_day_range(self) -> UtcDayRange:
        """The local day in UTC, ``start <= moment < end``."""
        return UtcDayRange(first_instant(self.date, self.zone), first_instant(self.date + ONE_DAY, self.zone))

    @property
    def day_hours(self) -> int | float:
        """The length of the local day: 24, or 23 or 25 when clocks change, 24.5 in Lord Howe."""
        start, end = self.utc_day_range
        hours = (end - start).total_seconds() / 3600
        return int(hours) if hours.is_integer() else hours

    @property
    def yesterday_ds(self) -> str:
        """Date of the previous local day; a day that the zone skipped does not count."""
        return (self.utc_day_range.start - dt.timedelta.resolution).astimezone(self.zone).date().isoformat()

    @property
    def tomorrow_ds(self) -> str:
        """Date of the next local day; a day that the zone skipped does not count."""
        return self.utc_day_range.end.astimezone(self.zone).date().isoformat()

    def ds_add(self, n: int) -> str:
        """Add days of the calendar to the local date, as Airflow's ``macros.ds_add`` does.

        :param n: days; negative for earlier dates.
        """
        if isinstance(n, bool) or not isinstance(n, int):
            _refuse(f"local_ds_add takes a whole number of days, not {n!r}; write local_ds_add(-1)")
        try:
            return (self.date + dt.timedelta(days=n)).isoformat()
        except OverflowError:
            _refuse(f"{self.ds} plus {n} days is not between the years 1 and 9999")

    def format(self, fmt: str) -> str:
        """Format the local time.

        :param fmt: as in ``datetime.strftime``, with at least one ``%``.
        """
        if (name := _undefined_name(fmt)) is not None:
            _refuse(f"{name} is not defined here; write local_format('%Y-%m-%d')")
        if not isinstance(fmt, str) or "%" not in fmt:
            _refuse(f"{fmt!r} is not a format of strftime; write local_format('%Y-%m-%d')")
        if "%s" in fmt.replace("%%", ""):
            _refuse("%s of strftime uses the zone of the machine; write dag_run.run_after.timestamp()")
        return self.datetime.strftime(fmt)


# ----- moments and zones of a run


def own_moment(context: Mapping[str, Any]) -> Any:
    """Return the run's own moment: logical date, else partition date, else ``run_after``.

    Source: ``RuntimeTaskInstance.get_template_context`` leaves out ``logical_date`` where a run has none.
    """
    run = context.get("dag_run")
    for name in ("logical_date", "partition_date", "run_after"):
        moment = context.get(name)
        if moment is None:
            moment = getattr(run, name, None)
        if moment is not None:
            return moment
    _refuse(
        "there is no run in this context, so a moment is required: write local_ds(data_interval_end), or, "
        "for an imported template, {% import ... with context %}"
    )


def moment_of_run(context: Mapping[str, Any], name: str) -> Any:
    """Return a moment of the run by its name in Airflow."""
    moment = context.get(name)
    if moment is None:
        moment = getattr(context.get("dag_run"), name, None)
    if moment is None:
        instead = "local_data_interval_end()" if name == "run_after" else "local_run_after()"
        _refuse(
            f"this run has no {name}"
            + (", as on all of Airflow 2" if name == "run_after" else " (triggered by hand or by an asset)")
            + f"; write {instead}, or local_ds() and others, which use the run's own moment"
        )
    return moment


def configured_zone(*, stacklevel: int) -> dt.tzinfo | None:
    """Read ``[airflow_resilient] local_timezone``; ``None`` where it is empty."""
    from ..compat import conf
    from ..errors import InvalidParameter

    name = (conf.get("airflow_resilient", "local_timezone", fallback="") or "").strip()
    if not name:
        return None
    try:
        return checked_zone(name, stacklevel=stacklevel + 1)
    except InvalidParameter as error:
        raise InvalidParameter(f"[airflow_resilient] local_timezone: {error}") from None


def zone_for(context: Mapping[str, Any], zone: Any = None, bound: dt.tzinfo | None = None) -> dt.tzinfo:
    """Return the zone: argument, else bound, bound to the DAG, configured, ``dag.timezone``."""
    if zone is not None:
        return checked_zone(zone, stacklevel=5)
    if bound is not None:
        return bound
    dag = context.get("dag")
    for table in ("user_defined_macros", "user_defined_filters"):
        of_dag = getattr((getattr(dag, table, None) or {}).get("local_ds"), "zone", None)
        if isinstance(of_dag, dt.tzinfo):
            return of_dag
    configured = configured_zone(stacklevel=5)
    if configured is not None:
        return configured
    of_dag = getattr(dag, "timezone", None)
    if of_dag is None:
        _refuse("there is no DAG in this context, so a time zone is required; write zone='America/New_York'")
    return checked_zone(of_dag, stacklevel=5)


def local(
    context: Context | Mapping[str, Any] | None = None,
    moment: dt.datetime | str | _Own = OWN_MOMENT,
    zone: str | dt.tzinfo | None = None,
) -> LocalTime:
    """Local time for Python code, as the macros for templates: ``local(context).ds`` is ``{{ local_ds() }}``.

    :param context: the context that Airflow passes to tasks, callbacks and ``execute``; default: that of the
        running task.
    :param moment: an aware ``datetime``, or text with an offset; without it, the run's own moment.
    :param zone: without it, the zone bound to the DAG, else ``[airflow_resilient] local_timezone``, else
        ``dag.timezone``.
    :raises InvalidParameter: the moment is not an instant, or there is no such zone.
    """
    if context is None:
        from airflow.providers.common.compat.sdk import get_current_context

        context = get_current_context()
    return _local(context, moment, zone, None)


def _local(context: Any, moment: Any, zone: Any, bound: dt.tzinfo | None) -> LocalTime:
    return LocalTime(own_moment(context) if moment is OWN_MOMENT else moment, zone_for(context, zone, bound))


# ----- templates

Macro = Callable[..., Any]

_OF_A_MOMENT: dict[str, Callable[[LocalTime], Any]] = {
    "local_datetime": lambda it: it.datetime,
    "local_ds": lambda it: it.ds,
    "local_ds_nodash": lambda it: it.ds_nodash,
    "local_ts": lambda it: it.ts,
    "local_ts_nodash": lambda it: it.ts_nodash,
    "local_ts_nodash_with_tz": lambda it: it.ts_nodash_with_tz,
    "local_day_start": lambda it: it.day_start,
    "local_day_end": lambda it: it.day_end,
    "local_day_hours": lambda it: it.day_hours,
    "local_yesterday_ds": lambda it: it.yesterday_ds,
    "local_tomorrow_ds": lambda it: it.tomorrow_ds,
    "utc_offset": lambda it: it.utc_offset,
    "utc_day_range": lambda it: it.utc_day_range,
}

_OF_THE_RUN = ("logical_date", "data_interval_start", "data_interval_end", "run_after")


def _of_a_moment(read: Callable[[LocalTime], Any], bound: dt.tzinfo | None) -> Macro:
    def macro(context: Any, moment: Any = OWN_MOMENT, zone: Any = None) -> Any:
        return read(_local(context, moment, zone, bound))

    return macro


def _of_the_run(name: str, bound: dt.tzinfo | None) -> Macro:
    def macro(context: Any, zone: Any = None) -> dt.datetime:
        return _local(context, moment_of_run(context, name), zone, bound).datetime

    return macro


def _macros(bound: dt.tzinfo | None) -> dict[str, Macro]:
    def local_ds_add(context: Any, n: int, moment: Any = OWN_MOMENT, zone: Any = None) -> str:
        return _local(context, moment, zone, bound).ds_add(n)

    def local_format(context: Any, fmt: str, moment: Any = OWN_MOMENT, zone: Any = None) -> str:
        return _local(context, moment, zone, bound).format(fmt)

    return {
        **{name: _of_a_moment(read, bound) for name, read in _OF_A_MOMENT.items()},
        **{f"local_{name}": _of_the_run(name, bound) for name in _OF_THE_RUN},
        "local_ds_add": local_ds_add,
        "local_format": local_format,
    }


def _filters(bound: dt.tzinfo | None) -> dict[str, Macro]:
    def local_ds_add(context: Any, moment: Any, n: int, zone: Any = None) -> str:
        return _local(context, moment, zone, bound).ds_add(n)

    def local_format(context: Any, moment: Any, fmt: str, zone: Any = None) -> str:
        return _local(context, moment, zone, bound).format(fmt)

    return {
        **{name: _of_a_moment(read, bound) for name, read in _OF_A_MOMENT.items()},
        "local_ds_add": local_ds_add,
        "local_format": local_format,
    }


def _for_jinja(functions: dict[str, Macro], bound: dt.tzinfo | None) -> dict[str, Macro]:
    """Prepare the functions for Jinja (context), Airflow (name) and `zone_for` (zone)."""
    from jinja2 import pass_context

    for name, function in functions.items():
        function.__name__ = function.__qualname__ = name
        function.zone = bound  # type: ignore[attr-defined]
        pass_context(function)
    return functions


def local_macros(zone: str | dt.tzinfo | None = None) -> dict[str, Macro]:
    """Return the macros for a DAG: ``DAG(..., user_defined_macros=local_macros("America/New_York"))``.

    Each is a function: ``{{ local_ds() }}`` is the date of the run's own moment,
    ``{{ local_ds(data_interval_end) }}`` that of another moment, ``{{ local_ds(zone="Asia/Kolkata") }}`` that
    in another zone.

    :param zone: name of a zone, or a ``tzinfo``; without it ``[airflow_resilient] local_timezone``, else
        ``dag.timezone``, is read when a template is rendered.
    :raises InvalidParameter: there is no such zone; raised when the DAG is parsed.
    """
    return _for_jinja(*_bound(_macros, zone))


def local_filters(zone: str | dt.tzinfo | None = None) -> dict[str, Macro]:
    """Return the filters for a DAG: ``DAG(..., user_defined_filters=local_filters("America/New_York"))``.

    They have the names of the macros: ``{{ data_interval_end | local_ds }}``,
    ``{{ data_interval_end | local_ds("Asia/Kolkata") }}``,
    ``{{ data_interval_end | local_format("%d.%m.%Y") }}``.

    :param zone: as for `local_macros`.
    :raises InvalidParameter: there is no such zone; raised when the DAG is parsed.
    """
    return _for_jinja(*_bound(_filters, zone))


def _bound(
    make: Callable[[dt.tzinfo | None], dict[str, Macro]], zone: str | dt.tzinfo | None
) -> tuple[dict[str, Macro], dt.tzinfo | None]:
    """Check the zone when the DAG is parsed; a zone from the configuration is checked, but not bound."""
    if zone is None:
        configured_zone(stacklevel=4)
        return make(None), None
    bound = checked_zone(zone, stacklevel=4)
    return make(bound), bound


def plugin_macros() -> list[Macro]:
    """Return the macros of the plugin, which are not bound to a zone."""
    return list(_for_jinja(_macros(None), None).values())
