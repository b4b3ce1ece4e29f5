"""Read the answers of Amazon EMR about steps. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...core.job import NO_CLAIM, Cause, Job, Phase
from ...core.text import redact, shorten, values_of
from .marker import MARKER, Step, created_at, proved, read_marker, timeline
from .request import secret_words

if TYPE_CHECKING:
    from ...core.job import Claim
    from .marker import Marker, Step


MAX_IDS_PER_CALL = 10
"""Source: ListSteps reference, StepIds."""

MAX_STEPS_PER_PAGE = 50
"""Source: ListSteps reference, "up to 50 steps"."""

_SAME_END_SECONDS = 900.0  # by which a step may end before its cluster and still have ended with it

_LISTED_AFTER_SECONDS = 120.0  # EMR lists all steps of a call by then

_ENDED = frozenset({"COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"})

_INFRASTRUCTURE = frozenset(
    {"INTERNAL_ERROR", "INSTANCE_FAILURE", "INSTANCE_FLEET_TIMEOUT", "BOOTSTRAP_FAILURE"}
)


_CLUSTER_ADVICE = {
    "STEP_FAILURE": "Find out which step ended the cluster.",
    "ALL_STEPS_COMPLETED": "It ends when it has no steps left: let it wait for steps, or start another one.",
    "VALIDATION_ERROR": "No step caused this: the cluster never came up. Correct what the message names (a "
    "quota, an instance type, a role, a subnet), and start another cluster.",
}
"""What to do after a cluster has ended, by the code of its end.

Source: ClusterStateChangeReason in the EMR API reference; EMR management guide, "Resource errors".
"""


def read_steps(
    steps: Sequence[Step],
    claim: Claim,
    cluster_id: str,
    of: int | None = None,
    *,
    created: float = 0.0,
    cluster: Mapping[str, Any] | None = None,
) -> Job:
    """The observation of one submission, from its steps.

    It has succeeded only when every step is known to be COMPLETED. A state that this version does not know
    counts as running. Steps that are not listed (yet) count as queued.

    :param steps: elements of ListSteps' ``Steps``, ``{"Id": str, "Name": str, "Status": {"State": str,
        ...}}``; of a step that is not listed again, only its id and its last state.
    :param of: how many steps were submitted; default: the number of `steps`.
    :param created: time of creation for steps without a timeline.
    :param cluster: ``Cluster.Status`` of DescribeCluster, if the steps may have ended with their cluster.

    Source: StepStatus and ClusterStateChangeReason in the EMR API reference.
    """
    states = [str(step["Status"]["State"]) for step in steps]
    missing = (of or len(steps)) - len(steps)
    phase = _phase_of(states, missing)
    cause, reason = Cause.UNKNOWN, ""
    if phase in (Phase.FAILED, Phase.CANCELLED):
        bad = [step for step in steps if step["Status"]["State"] != "COMPLETED"]
        bad.sort(key=lambda step: step["Status"]["State"] == "CANCELLED")  # failures first: they have details
        phase, cause, advice = _verdict(phase, bad, cluster or {})
        others = f" ({len(bad) - 1} more of {len(steps)} steps did not complete.)" if len(bad) > 1 else ""
        cluster_end = describe_cluster_end(cluster_id, cluster or {}, bad)
        reason = f"{_describe_step_end(bad[0])}{cluster_end}{others} {advice}"
    ends = [end.timestamp() for step in steps if (end := timeline(step).get("EndDateTime"))]
    facts: dict[str, Any] = {
        "steps": [[step["Id"], state] for step, state in zip(steps, states, strict=True)]
    }
    if missing > 0:
        facts["of"] = of
    if len(states) == 1:
        facts["state"] = states[0]
    return Job(
        ",".join(str(step["Id"]) for step in steps),
        claim,
        phase,
        min([made for step in steps if (made := created_at(step))], default=created),
        scope=cluster_id,
        reason=reason,
        cause=cause,
        ended=max(ends, default=None) if not phase.live else None,
        facts=facts,
    )


def _phase_of(states: Sequence[str], missing: int) -> Phase:
    known = {"PENDING", "CANCEL_PENDING", "COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED"}
    if any(state not in known for state in states):  # RUNNING, or a state that AWS added later
        return Phase.RUNNING
    if "PENDING" in states:
        return Phase.RUNNING if len(set(states)) > 1 else Phase.QUEUED
    if "CANCEL_PENDING" in states:
        return Phase.STOPPING
    if missing > 0 or not states:
        return Phase.QUEUED
    if all(state == "COMPLETED" for state in states):
        return Phase.SUCCEEDED
    return Phase.FAILED if {"FAILED", "INTERRUPTED"} & set(states) else Phase.CANCELLED


def _verdict(phase: Phase, bad: Sequence[Step], cluster: Mapping[str, Any]) -> tuple[Phase, Cause, str]:
    """Phase, cause and advice for steps that did not complete.

    A running step of a cluster that a person terminates is cancelled, so a step with failure details failed
    before that, by itself. Source: TerminateJobFlows reference, "any step not yet completed is canceled".
    """
    code = _cluster_end_code(cluster, bad)
    if code in _INFRASTRUCTURE:
        return (
            Phase.FAILED,
            Cause.INFRASTRUCTURE,
            "The steps did not cause this: run them on a healthy cluster.",
        )
    if code == "USER_REQUEST" and not any(step["Status"].get("FailureDetails") for step in bad):
        return Phase.CANCELLED, Cause.USER, "Start a cluster and run them again if that was not intended."
    failed = any(step["Status"]["State"] == "FAILED" for step in bad)
    if failed or (phase is Phase.FAILED and not code):
        cause = Cause.APPLICATION if failed else Cause.UNKNOWN
        return phase, cause, "Read the step's log (stderr, controller), fix the step, run it again."
    if code:
        return Phase.FAILED, Cause.UNKNOWN, _CLUSTER_ADVICE.get(code, "Find out why the cluster ended.")
    advice = (
        "A person or a tool cancelled it, or a step before it failed with ActionOnFailure=CANCEL_AND_WAIT."
    )
    return phase, Cause.USER, advice


def _cluster_end_code(cluster: Mapping[str, Any], bad: Sequence[Step]) -> str:
    """The code of the cluster's end, if these steps may have ended with it; ``""`` otherwise."""
    if cluster.get("State") not in ("TERMINATING", "TERMINATED", "TERMINATED_WITH_ERRORS"):
        return ""
    ended = cluster.get("Timeline", {}).get("EndDateTime")
    last = max((end for step in bad if (end := timeline(step).get("EndDateTime"))), default=None)
    if ended and last and ended.timestamp() - last.timestamp() > _SAME_END_SECONDS:
        return ""
    return str(cluster.get("StateChangeReason", {}).get("Code") or "")


def _describe_step_end(step: Step) -> str:
    status = step["Status"]
    details = status.get("FailureDetails") or {}
    changed = (status.get("StateChangeReason") or {}).get("Message")
    config = step.get("Config") or {}
    # What a step writes when it fails may quote its arguments.
    secrets = [*secret_words(config.get("Args")), *values_of(config.get("Properties"))]
    message = ": ".join(
        shorten(redact(str(text), secrets), 120)
        for text in (details.get("Reason") or changed, details.get("Message"))
        if text
    )
    where = f" (log file: {shorten(str(details['LogFile']), 160)})" if details.get("LogFile") else ""
    name = MARKER.sub("", step.get("Name", "")).strip()
    quoted = f" {shorten(str(name), 60)!r}" if name else ""
    return f"step {step['Id']}{quoted} {status['State']}" + (f": {message}" if message else "") + where + "."


def describe_cluster_end(cluster_id: str, cluster: Mapping[str, Any], bad: Sequence[Step]) -> str:
    """A sentence about the end of the cluster; ``""`` if the steps did not end with it."""
    code = _cluster_end_code(cluster, bad)
    message = (cluster.get("StateChangeReason") or {}).get("Message")
    because = f" ({shorten(str(message), 95)})" if message else ""
    return f" Its cluster {cluster_id} ended with {code}{because}." if code else ""


@dataclass(frozen=True)
class LookupPlan:
    """How to look up some steps of a cluster with the fewest calls.

    :param by_pages: list the active steps, 50 on a page, and look up those that are not among them by id;
        otherwise look up all by id, ten at a time.
    :param calls: the number of calls that this takes.
    """

    by_pages: bool
    calls: int


def plan_lookup(wanted: int, active: int | None) -> LookupPlan:
    """Choose the way that needs fewer calls; by id if both need the same, because that is exact.

    :param wanted: how many steps to look up.
    :param active: how many steps, of any owner, were active on the cluster at the last poll; ``None``:
        unknown, so `wanted` is assumed.

    >>> plan_lookup(10, None), plan_lookup(11, None)
    (LookupPlan(by_pages=False, calls=1), LookupPlan(by_pages=True, calls=2))
    >>> plan_lookup(30, 256)
    LookupPlan(by_pages=False, calls=3)

    Some of the steps will have ended since the last poll; one more call is added for them.
    """
    by_ids = math.ceil(wanted / MAX_IDS_PER_CALL)
    pages = max(1, math.ceil((wanted if active is None else active) / MAX_STEPS_PER_PAGE))
    if pages < by_ids:
        return LookupPlan(by_pages=True, calls=pages + 1)
    return LookupPlan(by_pages=False, calls=by_ids)


def step_ids(job: Job) -> list[str]:
    """Ids of the job's steps: more than in its own id, if some were not listed when it was found."""
    return [step_id for step_id, _ in job.facts.get("steps", ())] or job.id.split(",")


def unfinished_ids(job: Job) -> list[str]:
    """Ids of the steps that were not COMPLETED at the last poll; a COMPLETED step stays COMPLETED."""
    done = {step_id for step_id, state in job.facts.get("steps", ()) if state == "COMPLETED"}
    ids = step_ids(job)
    return [step_id for step_id in ids if step_id not in done] or ids


def with_finished(job: Job, known: Mapping[str, Step]) -> list[Step]:
    """The job's steps in `known`, and those that had completed before."""
    done: dict[str, Step] = {
        step_id: {"Id": step_id, "Status": {"State": state}}
        for step_id, state in job.facts.get("steps", ())
        if state == "COMPLETED"
    }
    return [step for step_id in step_ids(job) if (step := known.get(step_id) or done.get(step_id))]


def lacks_steps(job: Job) -> bool:
    """Whether some steps of the job were not listed when it was found."""
    return int(job.facts.get("of", 0)) > 0


def proves(step: Step, job: Job) -> bool:
    """Whether a listed step, which `job` names by its id, belongs to it: its marker is of the job's claim.

    A sensor's job has no claim. The marker must be made for this very step only where the id is doubted, see
    `doubted_facts`: a step whose id AddJobFlowSteps has returned is watched and cancelled even if EMR should
    not list its arguments as they were added, which its API reference does not promise.
    """
    if job.claim == NO_CLAIM:
        return True
    name = str(step.get("Name") or "")
    marker = proved(step, job.scope) if job.facts.get("doubted") else read_marker(name)
    return marker is not None and marker.claim == job.claim


def is_part_of_a_copy(marker: Marker, steps: Sequence[Step], now: float) -> bool:
    """Whether steps are copies of some of ours: EMR adds a submission as a whole, and these lack some of it.

    Those that were added a moment ago may not be listed yet, and an active step is awaited.

    :param steps: those that are listed, with the same marker but for the place.
    :param now: in seconds since 1970.
    """
    ended = all(step["Status"]["State"] in _ENDED for step in steps)
    return len(steps) < marker.of and ended and max(map(created_at, steps)) < now - _LISTED_AFTER_SECONDS


def doubted_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a job without the states of its steps, which somebody else may have written.

    >>> doubted_facts({"steps": [["s-1", "COMPLETED"]], "of": 2}), doubted_facts({"steps": "COMPLETED"})
    ({'doubted': True, 'steps': [['s-1', 'PENDING']], 'of': 2}, {'doubted': True})
    """
    steps = facts.get("steps")
    if not isinstance(steps, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)  # noqa: PLR2004 - id and state
        for pair in steps
    ):
        return {"doubted": True}
    of = facts.get("of")
    known = {"of": of} if type(of) is int else {}
    return {"doubted": True, "steps": [[pair[0], "PENDING"] for pair in steps], **known}
