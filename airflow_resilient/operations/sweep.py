"""The orphan sweep: finding remote jobs that no task instance needs any more, and cancelling them safely.

`classify` decides about one job, given its task instance; `sweep` gathers the facts, calls `classify`, and
cancels the orphans if requested. Nothing here knows HTTP, Airflow or AWS.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any

from ..core.job import CLOCK_SKEW, Phase, same_namespace
from ..core.reconcile import RUNNING_ON_XCOM, call_of_memory
from ..core.retry import doubling, jitter, retry_transient
from ..core.service import UNATTENDED
from ..core.text import error_text, last_part
from .command import ExitCode
from .report import span
from .task_instances import UNFINISHED, AirflowApiError, read_value

if TYPE_CHECKING:
    from ..core.job import Job
    from ..core.retry import Runtime
    from ..core.service import RemoteService
    from .task_instances import Airflow, Instance

GRACE = 600.0
"""Seconds for which neither a young job nor the job of a task instance that has just ended is an orphan."""
STALE_WORKER_WINDOW = 3600.0
"""Seconds for which a stale worker may still submit, after a later try exists already."""
UNAWAITED_WINDOW = 600.0
"""Seconds after a job's creation within which a task instance that does not wait for it has ended."""
DELETED_BATCH = 20
"""Jobs of deleted runs that are cancelled after one more search for their task instances."""
CLEANED_AFTER = 7 * 86_400.0
"""Seconds after which ``airflow db clean`` may have deleted a row, so that its absence proves nothing."""
MAX_RECOGNISED = 20
"""Jobs whose task instances are asked whether they know them, until one does."""
MAX_VISIBILITY_CHECKS = 3
"""Comparisons of Airflow's pools with the deferred task instances that it shows."""
_FIRST_POLL_SECONDS, _MAX_POLL_SECONDS = 2.0, 10.0
_SAME_INSTANT = 0.001  # seconds; every database of Airflow keeps microseconds

_MARK = re.compile(rf"{RUNNING_ON_XCOM}_([1-9]\d{{0,8}})(?:_([a-z2-7]{{8}}))?")  # see running_on_key


@dataclass(frozen=True)
class SweepTarget:
    """A service, and the scopes to search for jobs.

    :param name: the registry's name of the service, such as ``ecs``.
    :param scopes: clusters, engines or the like; empty: all scopes that the service lists.
    """

    name: str
    service: RemoteService
    scopes: tuple[str, ...] = ()


class OrphanStatus(str, Enum):
    """Whether a remote job that bears our claim is needed, and why."""

    WANTED = "wanted"
    """Its task instance has not ended: a try handles the job, whatever its number."""
    ENDED = "ended"
    """Its task instance has ended, and the job has not."""
    SUPERSEDED = "superseded"
    """Like ENDED; the job is from before the latest clear, or another live job has a higher number."""
    DELETED = "deleted"
    """No task instance has this claim any more."""
    LEFT_RUNNING = "left_running"
    """Its task instance has ended and left the job running on purpose."""
    YOUNG = "young"
    """An orphan, except that the grace period has not passed."""
    UNKNOWN = "unknown"
    """Facts that decide are unknown."""

    @property
    def orphan(self) -> bool:
        """Whether no task instance needs the job."""
        return self in (OrphanStatus.ENDED, OrphanStatus.SUPERSEDED, OrphanStatus.DELETED)


_ORDER = (
    OrphanStatus.UNKNOWN,
    OrphanStatus.ENDED,
    OrphanStatus.SUPERSEDED,
    OrphanStatus.DELETED,
    OrphanStatus.YOUNG,
    OrphanStatus.LEFT_RUNNING,
    OrphanStatus.WANTED,
)


@dataclass(frozen=True)
class OrphanVerdict:
    """The status of a job, and a sentence that explains it."""

    status: OrphanStatus
    reason: str


def classify(  # noqa: PLR0911 - a decision reads from top to bottom
    job: Job,
    instance: Instance | None,
    *,
    now: float,
    grace: float = GRACE,
    xcoms: Mapping[str, Any] | None = None,
    retries: int | None = None,
    others: Iterable[Job] = (),
    unknown_because: str = "",
) -> OrphanVerdict:
    """Decide whether `job`, a live job that bears our claim, is an orphan.

    :param instance: the task instance that its claim identifies; ``None``: there is none.
    :param now: the current time; all times are seconds since 1970.
    :param grace: seconds, see `GRACE`.
    :param xcoms: XComs of the latest try of the task instance, see `Airflow.xcoms`.
    :param retries: of the task; ``None`` when they are unknown.
    :param others: all live jobs; those of the same task instance, and of the same call within it, are
        considered.
    :param unknown_because: why `instance` or `xcoms` is unreliable; empty when both are reliable.
    :return: `OrphanStatus.WANTED` whenever the task instance has not ended; an orphan only if all facts that
        make the job one are known.
    :raises: nothing.
    """
    xcoms, others = xcoms or {}, list(others)
    if instance is not None and not instance.over:
        state = instance.state or "cleared, or not scheduled yet"
        return OrphanVerdict(OrphanStatus.WANTED, f"its task instance is {state}")
    left = None if instance is None or unknown_because else _left_on_purpose(job, instance, xcoms, others)
    if left is not None and left.status is OrphanStatus.LEFT_RUNNING:
        return left
    age = now - job.created
    if age < grace:
        return OrphanVerdict(OrphanStatus.YOUNG, f"it was created {span(age)} ago")
    if unknown_because:
        return OrphanVerdict(OrphanStatus.UNKNOWN, unknown_because)
    if instance is None:
        return _without_instance(job, age)
    if left is not None:
        return left
    since = "" if instance.ended is None else f" (ended {span(now - instance.ended)} ago)"
    ended_ago = age if instance.ended is None else now - instance.ended
    if instance.ended is not None and ended_ago < grace:
        return OrphanVerdict(
            OrphanStatus.YOUNG, f"its task instance ended only {span(ended_ago)} ago ({instance.state})"
        )
    is_over = f"its task instance is {instance.state}{since}"
    if not xcoms and min(age, ended_ago) >= CLEANED_AFTER:
        return OrphanVerdict(
            OrphanStatus.UNKNOWN,
            f"{is_over} and has no XCom any more: airflow db clean may have deleted the one that says that "
            "the job is left running on purpose",
        )
    later = [
        other for other in others if other.claim.task_key == job.claim.task_key and other.claim > job.claim
    ]
    if later:
        return OrphanVerdict(
            OrphanStatus.SUPERSEDED, f"{is_over}, and a later job, {max(later, key=_number).claim}, is alive"
        )
    if retries is not None and job.claim.number <= instance.max_tries - retries:
        return OrphanVerdict(
            OrphanStatus.SUPERSEDED, f"{is_over}, and the job is from before the latest clear"
        )
    return OrphanVerdict(OrphanStatus.ENDED, is_over)


def _without_instance(job: Job, age: float) -> OrphanVerdict:
    """Whether the task instance of a job was deleted, or may have left the job running on purpose before."""
    status, reason = OrphanStatus.DELETED, "its DAG run or its DAG was deleted"
    if job.facts.get(UNATTENDED):
        status = OrphanStatus.UNKNOWN
        reason = "the job may run on without it (wait_for_completion=False, or on_timeout='leave')"
    elif age >= CLEANED_AFTER:
        status = OrphanStatus.UNKNOWN
        reason = (
            f"the job was created {span(age)} ago, so airflow db clean may have deleted the task instance, "
            "which may have left the job running on purpose"
        )
    return OrphanVerdict(status, f"its task instance does not exist: {reason}")


def _left_on_purpose(
    job: Job, instance: Instance, xcoms: Mapping[str, Any], others: Iterable[Job]
) -> OrphanVerdict | None:
    """LEFT_RUNNING, UNKNOWN, or ``None`` when the marks say that the job was not left on purpose."""
    left = OrphanVerdict(
        OrphanStatus.LEFT_RUNNING, f"its task instance is {instance.state} and left it running on purpose"
    )
    marks = marks_of(xcoms)
    if any(ids is not None and _parts(job) <= ids for ids in marks.values()):
        return left
    for key, ids in marks.items():
        mark = _MARK.fullmatch(key)
        if mark is None:
            why = f"its task instance has an XCom {key!r}, which this version does not know"
        elif (int(mark[1]), mark[2] or "") != (job.claim.number, job.claim.call):
            continue
        elif ids is not None:
            why = f"its task instance left a job under {job.claim} running on purpose, and not this one"
        elif any(other.claim == job.claim and other.id != job.id for other in others):
            why = (
                f"its task instance left one of the jobs under {job.claim} running on purpose, and "
                f"the value of its XCom {key!r}, which says which one, cannot be read"
            )
        else:
            return left
        return OrphanVerdict(OrphanStatus.UNKNOWN, f"{why}: end the job by hand if nobody needs it")
    return None


def marks_of(xcoms: Mapping[str, Any]) -> dict[str, frozenset[str] | None]:
    """The XComs that say what a try has left running: key, and ids, or ``None`` if they cannot be read.

    >>> marks_of({"airflow_resilient_left_1": "['s-1']", "airflow_resilient_left_2": "s3://xcoms/7"})
    {'airflow_resilient_left_1': frozenset({'s-1'}), 'airflow_resilient_left_2': None}
    """
    return {key: _ids(value) for key, value in xcoms.items() if key.startswith(RUNNING_ON_XCOM)}


def _ids(value: Any) -> frozenset[str] | None:
    found = read_value(value)
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        return None
    return frozenset(part for each in found for part in each.split(","))


def _parts(job: Job) -> set[str]:
    """The ids of the parts of a job, such as the steps of EMR; some of them may have ended already."""
    return set(job.id.split(","))


class Evidence(str, Enum):
    """What the XComs of a task instance say about a job that bears its claim."""

    NAMED = "named"
    """They name the job: the task instance has submitted or watched this one."""
    OTHER = "other"
    """They name other jobs, and not this one."""
    SILENT = "silent"
    """They name no job, or they cannot be read."""


def evidence(job: Job, xcoms: Mapping[str, Any]) -> Evidence:
    """What the XComs of a task instance say about `job`, which bears its claim.

    :param xcoms: see `Airflow.xcoms`.
    :raises: nothing.
    """
    named: list[tuple[str, frozenset[str]]] = []  # scope, where it is known, and ids
    readable = True
    for key, value in xcoms.items():
        if call_of_memory(key) is not None:
            memory = read_value(value)
            seen = memory.get("seen") if isinstance(memory, Mapping) else None
            readable &= isinstance(seen, list | tuple)
            for each in seen if isinstance(seen, list | tuple) else ():
                if isinstance(each, Mapping):
                    ids = frozenset(str(each.get("id")).split(","))
                    named.append((last_part(str(each.get("scope") or "")), ids))
        else:
            marked = _ids(value)
            readable &= marked is not None
            named += [("", marked)] if marked else []
    here = last_part(job.scope)
    if any(_parts(job) <= ids and scope in ("", here) for scope, ids in named):
        return Evidence.NAMED
    return Evidence.OTHER if readable and named else Evidence.SILENT


def why_not_this_airflow(me: Instance, shown: Instance | None) -> str:
    """Why the Airflow that was asked is not the one that runs `me`; empty when it is.

    :param me: the try of a task instance that runs this code: with its `id` on Airflow 3, or its start.
    :param shown: the same task instance as the API shows it; ``None``: there is none.
    """
    if shown is None:
        problem = "has no such task instance"
    elif shown.state != "running" or shown.try_number != me.try_number:
        problem = f"shows it as {shown.state}, try {shown.try_number}"
    elif me.id and shown.id:
        problem = "" if me.id == shown.id else "shows another one of that name, which runs, too"
    elif me.started is None or shown.started is None:
        problem = "does not show when it started, so it may be another one of that name"
    else:
        same = abs(me.started - shown.started) < _SAME_INSTANT
        problem = "" if same else "shows another one of that name, which started at another time"
    if not problem:
        return ""
    return (
        f"this sweep is try {me.try_number} of {me}, and the Airflow that was asked {problem}: it is another "
        "Airflow. Correct the connection"
    )


def why_not_recognised(found: Iterable[Evidence]) -> str:
    """Why it is not known whose Airflow was asked; empty when it knows a job.

    :param found: about jobs whose task instances exist there.
    """
    if any(each is not Evidence.OTHER for each in found):
        return ""
    return (
        "the Airflow that was asked knows none of the jobs of this namespace, so it may be another one than "
        "that which has submitted them: compare its URL with the namespace, and pass --same-airflow if it is "
        "the right one"
    )


def _number(job: Job) -> int:
    return job.claim.number


@dataclass(frozen=True)
class Finding:
    """One live job that bears our claim.

    :param service: name of its service.
    :param outcome: what the sweep did with it, and the result; empty: nothing.
    :param unresolved: it is unknown whether the job will end, see `outcome`.
    :param ended: its end was observed.
    """

    service: str
    job: Job
    verdict: OrphanVerdict
    instance: Instance | None = None
    outcome: str = ""
    unresolved: bool = False
    ended: bool = False

    def row(self) -> dict[str, Any]:
        """The finding as JSON values."""
        task = self.instance
        return {
            "verdict": self.verdict.status.value,
            "reason": self.verdict.reason,
            "outcome": self.outcome,
            "service": self.service,
            "scope": self.job.scope,
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
    """The result of a sweep.

    :param namespace: the namespace of the jobs that were searched for.
    :param foreign: number of live jobs that bear the claim of another deployment.
    :param errors: messages about services and scopes that could not be listed.
    :param removable: ended jobs that should have been removed and still exist.
    """

    namespace: str
    findings: tuple[Finding, ...] = ()
    foreign: int = 0
    errors: tuple[str, ...] = ()
    removable: tuple[Finding, ...] = ()

    @property
    def orphans(self) -> list[Finding]:
        """Findings that are orphans and whose end was not observed."""
        return [each for each in self.findings if each.verdict.status.orphan and not each.ended]

    @property
    def unknown(self) -> list[Finding]:
        """Findings whose status is unknown, or of which it is unknown whether they will end."""
        return [
            each for each in self.findings if each.verdict.status is OrphanStatus.UNKNOWN or each.unresolved
        ]

    @property
    def exit_code(self) -> ExitCode:
        """DONE: nothing is left to do; FOUND: there are orphans; UNKNOWN: something is unknown."""
        if self.errors or self.unknown or any(each.unresolved for each in self.removable):
            return ExitCode.UNKNOWN
        return ExitCode.FOUND if self.orphans else ExitCode.DONE


def sweep(  # noqa: PLR0913 - most are keyword-only
    targets: Sequence[SweepTarget],
    airflow: Airflow,
    namespace: str,
    runtime: Runtime,
    *,
    cancel: bool = False,
    grace: float = GRACE,
    wait: float = 120.0,
    me: Instance | None = None,
    same_airflow: bool = False,
    sees_every_dag: bool = False,
) -> Report:
    """Find orphans, and cancel them if requested.

    Jobs are listed first and Airflow is read afterwards, so that a job's task instance, which is older than
    the job, can be found. Immediately before a cancel both are observed again.

    :param targets: the services to search.
    :param namespace: the namespace of our claims; jobs of other namespaces are ignored.
    :param cancel: cancel the orphans; otherwise they are only reported.
    :param grace: seconds, see `GRACE`.
    :param wait: seconds for which the ends of all cancelled jobs together are awaited.
    :param me: the try of a task instance that runs this sweep, which proves that `airflow` is its Airflow.
        Without it, `airflow` must know one of the jobs.
    :param same_airflow: somebody says that `airflow` is the Airflow of `namespace`.
    :param sees_every_dag: somebody says that the account may read every DAG.
    :raises: no error of AWS or Airflow: they are in the report.
    """
    listed, errors = _list_live(targets, runtime)
    ours = [(target, job) for target, job in listed if same_namespace(job.claim, namespace)]
    kept = [
        (target, job)
        for target, job in _list_removable(targets, runtime, errors)
        if same_namespace(job.claim, namespace)
    ]
    services = {target.name: target.service for target in targets}
    classifier = _Classifier(
        airflow,
        namespace,
        runtime,
        grace,
        tuple(job for _, job in ours),
        me=me,
        same_airflow=same_airflow,
        sees_every_dag=sees_every_dag,
    )
    classifier.search([job for _, job in (*ours, *kept)])
    findings = [Finding(target.name, job, *classifier.classify(job, target.service)) for target, job in ours]
    # Ended jobs that a live try may still read are kept.
    removable = [Finding(target.name, job, *classifier.classify(job, target.service)) for target, job in kept]
    removable = [each for each in removable if each.verdict.status.orphan]
    if cancel:
        findings = _cancel_orphans(findings, services, classifier, runtime, wait)
        removable = [_remove(each, services[each.service], classifier, runtime) for each in removable]
    findings.sort(key=lambda each: (_ORDER.index(each.verdict.status), each.job.created))
    return Report(namespace, tuple(findings), len(listed) - len(ours), tuple(errors), tuple(removable))


def _list_removable(
    targets: Sequence[SweepTarget], runtime: Runtime, errors: list[str]
) -> Iterator[tuple[SweepTarget, Job]]:
    """Ended jobs that should have been removed, of services that keep them; adds to `errors`."""
    for target in targets:
        if not target.service.keeps_ended_jobs:
            continue
        for scope in target.scopes or target.service.list_scopes():
            try:
                jobs = retry_transient(
                    partial(target.service.list_removable, scope), target.service.is_transient, runtime
                )
            except Exception as error:  # noqa: BLE001 - it is reported
                errors.append(f"{target.name}: cannot list the ended jobs of {scope}: {_error_text(error)}")
                continue
            yield from ((target, job) for job in jobs)


def _remove(finding: Finding, service: Any, classifier: _Classifier, runtime: Runtime) -> Finding:
    """Remove an ended job, unless a task instance has come to need it meanwhile."""
    verdict, instance = classifier.classify_again(finding.job, service)
    if not verdict.status.orphan:
        outcome = "not removed: its task instance may still need it"
        return replace(finding, verdict=verdict, instance=instance, outcome=outcome)
    try:
        retry_transient(lambda: service.remove(finding.job), service.is_transient, runtime)
    except Exception as error:  # noqa: BLE001 - it is reported
        return replace(finding, outcome=f"cannot be removed: {_error_text(error)}", unresolved=True)
    return replace(finding, outcome="removed", ended=True)


def _list_live(
    targets: Sequence[SweepTarget], runtime: Runtime
) -> tuple[list[tuple[SweepTarget, Job]], list[str]]:
    """Every live job that bears a claim and is not being stopped yet, and errors of listing."""
    found: list[tuple[SweepTarget, Job]] = []
    errors: list[str] = []
    for target in targets:
        service, scopes = target.service, target.scopes
        try:
            scopes = scopes or tuple(retry_transient(service.list_scopes, service.is_transient, runtime))
        except Exception as error:  # noqa: BLE001 - it is reported
            errors.append(f"{target.name}: cannot list the {service.scope_noun}s: {_error_text(error)}")
        for scope in scopes:
            try:
                jobs = retry_transient(partial(service.list_jobs, scope), service.is_transient, runtime)
            except Exception as error:  # noqa: BLE001 - it is reported
                errors.append(f"{target.name}: cannot list the jobs of {scope}: {_error_text(error)}")
                continue
            found += [(target, job) for job in jobs if job.live and job.phase is not Phase.STOPPING]
    return found, errors


@dataclass
class _Classifier:
    """Classifies jobs by the task instances that Airflow has shown so far.

    An orphan must be proved to be one: that this Airflow has submitted the job, that a task instance which
    is not shown does not exist, and that the job is the one that was submitted, not a copy.
    """

    airflow: Airflow
    namespace: str
    runtime: Runtime
    grace: float
    jobs: tuple[Job, ...]
    me: Instance | None = None
    same_airflow: bool = False
    sees_every_dag: bool = False
    searched: dict[str, Job] = field(default_factory=dict)
    """Live and ended jobs whose task instances were searched, by their ids."""
    instances: dict[str, Instance] = field(default_factory=dict)
    unknown_because: str = ""
    """Why the absence of a task instance is unreliable; empty when it is reliable."""
    proofs: dict[str, str] = field(default_factory=dict)
    """Results of proofs that hold for the whole sweep: name, and why it has failed, or empty."""

    def search(self, jobs: Sequence[Job]) -> None:
        """Find the task instances of `jobs`, or make sure that they do not exist."""
        task_keys = {job.claim.instance_key for job in jobs}
        if not task_keys:
            return
        self.searched |= {job.id: job for job in jobs}
        try:
            found = search(self.airflow, jobs, self.namespace)
            self.instances = {**self.instances, **found}
            if task_keys - found.keys():
                self.unknown_because = why_not_all_shown(self.airflow, self.runtime)
        except AirflowApiError as error:
            self.unknown_because = str(error)

    def classify(self, job: Job, service: RemoteService) -> tuple[OrphanVerdict, Instance | None]:
        """Classify a job by the known observation of its task instance."""
        instance = self.instances.get(job.claim.instance_key)
        xcoms: Mapping[str, Any] = {}
        retries = None
        unknown_because = why_namespace_is_shared(self.namespace)
        if instance is None and not unknown_because:
            unknown_because = self.unknown_because
        if instance is not None and instance.over and not unknown_because:
            try:
                xcoms, retries = self.airflow.xcoms(instance), self.airflow.retries(instance)
            except AirflowApiError as error:
                unknown_because = str(error)
        verdict = classify(
            job,
            instance,
            now=self.runtime.now(),
            grace=self.grace,
            xcoms=xcoms,
            retries=retries,
            others=self.jobs,
            unknown_because=unknown_because,
        )
        if verdict.status.orphan:
            try:
                unproved = self._why_unproved(job, instance, xcoms, service)
            except Exception as error:  # noqa: BLE001 - it is reported
                unproved = _error_text(error)
            if unproved:
                verdict = OrphanVerdict(OrphanStatus.UNKNOWN, unproved)
        return verdict, instance

    def classify_again(self, job: Job, service: RemoteService) -> tuple[OrphanVerdict, Instance | None]:
        """Classify a job by a new observation of its task instance."""
        before = self.instances.get(job.claim.instance_key)
        if before is not None:
            try:
                now = self.airflow.current(before)
            except AirflowApiError as error:
                return OrphanVerdict(OrphanStatus.UNKNOWN, str(error)), before
            if now is None:
                return OrphanVerdict(
                    OrphanStatus.UNKNOWN, "its task instance has just been deleted: run the sweep again"
                ), before
            self.instances[job.claim.instance_key] = now
        return self.classify(job, service)

    def _why_unproved(
        self, job: Job, instance: Instance | None, xcoms: Mapping[str, Any], service: RemoteService
    ) -> str:
        """Why it is not proved that `job` is ours and unwanted; empty when it is proved."""
        why = self._once("identity", self._why_another_airflow)
        if not why and instance is None and not self.sees_every_dag:
            why = self._once("sight", self.airflow.why_not_every_dag)
        if not why and evidence(job, xcoms) is not Evidence.NAMED:
            why = retry_transient(lambda: service.why_copied(job), service.is_transient, self.runtime)
        return why

    def _once(self, proof: str, why_not: Callable[[], str]) -> str:
        if proof not in self.proofs:
            try:
                self.proofs[proof] = why_not()
            except AirflowApiError as error:
                self.proofs[proof] = str(error)
        return self.proofs[proof]

    def _why_another_airflow(self) -> str:
        if self.same_airflow:
            return ""
        if self.me is not None:
            return why_not_this_airflow(self.me, self.airflow.current(self.me))
        known = [job for job in self.searched.values() if job.claim.instance_key in self.instances]
        return why_not_recognised(
            evidence(job, self.airflow.xcoms(self.instances[job.claim.instance_key]))
            for job in known[:MAX_RECOGNISED]
        )


def search(airflow: Airflow, jobs: Iterable[Job], namespace: str) -> dict[str, Instance]:
    """Find the task instances of `jobs` by their claims, however old their runs are.

    A job is submitted while its task instance is running. Since then the task instance is either unfinished,
    or Airflow has changed its row. So unfinished task instances are searched first, where most searches end;
    then those that changed soon after a job was created, which finds task instances that did not wait for
    their job; finally all that have changed since `STALE_WORKER_WINDOW` before the oldest remaining job: a
    stale worker may submit after its task instance has ended.

    :return: `Claim.instance_key` to task instance.
    :raises AirflowApiError: not everything could be read.
    """
    created: dict[str, float] = {}
    for job in jobs:
        created[job.claim.instance_key] = min(job.created, created.get(job.claim.instance_key, job.created))
    found: dict[str, Instance] = {}

    def search_in(**query: Any) -> bool:
        """Search the result of a query until all task instances are found; return whether they are."""
        for instance in airflow.instances(**query):
            name = instance.task_key(namespace)
            if name in created:
                found[name] = instance
                if len(found) == len(created):
                    return True
        return False

    if search_in(states=UNFINISHED):
        return found
    for name, at in sorted(created.items(), key=lambda each: each[1]):
        if name not in found and search_in(
            changed_since=at - CLOCK_SKEW, changed_until=at + UNAWAITED_WINDOW
        ):
            return found
    oldest = min(at for name, at in created.items() if name not in found)
    search_in(changed_since=oldest - STALE_WORKER_WINDOW)
    return found


def why_namespace_is_shared(namespace: str) -> str:
    """Why a namespace may be shared with another deployment; empty when it is not."""
    if namespace and "://localhost" not in namespace:
        return ""
    return (
        f"another Airflow may have the same namespace {namespace!r}, and may need this job: set a unique "
        "[airflow_resilient] namespace"
    )


def why_not_all_shown(airflow: Airflow, runtime: Runtime) -> str:
    """Why Airflow may not show all task instances; empty when nothing indicates that.

    An account that may not read every DAG is shown no task instances of the others, whose jobs would then
    seem to belong to deleted runs. But the pools count all task instances. The two numbers are not of the
    same moment, so they are compared more than once.

    :raises AirflowApiError: the pools cannot be read.
    """
    shown = counted = 0
    for attempt in range(1, MAX_VISIBILITY_CHECKS + 1):
        before = airflow.deferred_slots()
        shown = sum(instance.pool_slots for instance in airflow.instances(states=("deferred",)))
        counted = min(before, airflow.deferred_slots())
        if shown >= counted:
            return ""
        runtime.sleep(jitter(doubling(_FIRST_POLL_SECONDS, attempt, _MAX_POLL_SECONDS), runtime.random))
    return (
        f"Airflow's pools have {counted} slots of deferred task instances, but its API shows {shown}: use an "
        "account that may read every DAG"
    )


def _cancel_orphans(
    findings: Sequence[Finding],
    services: Mapping[str, RemoteService],
    classifier: _Classifier,
    runtime: Runtime,
    wait: float,
) -> list[Finding]:
    """Check every orphan and its task instance again, cancel it, and wait for the ends."""
    done: list[Finding] = []
    searched = 0
    for finding in findings:
        if not finding.verdict.status.orphan:
            done.append(finding)
            continue
        if finding.verdict.status is OrphanStatus.DELETED:
            if searched % DELETED_BATCH == 0:
                ahead = [each for each in findings if each.verdict.status is OrphanStatus.DELETED]
                classifier.search([each.job for each in ahead[searched : searched + DELETED_BATCH]])
            searched += 1
        verdict, instance = classifier.classify_again(finding.job, services[finding.service])
        if not verdict.status.orphan:
            outcome = "not cancelled: it is not an orphan any more"
            done.append(replace(finding, verdict=verdict, instance=instance, outcome=outcome))
            continue
        finding = replace(finding, verdict=verdict, instance=instance)  # noqa: PLW2901 - a newer observation
        done.append(_cancel(finding, services[finding.service], runtime))
    return _await_ends(done, services, runtime, wait)


def _cancel(finding: Finding, service: RemoteService, runtime: Runtime) -> Finding:
    """Cancel an orphan, if it is still alive."""
    try:
        found = retry_transient(lambda: service.observe([finding.job]), service.is_transient, runtime)
        if not found:
            outcome = f"{finding.service} does not know the job any more"
            return replace(finding, outcome=outcome, unresolved=True)
        if not found[0].live:
            return replace(finding, job=found[0], outcome="had ended already", ended=True)
        owner = f"{finding.instance}" if finding.instance else "a deleted task instance"
        reason = f"orphan of {owner}: {finding.verdict.status.value}"
        job = retry_transient(lambda: service.cancel(found[0], reason), service.is_transient, runtime)
    except Exception as error:  # noqa: BLE001 - it is reported
        return replace(finding, outcome=f"cannot be cancelled: {_error_text(error)}", unresolved=True)
    if job.phase is Phase.LOST:  # it is not there any more, or not ours: nothing was cancelled
        outcome = f"not cancelled: {job.reason or 'the service does not know the job any more'}"
        return replace(finding, job=job, outcome=outcome, unresolved=True)
    runtime.log.info("cancelled %s job %s, %s", finding.service, job.id, reason)
    return replace(finding, job=job, outcome="cancelled", unresolved=True)


def _await_ends(
    findings: Sequence[Finding], services: Mapping[str, RemoteService], runtime: Runtime, wait: float
) -> list[Finding]:
    """Poll the cancelled jobs until they have ended, for `wait` seconds."""
    done = list(findings)
    until, polls = runtime.now() + wait, 0
    while True:
        for number, finding in enumerate(done):
            if finding.outcome != "cancelled" or finding.ended:
                continue
            if finding.job.live:
                done[number] = finding = _poll(finding, services[finding.service])  # noqa: PLW2901 - a newer observation
            if not finding.job.live:
                ended = f"cancelled, and has ended: {finding.job.phase.value}"
                done[number] = replace(finding, outcome=ended, ended=True, unresolved=False)
        if not any(each.outcome == "cancelled" for each in done):
            return done
        left = until - runtime.now()
        if left <= 0:
            break
        polls += 1
        runtime.sleep(min(left, doubling(_FIRST_POLL_SECONDS, polls, _MAX_POLL_SECONDS)))
    text = f"cancelled, but has not ended within {span(wait)}"
    return [replace(each, outcome=text) if each.outcome == "cancelled" else each for each in done]


def _poll(finding: Finding, service: RemoteService) -> Finding:
    """The finding with a new observation of its job, or unchanged after a transient error."""
    try:
        found = service.observe([finding.job])
    except Exception as error:  # noqa: BLE001 - sorted out by is_transient, or reported
        if not service.is_transient(error):
            return replace(finding, outcome=f"cancelled, but cannot be observed: {_error_text(error)}")
        return finding
    return replace(finding, job=finding.job.merge(found[0])) if found else finding


def _error_text(error: Exception) -> str:
    return str(error) if isinstance(error, AirflowApiError) else error_text(error)
