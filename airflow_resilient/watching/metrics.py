"""Metrics of the watches, sent to Airflow every few seconds from a thread.

Names are ``airflow_resilient.watch.SERVICE.MEASURE``; ``docs/operating.md`` has the table.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0
"""Seconds between two reports."""

PREFIX = "airflow_resilient.watch"


class Measure(NamedTuple):
    """One number to report.

    :param kind: ``incr`` for the increase of a counter since the last report, ``gauge`` for a current value.
    """

    kind: str
    name: str
    value: float


class Watch(Protocol):
    """A source of metrics: a `SharedWatch` or an `EventQueue`."""

    name: str
    counts: Counter[str]
    buckets: Sequence[Any]

    def gauges(self) -> Mapping[str, float]:
        """Current values by name."""


Counts: TypeAlias = dict[object, Counter[str]]
"""The counters of each source, by metric name."""


def counted(watches: Iterable[Watch]) -> Counts:
    """The counters of each watch, and of each bucket: one that several watches share counts once.

    A bucket for all calls of a service is left out: its calls are counted in the others, too.
    """
    found: Counts = {}
    for watch in watches:
        found[watch] = Counter(
            {f"{PREFIX}.{watch.name}.{measure}": count for measure, count in watch.counts.items()}
        )
        for bucket in watch.buckets:
            if not bucket.budget.whole_service:
                prefix = f"{PREFIX}.{watch.name}"
                found[bucket] = Counter(
                    {f"{prefix}.calls": bucket.calls, f"{prefix}.throttles": bucket.throttles}
                )
    return found


def growth(before: Counts, after: Counts) -> Counter[str]:
    """By how much the counters have grown, by metric name, all sources together.

    Source by source: one that was dropped meanwhile takes nothing away.
    """
    total: Counter[str] = Counter()
    for source, counts in after.items():
        total.update(counts - before.get(source, Counter()))
    return total


def measures(grown: Mapping[str, int], watches: Iterable[Watch]) -> list[Measure]:
    """The measures to report: by how much counters have grown, and current values.

    Several watches of a service (connections, regions) are reported as one: waits are added up; of times and
    rates, the worst value is reported.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for watch in watches:
        for name, value in watch.gauges().items():
            found[f"{PREFIX}.{watch.name}.{name}"].append(value)
    gauges = [
        Measure("gauge", name, _AGGREGATES[name.rpartition(".")[2]](values))
        for name, values in sorted(found.items())
    ]
    return [Measure("incr", name, count) for name, count in sorted(grown.items()) if count] + gauges


_AGGREGATES: Mapping[str, Callable[[list[float]], float]] = {
    "waits": sum,
    "unanswered": sum,
    "freshness": max,
    "oldest_poll": max,
    "calls_per_second": min,
}


async def report(
    watches: Callable[[], Sequence[Watch]],
    in_thread: Callable[..., Awaitable[Any]],
    emit: Callable[[Sequence[Measure]], None],
    every: float = REPORT_SECONDS,
) -> None:
    """Report without an end. An error is logged once and affects nothing else."""
    before: Counts = {}
    warned = False
    while True:
        await asyncio.sleep(every)
        after = counted(watches())
        try:
            await in_thread(emit, measures(growth(before, after), watches()))
        except Exception as error:  # noqa: BLE001 - whatever a metrics backend raises
            if not warned:
                log.warning("metrics cannot be reported: %s: %s", type(error).__name__, error)
            warned = True
        before = after
