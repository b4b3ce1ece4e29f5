"""Request limits of AWS as token buckets, one per bucket and region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class BucketSize:
    """How many calls a bucket lets through.

    :param burst: calls that may come at once, the size of the full bucket.
    :param per_second: calls by which it is refilled each second.
    """

    burst: float
    per_second: float


_ECS_CLUSTER_READS = (
    "DescribeTasks",
    "ListTasks",
    "DescribeContainerInstances",
    "ListContainerInstances",
    "GetTaskProtection",
)
_ECS_CLUSTER_CHANGES = (
    "RunTask",
    "StartTask",
    "StopTask",
    "UpdateContainerInstancesState",
    "DeregisterContainerInstance",
)

BUCKET_OF: Mapping[str, str] = {
    **dict.fromkeys((f"ecs:{action}" for action in _ECS_CLUSTER_READS), "ecs cluster reads"),
    **dict.fromkeys((f"ecs:{action}" for action in _ECS_CLUSTER_CHANGES), "ecs cluster changes"),
}
"""Operations that share a bucket; every other operation has its own, named like itself.

Source: ECS API reference, "Request throttling for the Amazon ECS API".
"""

PUBLISHED_SIZES: Mapping[str, BucketSize] = {
    "ecs cluster reads": BucketSize(100, 20),
    "ecs cluster changes": BucketSize(100, 40),
    "emr:DescribeStep": BucketSize(10, 0.5),
    "emr:ListSteps": BucketSize(10, 0.5),
    "emr:AddJobFlowSteps": BucketSize(10, 0.5),
    "emr:CancelSteps": BucketSize(10, 0.5),
    "emr:RunJobFlow": BucketSize(10, 0.5),
    "emr:DescribeCluster": BucketSize(10, 1),
    "emr": BucketSize(25, 5),
    "logs:GetLogEvents": BucketSize(25, 25),
    "logs:FilterLogEvents": BucketSize(5, 5),
}
"""Sizes per account and region; what is not named here is never throttled.

``emr`` counts all calls of EMR together.

Source: ECS API reference, "Request throttling for the Amazon ECS API"; Service Quotas of EMR (L-B810434D,
L-72BCD5B1, L-7D1BF903, L-8AF88BF0, and for all calls L-283CCA2A and L-432FAB44) and of CloudWatch Logs
("GetLogEvents: 25 requests per second", "FilterLogEvents: 5 requests per second" in most regions).
"""


def bucket_of(operation: str) -> str:
    """Name the bucket that an operation such as ``ecs:RunTask`` takes its token from."""
    return BUCKET_OF.get(operation, operation)


class Buckets:
    """The buckets of one account, all full at first."""

    def __init__(self, sizes: Mapping[str, BucketSize]) -> None:
        self.sizes = {bucket_of(name): size for name, size in {**PUBLISHED_SIZES, **sizes}.items()}
        self._levels: dict[tuple[str, str], tuple[float, float]] = {}

    def take(self, operation: str, region: str, now: float) -> bool:
        """Take a token from each bucket that the operation needs; ``False``: one of them has none."""
        names = [each for each in (bucket_of(operation), operation.partition(":")[0]) if each in self.sizes]
        levels = {name: self._level(name, region, now) for name in names}
        granted = all(level >= 1 for level in levels.values())
        for name, level in levels.items():
            self._levels[region, name] = (level - 1 if granted else level, now)
        return granted

    def _level(self, name: str, region: str, now: float) -> float:
        size = self.sizes[name]
        level, since = self._levels.get((region, name), (size.burst, now))
        return min(size.burst, level + max(0.0, now - since) * size.per_second)

    def fill(self) -> None:
        """Fill all buckets."""
        self._levels.clear()
