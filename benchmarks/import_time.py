"""Measure what a DAG file pays for importing this package, beside the amazon provider's operators.

Every measurement is a process of its own that has imported ``airflow.sdk`` before the clock starts, as every
DAG file has, except where it says "alone". The table shows medians. Airflow reads the provider info of
installed packages while it is imported, and with it this package's ``__init__``: hence the row "alone".

Usage: ``python benchmarks/import_time.py [--rounds 15]``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Something to import, after ``first`` has run."""

    name: str
    statement: str
    first: str = "import airflow.sdk"


REFERENCE = Case(
    "provider: ECS and EMR operators",
    "from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator; "
    "from airflow.providers.amazon.aws.operators.emr import EmrAddStepsOperator",
)
CASES = (
    Case("import airflow.sdk, alone", "import airflow.sdk", first=""),
    Case("airflow.sdk: DAG, BaseOperator", "from airflow.sdk import DAG, BaseOperator"),
    Case("import airflow_resilient, alone", "import airflow_resilient", first=""),
    Case("import airflow_resilient", "import airflow_resilient"),
    Case(
        "airflow_resilient: ECS and EMR operators",
        "from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator",
    ),
    Case("airflow_resilient: canary_dag", "from airflow_resilient import canary_dag"),
    Case("a DAG file with canary_dag()", "from airflow_resilient import canary_dag\ndag = canary_dag()"),
    Case(
        "a DAG file with DAG()",
        "from airflow.sdk import DAG, BaseOperator\n"
        "with DAG('x', tags=['a']):\n    BaseOperator(task_id='a'), BaseOperator(task_id='b')",
    ),
    REFERENCE,
)


def milliseconds(case: Case) -> float:
    """Import in a fresh process and return how long that took, without the process's start."""
    script = (
        f"import time; {case.first or 'pass'}\nbegin = time.perf_counter()\n{case.statement}\n"
        "print((time.perf_counter() - begin) * 1000)"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have byte code
    answer = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment
    )
    return float(answer.stdout.splitlines()[-1])


def main() -> None:
    """Measure all cases in turn, so that a busy moment hits them alike, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="processes per case (default: %(default)s)")
    rounds = parser.parse_args().rounds
    for case in CASES:  # compile byte code and warm the disk's cache
        milliseconds(case)
    times: dict[Case, list[float]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            times[case].append(milliseconds(case))
    reference = statistics.median(times[REFERENCE])
    print(f"{'median of ' + str(rounds):42} {'ms':>8} {'of provider':>12}")
    for case in CASES:
        median = statistics.median(times[case])
        print(f"{case.name:42} {median:8.1f} {median / reference:12.1%}")


if __name__ == "__main__":
    main()
