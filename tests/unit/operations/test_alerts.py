"""The files that come with the watch: rules, dashboard, and examples that name what exists."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from airflow_resilient.cli import _parser
from airflow_resilient.operations.alerts import ALERTS, PANELS, SUMMARIES, WATCHDOG, alert_name
from airflow_resilient.operations.exported_metrics import METRICS
from airflow_resilient.operations.health import Kind
from airflow_resilient.operations.shipped_files import FOLDER, NAMES, text_of

pytestmark = pytest.mark.pure

RULES = "airflow-resilient.rules.yml"
RUNBOOKS = "https://wiki.example.com/airflow/"


@pytest.fixture(scope="module")
def tool():
    """Run a tool of Prometheus, which Debian's packages prometheus and prometheus-alertmanager have."""

    def run(name, *arguments, cwd):
        if shutil.which(name) is None:
            assert not os.environ.get("CI"), f"{name} is not installed"
            pytest.skip(f"{name} is not installed")
        done = subprocess.run([name, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).write_text(text_of(name, RUNBOOKS))
    return tmp_path


def series(metric, values, **labels):
    shown = ",".join(f'{name}="{value}"' for name, value in {"job": "j", "instance": "i", **labels}.items())
    return {"series": f"{metric}{{{shown}}}", "values": values}


def finding(kind, values, severity="page", subject="etl"):
    name = "airflow_resilient_finding_since_timestamp_seconds"
    return series(name, values, kind=kind, severity=severity, subject=subject)


def fires(alert, minute, summary=None, **labels):
    """The alert fires at that minute, or, without a summary, it does not."""
    expected = {
        "exp_labels": {**({} if alert == WATCHDOG else {"job": "j", "instance": "i"}), **labels},
        "exp_annotations": {"summary": summary, "runbook_url": RUNBOOKS + alert},
    }
    return {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": [expected] if summary else []}


UP, LOOKED = "airflow_resilient_up", "airflow_resilient_look_timestamp_seconds"
WELL = [series(UP, "1x60"), series(LOOKED, "0+60x60")]
SITUATIONS = [
    pytest.param(
        [*WELL, finding(kind.value, "100x10 stale")],
        [
            fires(
                alert_name(kind),
                1,
                f"{SUMMARIES[kind]}: etl",
                kind=kind.value,
                severity="page",
                subject="etl",
            ),
            fires(
                alert_name(kind),
                12,
                f"{SUMMARIES[kind]}: etl",
                kind=kind.value,
                severity="page",
                subject="etl",
            ),  # a scrape that fails is no end
            fires(alert_name(kind), 18),
            *(fires(alert_name(other), 1) for other in Kind if other is not kind),
        ],
        id=kind.value,
    )
    for kind in Kind
]
SITUATIONS += [
    pytest.param(
        [*WELL, finding("waiting", "100x60", "ticket")],
        [
            fires(
                "AirflowWaiting",
                1,
                "task instances have waited too long: etl",
                kind="waiting",
                severity="ticket",
                subject="etl",
            )
        ],
        id="a-ticket-stays-a-ticket",
    ),
    pytest.param(
        [*WELL, finding("not-shown", "100x60", "unknown", "pools")],
        [
            fires("AirflowUnknown", 14),
            fires(
                "AirflowUnknown",
                16,
                "a part of the watch is blind (not-shown): pools",
                kind="not-shown",
                severity="ticket",
                subject="pools",
            ),
            fires("AirflowNotShown", 16),
        ],
        id="what-is-unknown-for-a-quarter-of-an-hour-is-a-ticket",
    ),
    pytest.param(
        WELL,
        [
            fires(
                WATCHDOG,
                30,
                "it always fires: where it is missing, no alert arrives",
                severity="none",
            ),
            *(fires(alert.name, 30) for alert in ALERTS if alert.name != WATCHDOG),
        ],
        id="of-a-healthy-airflow-only-the-watchdog-fires",
    ),
    pytest.param(
        [],
        [
            fires("AirflowWatchGone", 4),
            {
                "eval_time": "6m",
                "alertname": "AirflowWatchGone",
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": "page"},
                        "exp_annotations": {
                            "summary": "airflow-resilient export is not scraped",
                            "runbook_url": f"{RUNBOOKS}AirflowWatchGone",
                        },
                    }
                ],
            },
        ],
        id="an-exporter-that-is-absent-is-a-page",
    ),
    pytest.param(
        [series(UP, "1x10 stale"), {**series(UP, "1x60"), "series": f'{UP}{{job="j",instance="other"}}'}],
        [
            fires("AirflowWatchGone", 10),
            fires("AirflowWatchGone", 17, "airflow-resilient export is not scraped", severity="page"),
        ],
        id="so-is-one-of-two",
    ),
    pytest.param(
        [series(UP, "0x60"), series(LOOKED, "0x60")],
        [
            fires("AirflowWatchStale", 9),
            fires(
                "AirflowWatchStale", 11, "no look at Airflow has succeeded for ten minutes", severity="page"
            ),
        ],
        id="a-watch-that-does-not-look-any-more-is-a-page",
    ),
    pytest.param(
        [series(UP, "0x60")],
        [
            fires("AirflowWatchStale", 4),
            fires(
                "AirflowWatchStale", 6, "no look at Airflow has succeeded for ten minutes", severity="page"
            ),
        ],
        id="so-is-one-that-has-never-had-an-answer",
    ),
]


@pytest.mark.parametrize(("given", "wanted"), SITUATIONS)
def test_an_alert_fires_when_it_should_and_is_over_with_its_cause(tool, folder, given, wanted):
    test = {
        "rule_files": [RULES],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": given, "alert_rule_test": wanted}],
    }
    (folder / "test.yml").write_text(json.dumps(test))
    tool("promtool", "test", "rules", "test.yml", cwd=folder)


def test_prometheus_and_alertmanager_take_the_examples(tool, folder):
    tool("promtool", "check", "config", "prometheus.yml", cwd=folder)
    tool("amtool", "check-config", "alertmanager.yml", cwd=folder)


def test_each_kind_of_finding_has_an_alert():
    assert set(SUMMARIES) == set(Kind)
    names = [alert.name for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert {alert_name(kind) for kind in Kind} < set(names)


def test_each_metric_in_a_rule_or_on_the_dashboard_is_exported():
    exported = {metric.full_name for metric in METRICS}
    panels = [query for _, row in PANELS for panel in row for query, _ in panel.queries]
    for expression in (*(alert.expression for alert in ALERTS), *panels):
        assert set(re.findall(r"airflow_resilient_\w+", expression)) <= exported
    shown = set(re.findall(r"airflow_resilient_\w+", " ".join(panels)))
    unshown = {
        "airflow_info",
        "look_duration_seconds",
        "looks_total",
        "requests_total",
        "pool_size_slots",
        "need_by_missed",
    }
    assert exported - shown == {f"airflow_resilient_{name}" for name in unshown}


def test_the_query_of_each_panel_is_promql(tool, folder):
    """A rule of each, since promtool checks rules."""
    queries = [query for _, row in PANELS for panel in row for query, _ in panel.queries]
    rules = [{"record": f"a:query_{number}", "expr": query} for number, query in enumerate(queries)]
    (folder / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    tool("promtool", "check", "rules", "panels.yml", cwd=folder)


def test_panels_of_the_dashboard_do_not_overlap():
    board = json.loads(text_of("grafana-dashboard.json"))
    cells = [
        (x, y)
        for panel in board["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_example_for_alertmanager_names_alerts_that_exist():
    names = {alert.name for alert in ALERTS}
    assert set(re.findall(r"\bAirflow[A-Z]\w+", text_of("alertmanager.yml"))) <= names


def commands():
    """Each command line of ours in a shipped file: name of the file, and its arguments."""
    for path in sorted(FOLDER.glob("*.service")):
        unit = configparser.RawConfigParser(strict=False)
        unit.optionxform = str
        unit.read_string(path.read_text())
        line = shlex.split(unit["Service"]["ExecStart"])
        if line[0].endswith("/airflow-resilient"):
            yield path.name, line[1:]
    job = yaml.safe_load(text_of("kubernetes-cronjob.yaml"))
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    shell, option, line = container["command"]
    assert (shell, option) == ("sh", "-c")
    command, _, accepted = line.partition(" || ")
    assert accepted == "[ $? -le 2 ]", "a finding is no failure of the job"
    assert command.split()[0] == "airflow-resilient"
    yield "kubernetes-cronjob.yaml", command.split()[1:]


@pytest.mark.parametrize(("name", "arguments"), [*commands()])
def test_a_shipped_file_calls_a_command_that_exists(name, arguments):
    options = _parser(arguments).parse_args(arguments)
    assert options.command.name in ("check", "export")


def test_each_file_is_in_the_package():
    assert {"airflow-scheduler.service", "kubernetes-cronjob.yaml", RULES} <= set(NAMES)
    for name in NAMES:
        assert text_of(name).endswith("\n")
