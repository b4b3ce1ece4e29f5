"""Run the benchmark of watching: ``python -m watching``, from the folder ``benchmarks``.

Results go to ``docs/_generated/watch-benchmark.json``, the tables beside it, pictures to ``docs/_static/``,
unless ``--output`` says otherwise. It takes about twenty minutes; ``--quick`` takes a few seconds and writes
nothing. ``--render`` draws tables and pictures again from the results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from typing_extensions import Self

from watching import cases, operators, report

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"


def environment_for(port: int, home: str, more: Mapping[str, str]) -> dict[str, str]:
    """Airflow's and boto3's environment: the fake endpoint, no logs, nothing of the user's."""
    connection = {
        "conn_type": "aws",
        "login": "AKIAFAKE",
        "password": "not-a-secret",
        "extra": {"region_name": "us-east-1", "endpoint_url": f"http://127.0.0.1:{port}"},
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")])),
        "PYTHONWARNINGS": "ignore",
        "NO_PROXY": "127.0.0.1",
        "AIRFLOW_HOME": home,
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE": "benchmark",
        "AWS_EC2_METADATA_DISABLED": "true",
        **{name: value.replace("@PORT@", str(port)) for name, value in more.items()},
    }


class Endpoint:
    """The fake endpoint as a process of its own; ``port`` is where it listens."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "watching.endpoint", json.dumps(settings)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        )
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        self.port = int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def run_one(run: cases.Run) -> dict[str, Any]:
    """Measure a case in a process of its own; ``"error"`` says why there are no figures."""
    settings = {name: run.case[name] for name in ("service", "jobs", "clusters")} | dict(run.endpoint)
    more = dict(run.environment)
    if run.endpoint.get("events"):
        queue = "http://127.0.0.1:@PORT@/123456789012/events"
        more["AIRFLOW__AIRFLOW_RESILIENT__EVENTS_QUEUE_URL"] = queue
    described: dict[str, Any] = {"group": run.group, **run.case, "endpoint": dict(run.endpoint), "set": more}
    load = os.getloadavg()[0]
    with Endpoint(settings) as endpoint, tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "watching.one", json.dumps(run.case), str(endpoint.port)]
        try:
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=run.bound,
                env=environment_for(endpoint.port, home, more),
            )
        except subprocess.TimeoutExpired:
            return {**described, "error": f"not done within {run.bound:.0f} s"}
    try:
        figures = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        return {**described, "error": done.stderr.strip().splitlines()[-1:]}
    return {**described, **figures, "load_before": load}


def versions() -> dict[str, str]:
    """What was measured, and on what."""
    found = {"python": platform.python_version(), "cores": str(os.cpu_count())}
    for name in ("apache-airflow", "apache-airflow-providers-amazon", "aiobotocore", "botocore"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def run_all(
    runs: Sequence[cases.Run], keep: Callable[[list[dict[str, Any]]], object] = len
) -> list[dict[str, Any]]:
    """Measure one after the other, and at last those that may run beside others; say what comes out."""
    results: dict[int, dict[str, Any]] = {}

    def measure(number: int) -> None:
        began = time.monotonic()
        results[number] = run_one(runs[number])
        case = runs[number].case
        title = f"{runs[number].group}: {case['who']}, {case['jobs']} waits"
        brief = report.brief(results[number])
        print(f"[{len(results)}/{len(runs)}] {title}: {brief} ({time.monotonic() - began:.0f} s)", flush=True)
        keep(
            [results[each] for each in sorted(results)]
        )  # half an hour's work is not lost when it is stopped

    for number, run in enumerate(runs):
        if not run.beside:
            measure(number)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(measure, [number for number, run in enumerate(runs) if run.beside]))
    return [results[number] for number in range(len(runs))]


def save(path: Path, known: Mapping[str, Any]) -> None:
    """Keep what was measured so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    """Measure, or draw what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds, writes nothing")
    parser.add_argument("--render", action="store_true", help="draw again what was measured")
    parser.add_argument("--only", help="measure only this group, and keep the rest")
    parser.add_argument("--provider-largest", type=int, default=2000, help="default: %(default)s waits")
    parser.add_argument("--without-airflow", action="store_true", help="leave out the real triggerer")
    parser.add_argument("--output", type=Path, default=DOCS, help="the docs' folder")
    options = parser.parse_args()
    if options.quick:
        run_all(cases.quick_runs())
        return
    path = options.output / "_generated" / "watch-benchmark.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if not options.render:
        runs = [run for run in cases.all_runs(options.provider_largest) if options.only in (None, run.group)]
        if runs:
            kept = [each for each in known.get("runs", ()) if options.only and each["group"] != options.only]

            def keep(results: list[dict[str, Any]]) -> None:
                known.pop("note", None)
                known.update(versions=versions(), runs=kept + results)
                save(path, known)

            run_all(runs, keep)
        if options.only in (None, "operators"):
            known["operators"] = operators.measure()
            save(path, known)
        for name in ("triggerer", "restart", "restart, EMR"):
            if options.only == name or (options.only is None and not options.without_airflow):
                from watching import triggerer

                known[name] = triggerer.measure_all(Endpoint, name)
        save(path, known)
    for name, text in report.files(known).items():
        (options.output / name).parent.mkdir(parents=True, exist_ok=True)
        (options.output / name).write_text(text)
        print(f"wrote {options.output / name}")


if __name__ == "__main__":
    main()
