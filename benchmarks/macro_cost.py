"""Measure what ``{{ local_ds() }}`` costs beside Airflow's own ``{{ ds }}``.

Two tables: a template as operators render it (Airflow compiles the text each time), and the call alone, in a
template that is compiled already. Medians of several rounds in which all cases take turns, in microseconds.

Usage: ``python benchmarks/macro_cost.py [--rounds 15] [--times 200]``.
"""

from __future__ import annotations

import argparse
import statistics
import timeit
from collections.abc import Callable
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_resilient import local, local_filters, local_macros
from airflow_resilient.plugin import ResilientPlugin

MOMENT = datetime(2026, 11, 1, tzinfo=timezone.utc)
ZONE = "America/New_York"
REFERENCE = "{{ ds }}"
TEMPLATES = (
    REFERENCE,
    "{{ logical_date | ds }}",
    "{{ local_ds() }}",
    "{{ logical_date | local_ds }}",
    "{{ local_ts() }}",
    "{{ local_ds(zone='Asia/Kolkata') }}",
    "{{ local_day_hours() }}",
    "{{ utc_day_range().start }}",
    "{{ macros.airflow_resilient.local_ds() }}",
    "{{ macros.airflow_resilient.local_ds(zone='Asia/Kolkata') }}",
)


def make() -> tuple[BaseOperator, dict[str, Any]]:
    """Make a task of a DAG with macros, and what its templates see."""
    with DAG(
        "evening",
        schedule=None,
        start_date=MOMENT,
        user_defined_macros=local_macros(ZONE),
        user_defined_filters=local_filters(ZONE),
    ) as dag:
        task = BaseOperator(task_id="job")
    plugin = SimpleNamespace(**{macro.__name__: macro for macro in ResilientPlugin.macros})
    context = {
        "dag": dag,
        "dag_run": SimpleNamespace(logical_date=MOMENT),
        "ds": "2026-11-01",
        "logical_date": MOMENT,
        "macros": SimpleNamespace(airflow_resilient=plugin),
    }
    return task, context


def measure(cases: dict[str, Callable[[], Any]], rounds: int, times: int) -> dict[str, float]:
    """Medians in microseconds; all cases take turns, so that a busy moment hits them alike."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            taken[name].append(timeit.timeit(case, number=times) / times * 1e6)
    return {name: statistics.median(each) for name, each in taken.items()}


def show(title: str, medians: dict[str, float]) -> None:
    """Print a table, with the reference as 1."""
    print(f"\n{title:60} {'µs':>8} {'of ' + REFERENCE:>12}")
    for name, median in medians.items():
        print(f"{name:60} {median:8.1f} {median / medians[REFERENCE]:11.2f}x")


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per case (default: %(default)s)")
    parser.add_argument("--times", type=int, default=200, help="renderings per round (default: %(default)s)")
    options = parser.parse_args()
    task, context = make()
    environment = task.get_template_env()
    compiled = {text: environment.from_string(text) for text in TEMPLATES}
    whole = {text: lambda text=text: task.render_template(text, context, environment) for text in TEMPLATES}
    alone = {text: lambda text=text: compiled[text].render(context) for text in TEMPLATES}
    alone["local(context).ds, in Python"] = lambda: local(context).ds
    show("as operators render it", measure(whole, options.rounds, options.times))
    show("compiled before", measure(alone, options.rounds, options.times))


if __name__ == "__main__":
    main()
