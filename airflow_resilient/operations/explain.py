"""``explain``: a task instance's claims, its jobs, the next action and the reason for it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import TYPE_CHECKING, Any

from .. import registry
from ..core.decide import Cancel, Facts, Finish, Policy, Submit, TimedOut, Watch, decide, forgotten_claims
from ..core.job import CLOCK_SKEW, Owner, Phase, generation_of
from ..core.reconcile import Memory, call_of_memory
from ..core.text import error_text, last_part, printable
from ..deployment import load_service
from .command import Command, ExitCode
from .options import (
    access_for,
    access_of,
    add_access_options,
    add_airflow_options,
    add_namespace_option,
    add_service_options,
    api_of,
    namespace_of,
    scopes_of,
)
from .report import moment, span, table
from .sweep import OrphanStatus, classify, marks_of, why_namespace_is_shared
from .task_instances import AirflowApiError, Instance, read_value

if TYPE_CHECKING:
    from ..core.decide import Action
    from ..core.job import Job
    from ..core.service import RemoteService
    from .airflow_api import AirflowApi
    from .sweep import OrphanVerdict

_RESUMES = ("running", "deferred", "queued", "scheduled", "up_for_reschedule")
"""States in which the next visit to a worker belongs to the latest try."""

_MAX_HEARTBEAT_AGE = 60.0  # seconds


@dataclass(frozen=True)
class AssumedOptions:
    """Parameters of the operator that Airflow's API does not show, with the operator's defaults."""

    on_clear: str = "restart"
    on_timeout: str = "cancel"
    infrastructure_retries: int = 2

    def policy(self) -> Policy:
        """The policy for `decide`."""
        return Policy(
            infrastructure_retries=self.infrastructure_retries,
            on_timeout="leave" if self.on_timeout == "leave" else "cancel",
        )


@dataclass(frozen=True)
class NextTry:
    """The try that calls `decide` next, and a sentence that says when."""

    owner: Owner
    when: str
    resumes: bool


def next_try_of(
    instance: Instance, namespace: str, *, retries: int, run_started: float, reattach: bool = False
) -> NextTry:
    """Return the try of a task instance that comes to a worker next.

    :param retries: of the task; with ``max_tries`` they determine which tries preceded the latest clear.
    :param run_started: start of the DAG run, in seconds since 1970; 0 when it is unknown.
    :return: for a task instance that has ended, the try that a clear would create: Airflow then sets
        ``max_tries`` to the try number plus ``retries``. Source: ``clear_task_instances`` (2.11 and 3.x).
    """
    number, state = instance.try_number, instance.state
    if instance.over:
        number += 1
        cleared = number - 1
        when = f"It has ended ({state}). If it were cleared, try {number} would:"
    elif state in _RESUMES:
        number = max(1, number)
        cleared = instance.max_tries - retries
        when = {
            "running": f"Try {number} is running on a worker. Its next action:",
            "deferred": f"Try {number} waits in the triggerer. If it were resumed now, it would:",
        }.get(str(state), f"Try {number} is waiting for a worker. There it will:")
    else:
        number += 1
        cleared = instance.max_tries - retries
        after = {"up_for_retry": "When its retry is due", None: "When it is scheduled"}
        when = f"{after.get(state, 'Next')}, try {number} will:"
    owner = Owner(
        instance.task_key(namespace),
        number,
        cleared_after_try=min(max(0, cleared), number - 1),
        run_started=run_started,
        reattach=reattach,
        generation=generation_of(cleared + retries, retries),
    )
    return NextTry(owner, when, state in _RESUMES)


def deadline_passed(memory: Memory | None, task: Mapping[str, Any] | None, now: float) -> bool:
    """Whether ``execution_timeout`` of the try with this `memory` has passed."""
    limit = (task or {}).get("execution_timeout")
    if memory is None or not limit:
        return False
    seconds = limit.get("days", 0) * 86_400 + limit.get("seconds", 0) + limit.get("microseconds", 0) / 1e6
    return now >= memory.started + float(seconds)


def describe_action(action: Action) -> str:
    """An action of `decide` as the beginning of a sentence."""
    match action:
        case Submit(claim, _, after):
            return f"submit a job under {claim.token}" + (f" in {after:.0f} s" if after else "")
        case Cancel(job):
            return f"cancel {last_part(job.id)}"
        case Watch(jobs):
            return f"wait for {', '.join(last_part(job.id) for job in jobs)}"
        case Finish(job):
            return f"report {last_part(job.id)}, which {job.phase.value}"
        case TimedOut():
            return "fail with JobTimeout"
    return "fail with NoCapacity"


def advice(
    instance: Instance,
    jobs: Sequence[Job],
    verdicts: Sequence[OrphanStatus],
    action: Action,
    location: Location | _Locations,
) -> list[str]:
    """The possible actions of a person on call, as sentences, and shell commands."""
    live = [job for job in jobs if job.live]
    lines = []
    if any(kind.orphan for kind in verdicts):
        lines.append(
            "No task instance needs the jobs that are still alive. `airflow-resilient orphans --cancel` "
            "cancels all orphans. To end the job by hand:"
        )
    elif OrphanStatus.LEFT_RUNNING in verdicts:
        lines.append("The job was left running on purpose. To end it anyway:")
    elif instance.over and live:
        lines.append(
            "Its job is still alive. Run this command again in a few minutes, or end the job by hand:"
        )
    elif instance.over:
        succeeded = isinstance(action, Submit) and any(job.phase is Phase.SUCCEEDED for job in jobs)
        lines.append("No job is running. Clear the task instance to run the job again.")
        if succeeded and instance.state != "success":
            lines.append("One of its jobs has succeeded: mark it as success if that result is valid.")
    elif live:
        lines += [
            "Wait: no action is needed.",
            "Clear it to cancel the job and to start a new one when that has ended (on_clear='restart').",
            "Mark it as failed or success to cancel the job and start none. To end the job by hand:",
        ]
    else:
        lines.append("Wait: the next try does what is described above.")
    return lines + [location.stop_command(job) for job in live]


@dataclass(frozen=True)
class Location:
    """The service that runs a task instance's jobs.

    :param service: name in the registry, or ``module:Class``.
    :param keywords: of its client.
    """

    service: str
    keywords: Mapping[str, Any]

    def client(self) -> RemoteService:
        """The service, ready to search for jobs."""
        return load_service(self.service, self.keywords)

    def stop_command(self, job: Job) -> str:
        """The command that ends `job` by hand."""
        known = registry.services().get(self.service)
        return (
            known.stop_command(job) if known else f"(stop {quote(job.id)} with the tools of {self.service})"
        )


def locate(
    instance: Instance,
    kept: Mapping[str, Any],
    *,
    service: str | None = None,
    scopes: Mapping[str, Sequence[str]] | None = None,
    access: Mapping[str, Any] | None = None,
    run_started: float = 0.0,
) -> Location:
    """Find the service that runs the jobs of a task instance.

    :param kept: the value that its latest try stored when it deferred, ``{"service": str, "address": {...},
        "lookup": {...}}``; empty when it has not deferred. Then the class of its operator and its rendered
        fields are used.
    :param service: overrides the service; so does a service in `scopes`.
    :param scopes: by service; the first one of the service is searched.
    :param access: parameters of access that override the stored or rendered ones.
    :raises AirflowApiError: the service is unknown.
    """
    scopes, access = scopes or {}, access or {}
    fields = {**(instance.raw.get("rendered_fields") or {}), "not_before": run_started}
    operator = instance.raw.get("operator_name") or instance.raw.get("operator") or "its operator"
    known = registry.services()
    own = not operator.endswith("Sensor")  # a sensor waits for a job that it did not start
    by_class = next((name for name, info in known.items() if own and operator in info.public), None)
    # A service outside of this package is stored by its class; what it says of itself is in the registry.
    by_client = {info.path_of(info.client): name for name, info in known.items()}
    stored = by_client.get(str(kept.get("service")), kept.get("service"))
    name = service or next(iter(scopes), None) or stored or by_class
    if name is None:
        raise AirflowApiError(
            f"unknown service of {operator}: none of its tries has deferred yet, and it is not an operator "
            f"of this package. Pass --service, one of {', '.join(known)}"
        )
    info = known.get(name)
    keywords: dict[str, Any] = {}
    if stored == name:
        keywords = {**kept.get("address", {}), **kept.get("lookup", {})}
    elif info is not None:
        rendered = {
            each: fields[each] for each in (*info.access, *info.lookup) if fields.get(each) is not None
        }
        keywords = {each: _read_list(value) for each, value in rendered.items()}
    if info is not None:
        keywords.update(access_for(info.access, access))
        if scopes.get(name) and info.scope_parameter:
            keywords[info.scope_parameter] = scopes[name][0]
    return Location(name, keywords)


def _read_list(value: Any) -> Any:
    """The value of a rendered field; the API returns a list as a string."""
    return read_value(value) if isinstance(value, str) and value.lstrip().startswith("[") else value


def memory_of(value: Any) -> Memory | None:
    """The memory of a try, from its XCom; ``None`` when that cannot be read."""
    try:
        return Memory.from_dict(read_value(value))
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class _Part:
    """The jobs of a task instance itself, or of an operator that was called inside of it.

    :param call: see `Claim.call`; empty for the task instance itself.
    :param jobs: by their ids.
    :param action: what the next try would do about them.
    :param error: why the service could not be searched; empty: it was.
    """

    call: str
    owner: Owner
    location: Location
    jobs: Mapping[str, Job]
    action: Action
    error: str


@dataclass(frozen=True)
class _Locations:
    """Where the jobs of each call are."""

    by_call: Mapping[str, Location]

    def stop_command(self, job: Job) -> str:
        """The command that ends `job` by hand."""
        return self.by_call[job.claim.call].stop_command(job)


def _is_ours(instance: Instance, service: str | None, scopes: Mapping[str, Sequence[str]] | None) -> bool:
    """Whether the task itself may have jobs: it is an operator of a known service, or somebody says so."""
    operator = instance.raw.get("operator_name") or instance.raw.get("operator") or ""
    return bool(service or scopes or any(operator in info.public for info in registry.services().values()))


def explain(
    api: AirflowApi,
    requested: Instance,
    namespace: str,
    *,
    assumed: AssumedOptions = AssumedOptions(),
    service: str | None = None,
    scopes: Mapping[str, Sequence[str]] | None = None,
    access: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Gather the facts about a task instance and its jobs, and the action that `decide` returns for them.

    :param requested: identifies the task instance.
    :param service: see `locate`; so for `scopes` and `access`.
    :return: JSON values, without the parameters of the job and the arguments of steps, which may be secrets.
    :raises AirflowApiError: Airflow gives no usable response, or has no such task instance.
    """
    instance = api.current(requested)
    if instance is None:
        raise AirflowApiError(
            f"{api.url} has no task instance {requested}; pass --map-index for a mapped task instance"
        )
    task, run_started, now = api.task(instance), api.run_start(instance), time.time()
    retries = int((task or {}).get("retries") or 0)
    xcoms = api.xcoms(instance)
    kept = {
        call: read_value(value) for key, value in xcoms.items() if (call := call_of_memory(key)) is not None
    }
    next_try = next_try_of(
        instance, namespace, retries=retries, run_started=run_started, reattach=assumed.on_clear == "reattach"
    )
    errors = [error for error in (why_namespace_is_shared(namespace),) if error]
    if task is None:
        errors.append("its task does not exist any more, so its retries are assumed to be 0")

    def part(call: str) -> _Part:
        """Of the jobs of the task instance itself, or of a call within it."""
        key = f"{next_try.owner.task_key}_{call}" if call else next_try.owner.task_key
        owner = replace(next_try.owner, task_key=key)
        memory = memory_of(kept.get(call)) if next_try.resumes else None
        location, found, error = Location("its service", {}), [], ""
        try:
            location = locate(
                instance,
                stored if isinstance(stored := kept.get(call), Mapping) else {},
                service=service,
                scopes=scopes,
                access=access,
                run_started=run_started,
            )
            # A job may bear the number of the next try, if that has started meanwhile.
            client = location.client()
            found = client.find(owner.claims())
            if claims := forgotten_claims(owner, found, unconfirmed=True):
                found += client.find_forgotten(claims, owner.run_started - CLOCK_SKEW)
        except AirflowApiError as problem:
            error = str(problem)
        except Exception as problem:  # noqa: BLE001 - it is reported
            error = f"cannot search for its jobs: {error_text(problem)}"
        # The memory of the try adds jobs that the service has forgotten; for all others the search is newer.
        jobs = {job.id: job for job in memory.seen} if memory is not None else {}
        for job in found:
            jobs[job.id] = jobs[job.id].merge(job) if job.id in jobs else job
        own_job_ids = frozenset(memory.own_job_ids) if memory is not None else frozenset()
        overdue = next_try.resumes and not call and deadline_passed(memory, task, now)
        facts = Facts(tuple(jobs.values()), own_job_ids, overdue=overdue)
        return _Part(call, owner, location, jobs, decide(owner, facts, assumed.policy()), error)

    # A task that only calls operators of this package has no job of its own.
    calls = [part(call) for call in sorted(kept) if call]
    own = part("") if "" in kept or not calls or _is_ours(instance, service, scopes) else None
    parts = [each for each in (own, *calls) if each is not None]
    errors += dict.fromkeys(each.error for each in parts if each.error)
    known = own is not None and not own.error
    owners = {each.owner.task_key: each.owner for each in parts}
    ordered = sorted(
        (job for each in parts for job in each.jobs.values()), key=lambda job: (job.created, job.id)
    )
    verdicts = {
        job.id: classify(
            job,
            instance,
            now=now,
            xcoms=xcoms,
            retries=retries,
            others=ordered,
        )
        for job in ordered
        if job.live
    }
    first = own or parts[0]
    location, action = _Locations({each.call: each.location for each in parts}), first.action
    return {
        "task_instance": {
            "dag_id": instance.dag_id,
            "run_id": instance.run_id,
            "task_id": instance.task_id,
            "map_index": instance.map_index,
            "operator": instance.raw.get("operator_name") or instance.raw.get("operator"),
            "state": instance.state,
            "try_number": instance.try_number,
            "max_tries": instance.max_tries,
            "retries": None if task is None else retries,
            "started": instance.started,
            "ended": instance.ended,
            "run_started": run_started or None,
        },
        "held_by": held_by(instance, now),
        "namespace": namespace,
        "service": first.location.service,
        "claims": [str(claim) for each in parts for claim in each.owner.claims()],
        "cleared_after_try": min(max(0, instance.max_tries - retries), instance.try_number),
        "jobs": [
            {
                "job": job.id,
                "scope": job.scope,
                "claim": str(job.claim),
                "phase": job.phase.value,
                "created": job.created,
                "ended": job.ended,
                "exit_code": job.exit_code,
                "cause": job.cause.value,
                "reason": job.reason or (verdicts[job.id].reason if job.id in verdicts else ""),
                "is": _relation(job, owners.get(job.claim.task_key, first.owner), verdicts, instance),
                "orphan": job.id in verdicts and verdicts[job.id].status.orphan,
            }
            for job in ordered
        ],
        "left_running": bool(marks_of(xcoms)),
        "next_try": next_try.when,
        "action": type(action).__name__.lower() if known else None,
        "next_action": describe_action(action) if known else None,
        "why": action.why if known else None,
        "calls": [
            {
                "call": each.call,
                "service": each.location.service,
                "action": None if each.error else type(each.action).__name__.lower(),
                "next_action": None if each.error else describe_action(each.action),
                "why": None if each.error else each.action.why,
            }
            for each in calls
        ],
        "assumed": {
            "on_clear": assumed.on_clear,
            "on_timeout": assumed.on_timeout,
            "infrastructure_retries": assumed.infrastructure_retries,
        },
        "advice": advice(instance, ordered, [each.status for each in verdicts.values()], action, location)
        if not any(each.error for each in parts)
        else [],
        "errors": errors,
    }


def _relation(job: Job, owner: Owner, verdicts: Mapping[str, OrphanVerdict], instance: Instance) -> str:
    """The relation of a job to its task instance, in one word."""
    if job.live and instance.over:
        return verdicts[job.id].status.value
    if owner.owns(job):
        return "mine"
    return "superseded" if job.live else "history"


def held_by(instance: Instance, now: float) -> str:
    """The process that works on a task instance now, as a sentence."""
    raw = instance.raw
    if instance.state == "running":
        return f"try {instance.try_number}, on {raw.get('hostname') or 'a worker'}, process {raw.get('pid')}"
    if instance.state != "deferred":
        return "nobody"
    trigger, job = raw.get("trigger") or {}, raw.get("triggerer_job") or {}
    if not trigger:
        return f"try {instance.try_number}, deferred; Airflow names no trigger"
    name = f"try {instance.try_number}, deferred: trigger {trigger.get('id')}"
    if not job:
        return f"{name}, which no triggerer has taken yet: check that a triggerer is running"
    where = f"{name} in the triggerer on {job.get('hostname')}"
    beat = job.get("latest_heartbeat")
    if not beat:
        return where
    from .airflow_api import seconds

    age = now - (seconds(beat) or now)
    return f"{where}, whose last heartbeat was {span(age)} ago" + (
        ": check that it is running" if age > _MAX_HEARTBEAT_AGE else ""
    )


def format_explanation(found: Mapping[str, Any]) -> list[str]:
    """An explanation as lines of text."""
    task = found["task_instance"]
    instance = Instance(task["dag_id"], task["run_id"], task["task_id"], task["map_index"])
    tries = f"try {task['try_number']} of {task['max_tries'] + 1}"
    if found["cleared_after_try"]:
        tries += f"; try {found['cleared_after_try']} was the last one before the latest clear"
    lines = [
        f"Task instance  {instance}",
        f"State          {task['state'] or 'none (cleared, or not scheduled yet)'}; {tries}",
        f"Held by        {found['held_by']}",
        f"Claims         {', '.join(found['claims'])} (namespace {found['namespace']!r})",
        "",
    ]
    rows = []
    for job in found["jobs"]:
        names = (job["claim"], last_part(job["job"]), last_part(job["scope"]))
        rows.append((*names, job["phase"], moment(job["created"]), job["is"], job["reason"]))
    lines += table(("claim", "job", "scope", "phase", "created", "is", "why"), rows) or [
        "Its jobs are unknown."
        if found["errors"] and not found["action"]
        else "No job bears one of these claims."
    ]
    lines += ["", *(f"UNKNOWN: {error}" for error in found["errors"])]
    if found["action"]:
        assumed = ", ".join(f"{name}={value!r}" for name, value in found["assumed"].items())
        lines += [
            found["next_try"],
            f"  {found['next_action']}. Reason: {found['why']}",
            f"  (assuming {assumed})",
            "",
        ]
    for call in found.get("calls", ()):
        lines += [
            f"If the task calls the operator of the claims _{call['call']} again, that will:",
            f"  {call['next_action']}. Reason: {call['why']}" if call["action"] else "  (unknown)",
            "",
        ]
    return [printable(line) for line in (*lines, *found["advice"])]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dag", metavar="DAG")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("task", metavar="TASK")
    parser.add_argument(
        "--map-index", type=int, default=-1, metavar="N", help="index of a mapped task instance"
    )
    add_service_options(parser, several=False)
    parser.add_argument(
        "--on-clear",
        choices=("restart", "reattach"),
        default="restart",
        help="the operator's parameter, which Airflow's API does not show (default restart)",
    )
    parser.add_argument(
        "--on-timeout", choices=("cancel", "leave"), default="cancel", help="likewise (default cancel)"
    )
    parser.add_argument(
        "--infrastructure-retries", type=int, default=2, metavar="N", help="likewise (default 2)"
    )
    add_airflow_options(parser)
    add_namespace_option(parser)
    add_access_options(parser, aws_conn_id=None)


def _run(options: argparse.Namespace) -> tuple[str, ExitCode]:
    found = explain(
        api_of(options),
        Instance(options.dag, options.run, options.task, options.map_index),
        namespace_of(options),
        assumed=AssumedOptions(options.on_clear, options.on_timeout, options.infrastructure_retries),
        service=options.service[-1] if options.service else None,
        scopes=scopes_of(options),
        access=access_of(options),
    )
    text = json.dumps(found, indent=2) if options.json else "\n".join(format_explanation(found))
    return text, ExitCode.UNKNOWN if found["errors"] else ExitCode.DONE


COMMAND = Command(
    name="explain",
    summary="show the jobs of a task instance, what happens next and why",
    description="Show the claims of a task instance, the remote jobs that bear them, the next action and the "
    "reason for it, and what you can do.",
    exit_codes="0, or 2 when something could not be determined",
    add_options=_add_options,
    run=_run,
)
