"""The command ``check``: exit codes, text and JSON, the dead man's switch, and what it does not need."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import pytest

from airflow_resilient.cli import main
from airflow_resilient.core.beat import BeatFailed, beat
from airflow_resilient.operations.check import exit_code_of, format_findings, signal_of
from airflow_resilient.operations.first_seen import FirstSeen, load, locked, save
from airflow_resilient.operations.health import Finding, Kind, Severity
from airflow_resilient.operations.limits import Limits
from airflow_resilient.operations.snapshot import MAX_PAGES, Snapshot

NOW = 1_793_622_600.0
SECRET = "b4f5c9b2-0000-4000-8000-secretsecret"


@dataclass
class Server:
    """An Airflow that answers as it is told, and a dead man's switch."""

    url: str = ""
    status: int = 200
    broken: dict[str, int] = field(default_factory=dict)
    rows: dict[str, tuple[list[dict], int]] = field(default_factory=dict)
    beats: list[tuple[str, str]] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


FIELDS = {
    "/dags": "dags",
    "/dags/~/dagRuns/~/taskInstances": "task_instances",
    "/dags/~/dagRuns": "dag_runs",
    "/jobs": "jobs",
    "/pools": "pools",
    "/importErrors": "import_errors",
    "/eventLogs": "event_logs",
}


@pytest.fixture
def server(serve):
    made = Server()

    def answer(method, path, query, body):
        path = path.removeprefix("/api/v2")
        if method == "POST" and path != "/auth/token":
            made.beats.append((path, body.decode()))
            return made.status, {}
        made.asked.append((path, query))
        found = {
            "/version": {"version": "3.3.2"},
            "/auth/token": {"access_token": "t"},
            "/monitor/health": {"metadatabase": {"status": "healthy"}, "scheduler": {}, "triggerer": {}},
        }.get(path, {})
        if path in FIELDS:
            rows, total = made.rows.get(path, ([], 0))
            found = {FIELDS[path]: rows, "total_entries": total}
        return made.broken.get(path, 200), found

    made.url = serve(answer)
    return made


@pytest.fixture(autouse=True)
def _no_second_attempt(monkeypatch):
    monkeypatch.setattr("airflow_resilient.operations.check.ATTEMPTS", 1)


def finding(severity, *, kind=Kind.RUN_OVERDUE, since=NOW - 600.0):
    return Finding(kind, "etl", severity, since, "it is late", "a cause", "a step", "key")


# --- one look -------------------------------------------------------------------------------------------


def test_an_airflow_without_findings_is_well(server, capsys):
    assert main(["check", "--airflow-url", server.url]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Airflow 3.3.2 at {server.url}: all is well (")


def test_a_look_takes_no_more_than_twelve_requests_and_a_login(server):
    main(["check", "--airflow-url", server.url])
    assert len(server.asked) <= 13
    assert {path for path, _ in server.asked} >= set(FIELDS)


def test_a_canary_takes_one_request_more_and_is_unknown_where_it_cannot_be_read(server, capsys):
    tags = [{"name": "canary_every=10m"}, {"name": "canary_leg=triggerer"}]
    row = {"dag_id": "canary", "last_parsed_time": None, "max_active_runs": 1, "max_active_tasks": 16}
    server.rows["/dags"] = [{**row, "tags": tags}], 1
    path = "/dags/canary/dagRuns/~/taskInstances"
    server.broken[path] = 403
    before = len(server.asked)
    assert main(["check", "--airflow-url", server.url]) == 2
    assert "not-shown: canaries" in capsys.readouterr().out
    assert [each for each, _ in server.asked].count(path) == 1
    assert len(server.asked) - before <= 14


def test_json_has_everything(server, capsys):
    server.broken["/pools"] = 403
    assert main(["check", "--airflow-url", server.url, "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["exit_code"]) == ("3.3.2", 2)
    (each,) = found["findings"]
    assert (each["kind"], each["subject"], each["severity"]) == ("not-shown", "pools", "unknown")
    assert "permission" in each["next_step"]


@pytest.mark.parametrize("path", FIELDS)
@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_part_that_cannot_be_read_is_unknown_and_never_well(server, capsys, path, status):
    server.broken[path] = status
    assert main(["check", "--airflow-url", server.url]) == 2
    assert "UNKNOWN not-shown:" in capsys.readouterr().out


@pytest.mark.parametrize("row", [{}, {"dag_id": None}, 7, None])
@pytest.mark.parametrize("path", FIELDS)
def test_an_answer_of_another_shape_is_unknown(server, path, row):
    server.rows[path] = ([row], 1)
    if path == "/jobs" and row == {"dag_id": None}:
        row["job_type"] = "SchedulerJob"
    assert main(["check", "--airflow-url", server.url]) == 2


def test_a_list_without_an_end_is_read_for_a_while_and_said(server, capsys):
    states = ("occupied", "queued", "running", "scheduled", "deferred")
    row = {"name": "p", "slots": 1, **{f"{state}_slots": 0 for state in states}}
    server.rows["/pools"] = ([row], 10_000)
    assert main(["check", "--airflow-url", server.url]) == 2
    assert "there are 10000, of which 1 were read" in capsys.readouterr().out
    assert sum(path == "/pools" for path, _ in server.asked) == MAX_PAGES


def test_an_airflow_that_does_not_answer_is_unknown(capsys):
    assert main(["check", "--airflow-url", "http://127.0.0.1:9"]) == 2
    assert "UNKNOWN api-silent: http://127.0.0.1:9" in capsys.readouterr().out


def test_a_login_that_is_refused_is_said(server, capsys):
    server.broken["/auth/token"] = 401
    assert main(["check", "--airflow-url", server.url]) == 2
    assert "login-refused" in capsys.readouterr().out


def test_a_memory_that_is_spoiled_is_said_and_begun_anew(server, capsys, tmp_path):
    memory = tmp_path / "memory"
    memory.write_text("{")
    assert main(["check", "--airflow-url", server.url, "--memory", str(memory)]) == 2
    assert "UNKNOWN memory-lost: memory" in (first := capsys.readouterr().out)
    assert "cannot be read" in first
    assert "it starts empty" in first
    assert main(["check", "--airflow-url", server.url, "--memory", str(memory)]) == 0


def test_a_memory_that_cannot_be_written_is_not_well(server, capsys, tmp_path):
    memory = tmp_path / "missing" / "memory"
    assert main(["check", "--airflow-url", server.url, "--memory", str(memory)]) == 2
    assert "UNKNOWN memory-lost: memory" in capsys.readouterr().out


def test_the_memory_of_another_airflow_is_reported_and_kept(server, capsys, tmp_path):
    memory = tmp_path / "memory"
    save(memory, other := FirstSeen("http://other", last=1.0))
    assert main(["check", "--airflow-url", server.url, "--memory", str(memory)]) == 2
    assert "is the memory of another Airflow, http://other" in capsys.readouterr().out
    assert load(memory, "http://other") == other


def test_two_looks_do_not_share_a_memory(server, capsys, tmp_path):
    with locked(tmp_path / "memory"):
        assert main(["check", "--airflow-url", server.url, "--memory", str(tmp_path / "memory")]) == 2
    assert "another look" in capsys.readouterr().err


def test_a_login_that_expires_is_no_airflow_without_permissions(server, capsys):
    """What needs no login still answers."""
    server.broken["/dags/~/dagRuns"] = 401
    assert main(["check", "--airflow-url", server.url, "--token", "expired"]) == 2
    printed = capsys.readouterr().out
    assert "UNKNOWN login-refused" in printed
    assert "not-shown" not in printed


def test_an_airflow_that_is_silent_since_the_watch_has_begun_is_a_page_after_a_while(
    server, tmp_path, capsys
):
    """No look has had an answer yet, and still the looks before count."""
    memory = tmp_path / "memory"
    began = time.time() - 600.0
    save(memory, FirstSeen(server.url, last=None, looked=time.time() - 30.0, marks={"api-silent": began}))
    server.broken["/version"] = server.broken["/api/v1/version"] = 503
    assert main(["check", "--airflow-url", server.url, "--memory", str(memory)]) == 2
    assert "PAGE    api-silent" in capsys.readouterr().out
    assert load(memory, server.url).marks == {"api-silent": began}


def test_neither_airflow_nor_a_service_is_imported(server, imported_by):
    script = f"from airflow_resilient.cli import main\nmain(['check', '--airflow-url', {server.url!r}])"
    assert imported_by(script) == {"httpx"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "wait=3m"], "'wait=3m' is not a limit; write NAME=VALUE, NAME one of heartbeat,"),
        (["--limit", "waiting=soon"], "waiting = 'soon' is not valid; write a duration"),
        (
            ["--beat", "hc-ping.com/x"],
            "the URL of the switch is none; write a URL such as https://hc-ping.com/",
        ),
        (["--beat", "https://[hc-ping.com/s3cret"], "the URL of the switch is none"),
    ],
)
def test_an_option_that_is_not_valid_is_said(capsys, arguments, words):
    with pytest.raises(SystemExit):
        main(["check", "--airflow-url", "http://127.0.0.1:9", *arguments])
    shown = " ".join(capsys.readouterr().err.split())
    assert words in shown
    assert "s3cret" not in shown


def test_a_file_of_limits_that_is_not_valid_is_said(capsys, tmp_path):
    (tmp_path / "limits.toml").write_text("[limits]\nwait = 3")
    with pytest.raises(SystemExit) as refused:
        main(["check", "--limits", str(tmp_path / "limits.toml")])
    assert refused.value.code == 2
    assert "[limits] wait is not known" in " ".join(capsys.readouterr().err.split())


# --- what comes of it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "code", "signal"),
    [
        pytest.param([], 0, "", id="well"),
        pytest.param([finding(Severity.TICKET)], 1, "", id="a-ticket-wakes-nobody"),
        pytest.param([finding(Severity.PAGE)], 1, "/fail", id="a-page"),
        pytest.param([finding(Severity.UNKNOWN, since=NOW)], 2, None, id="unknown-for-a-moment"),
        pytest.param([finding(Severity.UNKNOWN)], 2, "/fail", id="unknown-for-long"),
        pytest.param([finding(Severity.UNKNOWN, since=NOW), finding(Severity.PAGE)], 2, "/fail", id="both"),
        pytest.param([finding(Severity.PAGE, kind=Kind.API_SILENT)], 2, "/fail", id="silent-for-long"),
    ],
)
def test_findings_decide_the_exit_code_and_what_the_switch_is_told(findings, code, signal):
    assert exit_code_of(findings) == code
    assert signal_of(findings, Limits(), NOW) == signal


def test_the_text_says_what_since_when_why_and_what_next():
    look = Snapshot("http://airflow", NOW, version="3.3.2", requests=11, seconds=0.42)
    assert format_findings(look, [finding(Severity.PAGE)], NOW) == [
        "PAGE    run-overdue: etl  since 2026-11-02 12:20:00Z (10 min)",
        "        it is late",
        "        cause: a cause",
        "        next:  a step",
        "",
        "Airflow 3.3.2 at http://airflow: 1 page (11 requests, 0.4 s).",
    ]


def test_the_switch_is_told_with_the_findings(server, tmp_path, monkeypatch):
    url = f"{server.url}/ping/{SECRET}"
    monkeypatch.setenv("AIRFLOW_CHECK_BEAT_URL", url)
    assert main(["check", "--airflow-url", server.url]) == 0
    server.broken["/pools"] = 500
    assert main(["check", "--airflow-url", server.url, "--beat", url]) == 2
    now = time.time()
    marks = {"not-shown/pools": now - 500}
    save(tmp_path / "memory", FirstSeen(server.url, last=now - 60, looked=now - 60, marks=marks))
    long_since = ["--memory", str(tmp_path / "memory")]
    assert main(["check", "--airflow-url", server.url, "--beat", url, *long_since]) == 2
    assert [path for path, _ in server.beats] == [f"/ping/{SECRET}", f"/ping/{SECRET}/fail"]
    assert "all is well" in server.beats[0][1]
    assert "not-shown: pools" in server.beats[1][1]


@pytest.mark.parametrize("status", [404, 500])
def test_a_switch_that_is_not_told_is_said_without_its_url(server, capsys, status):
    server.status = status
    arguments = ["check", "--airflow-url", server.url, "--beat", f"{server.url}/ping/{SECRET}"]
    assert main(arguments) == 2
    shown = "".join(capsys.readouterr())
    assert f"the dead man's switch at 127.0.0.1 could not be reached: it answers {status}" in shown
    assert SECRET not in shown


def test_a_switch_that_cannot_be_reached_is_said_without_its_url():
    with pytest.raises(BeatFailed) as caught:
        beat(f"http://127.0.0.1:9/{SECRET}", "", "text")
    assert "ConnectionRefusedError" in str(caught.value)
    assert SECRET not in str(caught.value)
