"""Run ``airflow-resilient`` as a person on call does: a process beside a real Airflow."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow


@dataclass
class Ran:
    """What a command printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def run(airflow: LocalAirflow, *arguments: str, **environment: str) -> Ran:
    """Run a command beside this Airflow."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow_resilient", *arguments],
        env={**airflow.environment, **environment},
        cwd=airflow.home,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)
