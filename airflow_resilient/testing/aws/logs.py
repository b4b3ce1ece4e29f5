"""CloudWatch Logs: moto's own, with a short way to write lines, and with FilterLogEvents for JSON lines."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_resilient.testing.aws.moto_bridge import ask_moto
from airflow_resilient.testing.aws.wire import AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def put_log_lines(
    region: str, group: str, stream: str, lines: Iterable[str | tuple[float, str]], now: float
) -> None:
    """Append lines to a log stream, which is made if it is missing.

    :param lines: text, or (seconds since the epoch, text).
    :raises ValueError: for times that CloudWatch Logs refuses: older than 14 days or, by the real clock, more
        than two hours ahead.

    Source: PutLogEvents reference.
    """
    for action, params in [
        ("CreateLogGroup", {"logGroupName": group}),
        ("CreateLogStream", {"logGroupName": group, "logStreamName": stream}),
    ]:
        with contextlib.suppress(AwsError):  # it is there already
            ask_moto("logs", region, action, params)
    timed = [(now, line) if isinstance(line, str) else line for line in lines]
    if not timed:
        return
    events = [{"timestamp": int(time * 1000), "message": text} for time, text in timed]
    answer = ask_moto(
        "logs",
        region,
        "PutLogEvents",
        {"logGroupName": group, "logStreamName": stream, "logEvents": events},
    )
    refused = answer.get("rejectedLogEventsInfo")
    if refused:
        raise ValueError(f"CloudWatch Logs refuses the times of some lines: {refused}")


_MAX_PATTERN = 1024
_TERM = re.compile(r'\(?\s*\$\.([\w.]+)\s*=\s*"([^"]*)"\s*\)?')


class FakeLogs:
    """FilterLogEvents as AWS answers it, where moto differs: JSON patterns, and pages with few lines or none.

    :ivar lines_per_page: how many lines one call looks through, whether they match or not.

    Source: FilterLogEvents reference; CloudWatch Logs user guide, "Filter pattern syntax". Verified:
    ``test_json_patterns_match_every_line``.
    """

    def __init__(self) -> None:
        self.lines_per_page = 10_000
        self.actions: Mapping[str, Callable[[str, Mapping[str, Any]], dict[str, Any]]] = {
            "FilterLogEvents": self._filter
        }

    def _filter(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        matches = _matcher(str(params.get("filterPattern") or ""))
        where = {name: params[name] for name in ("logGroupName", "startTime", "endTime") if name in params}
        found = ask_moto("logs", region, "FilterLogEvents", {**where, "limit": 10_000})["events"]
        lines = sorted(found, key=lambda line: int(line["timestamp"]))
        first = int(str(params.get("nextToken") or "0"))
        after = first + self.lines_per_page
        page: dict[str, Any] = {
            "events": [line for line in lines[first:after] if matches(str(line["message"]))],
            "searchedLogStreams": [],
        }
        if after < len(lines):
            page["nextToken"] = str(after)
        return page


def _matcher(pattern: str) -> Callable[[str], bool]:
    """What a filter pattern matches: nothing but JSON patterns of ``=`` and ``||`` is understood.

    :raises AwsError: for a pattern that is too long, or that this fake does not understand.
    """
    if len(pattern) > _MAX_PATTERN:
        raise AwsError("InvalidParameterException", f"filterPattern has more than {_MAX_PATTERN} characters")
    if not pattern:
        return lambda _: True
    terms = [_TERM.fullmatch(term.strip()) for term in pattern.strip("{} ").split("||")]
    if not (pattern.startswith("{") and pattern.endswith("}") and all(terms)):
        raise AwsError("InvalidParameterException", f"Invalid filter pattern: {pattern}")
    wanted = [(term[1].split("."), term[2]) for term in terms if term]

    def matches(message: str) -> bool:
        try:
            line = json.loads(message)
        except ValueError:
            return False
        return any(_is_like(_at(line, path), text) for path, text in wanted)

    return matches


def _at(line: Any, path: Iterable[str]) -> Any:
    for name in path:
        line = line.get(name) if isinstance(line, Mapping) else None
    return line


def _is_like(value: Any, text: str) -> bool:
    """Whether a text equals another one, in which asterisks stand for any text."""
    parts = ".*".join(re.escape(part) for part in text.split("*"))
    return isinstance(value, str) and re.fullmatch(parts, value, re.DOTALL) is not None
