"""``airflow-resilient check``: one look at an Airflow from outside, and what is wrong with it.

For cron, systemd timers, Kubernetes CronJobs, Nagios and people alike. It needs Airflow's REST API and
nothing else: it does not import Airflow, and works while a scheduler does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.beat import WANTED, BeatFailed, beat, is_beat_url
from ..core.text import error_text
from .command import Command, ExitCode
from .examine import examine
from .health import BLIND, Finding, Severity, summary
from .limits import NAMES, InvalidLimits, Limits, load_limits, read_limit
from .options import add_airflow_options, api_of
from .report import moment, span

if TYPE_CHECKING:
    from .snapshot import Snapshot

ANSWER_SECONDS = 20.0
"""For which one response is waited."""
ATTEMPTS = 2
"""How often a request is sent at most: the next look is not far."""
BEAT_VARIABLE = "AIRFLOW_CHECK_BEAT_URL"
_QUIET_SECONDS = 2.0


def exit_code_of(findings: Sequence[Finding]) -> ExitCode:
    """UNKNOWN if something is unknown, else FOUND if something is wrong."""
    if any(each.severity is Severity.UNKNOWN or each.kind in BLIND for each in findings):
        return ExitCode.UNKNOWN
    return ExitCode.FOUND if findings else ExitCode.DONE


def signal_of(findings: Sequence[Finding], limits: Limits, now: float) -> str | None:
    """What is sent to a dead man's switch: what its URL gets appended; ``None``: nothing.

    Well is an Airflow about which nothing is urgent and nothing unknown. What has been unknown for a moment
    only, as while an API server restarts, is not reported yet: the switch has a grace time of its own.
    """
    if all(each.severity is Severity.TICKET for each in findings):
        return ""
    urgent = any(
        each.severity is Severity.PAGE
        or (each.severity is Severity.UNKNOWN and now - (each.since or 0.0) > limits.heartbeat)
        for each in findings
    )
    return "/fail" if urgent else None


def format_findings(snapshot: Snapshot, findings: Sequence[Finding], now: float) -> list[str]:
    """The findings as text; the last line is a summary."""
    lines: list[str] = []
    for each in findings:
        since = "" if each.since is None else f"  since {moment(each.since)} ({span(now - each.since)})"
        lines += [
            f"{each.severity.value.upper():8}{each.kind.value}: {each.subject}{since}",
            f"        {each.evidence}",
            f"        cause: {each.cause}",
            f"        next:  {each.next_step}",
            "",
        ]
    requests = f"{snapshot.requests} request{'' if snapshot.requests == 1 else 's'}"
    return [*lines, f"{summary(snapshot, findings)} ({requests}, {snapshot.seconds:.1f} s)."]


def _limits(text: str) -> Limits:
    try:
        return load_limits(Path(text))
    except InvalidLimits as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _limit(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not equals or name not in NAMES:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a limit; write NAME=VALUE, NAME one of {', '.join(NAMES)}"
        )
    try:
        return name, read_limit(name, value)
    except InvalidLimits as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _beat_url(text: str) -> str:
    if not is_beat_url(text):
        raise argparse.ArgumentTypeError(f"the URL of the switch is none; write {WANTED}")
    return text


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--limits`` and ``--limit``; `limits_of` reads them."""
    parser.add_argument("--limits", type=_limits, default=Limits(), metavar="FILE", help="limits, in TOML")
    parser.add_argument(
        "--limit",
        type=_limit,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"one limit, such as waiting=30m (repeatable); NAME is one of {', '.join(NAMES)}",
    )


def limits_of(options: argparse.Namespace) -> Limits:
    """The limits that the options give."""
    limits: Limits = options.limits
    return replace(limits, **dict(options.limit))


def progress_on() -> Callable[[str], object]:
    """Says on a terminal what is read next, when that takes long."""
    began = time.monotonic()

    def progress(part: str) -> None:
        if sys.stderr.isatty() and time.monotonic() - began > _QUIET_SECONDS:
            sys.stderr.write(f"reading {part} …\n")

    return progress


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--memory",
        type=Path,
        metavar="FILE",
        help="what earlier looks saw; it is made, and replaced. Without it, only Airflow's own times count, "
        "which it sets again whenever it puts a task instance back",
    )
    add_limit_options(parser)
    parser.add_argument(
        "--beat",
        type=_beat_url,
        metavar="URL",
        help="a dead man's switch, such as https://hc-ping.com/UUID: gets the findings, at URL/fail if one "
        "is urgent; nothing while something is unknown for a short time only (default: "
        f"${BEAT_VARIABLE}, which other users of this machine cannot see)",
    )
    add_airflow_options(parser)


def _run(options: argparse.Namespace) -> tuple[str, ExitCode]:
    limits = limits_of(options)

    def warn(text: str) -> None:
        sys.stderr.write(f"airflow-resilient: {text}\n")

    with contextlib.closing(api_of(options, timeout=ANSWER_SECONDS, attempts=ATTEMPTS)) as api:
        examined = examine(api, limits, options.memory, progress=progress_on())
    snapshot, findings = examined.snapshot, examined.findings
    code = exit_code_of(findings)
    lines = "\n".join(format_findings(snapshot, findings, time.time()))
    signal = signal_of(findings, limits, time.time())
    url = options.beat or os.environ.get(BEAT_VARIABLE)
    if url and signal is not None:
        try:
            beat(_beat_url(url), signal, lines)
        except argparse.ArgumentTypeError as error:
            warn(f"{BEAT_VARIABLE}: {error}")
            code = ExitCode.UNKNOWN
        except BeatFailed as error:
            warn(error_text(error))
            code = ExitCode.UNKNOWN
    if not options.json:
        return lines, code
    found: dict[str, Any] = {
        "url": snapshot.url,
        "version": snapshot.version or None,
        "taken": snapshot.taken,
        "seconds": round(snapshot.seconds, 3),
        "requests": snapshot.requests,
        "findings": [each.row() for each in findings],
        "exit_code": int(code),
    }
    return json.dumps(found, indent=2), code


COMMAND = Command(
    name="check",
    summary="look at an Airflow from outside, and say what is wrong, since when, why, and what to do next",
    description="Look at an Airflow over its REST API: whether it schedules, what is overdue, what waits and "
    "why, what DAGs need, whether their files are read. It changes nothing.",
    exit_codes="0 all is well, 1 something is wrong, 2 something could not be determined",
    add_options=_add_options,
    run=_run,
)
