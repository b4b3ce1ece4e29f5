"""A canary on a real Airflow: its beats arrive, and a triggerer that runs nothing is found by its leg.

The recipe is run every minute instead of every ten. A triggerer that beats and runs nothing is hard to make:
it is stopped, and the limit for heartbeats is so long that only the canary tells of it.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_resilient.compat import airflow_version
from airflow_resilient.operations.airflow_api import AirflowApi
from airflow_resilient.operations.check import format_findings
from airflow_resilient.operations.examine import examine
from airflow_resilient.operations.limits import Limits
from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_resilient.operations.health import Finding
    from airflow_resilient.operations.snapshot import Snapshot
    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

DAG = "airflow_resilient_canary"
LIMITS = Limits(heartbeat=3600.0, triggerer=3600.0, canary=100.0)
RECIPES = Path(__file__).parents[3] / "docs" / "recipes"
RECIPE = RECIPES / "know-that-tasks-really-run.py"
SECRET = "b4f5c9b2-0000-4000-8000-secretsecret"


@pytest.fixture(scope="module")
def switch() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A dead man's switch on loopback: its URL, and what it got."""
    beats: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            beats.append((self.path, self.rfile.read(int(self.headers["Content-Length"])).decode()))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/ping/{SECRET}", beats
        server.shutdown()
        thread.join()


@dataclass
class Story:
    """What was seen, one after the other."""

    airflow: LocalAirflow
    memory: Path
    beats: list[tuple[str, str]]
    last: Snapshot | None = None
    seen: dict[str, str] = field(default_factory=dict)
    finding: Finding | None = None
    shown: list[str] = field(default_factory=list)
    most_requests: int = 0

    def look(self) -> dict[str, Finding]:
        """Findings by kind and subject."""
        with contextlib.closing(AirflowApi(self.airflow.url, timeout=20.0, attempts=1)) as api:
            examined = examine(api, LIMITS, self.memory)
        self.last = examined.snapshot
        self.most_requests = max(self.most_requests, self.last.requests)
        found = {f"{each.kind.value}/{each.subject}": each for each in examined.findings}
        self.seen |= {name: each.evidence for name, each in found.items()}
        return found

    def until(self, there: Callable[[dict[str, Finding]], object]) -> dict[str, Finding]:
        """Look until something is there."""
        began = time.monotonic()
        while time.monotonic() - began < HANG:
            if there(found := self.look()):
                return found
            time.sleep(0.5)
        raise AssertionError(f"found {self.seen}; {self.last and self.last.legs}")

    def until_a_beat(self) -> None:
        """Look until one more beat has arrived."""
        count = len(self.beats)
        self.until(lambda _: len(self.beats) > count)


@pytest.fixture(scope="module")
def story(make_airflow, switch, tmp_path_factory) -> Iterator[Story]:
    """Run the canary, stop the triggerer, and let it go on; the tests only read what was seen."""
    url, beats = switch
    dags = tmp_path_factory.mktemp("dags")
    with make_airflow(dags) as airflow:
        airflow.request("POST", "/variables", {"key": "canary_url_secret", "value": url})
        (dags / RECIPE.name).write_text(RECIPE.read_text().replace('"10m"', '"1m"'))
        story = Story(airflow, tmp_path_factory.mktemp("memory") / "memory", beats)
        story.until_a_beat()
        began = time.monotonic()
        airflow.kill("triggerer", signal.SIGSTOP)
        late = f"canary-late/{DAG}"
        story.finding = story.until(lambda found: late in found)[late]
        assert story.last is not None
        story.shown = format_findings(story.last, [story.finding], time.time())
        print(f"seen after {time.monotonic() - began:.0f} s", *story.shown, sep="\n")
        airflow.kill("triggerer", signal.SIGCONT)
        story.until_a_beat()
        story.until(lambda found: not found)
        print(f"recovered after {time.monotonic() - began:.0f} s")
        yield story


def test_all_legs_succeed_and_the_beat_arrives(story):
    assert story.beats
    assert set(story.beats) == {(f"/ping/{SECRET}", f"{DAG}: all legs have succeeded")}
    assert [leg.leg for leg in story.last.legs] == ["queue-default", "triggerer"]
    assert all(leg.succeeded for leg in story.last.legs)


def test_a_triggerer_that_runs_nothing_is_found_by_its_leg_alone(story):
    assert story.finding.cause == "a triggerer sends heartbeats, and runs nothing"
    assert story.finding.next_step == "restart it: airflow triggerer"
    assert story.finding.evidence.startswith("1 of 2 legs has not succeeded for 1 min 4")
    assert list(story.seen) == [f"canary-late/{DAG}"]


def test_the_canary_takes_one_request(story):
    assert story.most_requests <= 12 + 1 + 1, "and a login, and the canary"


def test_no_log_shows_the_url_of_the_switch(story):
    logs = [path for path in story.airflow.home.rglob("*.log") if path.is_file()]
    assert any("airflow_resilient_canary" in str(path) for path in logs)
    assert not [path for path in logs if SECRET in path.read_text(errors="replace")]


@pytest.mark.skipif(airflow_version() < (3, 3), reason="the page shows what is printed on Airflow 3.3")
def test_the_page_shows_what_is_printed(story):
    def plain(line: str) -> str:
        line = re.sub(r"https?://[\w.:]+", "URL", line)
        return re.sub(r"\d+", "0", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", line)).strip()

    page = RECIPE.with_suffix(".md").read_text()
    (block,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    printed = {plain(line) for line in story.shown}
    assert [line for line in filter(None, block.splitlines()) if plain(line) not in printed] == []
