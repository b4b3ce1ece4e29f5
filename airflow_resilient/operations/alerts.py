"""The alerts of Prometheus on what `airflow-resilient export` serves, and the files that are made of them.

A finding is an alert. Which finding hides which others, and for how long something must last, is decided in
`health`, once; the rules add what an exporter cannot say of itself: that it is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from .exported_metrics import METRICS, PREFIX
from .health import Kind, Severity

FINDING = f"{PREFIX}finding_since_timestamp_seconds"
RUNBOOKS = "https://example.com/runbooks/"
"""Where the runbooks are, unless it is given."""


@dataclass(frozen=True)
class Alert:
    """One alert.

    :param expression: in PromQL; it fires for each series.
    :param lasts: how long it must, before it fires; as Prometheus writes it.
    :param severity: empty: that of the finding.
    :param keeps: how long it goes on after its series has ended: a scrape or a look that failed is no end.
    :param summary: what has happened, in a sentence; a template of Prometheus.
    """

    name: str
    expression: str
    summary: str
    lasts: str = "0s"
    severity: str = ""
    keeps: str = ""


SUMMARIES: Mapping[Kind, str] = {
    Kind.API_SILENT: "Airflow's API server does not answer",
    Kind.LOGIN_REFUSED: "Airflow refuses the login of the watch",
    Kind.NOT_SHOWN: "a part of Airflow cannot be read",
    Kind.DATABASE_UNHEALTHY: "Airflow's metadata database is unhealthy",
    Kind.HEARTBEAT_LOST: "no such process of Airflow is alive",
    Kind.PEER_LOST: "a process of Airflow is gone, and its peers go on",
    Kind.NOT_SCHEDULING: "a scheduler is alive and schedules nothing",
    Kind.RUN_OVERDUE: "a run is due and was not created",
    Kind.RUN_NOT_STARTED: "a run is queued and does not start",
    Kind.NEVER_RUNS_AGAIN: "a DAG with a schedule has no next run",
    Kind.WAITING: "task instances have waited too long",
    Kind.DEFERRED_TOO_LONG: "task instances are deferred for too long",
    Kind.NO_TRIGGERER: "no living triggerer has taken what is deferred",
    Kind.CANARY_LATE: "a leg of a canary does not succeed",
    Kind.NOT_PARSED: "no DAG file is read",
    Kind.DAGS_VANISHED: "DAGs have vanished",
    Kind.IMPORT_ERROR: "a DAG file cannot be imported",
    Kind.NEED_BY_MISSED: "a DAG has missed the time by which it is needed",
    Kind.NEED_UNREADABLE: "what a DAG needs cannot be read",
    Kind.REQUEUED: "a task instance is put back from queued again and again",
    Kind.VERSION_SKEW: "API servers of different versions answer",
    Kind.CLOCK_SKEW: "the clocks of Airflow and of the watch differ",
    Kind.MEMORY_LOST: "the memory of the watch cannot be used",
}
"""What each kind of finding means, for the one line of a page."""


_KEEPS = "5m"
"""Source: ``keep_firing_for`` of Prometheus, 2.42 and later."""


def alert_name(kind: Kind) -> str:
    """The name of the alert for a kind of finding.

    >>> alert_name(Kind.NOT_SCHEDULING)
    'AirflowNotScheduling'
    """
    return "Airflow" + "".join(word.capitalize() for word in kind.value.split("-"))


def _of_kind(kind: Kind) -> Alert:
    urgent = f"{Severity.PAGE.value}|{Severity.TICKET.value}"
    expression = f'{FINDING}{{kind="{kind.value}",severity=~"{urgent}"}}'
    summary = f"{SUMMARIES[kind]}: {{{{ $labels.subject }}}}"
    return Alert(alert_name(kind), expression, summary, keeps=_KEEPS)


_UP, _LOOKED = f"{PREFIX}up", f"{PREFIX}look_timestamp_seconds"
WATCHDOG, GONE, STALE, UNKNOWN = (
    "AirflowWatchdog",
    "AirflowWatchGone",
    "AirflowWatchStale",
    "AirflowUnknown",
)

ALERTS = (
    Alert(WATCHDOG, "vector(1)", "it always fires: where it is missing, no alert arrives", "0s", "none"),
    Alert(
        GONE,
        f"absent({_UP}) or (max_over_time({_UP}[1h]) unless {_UP})",  # the last of all, or one of several
        "airflow-resilient export is not scraped",
        "5m",
        Severity.PAGE.value,
    ),
    Alert(
        STALE,
        f"time() - {_LOOKED} > 300 or ({_UP} == 0 unless {_LOOKED})",
        "no look at Airflow has succeeded for ten minutes",
        "5m",
        Severity.PAGE.value,
    ),
    Alert(
        UNKNOWN,
        f'{FINDING}{{severity="{Severity.UNKNOWN.value}"}}',
        "a part of the watch is blind ({{ $labels.kind }}): {{ $labels.subject }}",
        "15m",
        Severity.TICKET.value,
        _KEEPS,
    ),
    *map(_of_kind, Kind),
)
"""Every alert."""


def rules(runbooks: str = RUNBOOKS) -> str:
    """The file of rules for Prometheus.

    :param runbooks: what begins the URL of each runbook; the name of the alert follows.
    """
    lines = [
        "# Made by: airflow-resilient export --print airflow-resilient.rules.yml",
        "groups:",
        "  - name: airflow-resilient",
        "    rules:",
    ]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expression)}",
            f"        for: {alert.lasts}",
        ]
        if alert.keeps:
            lines.append(f"        keep_firing_for: {alert.keeps}")
        if alert.severity:
            lines += ["        labels:", f"          severity: {alert.severity}"]
        lines += [
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          runbook_url: {json.dumps(runbooks + alert.name)}",
        ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Panel:
    """A panel of the dashboard.

    :param queries: in PromQL, with the legend of each.
    :param kind: type of the panel, in Grafana's words.
    :param unit: in Grafana's words.
    """

    title: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    unit: str = "s"
    width: int = 12


def _metric(name: str, **labels: str) -> str:
    """A metric of the Airflow that is chosen on the dashboard."""
    known = {metric.name: metric.full_name for metric in METRICS}
    own = "".join(f',{label}="{value}"' for label, value in labels.items())
    return f'{known[name]}{{job=~"$job",instance=~"$instance"{own}}}'


def _age(name: str) -> str:
    return f"time() - {_metric(name)}"


PANELS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Is Airflow well?",
        (
            Panel("Answers", ((_metric("up"), ""),), "stat", "bool_yes_no", 6),
            Panel("Latest look", ((_age("look_timestamp_seconds"), ""),), "stat", "s", 6),
            Panel("Findings", ((f"sum({_metric('findings')})", ""),), "stat", "short", 6),
            Panel(
                "Oldest wait",
                ((f"time() - min({_metric('task_waiting_since_timestamp_seconds')})", ""),),
                "stat",
                "s",
                6,
            ),
            Panel(
                "What is wrong, and for how long",
                ((f"time() - {_metric('finding_since_timestamp_seconds')}", "{{kind}}: {{subject}}"),),
                "bargauge",
                "s",
                24,
            ),
        ),
    ),
    (
        "Is it scheduling?",
        (
            Panel(
                "Age of the latest heartbeat",
                ((_age("heartbeat_timestamp_seconds"), "{{component}} {{hostname}}"),),
            ),
            Panel(
                "Age of the latest run, and of the earliest one that is due and does not exist",
                (
                    (_age("run_created_timestamp_seconds"), "latest run"),
                    (_age("run_due_timestamp_seconds"), "overdue"),
                ),
            ),
            Panel("DAGs that are overdue", ((_metric("dags_overdue"), "DAGs"),), unit="short"),
            Panel(
                "DAG files",
                (
                    (_age("dag_parse_timestamp_seconds"), "age of the latest parse"),
                    (_metric("import_errors"), "import errors"),
                ),
            ),
        ),
    ),
    (
        "What is the delay?",
        (
            Panel(
                "From due to start, by DAG",
                ((f"topk(10, {_metric('dag_schedule_delay_seconds')})", "{{dag_id}}"),),
            ),
            Panel(
                "From queued to start, by task",
                ((f"topk(10, {_metric('task_queue_delay_seconds')})", "{{dag_id}}.{{task_id}}"),),
            ),
        ),
    ),
    (
        "What is slowest?",
        (
            Panel(
                "Duration of the latest run, by DAG",
                ((f"topk(10, {_metric('dag_run_duration_seconds')})", "{{dag_id}}"),),
            ),
            Panel(
                "Duration of the latest try, by task",
                ((f"topk(10, {_metric('task_duration_seconds')})", "{{dag_id}}.{{task_id}}"),),
            ),
        ),
    ),
    (
        "Is anything stuck?",
        (
            Panel("Task instances", ((_metric("task_instances"), "{{state}}"),), unit="short"),
            Panel(
                "Waited too long, by cause",
                ((_metric("tasks_waiting_over_limit"), "{{cause}}"),),
                unit="short",
            ),
            Panel(
                "Oldest wait, by pool",
                (
                    (
                        f"time() - min by (state, pool) ({_metric('task_waiting_since_timestamp_seconds')})",
                        "{{state}} in {{pool}}",
                    ),
                ),
            ),
            Panel(
                "Open slots of pools",
                ((f"bottomk(10, {_metric('pool_slots', state='open')})", "{{pool}}"),),
                unit="short",
            ),
            Panel(
                "Put back from queued, an hour",
                ((f"increase({_metric('requeues_total')}[1h])", "times"),),
                unit="short",
            ),
            Panel("Longest deferral", ((_age("deferred_since_timestamp_seconds"), "deferred"),)),
            Panel(
                "Last success of each leg of the canaries",
                ((_age("canary_success_timestamp_seconds"), "{{dag_id}}: {{leg}}"),),
            ),
        ),
    ),
)
"""Rows of the dashboard: a question, and the panels that answer it."""

_HEIGHT, _WHOLE_WIDTH = 8, 24


def dashboard() -> str:
    """The dashboard for Grafana, as JSON."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels: list[dict[str, object]] = []
    y = 0
    for question, row in PANELS:
        where = {"h": 1, "w": _WHOLE_WIDTH, "x": 0, "y": y}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": question, "gridPos": where, "panels": []}
        )
        x, y = 0, y + 1
        for panel in row:
            if x + panel.width > _WHOLE_WIDTH:
                x, y = 0, y + _HEIGHT
            targets = [
                {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend, "datasource": source}
                for number, (query, legend) in enumerate(panel.queries)
            ]
            panels.append(
                {
                    "id": len(panels) + 1,
                    "type": panel.kind,
                    "title": panel.title,
                    "datasource": source,
                    "gridPos": {"h": _HEIGHT, "w": panel.width, "x": x, "y": y},
                    "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
                    "targets": targets,
                }
            )
            x += panel.width
        y += _HEIGHT
    variables = [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        *(
            {
                "name": name,
                "type": "query",
                "datasource": source,
                "query": f"label_values({_UP}, {name})",
                "refresh": 2,
                "includeAll": True,
                "multi": True,
                "current": {"text": "All", "value": "$__all"},
            }
            for name in ("job", "instance")
        ),
    ]
    board = {
        "title": "Airflow, watched from outside",
        "uid": "airflow-resilient",
        "tags": ["airflow"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }
    return json.dumps(board, indent=2) + "\n"
