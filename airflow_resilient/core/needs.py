"""What a DAG needs, as tags: written in the DAG file, read over Airflow's REST API.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from zoneinfo import ZoneInfo

NEED_BY, START_WITHIN, WAIT_AT_MOST = "need_by", "start_within", "wait_at_most"
"""What the tags begin with, before ``=``; the names of the functions that make them."""

CANARY_EVERY, CANARY_LEG = "canary_every", "canary_leg"
"""The tags of a canary, which `canary_dag` makes: its interval, and one for each of its legs."""

QUEUE_LEG, EXECUTOR_LEG, TRIGGERER_LEG = "queue-", "executor-", "triggerer"
"""Task ids of the legs of a canary: the first two are followed by the name of a queue or an executor."""

LATE_INTERVALS = 2.5
"""Intervals of a canary without a success of a leg, after which the leg is late."""

SHORTEST_LATE = 1.5
"""Intervals within which a healthy canary succeeds for certain."""

LONGEST_TAG = 100
"""Characters of a tag. Source: ``TAG_MAX_LEN`` in ``airflow/models/dag.py`` (2.11 to 3.3)."""

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_LENGTH = re.compile(r"(\d+)([smhd])")


@dataclass(frozen=True)
class NeedBy:
    """The runs that are due before a time of the day must have succeeded by then.

    :param hour: of the local clock.
    :param minute: of the local clock.
    :param zone: name of the time zone, as in the IANA database.
    """

    hour: int
    minute: int
    zone: str

    def __str__(self) -> str:
        """The time as it stands in the tag.

        >>> str(NeedBy(7, 0, "America/New_York"))
        '07:00 America/New_York'
        """
        return f"{self.hour:02}:{self.minute:02} {self.zone}"

    def deadlines(self, now: float) -> tuple[float, float, float]:
        """The last but one, the last and the next moment at which the local clock shows the time.

        Where clocks are set back and show it twice, the second moment counts; where they are set forward
        over it, the moment by which it would have come.

        :param now: seconds since 1970; so are the results. The last one may be `now` itself.
        """
        zone = _zone(self.zone)
        today = datetime.fromtimestamp(now, zone).date()
        found = []
        for days in range(-3, 3):
            day = today + timedelta(days=days)
            wall = datetime(day.year, day.month, day.day, self.hour, self.minute, tzinfo=zone)
            found.append(max(wall.replace(fold=fold).timestamp() for fold in (0, 1)))
        after = next(number for number, moment in enumerate(found) if moment > now)
        return found[after - 2], found[after - 1], found[after]


@dataclass(frozen=True)
class Canary:
    """A DAG that shows that tasks really run.

    :param every: seconds between two runs.
    :param legs: task ids.
    """

    every: float
    legs: tuple[str, ...]

    def late_after(self, limit: float) -> float:
        """Seconds without a success after which a leg is late.

        :param limit: for canaries whose interval is not too long for it; 0: by the interval of each.
        """
        return max(limit, SHORTEST_LATE * self.every) if limit else LATE_INTERVALS * self.every


@dataclass(frozen=True)
class Needs:
    """What the tags of a DAG say.

    :param by: the times of the day by which its runs are needed.
    :param start_within: seconds between the moment a run is due and its start.
    :param wait_at_most: seconds for which its task instances may wait for a slot.
    :param wrong: tags that are meant to say it, and cannot be read.
    :param canary: it is one.
    """

    by: tuple[NeedBy, ...] = ()
    start_within: float | None = None
    wait_at_most: float | None = None
    wrong: tuple[str, ...] = ()
    canary: Canary | None = None


def read_needs(tags: Iterable[str]) -> Needs:
    """Read the tags of a DAG; those that say nothing about needs are ignored.

    >>> needs = read_needs(["etl", "need_by=07:00 America/New_York", "wait_at_most=20m"])
    >>> needs.by, needs.wait_at_most
    ((NeedBy(hour=7, minute=0, zone='America/New_York'),), 1200.0)
    >>> read_needs(["need_by=7 o'clock"]).wrong
    ("need_by=7 o'clock",)
    """
    by: list[NeedBy] = []
    lengths: dict[str, float] = {}
    wrong: list[str] = []
    legs: list[str] = []
    for tag in sorted(tags):
        name, equals, text = tag.partition("=")
        if not equals or name not in (NEED_BY, START_WITHIN, WAIT_AT_MOST, CANARY_EVERY, CANARY_LEG):
            continue
        try:
            if name == NEED_BY:
                by.append(read_need_by(text))
            elif name == CANARY_LEG:
                legs.append(text)
            else:
                lengths[name] = min(lengths.get(name, float("inf")), read_length(text))
        except ValueError:
            wrong.append(tag)
    every = lengths.get(CANARY_EVERY)
    if (every is None) != (not legs):  # one without the other says nothing
        wrong += [f"{CANARY_LEG}={leg}" for leg in legs] or [f"{CANARY_EVERY}={write_length(every or 0.0)}"]
    return Needs(
        tuple(by),
        lengths.get(START_WITHIN),
        lengths.get(WAIT_AT_MOST),
        tuple(wrong),
        Canary(every, tuple(legs)) if every is not None and legs else None,
    )


def read_need_by(text: str) -> NeedBy:
    """Read ``07:00 America/New_York``.

    :raises ValueError: it is no time of the day, or there is no such zone.
    """
    clock, _, zone = text.partition(" ")
    found = _CLOCK.fullmatch(clock)
    if found is None:
        raise ValueError(f"{clock!r} is no time of the day; write one such as 07:00")
    _zone(zone)
    return NeedBy(int(found[1]), int(found[2]), zone)


def read_length(text: str) -> float:
    """Read a duration such as ``90s``, ``10m``, ``2h`` or ``1d``, in seconds.

    :raises ValueError: it is none, or it is 0.
    """
    found = _LENGTH.fullmatch(text)
    if found is None or int(found[1]) == 0:
        raise ValueError(f"{text!r} is no duration; write one such as 90s, 10m, 2h or 1d")
    return float(int(found[1]) * _UNITS[found[2]])


def write_length(seconds: float) -> str:
    """A duration in the largest unit that gives a whole number; `read_length` reverses it.

    >>> write_length(600), write_length(5400), write_length(86_400)
    ('10m', '90m', '1d')
    """
    whole = int(seconds)
    unit = next(unit for unit in "dhms" if whole % _UNITS[unit] == 0)
    return f"{whole // _UNITS[unit]}{unit}"


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo | timezone:
    """The zone of a name.

    :raises ValueError: there is none.
    """
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError; a path; a folder of the database
        raise ValueError(f"there is no time zone {name!r}; write one such as America/New_York") from None
