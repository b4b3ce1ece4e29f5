"""A remote job, and the one decision that makes running it safe to repeat.

Nothing here does I/O by itself or knows Airflow or AWS. `decide` looks at facts and names the next action;
`reconcile` carries actions out with the service it is given, adds what came back to the facts and asks again.
First run, retry after a crash, clear, and the return from deferral are therefore the same code with different
facts.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

log = logging.getLogger(__name__)

NAMESPACE_LENGTH = 5
"""Characters of a claim's family that tell the namespace: 25 bits, enough to tell deployments apart."""
CLOCK_SKEW = 60.0
"""Seconds by which Airflow's clock and the service's clock may differ."""
MOST_SUBMISSIONS = 10
"""In one visit to a worker; more can only come from clocks that differ by more than `CLOCK_SKEW`."""


class Phase(str, Enum):
    """Where a job is, in the words that every service shares."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The service does not know the job any more; it may have ended either way."""

    @property
    def live(self) -> bool:
        """Whether a job in this phase still runs or may still run."""
        return self in (Phase.QUEUED, Phase.RUNNING, Phase.STOPPING)


class Cause(str, Enum):
    """What ended a job that did not succeed."""

    APPLICATION = "application"
    """The code that ran; running it again is up to Airflow's ``retries``."""
    INFRASTRUCTURE = "infrastructure"
    """Spot interruption, host or cluster lost, capacity: the same job may well succeed elsewhere."""
    USER = "user"
    """A person or a tool stopped it on purpose."""
    UNKNOWN = "unknown"


# How much a look tells: a later phase wins, an end wins over all, LOST is the absence of news.
_NEWS = [
    Phase.LOST,
    Phase.QUEUED,
    Phase.RUNNING,
    Phase.STOPPING,
    Phase.CANCELLED,
    Phase.FAILED,
    Phase.SUCCEEDED,
]
_CLAIM = re.compile(r"af-([a-z2-7]{16})-(\d+)")


@dataclass(frozen=True, order=True)
class Claim:
    """The name that is written on a remote job so that any later try can recognise it.

    `number` counts the tries of one task instance that came to submit; it is computed from the jobs that are
    found, not from Airflow's try number, so two workers that both believe they own the task instance come to
    the same claim. `again` counts the resubmissions within one number: it makes the idempotency token of each
    submission unique and is not part of the name, so it takes no part in comparisons.

    >>> str(Claim("abcdefghijklmnop", 2)), Claim("abcdefghijklmnop", 2, again=1).token
    ('af-abcdefghijklmnop-2', 'af-abcdefghijklmnop-2-1')
    """

    family: str
    number: int
    again: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"af-{self.family}-{self.number}"

    @property
    def token(self) -> str:
        """The idempotency token of this one submission (at most 40 ASCII characters)."""
        return f"{self}-{self.again}" if self.again else str(self)

    @classmethod
    def read(cls, text: str) -> Claim | None:
        """The claim that stands somewhere in `text`, or ``None``.

        >>> Claim.read("sort [af-abcdefghijklmnop-2]")
        Claim(family='abcdefghijklmnop', number=2, again=0)
        """
        found = _CLAIM.search(text)
        return cls(found[1], int(found[2])) if found else None


def family(namespace: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The part of a claim that names the task instance: 16 characters of ``a-z2-7``, two hashes.

    The first `NAMESPACE_LENGTH` tell the namespace alone, so that jobs of another deployment are known as
    such also when no task instance of ours is left to compare them with (see `same_namespace`). The other
    11, 55 bits, tell the task instance.

    :param namespace: what tells this Airflow deployment from others that run the same DAGs in the same
        account.

    >>> len(family("prod", "etl", "manual__1", "sort", -1))
    16
    """
    identity = (namespace, dag_id, run_id, task_id, str(map_index))
    return _hash(namespace, NAMESPACE_LENGTH) + _hash("\0".join(identity), 16 - NAMESPACE_LENGTH)


def same_namespace(claim: Claim, namespace: str) -> bool:
    """Whether `claim` was made by a deployment with that namespace.

    Another one is taken for it once in 2**25.

    >>> claim = Claim(family("prod", "etl", "manual__1", "sort", -1), 1)
    >>> same_namespace(claim, "prod"), same_namespace(claim, "staging")
    (True, False)
    """
    return claim.family[:NAMESPACE_LENGTH] == _hash(namespace, NAMESPACE_LENGTH)


def _hash(text: str, length: int) -> str:
    """`length` characters of ``a-z2-7``, 5 bits each; at most 16."""
    return base64.b32encode(hashlib.blake2b(text.encode(), digest_size=10).digest()).decode().lower()[:length]


@dataclass(frozen=True)
class Job:
    """One look at one remote job.

    :param id: what the service calls it (an ECS task's ARN, EMR step ids).
    :param claim: the name that it bears.
    :param created: when it was accepted, in seconds since 1970 by the service's clock.
    :param scope: where it lives (ECS cluster, EMR cluster id), so that it can be looked at without the
        request.
    :param reason: why it ended, for a person; never secrets.
    :param exit_code: of the container or process that decided the outcome; ``None`` when there was none.
    :param ended: when it ended, in seconds since 1970, where the service says so.
    :param facts: what else the service said and a conclusion needs; JSON values only, a few hundred bytes.
    """

    id: str
    claim: Claim
    phase: Phase
    created: float
    scope: str = ""
    reason: str = ""
    exit_code: int | None = None
    cause: Cause = Cause.UNKNOWN
    ended: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether it still runs or may still run."""
        return self.phase.live

    def learn(self, other: Job) -> Job:
        """The better informed of two looks at the same job: a later phase wins, `other` when they agree.

        Which token it has used up is kept from either: a name that was read back does not tell.
        """
        better = self if _NEWS.index(self.phase) > _NEWS.index(other.phase) else other
        again = max(self.claim.again, other.claim.again)
        return replace(better, claim=replace(better.claim, again=again))

    def pack(self) -> dict[str, Any]:
        """The job as JSON values; `unpack` reverses it."""
        return {**asdict(self), "phase": self.phase.value, "cause": self.cause.value}

    @classmethod
    def unpack(cls, data: Mapping[str, Any]) -> Job:
        """The job that `pack` wrote."""
        values = {
            **data,
            "claim": Claim(**data["claim"]),
            "phase": Phase(data["phase"]),
            "cause": Cause(data["cause"]),
        }
        return cls(**values)


@dataclass(frozen=True)
class Owner:
    """The try of a task instance that asks.

    :param family: see `family`.
    :param try_number: Airflow's, from 1.
    :param since: the last try before the latest clear, 0 when it was never cleared. Airflow sets ``max_tries
        = try_number + retries`` when a task instance that is not running is cleared, hence ``since =
        max_tries - retries``, and all automatic retries that follow share it. Source:
        ``clear_task_instances`` in Airflow 2.11 and 3.x.
    :param run_started: start of the DAG run, in seconds since 1970: tells the run from an earlier one that
        was deleted and made again under the same id.
    :param reattach: ``on_clear="reattach"``: a job from before the clear that is still alive is taken over.
    :param restarted: Airflow has begun this very try before, and begins it again from the start: the worker
        could not load the DAG when the try was to go on. What the try remembered is gone. Source:
        ``_maybe_reschedule_startup_failure`` in Airflow's ``task_runner.py``, from 3.1.7 on.
    """

    family: str
    try_number: int
    since: int = 0
    run_started: float = 0.0
    reattach: bool = False
    restarted: bool = False

    def owns(self, job: Job) -> bool:
        """Whether `job` works for this try, rather than for a time before the latest clear or another run."""
        if self.reattach and job.live:
            return True
        return job.claim.number > self.since and job.created >= self.run_started - CLOCK_SKEW

    @property
    def may_have_predecessors(self) -> bool:
        """Whether jobs may exist that were submitted before this start of a try. A first try never looks."""
        return self.try_number > 1 or self.since > 0 or self.restarted

    def claims(self) -> list[Claim]:
        """Every name that this task instance can have given to a job so far."""
        return [Claim(self.family, number) for number in range(1, self.try_number + 1)]


@runtime_checkable
class RemoteJobs(Protocol):
    """What a service must offer. One implementation is one small file.

    Every method may raise what `is_transient` recognises: it is no news about any job and is tried again.
    Optional attributes: ``listing_lag`` (seconds after which `find` sees what the service has accepted,
    default 5) and ``batch_size`` (how many jobs of one scope `observe` is given at most, default 100).

    Optional, for a service whose calls are limited, all asked by the watch: ``budget`` (a `budget.Budget`),
    ``account()`` (whose budget it is), ``cost(jobs)`` (how many calls `observe` will make; default 1),
    ``meter(bucket)`` (count every call with ``bucket.heard``; otherwise `cost` is believed),
    ``is_throttle(error)`` (there were too many calls), ``refuses_scope(error)`` (every job of the scope would
    be refused), ``event_keys(job)`` (how events name the job; default its id) and ``kind`` (its name in
    metrics and events).
    """

    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """Jobs that bear one of these claims, finished ones too as far as the service remembers."""

    def submit(self, claim: Claim) -> Job:
        """Start the job under `claim`, or return the one that ``claim.token`` has started already.

        :raises NoCapacity: the service took no job because it has no room now.
        :raises SubmitRefused: the service will never take this request.
        """

    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """A new look at each of `jobs`, in any order; jobs that the service does not know are left out."""

    def cancel(self, job: Job, reason: str) -> Job:
        """Ask for its end and return the new look; no error when it has ended already."""

    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later (throttling, lost answers): it is no news about a job."""

    def address(self) -> dict[str, Any]:
        """Constructor keywords to watch and cancel from elsewhere: JSON, no secrets, not the request."""


class NoRoom(Exception):
    """Marks a service's refusal for want of capacity; `errors.NoCapacity` is the public one."""


# --- decide -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Policy:
    """What the user asked for. Durations are seconds.

    :param infrastructure_retries: how many times one try submits again after a failure of the infrastructure.
    :param on_timeout: at the deadline the job is cancelled and its end awaited, or left running.
    :param first_backoff: wait before the first resubmission; doubles up to `longest_backoff`.
    :param first_pause: wait after the first transient error; doubles up to `longest_backoff`.
    :param quick_retries: transient errors in a row that a worker sits out before it gives its slot back.
    :param cancel_grace: how long after the deadline the end of the cancelled job is awaited.
    """

    infrastructure_retries: int = 2
    on_timeout: Literal["cancel", "leave"] = "cancel"
    first_backoff: float = 10.0
    longest_backoff: float = 300.0
    first_pause: float = 2.0
    quick_retries: int = 2
    cancel_grace: float = 300.0

    def backoff(self, attempt: int) -> float:
        """Seconds before resubmission number `attempt` (from 1), without jitter.

        >>> [Policy().backoff(n) for n in (1, 2, 3, 9)]
        [10.0, 20.0, 40.0, 300.0]
        """
        return doubling(self.first_backoff, attempt, self.longest_backoff)

    def pause(self, trouble: int) -> float:
        """Seconds before the next attempt after `trouble` transient errors in a row, without jitter."""
        return doubling(self.first_pause, trouble, self.longest_backoff)


def doubling(first: float, attempt: int, longest: float) -> float:
    """`first` seconds for attempt 1, twice as many for each further one, `longest` at most.

    >>> [doubling(2, n, 60) for n in (1, 2, 3, 8)]
    [2.0, 4.0, 8.0, 60.0]
    """
    return min(first * 2.0 ** min(attempt - 1, 30), float(longest))


@dataclass(frozen=True)
class Facts:
    """All that is known when a decision is due.

    :param jobs: the latest look at every job that was found, submitted or watched.
    :param news: ids of the jobs that *this try* has submitted or watched. Their end is news; the failure of
        any other job is history that an earlier try has reported.
    :param overdue: the deadline of the try has passed.
    :param patience_over: since then the end of the cancelled job has been awaited for long enough.
    :param refusals: how often the service has refused this try for want of capacity.
    """

    jobs: tuple[Job, ...] = ()
    news: frozenset[str] = frozenset()
    overdue: bool = False
    patience_over: bool = False
    refusals: int = 0


@dataclass(frozen=True)
class Submit:
    """Start a job under `claim`, `after` seconds from now."""

    claim: Claim
    why: str
    after: float = 0.0


@dataclass(frozen=True)
class Cancel:
    """Ask for the end of `job`."""

    job: Job
    why: str


@dataclass(frozen=True)
class Watch:
    """Wait, without a worker slot, until all `jobs` have ended. The first one is the one that counts."""

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
class OutOfRoom:
    """Report that the service had no capacity, `refusals` times."""

    refusals: int
    why: str


Action: TypeAlias = Submit | Cancel | Watch | Finish | TimedOut | OutOfRoom

SUPERSEDED = "superseded by a newer try of the same task instance"
DUPLICATE = "duplicate of another job of the same task instance"
OVERDUE = "execution_timeout reached"


def decide(owner: Owner, facts: Facts, policy: Policy) -> Action:
    """Name the next action of `owner`.

    :return: exactly one action. It submits only when no job of the task instance is alive.
    :raises: nothing.
    """
    jobs = sorted(facts.jobs, key=lambda job: (job.created, job.claim, job.id))
    # Only a later try gives a number above ours: who sees one has lost the lease, and leaves it alone.
    newer = [job for job in jobs if job.claim.number > owner.try_number and job.id not in facts.news]
    mine = [job for job in jobs if job not in newer and (owner.owns(job) or job.id in facts.news)]
    live = [job for job in jobs if job.live]

    if facts.overdue and facts.patience_over and live:
        return TimedOut(live[0], f"{live[0].id} was asked to stop and has not been seen to stop")

    # One at a time: the oldest live job that is ours stays; what else lives was left over or is a duplicate.
    running = [job for job in live if job in mine]
    stays = next((job for job in running if job.phase is not Phase.STOPPING), None) or next(
        iter(running), None
    )
    for job in live:
        if job is not stays and job not in newer and job.phase is not Phase.STOPPING:
            return Cancel(job, DUPLICATE if job in mine else SUPERSEDED)
    if facts.overdue and stays and policy.on_timeout == "leave":
        return TimedOut(stays, f"{stays.id} is left running, as on_timeout='leave' asks")
    if facts.overdue and stays and stays.phase is not Phase.STOPPING:
        return Cancel(stays, OVERDUE)
    if live:
        first = stays or live[0]
        why = (
            f"{_story(first, facts)}: watching it"
            if stays
            else f"{first.id} must stop first: waiting for its end"
        )
        return Watch((first, *(job for job in live if job is not first)), why)

    # Nothing lives.
    for job in mine:
        if job.phase is Phase.SUCCEEDED:
            return Finish(job, f"{_story(job, facts)}: its result counts")
    last = next((job for job in reversed(mine) if job.id in facts.news), None)
    if facts.overdue:
        return TimedOut(last, f"{last.id} {last.phase.value}" if last else "no job had been accepted by then")
    if last:
        failed = [job for job in mine if job.id in facts.news and job.cause is Cause.INFRASTRUCTURE]
        if last.cause is not Cause.INFRASTRUCTURE or last.phase is not Phase.FAILED:
            return Finish(last, _story(last, facts))
        if len(failed) + facts.refusals > policy.infrastructure_retries:
            spent = f"all {policy.infrastructure_retries} infrastructure_retries are spent"
            return Finish(last, f"{last.id} failed by infrastructure; {spent}")
        attempt = len(failed) + facts.refusals
        why = (
            f"{last.id} failed by infrastructure ({last.reason or 'no reason given'}): "
            f"submitting again, {attempt} of {policy.infrastructure_retries}"
        )
        number = max(last.claim.number, owner.since + 1)  # its heir is from after the clear
        return Submit(_unused(owner, number, jobs), why, policy.backoff(attempt))
    if facts.refusals > policy.infrastructure_retries:
        return OutOfRoom(facts.refusals, f"no capacity, {facts.refusals} times in this try")
    # Never above our try number, or the clear that follows could not tell our job from its own.
    number = min(max([owner.since, *(job.claim.number for job in mine)]) + 1, owner.try_number)
    after = policy.backoff(facts.refusals) if facts.refusals else 0.0
    return Submit(_unused(owner, number, jobs), _why_submit(jobs, mine, facts), after)


def _unused(owner: Owner, number: int, jobs: Iterable[Job]) -> Claim:
    """The claim of this number with a token that none of `jobs` has used, as far as that is known."""
    used = [job.claim.again for job in jobs if job.claim.number == number]
    return Claim(owner.family, number, max(len(used), max(used, default=-1) + 1))


def _story(job: Job, facts: Facts) -> str:
    """What is known of `job`, as the beginning of a sentence."""
    found = "" if job.id in facts.news else f"found job of claim {job.claim}, "
    state = {Phase.STOPPING: "being stopped", Phase.QUEUED: "queued", Phase.RUNNING: "still running"}
    return f"{job.id}: {found}{state.get(job.phase, job.phase.value)}"


def _why_submit(jobs: Sequence[Job], mine: Sequence[Job], facts: Facts) -> str:
    if facts.refusals:
        return f"the service had no capacity ({facts.refusals} times in this try): submitting again"
    if not jobs:
        return "no job of this task instance exists: submitting one"
    if mine:
        return f"{mine[-1].id} of an earlier try {mine[-1].phase.value}: submitting the next one"
    return f"{jobs[-1].id} is from before the latest clear or from another DAG run: submitting a new one"


# --- reconcile ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """What one try carries from one visit to a worker to the next. JSON values, a few hundred bytes.

    :param started: start of the try's first visit, in seconds since 1970.
    :param seen: latest look at each job that this try has submitted or watched, and at those it waits to
        stop.
    :param news: ids of the jobs this try has submitted or watched as its own.
    :param refusals: see `Facts`.
    :param trouble: transient errors in a row.
    :param waited: the submission whose back-off has been served.
    :param unsure: number of the claim under which a submission was sent whose answer was lost; whether it
        took effect is to be found out before anything else.
    :param overdue_since: when a visit first found that the deadline had passed.
    :param crashes: triggers of this try that ended in a row without an event.
    """

    started: float
    seen: tuple[Job, ...] = ()
    news: frozenset[str] = frozenset()
    refusals: int = 0
    trouble: int = 0
    waited: str = ""
    unsure: int = 0
    overdue_since: float | None = None
    crashes: int = 0

    def pack(self) -> dict[str, Any]:
        """The memory as JSON values; `unpack` reverses it."""
        return {**asdict(self), "seen": [job.pack() for job in self.seen], "news": sorted(self.news)}

    @classmethod
    def unpack(cls, data: Mapping[str, Any]) -> Memory:
        """The memory that `pack` wrote."""
        seen = tuple(Job.unpack(job) for job in data["seen"])
        return cls(**{**data, "seen": seen, "news": frozenset(data["news"])})

    def update(self, looks: Iterable[Job]) -> Memory:
        """The memory with newer looks at jobs that it knows. What the watch saw is authoritative."""
        newer = {look.id: look for look in looks}
        seen = (replace(newer.get(job.id, job), claim=job.claim) for job in self.seen)
        return replace(self, seen=tuple(seen))


@dataclass(frozen=True)
class Pause:
    """Give the worker slot back for `seconds`, then look again."""

    seconds: float
    why: str


Verdict: TypeAlias = Watch | Pause | Finish | TimedOut | OutOfRoom


class Log(Protocol):
    """What is written to: a `logging.Logger`, or Airflow's."""

    def info(self, event: str, *args: object) -> object:
        """Say what was decided."""

    def warning(self, event: str, *args: object) -> object:
        """Say what went wrong and is being waited out."""


@dataclass(frozen=True)
class Senses:
    """The outside world, as arguments: time, sleeping, chance and a log."""

    now: Callable[[], float]
    sleep: Callable[[float], None]
    random: Callable[[], float]
    log: Log = log


def jitter(seconds: float, random: Callable[[], float]) -> float:
    """`seconds` spread over 75 to 125 %, so that waits do not march in step."""
    return seconds * (0.75 + 0.5 * random())


def reconcile(
    service: RemoteJobs,
    owner: Owner,
    memory: Memory,
    policy: Policy,
    senses: Senses,
    *,
    deadline: float | None = None,
    fresh: bool = True,
) -> tuple[Memory, Verdict]:
    """Act until there is nothing to do but wait or report.

    :param memory: what this try remembers; ``Memory(started=now)`` at its first visit.
    :param deadline: when the try is overdue, in seconds since 1970.
    :param fresh: this is the first visit of the try: predecessors may have left jobs that are not listed yet.
    :return: what to remember, and what to do.
    :raises: what the service raises and does not call transient; then the try fails, and nothing that lives
        is hidden: the next try finds it.

    It asks the service for jobs only before it submits, never at the first visit of a first try, and never on
    the return from a watch that has seen the end. Every round moves a job on (Cancel), uses up a claim
    (Submit) or adds trouble, and all three are bounded, so this ends.
    """
    known: dict[str, Job] = {job.id: job for job in memory.seen}
    news = set(memory.news)
    searched = fresh and not owner.may_have_predecessors
    settled = not fresh and not memory.unsure  # a trigger that failed may have cut our pause short
    submissions = 0

    def add(job: Job) -> None:
        known[job.id] = known[job.id].learn(job) if job.id in known else job

    def remember(**changes: Any) -> Memory:
        kept = tuple(job for job in known.values() if job.id in news or job.live)
        return replace(memory, seen=kept, news=frozenset(news), **changes)

    while True:
        now = senses.now()
        overdue = deadline is not None and now >= deadline
        if overdue and memory.overdue_since is None:
            memory = replace(memory, overdue_since=now)
        over = memory.overdue_since is not None and now >= memory.overdue_since + policy.cancel_grace
        action = decide(
            owner, Facts(tuple(known.values()), frozenset(news), overdue, over, memory.refusals), policy
        )
        try:
            unfounded = isinstance(action, TimedOut) and action.job is None
            if not searched and (isinstance(action, Submit) or unfounded or memory.unsure) and not over:
                if not settled:  # what a predecessor submitted a moment ago may not be listed yet
                    senses.sleep(listing_lag(service))
                    settled = True
                for job in service.find(owner.claims()):
                    # Nobody but this try gives its own number; and what we have sent is ours, too, when only
                    # the answer was lost.
                    ours = {memory.unsure, owner.try_number if owner.restarted else 0}
                    if job.claim.number in ours and job.id not in known and owner.owns(job):
                        news.add(job.id)
                    add(job)
                searched, memory = True, replace(memory, unsure=0)
            elif isinstance(action, Submit):
                occasion = f"{action.claim.token}/{memory.refusals}"
                if action.after and memory.waited != occasion:
                    return remember(waited=occasion), Pause(jitter(action.after, senses.random), action.why)
                senses.log.info("%s", action.why)
                memory = replace(memory, unsure=action.claim.number)
                asked = senses.now()
                job = service.submit(action.claim)
                memory = replace(memory, unsure=0)
                submissions += 1
                if submissions > MOST_SUBMISSIONS:
                    raise RuntimeError(
                        f"{submissions} submissions in one visit; {job.id} was made at {job.created:.0f} by "
                        f"the service's clock, asked for at {asked:.0f} by ours: do they differ by a minute?"
                    )
                old = job.created < asked - CLOCK_SKEW or job.id in known
                # Nobody stops what does not run yet: this one was given up by somebody before us, such as a
                # run of the same id that was deleted a moment ago.
                given_up = job.phase in (Phase.STOPPING, Phase.CANCELLED)
                add(replace(job, claim=action.claim))  # a name does not tell which token it has used up
                if not owner.owns(job) or given_up or (old and not job.live):
                    senses.log.info(
                        "the token %s had started %s already, which %s",
                        action.claim.token,
                        job.id,
                        job.phase.value,
                    )
                else:
                    news.add(job.id)
                    senses.log.info("submitted %s under the claim %s", job.id, action.claim)
            elif isinstance(action, Cancel):
                senses.log.info("cancelling %s: %s", action.job.id, action.why)
                look = service.cancel(action.job, action.why)
                # What the service does not know is watched, too: the watch tells "not yet" from "lost".
                unclear = look.live or look.phase is Phase.LOST
                add(replace(look, phase=Phase.STOPPING) if unclear else look)
                if action.why != OVERDUE:
                    news.discard(action.job.id)  # its end is our doing, and no news
            else:
                if isinstance(action, Watch):
                    first = action.jobs[0]
                    # What was being stopped when we found it was given up by somebody before us: no news.
                    if owner.owns(first) and first.phase is not Phase.STOPPING:
                        news.add(first.id)
                senses.log.info("%s", action.why)
                return remember(trouble=0), action
        except NoRoom as error:
            senses.log.warning("no capacity: %s", error)
            memory = replace(memory, refusals=memory.refusals + 1, unsure=0)
        except Exception as error:
            if not service.is_transient(error):
                raise
            searched = False
            memory = replace(memory, trouble=memory.trouble + 1)
            pause = max(jitter(policy.pause(memory.trouble), senses.random), listing_lag(service))
            why = f"no answer to rely on ({type(error).__name__}: {error}): looking again in {pause:.0f} s"
            if memory.trouble > policy.quick_retries:
                return remember(), Pause(pause, why)
            senses.log.warning("%s", why)
            senses.sleep(pause)
            settled = True  # the pause is no shorter than the lag


def listing_lag(service: RemoteJobs) -> float:
    """Seconds after which `service.find` sees what the service has accepted."""
    return float(getattr(service, "listing_lag", 5.0))
