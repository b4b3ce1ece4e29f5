"""The steps of which `cases` composes what is done: each is a function of one case.

A step acts, or waits for a fact; none sleeps for a fixed time to let something happen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from airflow_resilient.testing.airflow.local_airflow import HANG

from .environment import DOCKER, SHARED, SWEPT, SWEPT_CLUSTER, Engine, GaveUp
from .judge import Act, RemoteJob, Seen

if TYPE_CHECKING:
    from .cases import Row
    from .environment import ClusterFault, Harness, Hold, Observation

ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
GRACE = 90.0  # in which jobs may stop after the end of their task instance
LIMIT = 60.0  # ``execution_timeout`` of fault_dags.py
RETRIES = {"once": 0, "limited": 0, "limited_in_worker": 0}  # as in fault_dags.py; 2 otherwise

IN_WORKER = ("in_worker", "limited_in_worker", "loop")
"""Variants that wait in the worker."""


class TooSlow(GaveUp):
    """The machine was too slow for the fault to come at its moment: the case says nothing."""


class Step(Protocol):
    """One step."""

    __name__: str

    def __call__(self, case: Case) -> None: ...


@dataclass
class Case:
    """One row, played for one fate, one service and one implementation."""

    harness: Harness
    row: Row
    fate: str
    service: str
    implementation: str
    meet: Callable[[str], None] = lambda _: None
    """Waits until all cases of the phase have come to its break, or its recovery."""
    number: int = 1
    """Of the attempt to play it."""
    acts: list[Act] = field(default_factory=list, init=False)
    hold: Hold | None = field(default=None, init=False)
    processes: tuple[int, ...] = field(default=(), init=False)
    """Pids of the task and of the worker above it."""
    closed: str = field(default="", init=False)
    """The gate at which it is to wait."""
    failing: ClusterFault | None = field(default=None, init=False)
    by_hand: set[str] = field(default_factory=set, init=False)
    killed: set[int] = field(default_factory=set, init=False)
    """Numbers of tries whose process was killed: that the scheduler fails them is no fault of it."""
    too_slow: bool = field(default=False, init=False)
    engine: Engine | None = field(default=None, init=False)
    """Where its containers run."""
    last: Observation | None = field(default=None, init=False)
    """The observation of the task instance before the latest act."""

    def __post_init__(self) -> None:
        again = f"-{self.number}" if self.number > 1 else ""
        name = f"{self.row.id}-{self.fate}-{self.service}-{self.implementation}{again}"
        self.name = name.replace(" ", "-")
        self.key = (f"{self.implementation}_{self.service}_{self.variant}", self.name)
        shared = SWEPT_CLUSTER if self.implementation == SWEPT else SHARED
        self.cluster = self.name if self.row.own_cluster else shared
        self.address = self.cluster
        """What AWS's calls name the cluster: EMR an id, ECS a name."""

    @property
    def variant(self) -> str:
        if "forgotten" in self.fate and self.row.variant == "plain":
            return "forgetful"
        return self.row.variant

    @property
    def retries(self) -> int:
        """The retries of the task."""
        return RETRIES.get(self.variant, 2)

    # --- what is

    @property
    def jobs(self) -> list[Any]:
        """Every real job of this case, oldest first."""
        if self.engine:
            return [one for one in self.engine.made if one.started]
        if self.service == "emr":
            steps = self.harness.aws.emr.steps()
            return [step for step in steps if step.name.split(" ", 1)[0] == self.name]
        tasks = self.harness.aws.ecs.tasks()
        return [each for each in tasks if each.task_definition.rpartition("/")[2].split(":")[0] == self.name]

    @property
    def live(self) -> list[Any]:
        if self.engine:
            return self.engine.live()
        return [job for job in self.jobs if job.live]

    @property
    def latest(self) -> Observation | None:
        return self.harness.observer.latest(self.key)

    @property
    def state(self) -> str | None:
        return latest.state if (latest := self.latest) else "gone"

    @property
    def retries_used(self) -> int:
        """Automatic retries of Airflow since the latest clear."""
        latest = self.latest or self.last
        if latest is None:
            return 0
        since = max(0, latest.max_tries - self.retries)
        return max(0, latest.try_number - since - 1)

    def id_of(self, job: Any) -> str:
        return job.arn.rpartition("/")[2] if self.service == "ecs" else job.id  # type: ignore[no-any-return]

    def seen(self) -> Seen:
        """All that was seen until now."""
        latest = self.latest
        return Seen(
            jobs=tuple(self._remote_job(job) for job in self.jobs),
            acts=tuple(self.acts),
            state=latest.state if latest else None,
            retries=self.retries_used if latest else 0,
            by_scheduler=len(self.harness.observer.mismatches(self.key) - self.killed),
            at=time.time(),
        )

    def _remote_job(self, job: Any) -> RemoteJob:
        name = self.id_of(job)
        if self.engine:
            live = job.finished is None
            ended, outcome = job.finished, "succeeded" if job.exit_code == 0 else "failed"
            outcome = "live" if live else outcome if job.grace is None else "cancelled"
            return RemoteJob(name, job.started, ended, outcome, self.harness.aws.cancels.get(name))
        if self.service == "emr":
            outcome = {"COMPLETED": "succeeded", "CANCELLED": "cancelled"}.get(job.state, "failed")
            ended, forgotten = job.ended, False
        else:
            stopped = {"EssentialContainerExited": "failed", "UserInitiated": "cancelled"}
            well = job.stop_code == "EssentialContainerExited" and job.exit_code == 0
            outcome = "succeeded" if well else stopped.get(job.stop_code, "failed")
            ended, forgotten = job.stopped, job.forgotten
        return RemoteJob(
            name,
            job.created,
            ended,
            "live" if job.live else outcome,  # type: ignore[arg-type]
            cancelled=self.harness.aws.cancels.get(name),
            by_hand=name in self.by_hand,
            forgotten=forgotten,
        )

    # --- waiting

    def until(self, predicate: Callable[[], Any], what: str, timeout: float = HANG) -> Any:
        """Wait for a fact."""
        try:
            return self.harness.observer.wait(predicate, timeout, what)
        except GaveUp as error:
            raise GaveUp(f"{error}; {_describe(self)}") from None

    def act(self, what: str) -> None:
        """Write down that somebody, or a limit, has given the job up."""
        retries = self.retries_used
        self.last = self.latest or self.last
        self.acts.append(Act(time.time(), what, retries))

    # --- gates

    def close(self, point: str) -> None:
        """Let the task wait at this point from now on."""
        self.closed = point
        (self.harness.gates / f"{self.name}.{point}").touch()

    def open(self, point: str) -> None:
        """Let it go on."""
        (self.harness.gates / f"{self.name}.{point}").unlink(missing_ok=True)

    def waits_at(self, point: str) -> tuple[int, int]:
        """Wait until the task waits there; give its pid and that of the worker above it."""
        here = self.harness.gates / f"{self.name}.{point}.here"
        self.until(here.exists, f"the task waits at {point}")
        task, worker = here.read_text().split()
        here.unlink()
        return int(task), int(worker)

    # --- Airflow's API

    def api(self, method: str, path: str, body: dict[str, Any] | None = None, **more: Any) -> Any:
        """Call Airflow's REST API about the run."""
        run = f"/dags/{self.key[0]}/dagRuns/{quote(self.key[1], safe='')}"
        return self.harness.airflow.request(method, run + path, body, **more)


# --- the beginning -----------------------------------------------------------------------------------------


def prepare(case: Case) -> None:
    """Say what becomes of its jobs; done before the row's own steps."""
    if trigger_started in case.row.do:
        (case.harness.gates / f"{case.name}.report").touch()
    if case.row.own_cluster:
        cluster_id = case.harness.cluster(case.cluster)
        if case.service == "emr":
            case.address = cluster_id
    plan = {"seconds": None, **case.row.plan.get(case.service, {})}
    if case.service == DOCKER:
        case.engine = Engine(case.harness.aws)
        case.engine.__enter__()
        case.engine.plan(f"{case.name}:latest", **plan)
    elif case.service == "emr":
        case.harness.aws.emr.plan(case.name, **plan)
    else:
        case.harness.aws.make_task_definition(case.name)
        case.harness.aws.ecs.plan(case.name, **plan)


def archived(case: Case) -> None:
    """Let EventBridge write the ends of tasks in the case's own cluster into the log group of events."""
    case.harness.aws.archive(case.cluster)


def start(case: Case) -> None:
    """Trigger the run, under the same id each time."""
    body = {
        "dag_run_id": case.key[1],
        "logical_date": None,
        "conf": {
            "job": case.name,
            "cluster": case.cluster,
            "engine": case.engine.url if case.engine else None,
        },
    }
    case.harness.airflow.request("POST", f"/dags/{case.key[0]}/dagRuns", body)
    case.until(lambda: case.latest, "the task instance exists")


def deferred(case: Case) -> None:
    """Wait until it is deferred."""
    case.until(lambda: case.state == "deferred" or _ended(case), "it is deferred")


def submitted(case: Case) -> None:
    """Wait until it is deferred, and AWS has made its job, although no answer confirmed it."""
    deferred(case)
    case.until(lambda: case.jobs, "AWS has made its job")


def trigger_started(case: Case) -> None:
    """Wait until its trigger has started: nothing hears of a mark before; see the gaps in why.md."""

    started = case.harness.gates / f"{case.name}.started{case.latest.try_number}"
    case.until(lambda: started.exists() or _ended(case), "its trigger has started")


def watched(case: Case) -> None:
    """Wait until it is deferred, and the triggerer has polled its job."""
    deferred(case)
    since = time.time()
    case.until(lambda: _polled(case, since) or _ended(case), "its job is polled")


def _polled(case: Case, since: float) -> bool:
    polls = case.harness.aws.polled
    return any(polls.get(case.id_of(job), 0) > since for job in case.live)


def _ended(case: Case) -> bool:
    return case.state in ENDED


def waits_here(case: Case) -> None:
    """Wait until its process is known, and polls its job in the worker."""
    case.processes = case.waits_at("runs")
    since = time.time()
    case.until(lambda: _polled(case, since) or _ended(case), "its job is polled")


def parts(count: int) -> Step:
    """Let that many jobs end well, one after the other, and wait until the next one is polled."""

    def end_parts(case: Case) -> None:
        waits_here(case)
        for number in range(1, count + 1):
            end_well(case)
            case.until(lambda number=number: len(case.jobs) > number or _ended(case), "the next job is made")
            since = time.time()
            case.until(lambda since=since: _polled(case, since) or _ended(case), "it is polled")

    return named(end_parts, f"{count} jobs have ended")


def next_here(case: Case) -> None:
    """Wait until the next try waits in the worker for a job that nobody has stopped."""
    before = case.last
    cancels = case.harness.aws.cancels
    case.until(
        lambda: (
            _ended(case)
            or (
                (latest := case.latest)
                and latest.id != before.id
                and latest.state == "running"
                and case.live
                and all(case.id_of(job) not in cancels for job in case.live)
            )
        ),
        "the next try waits for a job",
    )


def next_deferred(case: Case) -> None:
    """Wait until the task instance is deferred again, after a clear or in a new run."""
    before = case.last
    case.harness.observer.fresh()
    case.until(
        lambda: (latest := case.latest) and latest.id != before.id and latest.state in ("deferred", *ENDED),
        "the next try is deferred",
    )


def next_job(case: Case) -> None:
    """Wait until the next try waits for a job that nobody has stopped."""
    next_deferred(case)
    cancels = case.harness.aws.cancels
    case.until(
        lambda: (
            _ended(case)
            or (
                case.state == "deferred"
                and case.live
                and all(case.id_of(j) not in cancels for j in case.live)
            )
        ),
        "the next try waits for a job",
    )


def second_job(case: Case) -> None:
    """Wait until a second job runs and is waited for, or the task instance has ended."""
    case.until(
        lambda: (len(case.jobs) > 1 and case.state == "deferred") or _ended(case), "a second job is watched"
    )


def known(case: Case) -> None:
    """Wait until AWS knows its new job."""
    since = case.row.plan[case.service]["visible_after_seconds"] + case.jobs[0].created
    case.until(lambda: time.time() > since, "AWS knows the new job")


def succeeded(case: Case) -> None:
    """Let its job end well, and wait until the task instance has succeeded."""
    watched(case)
    end_well(case)
    case.until(lambda: _ended(case) and case.latest.run == "success", "the run has succeeded")


def failed(case: Case) -> None:
    """Let its job fail, and wait until the task instance has failed."""
    watched(case)
    end_badly(case)
    case.until(lambda: _ended(case) and case.latest.run == "failed", "the run has failed")


# --- what becomes of the job -------------------------------------------------------------------------------


def fate(case: Case) -> None:
    """Let happen to the live jobs what this case is about."""
    if case.fate != "runs on":
        end_and_show(case)
        forget(case)


def end_and_show(case: Case) -> None:
    """End live jobs as this case is about, and let AWS not forget them yet."""
    end_badly(case) if "badly" in case.fate else end_well(case)


def forget(case: Case) -> None:
    """Let AWS forget the ended jobs, if that is what this case is about."""
    if "forgotten" in case.fate:
        for job in case.jobs:
            case.harness.aws.ecs.forget(job.arn)


def end_well(case: Case, job: Any = None) -> None:
    """End live jobs: they have done their work."""
    for each in [job] if job else case.live:
        with contextlib.suppress(ValueError):  # it has ended meanwhile
            if case.engine:
                case.engine.finish(each.id)
            elif case.service == "emr":
                case.harness.aws.emr.finish(each.id)
            else:
                case.harness.aws.ecs.finish(each.arn)


def end_badly(case: Case) -> None:
    """End live jobs: their code has failed."""
    for job in case.live:
        if case.engine:
            case.engine.finish(job.id, 3)
        elif case.service == "emr":
            case.harness.aws.emr.finish(job.id, "FAILED")
        else:
            case.harness.aws.ecs.finish(job.arn, 3)


def stopped_by_hand(case: Case) -> None:
    """Let a person with access to AWS stop the job; its program stops gracefully, with exit code 0."""
    for job in case.live:
        case.by_hand.add(case.id_of(job))
        if case.service == "emr":
            case.harness.aws.emr.finish(job.id, "CANCELLED")
        else:
            case.harness.aws.ecs.finish(job.arn, 0, stop_code="UserInitiated")


def lose_infrastructure(case: Case) -> None:
    """Take away what the job runs on: the host of an ECS task, the cluster of a step (another one starts)."""
    if case.service == "emr":
        case.harness.aws.emr.end_cluster(case.jobs[0].cluster_id, "INSTANCE_FAILURE")
        case.harness.aws.make_emr_cluster(case.cluster, concurrency=200)
    else:
        for job in case.live:
            case.harness.aws.ecs.lose_host(job.arn)


def terminate_cluster(case: Case) -> None:
    """Let a person terminate the EMR cluster; another one of this name starts."""
    case.by_hand.update(case.id_of(job) for job in case.live)
    case.harness.aws.emr.end_cluster(case.jobs[0].cluster_id, "USER_REQUEST")
    case.harness.aws.make_emr_cluster(case.cluster, concurrency=200)


def interrupt_spot(case: Case) -> None:
    """Take the Spot capacity from under an ECS task, which stops gracefully, with exit code 0."""
    for job in case.live:
        case.harness.aws.ecs.interrupt_spot(job.arn, 0)


# --- the process that runs the task ------------------------------------------------------------------------


def gate(point: str) -> Step:
    """Close a gate: the task is to wait there (see fault_hooks)."""

    def close(case: Case) -> None:
        case.close(point)

    return named(close, f"close the gate {point}")


def hold_answer(case: Case) -> None:
    """Let AWS, or the engine, accept the job, and keep the answer back."""
    if case.engine:
        case.hold = case.engine.hold_start(case.name)
        return
    operation = "emr:AddJobFlowSteps" if case.service == "emr" else "ecs:RunTask"
    case.hold = case.harness.aws.hold(operation, case.name)


def held(case: Case) -> None:
    """Wait until the task waits where it should: for an answer that is held, else at the closed gate."""
    if case.hold:
        case.until(case.hold.reached.is_set, "AWS has accepted the job")
        case.processes = case.waits_at("runs")
    else:
        case.processes = case.waits_at(case.closed)


def kill_task(case: Case) -> None:
    """SIGKILL to the task's process alone, as the out-of-memory killer does."""
    _signal(case, signal.SIGKILL, case.processes[:1])


def kill_worker(case: Case) -> None:
    """SIGKILL to the worker and to the task, at the same moment."""
    _signal(case, signal.SIGKILL, case.processes[::-1])


def terminate_task(case: Case) -> None:
    """SIGTERM to the task's process alone, and wait until it has received it; its worker lives on."""
    _terminate(case, case.processes[:1])


def stop_worker(case: Case) -> None:
    """SIGTERM to the worker, as a deploy does, and wait until the task has received it."""
    _terminate(case, case.processes[1:])


def _terminate(case: Case, pids: tuple[int, ...]) -> None:
    _signal(case, signal.SIGTERM, pids)
    case.until((case.harness.gates / f"{case.name}.on_kill").exists, "on_kill was called")


def _signal(case: Case, number: int, pids: tuple[int, ...]) -> None:
    if number == signal.SIGKILL and case.state == "running":
        case.killed.add(case.latest.try_number)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    if number == signal.SIGKILL:
        case.until(lambda: not any(map(_exists, pids)), "the killed processes are gone")
        go_on(case)


def go_on(case: Case) -> None:
    """Let the answer go that is held, or open the gate."""
    if case.hold:
        case.hold.released.set()
        case.hold = None
    elif case.closed:
        case.open(case.closed)


def _exists(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - it may vanish any moment
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def unloadable(case: Case) -> None:
    """Let the worker fail to load the DAG file on resume: Airflow then begins the try again."""
    (case.harness.gates / f"{case.latest.id}.unloadable").touch()


def loaded(case: Case) -> None:
    """Wait until it has failed to."""
    failed = case.harness.gates / f"{case.latest.id}.unloadable"
    case.until(lambda: not failed.exists(), "the DAG file could not be loaded")


def crash_trigger(case: Case) -> None:
    """Let the trigger raise when it runs for the first time."""
    (case.harness.gates / f"{case.name}.crash").touch()


def crashed(case: Case) -> None:
    """Wait until it has."""
    case.until(lambda: not (case.harness.gates / f"{case.name}.crash").exists(), "the trigger has crashed")


# --- what persons and limits do ----------------------------------------------------------------------------


def clear(case: Case) -> None:
    """Clear the task instance."""
    case.act("clear")
    case.harness.airflow.clear(*case.key, ["job"])


def clear_running(case: Case) -> None:
    """Clear a task instance that is on a worker, and wait until Airflow has ended its process."""
    case.killed.add(case.latest.try_number)
    case.act("clear")
    case.harness.airflow.clear(*case.key, ["job"])
    case.until(lambda: not _exists(case.processes[0]), "Airflow has ended the task's process")


def mark_failed(case: Case) -> None:
    """Mark the task instance as failed."""
    case.act("mark failed")
    case.harness.airflow.mark(*case.key, "job", "failed")


def mark_success(case: Case) -> None:
    """Mark the task instance as successful."""
    case.act("mark success")
    case.harness.airflow.mark(*case.key, "job", "success")


def fail_run(case: Case) -> None:
    """Mark the run as failed."""
    case.act("fail the run")
    case.harness.airflow.mark_run(*case.key, "failed")


def delete_run(case: Case) -> None:
    """Delete the run; Airflow deletes only runs that have ended, so it is marked as failed first."""
    case.act("delete the run")
    case.harness.airflow.mark_run(*case.key, "failed")
    case.api("DELETE", "")
    case.until(lambda: case.latest is None, "the run is gone")


def make_again(case: Case) -> None:
    """Make the run again, under the same id."""
    case.acts.append(Act(time.time(), "make the run again"))
    start(case)


def limit_passes(case: Case) -> None:
    """Wait until ``execution_timeout`` has passed; nobody wants the job from then on.

    :raises TooSlow: it had passed before there was a job.
    """
    passes = case.latest.start + LIMIT
    if not case.jobs or time.time() > passes:
        raise TooSlow("execution_timeout passed before the fault could come")
    case.until(lambda: time.time() > passes, "execution_timeout has passed")
    case.acts.append(Act(passes - 1, "deadline", case.retries_used))


def run_limit_passes(case: Case) -> None:
    """Let an hour pass for the run, its ``dagrun_timeout``, and wait until the scheduler has failed it."""
    case.act("run timeout")
    case.harness.observer.change(
        "UPDATE dag_run SET start_date = start_date - INTERVAL '1 hour'"
        " WHERE dag_id = :dag AND run_id = :run",
        dag=case.key[0],
        run=case.key[1],
    )
    case.until(lambda: _ended(case), "the scheduler has failed the run")


def hours_pass(case: Case) -> None:
    """Let the jobs have been made hours ago, by AWS's clock."""
    jobs = {case.id_of(job) for job in case.jobs}
    aws = case.harness.aws
    inside = [step for cluster in aws.emr._clusters.values() for step in cluster.steps.values()]
    for each in inside if case.service == "emr" else aws.ecs._tasks.values():
        if (each.id if case.service == "emr" else each.arn.rpartition("/")[2]) in jobs:
            each.created -= 7200


# --- AWS ---------------------------------------------------------------------------------------------------

POLLS = {
    "ecs": ("ecs:DescribeTasks", "ecs:ListTasks"),
    "emr": ("emr:ListSteps", "emr:DescribeStep"),
    "docker": ("docker:list",),  # a submission inspects, too
}
SUBMITS = {"ecs": ("ecs:RunTask",), "emr": ("emr:AddJobFlowSteps",), "docker": ("docker:start",)}
CANCELS = {"ecs": ("ecs:StopTask",), "emr": ("emr:CancelSteps",), "docker": ("docker:stop",)}
LOST = {"ecs": "ServerException", "emr": "InternalServerException"}


def fail(what: str, *, times: int | None = None, **fault: Any) -> Step:
    """Let calls about the case's own cluster fail.

    :param what: ``polls``, ``submits``, ``calls``: both of these, or ``cancels``.
    """

    def make(case: Case) -> None:
        polls, submits, cancels = (each[case.service] for each in (POLLS, SUBMITS, CANCELS))
        operations = {"polls": polls, "submits": submits, "calls": polls + submits, "cancels": cancels}[what]
        if case.engine:
            case.failing = case.engine.fail(
                *operations, times=times, carried_out=fault.get("carried_out", False)
            )
        else:
            case.failing = case.harness.aws.fail(case.address, *operations, times=times, **fault)

    return named(make, f"{what} fail")


def call_failed(case: Case) -> None:
    """Wait until a call has failed."""
    case.until(lambda: case.failing.met, "a call has failed")


def for_a_while(seconds: float, brief: float, *, met: bool = True) -> Step:
    """Let the fault last that long, from the first call that fails, or from now on."""

    def last(case: Case) -> None:
        if met:
            call_failed(case)
        until = time.time() + (brief if case.harness.brief else seconds)
        case.until(lambda: time.time() > until, "the fault has lasted that long", seconds + 30)

    return named(last, f"for {seconds:.0f} seconds")


def listed_late(seconds: float) -> Step:
    """Let AWS show its job only when that many seconds more have passed."""

    def late(case: Case) -> None:
        (job,) = case.jobs
        since_made = time.time() - job.created + seconds
        if case.service == "emr":
            case.harness.aws.lags[case.address] = since_made
        else:
            task = case.harness.aws.ecs._tasks[job.arn]
            task.plan = replace(task.plan, visible_after_seconds=since_made)

    return named(late, f"listed {seconds:.0f} seconds late")


def heal(case: Case) -> None:
    """End the fault."""
    if case.engine:
        case.engine.heal()
    case.harness.aws.heal_cluster(case.address)


# --- phases: see runner.py ---------------------------------------------------------------------------------


def others_first(case: Case) -> None:
    """Wait until all others of the phase wait for its break: a limit begins to count from here."""
    case.meet("late")


def breaks(case: Case) -> None:
    """Wait for the others of the phase; then the component breaks, for all of them."""
    if case.row.phase == "scheduler lost" and case.state == "running":
        case.killed.add(case.latest.try_number)
    case.meet("break")


def recovers(case: Case) -> None:
    """Wait for the others of the phase; then the component works again."""
    case.meet("recover")


def taken_over(case: Case) -> None:
    """Wait until the other triggerer has its trigger, and has polled the job."""
    case.until(lambda: _in_other_hands(case), "another triggerer has its trigger")
    since = time.time()
    case.until(lambda: case.state != "deferred" or not case.live or _polled(case, since), "it is polled")


def _in_other_hands(case: Case) -> bool:
    latest = case.latest
    first = case.harness.facts.get("stopped triggerer")
    return latest is None or latest.state != "deferred" or latest.triggerer not in (None, first)


def woken(case: Case) -> None:
    """Wait until the triggerer that was stopped works again, and the job has been polled since."""
    case.until(case.harness.facts["beats again"], "the stopped triggerer beats again")
    since = time.time()
    case.until(lambda: case.state != "deferred" or not case.live or _polled(case, since), "it is polled")


# --- the end -----------------------------------------------------------------------------------------------


def end(case: Case) -> None:
    """Let what still runs end well, the newest job first, and wait until the task instance has ended.

    The job that counts ends only while the task instance waits for it; a job that nobody waits for is left.
    """
    finished: set[str] = set()
    until = time.time() + HANG
    hurry = 0.0
    while not _ended(case) and case.latest is not None:
        if time.time() > until:
            raise GaveUp(f"the task instance has not ended: {_describe(case)}")
        live = case.live
        ready = live and time.time() > hurry and _watches(case, live[-1])
        if ready:
            newest = live[-1]
            end_well(case, newest)
            finished.add(case.id_of(newest))
            hurry = time.time() + 40  # give it time to be noticed before an older one is ended, too
        with contextlib.suppress(GaveUp):
            case.harness.observer.wait(lambda: _ended(case), 0.5, "it ends")


def _watches(case: Case, job: Any) -> bool:
    """Whether the task instance waits, deferred or in the worker, and the job was polled since."""
    history = case.harness.observer.history(case.key)
    waits = "running" if case.variant in IN_WORKER else "deferred"
    return case.state == waits and case.harness.aws.polled.get(case.id_of(job), 0) > history[-1][0]


def has_ended(case: Case) -> None:
    """Wait until the task instance has ended, or is gone."""
    case.until(lambda: _ended(case) or case.latest is None, "the task instance has ended")


def settle(case: Case) -> None:
    """Give jobs that are being cancelled, or will be, time to stop."""
    with contextlib.suppress(GaveUp):
        case.harness.observer.wait(lambda: not case.live, GRACE, "no job lives")


def _describe(case: Case) -> str:
    history = case.harness.observer.history(case.key)
    states = " ".join(f"{at - history[0][0]:.0f}s:{state}" for at, state in history)
    jobs = " ".join(f"{case.id_of(job)[:8]}:{job.status if case.engine else job.state}" for job in case.jobs)
    return f"states: {states}; jobs: {jobs}"


def named(step: Any, name: str) -> Step:
    """Name a step, for messages."""
    step.__name__ = name
    return step  # type: ignore[no-any-return]


def story(case: Case) -> str:
    """What was seen, for a person; times in seconds since the run began."""
    history = case.harness.observer.history(case.key)
    began = history[0][0] if history else 0.0
    acts = " ".join(f"{act.at - began:.1f}s:{act.what}({act.retries})" for act in case.acts)
    jobs = [case._remote_job(job) for job in case.jobs]
    lives = " ".join(
        f"{job.id[:8]}:{job.made - began:.1f}s-{(job.ended or began) - began:.1f}s"
        + (f" cancelled {job.cancelled - began:.1f}s" if job.cancelled else "")
        for job in jobs
    )
    return f"{_describe(case)}; acts: {acts}; {lives}\n{case.harness.observer.audit_log(case.key)}"


def clean_up(case: Case) -> None:
    """Leave nothing behind that could disturb the cases after this one."""
    heal(case)
    go_on(case)  # the answer that is held, if there is one
    go_on(case)  # then the gate
    end_well(case)
    if case.engine:
        case.until(lambda: case.state in (*ENDED, "gone"), "nobody asks its engine any more")
        case.engine.__exit__(None, None, None)
