"""From what was counted to figures; all of it pure, but for the bucket's state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass
class Bucket:
    """A token bucket as AWS has it.

    :param rate: calls that come back each second.
    :param burst: calls that it holds at most.
    """

    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, now: float) -> bool:
        """Take a call out; ``False``: there was none."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def over_budget(times: Iterable[float], rate: float, burst: float) -> int:
    """How many of these calls AWS would have refused with this bucket.

    >>> over_budget([0, 0, 0, 1, 1], rate=1, burst=2)
    2
    """
    ordered = sorted(times)
    if not ordered:
        return 0
    bucket = Bucket(rate, burst, burst, ordered[0])
    return sum(not bucket.take(time) for time in ordered)


def percentile(values: Sequence[float], part: float) -> float | None:
    """The smallest of the values that at least this part of them does not exceed; ``None`` of none.

    >>> percentile([4, 1, 3, 2], 0.5), percentile([4, 1, 3, 2], 0.95), percentile([], 0.5)
    (2, 4, None)
    """
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Median, 95th percentile and maximum."""
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "max": percentile(values, 1.0)}


def within(times: Iterable[float], begin: float, end: float) -> int:
    """How many of these moments lie in that window."""
    return sum(begin <= time < end for time in times)
