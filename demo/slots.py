"""Which task instances held the pool's slots, and when: samples, spans of time, lanes for the picture."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Self

    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

HOLDS_A_SLOT = ("queued", "running")
"""States in which a task instance uses slots of its pool, when the pool does not count deferred ones."""

_SAMPLED = (*HOLDS_A_SLOT, "deferred", "scheduled")
_EVERY = 0.25  # seconds


@dataclass(frozen=True)
class Sample:
    """One sample of the pool: name ("DAG.task") and state of the task instances that want or have a slot."""

    at: float
    states: dict[str, str]

    @property
    def held(self) -> int:
        """Slots in use."""
        return sum(state in HOLDS_A_SLOT for state in self.states.values())


@dataclass(frozen=True)
class Span:
    """From ``start`` to ``end``, in seconds since the first sample, a task instance was in one kind of state.

    :param kind: ``slot``, ``deferred`` or ``scheduled`` (it wants a slot and gets none).
    """

    name: str
    kind: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Give its length."""
        return self.end - self.start


class Sampler:
    """Samples a pool in a thread, as long as the ``with`` block lasts."""

    def __init__(self, airflow: LocalAirflow, pool: str, runs: Iterable[str]) -> None:
        self._airflow, self._pool, self._runs = airflow, pool, frozenset(runs)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._error: Exception | None = None
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._error:
            raise self._error

    def _sample(self) -> None:
        try:
            while not self._stop.wait(_EVERY if self.samples else 0):
                found = self._airflow.task_instances(states=_SAMPLED, pool=self._pool)
                states = {f"{i.dag_id}.{i.task_id}": str(i.state) for i in found if i.run_id in self._runs}
                self.samples.append(Sample(time.time(), states))
        except Exception as error:  # noqa: BLE001 - raised again where the thread is joined
            self._error = error


def spans(samples: Sequence[Sample]) -> list[Span]:
    """Join samples into spans of time, sorted by start.

    >>> states = ["queued", "running", "deferred", None]
    >>> for span in spans([Sample(at, {"a.b": state} if state else {}) for at, state in enumerate(states)]):
    ...     print(span)
    Span(name='a.b', kind='slot', start=0, end=2)
    Span(name='a.b', kind='deferred', start=2, end=3)
    """
    if not samples:
        return []
    zero = samples[0].at
    found = []
    for name in sorted({name for sample in samples for name in sample.states}):
        pieces = [(_kind(a.states.get(name)), a.at - zero, b.at - zero) for a, b in pairwise(samples)]
        for kind, group in groupby(pieces, key=lambda piece: piece[0]):
            together = list(group)
            if kind:
                found.append(Span(name, kind, together[0][1], together[-1][2]))
    return sorted(found, key=lambda span: (span.start, span.name))


def lanes(held: Iterable[Span]) -> list[list[Span]]:
    """Give each span the lowest lane that is free, as slots are given.

    >>> held = [Span("a", "slot", 0, 2), Span("b", "slot", 1, 3), Span("c", "slot", 2, 4)]
    >>> [[span.name for span in lane] for lane in lanes(held)]
    [['a', 'c'], ['b']]
    """
    found: list[list[Span]] = []
    for span in sorted(held, key=lambda span: span.start):
        for lane in found:
            if lane[-1].end <= span.start + _EVERY / 4:
                lane.append(span)
                break
        else:
            found.append([span])
    return found


def _kind(state: str | None) -> str | None:
    return "slot" if state in HOLDS_A_SLOT else state
