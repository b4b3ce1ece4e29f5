"""Write what each runbook shows first: the alert as it arrives, and the finding as ``check`` prints it.

Both are made by the code, from situations of ``tests/unit/operations/test_health.py``.

``python docs/runbook_examples.py`` writes this part of the pages; ``tests/docs/test_runbooks.py`` fails where
a page shows something else.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_resilient.operations.alerts import ALERTS, GONE, STALE, UNKNOWN, WATCHDOG, Alert, alert_name
from airflow_resilient.operations.check import format_findings
from airflow_resilient.operations.health import Finding, Kind, Severity, diagnose, memory_lost
from airflow_resilient.operations.limits import Limits

if TYPE_CHECKING:
    from airflow_resilient.operations.snapshot import Snapshot

FOLDER = Path(__file__).parent / "runbooks"
SITUATIONS = Path(__file__).parents[1] / "tests" / "unit" / "operations" / "test_health.py"
TITLE = "What you see"
TARGET = {"job": "airflow-resilient", "instance": "127.0.0.1:9112"}
"""Labels that Prometheus adds, with the example ``prometheus.yml``."""
_LOOK = {"requests": 12, "seconds": 0.4}
_BY_NAME = {alert.name: alert for alert in ALERTS}

# The situation of each kind of finding, by its name in `SITUATIONS`.
_ROWS = {
    Kind.API_SILENT: "one-that-stays-silent-is-a-page",
    Kind.LOGIN_REFUSED: "an-expired-token-is-not-a-silent-airflow",
    Kind.NOT_SHOWN: "what-may-not-be-read-is-unknown",
    Kind.DATABASE_UNHEALTHY: "the-database-is-unhealthy",
    Kind.HEARTBEAT_LOST: "a-lost-scheduler-explains-what-is-overdue-and-what-waits",
    Kind.PEER_LOST: "one-of-two-schedulers-is-gone",
    Kind.NOT_SCHEDULING: "a-scheduler-beats-and-schedules-nothing",
    Kind.RUN_OVERDUE: "one-dag-is-overdue-while-others-are-scheduled",
    Kind.RUN_NOT_STARTED: "a-run-is-queued-and-never-starts",
    Kind.NEVER_RUNS_AGAIN: "a-dag-with-a-schedule-has-no-next-run",
    Kind.NO_TRIGGERER: "deferred-on-a-triggerer-that-is-gone",
    Kind.CANARY_LATE: "a-leg-does-not-succeed",
    Kind.NOT_PARSED: "a-dag-processor-beats-and-reads-nothing",
    Kind.DAGS_VANISHED: "the-folder-of-dag-files-was-emptied",
    Kind.IMPORT_ERROR: "a-file-cannot-be-imported",
    Kind.NEED_UNREADABLE: "a-tag-that-cannot-be-read-is-unknown",
    Kind.REQUEUED: "requeued-again-and-again",
    Kind.VERSION_SKEW: "two-versions-answer-in-turns",
    Kind.CLOCK_SKEW: "a-clock-that-is-behind-makes-no-heartbeat-old",
}


def _situations() -> Any:
    spec = importlib.util.spec_from_file_location("situations_of_runbooks", SITUATIONS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found() -> tuple[dict[Kind, tuple[Snapshot, list[Finding]]], float]:
    """For each kind a look with the findings in it, and the time."""
    all_of = _situations()
    now: float = all_of.NOW
    looks: dict[Kind, tuple[Snapshot, list[Finding]]] = {}

    def add(kind: Kind, snapshot: Snapshot, seen: Any, limits: Limits | None = None) -> None:
        snapshot = replace(snapshot, **_LOOK)
        looks[kind] = snapshot, diagnose(snapshot, seen, limits or Limits(), now)[0]

    rows = {row.id: row.values for row in all_of.ROWS}
    for kind, name in _ROWS.items():
        snapshot, seen, _ = rows[name]
        add(kind, snapshot, seen)
    waiting = all_of.look(pools=(all_of.FULL,), waiting=(all_of.task(), all_of.task("send")))
    add(Kind.WAITING, waiting, all_of.EARLIER)
    deferred = all_of.look(deferred=(all_of.task(state="deferred", triggerer=2),))
    add(Kind.DEFERRED_TOO_LONG, deferred, all_of.EARLIER, Limits(deferred=1800.0))
    failed = replace(all_of.TODAYS, state="failed")
    needed = all_of.look(dags=(all_of.NEEDED,), needed=(failed,))
    add(Kind.NEED_BY_MISSED, needed, replace(all_of.EARLIER, joined={"hourly": now - 86_400}))
    lost = memory_lost(
        "/var/lib/airflow-watch/memory.json cannot be written ([Errno 28] No space left on device)", now
    )
    looks[Kind.MEMORY_LOST] = replace(all_of.WELL, **_LOOK), [lost]
    return looks, now


def arrives(alert: Alert, labels: Mapping[str, str]) -> str:
    """An alert as a notification shows it: name and severity, summary, labels."""
    severity = alert.severity or labels["severity"]
    summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match[1]], alert.summary)
    shown = {"severity": severity, **{name: text for name, text in labels.items() if name != "severity"}}
    return f"{alert.name}\n{summary}\n{', '.join(f'{name}={text}' for name, text in shown.items())}"


def _of_finding(finding: Finding) -> str:
    """The alert of a finding; what is unknown comes as one alert for all kinds."""
    unknown = finding.severity is Severity.UNKNOWN
    alert = _BY_NAME[UNKNOWN if unknown else alert_name(finding.kind)]
    labels = {"kind": finding.kind.value, "subject": finding.subject, "severity": finding.severity.value}
    return arrives(alert, {**labels, **TARGET})


def _block(text: str) -> str:
    return f"```text\n{text}\n```\n"


def examples() -> dict[str, str]:
    """Name of an alert to the part of its page."""
    looks, now = found()
    parts = {
        name: _block(arrives(_BY_NAME[name], labels))
        for name, labels in ((WATCHDOG, {}), (GONE, {}), (STALE, TARGET))
    }
    for kind, (snapshot, findings) in looks.items():
        (finding,) = findings
        printed = "\n".join(format_findings(snapshot, findings, now))
        begins = "" if finding.severity is not Severity.UNKNOWN else "After a quarter of an hour:\n\n"
        parts[alert_name(kind)] = (
            f"{begins}{_block(_of_finding(finding))}\n`airflow-resilient check` prints:\n\n{_block(printed)}"
        )
    return {**parts, UNKNOWN: parts[alert_name(Kind.NOT_SHOWN)]}


def page_of(name: str) -> Path:
    """The page of an alert."""
    return FOLDER / f"{name}.md"


def replaced(page: str, part: str) -> str:
    """A page with this part."""
    before, title, rest = page.partition(f"## {TITLE}\n")
    after = rest.partition("\n## ")[2]
    return f"{before}{title}\n{part}\n## {after}"


def _meaning(alert: Alert) -> str:
    """Its summary, without the name of what it is about."""
    return re.sub(r"[: (]*\{\{.*", "", alert.summary)


def table() -> str:
    """The table of all alerts, for the index."""
    looks, _ = found()
    severities = {alert_name(kind): findings[0].severity for kind, (_, findings) in looks.items()}
    rows = ["| alert | meaning | severity |", "|---|---|---|"]
    for alert in ALERTS:
        own = severities.get(alert.name)
        severity = alert.severity or (own.value if own else "")
        if own is Severity.UNKNOWN:
            severity = f"unknown: comes as {UNKNOWN}"
        rows.append(f"| [{alert.name}]({alert.name}.md) | {_meaning(alert)} | {severity} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    for alert, part in examples().items():
        path = page_of(alert)
        path.write_text(replaced(path.read_text(), part))
    index = FOLDER / "index.md"
    before, _, rest = index.read_text().partition("| alert |")
    index.write_text(f"{before}{table()}\n{rest.partition(chr(10) * 2)[2]}")
