"""What is done to a case, each as a function of it. A step acts, or waits for a fact."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .play import Case

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
    airflow, instance = case.airflow, case.instance
    case.hit = airflow.kill_task_when(instance, lambda: case.containers, number, worker=worker, timeout=120)


def mark_failed(case: Case) -> None:
    """Mark it as failed, when the container has worked for a while."""
    case.until(lambda: case.worked() > WORKED and _settled(case), "the container has worked for a while")
    case.airflow.mark(case.dag_id, case.run_id, "work", "failed")


def clear(case: Case) -> None:
    """Clear it, when the container has worked for a while, and let the next one work."""
    case.until(lambda: case.worked() > WORKED and _settled(case), "the container has worked for a while")
    case.airflow.clear(case.dag_id, case.run_id, ["work"])


def _settled(case: Case) -> bool:
    """Whether the task instance waits, and what it waits for is being watched: its log arrives."""
    if case.instance.state != ("deferred" if case.implementation == "ours" else "running"):
        return False
    return f"line {case.containers[0][:12]}" in case.airflow.task_log(case.dag_id, case.run_id, "work")


def wait(seconds: float, every: float, look: Callable[[], object]) -> None:
    """Look again and again for a time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        look()
        time.sleep(every)
