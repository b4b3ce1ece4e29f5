"""Pictures of Airflow's own pages, taken from a real run with a real browser: ``python -m demo.screenshots``.

It needs Chromium or Chrome on the path. Nothing but loopback is visited.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from airflow_resilient.testing import FakeAws, LocalAirflow
from airflow_resilient.testing.airflow.local_airflow import HANG

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DOCS = Path(__file__).parent.parent / "docs"
DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator

with DAG("nightly", schedule=None, default_args={"pool": "two", "retries": 1}) as dag:
    load = EmrAddStepsOperator(
        task_id="load", job_flow_name="etl", wait_for_completion=True,
        steps=[{"Name": "load", "ActionOnFailure": "CONTINUE",
                "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["spark-submit", "load.py"]}}],
    )
    for region in ("north", "south", "west"):
        load >> EcsRunTaskOperator(
            task_id=f"invoice_{region}", cluster="etl", task_definition="invoice", overrides={},
            launch_type="FARGATE",
        )
"""


def shoot(url: str, picture: Path, browser: str) -> None:
    """Save what a browser shows at `url` when its scripts have run.

    :raises subprocess.CalledProcessError: the browser failed.
    """
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=1280,720",
            "--virtual-time-budget=20000",
            f"--user-data-dir={profile}",
            f"--screenshot={picture}",
            url,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=HANG)


def main(arguments: list[str] | None = None) -> int:
    """Run a DAG until its tasks are deferred, take the pictures, and print their paths."""
    parser = argparse.ArgumentParser(prog="python -m demo.screenshots", description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "_static" / "ui", help="folder of the pictures")
    out = parser.parse_args(arguments).out
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"none of {', '.join(BROWSERS)} is on the path", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, FakeAws().serve() as aws:
        (Path(folder) / "nightly.py").write_text(DAG_FILE)
        aws.make_ecs_cluster("etl")
        aws.make_task_definition("invoice")
        aws.make_emr_cluster("etl")
        aws.emr.plan(step_name_contains="load", seconds=3)
        aws.ecs.plan("invoice", seconds=None)
        package = {"PYTHONPATH": str(DOCS.parent)}
        connection = {"aws_default": aws.airflow_connection()}
        with LocalAirflow(
            folder, connections=connection, pools={"two": 2}, environment=package, progress=print
        ) as airflow:
            run_id = airflow.trigger("nightly")
            waiting = ["invoice_north", "invoice_south", "invoice_west"]
            airflow.wait_until(
                lambda: all(
                    airflow.task_instance("nightly", run_id, task).state == "deferred" for task in waiting
                ),
                what="three tasks are deferred through two slots",
            )
            run = f"{airflow.url}/dags/nightly/runs/{quote(run_id, safe='')}"
            pages = {
                "three-deferred": run,
                "task": f"{run}/tasks/invoice_north",
                "pools": f"{airflow.url}/pools",
            }
            for name, url in pages.items():
                shoot(url, out / f"{name}.png", browser)
                print(out / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
