"""How many calls AWS allows, and how many of them are ours: a token bucket for each API, account and region.

`Bucket` is a value and its methods are pure: refill, spend, halve the rate when throttled, raise it step by
step when all goes well, as TCP does. `SharedBucket` holds one for all who use the same API of the same
account: it counts the calls that were really made, whoever made them, and lets nobody starve another.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

FLOOR = 16
"""The rate never falls below this part of its ceiling: looks become rarer, and never stop."""
STEPS = 50
"""Answers that it takes to go from nothing to the ceiling; from half the ceiling it takes half of them."""

LONGEST_ENTRY = 10.0
"""Seconds that a look under way waits for one more call."""

Answer = Literal["well", "throttled", "error"]
"""How a call was answered."""


@dataclass(frozen=True)
class Budget:
    """What a service publishes about the limits of one of its APIs.

    :param name: of the API, such as ``emr:ListSteps``; also names it in ``[airflow_resilient] api_budgets``.
    :param per_second: calls by which AWS refills the account's bucket each second.
    :param burst: calls that the full bucket holds.
    :param operations: which operations take from it; those of others are not counted.
    :param places: what a scope is called, in the plural.
    """

    name: str
    per_second: float
    burst: float
    operations: tuple[str, ...] = ()
    places: str = "places"

    def bucket(self, share: float = 1.0, now: float = 0.0) -> Bucket:
        """A full bucket of that share of the budget. It holds at least one call."""
        rate, burst = self.per_second * share, max(1.0, self.burst * share)
        return Bucket(rate=rate, burst=burst, ceiling=rate, tokens=burst, at=now)


DEFAULT_BUDGET = Budget("a service without a budget", per_second=20.0, burst=100.0)
"""For services that do not say what they may cost."""


@dataclass(frozen=True)
class Bucket:
    """Calls that may be made now, and how fast more of them come.

    :param rate: calls by which it is refilled each second; at most `ceiling`, at least a part of it.
    :param burst: calls that it holds at most.
    :param tokens: calls that may be made now; below zero, a look was dearer than it was thought to be.
    :param at: when it was last refilled, in seconds.
    :param slowed: when the rate was last halved.

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

    def refilled(self, now: float) -> Bucket:
        """The bucket at `now`. A clock that goes back takes nothing away."""
        if now <= self.at:
            return replace(self, at=now)
        return replace(self, tokens=min(self.burst, self.tokens + (now - self.at) * self.rate), at=now)

    def spent(self, calls: float) -> Bucket:
        """The bucket after that many calls; a negative number gives back what was not needed."""
        return replace(self, tokens=min(self.burst, self.tokens - calls))

    def throttled(self, now: float, sent: float | None = None) -> Bucket:
        """The bucket after a call was refused because there were too many: half the rate, and no call left.

        :param sent: when the call was sent. What was under way when the rate was halved says nothing about
            the new rate.
        """
        emptied = replace(self, tokens=min(self.tokens, 0.0))
        if sent is not None and sent < self.slowed:
            return emptied
        return replace(emptied, rate=max(self.ceiling / FLOOR, self.rate / 2), slowed=now)

    def went_well(self) -> Bucket:
        """The bucket after a call that was answered: a step faster."""
        return replace(self, rate=min(self.ceiling, self.rate + self.ceiling / STEPS))

    def affords(self, calls: float) -> bool:
        """Whether that many calls may be made now; what costs more than a full bucket needs a full one."""
        return self.tokens >= min(calls, self.burst) - 1e-9

    def wait_for(self, calls: float) -> float:
        """Seconds until the bucket affords that many calls."""
        return max(0.0, min(calls, self.burst) - self.tokens) / self.rate


@dataclass
class _Paid:
    """What the calls of one look were paid in advance; lives in the thread that makes them."""

    left: float
    sent: float


class SharedBucket:
    """One bucket for all who use the same API of the same account; safe to share between threads.

    :param now: the clock, in seconds.
    :param sleep: waits that many seconds; called in threads only.

    :ivar state: the `Bucket`, as of its last change.
    :ivar calls: how many calls were made, retries of botocore and calls outside of looks included.
    :ivar throttles: how many of them were refused because there were too many.
    """

    def __init__(
        self,
        budget: Budget,
        share: float = 1.0,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.budget = budget
        self.state = budget.bucket(share, now())
        self.calls = 0
        self.throttles = 0
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._short: weakref.WeakKeyDictionary[object, tuple[float, float]] = weakref.WeakKeyDictionary()

    def offer(self, who: object, now: float) -> Bucket:
        """The bucket as `who` may use it: without what others need who have been short of it for longer."""
        with self._lock:
            self.state = self.state.refilled(now)
            mine = self._short.get(who, (inf, 0.0))[0]
            kept = sum(
                min(calls, self.state.burst)
                for other, (since, calls) in self._short.items()
                if other is not who and since < mine
            )
            return self.state.spent(kept)

    def short(self, who: object, calls: float | None, now: float) -> None:
        """Note that `who` waits for that many calls; ``None``: not any more."""
        with self._lock:
            if calls is None:
                self._short.pop(who, None)
            else:
                self._short[who] = (self._short.get(who, (now, 0.0))[0], calls)

    def reserve(self, calls: float) -> None:
        """Take what a look will cost; `paying` settles it."""
        with self._lock:
            self.state = self.state.refilled(self._now()).spent(calls)

    @contextmanager
    def paying(self, reserved: float) -> Iterator[None]:
        """Set the calls that this thread makes off against what was reserved; give back what was not needed.

        Unless the rate was halved meanwhile: then no call is left, these neither.
        """
        paid = self._thread.paid = _Paid(reserved, self._now())
        try:
            yield
        finally:
            del self._thread.paid
            with self._lock:
                if self.state.slowed < paid.sent:
                    self.state = self.state.spent(-paid.left)

    def enter(self) -> None:
        """Wait for a call that was not reserved for the look of this thread, which is dearer than thought.

        Calls outside of looks (a cancel, a search before a submit) do not wait. Neither does anybody wait for
        long: a call that is made too soon is a debt, which is paid before the next look.
        """
        paid: _Paid | None = getattr(self._thread, "paid", None)
        if paid is None or paid.left >= 1:
            return
        with self._lock:
            wait = self.state.refilled(self._now()).wait_for(1)
        if wait > 0:
            self._sleep(min(wait, LONGEST_ENTRY))
        self.reserve(1)
        paid.left += 1

    def heard(self, answer: Answer, *, calls: int = 1) -> None:
        """Take in how `calls` were answered, which this thread has made."""
        paid: _Paid | None = getattr(self._thread, "paid", None)
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
            elif answer == "well":
                state = state.went_well()
            self.state = state


_SHARED: dict[tuple[Budget, str, float], SharedBucket] = {}
_MAKING = threading.Lock()


def shared_bucket(budget: Budget, account: str, share: float) -> SharedBucket:
    """The bucket of this process for that API in that account.

    :param account: whatever tells accounts and regions apart.
    :param share: how much of the budget is ours.
    """
    with _MAKING:
        return _SHARED.setdefault((budget, account, share), SharedBucket(budget, share))
