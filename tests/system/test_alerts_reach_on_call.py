"""From a scheduler that stands still to the page of whoever is on call, and back: every part is real.

Airflow, ``airflow-resilient export``, Prometheus with our rules, Alertmanager with our example, a webhook,
and Chromium for the page. Times in the files are shortened: minutes are seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import servers

from airflow_resilient.operations.alerts import GONE, WATCHDOG
from airflow_resilient.operations.shipped_files import text_of
from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

PROGRAMS = ("prometheus", "prometheus-alertmanager", "chromium")
pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)) and not servers.required(),
    reason=f"not installed: {', '.join(name for name in PROGRAMS if not shutil.which(name))}",
)
MARKUP = "<b>bold<b>.py"


@dataclass
class OnCall:
    """What has arrived at the webhook: where, whether it fires, its name and its labels."""

    arrived: list[tuple[str, str, str, dict[str, str]]] = field(default_factory=list)

    def last(self, alert: str) -> tuple[str, str] | None:
        """Where the alert has arrived the last time, and whether it fired or was resolved."""
        found = [(path, status) for path, status, name, _ in self.arrived if name == alert]
        return found[-1] if found else None

    def wait_for(self, alert: str, path: str, status: str) -> None:
        until = time.monotonic() + HANG
        while self.last(alert) != (path, status):
            assert time.monotonic() < until, f"{alert}: wanted {path} {status}, arrived {self.arrived}"
            time.sleep(0.2)


@contextlib.contextmanager
def webhook() -> Iterator[tuple[int, OnCall]]:
    """A receiver of Alertmanager's notifications."""
    on_call = OnCall()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for each in body["alerts"]:
                name = each["labels"]["alertname"]
                on_call.arrived.append((self.path, each["status"], name, each["labels"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, on_call
        server.shutdown()


@dataclass
class Watch:
    """An Airflow, and everything that watches it."""

    airflow: LocalAirflow
    exporter: int
    on_call: OnCall
    home: Path
    running: Any = None
    process: Any = None

    def start(self) -> None:
        """Start the exporter."""
        command = [sys.executable, "-m", "airflow_resilient", "export", "--airflow-url", self.airflow.url]
        command += ["--listen", f"127.0.0.1:{self.exporter}", "--every", "5s", "--limit", "heartbeat=15s"]
        log = self.home / "exporter.log"
        self.running = contextlib.ExitStack()
        self.process = self.running.enter_context(servers.server(command, log, self.has_looked))

    def has_looked(self) -> bool:
        """Whether the exporter has something to tell."""
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self.exporter}/metrics"
            with urllib.request.urlopen(url, timeout=HANG) as answer:
                return b"\nairflow_resilient_up 1.0\n" in answer.read()
        return False

    def stop(self) -> None:
        """Stop the exporter, as systemd does. (SIGINT is ignored where tests run in the background.)"""
        self.process.terminate()
        self.process.wait(HANG)
        self.running.close()

    def browse(self, *options: str) -> str:
        """What Chromium makes of the page."""
        done = subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                f"--user-data-dir={self.home / 'chromium'}",
                *options,
                f"http://127.0.0.1:{self.exporter}/",
            ],
            capture_output=True,
            text=True,
            timeout=HANG,
            check=True,
            env={**os.environ, "HOME": str(self.home)},
        )
        return done.stdout


def configured(name: str, home: Path, **replaced: str) -> Path:
    """A shipped file, with what is replaced in it."""
    text = text_of(name)
    for old, new in replaced.items():
        assert re.search(old, text), f"{old} is not in {name}"
        text = re.sub(old, new, text)
    path = home / name
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def watch(make_airflow, tmp_path_factory) -> Iterator[Watch]:
    dags, home = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("watch")
    (dags / "each_minute.py").write_text(
        "from datetime import datetime, timezone\n"
        "from airflow.providers.common.compat.sdk import DAG, BaseOperator\n"
        "class Nothing(BaseOperator):\n"
        "    def execute(self, context):\n"
        "        pass\n"
        "with DAG('each_minute', schedule='* * * * *', start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), "
        "catchup=False):\n"
        "    Nothing(task_id='work')\n"
    )
    exporter, prometheus, alertmanager = (servers.free_port() for _ in range(3))
    with contextlib.ExitStack() as stack:
        port, on_call = stack.enter_context(webhook())
        airflow = stack.enter_context(make_airflow(dags))
        airflow.wait_for_dag("each_minute")
        (dags / MARKUP).write_text("from airflow.nowhere import DAG\n")
        seconds = {r"(group_wait|group_interval|repeat_interval): \w+": r"\1: 1s"}
        example = {**seconds, r"127\.0\.0\.1:9/": f"127.0.0.1:{port}/"}
        config = configured("alertmanager.yml", home, **example)
        command = ["prometheus-alertmanager", f"--config.file={config}", f"--storage.path={home / 'am'}"]
        command += [f"--web.listen-address=127.0.0.1:{alertmanager}", "--cluster.listen-address="]
        stack.enter_context(
            servers.server(command, home / "alertmanager.log", lambda: servers.answers(alertmanager))
        )
        configured("airflow-resilient.rules.yml", home, **{r"for: \d+m": "for: 10s"})
        ports = {"127.0.0.1:9093": f"127.0.0.1:{alertmanager}", "127.0.0.1:9112": f"127.0.0.1:{exporter}"}
        config = configured("prometheus.yml", home, **ports, **{"interval: 30s": "interval: 1s"})
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={home / 'tsdb'}"]
        command += [f"--web.listen-address=127.0.0.1:{prometheus}"]
        made = Watch(airflow, exporter, on_call, home)
        made.start()
        stack.callback(made.stop)
        stack.enter_context(
            servers.server(command, home / "prometheus.log", lambda: servers.answers(prometheus))
        )
        yield made


@pytest.fixture(scope="module")
def story(watch) -> dict[str, Any]:
    """Break and mend; the tests read what has arrived."""
    story: dict[str, Any] = {}
    on_call = watch.on_call
    on_call.wait_for(WATCHDOG, "/dead-mans-switch", "firing")
    on_call.wait_for("AirflowImportError", "/tickets", "firing")
    story["well"] = [name for path, _, name, _ in on_call.arrived if path == "/on-call"]
    story["page"] = watch.browse("--dump-dom")
    watch.browse(f"--screenshot={watch.home / 'page.png'}", "--window-size=1000,1400")

    began = time.monotonic()
    watch.airflow.kill("scheduler", signal.SIGSTOP)
    on_call.wait_for("AirflowHeartbeatLost", "/on-call", "firing")
    story["paged after"] = time.monotonic() - began
    story["stopped"] = watch.browse("--dump-dom")
    began = time.monotonic()
    watch.airflow.kill("scheduler", signal.SIGCONT)
    on_call.wait_for("AirflowHeartbeatLost", "/on-call", "resolved")
    story["resolved after"] = time.monotonic() - began

    story["before the exporter ends"] = len(on_call.arrived)
    watch.stop()
    on_call.wait_for(GONE, "/on-call", "firing")
    watch.start()
    on_call.wait_for(GONE, "/on-call", "resolved")
    print({name: value for name, value in story.items() if isinstance(value, float)})
    return story


def test_of_a_healthy_airflow_nobody_is_paged_and_the_broken_file_is_a_ticket(story):
    assert story["well"] == []


def test_a_scheduler_that_stands_still_is_one_page_which_names_it_and_ends_with_it(story, watch):
    until = story["before the exporter ends"]
    pages = [
        (status, name, labels)
        for path, status, name, labels in watch.on_call.arrived[:until]
        if path == "/on-call"
    ]
    assert {name for _, name, _ in pages} == {"AirflowHeartbeatLost"}
    assert {labels["subject"] for _, _, labels in pages} == {"scheduler"}
    assert pages[-1][0] == "resolved"


def test_the_page_in_a_browser_shows_the_finding_and_its_next_step(story):
    page = story["stopped"]
    assert "PAGE heartbeat-lost: scheduler" in re.sub(r"<[^>]*>", "", page)
    assert "restart it: airflow scheduler" in page


def test_a_name_with_markup_is_text_in_a_browser(story):
    assert "&lt;b&gt;bold&lt;b&gt;.py" in story["page"]
    assert "<b>" not in story["page"]


def test_the_page_answers_the_four_questions(story):
    text = re.sub(r"<[^>]*>", " ", story["page"])
    for words in ("Is it scheduling?", "What is the delay?", "What is slowest?", "Is anything stuck?"):
        assert words in text
    assert "each_minute" in text
    assert "default_pool" in text


def test_the_page_is_drawn(story, watch):
    assert (watch.home / "page.png").stat().st_size > 20_000
