"""The command ``unstick`` over HTTP, on both versions of the API: what is sent, when, and never twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone

import pytest

from airflow_resilient.cli import main
from airflow_resilient.operations.acted import load

HOUR = 3600.0
LISTINGS = {"/auth/token"}
NOT_FOUND = {"type": "https://airflow.apache.org/x#section/Errors/NotFound", "title": "x", "detail": "gone"}


def iso(ago=0.0):
    return datetime.fromtimestamp(time.time() - ago, timezone.utc).isoformat()


def instance(task_id="load", **more):
    return {
        "dag_id": "etl",
        "dag_run_id": "run-1",
        "task_id": task_id,
        "map_index": -1,
        "try_number": 1,
        "max_tries": 0,
        "state": "queued",
        "pool": "default_pool",
        "pool_slots": 1,
        "queue": "default",
        "start_date": None,
        "queued_when": iso(HOUR),
        "scheduled_when": iso(HOUR),
        "trigger": None,
        "note": None,
        **more,
    }


def waits_for_pool(**more):
    return instance("waits", state="scheduled", pool="small", queued_when=None, **more)


@dataclass
class FakeAirflow:
    """An Airflow whose API answers as far as the command asks, and changes what it is told to change.

    :ivar runs: states by run id.
    :ivar changes: what was asked for with another method than GET, without logins: method, path, body.
    :ivar answers: what is done instead of answering a request: by method and end of the path.
    """

    v2: bool = True
    url: str = ""
    instances: list[dict] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=lambda: {"run-1": "running"})
    pools: dict[str, tuple[int, int]] = field(default_factory=lambda: {"default_pool": (128, 1)})
    scheduler: float = 1.0
    changes: list[tuple[str, str, dict]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    answers: dict[tuple[str, str], object] = field(default_factory=dict)

    @property
    def sent(self):
        """Changes that were not dry runs: method and the end of the path."""
        return [
            (method, path.rpartition("/")[2])
            for method, path, body in self.changes
            if not body.get("dry_run")
        ]

    def answer(self, method, path, query, body):
        api, other = ("/api/v2", "/api/v1") if self.v2 else ("/api/v1", "/api/v2")
        if path.startswith(other):
            return 404, {}
        path, body = path.removeprefix(api), json.loads(body or b"{}")
        self.asked.append((method, path))
        if method != "GET" and path not in LISTINGS:
            self.changes.append((method, path, body))
        for (wanted, end), special in self.answers.items():
            if method == wanted and path.endswith(end):
                found = special(body) if callable(special) else special
                if found is not None:
                    return found
        return (
            self._change(path, body) if method != "GET" and path not in LISTINGS else self._get(path, query)
        )

    def _get(self, path, query):  # noqa: PLR0911
        states = [value for name, value in query.pairs if name == "state"]
        rows = [each for each in self.instances if not states or str(each["state"] or "none") in states]
        if path == "/version":
            return 200, {"version": "3.3.2" if self.v2 else "2.11.2"}
        if path == "/auth/token":
            return 200, {"access_token": "t"}
        if path.endswith("/health"):
            beat = {"status": "healthy", "latest_scheduler_heartbeat": iso(self.scheduler)}
            return 200, {"metadatabase": {"status": "healthy"}, "scheduler": beat, "triggerer": {}}
        if path == "/dags":
            return 200, self._page("dags", [self._dag(name) for name in ("etl", "old")])
        if path == "/pools":
            none = dict.fromkeys(("running_slots", "scheduled_slots", "deferred_slots"), 0)
            pools = [
                {"name": name, "slots": slots, "occupied_slots": used, "queued_slots": used, **none}
                for name, (slots, used) in self.pools.items()
            ]
            return 200, self._page("pools", pools)
        if path == "/dags/~/dagRuns":
            runs = [self._run(name) for name, state in self.runs.items() if state in states]
            return 200, self._page("dag_runs", runs)
        if path == "/dags/~/dagRuns/~/taskInstances":
            return 200, self._page("task_instances", rows)
        if path in ("/jobs", "/importErrors", "/eventLogs"):
            name = {"/jobs": "jobs", "/importErrors": "import_errors", "/eventLogs": "event_logs"}[path]
            return 200, self._page(name, [])
        parts = path.strip("/").split("/")
        if parts[-1] == "taskInstances":
            mine = [each for each in rows if each["dag_run_id"] == parts[3]]
            return 200, {"task_instances": mine[:1], "total_entries": len(mine)}
        if len(parts) == 4:
            return (200, self._run(parts[3])) if parts[3] in self.runs else (404, NOT_FOUND)
        found = self._instance(parts)
        return (200, found) if found else (404, NOT_FOUND)

    def _change(self, path, body):
        parts = path.strip("/").split("/")
        if parts[-1] == "clearTaskInstances":
            assert body["dag_run_id"] in self.runs
            names = [each if isinstance(each, list) else [each] for each in body["task_ids"]]
            found = [
                each
                for each in self.instances
                if each["dag_run_id"] == body["dag_run_id"]
                and ([each["task_id"]] in names or [each["task_id"], each["map_index"]] in names)
            ]
            if not body["dry_run"]:
                for each in found:
                    each.update(state=None, queued_when=None)
            return 200, {"task_instances": found, "total_entries": len(found)}
        if len(parts) == 4:
            self.runs[parts[3]] = body["state"]
            for each in self.instances:
                if each["dag_run_id"] == parts[3] and each["state"] in (None, "queued", "scheduled"):
                    each["state"] = "skipped"
            return 200, self._run(parts[3])
        found = self._instance([part for part in parts if part != "setNote"])
        if "note" in body:
            found["note"] = body["note"]
        if body.get("new_state"):
            found["state"] = body["new_state"]
        return 200, found

    def _instance(self, parts):
        run, task, index = parts[3], parts[5], int(parts[6]) if len(parts) > 6 else -1
        for each in self.instances:
            if (each["dag_run_id"], each["task_id"], each["map_index"]) == (run, task, index):
                return each
        return None

    def _dag(self, name):
        own = {"timetable_summary": None} if self.v2 else {"schedule_interval": None}
        return {
            "dag_id": name,
            "next_dagrun_run_after" if self.v2 else "next_dagrun_create_after": None,
            "last_parsed_time": iso(1),
            "max_active_runs": 16,
            "max_active_tasks": 16,
            "tags": [],
            **own,
        }

    def _run(self, name):
        return {
            "dag_id": "etl",
            "dag_run_id": name,
            "state": self.runs[name],
            "run_after": iso(HOUR),
            "queued_at": iso(HOUR),
            "start_date": iso(HOUR),
            "last_scheduling_decision": iso(1),
            "run_type": "manual",
        }

    @staticmethod
    def _page(name, rows):
        return {name: rows, "total_entries": len(rows)}


@pytest.fixture(params=[True, False], ids=["v2", "v1"])
def airflow(request, serve):
    made = FakeAirflow(v2=request.param)
    made.url = serve(made.answer)
    return made


@pytest.fixture(autouse=True)
def _no_second_attempt(monkeypatch):
    """What is only read is not repeated either, so that no test waits."""
    monkeypatch.setattr("airflow_resilient.operations.unstick.ATTEMPTS", 1)


@pytest.fixture
def memory(tmp_path):
    return tmp_path / "memory"


@pytest.fixture
def unstick(airflow, memory, capsys):
    """Run the command: exit code, and what it prints."""

    def unstick(*arguments):
        options = ["--airflow-url", airflow.url, "--memory", str(memory), "--queues-have-workers"]
        code = main(["unstick", *options, *arguments])
        printed = capsys.readouterr()
        said = [line for line in printed.err.splitlines() if line.startswith("airflow-resilient")]
        return code, printed.out + "\n".join(said)  # where Airflow is loaded, other lines are logged, too

    return unstick


# Where a test unlinks the memory of looks, the next one counts by Airflow's own times, as the first one does;
# what was done is kept.


def stuck(airflow, **more):
    airflow.instances.append(instance(**more))


def haunt(airflow, state="success", **more):
    """A queued task instance of an ended run fills a pool."""
    airflow.runs["run-9"] = state
    airflow.pools["small"] = (1, 1)
    ghost = instance("gone", dag_run_id="run-9", pool="small", **{"queued_when": iso(9 * HOUR), **more})
    airflow.instances += [waits_for_pool(), ghost]


# --- a dry run ------------------------------------------------------------------------------------------


def test_nothing_to_do(unstick, airflow):
    code, printed = unstick("--apply")
    assert (code, airflow.changes) == (0, [])
    assert "nothing to do." in printed


def test_a_dry_run_says_what_it_would_do_and_changes_nothing(unstick, airflow, memory):
    stuck(airflow)
    haunt(airflow)
    code, printed = unstick()
    assert code == 1
    assert airflow.changes == []
    assert {method for method, path in airflow.asked if path not in LISTINGS} == {"GET"}
    assert "WOULD BE CLEARED: etl / run-1 / load [not-started]  since " in printed
    assert "WOULD BE SKIPPED: etl / run-9 / gone [run-ended]  since " in printed
    assert f"sends: POST /api/v{2 if airflow.v2 else 1}/dags/etl/clearTaskInstances" in printed
    assert printed.rstrip().endswith("1 would be skipped, 1 would be cleared; --apply does it.")
    assert not memory.with_name("memory.acted").exists()


def test_a_dry_run_needs_no_memory(airflow, capsys):
    stuck(airflow)
    assert main(["unstick", "--queues-have-workers", "--airflow-url", airflow.url]) == 1
    assert "WOULD BE CLEARED" in capsys.readouterr().out


def test_without_a_memory_nothing_is_applied(airflow, capsys):
    stuck(airflow)
    assert main(["unstick", "--airflow-url", airflow.url, "--apply"]) == 2
    assert "--apply needs --memory FILE" in capsys.readouterr().err
    assert airflow.asked == []


# --- what is done ---------------------------------------------------------------------------------------


def test_what_the_executor_has_lost_is_cleared_in_its_run_alone_and_noted(unstick, airflow, memory):
    stuck(airflow, note="ask Ada first")
    code, printed = unstick("--apply")
    assert code == 0, printed
    assert "CLEARED: etl / run-1 / load [not-started]" in printed
    assert "now:   Airflow says: cleared, try 1" in printed
    (_, _, asked), (_, path, cleared), (_, noted_at, note) = airflow.changes
    assert (asked["dry_run"], cleared["dry_run"], path) == (True, False, "/dags/etl/clearTaskInstances")
    assert (cleared["task_ids"], cleared["dag_run_id"]) == (["load"], "run-1")
    assert cleared["reset_dag_runs"] is False
    assert noted_at == "/dags/etl/dagRuns/run-1/taskInstances/load" + ("" if airflow.v2 else "/setNote")
    assert note["note"].startswith("ask Ada first\nairflow-resilient unstick, 2")
    assert list(note) == ["note"]
    (act,) = load(memory.with_name("memory.acted"), airflow.url).acts
    assert (act.do, act.outcome, act.try_number) == ("clear", "done", 1)


def test_a_ghost_is_skipped_and_nobody_else_is(unstick, airflow):
    haunt(airflow)
    code, printed = unstick("--apply")
    assert code == 0, printed
    assert "SKIPPED: etl / run-9 / gone [run-ended]" in printed
    assert airflow.sent[0] == ("PATCH", "gone")
    assert airflow.changes[0][2]["new_state"] == "skipped"
    assert [each["state"] for each in airflow.instances] == ["scheduled", "skipped"]
    assert airflow.runs["run-9"] == "success"


def test_a_ghost_of_a_failed_run_is_freed_without_a_task_instance_being_marked(unstick, airflow):
    haunt(airflow, "failed")
    airflow.instances.append(instance("broken", dag_run_id="run-9", state="failed"))
    code, printed = unstick("--apply")
    assert code == 0, printed
    assert airflow.changes[0] == ("PATCH", "/dags/etl/dagRuns/run-9", {"state": "failed"})
    assert "FREED WITH ITS RUN: etl / run-9 / gone [run-ended]" in printed


HALF_DEAD = ("upstream_failed", "running")


@pytest.mark.parametrize(
    ("state", "others"),
    [
        ("success", [instance("broken", dag_run_id="run-9", state="failed")]),
        ("failed", [instance(each, dag_run_id="run-9", state=each) for each in HALF_DEAD]),
    ],
)
def test_what_would_wake_a_run_or_end_what_works_is_left_to_a_person(unstick, airflow, state, others):
    haunt(airflow, state)
    airflow.instances += others
    code, printed = unstick("--apply", "--cause", "run-ended")
    assert (code, airflow.changes) == (1, [])
    assert "FOR A PERSON: etl / run-9 / gone [run-ended]" in printed
    assert "look at that run first" in printed


def test_a_second_run_finds_nothing_to_do(unstick, airflow):
    stuck(airflow)
    assert unstick("--apply")[0] == 0
    airflow.instances[0].update(state="running", try_number=2, start_date=iso())
    before = len(airflow.changes)
    code, printed = unstick("--apply")
    assert (code, len(airflow.changes)) == (0, before), printed


def test_a_next_try_that_is_stuck_again_is_told_and_not_cleared(unstick, airflow, memory):
    stuck(airflow)
    assert unstick("--apply")[0] == 0
    airflow.instances[0].update(state="queued", try_number=2, queued_when=iso(HOUR))
    before = len(airflow.changes)
    memory.unlink()
    code, printed = unstick("--apply")
    assert (code, len(airflow.changes)) == (1, before)
    assert "clear was done at " in printed
    assert "it is stuck again: a restart of the scheduler may help" in " ".join(printed.split())


def test_a_map_index_is_cleared_alone_or_not_at_all(unstick, airflow):
    airflow.instances += [instance(map_index=0, state="success"), instance(map_index=1)]
    code, printed = unstick("--apply")
    if airflow.v2:
        assert code == 0, printed
        assert airflow.changes[1][2]["task_ids"] == [["load", 1]]
    else:
        assert code == 1
        assert "Airflow would clear 2 task instances with it, and not it alone" in printed
        assert airflow.sent == []
    assert airflow.instances[0]["state"] == "success"


def test_no_more_is_done_than_may_be(unstick, airflow, memory):
    airflow.instances += [instance(f"t{number}") for number in range(4)]
    code, printed = unstick("--apply", "--at-most", "3")
    assert code == 1
    assert sum(method == "POST" for method, _ in airflow.sent) == 3
    assert "LATER: etl / run-1 / t3" in printed
    memory.unlink()
    assert unstick("--apply", "--at-most-hourly", "3")[0] == 1
    assert sum(method == "POST" for method, _ in airflow.sent) == 3


def test_other_dags_are_left_alone(unstick, airflow):
    stuck(airflow)
    assert unstick("--apply", "--dag", "prod_*")[0] == 0
    assert airflow.changes == []


def test_json_has_everything(unstick, airflow):
    stuck(airflow)
    code, printed = unstick("--apply", "--json")
    found = json.loads(printed)
    assert (code, found["exit_code"], found["applied"]) == (0, 0, True)
    (each,) = found["actions"]
    assert (each["do"], each["outcome"], each["cause"]) == ("clear", "done", "not-started")
    assert (each["dag_id"], each["run_id"], each["task_id"]) == ("etl", "run-1", "load")
    assert (each["map_index"], each["try_number"]) == (-1, 1)
    assert each["request"]["path"] == "/dags/etl/clearTaskInstances"


# --- what is not known ----------------------------------------------------------------------------------


def test_without_a_scheduler_nothing_is_cleared_and_a_restart_comes_first(unstick, airflow):
    stuck(airflow)
    airflow.scheduler = HOUR
    code, printed = unstick("--apply")
    assert (code, airflow.changes) == (1, [])
    assert "restart the scheduler first: airflow scheduler" in printed


@pytest.mark.parametrize("part", ["/dags", "/pools", "/health", "/dags/~/dagRuns", "/taskInstances"])
def test_what_cannot_be_read_is_unknown_and_nothing_is_done(unstick, airflow, part):
    stuck(airflow)
    airflow.answers["GET", part] = (403, {"detail": "no"})
    code, printed = unstick("--apply")
    assert (code, airflow.changes) == (2, [])
    assert "UNKNOWN: Airflow" in printed


def test_a_run_of_a_ghost_that_cannot_be_read_is_unknown(unstick, airflow):
    haunt(airflow)
    airflow.answers["GET", "/dagRuns/run-9"] = (500, {})
    code, printed = unstick("--apply")
    assert (code, airflow.changes) == (2, [])
    assert "nothing is done: the run of etl / run-9 / gone" in printed


def test_an_airflow_that_does_not_answer_is_unknown(capsys, tmp_path):
    arguments = ["--apply", "--memory", str(tmp_path / "memory")]
    assert main(["unstick", "--airflow-url", "http://127.0.0.1:9", *arguments]) == 2
    assert "UNKNOWN: Airflow" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 99, "url": "", "acts": []}'])
def test_where_what_was_done_cannot_be_read_nothing_is_done(unstick, airflow, memory, text):
    stuck(airflow)
    memory.with_name("memory.acted").write_text(text)
    code, printed = unstick("--apply")
    assert (code, airflow.changes) == (2, [])
    assert "it says what was done already, so nothing is done" in printed
    assert memory.with_name("memory.acted").read_text() == text


def test_what_was_done_to_another_airflow_is_kept(unstick, airflow, memory):
    stuck(airflow)
    other = {"format": 1, "url": "http://other", "acts": []}
    memory.with_name("memory.acted").write_text(json.dumps(other))
    code, printed = unstick("--apply")
    assert (code, airflow.changes) == (2, [])
    assert "is about another Airflow, http://other" in printed
    assert json.loads(memory.with_name("memory.acted").read_text()) == other


def test_what_cannot_be_written_down_is_not_done(unstick, airflow, memory):
    stuck(airflow)

    def lose_the_folder(body):
        if memory.parent.exists():
            memory.parent.rename(memory.parent.with_name(f"{memory.parent.name}-gone"))

    airflow.answers["GET", "/taskInstances/load"] = lose_the_folder
    code, printed = unstick("--apply")
    assert (code, airflow.sent) == (2, [])
    assert "nothing was sent: it could not be written down" in printed


# --- what has changed, and what Airflow refuses ---------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"state": "running"}, "it is running now, try 1"),
        ({"state": None}, "it is cleared now, try 1"),
        ({"try_number": 2}, "it is queued now, try 2"),
        ({"queued_when": iso(5)}, "it was queued again meanwhile"),
    ],
)
def test_what_has_changed_since_the_look_is_left_alone(unstick, airflow, changed, words):
    stuck(airflow)
    airflow.answers["GET", "/taskInstances/load"] = lambda body: airflow.instances[0].update(changed)
    code, printed = unstick("--apply")
    assert (code, airflow.sent) == (0, []), printed
    assert "LEFT ALONE: etl / run-1 / load" in printed
    assert words in printed


def test_what_is_gone_is_left_alone(unstick, airflow):
    stuck(airflow)
    airflow.answers["GET", "/taskInstances/load"] = (404, {**NOT_FOUND, "detail": "it was not found"})
    code, printed = unstick("--apply")
    assert (code, airflow.sent) == (0, []), printed
    assert "it does not exist any more" in printed


def test_a_run_that_goes_on_meanwhile_is_left_alone(unstick, airflow):
    haunt(airflow)
    airflow.answers["GET", "/taskInstances/gone"] = lambda body: airflow.runs.update({"run-9": "running"})
    code, printed = unstick("--apply")
    assert (code, airflow.changes) == (0, []), printed
    assert "has changed: it is running" in printed


@pytest.mark.parametrize(
    ("status", "code", "outcome", "words"),
    [
        (403, 1, "refused", "the account needs the permission to edit task instances and DAG runs"),
        (404, 1, "refused", "404"),
        (409, 1, "refused", "409"),
        (422, 1, "refused", "422"),
        (408, 2, "unclear", "Airflow may have done it; it is not sent again"),
        (500, 2, "unclear", "Airflow may have done it; it is not sent again"),
        (502, 2, "unclear", "Airflow may have done it; it is not sent again"),
        (200, 2, "unclear", "Airflow may have done it; it is not sent again"),
    ],
)
def test_what_airflow_refuses_is_said_and_what_is_unclear_is_never_sent_again(
    unstick, airflow, memory, monkeypatch, status, code, outcome, words
):
    monkeypatch.setattr("airflow_resilient.operations.unstick.ATTEMPTS", 3)
    airflow.instances += [instance(), instance("next", queued_when=iso(HOUR / 2))]

    def refuse(body):
        return None if body["dry_run"] or body["task_ids"] != ["load"] else (status, "<html>")

    airflow.answers["POST", "/clearTaskInstances"] = refuse
    found, printed = unstick("--apply")
    assert found == code, printed
    assert words in printed
    path = memory.with_name("memory.acted")
    acts = load(path, airflow.url).acts
    assert [act.outcome for act in acts] == [outcome] + (["done"] if outcome == "refused" else [])
    assert airflow.sent.count(("POST", "clearTaskInstances")) == len(acts)
    if outcome == "unclear":
        assert "LATER: etl / run-1 / next" in printed
        airflow.answers.clear()
        memory.unlink()
        _, printed = unstick("--apply")
        assert "without knowing whether Airflow did it, and it still waits" in printed
        cleared = [body["task_ids"] for _, path, body in airflow.changes if body.get("dry_run") is False]
        assert cleared == [["load"], ["next"]]


def test_an_answer_that_does_not_come_is_unknown_and_the_request_is_not_repeated(
    unstick, airflow, monkeypatch
):
    monkeypatch.setattr("airflow_resilient.operations.unstick.ATTEMPTS", 3)
    stuck(airflow)

    def hang_up(body):
        if not body["dry_run"]:
            raise ConnectionAbortedError

    airflow.answers["POST", "/clearTaskInstances"] = hang_up
    code, printed = unstick("--apply")
    assert code == 2
    assert "Airflow may have done it; it is not sent again" in printed
    assert airflow.sent == [("POST", "clearTaskInstances")]


def test_a_dry_run_of_airflow_that_is_refused_ends_it(unstick, airflow):
    stuck(airflow)
    airflow.answers["POST", "/clearTaskInstances"] = (403, {"detail": "no"})
    code, printed = unstick("--apply")
    assert (code, airflow.sent) == (1, [])
    assert "permission to edit task instances" in printed


@pytest.mark.parametrize("note", ["p" * 1000, "p" * 990])
def test_a_note_without_room_stays_as_it_is_and_that_is_said(unstick, airflow, note):
    stuck(airflow, note=note)
    code, printed = unstick("--apply")
    assert (code, airflow.instances[0]["note"]) == (1, note)
    assert "note:  not written: there is no room for it" in printed


def test_a_note_that_is_refused_is_said_and_the_action_counts(unstick, airflow, memory):
    stuck(airflow)
    airflow.answers["PATCH", ""] = (403, {"detail": "no"})
    code, printed = unstick("--apply")
    assert code == 1
    assert "CLEARED: etl / run-1 / load" in printed
    assert "note:  not written: " in printed
    assert [act.outcome for act in load(memory.with_name("memory.acted"), airflow.url).acts] == ["done"]


# --- killed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [True, False], ids=["after-airflow-did-it", "before-airflow-did-it"])
def test_a_process_that_is_killed_while_it_acts_acts_no_second_time(unstick, airflow, memory, done):
    stuck(airflow)
    arguments = [
        "unstick",
        "--queues-have-workers",
        "--apply",
        "--airflow-url",
        airflow.url,
        "--memory",
        str(memory),
    ]
    process = []
    started = threading.Event()

    def kill(body):
        if body["dry_run"]:
            return None
        assert started.wait(60)
        process[0].send_signal(signal.SIGKILL)
        return None if done else (500, {})

    airflow.answers["POST", "/clearTaskInstances"] = kill
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process.append(subprocess.Popen([sys.executable, "-m", "airflow_resilient", *arguments], env=environment))
    started.set()
    assert process[0].wait(60) == -signal.SIGKILL
    (act,) = load(memory.with_name("memory.acted"), airflow.url).acts
    assert (act.outcome, act.try_number) == ("intended", 1)

    airflow.answers.clear()
    memory.unlink()
    if done:  # and its next try is stuck as well
        airflow.instances[0].update(state="queued", try_number=2, queued_when=iso(HOUR))
    code, printed = unstick("--apply")
    assert code == 1, printed
    assert airflow.sent == [("POST", "clearTaskInstances")]
    assert "FOR A PERSON: etl / run-1 / load [not-started]" in printed


def test_neither_airflow_nor_a_service_is_imported(airflow, memory, imported_by):
    stuck(airflow)
    options = ["--queues-have-workers", "--apply", "--memory", str(memory), "--airflow-url", airflow.url]
    script = f"from airflow_resilient.cli import main\nmain(['unstick', *{options!r}])"
    assert imported_by(script) == {"httpx"}
