"""The command line: what it refuses, where it asks, and what it prints."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import pytest

from airflow_resilient import cli, registry
from airflow_resilient.core.job import Claim, Job, Phase
from airflow_resilient.operations import orphans
from airflow_resilient.operations.command import Command, ExitCode
from airflow_resilient.operations.sweep import Finding, OrphanStatus, OrphanVerdict, Report
from airflow_resilient.operations.task_instances import AirflowApiError, Instance
from airflow_resilient.services.docker.client import DockerContainers
from airflow_resilient.services.docker.engine import DEFAULT_URL


def parsed(*arguments):
    return cli._parser(arguments).parse_args(arguments)


def command(run):
    """A command that does this."""
    return Command("made-up", "", "", "", lambda parser: None, run)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "COMMAND"),
        (["sweep"], "invalid choice"),
        (["orphans", "--grace", "soon"], "'soon' is not a duration; write one such as 600, 10m or 2h"),
        (["orphans", "--wait", "-5"], "argument"),
        (["orphans", "--service", "glue"], "invalid choice: 'glue'"),
        (["orphans", "--scope", "glue=x"], "'glue=x' is not a scope; write SERVICE=NAME"),
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


def test_without_a_url_it_says_so_and_asks_nobody(capsys, configured):
    configured()
    assert cli.main(["explain", "etl", "manual__1", "sort"]) == 2
    assert "pass --airflow-url or set AIRFLOW_API_URL" in capsys.readouterr().err


def test_our_stream_may_be_discarded_after_the_one_below_it_was_closed():
    below = io.StringIO()
    stream = cli._Terminal(below)
    below.close()
    stream.close()


def test_what_should_not_happen_is_not_taken_for_orphans(capsys):
    assert cli._run(command(lambda _: 1 / 0), parsed("orphans")) == ExitCode.UNKNOWN == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("services", "scopes", "searched"),
    [
        (None, {}, {"ecs": (), "emr_steps": ()}),
        (None, {"ecs": ["etl"]}, {"ecs": ("etl",)}),
        (None, {"ecs": [], "emr_steps": ["j-1", "j-2"]}, {"emr_steps": ("j-1", "j-2")}),
        (None, {"docker": ["tcp://a:2375"]}, {"docker": ("tcp://a:2375",)}),
        (["ecs"], {"emr_steps": ["j-1"]}, {"ecs": ()}),
        (["ecs", "emr_steps"], {"ecs": ["etl"]}, {"ecs": ("etl",), "emr_steps": ()}),
        (["docker"], {}, {"docker": ()}),
    ],
    ids=[
        "by-default-wherever-scopes-can-be-listed",
        "where-a-scope-is-named",
        "where-scopes-are-named",
        "on-an-engine-that-is-named",
        "at-a-service-whatever-scopes-others-have",
        "at-several-services",
        "on-the-engine-that-is-meant",
    ],
)
def test_which_services_and_scopes_are_searched(services, scopes, searched):
    targets = orphans.sweep_targets({"aws_conn_id": None}, services, scopes)
    assert {target.name: target.scopes for target in targets} == searched
    for target in targets:
        assert type(target.service) is registry.client_class(registry.service(target.name))


def test_services_are_reached_as_the_options_say():
    access = {"aws_conn_id": None, "region_name": "eu-west-1", "tls": TLS}
    ecs, docker = orphans.sweep_targets(access, None, {"ecs": ["etl"], "docker": ["tcp://a:2376"]})
    assert (ecs.service.address()["aws_conn_id"], ecs.service.address()["region_name"]) == (None, "eu-west-1")
    assert docker.service.address()["docker_url"] == ["https://a:2376"]
    assert docker.service.address()["tls"] == TLS


@pytest.mark.parametrize(("host", "url"), [("", DEFAULT_URL), ("tcp://a:2375", "tcp://a:2375")])
def test_the_engine_that_is_meant_where_none_is_named_is_dockers_own(host, url, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", host)
    (target,) = orphans.sweep_targets({}, ["docker"], {})
    assert target.service.list_scopes() == DockerContainers(docker_url=url).urls


TLS = {"ca_cert": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}
JOB = Job(
    "arn:aws:ecs:eu-west-1:1:task/etl/3ca", Claim("a" * 16, 1), Phase.RUNNING, 1767225600.0, "x:cluster/etl"
)
TASK = Instance("etl", "manual__1", "sort", state="failed")


def test_the_table_lists_what_somebody_has_to_check():
    report = Report(
        "prod",
        (
            Finding(
                "ecs", JOB, OrphanVerdict(OrphanStatus.ENDED, "its task instance is failed since 1 h"), TASK
            ),
            Finding("ecs", JOB, OrphanVerdict(OrphanStatus.WANTED, "its task instance is deferred"), TASK),
        ),
        foreign=3,
        errors=("emr_steps: cannot list the clusters: denied",),
    )
    head, row, error, summary = orphans.format_report(report)
    columns = ("VERDICT", "SERVICE", "SCOPE", "JOB", "CLAIM", "CREATED", "TASK INSTANCE", "WHY")
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
    assert error == "UNKNOWN: emr_steps: cannot list the clusters: denied"
    assert summary == "Live jobs with claims of 'prod': 1 wanted, 1 ended. Claims of other namespaces: 3."
    assert len(orphans.format_report(report, everything=True)) == 5


EVIL = "a\x1b[2J\x9b1m\u202eb\r\nended x"
ESCAPED = r"a\x1b[2J\x9b1m\u202eb\r\nended x"


def test_names_from_outside_cannot_move_the_cursor_or_add_a_line():
    task = Instance(f"dag {EVIL}", "run", "task", state="failed")
    job = Job(f"job {EVIL}", JOB.claim, Phase.RUNNING, JOB.created, f"cluster {EVIL}")
    finding = Finding("ecs", job, OrphanVerdict(OrphanStatus.ENDED, f"why {EVIL}"), task, f"outcome {EVIL}")
    report = Report(f"ns {EVIL}", (finding,), errors=(f"error {EVIL}",), removable=(finding,))
    lines = orphans.format_report(report)
    assert len(lines) == 6
    assert all(line.isprintable() for line in lines)
    for name in ("dag", "job", "cluster", "why", "outcome", "error"):
        assert any(f"{name} {ESCAPED}" in line for line in lines)


def test_nothing_that_a_command_prints_moves_the_cursor(capsys):
    def evil(_):
        logging.getLogger("somewhere").warning("warned of %s", EVIL)
        return f"found\n{EVIL}", 1

    def refused(_):
        raise AirflowApiError(EVIL)

    def broken(_):
        raise RuntimeError(EVIL)

    assert cli._run(command(evil), parsed("orphans")) == 1
    assert cli._run(command(refused), parsed("orphans")) == 2
    assert cli._run(command(broken), parsed("orphans")) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("found\na\\x1b[2J")
    assert "airflow-resilient: a\\x1b[2J" in printed.err
    assert "\x1b" not in printed.out + printed.err


def test_an_empty_report_is_one_line_that_warns_of_a_wrong_namespace():
    assert orphans.format_report(Report("prod")) == ["Live jobs with claims of 'prod': none."]
    assert "is it the namespace of this Airflow?" in orphans.format_report(Report("prod", foreign=2))[-1]


def test_only_the_result_stands_on_standard_output(capsys):
    def noisy(_):
        print("Airflow says hello")
        return json.dumps({"findings": []}), 1

    assert cli._run(command(noisy), parsed("orphans", "--json")) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"findings": []}
    assert "Airflow says hello" in printed.err


def test_no_answer_is_one_line_and_code_2(capsys):
    def refused(_):
        raise AirflowApiError("https://airflow requires a login")

    assert cli._run(command(refused), parsed("explain", "a", "b", "c")) == 2
    assert capsys.readouterr() == ("", "airflow-resilient: https://airflow requires a login\n")


def test_an_interrupted_command_says_so_and_has_a_code_of_its_own(capsys):
    def interrupted(_):
        raise KeyboardInterrupt

    assert cli._run(command(interrupted), parsed("orphans")) == ExitCode.INTERRUPTED == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("name", registry.OPERATIONS)
def test_every_operation_is_a_command_under_its_own_name(name, capsys):
    assert registry.operation(name).name == name
    with pytest.raises(SystemExit) as shown:
        cli.main([name, "--help"])
    assert shown.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert registry.operation(name).description in text
    assert f"exit code: {registry.operation(name).exit_codes}" in text


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "airflow_resilient", "--help"], capture_output=True, text=True, check=True
    )
    assert "orphans" in done.stdout
    assert "explain" in done.stdout


WHERE_AIRFLOW_FINDS_STANDARD_OUTPUT = """
import contextlib, importlib.abc, sys
real, found = sys.stdout, []

class Watching(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "airflow":
            found.append(sys.stdout is real)

sys.meta_path.insert(0, Watching())
from airflow_resilient import cli
with contextlib.suppress(SystemExit):
    cli.main(["orphans", "--help"])
print(found, file=sys.stderr)
"""


def test_airflow_is_imported_while_standard_output_is_kept_for_the_result():
    """Its log handlers keep the standard output that they find, and would write lines before the JSON."""
    script = [sys.executable, "-W", "ignore", "-c", WHERE_AIRFLOW_FINDS_STANDARD_OUTPUT]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[False]"
    assert done.stdout.startswith("usage: airflow-resilient orphans")
