"""Reading logs with a position that survives restarts: CloudWatch's streams, and logs that know times only.

The position in a stream has two halves: CloudWatch's own token, which says exactly where to go on but expires
after 24 hours, and the time of the last event with the number of events read at that time, which always says
it well enough. `take` and `rewind` are pure; `read_stream` carries them out. `take_since` is the same for a
log that can be asked only for what is not older than a time, as Docker's.

Source: GetLogEvents reference ("The token expires after 24 hours").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from .aws import error_code

MOST_PAGES = 10
"""How many pages (1 MB or 10,000 events each, at most) one call of `read_stream` reads."""

Line: TypeAlias = tuple[float, str]
"""When, in seconds since 1970, and what."""


@dataclass(frozen=True)
class Cursor:
    """How far a stream has been read.

    :param token: CloudWatch's ``nextForwardToken``; it belongs to the query that begins at `start`.
    :param start: ``startTime`` of the query, in milliseconds since 1970.
    :param time: when the latest event was written that has been read, in milliseconds since 1970.
    :param seen: how many events of exactly that `time` have been read.
    :param skip: how many events of the time `start` are still to be passed over.
    """

    token: str | None = None
    start: int = 0
    time: int = 0
    seen: int = 0
    skip: int = 0


def take(cursor: Cursor, events: Sequence[Mapping[str, Any]], token: str) -> tuple[Cursor, list[Line]]:
    """Take in one page.

    :param events: ``[{"timestamp": milliseconds, "message": str}, ...]``, oldest first.
    :param token: the page's ``nextForwardToken``.
    :return: the new position, and the lines that had not been read before.
    """
    lines: list[Line] = []
    time, seen, skip = cursor.time, cursor.seen, cursor.skip
    for event in events:
        stamp = int(event["timestamp"])
        if skip and stamp <= cursor.start:
            skip -= 1
            continue
        skip = 0
        if stamp >= time:
            seen = seen + 1 if stamp == time else 1
            time = stamp
        lines.append((stamp / 1000, str(event["message"])))
    return replace(cursor, token=token, time=time, seen=seen, skip=skip), lines


def rewind(cursor: Cursor) -> Cursor:
    """Do without the token: a query that begins at the last event's time and passes over what was read."""
    return Cursor(start=cursor.time, time=cursor.time, seen=cursor.seen, skip=cursor.seen)


def read_stream(
    client: Any, group: str, stream: str, position: Mapping[str, Any] | None
) -> tuple[list[Line], dict[str, Any]]:
    """Read what is new in a log stream.

    :param client: boto3's ``logs`` client.
    :param position: what the previous call returned; ``None``: from the beginning.
    :return: new lines, oldest first, and the position after them (JSON values). A stream that does not exist,
        or not yet, has no lines.
    :raises botocore.exceptions.ClientError: throttled, denied ...; nothing was read, and the old position is
        still right.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    cursor = Cursor(**position) if position else Cursor()
    lines: list[Line] = []
    for _ in range(MOST_PAGES):
        where = {"nextToken": cursor.token} if cursor.token else {}
        try:
            page = client.get_log_events(
                logGroupName=group, logStreamName=stream, startFromHead=True, startTime=cursor.start, **where
            )
        except (ClientError, BotoCoreError) as error:
            if lines:  # hand over what there is; trouble that lasts will be met by the next call
                break
            if error_code(error) == "ResourceNotFoundException":
                break
            if error_code(error) == "InvalidParameterException" and cursor.token:
                cursor = rewind(cursor)  # the token has expired
                continue
            raise
        before = cursor.token
        cursor, fresh = take(cursor, page["events"], page["nextForwardToken"])
        lines += fresh
        # Source: GetLogEvents reference: the same token comes back at the end; an empty page means nothing.
        if cursor.token == before:
            break
    return lines, asdict(cursor)


def last_lines(client: Any, group: str, stream: str, count: int) -> tuple[str, ...]:
    """The last `count` lines of a log stream, with one call; none where it does not exist."""
    from botocore.exceptions import ClientError

    try:
        page = client.get_log_events(
            logGroupName=group, logStreamName=stream, startFromHead=False, limit=count
        )
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            return ()
        raise
    return tuple(str(event["message"]) for event in page["events"])


# --- logs that are asked for by time ----------------------------------------------------------------

BEHIND = 1_000_000_000
"""Nanoseconds by which a line may come after a later one: Docker copies standard output and standard error
side by side into one log."""


@dataclass(frozen=True)
class TimeCursor:
    """How far a log has been read. Times are nanoseconds since 1970.

    :param since: where the next question begins.
    :param count: how many lines of its answer have been read.
    :param last: when the latest line was written that has been read.
    """

    since: int = 0
    count: int = 0
    last: int = 0


def take_since(cursor: TimeCursor, entries: Sequence[tuple[int, str]]) -> tuple[TimeCursor, list[Line]]:
    """Take in what a log says of the time since ``cursor.since``.

    :param entries: ``(nanoseconds since 1970, line)`` in the log's order, which is not quite that of time;
        the end may be missing.
    :return: the new position, and the lines that had not been read before.

    The same question is answered with the same lines and new ones behind them, so what has been read is
    counted and not recognised. A log that was rotated meanwhile has lost lines at the beginning; then time
    tells what is new.
    """
    if len(entries) < cursor.count:
        fresh = [entry for entry in entries if entry[0] > cursor.last]
    else:
        fresh = list(entries[cursor.count :])
    last = max([cursor.last, *(stamp for stamp, _ in entries)])
    since = max(cursor.since, last - BEHIND)
    count = sum(stamp >= since for stamp, _ in entries)
    return TimeCursor(since, count, last), [(stamp / 10**9, text) for stamp, text in fresh]


def stream_name(prefix: str, container: str, task_id: str) -> str:
    """Name of the stream that ECS's ``awslogs`` driver writes; a prefix may contain the container already.

    Source: ECS developer guide, ``awslogs-stream-prefix``: ``prefix-name/container-name/ecs-task-id``.

    >>> stream_name("ecs", "main", "0123"), stream_name("ecs/main", "main", "0123")
    ('ecs/main/0123', 'ecs/main/0123')
    """
    if prefix.endswith(f"/{container}"):
        return f"{prefix}/{task_id}"
    return f"{prefix}/{container}/{task_id}"
