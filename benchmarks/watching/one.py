"""Measure one case in this process: start waits, leave them alone, end their jobs, and report what that took.

Each trigger's arguments are decoded from JSON and its ``run`` is a task of one event loop, as in the
triggerer; what else the triggerer does (logs, its database) is left out here, for both alike.

Usage: ``python -m watching.one '{"who": "ours", ...}' PORT``; prints figures as JSON. With ``pack`` instead
of a port, it prints the arguments of the triggers.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from watching import names
from watching.figures import over_budget, spread, within

BUDGETS = {"DescribeTasks": (20.0, 100.0), "ListSteps": (0.5, 10.0), "DescribeStep": (0.5, 10.0)}
"""Calls per second and burst that AWS publishes; ``docs/design/watch.md``."""
_BEAT = 0.01


@dataclass(frozen=True)
class Case:
    """One measurement. Durations are seconds.

    :param who: ``"ours"`` or ``"provider"``.
    :param poll: longest time between two polls that the wait asks for (``waiter_delay``).
    :param idle: how long nothing is done at first, to see what that costs.
    :param steady: how long they are left alone, after `settle`.
    :param ends_over: time within which all jobs end.
    :param most_wait: how long events are waited for, after the last end.
    :param longest_start: how long it may take until all have been polled.
    :param cold: measure the start alone, of all waits at once, in a process that has made no client yet.
    """

    who: str
    service: str
    jobs: int
    clusters: int
    poll: float = 10.0
    idle: float = 3.0
    settle: float = 6.0
    steady: float = 45.0
    ends_over: float = 10.0
    most_wait: float = 60.0
    longest_start: float = 300.0
    cold: bool = False


class Heart:
    """Beats in the event loop, and notes by how much a beat was late: so long nothing else ran.

    Pauses of Python's garbage collector are noted, too: they grow with all that the process holds, Airflow
    included, and come no matter what makes the objects.
    """

    def __init__(self) -> None:
        self.late = self.collecting = 0.0
        self._due = self._collects_since = 0.0
        gc.callbacks.append(self._collects)

    def _collects(self, phase: str, _: Any) -> None:
        if phase == "start":
            self._collects_since = time.perf_counter()
        else:
            self.collecting = max(self.collecting, time.perf_counter() - self._collects_since)

    def start(self) -> None:
        """Beat from now on."""
        self._due = time.perf_counter() + _BEAT
        asyncio.get_running_loop().call_later(_BEAT, self._beat)

    def _beat(self) -> None:
        self.late = max(self.late, time.perf_counter() - self._due)
        self.start()

    def worst(self) -> tuple[float, float]:
        """The largest stall and the longest collection of garbage since this was asked last, in ms."""
        worst = (self.late * 1000, self.collecting * 1000)
        self.late = self.collecting = 0.0
        return worst


def packed_arguments(case: Case, job: int) -> str:
    """The keywords of one trigger, as they lie in Airflow's database."""
    if case.who == "ours":
        return json.dumps(_our_arguments(case, job))
    common = {"waiter_delay": int(case.poll), "waiter_max_attempts": 1_000_000, "aws_conn_id": "aws_default"}
    if case.service == "ecs":
        cluster = names.ecs_cluster(job, case.clusters)
        return json.dumps({**common, "cluster": cluster, "task_arn": names.task(job, case.clusters)})
    return json.dumps(
        {**common, "job_flow_id": names.emr_cluster(job, case.clusters), "step_ids": [names.step(job)]}
    )


def _our_arguments(case: Case, job: int) -> Mapping[str, Any]:
    """What our operators hand to the trigger: see ``RemoteJobOperator._wait``."""
    from airflow_resilient.core.job import Claim, Job, Phase
    from airflow_resilient.core.reconcile import Memory
    from airflow_resilient.parameters import poll_policy
    from airflow_resilient.services.ecs.client import EcsTasks
    from airflow_resilient.services.emr_steps.client import EmrSteps

    kind = EcsTasks if case.service == "ecs" else EmrSteps
    claim = Claim.read(names.token(job))
    assert claim is not None  # noqa: S101 - made by `names`
    if case.service == "ecs":
        name, scope = names.task(job, case.clusters), names.ecs_cluster(job, case.clusters)
    else:
        name, scope = names.step(job), names.emr_cluster(job, case.clusters)
    facts = {} if case.service == "ecs" else {"steps": [[name, "PENDING"]], "state": "PENDING"}
    seen = Job(name, claim, Phase.QUEUED, time.time() - 600, scope=scope, facts=facts)
    memory = Memory(started=time.time() - 600, seen=(seen,), own_job_ids=frozenset([name]))
    return {
        "service": kind.name,
        "address": kind().address(),
        "jobs": [seen.to_dict()],
        "memory": memory.to_dict(),
        "poll_policy": asdict(poll_policy(case.poll)),
    }


def trigger_class(case: Case) -> Callable[..., Any]:
    """The trigger that waits."""
    if case.who == "ours":
        from airflow_resilient.triggers import RemoteJobTrigger

        return RemoteJobTrigger
    if case.service == "ecs":
        from airflow.providers.amazon.aws.triggers.ecs import TaskDoneTrigger

        return TaskDoneTrigger
    from airflow.providers.amazon.aws.triggers.emr import EmrAddStepsTrigger

    return EmrAddStepsTrigger


def reports_success(event: Any) -> bool:
    """Whether an event says that the job has succeeded."""
    payload = event.payload
    if "jobs" in payload:
        return not payload["refused"] and payload["jobs"][0]["phase"] == "succeeded"
    return payload.get("status") == "success"


def memory_kb() -> float:
    """Memory of this process in kB, shared pages in proportion (PSS); RSS where the system has no PSS."""
    gc.collect()
    for path, field in (("/proc/self/smaps_rollup", "Pss:"), ("/proc/self/status", "VmRSS:")):
        if Path(path).exists():
            for line in Path(path).read_text().splitlines():
                if line.startswith(field):
                    return float(line.split()[1])
    raise RuntimeError("there is no /proc: run this on Linux")


async def rest(heart: Heart) -> None:
    """Forget a stall that the measurement itself made."""
    await asyncio.sleep(3 * _BEAT)
    heart.worst()


async def memory(heart: Heart) -> float:
    """`memory_kb`, whose own stall is not counted."""
    taken = memory_kb()
    await rest(heart)
    return taken


def control_now(port: int, do: str, seconds: float, **more: Any) -> Mapping[str, Any]:
    """Ask the endpoint to do something; it may take `seconds`."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/control", json.dumps({"do": do, "seconds": seconds, **more}).encode()
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=seconds + 30) as answer:
        reported: Mapping[str, Any] = json.load(answer)
        return reported


async def control(port: int, do: str, seconds: float = 60.0, **more: Any) -> Mapping[str, Any]:
    """`control_now`, in a thread."""
    return await asyncio.to_thread(control_now, port, do, seconds, **more)


class Waits:
    """The triggers of a case, and what comes of them.

    :ivar reported: job to when its event came, and whether it says success.
    :ivar failed: job to the error with which its trigger ended.
    """

    def __init__(self, case: Case, texts: Sequence[str]) -> None:
        self.case, self.texts = case, texts
        self.reported: dict[int, tuple[float, bool]] = {}
        self.failed: dict[int, str] = {}
        self.tasks: list[asyncio.Task[None]] = []
        self._make = trigger_class(case)
        self._all_over = asyncio.Event()

    def start(self, job: int) -> asyncio.Task[None]:
        """Start one."""
        return asyncio.create_task(self._wait_for(job, self._make(**json.loads(self.texts[job]))))

    async def start_all(self) -> None:
        """Start all, as the triggerer does: the event loop may run after each."""
        for job in range(self.case.jobs):
            self.tasks.append(self.start(job))
            await asyncio.sleep(0)

    async def end_all(self, port: int) -> Sequence[float]:
        """Let all jobs end, wait for the events, and stop what still waits. When each has ended."""
        end = await control(port, "end", at=time.time() + 1.0, over=self.case.ends_over)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._all_over.wait(), 1.0 + self.case.ends_over + self.case.most_wait)
        ends: Sequence[float] = end["ends"]
        return ends

    async def stop(self) -> None:
        """Stop what still waits."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def outcome(self, ends: Sequence[float], early: int) -> dict[str, Any]:
        """What has come of them.

        :param early: events that came before any job had ended.
        """
        reported = self.reported.items()
        return {
            "delay_s": spread([when - ends[job] for job, (when, _) in reported]),
            "lost": self.case.jobs - len(self.reported) - len(self.failed),
            "failed": len(self.failed),
            "failures": sorted(set(self.failed.values()))[:3],
            "wrong": early + sum(when < ends[job] or not correct for job, (when, correct) in reported),
        }

    async def _wait_for(self, job: int, trigger: Any) -> None:
        try:
            async for event in trigger.run():
                self.reported[job] = (time.time(), reports_success(event))
        except Exception as error:  # noqa: BLE001 - counted
            self.failed[job] = f"{type(error).__name__}: {error}"
        if len(self.reported) + len(self.failed) == self.case.jobs:
            self._all_over.set()


def over_budgets(calls: Iterable[tuple[float, str]]) -> int:
    """How many of these calls, each with its operation, AWS would have refused."""
    times: dict[str, list[float]] = defaultdict(list)
    for when, operation in calls:
        times[operation].append(when)
    return sum(over_budget(each, *BUDGETS[operation]) for operation, each in times.items())


async def measure_cold(case: Case, port: int, texts: Sequence[str]) -> dict[str, Any]:
    """Start all waits at once in a process that has made no client yet, as a triggerer does when it restarts.

    What is loaded once counts: it comes in the same moment.
    """
    import airflow.triggers.base  # noqa: F401 - a triggerer has loaded Airflow before

    heart = Heart()
    heart.start()
    before = await memory(heart)
    began, cpu = time.time(), time.process_time()
    waits = Waits(case, texts)
    await waits.start_all()
    created = time.time() - began
    polled = await control(port, "wait", case.longest_start)
    start_cpu, start_stall = time.process_time() - cpu, heart.worst()
    wait_kb = (await memory(heart) - before) / case.jobs
    early = len(waits.reported)
    ends = await waits.end_all(port)
    counted = await control(port, "report")
    await waits.stop()
    return {
        **asdict(case),
        "created_s": created,
        "all_looked_at_s": polled["last"] - began if polled["asked"] == case.jobs else None,
        "looked_at": polled["asked"],
        "cpu_ms_per_start": start_cpu / case.jobs * 1000,
        "kb_per_wait": wait_kb,
        "stall_ms": {"start": start_stall[0]},
        "collecting_ms": {"start": start_stall[1]},
        "connections": counted["connections"],
        **waits.outcome(ends, early),
    }


async def measure(case: Case, port: int) -> dict[str, Any]:
    """Measure the case on the endpoint at `port`."""
    waits = Waits(case, [packed_arguments(case, job) for job in range(case.jobs + 1)])

    # What is loaded once, whatever the number of waits, is no part of the cost of one.
    cold, cold_at = memory_kb(), time.process_time()
    warm = waits.start(case.jobs)
    await control(port, "wait", warm=case.jobs)
    await asyncio.sleep(min(1.0, case.idle))
    warm.cancel()
    await asyncio.wait([warm])
    once_kb, once_cpu = memory_kb() - cold, time.process_time() - cold_at

    heart = Heart()
    heart.start()
    idle_cpu = time.process_time()
    await asyncio.sleep(case.idle)
    idle_cpu = (time.process_time() - idle_cpu) / case.idle
    before = await memory(heart)
    began, cpu = time.time(), time.process_time()
    await waits.start_all()
    created = time.time() - began
    polled = await control(port, "wait", case.longest_start)
    start_cpu, start_stall = time.process_time() - cpu, heart.worst()

    await asyncio.sleep(case.settle)
    await control(port, "measure", on=True)
    await rest(heart)
    steady_from, cpu = time.time(), time.process_time()
    await asyncio.sleep(case.steady)
    steady_to, steady_cpu, steady_stall = time.time(), time.process_time() - cpu, heart.worst()
    polls = await control(port, "measure", on=False)
    wait_kb = (await memory(heart) - before) / case.jobs
    early = len(waits.reported)

    cpu = time.process_time()
    ends = await waits.end_all(port)
    end_cpu, end_stall = time.process_time() - cpu, heart.worst()
    counted = await control(port, "report")
    await waits.stop()

    calls = [(when, operation, answer) for when, operation, answer in counted["calls"] if when >= began]
    times = [when for when, _, _ in calls]
    well = [when for when, _, answer in calls if answer == "ok"]
    window = steady_to - steady_from
    steady_calls = within(times, steady_from, steady_to)
    return {
        **asdict(case),
        "created_s": created,
        "all_looked_at_s": polled["last"] - began if polled["asked"] == case.jobs else None,
        "looked_at": polled["asked"],
        "cpu_ms_per_start": start_cpu / case.jobs * 1000,
        "cpu_s_per_minute": steady_cpu / window * 60,
        "idle_cpu_s_per_minute": idle_cpu * 60,
        "cpu_ms_per_end": end_cpu / case.jobs * 1000,
        "kb_per_wait": wait_kb,
        "once_kb": once_kb,
        "once_cpu_ms": once_cpu * 1000,
        "stall_ms": {"start": start_stall[0], "steady": steady_stall[0], "end": end_stall[0]},
        "collecting_ms": {"start": start_stall[1], "steady": steady_stall[1], "end": end_stall[1]},
        "calls_per_minute": steady_calls / window * 60,
        "calls_per_wait_and_minute": steady_calls / window * 60 / case.jobs,
        "answered_per_second": within(well, steady_from, steady_to) / window,
        "between_looks_s": {**spread(polls["gaps"]), "max": max([*polls["gaps"], *polls["since"]])},
        "calls": len(calls),
        "throttled": len(calls) - len(well),
        "over_budget": over_budgets((when, operation) for when, operation, _ in calls),
        "events_sent": counted["events"],
        "lies_sent": counted["lies"],
        **waits.outcome(ends, early),
    }


def arguments_from_elsewhere(case: Case) -> Sequence[str]:
    """The arguments of all triggers, made by another process: making them loads what a triggerer has not."""
    command = [sys.executable, "-m", "watching.one", json.dumps(asdict(case)), "pack"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-case.jobs :]


def main() -> None:
    """Measure the case that the command line describes."""
    case, port = Case(**json.loads(sys.argv[1])), sys.argv[2]
    if port == "pack":
        print("\n".join(packed_arguments(case, job) for job in range(case.jobs)))
    elif case.cold:
        print(json.dumps(asyncio.run(measure_cold(case, int(port), arguments_from_elsewhere(case)))))
    else:
        print(json.dumps(asyncio.run(measure(case, int(port)))))


if __name__ == "__main__":
    main()
