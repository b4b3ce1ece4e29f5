"""When each of many waiting jobs is polled, and by which calls. Pure functions only.

What an observation means for one wait is in `core.polling`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..core.job import Job
from ..core.polling import MAX_CONCURRENT_POLLS
from ..core.service import DEFAULT_BUDGET, Budget, Way

if TYPE_CHECKING:
    from ..core.polling import Wait
    from .budget import Bucket


LATE_SECONDS = 5.0
"""Seconds by which a poll may be late, for lack of calls, before a warning is logged."""

RECOVERED_SECONDS = 60.0
"""Seconds without a late poll after which recovery is logged."""

FAST_POLLS = 3
"""Fast polls of a job after an event reported its end; AWS's answers may lag behind its events."""

_MAX_SLEEP_SECONDS = 3600.0


Buckets: TypeAlias = Mapping[Budget, "Bucket"]
"""The calls that may be made, of each budget of a service."""

Ways: TypeAlias = Callable[[Sequence[Job]], Sequence[Way]]
"""The ways to poll a batch, the preferred one first; `RemoteService.ways`."""


def after_event(waiting: Wait, now: float, *, ended: bool) -> Wait:
    """Apply an event about its job to a wait: poll as soon as allowed.

    Not before the first poll is due, and not more often than the shortest interval allows.

    :param ended: the event reports the job's end, so fast polls follow until a poll shows it.
    """
    policy = waiting.policy
    soonest = max(now, waiting.since + policy.first_interval, waiting.polled + policy.first_interval)
    return replace(
        waiting,
        due=min(waiting.due, soonest),
        fast_polls_left=FAST_POLLS if ended else waiting.fast_polls_left,
    )


@dataclass(frozen=True)
class Batch:
    """Jobs of one scope that are polled together.

    :param way: by which calls, and how many are expected.
    :param due: when the first of them was due.
    """

    jobs: tuple[Job, ...]
    way: Way
    due: float

    @property
    def scope(self) -> str:
        """The scope of all its jobs."""
        return self.jobs[0].scope


@dataclass(frozen=True)
class Concurrency:
    """How many polls may be in flight at the same time.

    :param free: how many more may be started.
    :param per_scope: the most polls of one scope, so that a scope that never answers does not use all of
        them.
    :param in_flight: scope to the number of its polls in flight.
    :param paused: scope that fails to the time of its next poll. Then one poll at a time.
    """

    free: int = MAX_CONCURRENT_POLLS
    per_scope: int = MAX_CONCURRENT_POLLS // 2
    in_flight: Mapping[str, int] = field(default_factory=dict)
    paused: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The polls to start now, and how long to sleep afterwards.

    :param batches: one poll each, in this order.
    :param sleep: seconds until the next one is due, or until the buckets afford it.
    :param short: calls, by budget, for which batches that are due must wait. Empty: they wait for nothing.
    :param late: how long the first of them has been due, in seconds.
    """

    batches: tuple[Batch, ...]
    sleep: float
    short: Mapping[Budget, float] = field(default_factory=dict)
    late: float = 0.0


def one_call(jobs: Sequence[Job]) -> tuple[Way, ...]:  # noqa: ARG001 - other services read them
    """The default way to poll one batch: one call."""
    return (Way(DEFAULT_BUDGET.name, 1.0),)


def plan(
    now: float,
    waits: Collection[Wait],
    buckets: Buckets,
    *,
    size: int = 100,
    ways: Ways = one_call,
    concurrency: Concurrency = Concurrency(),
    others: Collection[Wait] = (),
) -> Plan:
    """Choose the batches to poll now, and how long to sleep afterwards.

    Waits of one scope (an ECS cluster, an EMR cluster) share a call: when one of them is due, others that are
    in the second half of their interval join its batch. Batches are polled in the order of their due times,
    whatever their scope, and the first of them waits until the bucket affords it: a cheap batch does not
    starve an expensive one, nor a large scope a small one. So no wait is late by more than the time that it
    takes to poll all others once.

    Each batch is polled in its preferred way. Only when that does not afford all that is due, scopes are
    divided among the ways (`divide`); then each way has a queue of its own, in the same order, and none waits
    for another.

    :param waits: those without a poll in flight.
    :param buckets: the calls that may be made, of each budget.
    :param size: the largest batch.
    :param ways: the ways to poll a batch; each takes calls of every budget that counts its operation.
    :param others: those with a poll in flight: they have a part in the division, which would swing otherwise.
    """
    buckets = {budget: bucket.refilled(now) for budget, bucket in buckets.items()}
    scopes = _by_scope(waits)
    planned = _plan(now, scopes, buckets, size, ways, concurrency, None)
    if planned.short and len(buckets) > 1:
        division = divide_waits((*waits, *others), buckets, size=size, ways=ways)
        planned = _plan(now, scopes, buckets, size, ways, concurrency, division)
    return planned


def _plan(
    now: float,
    scopes: Mapping[str, Sequence[Wait]],
    buckets: Buckets,
    size: int,
    ways: Ways,
    concurrency: Concurrency,
    division: Division | None,
) -> Plan:
    """`plan`, with refilled buckets and the scopes divided.

    :param division: ``None`` to poll each batch in its preferred way and to stop at the first that must wait.
    """
    left = dict(buckets)
    paused = {scope: until for scope, until in concurrency.paused.items() if until > now and scope in scopes}
    # Batches of a scope are made only in its turn: there may be thousands of waits, and planning blocks the
    # event loop.
    in_turn: list[tuple[float, str, int, list[Job]]] = []
    nearest = inf
    for scope, members in scopes.items():
        dues = [waiting.due for waiting in members]
        first = min(dues)
        if scope in paused:
            nearest = min(nearest, max(paused[scope], first))
            continue
        if first <= now:
            in_turn.append((first, scope, -1, []))
            first = min((due for due in dues if due > now), default=inf)
        nearest = min(nearest, first)
    heapify(in_turn)
    batches: list[Batch] = []
    in_flight = Counter(concurrency.in_flight)
    short: dict[Budget, float] = {}
    waiting_ways: set[str] = set()
    affordable, late = inf, 0.0
    while in_turn and len(batches) < concurrency.free:
        due, scope, _, jobs = heappop(in_turn)
        if in_flight[scope] >= (1 if scope in concurrency.paused else concurrency.per_scope):
            continue  # planned again when a poll of this scope ends
        chosen = division.by_scope[scope] if division else None
        if not jobs:
            largest = (chosen and chosen.size) or size
            for number, (first, portion) in enumerate(_due_batches(now, scopes[scope], largest)):
                heappush(in_turn, (first, scope, number, portion))
            continue
        way = _way_of(ways(jobs), chosen)
        if way.operation in waiting_ways:
            continue  # what was due before it waits, too
        takes = [budget for budget in left if budget.counts(way.operation)]
        lacking = [budget for budget in takes if not left[budget].affords(way.calls)]
        if lacking:
            short.update((budget, way.calls) for budget in lacking if budget not in short)
            affordable = min(affordable, max(left[budget].wait_for(way.calls) for budget in lacking) + 1e-6)
            late = max(late, now - due)
            waiting_ways.add(way.operation)
            if division is None or waiting_ways >= division.operations:
                return Plan(tuple(batches), affordable, short, late)
        else:
            in_flight[scope] += 1
            batches.append(Batch(tuple(jobs), way, due))
        # Of a budget that ways share, the calls that one of them lacks are kept for it.
        left.update((budget, left[budget].spent(way.calls)) for budget in lacking or takes)
    return Plan(tuple(batches), min(_MAX_SLEEP_SECONDS, nearest - now, affordable), short, late)


def _way_of(offered: Sequence[Way], chosen: Way | None) -> Way:
    """The offer for the chosen way; the preferred one where this batch cannot be polled in the chosen one."""
    return next((way for way in offered if chosen and way.operation == chosen.operation), offered[0])


@dataclass(frozen=True)
class Division:
    """In which way each scope is polled.

    :param by_scope: scope to the way, with the calls for all of the scope.
    :param seconds: in which every wait can be polled once.
    """

    by_scope: Mapping[str, Way]
    seconds: float

    @property
    def operations(self) -> frozenset[str]:
        """The operations that are called."""
        return frozenset(way.operation for way in self.by_scope.values())


def divide(offered: Mapping[str, Sequence[Way]], buckets: Buckets) -> Division:
    """Divide scopes among the ways to poll them, so that every wait is polled once as soon as possible.

    At first each scope is polled in its preferred way. Then scopes change to another way as long as all are
    done sooner, first those for which the other way takes the fewest calls for each call that it saves.

    :param offered: scope to the ways in which it can be polled as a whole, the preferred one first.

    >>> from airflow_resilient.watching.budget import Bucket
    >>> pages, each = Budget("emr:ListSteps", 0.5, 10.0), Budget("emr:DescribeStep", 0.5, 10.0)
    >>> def scope(steps):
    ...     return Way(pages.name, 1.0), Way(each.name, float(steps))
    >>> buckets = {budget: Bucket.full(budget) for budget in (pages, each)}
    >>> division = divide({"a": scope(1), "b": scope(9), "c": scope(1), "d": scope(9)}, buckets)
    >>> sorted(scope for scope, way in division.by_scope.items() if way.operation == each.name)
    ['a', 'c']
    >>> division.seconds
    4.0
    """
    chosen = {scope: ways[0] for scope, ways in offered.items()}
    takes = {
        way.operation: [budget for budget in buckets if budget.counts(way.operation)]
        for ways in offered.values()
        for way in ways
    }
    load = dict.fromkeys(buckets, 0.0)
    for way in chosen.values():
        for budget in takes[way.operation]:
            load[budget] += way.calls

    def seconds() -> float:
        return max((calls / buckets[budget].rate for budget, calls in load.items()), default=0.0)

    best = seconds()
    changes = [
        (way.calls / max(chosen[scope].calls, 1.0), number, scope, way)
        for number, (scope, ways) in enumerate(offered.items())
        for way in ways[1:]
    ]
    for _, _, scope, way in sorted(changes, key=lambda change: change[:2]):
        before = load.copy()
        for budget in takes[chosen[scope].operation]:
            load[budget] -= chosen[scope].calls
        for budget in takes[way.operation]:
            load[budget] += way.calls
        after = seconds()
        if after < best:
            best, chosen[scope] = after, way
        else:
            load = before
    return Division(chosen, best)


def _ways_of(members: Iterable[Wait], size: int, ways: Ways) -> tuple[Way, ...]:
    """The ways in which all of these waits, of one scope, can be polled once."""
    jobs = list({waiting.job.id: waiting.job for waiting in members}.values())
    portions = [ways(portion) for portion in _portions(jobs, size)]
    whole: dict[str, Way] = {}
    for offered in portions:
        for way in offered:
            before = whole.get(way.operation)
            whole[way.operation] = replace(way, calls=way.calls + before.calls) if before else way
    everywhere = set.intersection(*({way.operation for way in offered} for offered in portions))
    return tuple(way for way in whole.values() if way.operation in everywhere)


def divide_waits(
    waits: Iterable[Wait], buckets: Buckets, *, size: int = 100, ways: Ways = one_call
) -> Division:
    """`divide` all waits; `Division.seconds` is their freshness."""
    scopes = _by_scope(waits)
    return divide({scope: _ways_of(members, size, ways) for scope, members in scopes.items()}, buckets)


def _by_scope(waits: Iterable[Wait]) -> dict[str, list[Wait]]:
    scopes: dict[str, list[Wait]] = defaultdict(list)
    for waiting in waits:
        scopes[waiting.job.scope].append(waiting)
    return scopes


def _due_batches(now: float, members: Sequence[Wait], size: int) -> list[tuple[float, list[Job]]]:
    """Batches of one scope in which a wait is due, and since when."""
    due_by_limit: dict[int, dict[str, Wait]] = defaultdict(dict)
    later: list[Wait] = []
    for waiting in members:
        if waiting.due <= now:
            due_waits = due_by_limit[waiting.batch_limit]
            other = due_waits.get(waiting.job.id)
            if other is None or waiting.due < other.due:
                due_waits[waiting.job.id] = waiting
        # No interval is longer than the one of the policy.
        elif not waiting.batch_limit and waiting.due <= now + waiting.policy.interval / 2:
            later.append(waiting)
    if 0 in due_by_limit:
        _fill_batch(now, due_by_limit[0], later, size)
    batches: list[tuple[float, list[Job]]] = []
    for limit, due_waits in due_by_limit.items():
        in_turn = sorted(due_waits.values(), key=lambda waiting: waiting.due)
        batches += [
            (portion[0].due, [waiting.job for waiting in portion])
            for portion in _portions(in_turn, min(size, limit or size))
        ]
    return batches


def _fill_batch(now: float, due_waits: dict[str, Wait], later: list[Wait], size: int) -> None:
    """Fill the last batch of the due waits with other waits of their scope."""
    free = -len(due_waits) % size
    if not free:
        return
    for waiting in sorted(later, key=lambda waiting: waiting.due):
        if waiting.due <= now + waiting.join_early_by(now) and waiting.job.id not in due_waits:
            due_waits[waiting.job.id] = waiting
            free -= 1
            if not free:
                return


def _portions(items: Sequence[Any], size: int) -> Iterator[Any]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@dataclass(frozen=True)
class Pressure:
    """Whether polls are late for lack of calls, so that this is logged once and not every second.

    :param on: polls are late.
    :param last: when a poll was last late.
    """

    on: bool = False
    last: float = -inf

    def after(self, now: float, late: float) -> tuple[Pressure, Literal["begins", "ends"] | None]:
        """Apply the lateness of the plan at `now`, in seconds; return the change to log."""
        if late > LATE_SECONDS:
            return Pressure(on=True, last=now), None if self.on else "begins"
        if self.on and now - self.last > RECOVERED_SECONDS:
            return Pressure(), "ends"
        return self, None
