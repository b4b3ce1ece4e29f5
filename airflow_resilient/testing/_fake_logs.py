"""CloudWatch Logs: moto's own, with a short way to write lines."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from airflow_resilient.testing._fake_moto import ask_moto
from airflow_resilient.testing._fake_wire import AwsError

if TYPE_CHECKING:
    from collections.abc import Iterable


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
