"""The rules: facts in, one action out.

Nothing here does I/O or knows Airflow or AWS. `decide` takes facts and returns the next action. The smaller
rules that `reconcile` and the trigger apply around it are here too, so that every decision is a pure function
with a table of tests.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from .job import CLOCK_SKEW, Cause, Claim, Phase
from .retry import doubling

if TYPE_CHECKING:
    from .job import Job, Owner


@dataclass(frozen=True)
class Policy:
    """The operator's parameters that decisions depend on. Durations are seconds.

    :param infrastructure_retries: how many times one try resubmits after an infrastructure failure.
    :param on_timeout: whether the job is cancelled and awaited at the deadline, or left running.
    :param first_backoff: wait before the first resubmission; doubles up to `max_backoff`.
    :param first_pause: wait after the first transient error; doubles up to `max_backoff`.
    :param quick_retries: consecutive transient errors that a worker waits out before it releases its slot.
    :param cancel_grace: how long after the deadline the end of the cancelled job is awaited.
    :param transient_error_timeout: how long a try that has no job believes that errors will pass.
    """

    infrastructure_retries: int = 2
    on_timeout: Literal["cancel", "leave"] = "cancel"
    first_backoff: float = 10.0
    max_backoff: float = 300.0
    first_pause: float = 2.0
    quick_retries: int = 2
    cancel_grace: float = 300.0
    transient_error_timeout: float = 3600.0

    def backoff(self, attempt: int) -> float:
        """Seconds before resubmission number `attempt` (from 1), without jitter.

        >>> [Policy().backoff(n) for n in (1, 2, 3, 9)]
        [10.0, 20.0, 40.0, 300.0]
        """
        return doubling(self.first_backoff, attempt, self.max_backoff)

    def pause(self, errors: int) -> float:
        """Seconds before the next attempt after `errors` consecutive transient errors, without jitter."""
        return doubling(self.first_pause, errors, self.max_backoff)


@dataclass(frozen=True)
class Facts:
    """Everything that is known when a decision is due.

    :param jobs: the latest observation of every job that was found, submitted or watched.
    :param own_job_ids: ids of the jobs that *this try* has submitted or watched. It reports their end; the
        failure of any other job is history that an earlier try has reported.
    :param overdue: the deadline of the try has passed.
    :param cancel_grace_over: the cancelled job has not ended within the grace period after the deadline.
    :param refusals: how often the service had no capacity for a submission of this try.
    """

    jobs: tuple[Job, ...] = ()
    own_job_ids: frozenset[str] = frozenset()
    overdue: bool = False
    cancel_grace_over: bool = False
    refusals: int = 0


@dataclass(frozen=True)
class Submit:
    """Start a job under `claim`, `after` seconds from now."""

    claim: Claim
    why: str
    after: float = 0.0


@dataclass(frozen=True)
class Cancel:
    """Cancel `job`."""

    job: Job
    why: str


@dataclass(frozen=True)
class Watch:
    """Wait, without a worker slot, until all `jobs` have ended. The outcome of the first one counts."""

    jobs: tuple[Job, ...]
    why: str


@dataclass(frozen=True)
class Finish:
    """Report how `job` ended."""

    job: Job
    why: str


@dataclass(frozen=True)
class TimedOut:
    """Report that the deadline has passed; `job` is the last one, if there was any."""

    job: Job | None
    why: str


@dataclass(frozen=True)
class OutOfCapacity:
    """Report that the service had no capacity, `refusals` times."""

    refusals: int
    why: str


@dataclass(frozen=True)
class GaveUp:
    """Report that no job was submitted, because errors that may pass did not pass.

    :param may_have_left: an earlier try may have left a job, which could not be looked for.
    """

    why: str
    may_have_left: bool = False


@dataclass(frozen=True)
class RequestChanged:
    """Report that no further job was submitted, because it would not be what this try has asked for.

    :param fields: the names of the fields of the request that differ from the first submission of this try;
        empty: that one is unknown, and this one may be another.
    :param why: why the try would have submitted again.
    """

    fields: tuple[str, ...]
    why: str


Action: TypeAlias = Submit | Cancel | Watch | Finish | TimedOut | OutOfCapacity

SUPERSEDED = "superseded by a newer try of the same task instance"

DUPLICATE = "duplicate of another job of the same task instance"

OVERDUE = "execution_timeout reached"

TAKEN_OVER = "another try of this task instance has taken over: its job is left to it"


def decide(owner: Owner, facts: Facts, policy: Policy) -> Action:  # noqa: C901, PLR0911, PLR0912 - a decision table, read from top to bottom
    """Return the next action of `owner`.

    Jobs of other task instances are no facts: nothing is done to them or taken from them.

    :return: exactly one action. It submits only when no job of the task instance is alive.
    :raises: nothing.
    """
    jobs = sorted(
        (job for job in facts.jobs if job.claim.task_key == owner.task_key),
        key=lambda job: (job.created, job.claim, job.id),
    )
    # Only a later try uses a number above ours: this is a stale worker, and it leaves that job alone.
    newer = [job for job in jobs if job.claim.number > owner.try_number and job.id not in facts.own_job_ids]
    cleared = owner.from_before_clear(job for job in jobs if job not in newer)
    mine = [
        job for job in jobs if job not in newer and (owner.owns(job, cleared) or job.id in facts.own_job_ids)
    ]
    live = [job for job in jobs if job.live]

    if facts.overdue and facts.cancel_grace_over and live:
        return TimedOut(live[0], f"{live[0].id} was cancelled and has not ended yet")

    # One at a time: our oldest live job stays; every other live job is superseded or a duplicate.
    running = [job for job in live if job in mine]
    stays = next((job for job in running if job.phase is not Phase.STOPPING), None) or next(
        iter(running), None
    )
    for job in live:
        if job is not stays and job not in newer and job.phase is not Phase.STOPPING:
            return Cancel(job, DUPLICATE if job in mine else SUPERSEDED)
    if facts.overdue and stays and policy.on_timeout == "leave":
        return TimedOut(stays, f"{stays.id} is left running (on_timeout='leave')")
    if facts.overdue and stays and stays.phase is not Phase.STOPPING:
        return Cancel(stays, OVERDUE)
    if live:
        first = stays or live[0]
        why = (
            f"{_describe(first, facts)}: watching it"
            if stays
            else f"{first.id} must end first: waiting for it"
        )
        return Watch((first, *(job for job in live if job is not first)), why)

    # No live job.
    for job in mine:
        if job.phase is Phase.SUCCEEDED:
            return Finish(job, f"{_describe(job, facts)}: its result counts")
    last = next((job for job in reversed(mine) if job.id in facts.own_job_ids), None)
    if facts.overdue:
        return TimedOut(last, f"{last.id} {last.phase.value}" if last else "no job had been accepted by then")
    if last:
        failed = [job for job in mine if job.id in facts.own_job_ids and job.cause is Cause.INFRASTRUCTURE]
        if last.cause is not Cause.INFRASTRUCTURE or last.phase is not Phase.FAILED:
            return Finish(last, _describe(last, facts))
        if len(failed) + facts.refusals > policy.infrastructure_retries:
            used_up = f"all {policy.infrastructure_retries} infrastructure_retries are used up"
            return Finish(last, f"{last.id} failed because of the infrastructure; {used_up}")
        attempt = len(failed) + facts.refusals
        why = (
            f"{last.id} failed because of the infrastructure "
            f"({last.reason or 'no reason given'}): "
            f"submitting again, {attempt} of {policy.infrastructure_retries}"
        )
        number = max(last.claim.number, owner.cleared_after_try + 1)  # a resubmission is after the clear
        return Submit(_unused(owner, number, jobs), why, policy.backoff(attempt))
    if facts.refusals > policy.infrastructure_retries:
        return OutOfCapacity(facts.refusals, f"no capacity, {facts.refusals} times in this try")
    # Never above our try number: otherwise a later clear could not distinguish our job from its own.
    taken = [owner.cleared_after_try, *(job.claim.number for job in (*cleared, *mine))]
    number = min(max(taken) + 1, owner.try_number)
    after = policy.backoff(facts.refusals) if facts.refusals else 0.0
    return Submit(_unused(owner, number, jobs), _why_submit(jobs, mine, facts), after)


def _unused(owner: Owner, number: int, jobs: Iterable[Job]) -> Claim:
    """The claim of this number with a token that, as far as is known, none of `jobs` has used."""
    used = [job.claim.resubmission for job in jobs if job.claim.number == number]
    return Claim(owner.task_key, number, max(len(used), max(used, default=-1) + 1), owner.generation)


def _describe(job: Job, facts: Facts) -> str:
    """The origin and the state of `job`, as the beginning of a sentence."""
    found = "" if job.id in facts.own_job_ids else f"found job of claim {job.claim}, "
    state = {Phase.STOPPING: "being stopped", Phase.QUEUED: "queued", Phase.RUNNING: "still running"}
    return f"{job.id}: {found}{state.get(job.phase, job.phase.value)}"


def _why_submit(jobs: Sequence[Job], mine: Sequence[Job], facts: Facts) -> str:
    if facts.refusals:
        return f"the service had no capacity ({facts.refusals} times in this try): submitting again"
    if not jobs:
        return "no job of this task instance exists: submitting a new job"
    if mine:
        # With its reason: a try that Airflow's scheduler failed ("state mismatch") has not logged it.
        why = f" ({mine[-1].reason})" if mine[-1].reason else ""
        return f"{mine[-1].id} of an earlier try {mine[-1].phase.value}{why}: submitting the next job"
    return f"{jobs[-1].id} is from before the latest clear or from another DAG run: submitting a new job"


def must_search(action: Action, unconfirmed: int, *, cancel_grace_over: bool) -> bool:
    """Whether the service must be searched for jobs before `action`, unless it was searched already.

    Before a submission, because an earlier try may have left a job; before a timeout without a job is
    reported; and after a submission whose answer was lost, whatever comes next.

    :param unconfirmed: number of the claim of a submission whose answer was lost; 0: there is none.
    :param cancel_grace_over: the grace period for the end of a cancelled job has passed: search no more.
    """
    unfounded = isinstance(action, TimedOut) and action.job is None
    return (isinstance(action, Submit) or unfounded or unconfirmed > 0) and not cancel_grace_over


def forgotten_claims(owner: Owner, shown: Iterable[Job], *, unconfirmed: bool) -> list[Claim]:
    """The claims under which the service may have forgotten a job; an archive is asked about them.

    Numbers only grow, and one job lives at a time: where the service still shows a job, it has forgotten none
    of a greater number, and the outcomes of smaller numbers have been reported. So in most retries, where the
    service shows the job of the try before, no archive is asked.

    :param shown: jobs that a search has found.
    :param unconfirmed: the owner itself may have submitted a job that it does not know of.
    """
    highest = max((job.claim.number for job in shown), default=0)
    last = owner.try_number if unconfirmed or owner.restarted else owner.try_number - 1
    return [claim for claim in owner.claims() if highest < claim.number <= last]


UNANSWERED_TIMEOUT = 600.0
"""Seconds for which errors are believed to pass while no call of the try has ever been answered."""


def transient_error_limit(
    policy: Policy, *, at_stake: bool, may_have_left: bool, answered: bool
) -> float | None:
    """Seconds after the first of consecutive transient errors at which a try gives up; ``None``: never.

    A wrong address, a deleted key or a missing proxy looks like an outage, so "it may pass" is believed for a
    limited time. While a job may run, giving up would leave it alone: errors then only delay the try.

    :param at_stake: a live job is known, a submission of this try may have taken effect, or what the try has
        done is known from an XCom only.
    :param may_have_left: an earlier try may have left a job, and no search of this try has succeeded yet.
    :param answered: the service has answered a call of this try.

    >>> transient_error_limit(Policy(), at_stake=False, may_have_left=False, answered=True)
    3600.0
    """
    if at_stake:
        return None
    return believed_for(policy.transient_error_timeout, answered=answered or may_have_left)


def believed_for(limit: float, *, answered: bool) -> float:
    """Seconds for which errors are believed to pass, where nothing is at stake.

    :param limit: the configured ones; fewer where the service has never `answered`.
    """
    return limit if answered else min(limit, UNANSWERED_TIMEOUT)


def transient_error_text(error: str, age: float, pause: float, limit: float | None) -> str:
    """The message about a transient error.

    :param age: seconds since the first of the consecutive errors.
    :param pause: seconds until the next attempt.
    :param limit: see `transient_error_limit`.

    >>> transient_error_text("Timeout: no answer", 0, 8, None)
    'transient error (Timeout: no answer): retrying in 8 s'
    >>> transient_error_text("Timeout: no answer", 600, 300, 3600)
    'transient error (Timeout: no answer): retrying in 300 s. Errors for 10 min; this try fails after 60 min'
    """
    text = f"transient error ({error}): retrying in {pause:.0f} s"
    if age < _SAID_AFTER_SECONDS:
        return text
    ends = f"this try fails after {(limit or 0) / 60:.0f} min"
    if limit is None:
        ends = "a job may exist, so this try goes on"
    return f"{text}. Errors for {age / 60:.0f} min; {ends}"


_SAID_AFTER_SECONDS = 60.0  # seconds


def submitted_by_this_try(job: Job, owner: Owner, unconfirmed: int) -> bool:
    """Whether a job that a search has found was submitted by this very try.

    It was if it bears the number of a submission whose answer was lost, or the number of a try that Airflow
    has restarted from the beginning, which no other try uses.

    :param unconfirmed: number of the claim of a submission whose answer was lost; 0: there is none.
    """
    numbers = {unconfirmed, owner.try_number if owner.restarted else 0}
    return job.claim.number in numbers and owner.owns(job)


def token_was_spent(job: Job, owner: Owner, asked: float, *, known: bool) -> bool:
    """Whether a submission returned an earlier job of the same token, which this try cannot use.

    This try has not cancelled a job that it has just submitted: a job that is being stopped was given up
    before, for example by a run of the same id that was deleted a moment ago.

    :param job: the job that the service returned.
    :param asked: when the submission was sent, in seconds since 1970.
    :param known: the job was known before the submission.
    """
    old = job.created < asked - CLOCK_SKEW or known
    given_up = job.phase in (Phase.STOPPING, Phase.CANCELLED)
    return not owner.owns(job) or given_up or (old and not job.live)


def answered(job: Job, claim: Claim) -> Job:
    """The job with which the service has answered a submission under `claim`.

    The service does not return the token. When the job was submitted, only the job itself can tell.
    """
    if job.claim.task_key != claim.task_key:
        return job
    return replace(job, claim=replace(claim, generation=job.claim.generation))


def proved(remembered: Job, seen: Job | None, *, others_live: bool) -> Job | None:
    """What counts of a job that an XCom has named: others can write an XCom.

    :param remembered: the job as the XCom has it.
    :param seen: what the service says about it now; ``None``: it does not know such a job with that claim.
    :param others_live: the service knows another live job of the task instance.
    :return: the job; ``None``: it is no fact.

    Which generation it is of, only the job itself can tell. A job that was submitted a moment ago may not be
    known yet, so one that lives by the XCom is watched, unless there is a live job without it. A failure is
    believed: it leads to another try, never to a result.
    """
    if seen is not None:
        resubmission = max(remembered.claim.resubmission, seen.claim.resubmission)
        return replace(seen, claim=replace(seen.claim, resubmission=resubmission))
    remembered = replace(remembered, claim=replace(remembered.claim, generation=""))
    if remembered.live:
        return None if others_live else remembered
    if remembered.phase is Phase.SUCCEEDED:
        reason = "it is remembered as succeeded, but the service does not know it (any more)"
        return replace(remembered, phase=Phase.LOST, cause=Cause.UNKNOWN, reason=reason)
    return remembered


def after_cancel(answer: Job) -> Job:
    """The state of a job after the service has answered a cancel.

    Its end must be observed. A job that the service does not know is watched too, because the watch
    distinguishes "not yet" from "lost".
    """
    unclear = answer.live or answer.phase is Phase.LOST
    return replace(answer, phase=Phase.STOPPING) if unclear else answer


def taken_over(job: Job, owner: Owner) -> bool:
    """Whether the job that is to be watched counts as this try's own from now on.

    A job that was being stopped when it was found had been given up before: its end is not reported.
    """
    return owner.owns(job) and job.phase is not Phase.STOPPING


def should_cancel(state: str | None, on_clear: str) -> bool:
    """Whether the job must be cancelled, given its task instance's state when trigger or worker are stopped.

    Airflow (3.3) also calls `on_kill` when a triggerer resumes after its triggers were assigned to another
    one, and when the trigger's own event has been processed already; before 3.3, a stopping triggerer stops
    its triggers in the same way. In these cases the task instance is deferred, or on its way to a worker. A
    cleared task instance has no state until it is scheduled; after that its next try cancels the job. One
    that is cleared while it is on a worker is ``restarting`` until its process has ended.

    :param state: the task instance's state; ``None`` when it was cleared or its DAG run deleted.
    :param on_clear: ``"reattach"``: a job survives the clear.

    Source: Airflow issue 73454; ``clear_task_instances`` in ``airflow/models/taskinstance.py``.

    >>> [should_cancel(state, "restart") for state in ("failed", "success", None, "deferred", "running")]
    [True, True, True, False, False]
    >>> [should_cancel("restarting", on_clear) for on_clear in ("restart", "reattach")]
    [True, False]
    """
    if state in (None, "removed", "restarting"):
        return on_clear == "restart"
    return state in ("failed", "success", "skipped", "upstream_failed")
