"""The command line: what it refuses, where it asks, and what it prints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_resilient import cli, orphans
from airflow_resilient.jobs import Claim, Job, Phase
from airflow_resilient.sweep import Finding, Instance, Kind, NoAnswer, Report, Verdict


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch):
    for name in ("URL", "TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"AIRFLOW_API_{name}", raising=False)


@pytest.fixture
def configured(monkeypatch):
    """Set this Airflow's base URL and namespace."""

    def configured(base_url="", namespace=""):
        for section in ("API", "WEBSERVER"):
            monkeypatch.setenv(f"AIRFLOW__{section}__BASE_URL", base_url)
        monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE", namespace)

    return configured


def options(*arguments):
    return cli._parser().parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["sweep"], "invalid choice"),
        (["orphans", "--grace", "soon"], "'soon' is no length of time; write one such as 600, 10m or 2h"),
        (["orphans", "--wait", "-5"], "argument"),
        (["orphans", "--service", "glue"], "invalid choice: 'glue'"),
        (["explain", "etl", "manual__1"], "required: TASK"),
        (["explain", "etl", "manual__1", "sort", "--map-index", "x"], "invalid int value"),
        (["explain", "etl", "manual__1", "sort", "--on-clear", "never"], "invalid choice"),
    ],
)
def test_wrong_arguments_are_refused_with_code_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as refusal:
        cli.main(arguments)
    assert refusal.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "length"), [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1d", 86_400)]
)
def test_lengths_of_time(text, length):
    assert options("orphans", "--grace", text).grace == length


def test_without_a_url_it_says_so_and_asks_nobody(capsys, configured):
    configured()
    assert cli.main(["explain", "etl", "manual__1", "sort"]) == 2
    assert "give --airflow-url" in capsys.readouterr().err


def test_what_should_not_happen_is_not_taken_for_orphans(capsys):
    assert cli._run(lambda _: 1 / 0, options("orphans")) == 2
    assert capsys.readouterr().out == ""


def test_the_environment_says_what_the_command_line_does_not(monkeypatch):
    monkeypatch.setenv("AIRFLOW_API_URL", "https://airflow.example.com/")
    monkeypatch.setenv("AIRFLOW_API_USER", "me")
    monkeypatch.setenv("AIRFLOW_API_PASSWORD", "hunter2")
    api = cli._api(options("orphans"))
    assert (api.url, api._login, api._token) == ("https://airflow.example.com", ("me", "hunter2"), None)
    api = cli._api(options("orphans", "--airflow-url", "http://other", "--user", "you", "--token", "t"))
    assert (api.url, api._login[0], api._token) == ("http://other", "you", "t")


@pytest.mark.parametrize(
    ("base_url", "name", "arguments", "namespace"),
    [
        ("https://here", "prod", [], "prod"),
        ("https://here", "", [], "https://here"),
        ("https://here", "", ["--airflow-url", "http://api-server:8080"], "https://here"),
        ("https://here", "prod", ["--namespace", "staging"], "staging"),
        ("", "", ["--airflow-url", "https://other/"], "https://other"),
        ("http://localhost:8080", "", ["--airflow-url", "https://other"], "https://other"),
        ("http://localhost:8080", "", [], "http://localhost:8080"),
    ],
)
def test_whose_claims_are_ours(base_url, name, arguments, namespace, configured):
    configured(base_url, name)
    assert cli._namespace(options("orphans", *arguments)) == namespace


@pytest.mark.parametrize(
    ("arguments", "access"),
    [
        (["orphans"], {"aws_conn_id": "aws_default"}),
        (
            ["orphans", "--aws-conn-id", "none", "--region", "eu-west-1"],
            {"aws_conn_id": None, "region_name": "eu-west-1"},
        ),
        (["explain", "a", "b", "c"], {}),
        (["explain", "a", "b", "c", "--aws-conn-id", "aws_eu"], {"aws_conn_id": "aws_eu"}),
    ],
)
def test_how_aws_is_reached(arguments, access):
    assert cli._access(options(*arguments)) == access


@pytest.mark.parametrize(
    ("services", "ecs", "emr", "looked_in"),
    [
        (None, [], [], {"ecs": (), "emr": ()}),
        (None, ["etl"], [], {"ecs": ("etl",)}),
        (None, [], ["j-1", "j-2"], {"emr": ("j-1", "j-2")}),
        (["ecs"], [], ["j-1"], {"ecs": ()}),
        (["ecs", "emr"], ["etl"], [], {"ecs": ("etl",), "emr": ()}),
    ],
)
def test_where_is_looked(services, ecs, emr, looked_in):
    places = orphans.places({"aws_conn_id": None}, services, ecs, emr)
    assert {place.name: place.scopes for place in places} == looked_in


JOB = Job(
    "arn:aws:ecs:eu-west-1:1:task/etl/3ca", Claim("a" * 16, 1), Phase.RUNNING, 1767225600.0, "x:cluster/etl"
)
TASK = Instance("etl", "manual__1", "sort", state="failed")


def test_the_table_lists_what_somebody_has_to_look_at():
    report = Report(
        "prod",
        (
            Finding("ecs", JOB, Verdict(Kind.ENDED, "its task instance is failed since 1 h"), TASK),
            Finding("ecs", JOB, Verdict(Kind.WANTED, "its task instance is deferred"), TASK),
        ),
        foreign=3,
        troubles=("emr: the clusters cannot be listed: denied",),
    )
    head, row, trouble, summary = orphans.told(report)
    columns = ("VERDICT", "SERVICE", "CLUSTER", "JOB", "CLAIM", "CREATED", "TASK INSTANCE", "WHY")
    cells = (
        "ended",
        "ecs",
        "etl",
        "3ca",
        "af-aaaaaaaaaaaaaaaa-1",
        "2026-01-01 00:00:00Z",
        "etl / manual__1 / sort",
        "its task instance is failed since 1 h",
    )
    for name, cell in zip(columns, cells, strict=True):
        assert head.index(name) == row.index(cell)
    assert trouble == "NOT KNOWN: emr: the clusters cannot be listed: denied"
    assert summary == "Live jobs with claims of 'prod': 1 wanted, 1 ended. Claims of other namespaces: 3."
    assert len(orphans.told(report, everything=True)) == 5


def test_an_empty_report_is_one_line_that_warns_of_a_wrong_namespace():
    assert orphans.told(Report("prod")) == ["Live jobs with claims of 'prod': none."]
    assert "is that the namespace of this Airflow?" in orphans.told(Report("prod", foreign=2))[-1]


def test_only_the_result_stands_on_standard_output(capsys):
    def noisy(_):
        print("Airflow says hello")
        return json.dumps({"findings": []}), 1

    assert cli._run(noisy, options("orphans", "--json")) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"findings": []}
    assert "Airflow says hello" in printed.err


def test_no_answer_is_one_line_and_code_2(capsys):
    def refused(_):
        raise NoAnswer("https://airflow asks for a login")

    assert cli._run(refused, options("explain", "a", "b", "c")) == 2
    assert capsys.readouterr() == ("", "airflow-resilient: https://airflow asks for a login\n")


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "airflow_resilient", "--help"], capture_output=True, text=True, check=True
    )
    assert "orphans" in done.stdout
    assert "explain" in done.stdout
