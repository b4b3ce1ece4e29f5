"""Budgets of API calls: a token bucket for each API, account and region.

`Bucket` is a value and its methods are pure: refill, spend, halve the rate when throttled, raise it step by
step while calls succeed, as TCP does. `SharedBucket` holds one bucket for all users of the same API of the
same account: it counts the calls that were made, by any of them, and prevents that one user starves another.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..core.service import Budget


MAX_SLOWDOWN = 16
"""The rate never falls below its ceiling divided by this: polling slows down, and never stops."""

STEPS_TO_CEILING = 50
"""Successful calls that raise the rate from zero to its ceiling; from half the ceiling, half as many."""

MAX_ACQUIRE_SECONDS = 10.0
"""Seconds for which a poll under way waits for one more call."""

Answer = Literal["ok", "throttled", "error"]
"""How a call was answered."""


@dataclass(frozen=True)
class Bucket:
    """The number of calls that may be made now, and the rate at which it grows.

    :param rate: calls by which it is refilled each second; at most `ceiling`, at least a fraction of it.
    :param burst: the most calls that it holds.
    :param tokens: calls that may be made now; negative when a poll was more expensive than estimated.
    :param at: when it was last refilled, in seconds.
    :param slowed: when the rate was last halved, in seconds.

    >>> bucket = Bucket(rate=0.5, burst=10.0, ceiling=0.5, tokens=10.0, at=0.0)
    >>> bucket.spent(10).refilled(4.0).tokens
    2.0
    >>> slow = bucket.throttled(4.0)
    >>> slow.rate, slow.tokens, slow.wait_for(1)
    (0.25, 0.0, 4.0)
    >>> slow.went_well().rate
    0.26
    """

    rate: float
    burst: float
    ceiling: float
    tokens: float
    at: float
    slowed: float = -inf

    @classmethod
    def full(cls, budget: Budget, share: float = 1.0, now: float = 0.0) -> Bucket:
        """A full bucket for a share of the budget. It holds at least one call."""
        rate, burst = budget.per_second * share, max(1.0, budget.burst * share)
        return cls(rate=rate, burst=burst, ceiling=rate, tokens=burst, at=now)

    def refilled(self, now: float) -> Bucket:
        """The bucket at `now`. A clock that goes backwards removes no calls."""
        if now <= self.at:
            return replace(self, at=now)
        return replace(self, tokens=min(self.burst, self.tokens + (now - self.at) * self.rate), at=now)

    def spent(self, calls: float) -> Bucket:
        """The bucket after that many calls; a negative number returns calls that were not needed."""
        return replace(self, tokens=min(self.burst, self.tokens - calls))

    def throttled(self, now: float, sent: float | None = None) -> Bucket:
        """The bucket after a throttled call: half the rate, and no calls left.

        :param sent: when the call was sent. A call that was sent before the rate was halved does not halve it
            again.
        """
        emptied = replace(self, tokens=min(self.tokens, 0.0))
        if sent is not None and sent < self.slowed:
            return emptied
        return replace(emptied, rate=max(self.ceiling / MAX_SLOWDOWN, self.rate / 2), slowed=now)

    def went_well(self) -> Bucket:
        """The bucket after a successful call: one step faster."""
        return replace(self, rate=min(self.ceiling, self.rate + self.ceiling / STEPS_TO_CEILING))

    def affords(self, calls: float) -> bool:
        """Whether that many calls may be made now; more than a full bucket holds needs a full bucket."""
        return self.tokens >= min(calls, self.burst) - 1e-9

    def wait_for(self, calls: float) -> float:
        """Seconds until the bucket affords that many calls."""
        return max(0.0, min(calls, self.burst) - self.tokens) / self.rate


@dataclass
class _Prepaid:
    """The calls that were reserved for one poll; a thread-local of the thread that makes them."""

    left: float
    sent: float


class SharedBucket:
    """One bucket for all users of the same API of the same account; safe to share between threads.

    :param now: the clock, in seconds.
    :param sleep: waits that many seconds; called in threads only.

    :ivar state: the `Bucket`, as of its last change.
    :ivar calls: how many calls were made, including retries of botocore and calls outside of polls.
    :ivar throttles: how many of them were throttled.
    """

    def __init__(
        self,
        budget: Budget,
        share: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.budget = budget
        self.state = Bucket.full(budget, share, now())
        self.calls = 0
        self.throttles = 0
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._waiting: weakref.WeakKeyDictionary[object, tuple[float, float]] = weakref.WeakKeyDictionary()

    def available_to(self, who: object, now: float) -> Bucket:
        """The bucket without the calls that are reserved for users who have waited longer than `who`."""
        with self._lock:
            self.state = self.state.refilled(now)
            mine = self._waiting.get(who, (inf, 0.0))[0]
            kept = sum(
                min(calls, self.state.burst)
                for other, (since, calls) in self._waiting.items()
                if other is not who and since < mine
            )
            return self.state.spent(kept)

    def mark_waiting(self, who: object, calls: float | None, now: float) -> None:
        """Record that `who` waits for that many calls; ``None``: no longer."""
        with self._lock:
            if calls is None:
                self._waiting.pop(who, None)
            else:
                self._waiting[who] = (self._waiting.get(who, (now, 0.0))[0], calls)

    def reserve(self, calls: float) -> None:
        """Reserve the estimated calls of a poll; `spend` settles the difference."""
        with self._lock:
            self.state = self.state.refilled(self._now()).spent(calls)

    @contextmanager
    def spend(self, reserved: float) -> Iterator[None]:
        """Deduct the calls of this thread from the reserved ones, and return those that were not needed.

        Nothing is returned when the rate was halved meanwhile: then no calls are left.
        """
        paid = self._thread.paid = _Prepaid(reserved, self._now())
        try:
            yield
        finally:
            del self._thread.paid
            with self._lock:
                if self.state.slowed < paid.sent:
                    self.state = self.state.spent(-paid.left)

    def acquire(self) -> None:
        """Wait for a call that was not reserved, because the poll of this thread costs more than estimated.

        Calls outside of polls (a cancel, a search before a submit) do not wait. The wait is limited: a call
        that is made too early becomes a debt, which delays the next poll.
        """
        paid: _Prepaid | None = getattr(self._thread, "paid", None)
        if paid is None or paid.left >= 1:
            return
        with self._lock:
            wait = self.state.refilled(self._now()).wait_for(1)
        if wait > 0:
            self._sleep(min(wait, MAX_ACQUIRE_SECONDS))
        self.reserve(1)
        paid.left += 1

    def record(self, answer: Answer, *, calls: int = 1) -> None:
        """Record the answer to `calls` that this thread has made."""
        paid: _Prepaid | None = getattr(self._thread, "paid", None)
        now = self._now()
        with self._lock:
            self.calls += calls
            advance = min(float(calls), paid.left) if paid else 0.0
            if paid:
                paid.left -= advance
            state = self.state.refilled(now).spent(calls - advance)
            if answer == "throttled":
                self.throttles += 1
                state = state.throttled(now, paid.sent if paid else None)
            elif answer == "ok":
                state = state.went_well()
            self.state = state


# A bucket lives as long as a watch or a client that uses it. One that is made again is full, as is one that
# nobody has used for a while.
_BUCKETS: weakref.WeakValueDictionary[tuple[Budget, str, float], SharedBucket] = weakref.WeakValueDictionary()

_BUCKETS_LOCK = threading.Lock()


def shared_bucket(budget: Budget, account: str, share: float) -> SharedBucket:
    """The bucket of this process for that API in that account.

    :param account: identifies account and region.
    :param share: the part of the budget that this process may use.
    """
    with _BUCKETS_LOCK:
        return _BUCKETS.setdefault((budget, account, share), SharedBucket(budget, share))
