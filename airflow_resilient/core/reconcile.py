"""Carry out the action of `decide`, add the result to the facts, and decide again.

A first run, a retry after a crash, a clear and the return from a deferral are therefore the same code with
different facts.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from .decide import (
    OVERDUE,
    TAKEN_OVER,
    Cancel,
    Facts,
    Finish,
    GaveUp,
    OutOfCapacity,
    RequestChanged,
    Submit,
    TimedOut,
    Watch,
    after_cancel,
    answered,
    decide,
    forgotten_claims,
    must_search,
    proved,
    submitted_by_this_try,
    taken_over,
    token_was_spent,
    transient_error_limit,
    transient_error_text,
)
from .job import CLOCK_SKEW, FROM_ARCHIVE, Job, Phase, known_fields
from .request import changed_fields, fingerprints
from .retry import jitter
from .service import NoCapacityMarker
from .text import MAX_REASON_CHARS, error_text, shorten

if TYPE_CHECKING:
    from .decide import Policy
    from .job import Claim, Owner
    from .retry import Runtime
    from .service import RemoteService


MAX_SUBMISSIONS = 10
"""Per visit to a worker; more can only result from clocks that differ by more than `CLOCK_SKEW`."""


@dataclass(frozen=True)
class Memory:
    """The state that a try keeps from one visit to a worker to the next. JSON values, a few hundred bytes.

    :param started: start of the try's first visit, in seconds since 1970.
    :param seen: latest observation of each job that this try has submitted or watched, and of each job whose
        end it waits for.
    :param own_job_ids: ids of the jobs that this try has submitted or watched as its own.
    :param refusals: see `Facts`.
    :param transient_errors: consecutive transient errors.
    :param transient_for: the pauses that they have led to since the last search that succeeded, in seconds.
    :param submit_errors_for: the pauses after those of them that were raised by a submission.
    :param last_error: the last of them.
    :param answered: the service has answered a call of this try.
    :param searched: a search of this try has succeeded, so jobs that earlier tries left are known.
    :param backoff_served_for: the submission whose back-off has been served.
    :param unconfirmed_submission: number of the claim of a submission whose answer was lost; whether it took
        effect must be found out before anything else.
    :param overdue_since: when a visit first found that the deadline had passed.
    :param crashes: consecutive triggers of this try that ended without an event.
    :param unproved: it was read from an XCom, which others can write: its jobs count for what the service
        says about them now, and it is searched before anything else.
    :param cleared_after_try: that of the owner at the try's first visit, like `generation`: ``retries`` may
        change from one visit to the next, and what was given up must not become the try's own.
    :param restarted: that of the owner at any earlier visit: Airflow shows it only at the first.
    :param request: `fingerprints` of the request of the try's first submission; empty: there was none.
    """

    started: float
    seen: tuple[Job, ...] = ()
    own_job_ids: frozenset[str] = frozenset()
    refusals: int = 0
    transient_errors: int = 0
    transient_for: float = 0.0
    submit_errors_for: float = 0.0
    last_error: str = ""
    answered: bool = False
    searched: bool = False
    backoff_served_for: str = ""
    unconfirmed_submission: int = 0
    overdue_since: float | None = None
    crashes: int = 0
    unproved: bool = False
    cleared_after_try: int | None = None
    generation: str = ""
    restarted: bool = False
    request: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The memory as JSON values; `from_dict` reverses it."""
        return {
            **asdict(self),
            "seen": [job.to_dict() for job in self.seen],
            "own_job_ids": sorted(self.own_job_ids),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Memory:
        """The memory that `to_dict` wrote; fields that another version has added are ignored."""
        seen = tuple(Job.from_dict(job) for job in data["seen"])
        return cls(**{**known_fields(cls, data), "seen": seen, "own_job_ids": frozenset(data["own_job_ids"])})

    @classmethod
    def recall(cls, data: Any, owner: Owner) -> Memory | None:
        """The memory in an XCom, without what cannot be this try's; ``None`` if it is not one.

        Others can write an XCom. So jobs of other task instances are dropped; what the rest is worth,
        `reconcile` finds out. The grace period after the deadline and the time of transient errors begin
        again.
        """
        try:
            memory = cls.from_dict(data)
            seen = tuple(job for job in memory.seen if job.claim.task_key == owner.task_key)
            if not all(_has_its_types(each) for each in (memory, *seen, *(job.claim for job in seen))):
                return None
        except (TypeError, ValueError, KeyError, AttributeError):
            return None
        own_job_ids = memory.own_job_ids & {job.id for job in seen}
        memory = replace(memory, seen=seen, own_job_ids=own_job_ids, unproved=True)
        memory = replace(memory, overdue_since=None, transient_for=0.0, submit_errors_for=0.0, searched=False)
        return replace(memory, cleared_after_try=None, generation="")

    @staticmethod
    def recall_crashes(data: Any) -> int:
        """How many triggers in a row had crashed, by an XCom, which others can write; 0 if it is not one.

        >>> [Memory.recall_crashes(data) for data in ({"crashes": 2}, {"crashes": "2"}, None, [])]
        [2, 0, 0, 0]
        """
        found = data.get("crashes") if isinstance(data, Mapping) else 0
        return found if type(found) is int and found > 0 else 0

    def first_owner(self, owner: Owner) -> Owner:
        """`owner` as it was at the try's first visit, by which the try judges whose a job is."""
        if self.cleared_after_try is None:
            return owner
        return replace(
            owner,
            cleared_after_try=self.cleared_after_try,
            generation=self.generation,
            restarted=owner.restarted or self.restarted,
        )

    def update(self, observed: Iterable[Job]) -> Memory:
        """The memory with newer observations of its jobs. The observations of the watch are authoritative."""
        newer = {job.id: job for job in observed}
        seen = (replace(newer.get(job.id, job), claim=job.claim) for job in self.seen)
        return replace(self, seen=tuple(seen))


def _has_its_types(value: Any) -> bool:
    """Whether the fields of a dataclass that was read from JSON have the types that their annotations say."""
    return all(_is_a(str(each.type), getattr(value, each.name)) for each in fields(value))


def _is_a(annotation: str, value: Any) -> bool:
    """Whether `value` may stand in a field with this annotation; other classes check themselves."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    match annotation.removesuffix(" | None"):
        case _ if value is None:
            return annotation.endswith(" | None")
        case "str":
            return isinstance(value, str)
        case "int":
            return number and isinstance(value, int)
        case "float":
            return number
        case "bool":
            return isinstance(value, bool)
        case "Mapping[str, Any]":
            return isinstance(value, Mapping)
    return True


@dataclass(frozen=True)
class Pause:
    """Release the worker slot for `seconds`, then try again."""

    seconds: float
    why: str


Verdict: TypeAlias = Watch | Pause | Finish | TimedOut | OutOfCapacity | GaveUp | RequestChanged

NO_ERRORS: Mapping[str, Any] = {
    "transient_errors": 0,
    "transient_for": 0.0,
    "submit_errors_for": 0.0,
    "last_error": "",
}
"""The fields of a `Memory` that speak of errors, when none is left."""

STOP_PAUSE = 5.0
"""Seconds after which another worker goes on with a visit that was stopped before it had submitted."""


def reconcile(  # noqa: C901, PLR0912, PLR0913, PLR0915 - one loop; its rules are functions in decide.py
    service: RemoteService,
    owner: Owner,
    memory: Memory,
    policy: Policy,
    runtime: Runtime,
    *,
    deadline: float | None = None,
    first_visit: bool = True,
    stops: Callable[[], bool] = lambda: False,
    keep: Callable[[Memory], object] = id,
    still_ours: Callable[[], bool] = lambda: True,
) -> tuple[Memory, Verdict]:
    """Act until nothing is left to do but to wait or to report.

    :param memory: the memory of this try; ``Memory(started=now)`` at its first visit.
    :param deadline: when the try is overdue, in seconds since 1970.
    :param first_visit: this is the first visit of the try: predecessors may have left jobs that are not
        listed yet.
    :param stops: whether the worker is being stopped: then nothing is submitted any more.
    :param keep: is called with the memory before and after everything that changes it, so that a visit which
        is ended in the middle is known by what it has done.
    :param still_ours: whether Airflow still regards this try as the one that works on the task instance; is
        asked before the job is cancelled at the deadline, because a worker that Airflow believes dead may
        have a successor that has adopted the job.
    :return: the new memory, and the verdict.
    :raises: any error of the service that is not transient; then the try fails, and the next try finds the
        jobs that are still alive.

    It searches the service for jobs only before it submits and while a memory is unproved, never at the first
    visit of a first try, and never on the return from a watch that has observed the end. Every round advances
    a job (Cancel), uses up a claim (Submit), proves a memory or adds a transient error. All of these are
    bounded, so the loop ends.
    """
    owner = memory.first_owner(owner)
    memory = replace(
        memory,
        cleared_after_try=owner.cleared_after_try,
        generation=owner.generation,
        restarted=owner.restarted,
    )
    known: dict[str, Job] = {job.id: job for job in memory.seen}
    own_job_ids = set(memory.own_job_ids)
    searched = first_visit and not owner.may_have_predecessors
    # A trigger that failed may have cut our pause short; an XCom may lack what we submitted a moment ago.
    listing_lag_served = not first_visit and not memory.unconfirmed_submission and not memory.unproved
    submissions = 0
    answer, asked = None, 0.0

    def add(job: Job) -> None:
        known[job.id] = known[job.id].merge(job) if job.id in known else job

    def remember(**changes: Any) -> Memory:
        kept = tuple(job for job in known.values() if job.id in own_job_ids or job.live)
        return replace(memory, seen=kept, own_job_ids=frozenset(own_job_ids), **changes)

    def after_answer(**changes: Any) -> Memory:
        return replace(memory, answered=True, **changes)

    def limit() -> float | None:
        # What an XCom lacks, the try may have submitted all the same.
        at_stake = (
            memory.unproved or memory.unconfirmed_submission > 0 or any(job.live for job in known.values())
        )
        may_have_left = owner.may_have_predecessors and not memory.searched
        return transient_error_limit(
            policy, at_stake=at_stake, may_have_left=may_have_left, answered=memory.answered
        )

    def give_up(seconds: float, advice: str = "") -> GaveUp:
        times = f"{memory.transient_errors} errors in {seconds / 60:.0f} min, the last: "
        why = f"{'' if advice else times}{memory.last_error}"
        return GaveUp(
            f"{why}. {advice}".rstrip(" ."), may_have_left=owner.may_have_predecessors and not memory.searched
        )

    while True:
        now = runtime.now()
        overdue = deadline is not None and now >= deadline
        if overdue and memory.overdue_since is None:
            memory = replace(memory, overdue_since=now)
        over = memory.overdue_since is not None and now >= memory.overdue_since + policy.cancel_grace
        action = decide(
            owner,
            Facts(tuple(known.values()), frozenset(own_job_ids), overdue, over, memory.refusals),
            policy,
        )
        sending = False
        keep(remember())
        if stops() and isinstance(action, Submit | Cancel):
            return remember(), Pause(STOP_PAUSE, "this worker is being stopped: another one goes on")
        try:
            if memory.unproved and over:
                known, memory = _proved(known.values(), [], owner), replace(memory, unproved=False)
                own_job_ids &= _possibly_own(known.values(), owner)
            elif memory.unproved or (
                not searched and must_search(action, memory.unconfirmed_submission, cancel_grace_over=over)
            ):
                if not listing_lag_served:
                    # A job that a predecessor has just submitted may not be listed yet.
                    runtime.sleep(service.listing_lag)
                    listing_lag_served = True
                found = service.find(owner.claims())
                memory = after_answer()
                unconfirmed = memory.unproved or memory.unconfirmed_submission > 0
                if claims := forgotten_claims(owner, found, unconfirmed=unconfirmed):
                    patient = memory.transient_for < policy.transient_error_timeout
                    found += _forgotten(service, claims, owner, runtime, patient=patient)
                if memory.unproved:
                    doubted = [service.doubted(job) for job in known.values()]
                    known = _proved(doubted, [*_observed(service, doubted), *found], owner)
                    memory = replace(memory, unproved=False)
                    own_job_ids &= _possibly_own(known.values(), owner)
                for job in found:
                    if job.id not in known and submitted_by_this_try(
                        job, owner, memory.unconfirmed_submission
                    ):
                        own_job_ids.add(job.id)
                    add(job)
                searched, memory = (
                    True,
                    after_answer(unconfirmed_submission=0, searched=True, transient_for=0.0),
                )
            elif isinstance(action, Submit):
                believed = limit()
                if believed is not None and memory.submit_errors_for >= believed:
                    return remember(), give_up(memory.submit_errors_for)
                occasion = f"{action.claim.token}/{memory.refusals}"
                if action.after and memory.backoff_served_for != occasion:
                    return remember(backoff_served_for=occasion), Pause(
                        jitter(action.after, runtime.random), action.why
                    )
                if answer is not None and submissions >= MAX_SUBMISSIONS:
                    raise RuntimeError(
                        f"{submissions} submissions in one visit to a worker: {answer.id} was created at "
                        f"{answer.created:.0f} by the service's clock and submitted at {asked:.0f} by this "
                        "machine's clock. Do the two clocks differ by a minute? Correct this machine's clock"
                    )
                request = fingerprints(service.request_fields(), owner.task_key)
                changed = changed_fields(memory.request, request)
                if changed is None or changed:
                    return remember(), RequestChanged(changed or (), action.why)
                runtime.log.info("%s", action.why)
                memory = replace(
                    memory, unconfirmed_submission=action.claim.number, request=request or memory.request
                )
                keep(remember())
                asked, sending = runtime.now(), True
                answer = service.submit(action.claim)
                memory = after_answer(unconfirmed_submission=0)
                submissions += 1
                spent = token_was_spent(answer, owner, asked, known=answer.id in known)
                add(answered(answer, action.claim))
                if spent:
                    searched = False  # there may be more of them: look before another token is used
                    runtime.log.info(
                        "the service returned %s, an earlier job of the token %s, which is %s",
                        answer.id,
                        action.claim.token,
                        answer.phase.value,
                    )
                else:
                    own_job_ids.add(answer.id)
                    runtime.log.info("submitted %s under the claim %s", answer.id, action.claim)
            elif isinstance(action, Cancel) and action.why == OVERDUE and not still_ours():
                return remember(), TimedOut(action.job, TAKEN_OVER)
            elif isinstance(action, Cancel):
                runtime.log.info("cancelling %s: %s", action.job.id, action.why)
                add(after_cancel(service.cancel(action.job, action.why)))
                memory = after_answer()
                if action.why != OVERDUE:
                    own_job_ids.discard(action.job.id)  # we cancelled it, so its end is not reported
            else:
                if isinstance(action, Watch):
                    first = action.jobs[0]
                    if taken_over(first, owner):
                        own_job_ids.add(first.id)
                runtime.log.info("%s", action.why)
                return remember(**NO_ERRORS), action
        except NoCapacityMarker as error:
            runtime.log.warning("no capacity: %s", error)
            memory = after_answer(refusals=memory.refusals + 1, unconfirmed_submission=0)
        except Exception as error:
            if not service.is_transient(error):
                raise
            searched = False
            memory = replace(
                memory,
                transient_errors=memory.transient_errors + 1,
                last_error=shorten(service.hide(error_text(error)), MAX_REASON_CHARS),
                answered=memory.answered or service.is_throttle(error),
            )
            if sending and not service.may_have_submitted(error):
                memory = replace(memory, unconfirmed_submission=0)
            # Not the time since the first error: while nobody asks, because no triggerer runs, nothing fails.
            believed, age = limit(), max(memory.transient_for, memory.submit_errors_for)
            advice = "" if believed is None else service.lasting(error, memory.transient_errors)
            if advice or (believed is not None and age >= believed):
                return remember(), give_up(age, advice)
            pause = max(jitter(policy.pause(memory.transient_errors), runtime.random), service.listing_lag)
            if believed is not None:
                pause = min(pause, believed - age)
            memory = replace(memory, transient_for=memory.transient_for + pause)
            if sending:
                memory = replace(memory, submit_errors_for=memory.submit_errors_for + pause)
            why = transient_error_text(memory.last_error, age, pause, believed)
            if memory.transient_errors > policy.quick_retries:
                return remember(), Pause(pause, why)
            runtime.log.warning("%s", why)
            runtime.sleep(pause)
            listing_lag_served = listing_lag_served or pause >= service.listing_lag


MAX_CRASHES = 5
"""Consecutive triggers of one try that may crash; in a triggerer without this package every one does."""


def _observed(service: RemoteService, jobs: Iterable[Job]) -> list[Job]:
    """What the service says about these jobs, in as many calls as it needs."""
    scopes: dict[str, list[Job]] = {}
    for job in jobs:
        scopes.setdefault(job.scope, []).append(job)
    return [
        seen
        for members in scopes.values()
        for start in range(0, len(members), service.batch_size)
        for seen in service.observe(members[start : start + service.batch_size])
    ]


def _forgotten(
    service: RemoteService, claims: Sequence[Claim], owner: Owner, runtime: Runtime, *, patient: bool
) -> list[Job]:
    """The ends of jobs under `claims` that the service has forgotten, from its archive.

    An archive that does not answer is no archive that knows nothing: the call is repeated. But it must not
    hold up a try without end: when patience is over, or repeating does not help, the try goes on as it would
    without an archive.

    :param patient: a transient error is raised, to be repeated.
    :raises: a transient error.
    """
    try:
        jobs = service.find_forgotten(claims, owner.run_started - CLOCK_SKEW)
    except Exception as error:
        if patient and service.is_transient(error):
            raise
        runtime.log.warning(
            "the archive cannot be asked for jobs that the service has forgotten (%s). The try goes on as if "
            "there were none: if an earlier try has left one, its work is done again",
            shorten(service.hide(error_text(error)), MAX_REASON_CHARS),
        )
        return []
    ended = [job for job in jobs if not job.live and job.phase is not Phase.LOST]
    for job in ended:
        where = job.facts.get(FROM_ARCHIVE)
        runtime.log.info("%s: the service has forgotten it; %s says how it ended", job.id, where)
    return ended


def _proved(remembered: Iterable[Job], seen: Iterable[Job], owner: Owner) -> dict[str, Job]:
    """The jobs of an unproved memory, as far as they count, by id; `seen` is what the service says."""
    by_id = {job.id: job for job in seen if job.claim.task_key == owner.task_key}
    others_live = any(job.live for job in by_id.values())
    kept = (proved(job, by_id.get(job.id), others_live=others_live) for job in remembered)
    return {job.id: job for job in kept if job is not None}


def _possibly_own(jobs: Iterable[Job], owner: Owner) -> set[str]:
    """Ids of the jobs that the try can have submitted or adopted."""
    return {job.id for job in jobs if owner.reattach or owner.owns(job)}


MEMORY_XCOM = "remote_job"
"""Key of the XCom in which a try keeps its memory, in case that its trigger times out or crashes."""

_MEMORY_KEY = re.compile(rf"{MEMORY_XCOM}(?:_([a-z2-7]{{8}}))?")


def memory_key(call: str = "") -> str:
    """Key of the XCom with the memory of a try, or of a call within it; see `Claim.call`.

    >>> memory_key(), memory_key("k3v7ahq2")
    ('remote_job', 'remote_job_k3v7ahq2')
    """
    return f"{MEMORY_XCOM}_{call}" if call else MEMORY_XCOM


def call_of_memory(key: str) -> str | None:
    """The call whose memory is in the XCom of that key, ``""`` for the try's own; ``None``: it has none.

    >>> [call_of_memory(key) for key in ("remote_job", "remote_job_k3v7ahq2", "remote_job_log", "other")]
    ['', 'k3v7ahq2', None, None]
    """
    found = _MEMORY_KEY.fullmatch(key)
    return None if found is None else found[1] or ""


RUNNING_ON_XCOM = "airflow_resilient_left"
"""Beginning of the keys of XComs by which a try tells the sweep which jobs it leaves running on purpose."""


def running_on_key(number: int, call: str = "") -> str:
    """Key of the XCom that says that the job under the claim of this number is left running on purpose.

    :param call: of the claim, see `Claim.call`.

    The number is in the key, because an XCom backend may keep the value elsewhere, and then Airflow's API
    shows only where. Source: ``XComObjectStorageBackend`` in the common.io provider.

    >>> running_on_key(2), running_on_key(2, "k3v7ahq2")
    ('airflow_resilient_left_2', 'airflow_resilient_left_2_k3v7ahq2')
    """
    return f"{RUNNING_ON_XCOM}_{number}_{call}" if call else f"{RUNNING_ON_XCOM}_{number}"


LOG_XCOM = "remote_job_log"
"""Key of the XCom in which the trigger keeps how far it has forwarded the job's log."""
