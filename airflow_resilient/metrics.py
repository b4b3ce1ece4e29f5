"""What the watches do, as metrics of Airflow: every few seconds, from a thread.

Names are ``airflow_resilient.watch.SERVICE.MEASURE``; ``docs/operating.md`` has the table.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two reports."""
PREFIX = "airflow_resilient.watch"


class Measure(NamedTuple):
    """One number to report.

    :param kind: ``incr`` for what has happened since the last report, ``gauge`` for what is the case.
    """

    kind: str
    name: str
    value: float


class Bucket(Protocol):
    """A `SharedBucket`, as far as it is reported."""

    calls: int
    throttles: int


class Watch(Protocol):
    """A `SharedWatch` or what else counts, as far as it is reported."""

    kind: str
    counts: Counter[str]
    bucket: Any

    def gauges(self) -> Mapping[str, float]:
        """What is the case now."""


def counted(watches: Iterable[Watch]) -> Counter[str]:
    """What has happened so far in all watches, by name; a bucket that they share counts once."""
    total: Counter[str] = Counter()
    buckets: dict[int, tuple[str, Bucket]] = {}
    for watch in watches:
        for name, count in watch.counts.items():
            total[f"{PREFIX}.{watch.kind}.{name}"] += count
        if watch.bucket is not None:
            buckets[id(watch.bucket)] = watch.kind, watch.bucket
    for kind, bucket in buckets.values():
        total[f"{PREFIX}.{kind}.calls"] += bucket.calls
        total[f"{PREFIX}.{kind}.throttles"] += bucket.throttles
    return total


def measures(before: Mapping[str, int], after: Mapping[str, int], watches: Iterable[Watch]) -> list[Measure]:
    """What to report: by how much the counts have grown, and what is the case.

    Several watches of a service (connections, regions) are told as one: waits are added up, and of times and
    rates the worst is told.
    """
    grown = [Measure("incr", name, count - before.get(name, 0)) for name, count in sorted(after.items())]
    found: dict[str, list[float]] = defaultdict(list)
    for watch in watches:
        for name, value in watch.gauges().items():
            found[f"{PREFIX}.{watch.kind}.{name}"].append(value)
    gauges = [
        Measure("gauge", name, _AS_ONE[name.rpartition(".")[2]](values))
        for name, values in sorted(found.items())
    ]
    return [measure for measure in grown if measure.value] + gauges


_AS_ONE: Mapping[str, Callable[[list[float]], float]] = {
    "waits": sum,
    "freshness": max,
    "oldest_look": max,
    "calls_per_second": min,
}


def emit(found: Sequence[Measure]) -> None:
    """Hand them to Airflow (blocking), with the name of this machine as a tag."""
    from . import compat

    stats, tags = compat.stats(), {"hostname": compat.hostname()}
    for kind, name, value in found:
        if kind == "incr":
            stats.incr(name, int(value), tags=tags)
        else:
            stats.gauge(name, round(value, 3), tags=tags)


async def report(
    watches: Callable[[], Sequence[Watch]],
    in_thread: Callable[..., Awaitable[Any]],
    emit: Callable[[Sequence[Measure]], None] = emit,
    every: float = EVERY,
) -> None:
    """Report for ever. Trouble with it is said once, and changes nothing else."""
    before: Counter[str] = Counter()
    said = False
    while True:
        await asyncio.sleep(every)
        after = counted(watches())
        try:
            await in_thread(emit, measures(before, after, watches()))
        except Exception as error:  # noqa: BLE001 - whatever a metrics backend raises
            if not said:
                log.warning("metrics cannot be reported: %s: %s", type(error).__name__, error)
            said = True
        before = after
