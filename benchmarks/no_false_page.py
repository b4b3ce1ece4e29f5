"""Watch a real Airflow through a day's ordinary disturbances, and count the pages: none is wanted.

A deploy that restarts every process, a pause, a DAG at ``max_active_runs`` for longer than its interval, a
catch-up of fifty runs, new DAG files, an API server that is away for a minute, a second scheduler that comes
and goes, an expired token. Limits are those by default; a look is taken every few seconds instead of every
minute, so a page that lasts for a moment is seen, too. Beside it stands how often Airflow's own health page
was not green.

Usage: ``python benchmarks/no_false_page.py [--minutes 15]``, with Debian's ``postgresql``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "matrix"))
import servers

from airflow_resilient.operations.airflow_api import AirflowApi
from airflow_resilient.operations.examine import examine
from airflow_resilient.operations.health import Severity
from airflow_resilient.operations.limits import Limits
from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

DAG = """\
import time
from datetime import datetime, timedelta, timezone
from airflow.providers.common.compat.sdk import DAG, BaseOperator

class Work(BaseOperator):
    def __init__(self, *, seconds, **kwargs):
        super().__init__(**kwargs)
        self.seconds = seconds

    def execute(self, context):
        time.sleep(self.seconds)

START = datetime.now(timezone.utc).replace(second=0, microsecond=0) - timedelta(minutes={back})
with DAG("{name}", schedule="* * * * *", start_date=START, catchup={catchup}, max_active_runs={most}):
    Work(task_id="work", seconds={seconds})
"""
EVERY = 5.0


@dataclass
class Watch:
    """Looks at an Airflow, and what they have found in each phase."""

    airflow: LocalAirflow
    memory: Path
    phase: str = ""
    looks: Counter[str] = field(default_factory=Counter)
    found: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    not_green: Counter[str] = field(default_factory=Counter)

    def look(self) -> None:
        """Take one look."""
        with contextlib.closing(AirflowApi(self.airflow.url, timeout=20.0, attempts=1)) as api:
            examined = examine(api, Limits(), self.memory)
        self.looks[self.phase] += 1
        for each in examined.findings:
            self.found[self.phase, each.severity.value, each.kind.value] += 1
            if each.severity is Severity.PAGE:
                print(f"PAGE in {self.phase}: {each.kind.value}: {each.subject}: {each.evidence}")
        if not self.green():
            self.not_green[self.phase] += 1

    def green(self) -> bool:
        """Whether Airflow's own health page answers, and everything on it is healthy."""
        try:
            with urllib.request.urlopen(f"{self.airflow.url}/api/v2/monitor/health", timeout=10) as answer:  # noqa: S310 - http
                found = json.load(answer)
        except OSError:
            return False
        return all(each.get("status") in ("healthy", None) for each in found.values())

    def during(self, seconds: float) -> None:
        """Look again and again."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            self.look()
            time.sleep(max(0.0, min(began + EVERY, until) - time.monotonic()))


def write(
    dags: Path, name: str, *, back: int = 0, catchup: bool = False, most: int = 16, seconds: float = 0
) -> None:
    """Put a DAG file into the folder, as a whole."""
    text = DAG.format(name=name, back=back, catchup=catchup, most=most, seconds=seconds)
    (dags / f".{name}").write_text(text)
    (dags / f".{name}").rename(dags / f"{name}.py")


def pause(watch: Watch, name: str, *, paused: bool) -> None:
    """Pause a DAG, or go on with it."""
    watch.airflow.request("PATCH", f"/dags/{name}?update_mask=is_paused", {"is_paused": paused})


@contextlib.contextmanager
def second_scheduler(airflow: LocalAirflow) -> Iterator[None]:
    """One more scheduler beside the first."""
    command = [sys.executable, "-m", "airflow", "scheduler", "--skip-serve-logs"]
    log = (airflow.home / "second-scheduler.log").open("wb")
    with log, subprocess.Popen(command, env=airflow.environment, stdout=log, stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()


def phases(watch: Watch, dags: Path, share: float) -> list[tuple[str, Callable[[], None]]]:
    """What happens, in this order.

    :param share: of the usual lengths.
    """
    airflow = watch.airflow

    def deploy() -> None:
        for component in reversed(airflow.components):
            airflow.stop(component)
            watch.look()
            airflow.start(component)
            watch.during(10 * share)
        for path in dags.glob("*.py"):
            path.write_text(path.read_text())
        watch.during(60 * share)

    def paused() -> None:
        pause(watch, "minutely", paused=True)
        watch.during(150 * share)
        pause(watch, "minutely", paused=False)
        watch.during(60 * share)

    def catch_up() -> None:
        write(dags, "catches_up", back=50, catchup=True, seconds=1)
        watch.during(150 * share)

    def away() -> None:
        airflow.stop(airflow.components[0])
        watch.during(60)
        airflow.start(airflow.components[0])
        watch.during(60 * share)

    def peer() -> None:
        with second_scheduler(airflow):
            watch.during(90 * share)
        watch.during(90 * share)

    def gone() -> None:
        (dags / "catches_up.py").unlink()
        watch.during(90 * share)

    def expired() -> None:
        with contextlib.closing(AirflowApi(airflow.url, token="expired", attempts=1)) as api:  # noqa: S106
            examined = examine(api, Limits(), watch.memory)
        for each in examined.findings:
            watch.found[watch.phase, each.severity.value, each.kind.value] += 1
        watch.looks[watch.phase] += 1
        watch.during(15 * share)

    return [
        (
            "nothing happens; a DAG is at max_active_runs for longer than its interval",
            lambda: watch.during(120 * share),
        ),
        ("every process is restarted, and all DAG files are written again", deploy),
        ("a DAG is paused, and goes on", paused),
        ("a DAG catches up fifty runs", catch_up),
        ("its file is deleted", gone),
        ("the API server is away for a minute", away),
        ("a second scheduler comes and goes", peer),
        ("the token has expired, and is renewed", expired),
        ("nothing happens", lambda: watch.during(60 * share)),
    ]


def main() -> None:
    """Run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=18.0, help="about; default: %(default)s")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="no-false-page-")))
        dags = folder / "dags"
        dags.mkdir()
        write(dags, "minutely")
        write(dags, "longer_than_its_interval", most=1, seconds=150)
        url = stack.enter_context(servers.postgresql("airflow"))("airflow")
        package = str(Path(__file__).parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        airflow = LocalAirflow(dags, database_url=url, environment={"PYTHONPATH": path}, progress=print)
        stack.enter_context(airflow)
        airflow.wait_for_dag("longer_than_its_interval")
        watch = Watch(airflow, folder / "memory")
        for name, act in phases(watch, dags, options.minutes / 18.0):
            watch.phase = name
            print(f"--- {name}", flush=True)
            act()
    print("\n| what happens | looks | pages | tickets | unknown | Airflow's health page was not green |")
    print("|---|---|---|---|---|---|")
    for name, looks in watch.looks.items():
        counts = [
            sum(
                count
                for (phase, severity, _), count in watch.found.items()
                if (phase, severity) == (name, each.value)
            )
            for each in Severity
        ]
        print(f"| {name} | {looks} | {' | '.join(map(str, counts))} | {watch.not_green[name]} |")
    for (phase, severity, kind), count in watch.found.items():
        print(f"{phase}: {severity} {kind}: {count}")
    sys.exit(any(severity == Severity.PAGE.value for _, severity, _ in watch.found))


if __name__ == "__main__":
    main()
