"""What is measured: the cases, each with what its endpoint simulates and what its process is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WIDE_BUDGET = {"AIRFLOW__AIRFLOW_RESILIENT__API_BUDGETS": "emr:ListSteps=1000/1000, emr=1000/1000"}
WHOLE_BUDGET = {"AIRFLOW__AIRFLOW_RESILIENT__API_BUDGET_SHARE": "1.0"}


@dataclass(frozen=True)
class Run:
    """One process that measures.

    :param group: which table it belongs to.
    :param case: keywords of `one.Case`.
    :param endpoint: further keywords of `endpoint.Settings`.
    :param environment: Airflow's settings, where they are not the defaults.
    :param beside: whether it may run beside others: it hardly computes, and its CPU and stalls do not count.
    :param bound: seconds after which the process is stopped, and the case counts as not measured.
    """

    group: str
    case: Mapping[str, Any]
    endpoint: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    beside: bool = False
    bound: float = 240.0


FEW = 100


def _ecs(who: str, jobs: int, **more: Any) -> dict[str, Any]:
    return {"who": who, "service": "ecs", "jobs": jobs, "clusters": 1, **more}


def _emr(who: str, jobs: int, clusters: int, **more: Any) -> dict[str, Any]:
    return {"who": who, "service": "emr", "jobs": jobs, "clusters": clusters, **more}


def all_runs(provider_largest: int = 2000) -> list[Run]:
    """The whole benchmark.

    :param provider_largest: the most waits that are measured with the provider's triggers; a wait of theirs
        takes more than a megabyte.
    """
    # First, in a process that has done nothing: all waits start at once, as when a triggerer restarts.
    runs = [
        Run("cold", _ecs(who, jobs, cold=True, longest_start=600.0), bound=900.0)
        for who, jobs in (("ours", 1000), ("provider", 1000), ("ours", 5000))
    ]
    for who in ("ours", "provider"):
        case = _emr(who, 1000, 20, cold=True, longest_start=600.0)
        runs.append(Run("cold, EMR", case, environment=WIDE_BUDGET, bound=900.0))
    for jobs in (FEW, 1000, 2000, 5000, 10_000):
        if jobs != 2000 or provider_largest >= 2000:  # noqa: PLR2004 - there for the provider's sake
            runs.append(Run("ecs", _ecs("ours", jobs)))
        if jobs <= provider_largest:
            runs.append(Run("ecs", _ecs("provider", jobs), bound=600.0))
    # What sharing calls alone brings: the budget is out of the way.
    for jobs, clusters in ((FEW, 10), (1000, 20)):
        runs.append(Run("emr", _emr("ours", jobs, clusters), environment=WIDE_BUDGET))
        runs.append(Run("emr", _emr("provider", jobs, clusters), bound=400.0))
    # The published budget, half of it and all of it.
    # A thousand steps that end together are asked for by their ids, ten at a time: a hundred calls. Where
    # there are few on a cluster, DescribeStep takes a part.
    slow = {"settle": 5.0, "steady": 85.0, "most_wait": 600.0}
    for share in ({}, WHOLE_BUDGET):
        for jobs in (1000, 40):
            case = _emr("ours", jobs, 20, **slow)
            runs.append(Run("emr, published budget", case, environment=share, beside=True, bound=1200.0))
    # An endpoint that allows less than was published.
    for who, jobs, allowed in (("ours", 10_000, 5.0), ("provider", 100, 5.0)):
        case = _ecs(who, jobs, settle=20.0, steady=60.0, most_wait=45.0, longest_start=120.0)
        runs.append(Run("throttled", case, {"allowed": allowed, "burst": 25.0}, beside=True, bound=400.0))
    # Events: none, sent, and sent among false ones.
    for events in ({}, {"events": True}, {"events": True, "lies": 20.0}):
        case = _ecs("ours", 1000, poll=30.0, steady=60.0, settle=30.0)
        runs.append(Run("events", case, events, beside=True))
    return runs


def quick_runs() -> list[Run]:
    """A few seconds, to see that everything works."""
    short = {"poll": 2.0, "settle": 1.0, "steady": 2.0, "ends_over": 1.0, "most_wait": 10.0}
    return [
        Run("cold", _ecs("ours", 20, **short, cold=True), bound=60.0),
        Run("ecs", _ecs("ours", 20, **short), bound=60.0),
        Run("events", _ecs("ours", 20, **short), {"events": True, "lies": 10.0}, bound=60.0),
    ]
