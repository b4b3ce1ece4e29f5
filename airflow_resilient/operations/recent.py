"""How long DAGs and tasks wait and run, as seen lately: what people ask first, and what no finding says.

Pure functions over what each look has read of ended runs and task instances. Nothing here is an alarm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .snapshot import Run, Snapshot, Waiting

K = TypeVar("K")

KEPT_SECONDS = 24 * 3600.0
"""For which the latest run of a DAG, and the latest try of a task, is shown."""

MAX_KEPT = 10_000
"""DAGs, and tasks, that are remembered: those that have ended last."""

FIRST_LOOK_BACK = 3600.0
"""How far back the first look reads what has ended; seconds."""


@dataclass(frozen=True)
class Times:
    """How long the latest run of a DAG, or the latest try of a task, that tells it has waited and run.

    :param seen: when it has started or ended, whichever is later; seconds since 1970.
    :param delay: seconds from the moment a run was due, or a task instance was queued, to its start;
        ``None``: not known.
    :param duration: seconds from its start to its end; ``None``: it has not ended.
    """

    seen: float
    delay: float | None = None
    duration: float | None = None


@dataclass(frozen=True)
class Recent:
    """What the looks of the last day have shown.

    :param dags: by the id of the DAG.
    :param tasks: by the ids of DAG and task.
    :param created: when the latest run was created, as far as Airflow tells.
    :param requeues: task instances that were put back from *queued*, and when; those of the last day.
    :param requeue_count: how many have been seen since the start.
    """

    dags: Mapping[str, Times] = field(default_factory=dict)
    tasks: Mapping[tuple[str, str], Times] = field(default_factory=dict)
    created: float | None = None
    requeues: frozenset[tuple[str, float]] = frozenset()
    requeue_count: int = 0

    def after(self, snapshot: Snapshot) -> Recent:
        """What is known after one more look.

        :param snapshot: a look with an answer.
        """
        now = snapshot.taken
        runs = [*(snapshot.runs or ()), *(snapshot.ended_runs or ())]
        created = [run.queued or run.started for run in runs]
        events = {(each.name, each.when) for each in snapshot.requeues or ()}
        return Recent(
            dags=_newest(self.dags, _runs(runs), now),
            tasks=_newest(self.tasks, _tasks(snapshot.ended or ()), now),
            created=max([when for when in (*created, self.created) if when is not None], default=None),
            requeues=frozenset(event for event in self.requeues | events if now - event[1] < KEPT_SECONDS),
            requeue_count=self.requeue_count + len(events - self.requeues),
        )


def _newest(known: Mapping[K, Times], found: Iterable[tuple[K, Times]], now: float) -> dict[K, Times]:
    """The latest of each, of the last day, at most `MAX_KEPT`; what a run does not tell yet stays."""
    kept = dict(known)
    for key, times in found:
        before = kept.get(key, times)
        if times.seen >= before.seen:
            kept[key] = replace(
                times,
                delay=before.delay if times.delay is None else times.delay,
                duration=before.duration if times.duration is None else times.duration,
            )
    fresh = sorted(
        ((key, times) for key, times in kept.items() if now - times.seen < KEPT_SECONDS),
        key=lambda pair: -pair[1].seen,
    )
    return dict(fresh[:MAX_KEPT])


def _runs(runs: Iterable[Run]) -> Iterable[tuple[str, Times]]:
    """What the runs of each DAG tell: a run that has not started tells nothing."""
    for run in runs:
        if run.started is None:
            continue
        # Runs of a backfill are due in the past, and what a person has started is due at once.
        delay = run.started - run.due if run.automatic and run.due is not None else None
        duration = None if run.ended is None else max(0.0, run.ended - run.started)
        seen = max(run.started, run.ended or run.started)
        yield run.dag_id, Times(seen, None if delay is None else max(0.0, delay), duration)


def _tasks(ended: Iterable[Waiting]) -> Iterable[tuple[tuple[str, str], Times]]:
    """What ended task instances tell of each task.

    A later try keeps the time at which an earlier one was queued, so only the first try tells how long it
    was queued. Source: ``schedule_tis`` of ``DagRun`` (2.11, 3.3).
    """
    for each in ended:
        if each.started is None or each.ended is None:
            continue  # it was skipped, or failed by a person, before it started
        delay = each.started - each.since if each.since is not None and each.try_number <= 1 else None
        known = delay if delay is not None and delay >= 0 else None
        yield (each.dag_id, each.task_id), Times(each.ended, known, max(0.0, each.ended - each.started))
