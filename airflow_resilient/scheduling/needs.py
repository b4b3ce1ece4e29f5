"""Say in the DAG file what a DAG needs, so that the watch from outside can tell when it is missed.

Each function gives a tag, which Airflow stores with the DAG and shows in its UI and its REST API::

    with DAG(
        dag_id="positions",
        schedule="0 5 * * 1-5",
        tags=["desk", need_by("07:00", "America/New_York"), wait_at_most("20m")],
    ):
        ...

``airflow-resilient check`` reads the tags. So a run that was never created, and a task that waits, are found
without any configuration outside of the DAG file.
"""

from __future__ import annotations

from datetime import timedelta

from ..core.needs import (
    LONGEST_TAG,
    NEED_BY,
    START_WITHIN,
    WAIT_AT_MOST,
    NeedBy,
    read_length,
    read_need_by,
    write_length,
)
from ..errors import InvalidParameter

__all__ = ["need_by", "start_within", "wait_at_most"]


def need_by(time: str, timezone: str = "UTC") -> str:
    """The runs that are due before this time of the day must have succeeded by then, every day.

    On a day without a run that is due, such as a holiday of the timetable, nothing is missed.

    :param time: of the local clock, ``HH:MM``. Where clocks are set back and show it twice, the second time
        counts; where they are set forward over it, the moment by which it would have come.
    :param timezone: name in the IANA database, such as ``America/New_York``.
    :return: a tag for ``DAG(tags=[...])``.
    :raises InvalidParameter: it is no time of the day, or there is no such time zone.

    >>> need_by("07:00", "America/New_York")
    'need_by=07:00 America/New_York'
    """
    try:
        found: NeedBy = read_need_by(f"{time} {timezone}")
    except ValueError as error:
        raise InvalidParameter(f"need_by({time!r}, {timezone!r}): {error}") from None
    return _tag(NEED_BY, str(found))


def start_within(length: timedelta | str) -> str:
    """A run must start this long after it is due, at the latest.

    :param length: a timedelta of whole seconds, or a text such as ``"90s"``, ``"10m"`` or ``"2h"``.
    :return: a tag for ``DAG(tags=[...])``.
    :raises InvalidParameter: it is no duration.

    >>> start_within(timedelta(minutes=5))
    'start_within=5m'
    """
    return _tag(START_WITHIN, length_of("start_within", length))


def wait_at_most(length: timedelta | str) -> str:
    """A task instance must not wait longer than this for a slot: *scheduled* or *queued*, before it runs.

    :param length: a timedelta of whole seconds, or a text such as ``"90s"``, ``"10m"`` or ``"2h"``.
    :return: a tag for ``DAG(tags=[...])``.
    :raises InvalidParameter: it is no duration.

    >>> wait_at_most("20m")
    'wait_at_most=20m'
    """
    return _tag(WAIT_AT_MOST, length_of("wait_at_most", length))


def length_of(name: str, length: timedelta | str) -> str:
    """A duration as it stands in a tag.

    :param name: whose it is, for messages.
    :raises InvalidParameter: it is none.
    """
    wanted = 'a timedelta of whole seconds, or a text such as "90s", "10m" or "2h"'
    if isinstance(length, timedelta):
        seconds = length.total_seconds()
        if seconds < 1 or seconds != int(seconds):
            raise InvalidParameter(f"{name}({length!r}) is not valid; write {wanted}")
        return write_length(seconds)
    try:
        return write_length(read_length(length))
    except (TypeError, ValueError):
        raise InvalidParameter(f"{name}({length!r}) is not valid; write {wanted}") from None


def _tag(name: str, text: str) -> str:
    tag = f"{name}={text}"
    if len(tag) > LONGEST_TAG:  # no zone of the database is that long
        raise InvalidParameter(f"the tag {tag!r} has more than {LONGEST_TAG} characters")
    return tag
