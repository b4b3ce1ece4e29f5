"""Remote jobs that nobody wants any more: which they are, and how they end without harm to a wanted one.

`judge` looks at one job and at its task instance and says what to think of it; `sweep` gathers the facts,
asks `judge`, and cancels what is an orphan if it was told to. Nothing here knows HTTP, Airflow or AWS.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Protocol, TypeVar

from .jobs import CLOCK_SKEW, Job, Phase, RemoteJobs, Senses, doubling, family, jitter, same_namespace

T = TypeVar("T")

UNFINISHED = (
    "running",
    "deferred",
    "queued",
    "scheduled",
    "restarting",
    "up_for_retry",
    "up_for_reschedule",
)
"""States of task instances that are on their way; one that was cleared has none until it is scheduled."""
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
"""States in which Airflow does nothing more by itself. A state that is not known here is none of them."""

GRACE = 600.0
"""Seconds for which neither a young job nor the job of a task instance that has just ended is an orphan."""
LOST_LEASE = 3600.0
"""Seconds by which a worker may have submitted after its task instance was taken away from it."""
SOON = 600.0
"""Seconds after a job's creation in which a task instance that does not wait for it has ended."""
_ID = re.compile(r"[^\s,'\"\[\]()\\]+")  # in a list of ids, written as JSON or as Python
_TOGETHER = 20  # jobs of deleted runs that are cancelled after one more search for their task instances
_LOOKS_FOR_HIDDEN = 3
ATTEMPTS = 7
"""How often a question is asked; with the pauses a minute in all: AWS's buckets refill sooner."""
_LONGEST_PAUSE = 30.0
_FIRST_LOOK, _RAREST_LOOK = 2.0, 10.0  # seconds between two looks at what was cancelled


class NoAnswer(Exception):
    """Airflow did not tell what has to be known; the message says what to do. It is no news of any job."""


# --- facts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Instance:
    """One look at a task instance.

    :param state: as in Airflow's UI; ``None`` before it is scheduled and after it was cleared.
    :param try_number: its latest try, 0 before the first.
    :param started: start of the latest try, in seconds since 1970.
    :param ended: end of the latest try, in seconds since 1970, where Airflow says so.
    :param pool_slots: slots of its pool that it counts for.
    :param raw: everything that was said of it.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    state: str | None = None
    try_number: int = 0
    max_tries: int = 0
    started: float | None = None
    ended: float | None = None
    pool_slots: int = 1
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def family(self, namespace: str) -> str:
        """The part of its jobs' claims that names it; see `jobs.family`."""
        return family(namespace, self.dag_id, self.run_id, self.task_id, self.map_index)

    @property
    def over(self) -> bool:
        """Whether Airflow is known to do nothing more with it by itself."""
        return self.state in ENDED

    def __str__(self) -> str:
        """DAG, run, task and map index, for a person."""
        index = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id} / {self.run_id} / {self.task_id}{index}"


class Airflow(Protocol):
    """What a sweep asks Airflow. Every method raises `NoAnswer` when the answer is not known."""

    def instances(
        self,
        states: Sequence[str] = (),
        changed_since: float = 0.0,
        changed_until: float | None = None,
    ) -> Iterator[Instance]:
        """Every task instance in one of `states` (all by default) whose row has changed last in that time.

        Without `changed_until` it leaves out none that fits all the time; one that changes meanwhile may come
        twice.
        """

    def look(self, instance: Instance) -> Instance | None:
        """The same task instance now; ``None`` when it does not exist any more."""

    def left(self, instance: Instance) -> str | None:
        """The ids of jobs that its latest try has left running on purpose, in a text; ``None``: nothing."""

    def retries(self, instance: Instance) -> int | None:
        """The ``retries`` of its task; ``None`` when the task does not exist any more."""

    def deferred_slots(self) -> int:
        """Slots of all deferred task instances, of those too that may not be shown."""


class Listable(Protocol):
    """What a service offers whose jobs can be swept, beside `RemoteJobs`. It may raise what is transient."""

    def scopes(self) -> list[str]:
        """Where live jobs can be: every cluster of the account and region."""

    def claimed(self, scope: str) -> list[Job]:
        """The live jobs there that bear a claim, whoever's. Each is named as `RemoteJobs.find` names it.

        Those that somebody is stopping already may be left out.
        """

    # Optional, for a service that keeps what has ended until somebody removes it: ``leftovers(scope)``, the
    # ended jobs there that are to be removed, and ``remove(job)``.


class Sweepable(RemoteJobs, Listable, Protocol):
    """A service whose jobs can be listed, looked at and cancelled."""


@dataclass(frozen=True)
class Place:
    """A service, and where in it to look.

    :param name: what people call the service, such as ``ecs``.
    :param scopes: clusters; empty: all that it finds.
    """

    name: str
    service: Sweepable
    scopes: tuple[str, ...] = ()


# --- judge ----------------------------------------------------------------------------------------


class Kind(str, Enum):
    """What to think of a remote job that bears our claim."""

    WANTED = "wanted"
    """Its task instance has not ended: a live try takes care of it, whatever its number."""
    ENDED = "ended"
    """Its task instance has ended, and it has not."""
    SUPERSEDED = "superseded"
    """The same, and it was from before the latest clear, or another live job bears a later number."""
    DELETED = "deleted"
    """No task instance has this claim any more."""
    LEFT = "left"
    """Its task instance has ended and left it running on purpose."""
    YOUNG = "young"
    """It would be an orphan, but this is not long so."""
    UNKNOWN = "unknown"
    """What would have to be known is not."""

    @property
    def orphan(self) -> bool:
        """Whether nobody wants it."""
        return self in (Kind.ENDED, Kind.SUPERSEDED, Kind.DELETED)


_ORDER = (Kind.UNKNOWN, Kind.ENDED, Kind.SUPERSEDED, Kind.DELETED, Kind.YOUNG, Kind.LEFT, Kind.WANTED)


@dataclass(frozen=True)
class Verdict:
    """What to think of a job, and the sentence that says why."""

    kind: Kind
    reason: str


def judge(
    job: Job,
    instance: Instance | None,
    *,
    now: float,
    grace: float = GRACE,
    left: str | None = None,
    retries: int | None = None,
    others: Iterable[Job] = (),
    unsure: str = "",
) -> Verdict:
    """Say whether somebody wants `job`, a live one that bears our claim.

    :param instance: the task instance that its claim names; ``None``: there is none.
    :param now: in seconds since 1970; so is everything else that tells a time.
    :param grace: seconds, see `GRACE`.
    :param left: ids of jobs that the latest try of the task instance has left running on purpose, in a text.
    :param retries: of the task; ``None`` when they are not known.
    :param others: all jobs that are alive; those of the same task instance are of interest.
    :param unsure: why `instance` or `left` cannot be relied on; empty when they can.
    :return: `Kind.WANTED` for every task instance that has not ended, and an orphan only if everything is
        known that makes it one.
    :raises: nothing.
    """
    if instance is not None and not instance.over:
        state = instance.state or "cleared, or not scheduled yet"
        return Verdict(Kind.WANTED, f"its task instance is {state}")
    if instance is not None and not unsure and left is not None and _names(left, job):
        return Verdict(Kind.LEFT, f"its task instance is {instance.state} and left it running on purpose")
    age = now - job.created
    if age < grace:
        return Verdict(Kind.YOUNG, f"it was created {span(age)} ago")
    if unsure:
        return Verdict(Kind.UNKNOWN, unsure)
    if instance is None:
        return Verdict(Kind.DELETED, "no task instance has this claim: its DAG run or its DAG was deleted")
    since = "" if instance.ended is None else f" since {span(now - instance.ended)}"
    if instance.ended is not None and now - instance.ended < grace:
        return Verdict(Kind.YOUNG, f"its task instance is {instance.state}{since} only")
    is_over = f"its task instance is {instance.state}{since}"
    later = [other for other in others if other.claim.family == job.claim.family and other.claim > job.claim]
    if later:
        return Verdict(Kind.SUPERSEDED, f"{is_over}, and {max(later, key=_number).claim} came after it")
    if retries is not None and job.claim.number <= instance.max_tries - retries:
        return Verdict(Kind.SUPERSEDED, f"{is_over}, and it is from before the latest clear")
    return Verdict(Kind.ENDED, is_over)


def _names(left: str, job: Job) -> bool:
    return set(job.id.split(",")) <= set(_ID.findall(left))


def _number(job: Job) -> int:
    return job.claim.number


def span(seconds: float) -> str:
    """A length of time for a person, in the two largest units.

    >>> span(7), span(90), span(3 * 3600 + 61), span(100 * 3600)
    ('7 s', '1 min 30 s', '3 h 1 min', '4 d 4 h')
    """
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


# --- what came of it ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One live job that bears our claim.

    :param place: name of its service.
    :param outcome: what was done about it, and what was seen; empty: nothing.
    :param trouble: `outcome` leaves open whether it will end.
    :param ended: it was seen to have ended.
    """

    place: str
    job: Job
    verdict: Verdict
    instance: Instance | None = None
    outcome: str = ""
    trouble: bool = False
    ended: bool = False

    def row(self) -> dict[str, Any]:
        """The finding as JSON values."""
        task = self.instance
        return {
            "verdict": self.verdict.kind.value,
            "reason": self.verdict.reason,
            "outcome": self.outcome,
            "service": self.place,
            "cluster": self.job.scope,
            "job": self.job.id,
            "claim": str(self.job.claim),
            "phase": self.job.phase.value,
            "created": self.job.created,
            "dag_id": task.dag_id if task else None,
            "run_id": task.run_id if task else None,
            "task_id": task.task_id if task else None,
            "map_index": task.map_index if task else None,
            "state": task.state if task else None,
        }


@dataclass(frozen=True)
class Report:
    """What a sweep found and did.

    :param namespace: whose jobs were looked for.
    :param foreign: how many live jobs bear the claim of another deployment.
    :param troubles: what could not be listed, as sentences.
    :param leftovers: jobs that have ended, were to be removed then, and are still there.
    """

    namespace: str
    findings: tuple[Finding, ...] = ()
    foreign: int = 0
    troubles: tuple[str, ...] = ()
    leftovers: tuple[Finding, ...] = ()

    @property
    def orphans(self) -> list[Finding]:
        """Those that nobody wants and that have not been seen to end."""
        return [each for each in self.findings if each.verdict.kind.orphan and not each.ended]

    @property
    def unknown(self) -> list[Finding]:
        """Those of which is not known whether somebody wants them, or whether they will end."""
        return [each for each in self.findings if each.verdict.kind is Kind.UNKNOWN or each.trouble]

    @property
    def exit_code(self) -> int:
        """0: nothing is left to do; 1: there are orphans; 2: something is not known."""
        if self.troubles or self.unknown or any(each.trouble for each in self.leftovers):
            return 2
        return 1 if self.orphans else 0


# --- sweep ----------------------------------------------------------------------------------------


def sweep(
    places: Sequence[Place],
    airflow: Airflow,
    namespace: str,
    senses: Senses,
    *,
    cancel: bool = False,
    grace: float = GRACE,
    wait: float = 120.0,
) -> Report:
    """Find the live jobs that nobody wants, and end them if asked to.

    Jobs are listed first and Airflow is read afterwards, so that a job's task instance, which is older than
    the job, is there to be found. Immediately before a cancel both are looked at again.

    :param places: the services to look in.
    :param namespace: whose claims are ours; every other one is left alone.
    :param cancel: cancel the orphans; otherwise they are only reported.
    :param grace: seconds, see `GRACE`.
    :param wait: seconds for which the ends of cancelled jobs are awaited, all together.
    :raises: nothing that AWS or Airflow answers: what could not be asked stands in the report.
    """
    listed, troubles = _listed(places, senses)
    ours = [(place, job) for place, job in listed if same_namespace(job.claim, namespace)]
    kept = [
        (place, job) for place, job in _kept(places, senses, troubles) if same_namespace(job.claim, namespace)
    ]
    asked = _Asked(airflow, namespace, senses, grace, tuple(job for _, job in ours))
    asked.search([job for _, job in (*ours, *kept)])
    findings = [Finding(place.name, job, *asked.judge(job)) for place, job in ours]
    # What a live try may still want to know of, stays.
    leftovers = [Finding(place.name, job, *asked.judge(job)) for place, job in kept]
    leftovers = [each for each in leftovers if each.verdict.kind.orphan]
    if cancel:
        services = {place.name: place.service for place in places}
        findings = _end(findings, services, asked, senses, wait)
        leftovers = [_remove(each, services[each.place], asked, senses) for each in leftovers]
    findings.sort(key=lambda each: (_ORDER.index(each.verdict.kind), each.job.created))
    return Report(namespace, tuple(findings), len(listed) - len(ours), tuple(troubles), tuple(leftovers))


def _kept(places: Sequence[Place], senses: Senses, troubles: list[str]) -> Iterator[tuple[Place, Job]]:
    """Ended jobs that were to be removed, where a service keeps such; what cannot be listed is told."""
    for place in places:
        leftovers: Any = getattr(place.service, "leftovers", None)
        for scope in () if leftovers is None else place.scopes or place.service.scopes():
            try:
                jobs = persist(lambda: leftovers(scope), place.service.is_transient, senses)  # noqa: B023 - called at once
            except Exception as error:  # noqa: BLE001 - it is said
                troubles.append(f"{place.name}: what is left on {scope} cannot be listed: {_told(error)}")
                continue
            yield from ((place, job) for job in jobs)


def _remove(finding: Finding, service: Any, asked: _Asked, senses: Senses) -> Finding:
    """Remove what has ended, if nobody has come to want it meanwhile."""
    verdict, instance = asked.look_again(finding.job)
    if not verdict.kind.orphan:
        outcome = "not removed: somebody may want to know of it"
        return replace(finding, verdict=verdict, instance=instance, outcome=outcome)
    try:
        persist(lambda: service.remove(finding.job), service.is_transient, senses)
    except Exception as error:  # noqa: BLE001 - it is said
        return replace(finding, outcome=f"it could not be removed: {_told(error)}", trouble=True)
    return replace(finding, outcome="removed", ended=True)


def _listed(places: Sequence[Place], senses: Senses) -> tuple[list[tuple[Place, Job]], list[str]]:
    """Every live job that bears a claim and that nobody is stopping yet, and what could not be listed."""
    found: list[tuple[Place, Job]] = []
    troubles: list[str] = []
    for place in places:
        scopes: Sequence[str] = place.scopes
        try:
            scopes = scopes or persist(place.service.scopes, place.service.is_transient, senses)
        except Exception as error:  # noqa: BLE001 - it is said
            troubles.append(f"{place.name}: the clusters cannot be listed: {_told(error)}")
        for scope in scopes:
            try:
                jobs = persist(lambda: place.service.claimed(scope), place.service.is_transient, senses)  # noqa: B023 - called at once
            except Exception as error:  # noqa: BLE001 - it is said
                troubles.append(f"{place.name}: the jobs of {scope} cannot be listed: {_told(error)}")
                continue
            found += [(place, job) for job in jobs if job.live and job.phase is not Phase.STOPPING]
    return found, troubles


@dataclass
class _Asked:
    """What Airflow has told so far."""

    airflow: Airflow
    namespace: str
    senses: Senses
    grace: float
    jobs: tuple[Job, ...]
    instances: dict[str, Instance] = field(default_factory=dict)
    unsure: str = ""
    """Why it is not known of a job without a task instance that there is none."""

    def search(self, jobs: Sequence[Job]) -> None:
        """Find the task instances of `jobs`, or make sure that there are none."""
        families = {job.claim.family for job in jobs}
        if not families:
            return
        try:
            found = search(self.airflow, jobs, self.namespace)
            self.instances = {**self.instances, **found}
            if families - found.keys():
                self.unsure = hidden(self.airflow, self.senses)
        except NoAnswer as error:
            self.unsure = str(error)

    def judge(self, job: Job) -> tuple[Verdict, Instance | None]:
        """Judge a job by what is known of its task instance."""
        instance = self.instances.get(job.claim.family)
        left = retries = None
        unsure = indistinct(self.namespace) or (self.unsure if instance is None else "")
        if instance is not None and instance.over and not unsure:
            try:
                left, retries = self.airflow.left(instance), self.airflow.retries(instance)
            except NoAnswer as error:
                unsure = str(error)
        now = self.senses.now()
        return (
            judge(
                job,
                instance,
                now=now,
                grace=self.grace,
                left=left,
                retries=retries,
                others=self.jobs,
                unsure=unsure,
            ),
            instance,
        )

    def look_again(self, job: Job) -> tuple[Verdict, Instance | None]:
        """Judge a job by a new look at its task instance."""
        before = self.instances.get(job.claim.family)
        if before is not None:
            try:
                now = self.airflow.look(before)
            except NoAnswer as error:
                return Verdict(Kind.UNKNOWN, str(error)), before
            if now is None:
                return Verdict(Kind.UNKNOWN, "its task instance has just been deleted: sweep again"), before
            self.instances[job.claim.family] = now
        return self.judge(job)


def search(airflow: Airflow, jobs: Iterable[Job], namespace: str) -> dict[str, Instance]:
    """Find the task instances of `jobs` by their claims, however old their runs are.

    A job is submitted while its task instance is running. Since then the task instance is either still on its
    way, or Airflow has changed its row. So those on their way come first, where most searches end; then what
    has changed soon after a job was created, which finds what did not wait for its job; at last everything
    that has changed since the oldest job of those that are left was created, and a little longer: a worker
    that has lost its lease may submit when its task instance has been given up already.

    :return: family to task instance.
    :raises NoAnswer: not everything could be read.
    """
    created: dict[str, float] = {}
    for job in jobs:
        created[job.claim.family] = min(job.created, created.get(job.claim.family, job.created))
    found: dict[str, Instance] = {}

    def ask(**question: Any) -> bool:
        """Look through an answer as long as anything is missing; whether nothing is."""
        for instance in airflow.instances(**question):
            name = instance.family(namespace)
            if name in created:
                found[name] = instance
                if len(found) == len(created):
                    return True
        return False

    if ask(states=UNFINISHED):
        return found
    for name, at in sorted(created.items(), key=lambda each: each[1]):
        if name not in found and ask(changed_since=at - CLOCK_SKEW, changed_until=at + SOON):
            return found
    ask(changed_since=min(at for name, at in created.items() if name not in found) - LOST_LEASE)
    return found


def indistinct(namespace: str) -> str:
    """Why a namespace does not tell one deployment from others; empty when it does."""
    if namespace and "://localhost" not in namespace:
        return ""
    return (
        f"the namespace {namespace!r} may be that of another Airflow, too, which may want this job: set "
        "[airflow_resilient] namespace"
    )


def hidden(airflow: Airflow, senses: Senses) -> str:
    """Why Airflow may not show us every task instance; empty when nothing hints at that.

    An account that may not read every DAG is shown no task instance of the others, and would take their jobs
    for jobs of deleted runs. But the pools count all of them. The numbers are not of one moment, so they are
    compared more than once.

    :raises NoAnswer: the pools cannot be read.
    """
    shown = counted = 0
    for attempt in range(1, _LOOKS_FOR_HIDDEN + 1):
        before = airflow.deferred_slots()
        shown = sum(instance.pool_slots for instance in airflow.instances(states=("deferred",)))
        counted = min(before, airflow.deferred_slots())
        if shown >= counted:
            return ""
        senses.sleep(jitter(doubling(_FIRST_LOOK, attempt, _RAREST_LOOK), senses.random))
    return (
        f"Airflow's pools count {counted} slots of deferred task instances, but it shows us {shown}: give an "
        "account that may read every DAG"
    )


def _end(
    findings: Sequence[Finding],
    services: Mapping[str, Sweepable],
    asked: _Asked,
    senses: Senses,
    wait: float,
) -> list[Finding]:
    """Look again at every orphan and at its task instance, cancel it, and wait for the ends."""
    done: list[Finding] = []
    searched = 0
    for finding in findings:
        if not finding.verdict.kind.orphan:
            done.append(finding)
            continue
        if finding.verdict.kind is Kind.DELETED:
            if searched % _TOGETHER == 0:
                ahead = [each for each in findings if each.verdict.kind is Kind.DELETED]
                asked.search([each.job for each in ahead[searched : searched + _TOGETHER]])
            searched += 1
        verdict, instance = asked.look_again(finding.job)
        if not verdict.kind.orphan:
            outcome = "not cancelled: it is no orphan any more"
            done.append(replace(finding, verdict=verdict, instance=instance, outcome=outcome))
            continue
        finding = replace(finding, verdict=verdict, instance=instance)  # noqa: PLW2901 - a newer look
        done.append(_cancel(finding, services[finding.place], senses))
    return _await_ends(done, services, senses, wait)


def _cancel(finding: Finding, service: Sweepable, senses: Senses) -> Finding:
    """Cancel an orphan, if it still lives."""
    try:
        looks = persist(lambda: service.observe([finding.job]), service.is_transient, senses)
        if not looks:
            return replace(finding, outcome=f"{finding.place} does not know it any more", trouble=True)
        if not looks[0].live:
            return replace(finding, job=looks[0], outcome="it had ended by itself", ended=True)
        of = f"{finding.instance}" if finding.instance else "a deleted task instance"
        reason = f"orphan of {of}: {finding.verdict.kind.value}"
        look = persist(lambda: service.cancel(looks[0], reason), service.is_transient, senses)
    except Exception as error:  # noqa: BLE001 - it is said
        return replace(finding, outcome=f"it could not be cancelled: {_told(error)}", trouble=True)
    senses.log.info("asked %s to end %s, %s", finding.place, look.id, reason)
    return replace(finding, job=look, outcome="cancelled", trouble=True)


def _await_ends(
    findings: Sequence[Finding], services: Mapping[str, Sweepable], senses: Senses, wait: float
) -> list[Finding]:
    """Look at what was cancelled until it has ended, for `wait` seconds."""
    done = list(findings)
    until, looks = senses.now() + wait, 0
    while True:
        for number, finding in enumerate(done):
            if finding.outcome != "cancelled" or finding.ended:
                continue
            if finding.job.live or finding.job.phase is Phase.LOST:
                done[number] = finding = _look(finding, services[finding.place])  # noqa: PLW2901 - a newer look
            if not finding.job.live and finding.job.phase is not Phase.LOST:
                ended = f"cancelled, and seen to end: {finding.job.phase.value}"
                done[number] = replace(finding, outcome=ended, ended=True, trouble=False)
        if not any(each.outcome == "cancelled" for each in done):
            return done
        left = until - senses.now()
        if left <= 0:
            break
        looks += 1
        senses.sleep(min(left, doubling(_FIRST_LOOK, looks, _RAREST_LOOK)))
    text = f"cancelled, but not seen to end within {span(wait)}"
    return [replace(each, outcome=text) if each.outcome == "cancelled" else each for each in done]


def _look(finding: Finding, service: Sweepable) -> Finding:
    """A new look, or the last one if there is no answer now."""
    try:
        looks = service.observe([finding.job])
    except Exception as error:  # noqa: BLE001 - sorted out by is_transient, or said
        if not service.is_transient(error):
            return replace(finding, outcome=f"cancelled, but it cannot be looked at: {_told(error)}")
        return finding
    return replace(finding, job=finding.job.learn(looks[0])) if looks else finding


def persist(
    call: Callable[[], T],
    is_transient: Callable[[Exception], bool],
    senses: Senses,
    attempts: int = ATTEMPTS,
) -> T:
    """What `call` returns, after waiting out errors that pass.

    :raises Exception: what it raised last.
    """
    attempt = 1
    while True:
        try:
            return call()
        except Exception as error:  # noqa: PERF203 - a call over the network costs more than a try
            if attempt >= attempts or not is_transient(error):
                raise
            pause = jitter(doubling(1.0, attempt, _LONGEST_PAUSE), senses.random)
            senses.log.warning("no answer (%s): asking again in %.0f s", _told(error), pause)
            senses.sleep(pause)
            attempt += 1


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, NoAnswer) else f"{type(error).__name__}: {error}"
