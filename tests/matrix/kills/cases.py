"""The matrix as data: what is done while a container runs, and what is wanted then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import steps as s

if TYPE_CHECKING:
    from .runner import Case

IMPLEMENTATIONS = ("ours", "provider", "named")
NAMES = {
    "ours": "airflow-resilient",
    "provider": "docker provider",
    "named": "docker provider, `container_name`",
}


@dataclass(frozen=True)
class Figures:
    """What came of a case.

    :param made: containers that were made.
    :param at_once: the largest number of them that ran at the same time.
    :param running: of them, those that run on when the task instance has ended.
    :param kept: those that are there and have ended.
    :param state: of the task instance.
    :param tries: how often it was tried.
    :param lost: lines of the container whose result was reported that stand in no log of a try.
    :param doubled: lines that stand in the log of one try twice.
    :param done: a success that was reported is one: the container came to its last line.
    """

    made: int = 1
    at_once: int = 1
    running: int = 0
    kept: int = 0
    state: str = "success"
    tries: int = 1
    lost: int = 0
    doubled: int = 0
    done: bool = True


@dataclass(frozen=True)
class Row:
    """One thing that is done.

    :param what: for the table.
    :param do: given the case, whose container has been made.
    :param wanted: what our operator comes to.
    :param seconds: for which the container of the first try works.
    :param again: for which that of a later try works; as long, if none.
    :param variants: of the DAG; an attempt that the machine was too slow for is followed by the next one.
    :param phase: rows of one phase share a component that is killed, so they are played together.
    """

    id: str
    what: str
    do: Callable[[Case], Any]
    wanted: Figures = field(default_factory=Figures)
    seconds: int = 20
    again: int | None = None
    variants: tuple[str, ...] = ("plain",)
    phase: str = "tasks"

    def written(self, try_number: int) -> int:
        """Lines that the container of a try writes."""
        return 5 * (self.seconds if try_number == 1 or self.again is None else self.again)


LONG = 600  # seconds: for a container that somebody ends, however late a busy machine lets them come

# A try that a worker's death ends is followed by a second one, and nothing can be done about that.
TWICE = Figures(tries=2)

# The task waits for the answer to the start of its first container until it has been hit.
HELD = ("held",)

ROWS = (
    Row("nothing", "nothing", s.nothing),
    Row(
        "worker",
        "SIGKILL of worker and task; the container still runs at the retry",
        s.kill_worker,
        TWICE,
        70,
        variants=HELD,
    ),
    Row(
        "worker-late",
        "the same; the container has ended before the retry",
        s.kill_worker,
        TWICE,
        10,
        variants=HELD,
    ),
    Row("task", "SIGKILL of the task's process alone", s.kill_task, TWICE, variants=HELD),
    # Airflow 3.3 calls the operator's on_kill then, and lets the task go on.
    Row("term", "SIGTERM of the task's process, as at a deploy", s.terminate_task, variants=HELD),
    Row("mark", "marked failed", s.mark_failed, Figures(state="failed", kept=1), LONG),
    Row("clear", "cleared", s.clear, Figures(made=2, kept=1, tries=2), LONG, again=20),
    Row(
        "limit",
        "`execution_timeout` passes",
        s.run_into_limit,
        Figures(state="failed", kept=1),
        LONG,
        variants=("limited_15", "limited_60", "limited_240"),
    ),
    Row("triggerer", "SIGKILL of the triggerer, started again after 5 s", s.share, phase="triggerer"),
    Row("engine", "`kill -9` of dockerd (live-restore), started again after 5 s", s.share, phase="engine"),
)
BY_ID = {row.id: row for row in ROWS}
