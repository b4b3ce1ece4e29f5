"""Read a CloudWatch log stream from a position that survives restarts, and search a log group.

The position has two parts: CloudWatch's own token, which is exact but expires after 24 hours, and the time of
the last event with the number of events read at that time, which never expires. `take` and `rewind` are pure;
`read_stream` makes the calls.

Source: GetLogEvents reference ("The token expires after 24 hours").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import error_code

if TYPE_CHECKING:
    from ..core.service import LogLine


MAX_PAGES_PER_READ = 10
"""How many pages (of at most 1 MB or 10,000 events) one call of `read_stream` reads."""

_MAX_MS = 10**13  # in the year 2286


@dataclass(frozen=True)
class Cursor:
    """How far a stream has been read.

    :param token: CloudWatch's ``nextForwardToken``; it belongs to the query that begins at `start`.
    :param start: ``startTime`` of the query, in milliseconds since 1970.
    :param time: time of the latest event that has been read, in milliseconds since 1970.
    :param seen: how many events of exactly that `time` have been read.
    :param skip: how many events of the time `start` are still to be skipped.
    """

    token: str | None = None
    start: int = 0
    time: int = 0
    seen: int = 0
    skip: int = 0

    @classmethod
    def read(cls, stored: Any) -> Cursor:
        """The stored position; the beginning if there is none, or if it is none that this class has made.

        >>> Cursor.read({"token": "f/1", "start": 0, "time": 5, "seen": 1, "skip": 0})
        Cursor(token='f/1', start=0, time=5, seen=1, skip=0)
        >>> Cursor.read({"token": "f/1", "time": "5"}) == Cursor.read([7]) == Cursor()
        True
        """
        names = ("start", "time", "seen", "skip")
        if not isinstance(stored, Mapping) or not isinstance(stored.get("token"), str | None):
            return cls()
        values: dict[str, Any] = {name: stored.get(name) for name in names}
        if not all(type(value) is int and 0 <= value < _MAX_MS for value in values.values()):
            return cls()
        return cls(token=stored.get("token") or None, **values)


def take(cursor: Cursor, events: Sequence[Mapping[str, Any]], token: str) -> tuple[Cursor, list[LogLine]]:
    """Apply one page.

    :param events: ``[{"timestamp": milliseconds, "message": str}, ...]``, oldest first.
    :param token: the page's ``nextForwardToken``.
    :return: the new position, and the lines that are new.
    """
    lines: list[LogLine] = []
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
    """Continue without the token: a query from the last event's time that skips the events already read."""
    return Cursor(start=cursor.time, time=cursor.time, seen=cursor.seen, skip=cursor.seen)


def read_stream(client: Any, group: str, stream: str, position: Any) -> tuple[list[LogLine], dict[str, Any]]:
    """Read the new lines of a log stream.

    :param client: boto3's ``logs`` client.
    :param position: the position that the previous call returned; anything else: from the beginning.
    :return: new lines, oldest first, and the position after them (JSON values). A stream that does not exist
        (yet) has no lines.
    :raises botocore.exceptions.ClientError: throttled, denied ...; nothing was read, and the old position
        stays valid.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    cursor = Cursor.read(position)
    lines: list[LogLine] = []
    for _ in range(MAX_PAGES_PER_READ):
        where = {"nextToken": cursor.token} if cursor.token else {}
        try:
            page = client.get_log_events(
                logGroupName=group, logStreamName=stream, startFromHead=True, startTime=cursor.start, **where
            )
        except (ClientError, BotoCoreError) as error:
            if lines:  # return the lines so far; the next call raises an error that lasts
                break
            if error_code(error) == "ResourceNotFoundException":
                break
            if error_code(error) == "InvalidParameterException" and cursor.token:
                cursor = rewind(cursor)  # the token has expired
                continue
            raise
        before = cursor.token
        cursor, new = take(cursor, page["events"], page["nextForwardToken"])
        lines += new
        # Source: GetLogEvents reference: the same token comes back at the end; an empty page is not the end.
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


MAX_PAGES_PER_SEARCH = 50
"""How many pages one search of a log group reads, empty ones included."""

_MAX_PATTERN = 1024  # Source: FilterLogEvents reference, ``filterPattern``


def patterns(fields: Sequence[str], values: Sequence[str]) -> Iterator[str]:
    """Filter patterns for JSON lines of which one of the fields has one of the values.

    Several where one pattern would be too long.

    :param fields: selectors, such as ``$.detail.taskArn``.
    :param values: texts of letters, digits and ``-_/:.``; an asterisk stands for any text.

    Source: CloudWatch Logs user guide, "Using filter patterns to match terms in JSON log events": comparisons
    in parentheses with ``||``; texts with other characters than letters and digits in double quotes.

    >>> list(patterns(["$.a.b"], ["x-1", "x-2"]))
    ['{ ($.a.b = "x-1") || ($.a.b = "x-2") }']
    """
    taken: list[str] = []
    for value in values:
        if taken and len(_pattern(fields, [*taken, value])) > _MAX_PATTERN:
            yield _pattern(fields, taken)
            taken = []
        taken.append(value)
    if taken:
        yield _pattern(fields, taken)


def _pattern(fields: Sequence[str], values: Sequence[str]) -> str:
    terms = (f'({field} = "{value}")' for value in values for field in fields)
    return f"{{ {' || '.join(terms)} }}"


def find_lines(client: Any, group: str, pattern: str, since: float) -> tuple[list[str], bool]:
    """Search all streams of a log group.

    :param client: boto3's ``logs`` client.
    :param since: lines of before, in seconds since 1970, are left out.
    :return: the lines that match, oldest first, and whether the group was read to its end.
    :raises botocore.exceptions.ClientError: throttled, denied, no such group ...; what was found is lost.

    Source: FilterLogEvents reference: an empty page with a ``nextToken`` is not the end; ``startTime`` "to
    reduce the chances of empty pages".
    """
    lines: list[str] = []
    more: dict[str, str] = {}
    for _ in range(MAX_PAGES_PER_SEARCH):
        page = client.filter_log_events(
            logGroupName=group, filterPattern=pattern, startTime=max(0, int(since * 1000)), **more
        )
        lines += [str(event.get("message") or "") for event in page.get("events") or ()]
        if not page.get("nextToken"):
            return lines, True
        more = {"nextToken": page["nextToken"]}
    return lines, False
