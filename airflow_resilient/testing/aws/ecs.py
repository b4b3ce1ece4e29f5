"""Amazon ECS as ``airflow_resilient`` uses it: RunTask, StopTask, DescribeTasks and ListTasks.

Clusters, task definitions and everything else stay moto's.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_resilient.testing.aws.events import iso_time
from airflow_resilient.testing.aws.lock import locked
from airflow_resilient.testing.aws.moto_bridge import ask_moto
from airflow_resilient.testing.aws.plans import Plans, seconds_and_exit
from airflow_resilient.testing.aws.wire import ACCOUNT, AwsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_resilient.testing.aws.plans import Then

HOUR = 3600.0
_TOKEN_VALID = 24 * HOUR
_PAGE = 100
_LIFECYCLE = ("PROVISIONING", "PENDING", "RUNNING", "STOPPING", "DEPROVISIONING", "STOPPED")
_MAX_TASKS_A_CALL = 10
_STARTED_BY = re.compile(r"[A-Za-z0-9/_-]{1,128}")
_TOKEN = re.compile(r"[!-~]{1,64}")

REASONS: Mapping[str | None, str] = {
    "EssentialContainerExited": "Essential container in task exited",
    "UserInitiated": "Task stopped by user",
    "SpotInterruption": "Your Spot Task was interrupted.",
    "TerminationNotice": "Your Spot Task was interrupted.",
    "TaskFailedToStart": "Task failed to start",
}
"""What ``stoppedReason`` says where the test does not.

Source: ECS developer guide, "Stopped tasks error codes" and "Fargate Spot termination notices".
"""


@dataclass(frozen=True)
class EcsPlan:
    """What will become of an ECS task.

    :param seconds: how long it is RUNNING; ``None``: until it is stopped or finished by the test.
    :param exit_code: of its first container, ``None`` for none; the other containers exit with 0.
    :param exit_codes: of containers by name, before ``exit_code``.
    :param stop_code: ``EssentialContainerExited``, ``TaskFailedToStart`` (then it never runs and has no exit
        codes), ``SpotInterruption``, ``TerminationNotice``, ...
    :param reason: ``stoppedReason``; ``None`` is the usual one of the stop code.
    :param container_reason: ``reason`` of each container, such as ``OutOfMemoryError: ...``.
    :param pending_seconds: from RunTask until RUNNING, spent PROVISIONING and PENDING.
    :param deprovisioning_seconds: between the end of its containers and STOPPED.
    :param stop_seconds: between StopTask and the end of its containers.
    :param stop_exit_code: of its containers after StopTask: 143 (SIGTERM), 137 (SIGKILL), or 0 for a program
        that stops gracefully.
    :param visible_after_seconds: how long DescribeTasks calls the new task MISSING and ListTasks leaves it
        out; ``None`` is the service's ``visible_after_seconds``.
    :param failure: with a reason such as ``RESOURCE:MEMORY``, RunTask takes no task but answers with it in
        ``failures``.
    """

    seconds: float | None = 1.0
    exit_code: int | None = 0
    exit_codes: Mapping[str, int | None] = field(default_factory=dict)
    stop_code: str | None = "EssentialContainerExited"
    reason: str | None = None
    container_reason: str | None = None
    pending_seconds: float = 0.0
    deprovisioning_seconds: float = 0.0
    stop_seconds: float = 1.0
    stop_exit_code: int | None = 143
    visible_after_seconds: float | None = None
    failure: str | None = None


@dataclass(frozen=True)
class EcsTask:
    """One ECS task as it really is, whatever the API shows of it.

    :param state: its ``lastStatus``.
    :param exit_code: of its first container.
    :param forgotten: the API does not know it any more.
    """

    arn: str
    cluster: str
    task_definition: str
    started_by: str | None
    client_token: str | None
    state: str
    desired_state: str
    created: float
    started: float | None
    stopped: float | None
    exit_code: int | None
    stop_code: str | None
    reason: str | None
    forgotten: bool
    command: tuple[str, ...]

    @property
    def live(self) -> bool:
        """Its containers run, or will."""
        return self.state in {"PROVISIONING", "PENDING", "RUNNING", "STOPPING"}


@dataclass(frozen=True)
class _End:
    """How a task ends: asked to at ``stopping``, containers end at ``exited``, STOPPED at ``stopped``."""

    stopping: float
    exited: float
    stopped: float
    stop_code: str | None
    reason: str | None
    exit_codes: Mapping[str, int | None]
    container_reason: str | None = None


@dataclass
class _Task:
    arn: str
    region: str
    cluster_arn: str
    definition: Mapping[str, Any]
    request: Mapping[str, Any]
    plan: EcsPlan
    created: float
    starts: float | None
    end: _End | None
    forgotten: bool = False
    event_sent: bool = False
    """The event of its end was sent."""

    @property
    def names(self) -> list[str]:
        return [container["name"] for container in self.definition["containerDefinitions"]]

    @property
    def fargate(self) -> bool:
        return _launch_type(self.request) == "FARGATE"

    def started(self, now: float) -> bool:
        return self.starts is not None and now >= self.starts

    def status(self, now: float) -> str:
        if self.end and now >= self.end.stopped:
            return "STOPPED"
        if self.end and now >= self.end.exited:
            return "DEPROVISIONING"
        if self.end and now >= self.end.stopping:
            return "STOPPING"
        if self.started(now):
            return "RUNNING"
        if self.fargate and now < self.created + self.plan.pending_seconds / 2:
            return "PROVISIONING"
        return "PENDING"

    def ended(self, now: float) -> bool:
        return self.end is not None and now >= self.end.stopped

    def being_stopped(self, now: float) -> bool:
        return self.end is not None and now >= self.end.stopping


@dataclass
class _Token:
    params: Mapping[str, Any]
    tasks: list[_Task]
    created: float


class FakeEcs:
    """The fake's ECS: plans for tasks to come, control of and insight into those that are there.

    :ivar default: plan of tasks that no rule fits. ``sleep N`` and ``exit N`` in the command (of a container
        override, else of the task definition) go before it.
    :ivar visible_after_seconds: how long the API does not know a new task yet.
    :ivar forget_after_seconds: how long it knows a stopped one.

    Source: DescribeTasks reference ("stopped tasks ... for at least one hour"); RunTask reference on eventual
    consistency.
    """

    def __init__(self, now: Callable[[], float], lock: threading.RLock) -> None:
        self._lock = lock
        self.default = EcsPlan()
        self.visible_after_seconds = 0.0
        self.forget_after_seconds = HOUR
        self._now = now
        self._plans: Plans[EcsPlan] = Plans()
        self._tasks: dict[str, _Task] = {}
        self._tokens: dict[tuple[str, str], _Token] = {}
        self._cluster_arns: dict[tuple[str, str], str] = {}
        self.actions: Mapping[str, Callable[[str, Mapping[str, Any]], dict[str, Any]]] = {
            "RunTask": self._run_task,
            "StopTask": self._stop_task,
            "DescribeTasks": self._describe_tasks,
            "ListTasks": self._list_tasks,
        }

    # -- plans and control ---------------------------------------------------------------------------------

    def plan(
        self,
        task_definition: str | None = None,
        *,
        started_by: str | None = None,
        cluster: str | None = None,
        then: Then = (),
        **fields: Any,
    ) -> None:
        """Say what will become of the tasks that fit; the latest rule that fits counts.

        :param task_definition: family, ``family:revision`` or ARN.
        :param started_by: text that the task's ``startedBy`` contains.
        :param cluster: name of the cluster.
        :param then: for the second, third, ... task that fits: what differs from the first one's plan; the
            last one stays in force. Or a function of RunTask's request and that task's number (from 1).
        :param fields: fields of :class:`EcsPlan`.

        ``aws.ecs.plan("nightly", exit_code=1, then=[{"exit_code": 0}])``: fails once, then succeeds.
        """

        def fits(request: Mapping[str, Any]) -> bool:
            return (
                (task_definition is None or task_definition in request["definition names"])
                and (started_by is None or started_by in request.get("startedBy", ""))
                and (cluster is None or cluster == request["cluster name"])
            )

        with self._lock:
            self._plans.add(fits, fields, then, self.default)

    @locked
    def finish(
        self,
        task: str,
        exit_code: int | None = 0,
        *,
        stop_code: str | None = "EssentialContainerExited",
        reason: str | None = None,
        container_reason: str | None = None,
    ) -> None:
        """End a task now, whatever its plan is.

        :param task: ARN or id.
        :raises ValueError: when it has ended already.
        """
        self._end_now(task, exit_code, stop_code, reason or REASONS.get(stop_code), container_reason)

    @locked
    def interrupt_spot(self, task: str, exit_code: int | None = 0, *, code: str = "SpotInterruption") -> None:
        """Take the Spot capacity from under a task; one that handles SIGTERM well reports exit code 0."""
        self._end_now(task, exit_code, code, REASONS.get(code))

    @locked
    def lose_host(self, task: str, instance: str = "i-0123456789abcdef0") -> None:
        """Let the EC2 instance under a task disappear: no exit codes, no stop code.

        Source: ECS developer guide, "Stopped tasks error messages".
        """
        self._end_now(task, None, None, f"Host EC2 (instance {instance}) terminated.")

    @locked
    def forget(self, task: str) -> None:
        """Let the API forget a task now."""
        self._task(task).forgotten = True

    @locked
    def tasks(self, cluster: str | None = None, *, started_by: str | None = None) -> list[EcsTask]:
        """List all tasks that ever were, forgotten ones too, oldest first.

        :param cluster: name of the cluster.
        :param started_by: text that ``startedBy`` contains.
        """
        now = self._now()
        views = [self._view(task, now) for task in self._tasks.values()]
        return [
            view
            for view in views
            if (cluster is None or view.cluster == cluster)
            and (started_by is None or started_by in (view.started_by or ""))
        ]

    @locked
    def task(self, task: str) -> EcsTask:
        """Return one task, by ARN or id, forgotten or not."""
        return self._view(self._task(task), self._now())

    # -- the API ------------------------------------------------------------------------------------------

    def events(self) -> list[tuple[float, str, dict[str, Any]]]:
        """The details of the events "ECS Task State Change" that are due: tasks that have stopped, each once.

        :return: (when it stopped, region, the task as DescribeTasks shows it, with times as ISO texts).

        Source: "Amazon ECS task state change events" in the ECS developer guide.
        """
        now = self._now()
        due = [(task.end.stopped, task) for task in self._tasks.values() if task.end and not task.event_sent]
        due = [(stopped, task) for stopped, task in due if stopped <= now]
        for _, task in due:
            task.event_sent = True
        return [(stopped, task.region, _with_iso_times(self._shape(task, now))) for stopped, task in due]

    def forget_clusters(self) -> None:
        """Read clusters again; they may have changed in moto."""
        self._cluster_arns.clear()

    def _run_task(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._now()
        cluster_arn = self._cluster(region, params)
        _check_run(params)
        token = params.get("clientToken")
        known = self._valid_token(cluster_arn, token, now)
        same = {name: value for name, value in params.items() if name not in {"clientToken", "cluster"}}
        if known:
            if known.params != same:
                raise AwsError(
                    "ConflictException",
                    "The client token has been used with different parameters.",
                    resourceIds=[task.arn for task in known.tasks],
                )
            return {"tasks": [self._shape(task, now) for task in known.tasks], "failures": []}
        definition = _definition(region, params["taskDefinition"])
        facts = {
            **params,
            "cluster name": cluster_arn.rpartition("/")[2],
            "definition names": _names_of(definition),
        }
        tasks: list[_Task] = []
        failures: list[dict[str, Any]] = []
        for _ in range(int(params.get("count", 1))):
            plan = self._plans.choose(facts, self._base(definition, params))
            if plan.failure is None:
                tasks.append(self._start(cluster_arn, definition, params, plan, now))
            else:
                host = f"arn:aws:ecs:{region}:{ACCOUNT}:container-instance/{uuid4().hex}"
                failures.append({"arn": host, "reason": plan.failure})
        if token and tasks:
            self._tokens[cluster_arn, token] = _Token(same, tasks, now)
        return {"tasks": [self._shape(task, now, new=True) for task in tasks], "failures": failures}

    def _stop_task(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._now()
        cluster_arn = self._cluster(region, params)
        task = self._known(_arn(region, cluster_arn, str(params.get("task", ""))), now)
        if task is None:
            raise AwsError("InvalidParameterException", "The referenced task was not found.")
        before = task.status(now)
        if not task.being_stopped(now):
            started = task.started(now)
            exited = now + (task.plan.stop_seconds if started else 0.0)
            task.starts = task.starts if started else None
            task.end = _End(
                stopping=now,
                exited=exited,
                stopped=exited + task.plan.deprovisioning_seconds,
                stop_code="UserInitiated",
                reason=params.get("reason") or REASONS["UserInitiated"],
                exit_codes=dict.fromkeys(task.names, task.plan.stop_exit_code if started else None),
            )
        return {"task": {**self._shape(task, now), "lastStatus": before}}

    def _describe_tasks(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._now()
        cluster_arn = self._cluster(region, params)
        asked = [str(task) for task in params.get("tasks", [])]
        if not asked:
            raise AwsError("InvalidParameterException", "Tasks cannot be empty.")
        if len(asked) > _PAGE:
            raise AwsError("InvalidParameterException", f"At most {_PAGE} tasks can be described at once.")
        tasks, failures = [], []
        for arn in dict.fromkeys(_arn(region, cluster_arn, name) for name in asked):
            task = self._known(arn, now)
            if task is None:
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                tasks.append(self._shape(task, now, tags="TAGS" in params.get("include", [])))
        return {"tasks": tasks, "failures": failures}

    def _list_tasks(self, region: str, params: Mapping[str, Any]) -> dict[str, Any]:
        now = self._now()
        cluster_arn = self._cluster(region, params)
        desired = params.get("desiredStatus", "RUNNING")
        if desired not in {"RUNNING", "PENDING", "STOPPED"}:
            raise AwsError("InvalidParameterException", f"Invalid desiredStatus {desired}.")
        _check_filters(params)
        size = int(params.get("maxResults", _PAGE))
        if not 1 <= size <= _PAGE:
            raise AwsError("InvalidParameterException", f"maxResults must be between 1 and {_PAGE}.")
        arns = [
            task.arn
            for task in self._tasks.values()
            if task.cluster_arn == cluster_arn
            and self._known(task.arn, now)
            and ("STOPPED" if task.being_stopped(now) else "RUNNING") == desired
            and params.get("startedBy") in {None, task.request.get("startedBy")}
            and params.get("family") in {None, task.definition["family"]}
            and params.get("launchType") in {None, _launch_type(task.request)}
            and not params.get("serviceName")
            and params.get("containerInstance") in {None, _host(task)}
        ]
        first = _offset(params.get("nextToken"))
        page: dict[str, Any] = {"taskArns": arns[first : first + size]}
        if first + size < len(arns):
            page["nextToken"] = f"page-{first + size}"
        return page

    # -- inside -------------------------------------------------------------------------------------------

    def _cluster(self, region: str, params: Mapping[str, Any]) -> str:
        name = str(params.get("cluster") or "default")
        if (region, name) not in self._cluster_arns:
            answer = ask_moto("ecs", region, "DescribeClusters", {"clusters": [name]})
            active = [each["clusterArn"] for each in answer.get("clusters", []) if each["status"] == "ACTIVE"]
            if not active:
                raise AwsError("ClusterNotFoundException", "Cluster not found.")
            self._cluster_arns[region, name] = str(active[0])
        return self._cluster_arns[region, name]

    def _base(self, definition: Mapping[str, Any], params: Mapping[str, Any]) -> EcsPlan:
        seconds, exit_code = seconds_and_exit(_command(definition, params))
        return EcsPlan(
            **{
                **vars(self.default),
                **({} if seconds is None else {"seconds": seconds}),
                **({} if exit_code is None else {"exit_code": exit_code}),
            }
        )

    def _start(
        self,
        cluster_arn: str,
        definition: Mapping[str, Any],
        params: Mapping[str, Any],
        plan: EcsPlan,
        now: float,
    ) -> _Task:
        region, cluster = cluster_arn.split(":")[3], cluster_arn.rpartition("/")[2]
        starts: float | None = now + plan.pending_seconds
        if plan.stop_code == "TaskFailedToStart":
            starts = None
        task = _Task(
            arn=f"arn:aws:ecs:{region}:{ACCOUNT}:task/{cluster}/{uuid4().hex}",
            region=region,
            cluster_arn=cluster_arn,
            definition=definition,
            request=params,
            plan=plan,
            created=now,
            starts=starts,
            end=None,
        )
        if starts is None or plan.seconds is not None:
            exited = now + plan.pending_seconds if starts is None else starts + (plan.seconds or 0.0)
            task.end = _End(
                stopping=exited,
                exited=exited,
                stopped=exited + plan.deprovisioning_seconds,
                stop_code=plan.stop_code,
                reason=plan.reason or REASONS.get(plan.stop_code),
                exit_codes=_exit_codes(task, plan.exit_code if starts is not None else None),
                container_reason=plan.container_reason,
            )
        self._tasks[task.arn] = task
        return task

    def _end_now(
        self,
        name: str,
        exit_code: int | None,
        stop_code: str | None,
        reason: str | None,
        container_reason: str | None = None,
    ) -> None:
        now = self._now()
        task = self._task(name)
        if task.ended(now):
            raise ValueError(f"ECS task {task.arn} has ended already")
        if stop_code == "TaskFailedToStart":
            task.starts, exit_code = None, None
        elif not task.started(now) and exit_code is not None:
            task.starts = now
        task.end = _End(now, now, now, stop_code, reason, _exit_codes(task, exit_code), container_reason)

    def _task(self, name: str) -> _Task:
        if name in self._tasks:
            return self._tasks[name]
        found = [task for arn, task in self._tasks.items() if arn.endswith(f"/{name}")]
        if not found:
            raise KeyError(f"there never was an ECS task {name}")
        return found[0]

    def _gone(self, task: _Task, now: float) -> bool:
        return task.forgotten or (task.end is not None and now > task.end.stopped + self.forget_after_seconds)

    def _known(self, arn: str, now: float) -> _Task | None:
        task = self._tasks.get(arn)
        if task is None or self._gone(task, now):
            return None
        lag = task.plan.visible_after_seconds
        visible = task.created + (self.visible_after_seconds if lag is None else lag)
        return task if now >= visible else None

    def _valid_token(self, cluster_arn: str, token: str | None, now: float) -> _Token | None:
        known = self._tokens.get((cluster_arn, token)) if token else None
        if known is None or now >= known.created + _TOKEN_VALID:
            return None
        ends = [task.end.stopped if task.end else None for task in known.tasks]
        over = all(end is not None and now >= end + HOUR for end in ends)
        return None if over or all(task.forgotten for task in known.tasks) else known

    def _view(self, task: _Task, now: float) -> EcsTask:
        exited = task.end is not None and now >= task.end.exited
        end = task.end if task.being_stopped(now) else None
        return EcsTask(
            arn=task.arn,
            cluster=task.cluster_arn.rpartition("/")[2],
            task_definition=_names_of(task.definition)[1],
            started_by=task.request.get("startedBy"),
            client_token=task.request.get("clientToken"),
            state=task.status(now),
            desired_state="STOPPED" if end else "RUNNING",
            created=task.created,
            started=task.starts if task.started(now) else None,
            stopped=end.stopped if end and task.ended(now) else None,
            exit_code=end.exit_codes.get(task.names[0]) if end and exited else None,
            stop_code=end.stop_code if end else None,
            reason=end.reason if end else None,
            forgotten=self._gone(task, now),
            command=tuple(_command(task.definition, task.request)),
        )

    def _shape(self, task: _Task, now: float, *, new: bool = False, tags: bool = False) -> dict[str, Any]:
        """Write a task as DescribeTasks does.

        :param new: as RunTask shows it: not started yet, however fast it will be.
        """
        status = ("PROVISIONING" if task.fargate else "PENDING") if new else task.status(now)
        started = task.started(now) and not new
        end = task.end if task.end and now >= task.end.stopping and not new else None
        launch = _launch_type(task.request)
        shape: dict[str, Any] = {
            "taskArn": task.arn,
            "clusterArn": task.cluster_arn,
            "taskDefinitionArn": task.definition["taskDefinitionArn"],
            "attachments": [],
            "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
            "availabilityZone": f"{task.region}a",
            "containers": [
                self._container(task, number, status, end, now) for number in range(len(task.names))
            ],
            "cpu": str(task.definition.get("cpu", "256")),
            "memory": str(task.definition.get("memory", "512")),
            "createdAt": task.created,
            "desiredStatus": "STOPPED" if end else "RUNNING",
            "lastStatus": status,
            "enableExecuteCommand": bool(task.request.get("enableExecuteCommand", False)),
            "group": task.request.get("group", f"family:{task.definition['family']}"),
            "healthStatus": "UNKNOWN",
            "launchType": launch,
            "overrides": {"containerOverrides": [], **task.request.get("overrides", {})},
            "tags": list(task.request.get("tags", [])) if tags and not task.ended(now) else [],
            "version": 1 + _LIFECYCLE.index(status),
        }
        if task.request.get("startedBy"):
            shape["startedBy"] = task.request["startedBy"]
        if task.request.get("capacityProviderStrategy"):
            shape["capacityProviderName"] = task.request["capacityProviderStrategy"][0]["capacityProvider"]
        if launch == "FARGATE":
            shape["platformVersion"], shape["platformFamily"] = "1.4.0", "Linux"
        else:
            shape["containerInstanceArn"] = _host(task)
        if started:
            shape |= {"connectivity": "CONNECTED", "connectivityAt": task.starts, "startedAt": task.starts}
            shape |= {"pullStartedAt": task.created, "pullStoppedAt": task.starts}
        if end:
            shape |= {"stoppingAt": end.stopping, "stoppedReason": end.reason}
            if end.stop_code:
                shape["stopCode"] = end.stop_code
            if now >= end.exited and started:
                shape["executionStoppedAt"] = end.exited
            if now >= end.stopped:
                shape["stoppedAt"] = end.stopped
        return shape

    def _container(
        self, task: _Task, number: int, status: str, end: _End | None, now: float
    ) -> dict[str, Any]:
        spec = task.definition["containerDefinitions"][number]
        task_id = task.arn.rpartition("/")[2]
        cluster = task.cluster_arn.rpartition("/")[2]
        container: dict[str, Any] = {
            "containerArn": f"arn:aws:ecs:{task.region}:{ACCOUNT}:container/{cluster}/{task_id}/{number}",
            "taskArn": task.arn,
            "name": spec["name"],
            "image": spec.get("image", "unknown"),
            "lastStatus": "PENDING" if status in {"PROVISIONING", "PENDING"} else "RUNNING",
            "networkInterfaces": [],
            "healthStatus": "UNKNOWN",
            "cpu": str(spec.get("cpu", 0)),
        }
        if status not in {"PROVISIONING", "PENDING"} and task.started(now):
            container["runtimeId"] = f"{task_id}-{number}"
        if end and now >= end.exited:
            container["lastStatus"] = "STOPPED"
            code = end.exit_codes.get(spec["name"])
            if code is not None:
                container["exitCode"] = code
            if end.container_reason:
                container["reason"] = end.container_reason
        return container


def _with_iso_times(shape: Mapping[str, Any]) -> dict[str, Any]:
    return {name: iso_time(value) if name.endswith("At") else value for name, value in shape.items()}


def _check_run(params: Mapping[str, Any]) -> None:
    """Refuse what RunTask refuses.

    Source: RunTask reference: ``count``, ``startedBy``, ``clientToken``.
    """
    if not 1 <= int(params.get("count", 1)) <= _MAX_TASKS_A_CALL:
        raise AwsError("InvalidParameterException", f"Count must be between 1 and {_MAX_TASKS_A_CALL}.")
    if not _STARTED_BY.fullmatch(params.get("startedBy", "-")):
        raise AwsError(
            "InvalidParameterException",
            "startedBy must be at most 128 letters, numbers, hyphens, forward slashes and underscores.",
        )
    if not _TOKEN.fullmatch(params.get("clientToken", "-")):
        raise AwsError(
            "InvalidParameterException", "clientToken must be at most 64 characters in the range 33-126."
        )


def _check_filters(params: Mapping[str, Any]) -> None:
    """Refuse ``startedBy`` beside another filter; ``desiredStatus`` does not count as one.

    Source: ListTasks reference: "When you specify startedBy as the filter, it must be the only filter that
    you use." Airflow's own ECS operator uses it with ``desiredStatus``.
    """
    filters = ("family", "serviceName", "containerInstance", "launchType")
    others = [name for name in filters if params.get(name)]
    if params.get("startedBy") and others:
        raise AwsError("InvalidParameterException", f"startedBy cannot be used together with {others[0]}.")


def _definition(region: str, name: str) -> Mapping[str, Any]:
    try:
        answer = ask_moto("ecs", region, "DescribeTaskDefinition", {"taskDefinition": name})
    except AwsError:
        raise AwsError("ClientException", "TaskDefinition not found.") from None
    definition: Mapping[str, Any] = answer["taskDefinition"]
    if definition.get("status") == "INACTIVE":
        raise AwsError("ClientException", "TaskDefinition is inactive")
    return definition


def _names_of(definition: Mapping[str, Any]) -> tuple[str, str, str]:
    family = str(definition["family"])
    return family, f"{family}:{definition['revision']}", str(definition["taskDefinitionArn"])


def _launch_type(request: Mapping[str, Any]) -> str:
    if request.get("launchType"):
        return str(request["launchType"])
    strategy = request.get("capacityProviderStrategy", [])
    providers = [str(each.get("capacityProvider", "")) for each in strategy]
    return "FARGATE" if any(provider.startswith("FARGATE") for provider in providers) else "EC2"


def _host(task: _Task) -> str | None:
    if task.fargate:
        return None
    cluster = task.cluster_arn.rpartition("/")[2]
    return f"arn:aws:ecs:{task.region}:{ACCOUNT}:container-instance/{cluster}/{'0' * 32}"


def _arn(region: str, cluster_arn: str, name: str) -> str:
    """Complete a task's id to its ARN.

    :raises AwsError: for the ARN of a task in another cluster.
    """
    cluster = cluster_arn.rpartition("/")[2]
    if not name.startswith("arn:"):
        return f"arn:aws:ecs:{region}:{ACCOUNT}:task/{cluster}/{name}"
    parts = name.split("/")
    if len(parts) == 3 and parts[1] != cluster:  # noqa: PLR2004 - task/CLUSTER/ID
        raise AwsError(
            "InvalidParameterException", f"Identifier is for cluster {parts[1]}. Your cluster is {cluster}"
        )
    return name


def _command(definition: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    overrides = params.get("overrides", {}).get("containerOverrides", [])
    for override in overrides:
        if override.get("command"):
            return [str(word) for word in override["command"]]
    return [str(word) for word in definition["containerDefinitions"][0].get("command", [])]


def _exit_codes(task: _Task, exit_code: int | None) -> dict[str, int | None]:
    codes: dict[str, int | None] = dict.fromkeys(task.names, None if exit_code is None else 0)
    codes[task.names[0]] = exit_code
    return codes | (dict(task.plan.exit_codes) if exit_code is not None or task.plan.exit_codes else {})


def _offset(token: str | None) -> int:
    if token is None:
        return 0
    match = re.fullmatch(r"page-(\d+)", token)
    if not match:
        raise AwsError("InvalidParameterException", "Invalid token.")
    return int(match[1])
