"""A task instance's claims, the jobs that bear them, what happens next and why: for the person on call."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .jobs import (
    Cancel,
    Facts,
    Finish,
    Job,
    Memory,
    Owner,
    Phase,
    Policy,
    RemoteJobs,
    Submit,
    TimedOut,
    Watch,
    decide,
)
from .operators import LEFT_XCOM, MEMORY_XCOM
from .orphans import last_part, moment, table
from .sweep import Instance, Kind, NoAnswer, Verdict, indistinct, judge, span

if TYPE_CHECKING:
    from .airflow_api import AirflowApi
    from .jobs import Action

_RESUMES = ("running", "deferred", "queued", "scheduled", "up_for_reschedule")
"""States in which the next visit to a worker is one of the latest try."""
_STALE = 60.0  # seconds without a heartbeat after which a triggerer is worth a warning


@dataclass(frozen=True)
class Assumed:
    """Parameters of the operator that Airflow's API does not show; the operator's defaults."""

    on_clear: str = "restart"
    on_timeout: str = "cancel"
    infrastructure_retries: int = 2

    def policy(self) -> Policy:
        """As `decide` wants it."""
        return Policy(
            infrastructure_retries=self.infrastructure_retries,
            on_timeout="leave" if self.on_timeout == "leave" else "cancel",
        )


@dataclass(frozen=True)
class Asking:
    """The try that asks `decide` next, and a sentence that says when."""

    owner: Owner
    when: str
    resumes: bool


def asking(
    instance: Instance, namespace: str, *, retries: int, run_started: float, reattach: bool = False
) -> Asking:
    """Say which try of a task instance comes to a worker next.

    :param retries: of the task; tell with ``max_tries`` which tries came before the latest clear.
    :param run_started: start of the DAG run, in seconds since 1970; 0 when it is not known.
    :return: for a task instance that has ended, the try that a clear would bring: Airflow then sets
        ``max_tries`` to the try number plus ``retries``. Source: ``clear_task_instances`` (2.11 and 3.x).
    """
    number, state = instance.try_number, instance.state
    if instance.over:
        number += 1
        since = number - 1
        when = f"It is {state}, so nobody asks. If it were cleared, try {number} would ask:"
    elif state in _RESUMES:
        number = max(1, number)
        since = instance.max_tries - retries
        when = {
            "running": f"Try {number} is on a worker and asks there:",
            "deferred": f"Try {number} waits in the triggerer. If it were resumed now, it would ask:",
        }.get(str(state), f"Try {number} is on its way to a worker, where it will ask:")
    else:
        number += 1
        since = instance.max_tries - retries
        after = {"up_for_retry": "when its retry is due", None: "when it is scheduled"}
        when = f"Try {number} will ask {after.get(state, 'next')}:"
    owner = Owner(
        instance.family(namespace),
        number,
        since=min(max(0, since), number - 1),
        run_started=run_started,
        reattach=reattach,
    )
    return Asking(owner, when, state in _RESUMES)


def deadline_passed(memory: Memory | None, task: Mapping[str, Any] | None, now: float) -> bool:
    """Whether ``execution_timeout`` of the try that `memory` is of has passed."""
    limit = (task or {}).get("execution_timeout")
    if memory is None or not limit:
        return False
    seconds = limit.get("days", 0) * 86_400 + limit.get("seconds", 0) + limit.get("microseconds", 0) / 1e6
    return now >= memory.started + float(seconds)


def in_words(action: Action) -> str:
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


def advice(instance: Instance, jobs: Sequence[Job], verdicts: Sequence[Kind], action: Action) -> list[str]:
    """What a person on call can do, as sentences."""
    live = [job for job in jobs if job.live]
    told = []
    if any(kind.orphan for kind in verdicts):
        told.append(
            "Nobody wants what still lives. `airflow-resilient orphans --cancel` ends all orphans; by hand:"
        )
    elif Kind.LEFT in verdicts:
        told.append("The job was left running on purpose. To end it all the same:")
    elif instance.over and live:
        told.append("Its job lives; look again in some minutes, or end it by hand:")
    elif instance.over:
        succeeded = isinstance(action, Submit) and any(job.phase is Phase.SUCCEEDED for job in jobs)
        told.append("Nothing runs. Clear it to run the job again.")
        if succeeded and instance.state != "success":
            told.append("A job of it has succeeded: mark it as success if that result is good.")
    elif live:
        told += [
            "Wait: nothing has to be done for it to go on.",
            "Clear it to cancel the job and, when that has ended, to start a new one (on_clear='restart').",
            "Mark it as failed or success to cancel the job and start none. To end the job by hand:",
        ]
    else:
        told.append("Wait: the next try decides as said above.")
    return told + [by_hand(job) for job in live]


def by_hand(job: Job) -> str:
    """The command that ends a job of ECS, EMR or Docker."""
    if "://" in job.scope:
        engine = re.sub("^https://", "tcp://", job.scope)
        verify = "--tlsverify " if engine != job.scope else ""
        return f"docker {verify}-H {engine} stop {job.id[:12]}"
    if job.id.startswith("arn:"):
        return f"aws ecs stop-task --cluster {last_part(job.scope)} --task {last_part(job.id)}"
    return f"aws emr cancel-steps --cluster-id {job.scope} --step-ids {job.id.replace(',', ' ')}"


# --- facts ----------------------------------------------------------------------------------------


def service_of(
    instance: Instance,
    *,
    ecs_cluster: str | None = None,
    emr_cluster: str | None = None,
    docker_url: str | None = None,
    docker_tls: Mapping[str, Any] | None = None,
    run_started: float = 0.0,
    **access: Any,
) -> RemoteJobs:
    """The service that a task instance's jobs are in, by its rendered parameters.

    :param ecs_cluster: overrides the rendered ``cluster``; the same for `emr_cluster` and ``job_flow_id``.
    :param docker_url: the engine, which is not rendered; default ``DOCKER_HOST``, or the socket.
    :param docker_tls: how it is reached by TLS, see `OrphanSweepOperator`.
    :param access: keywords of `AwsAccess` that override the rendered ones.
    :raises NoAnswer: it cannot be told.
    """
    fields = instance.raw.get("rendered_fields") or {}
    if docker_url or {"image", "container_name", "docker_conn_id"} <= set(fields):
        from .docker import DockerContainers, default_url

        return DockerContainers(docker_url=docker_url or default_url(), tls=docker_tls)
    known = {name: fields[name] for name in ("aws_conn_id", "region_name", "verify") if name in fields}
    access = {**known, **access}
    if ecs_cluster or (not emr_cluster and "task_definition" in fields and fields.get("cluster")):
        from .ecs import EcsTasks

        return EcsTasks(**access, cluster=ecs_cluster or str(fields["cluster"]))
    if emr_cluster or fields.get("job_flow_id") or fields.get("job_flow_name"):
        from .emr import EmrSteps

        if "steps" in fields or emr_cluster:
            flow = emr_cluster or fields.get("job_flow_id")
            return EmrSteps(
                **access,
                job_flow_id=flow,
                job_flow_name=None if flow else fields.get("job_flow_name"),
                cluster_states=read_value(fields.get("cluster_states")) or (),
                not_before=run_started,
            )
    operator = instance.raw.get("operator_name") or instance.raw.get("operator") or "its operator"
    raise NoAnswer(
        f"where the jobs of {operator} are is not known (no try has rendered its parameters, or it is not "
        "one of ours): say it with --ecs-cluster, --emr-cluster or --docker-url"
    )


def read_value(value: Any) -> Any:
    """The value of an XCom or a rendered field, which the API may give as JSON or as Python in a text.

    Nothing is evaluated: ``ast.literal_eval`` reads literals only.

    >>> read_value('{"a": true}'), read_value("{'a': True}"), read_value("plain"), read_value([1])
    ({'a': True}, {'a': True}, 'plain', [1])
    """
    for read in (json.loads, ast.literal_eval) * 2:
        if not isinstance(value, str):
            break
        try:
            value = read(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return value


def memory_of(value: Any) -> Memory | None:
    """What a try remembers, from its XCom; ``None`` when that cannot be read."""
    try:
        return Memory.unpack(read_value(value))
    except (KeyError, TypeError, ValueError):
        return None


# --- explain --------------------------------------------------------------------------------------


def explain(
    api: AirflowApi,
    asked: Instance,
    namespace: str,
    *,
    assumed: Assumed = Assumed(),
    ecs_cluster: str | None = None,
    emr_cluster: str | None = None,
    docker_url: str | None = None,
    docker_tls: Mapping[str, Any] | None = None,
    access: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Gather what is known of a task instance and its jobs, and what `decide` makes of it.

    :param asked: names the task instance.
    :param docker_tls: see `service_of`, as for the clusters and the engine.
    :param access: keywords of `AwsAccess` that override the rendered ones.
    :return: JSON values, without the parameters of the job and the arguments of steps, which may be secrets.
    :raises NoAnswer: Airflow does not tell, or has no such task instance.
    """
    instance = api.look(asked)
    if instance is None:
        raise NoAnswer(f"{api.url} has no task instance {asked}; a mapped one needs --map-index")
    task, run_started, now = api.task(instance), api.run_start(instance), time.time()
    retries = int((task or {}).get("retries") or 0)
    memory, left = memory_of(api.xcom(instance, MEMORY_XCOM)), api.xcom(instance, LEFT_XCOM)
    next_try = asking(
        instance, namespace, retries=retries, run_started=run_started, reattach=assumed.on_clear == "reattach"
    )
    troubles = [trouble for trouble in (indistinct(namespace),) if trouble]
    if task is None:
        troubles.append("its task does not exist any more, so its retries are taken for 0")
    found: list[Job] = []
    known = True
    try:
        service = service_of(
            instance,
            ecs_cluster=ecs_cluster,
            emr_cluster=emr_cluster,
            docker_url=docker_url,
            docker_tls=docker_tls,
            run_started=run_started,
            **(access or {}),
        )
        # A job may bear the number of the try that is asking next, if that has begun meanwhile.
        found = service.find(next_try.owner.claims())
    except NoAnswer as error:
        known = False
        troubles.append(str(error))
    except Exception as error:  # noqa: BLE001 - it is said
        known = False
        troubles.append(f"the jobs cannot be looked for: {type(error).__name__}: {error}")
    # Looks that the try remembers add what is forgotten; what was found now tells more of the rest.
    jobs = {job.id: job for job in memory.seen} if memory is not None and next_try.resumes else {}
    for job in found:
        jobs[job.id] = jobs[job.id].learn(job) if job.id in jobs else job
    news = frozenset(memory.news) if memory is not None and next_try.resumes else frozenset()
    facts = Facts(tuple(jobs.values()), news, overdue=next_try.resumes and deadline_passed(memory, task, now))
    action = decide(next_try.owner, facts, assumed.policy())
    ordered = sorted(jobs.values(), key=lambda job: (job.created, job.id))
    verdicts = {
        job.id: judge(
            job, instance, now=now, left=None if left is None else str(left), retries=retries, others=ordered
        )
        for job in ordered
        if job.live
    }
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
        "claims": [str(claim) for claim in next_try.owner.claims()],
        "since": min(max(0, instance.max_tries - retries), instance.try_number),
        "jobs": [
            {
                "job": job.id,
                "cluster": job.scope,
                "claim": str(job.claim),
                "phase": job.phase.value,
                "created": job.created,
                "ended": job.ended,
                "exit_code": job.exit_code,
                "cause": job.cause.value,
                "reason": job.reason or (verdicts[job.id].reason if job.id in verdicts else ""),
                "is": _standing(job, next_try.owner, verdicts, instance),
                "orphan": job.id in verdicts and verdicts[job.id].kind.orphan,
            }
            for job in ordered
        ],
        "left_running": left is not None,
        "asking": next_try.when,
        "action": type(action).__name__.lower() if known else None,
        "in_words": in_words(action) if known else None,
        "why": action.why if known else None,
        "assumed": {
            "on_clear": assumed.on_clear,
            "on_timeout": assumed.on_timeout,
            "infrastructure_retries": assumed.infrastructure_retries,
        },
        "advice": advice(instance, ordered, [each.kind for each in verdicts.values()], action)
        if known
        else [],
        "troubles": troubles,
    }


def _standing(job: Job, owner: Owner, verdicts: Mapping[str, Verdict], instance: Instance) -> str:
    """What a job is to its task instance, in one word."""
    if job.live and instance.over:
        return verdicts[job.id].kind.value
    if owner.owns(job):
        return "mine"
    return "superseded" if job.live else "history"


def held_by(instance: Instance, now: float) -> str:
    """Who works on a task instance now, as a sentence."""
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
        return f"{name}, which no triggerer has taken yet: does one run?"
    where = f"{name} in the triggerer on {job.get('hostname')}"
    beat = job.get("latest_heartbeat")
    if not beat:
        return where
    from .airflow_api import seconds

    age = now - (seconds(beat) or now)
    return f"{where}, whose last heartbeat was {span(age)} ago" + (
        ": does it still run?" if age > _STALE else ""
    )


def told(found: Mapping[str, Any]) -> list[str]:
    """An explanation for a person, as lines."""
    task = found["task_instance"]
    instance = Instance(task["dag_id"], task["run_id"], task["task_id"], task["map_index"])
    tries = f"try {task['try_number']} of {task['max_tries'] + 1}"
    if found["since"]:
        tries += f"; try {found['since']} was the last one before the latest clear"
    lines = [
        f"Task instance  {instance}",
        f"State          {task['state'] or 'none (cleared, or not scheduled yet)'}; {tries}",
        f"Held by        {found['held_by']}",
        f"Claims         {', '.join(found['claims'])} (namespace {found['namespace']!r})",
        "",
    ]
    rows = []
    for job in found["jobs"]:
        names = (job["claim"], last_part(job["job"]), last_part(job["cluster"]))
        rows.append((*names, job["phase"], moment(job["created"]), job["is"], job["reason"]))
    lines += table(("claim", "job", "cluster", "phase", "created", "is", "why"), rows) or [
        "No job bears one of these claims." if found["action"] else "Which jobs there are is not known."
    ]
    lines += ["", *(f"NOT KNOWN: {trouble}" for trouble in found["troubles"])]
    if found["action"]:
        assumed = ", ".join(f"{name}={value!r}" for name, value in found["assumed"].items())
        lines += [
            found["asking"],
            f"  {found['in_words']}, because: {found['why']}",
            f"  (assuming {assumed})",
            "",
        ]
    return [*lines, *found["advice"]]
