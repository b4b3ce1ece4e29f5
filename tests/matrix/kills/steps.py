"""What is done to a case, each as a function of it. A step acts, or waits for a fact."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from airflow_resilient.testing.airflow.local_airflow import FINISHED

if TYPE_CHECKING:
    from .runner import Case


class TooSlow(Exception):
    """The machine was busy, and the moment of this row has passed: the row is played once more."""


WORKED = 3.0  # seconds for which a container has worked when somebody clears or marks


def nothing(case: Case) -> None:
    """Let it run."""


def share(case: Case) -> None:
    """Wait until the component has been killed that the cases of the phase share."""
    case.until(lambda: case.worked() > WORKED, "the container has worked for a while")
    case.meet()


def kill_worker(case: Case) -> None:
    """End worker and task as the container has been started: nobody is left to report what happened."""
    _hit(case, signal.SIGKILL, worker=True)


def kill_task(case: Case) -> None:
    """End the task as the container has been started, as the out-of-memory killer does."""
    _hit(case, signal.SIGKILL, worker=False)


def terminate_task(case: Case) -> None:
    """Ask the task to end as the container has been started, as a deploy does."""
    _hit(case, signal.SIGTERM, worker=False)


def _hit(case: Case, number: int, *, worker: bool) -> None:
    instance = case.instance
    try:
        case.hit = case.airflow.kill_task_when(instance, lambda: case.containers, number, worker=worker)
    finally:
        case.let_go()


def mark_failed(case: Case) -> None:
    """Mark it as failed, when the container has worked for a while."""
    case.until(lambda: _at_work(case), "the container has worked for a while")
    case.airflow.mark(case.dag_id, case.run_id, "work", "failed")


def clear(case: Case) -> None:
    """Clear it, when the container has worked for a while, and let the next one work."""
    case.until(lambda: _at_work(case), "the container has worked for a while")
    case.airflow.clear(case.dag_id, case.run_id, ["work"])


def _at_work(case: Case) -> bool:
    """Whether its container has worked for a while, and is being watched: its log arrives."""
    waits = "deferred" if case.implementation == "ours" else "running"
    if case.worked() < WORKED or case.instance.state != waits:
        return False
    return f"line {case.containers[0][:12]}" in case.airflow.task_log(case.dag_id, case.run_id, "work")


def run_into_limit(case: Case) -> None:
    """Let it run until the limit ends it.

    :raises TooSlow: the limit passed before there was a container.
    """
    if case.implementation == "ours":
        case.until(lambda: case.instance.state in FINISHED, "the limit has passed")
        if not case.containers:
            raise TooSlow(f"{case.run_id}: the limit passed before there was a container")
