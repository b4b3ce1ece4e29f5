"""A model of Airflow around `reconcile` and `after_poll`, in which everything may go wrong at any time.

`play` makes one random history of one task instance: tries, retries, deferrals, returns from them, clears,
marks, workers that die before or after the effect of any call, stale tries that work on beside
their successor, triggerers that restart, and a service that lists late, forgets, throttles, loses answers and
refuses. Then the faults end, and the history is played to its end.

The eight invariants of ``docs/design/core.md`` are the functions `invariant_1` to `invariant_8`. Each tells
in code where it has exceptions; each exception is one that the documentation names.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from whole_core import REAL, Translated

from airflow_resilient.core.job import CLOCK_SKEW, Cause, Claim, Job, Phase
from airflow_resilient.core.polling import PollPolicy, Wait, after_poll
from airflow_resilient.core.retry import doubling
from airflow_resilient.core.service import DEFAULT_BUDGET, NoCapacityMarker, RemoteService
from airflow_resilient.core.waiting import wait_for
from airflow_resilient.testing.in_memory_jobs import (
    AnswerLost,
    Crash,
    InMemoryJobs,
    JobPlan,
    RealJob,
    Throttled,
)
from airflow_resilient.watching.budget import Bucket
from airflow_resilient.watching.plan import plan

TASK_KEY = "abcdefghijklmnop"
SOMEBODY_ELSE = Claim("ponmlkjihgfedcba", 1)
QUIET = logging.getLogger("airflow_resilient.tests.world")
QUIET.disabled = True
TRANSIENT = (Throttled, AnswerLost)
START = 1_800_000_000.0


@dataclass(frozen=True)
class Rules:
    """The kind of world. Probabilities are per call, or per step of the history."""

    tokens: bool = True
    lag: float = 5.0
    unknown_for: float = 0.0
    forget_after: float | None = 3600.0
    on_kill: bool = True
    retries: int = 3
    timeout: float | None = None
    on_timeout: str = "cancel"
    reattach: bool = False
    infrastructure_retries: int = 2
    no_capacity: float = 0.0
    crash: float = 0.03
    throttle: float = 0.05
    lose: float = 0.05
    goes_stale: float = 0.0
    clears: int = 2
    marks: int = 0
    deletions: int = 0
    user_stops: float = 0.0
    infrastructure: float = 0.15
    application: float = 0.15
    cancel_seconds: float = 20.0
    triggerer_failures: float = 0.1
    broken_deploys: float = 0.0
    retries_change: float = 0.0
    workers_default: int | None = None  # `retries` as workers read it, where their configuration differs
    made_up_xcoms: float = 0.0
    bystanders: float = 0.0
    in_worker: bool = False  # it waits in its process, not deferred
    steps: int = 60


class Paused(BaseException):
    """Raised into a visit that is to go on later."""


class Visit(RemoteService):
    """One visit of a try to a worker, which can be stopped at any call and go on later.

    It goes on by running again from its beginning while what the world answered so far is played back. That
    this works is a property of `reconcile`, too: the same answers lead to the same calls.
    """

    def __init__(self, world: World, memory: Any, *, first_visit: bool) -> None:
        self.world = world
        self.core = world.core
        self.owner = world.owner()
        self.generation, self.incarnation = world.generation, world.incarnation
        self.memory, self.first_visit = memory, first_visit
        self.is_current = True
        self.began = world.now()
        self.batch_size, self.listing_lag = world.service.batch_size, world.service.listing_lag
        self._answers: list[tuple[str, Any, BaseException | None]] = []
        self._position = 0
        self._budget = 0

    def go_on(self, calls: int) -> tuple[Any, Any] | None:
        """Let it make some calls; its result when it has ended."""
        self._position, self._budget, self.asked_whether_stale = 0, calls, False
        runtime = REAL.Runtime(self._now, self._sleep, self._random, QUIET)
        try:
            return self.core.reconcile(
                self,
                self.owner,
                self.memory,
                self.world.policy,
                runtime,
                deadline=self.world.deadline(self.memory),
                first_visit=self.first_visit,
                still_ours=self._still_ours,
            )
        except Paused:
            return None

    def _through(self, name: str, effect: Callable[[], Any], *, free: bool = False) -> Any:
        if self._position == len(self._answers):
            if not free:
                if self._budget <= 0:
                    raise Paused
                self._budget -= 1
            self.world.actor = self
            try:
                self._answers.append((name, effect(), None))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
                self._answers.append((name, None, error))
            if len(self._answers) > 400:
                self.world.violate("8: a visit does not end")
                raise Crash
        expected, answer, error = self._answers[self._position]
        assert expected == name, (
            f"reconcile called {name} where it had called {expected} before, with the same answers"
        )
        self._position += 1
        if error:
            raise error
        return answer

    def _now(self) -> float:
        return self._through("now", self.world.service.now, free=True)

    def _random(self) -> float:
        return self._through("random", self.world.random.random, free=True)

    def _still_ours(self) -> bool:
        """What Airflow tells: the state of the task instance, which is that of a stale try's successor."""
        self.asked_whether_stale = True
        return self._through(
            "still_ours", lambda: self.world.state in ("running", "success", "failed"), free=True
        )

    def _sleep(self, seconds: float) -> None:
        self._through("sleep", lambda: self.world.service.advance(seconds))

    def find(self, claims: Any) -> list[Job]:
        return self._through("find", lambda: self.world.asked.find(claims))

    def submit(self, claim: Claim) -> Job:
        return self._through("submit", lambda: self.world.asked.submit(claim))

    def observe(self, jobs: Any) -> list[Job]:
        return self._through("observe", lambda: self.world.asked.observe(jobs))

    def cancel(self, job: Job, reason: str) -> Job:
        def effect() -> Job:
            invariant_5_at_cancel(self.world, self, job, reason)
            return self.world.asked.cancel(job, reason)

        return self._through("cancel", effect)

    def is_transient(self, error: Exception) -> bool:
        return self.world.service.is_transient(error)

    def address(self) -> dict[str, Any]:
        return self.world.service.address()


@dataclass
class Submission:
    """Which visit started a real job; `was_current`: no later try had begun."""

    generation: int
    incarnation: int
    was_current: bool


@dataclass
class World:
    """One task instance, its Airflow and its service."""

    rules: Rules
    random: random.Random
    core: Any
    violations: list[str] = field(default_factory=list)
    story: list[Any] = field(default_factory=list)
    # the task instance
    state: str = "scheduled"
    try_number: int = 0
    max_tries: int = 0
    stored: str = ""  # what the try remembers, as JSON: XCom and the trigger's keywords
    trigger_jobs: tuple[Job, ...] = ()
    trigger_until: float | None = None
    memory: Any = None  # of a try that waits in the worker: it dies with its process
    observed: dict[str, Job] = field(default_factory=dict)
    waits: dict[str, Wait] = field(default_factory=dict)
    visit: Visit | None = None
    zombies: list[Visit] = field(default_factory=list)
    run_started: float = START
    try_ended_because: str = ""
    restarted: bool = False
    retries: int = 0
    try_started: float = START
    made_up: bool = False
    trigger_failed: bool = False
    generation_at_clear: str = ""
    judged: str = ""  # the generation, as the visit knew it that has come to its end
    # what the invariants need to know
    generation: int = 0
    incarnation: int = 0
    cleared_at: float = 0.0
    clears: int = 0
    marks: int = 0
    deletions: int = 0
    calm: bool = False
    held_up: float = 0.0
    submissions: dict[str, Submission] = field(default_factory=dict)
    stopped_by_user: set[str] = field(default_factory=set)
    excused_cancels: set[str] = field(default_factory=set)
    actor: Visit | None = None

    def __post_init__(self) -> None:
        rules = self.rules
        self.max_tries = self.retries = rules.retries
        self.policy = self.core.Policy(
            infrastructure_retries=rules.infrastructure_retries,
            on_timeout=rules.on_timeout,
            cancel_grace=120.0,
            max_backoff=60.0,
        )
        self.poll_policy = PollPolicy(
            interval=60.0, max_backoff=60.0, lost_after_polls=3, lost_after_seconds=60.0
        )
        self.bucket = Bucket.full(DEFAULT_BUDGET)
        self.service = InMemoryJobs(
            tokens=rules.tokens,
            lag=rules.lag,
            unknown_for=rules.unknown_for,
            forget_after=rules.forget_after,
            cancel_seconds=rules.cancel_seconds,
            seconds=self._plan,
            call_seconds=0.2,
            clock=lambda: START,
            interfere=self._interfere,
        )
        self.asked = Translated(self.service, self.core)

    # -- chance

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability

    def _plan(self, claim: Claim) -> JobPlan:
        queued = self.random.choice((0.0, 5.0, 40.0))
        seconds = self.random.choice((3.0, 30.0, 90.0, 300.0))
        kind = self.random.random()
        if kind < self.rules.infrastructure:
            return JobPlan(seconds, queued, Phase.FAILED, Cause.INFRASTRUCTURE)
        if kind < self.rules.infrastructure + self.rules.application:
            return JobPlan(seconds, queued, Phase.FAILED)
        return JobPlan(seconds, queued)

    def _interfere(self, method: str, moment: str) -> None:
        actor, rules = self.actor, self.rules
        if moment == "after" and method == "submit" and actor:
            for real in ours(self, self.service.history):
                if real.id in self.submissions:
                    continue
                self.submissions[real.id] = Submission(actor.generation, actor.incarnation, actor.is_current)
                self.record("started", real.id, real.claim.token, "current" if actor.is_current else "zombie")
        if self.calm:
            return
        if moment == "before":
            if self.chance(rules.throttle):
                self.record(method, "throttled")
                raise Throttled
            if method == "submit" and self.chance(rules.no_capacity):
                self.record("no capacity")
                raise NoCapacityMarker
        elif self.chance(rules.lose):
            self.record(method, "answer lost")
            raise AnswerLost
        if actor and self.chance(rules.crash):
            self.record("crash", moment, method)
            raise Crash

    def record(self, *words: Any) -> None:
        self.story.append((round(self.now() - START, 1), self.try_number, *words))

    def violate(self, what: str) -> None:
        self.record("VIOLATED", what)
        self.violations.append(what)

    def now(self) -> float:
        return self.service.now()

    # -- what the operator hands to reconcile

    def owner(self) -> Any:
        retries = self.retries if self.rules.workers_default is None else self.rules.workers_default
        since = min(max(0, self.max_tries - retries), self.try_number - 1)
        return self.core.Owner(
            TASK_KEY,
            self.try_number,
            since,
            self.run_started,
            self.rules.reattach,
            self.restarted,
            self.core.generation_of(self.max_tries, retries),
        )

    def deadline(self, memory: Any) -> float | None:
        return None if self.rules.timeout is None else memory.started + self.rules.timeout

    def recalled(self) -> Any:
        return self.core.Memory.from_dict(json.loads(self.stored))

    def recalled_from_xcom(self) -> Any:
        """The memory as the operator reads it when the trigger has brought nothing back."""
        stored = self.stored
        if self.chance(self.rules.made_up_xcoms):
            self.made_up = True
            stored = self._made_up()
            self.record("made up", stored)
        memory = self.core.Memory.recall(json.loads(stored), self.owner())
        if memory is None:
            return self.core.Memory(started=self.try_started, unproved=True)
        return replace(memory, started=min(memory.started, self.try_started))

    def _made_up(self) -> str:
        """An XCom that somebody else has written: nonsense, or jobs that are not as it says."""
        choice = self.random.choice
        if self.chance(0.3):
            return json.dumps(choice(["", 5, [], {}, {"seen": [1]}, {"started": "now", "seen": []}]))
        ids = [real.id for real in self.service.history] + ["made-up"]
        claims = [Claim(TASK_KEY, number, 0, choice(["", "3.3", "x"])) for number in (1, 2, 9)] + [
            SOMEBODY_ELSE
        ]
        jobs = [
            Job(choice(ids), choice(claims), choice(list(Phase)), choice([0.0, self.now()]), "memory")
            for _ in range(choice([0, 1, 3]))
        ]
        memory = {**json.loads(self.stored), "seen": [job.to_dict() for job in jobs]}
        return json.dumps(
            {**memory, "own_job_ids": ids, "unproved": False, "overdue_since": choice([None, 0.0])}
        )

    # -- one step of the history

    def step(self) -> None:
        if self.zombies and self.chance(0.6):
            self._zombie_step(self.random.choice(self.zombies))
        if self.chance(0.15) and self._user_acts():
            return
        if not self.calm and self.chance(self.rules.retries_change):
            self.retries = self.random.choice((0, 1, 2, 3, 5))
            self.record("retries", self.retries)
        if not self.calm and self.chance(self.rules.bystanders):
            number = len(self.service.history)
            self.service.history.append(
                RealJob(f"other-{number}", Claim(f"{number:016}", 1), "memory", self.now(), JobPlan(None))
            )
        getattr(self, f"_when_{self.state}")()

    def _when_scheduled(self) -> None:
        self.service.advance(self.random.choice((0.0, 1.0, 10.0)))
        self.try_number += 1
        self.stored, self.held_up, self.restarted, self.made_up = "", 0.0, False, False
        self.try_started = self.now()
        self.record("try", self.try_number, "max_tries", self.max_tries)
        self.state = "running"
        self.visit = Visit(self, self.core.Memory(started=self.now()), first_visit=True)

    _when_up_for_retry = _when_scheduled

    def _when_resuming(self) -> None:
        delay = self.random.choice((0.0, 1.0, 10.0))
        self.service.advance(delay)
        if not self.calm and self.chance(self.rules.broken_deploys):
            self._begin_again()
            return
        self.held_up += delay
        if self.trigger_failed:
            memory, self.trigger_failed = self.recalled_from_xcom(), False
        else:
            memory = self.recalled().update(self.observed.values())
        self.state = "running"
        self.visit = Visit(self, memory, first_visit=False)

    def _begin_again(self) -> None:
        """The worker cannot load the DAG: Airflow begins the same try again, a minute later."""
        self.record("restarted")
        # Nobody remembers who stopped what was stopped.
        self.excused_cancels |= {real.id for real in self.service.history if real.stop_asked is not None}
        self.service.advance(60.0)
        self.stored, self.held_up, self.restarted = "", 0.0, True
        self.try_started = self.now()
        self.state = "running"
        self.visit = Visit(self, self.core.Memory(started=self.now()), first_visit=True)

    def _when_running(self) -> None:
        visit = self.visit
        assert visit is not None
        interleaved = self.rules.goes_stale > 0 and not self.calm
        if interleaved and self.chance(self.rules.goes_stale):
            self.record("stale worker")
            visit.is_current = False
            self.zombies.append(visit)
            self._fail_try("stale worker")
            return
        try:
            result = visit.go_on(1 if interleaved else 1000)
        except Crash:
            self._fail_try("crash")
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
            self.violate(f"7: {type(error).__name__} {error} came out of reconcile and costs a try")
            self._fail_try("error")
            return
        if result is None:
            return
        if not self.calm and self.chance(self.rules.crash):
            self.record("crash before the verdict was stored")
            self._fail_try("crash")
            return
        self._take_verdict(*result)

    def _take_verdict(self, memory: Any, verdict: Any) -> None:
        core = self.core
        assert self.visit is not None
        self.judged, self.visit = self.visit.owner.generation, None
        self.stored = json.dumps(memory.to_dict())
        assert self.recalled() == memory
        self.record(type(verdict).__name__, verdict.why)
        if isinstance(verdict, core.Watch):
            deadline = self.deadline(memory)
            if memory.overdue_since is not None:
                deadline = memory.overdue_since + self.policy.cancel_grace
            self._defer(memory, verdict.jobs, deadline)
        elif isinstance(verdict, core.Pause):
            self._defer(memory, (), self.now() + verdict.seconds)
            self.held_up += verdict.seconds
        elif isinstance(verdict, core.Finish) and self.made_up and verdict.job.phase is not Phase.SUCCEEDED:
            # Whoever can write XComs can make a try fail: that costs a retry, and no result is wrong.
            self._fail_try("verdict", memory, verdict)
        elif isinstance(verdict, core.Finish) and verdict.job.id not in self.submissions:
            self.violate(f"6: {verdict.job.id} was reported, which nobody has submitted for us")
            self._fail_try("verdict", memory, verdict)
        elif isinstance(verdict, core.Finish):
            invariant_3(self, verdict.job)
            invariant_5_at_end(self, verdict.job)
            invariant_6(self, verdict.job)
            if verdict.job.phase is Phase.SUCCEEDED:
                self._end("success", "verdict", memory, verdict)
            elif verdict.job.phase is Phase.CANCELLED:
                self._end("failed", "verdict", memory, verdict)
            else:
                self._fail_try("verdict", memory, verdict)
        else:
            if (
                isinstance(verdict, core.OutOfCapacity)
                and memory.refusals <= self.policy.infrastructure_retries
            ):
                self.violate("7: reported no capacity before the budget was spent")
            self._fail_try("verdict", memory, verdict)

    def _defer(self, memory: Any, jobs: tuple[Job, ...], until: float | None) -> None:
        self.state = "waiting" if self.rules.in_worker else "deferred"
        self.memory = memory
        self.trigger_failed = False
        self.trigger_jobs, self.trigger_until = jobs, until
        self.observed = {job.id: job for job in jobs}
        self.waits = {}

    def _fail_try(self, why: str, memory: Any = None, verdict: Any = None) -> None:
        self.visit = None
        if self.try_number <= self.max_tries:
            invariant_8(self, memory)
            self.state, self.try_ended_because = "up_for_retry", why
            self.record("up for retry:", why)
        else:
            self._end("failed", why, memory, verdict)

    def _end(self, state: str, why: str, memory: Any = None, verdict: Any = None) -> None:
        self.visit = None
        self.state, self.try_ended_because = state, why
        self.record(state, why)
        invariant_8(self, memory)
        if why == "verdict":
            invariant_4(self, memory, verdict)

    # -- a worker that waits

    def _when_waiting(self) -> None:
        """Wait in the process of the try, which has its memory; it may die or be stopped meanwhile."""
        if not self.calm and self.chance(self.rules.triggerer_failures):
            self.record("worker stopped")
            self._fail_try("worker stopped")
            return
        seconds = self.random.choice((10.0, 1e9, 1e9))  # somebody may act before it is over
        until = min(self.now() + seconds, self.trigger_until or 1e12)
        sleep = self.service.advance
        try:
            if self.trigger_jobs:
                self.actor = Visit(self, self.memory, first_visit=False)  # it may crash at any call
                runtime = REAL.Runtime(self.service.now, sleep, self.random.random, QUIET)
                waited = wait_for(self.asked, self.trigger_jobs, self.poll_policy, runtime, until=until)
                assert waited.refused is None
                self.observed = {job.id: job for job in waited.jobs}
            else:
                sleep(max(0.0, until - self.now()))
        except Crash:
            self._fail_try("crash")
            return
        self.trigger_jobs = tuple(self.observed.values())
        over = self.trigger_jobs and not any(job.live for job in self.trigger_jobs)
        if over or (self.trigger_until is not None and self.now() >= self.trigger_until):
            self.state = "running"
            memory = self.memory.update(self.observed.values())
            self.visit = Visit(self, memory, first_visit=False)

    # -- the triggerer

    def _when_deferred(self) -> None:
        if not self.calm and self.chance(self.rules.triggerer_failures):
            kind = self.random.choice(("restart", "down", "fail"))
            self.record("triggerer", kind)
            if kind == "fail":  # the trigger timed out or crashed: the resume has no event
                self.observed = {}
                self.trigger_failed = True
                self.state = "resuming"
                return
            self.waits, self.observed = {}, {job.id: job for job in self.trigger_jobs}
            if kind == "down":
                down = self.random.choice((30.0, 300.0, 4000.0))
                self.service.advance(down)
                self.held_up += down
        self._run_trigger(self.random.choice((10.0, 60.0, 600.0)))

    def _run_trigger(self, seconds: float) -> None:
        """Watch for some time; an event makes the task instance resume."""
        self.actor = None
        end = self.now() + seconds
        errors = 0
        for job in self.observed.values():
            if job.live and job.id not in self.waits:
                self.waits[job.id] = Wait(job, self.poll_policy, self.now(), self.now())
        while True:
            now = self.now()
            until = self.trigger_until
            if until is not None and now >= until:
                self.record("time is up")
                self.state = "resuming"
                return
            if self.trigger_jobs and not any(job.live for job in self.observed.values()):
                self.state = "resuming"
                return
            if now >= end:
                return
            open_waits = [wait for wait in self.waits.values() if wait.job.live]
            planned = plan(now, open_waits, {DEFAULT_BUDGET: self.bucket}, size=self.service.batch_size)
            sleep, batches = planned.sleep, [batch.jobs for batch in planned.batches]
            for batch in batches:
                try:
                    answers = {job.id: job for job in self.asked.observe(batch)}
                except TRANSIENT:
                    errors += 1
                    sleep = doubling(self.poll_policy.first_interval, errors, self.poll_policy.max_backoff)
                    break
                errors = 0
                for job in batch:
                    wait = after_poll(self.waits[job.id], answers.get(job.id), self.now(), len(batch))
                    if wait.job.phase is not self.observed[job.id].phase:
                        self.record("seen", job.id, wait.job.phase.value)
                    self.waits[job.id], self.observed[job.id] = wait, wait.job
            else:
                sleep = 0.0 if batches else sleep
            limits = [limit for limit in (until, end) if limit is not None]
            self.service.advance(max(0.0, min([sleep, *(limit - self.now() for limit in limits)])))

    def _on_kill(self) -> bool:
        """What the trigger does when a person acted. Whether every live job that it watched was cancelled."""
        if not self.rules.on_kill or self.chance(0.2):  # before 3.3, or the triggerer is down at this moment
            return False
        self.actor = None
        for job in self.observed.values():
            if not job.live:
                continue
            for _ in range(4):
                try:
                    self.service.cancel(job, "killed by a person")
                    self.record("on_kill", job.id)
                    break
                except TRANSIENT:
                    continue
            else:
                return False
        return True

    # -- people

    def _user_acts(self) -> bool:
        if self.calm:
            return False
        if self.rules.user_stops and self.chance(self.rules.user_stops):
            live = self.service.live()
            if live:
                real = self.random.choice(live)
                self.record("stopped by a person", real.id)
                self.service.finish(real, Phase.CANCELLED)
                self.stopped_by_user.add(real.id)
                return True
        if (
            self.clears < self.rules.clears
            and self.state not in ("scheduled", "running", "waiting")
            and self.chance(0.5)
        ):
            self.clears += 1
            self.clear()
            return True
        if self.marks < self.rules.marks and self.state in ("deferred", "waiting") and self.chance(0.5):
            self.marks += 1
            self.mark()
            return True
        if self.deletions < self.rules.deletions and self.chance(0.3):
            self.deletions += 1
            self.delete()
            return True
        return False

    def clear(self) -> None:
        self.record("cleared when", self.state)
        self._count_invariant_2()
        if self.state == "deferred" and not self.rules.reattach:
            self._on_kill()
        self.max_tries = self.try_number + self.retries
        self.generation_at_clear = self.core.generation_of(self.max_tries, self.retries)
        self.generation += 1
        self.cleared_at = self.now()
        self.state = "scheduled"

    def mark(self) -> None:
        state = self.random.choice(("success", "failed"))
        self.record("marked", state)
        killed = self._on_kill()
        self.state, self.try_ended_because = state, "marked"
        if killed:
            invariant_4_after_mark(self)

    def delete(self) -> None:
        """The DAG run is deleted, and made again under the same id somewhat later."""
        self.record("run deleted when", self.state)
        if self.state in ("deferred", "waiting") and not self.rules.reattach:
            self._on_kill()
        if self.visit:
            self.visit.is_current = False
            self.zombies.append(self.visit)
            self.visit = None
        self.service.advance(self.random.choice((1.0, 100.0, 400.0)))
        self.run_started = self.now()
        self.try_number, self.max_tries, self.stored = 0, self.retries, ""
        self.generation += 1
        self.incarnation += 1
        self.cleared_at = self.now()
        self.state = "scheduled"

    def _zombie_step(self, zombie: Visit) -> None:
        try:
            done = zombie.go_on(1)
        except Crash:
            done = True
        except Exception as error:  # noqa: BLE001 - whatever it is, it is judged
            self.violate(f"7: {type(error).__name__} {error} came out of reconcile")
            done = True
        if done:
            self.zombies.remove(zombie)
            self.record("zombie is gone")

    def _when_success(self) -> None:
        self.service.advance(self.random.choice((10.0, 100.0, 4000.0)))

    _when_failed = _when_success

    def _count_invariant_2(self) -> None:
        invariant_2(self)


# --- the invariants -------------------------------------------------------------------------------


def of_zombie(world: World, real: RealJob) -> bool:
    return not world.submissions[real.id].was_current


def ours(world: World, jobs: Iterable[RealJob]) -> list[RealJob]:
    """Those of the jobs that are of this task instance."""
    return [real for real in jobs if real.claim.task_key == TASK_KEY]


def ambiguous(first: str, second: str) -> bool:
    """Whether two generations can be one or two: ``max_tries`` is the same, and ``retries`` is not."""
    return first != second and first.split(".", maxsplit=1)[0] == second.split(".", maxsplit=1)[0]


def excused(world: World, first: RealJob, second: RealJob) -> bool:
    """Whether two jobs of one task instance may have lived at once, or both have succeeded.

    * Another incarnation of the DAG run: the deleted one's jobs belong to nobody (the orphan sweep finds
      them).
    * A stale try submitted one of them. Without tokens nothing distinguishes it from its
      successor's. With tokens both come to one claim as long as they know the same: not when a clear lies
      between them, or when a job had ended before the later submission, so that one of them counts on.
    * `retries` has changed in such a way that a clear can have led to the same ``max_tries``.
    """
    a, b = world.submissions[first.id], world.submissions[second.id]
    if a.incarnation != b.incarnation or ambiguous(first.claim.generation, second.claim.generation):
        return True
    if a.was_current and b.was_current:
        return False
    if not world.rules.tokens or a.generation != b.generation:
        return True
    later = max(first.created, second.created)
    return any(
        other.ended(later) and world.submissions[other.id].generation == a.generation
        for other in ours(world, world.service.history)
    )


def invariant_1(world: World) -> None:
    """Never two live jobs of one task instance, once listings have caught up."""
    for first, second in world.service.overlaps():
        if not excused(world, first, second):
            world.violate(f"1: {first.id} and {second.id} lived at once")


def invariant_2(world: World) -> None:
    """At most one SUCCEEDED job per task instance between two clears.

    Except where the service had forgotten the first one before it was observed.
    """
    now = world.now()
    good = [
        real
        for real in ours(world, world.service.history)
        if real.ended(now) and real.observe(now).phase is Phase.SUCCEEDED
    ]
    for first, second in combinations(good, 2):
        if world.submissions[first.id].generation != world.submissions[second.id].generation:
            continue
        forget_after = world.rules.forget_after
        forgotten = forget_after is not None and (first.ends or 0.0) + forget_after <= second.created
        if not forgotten and not excused(world, first, second):
            world.violate(f"2: {first.id} and {second.id} both succeeded")


def invariant_3(world: World, job: Job) -> None:
    """A clear is honoured: the result reported comes from a job submitted after it.

    Except with ``on_clear="reattach"`` for a job that lived at the clear or when the run was made again, and
    for a DAG run that was deleted and made again within CLOCK_SKEW of a submission, which then counts as its
    own. And except where `retries` was lowered by as many as there were tries, so that a clear left
    ``max_tries`` as it was, and where besides `retries` was as low when the job was submitted, or was changed
    after the clear.
    """
    for other in ours(world, world.service.history):
        made = world.run_started - CLOCK_SKEW <= other.created < world.run_started
        if made and world.submissions[other.id].incarnation != world.incarnation:
            return
    submission, real = world.submissions[job.id], world.service.real(job)
    if submission.generation == world.generation:
        return
    reattached = world.rules.reattach and not real.ended(world.cleared_at)
    now, then = world.judged, real.claim.generation
    same_max_tries = now.split(".")[0] == then.split(".")[0]
    retries_changed_since_clear = now != world.generation_at_clear
    reattached = reattached or (same_max_tries and (retries_changed_since_clear or now == then))
    if submission.incarnation != world.incarnation:
        if real.created < world.run_started - CLOCK_SKEW and not reattached:
            world.violate(f"3: {job.id} of a deleted run was reported")
    elif not reattached:
        world.violate(f"3: {job.id} from before the clear was reported")


def invariant_4(world: World, memory: Any, verdict: Any) -> None:
    """No live job after the task instance has ended by a verdict, except where the user asked to leave it.

    Except jobs that ignored the cancel for all of `cancel_grace`, submissions whose fate was still unknown
    then (the error says both), and jobs of stale tries and of deleted runs.
    """
    if isinstance(verdict, world.core.TimedOut):
        over = (
            memory.overdue_since is not None
            and world.now() >= memory.overdue_since + world.policy.cancel_grace
        )
        if world.rules.on_timeout == "leave" or over or verdict.why == world.core.TAKEN_OVER:
            return
    for real in ours(world, world.service.live()):
        submission = world.submissions[real.id]
        if submission.was_current and submission.incarnation == world.incarnation:
            world.violate(f"4: {real.id} lives after the end: {verdict.why}")


def invariant_4_after_mark(world: World) -> None:
    """The same, after a person marked the task instance and its trigger noticed it."""
    for real in ours(world, world.service.live()):
        submission = world.submissions[real.id]
        mine = submission.was_current and submission.incarnation == world.incarnation
        if mine and real.stop_asked is None and real.id in world.observed:
            world.violate(f"4: {real.id} lives on after a mark that on_kill noticed")


def invariant_5_at_cancel(world: World, visit: Visit, job: Job, reason: str) -> None:  # noqa: C901, PLR0912 - one rule with its exceptions
    """No job is cancelled that some try still wants.

    The current try cancels only jobs of an earlier generation, duplicates, and overdue jobs; a stale try
    cancels nothing that its successor waits for. Except at the deadline of a stale try that has asked Airflow
    and was told that the task instance runs, which can be its successor; a try of a deleted run that still
    works when the run is created again, and may make the new run's job look older; one of two jobs that are
    alive at the same time and `excused`; and a job of which `retries`, which has changed, does not tell
    whether a clear came after it.
    """
    core, service = world.core, world.service
    if job.claim.task_key != TASK_KEY:
        world.violate("5: a job without our claim was cancelled")
    if job.id not in world.submissions:
        return  # an XCom has made it up; `no_bystander_is_stopped` looks what became of it
    real, submission = service.real(job), world.submissions[job.id]
    if not visit.is_current:
        if reason == core.OVERDUE and not visit.asked_whether_stale:
            world.violate(f"5: a stale try cancelled {job.id} at its deadline without asking")
        if reason == core.OVERDUE or visit.incarnation != world.incarnation:
            world.excused_cancels.add(job.id)
            return
        own_job_ids = json.loads(world.stored)["own_job_ids"] if world.stored else []
        if (
            job.id not in own_job_ids
            or world.state not in ("deferred", "resuming")
            or real.ended(world.now())
        ):
            return
        doubled = any(
            other.id != real.id and excused(world, real, other) for other in ours(world, service.live())
        )
        if reason == core.DUPLICATE and doubled:
            world.excused_cancels.add(job.id)
        else:
            world.violate(f"5: a stale try cancelled {job.id}, which its successor waits for: {reason}")
    elif reason == core.SUPERSEDED:
        misled = any(  # by a try of a deleted run, which has submitted after the new run had begun
            world.submissions[other.id].incarnation != world.incarnation
            and other.created >= real.created >= world.run_started - CLOCK_SKEW
            and other.claim.number >= real.claim.number
            for other in ours(world, service.history)
        )
        if misled:
            return
        skewed = submission.incarnation == world.incarnation or world.rules.reattach
        skewed = skewed and not ambiguous(real.claim.generation, visit.owner.generation)
        if submission.generation == world.generation and skewed:
            world.violate(f"5: {job.id} is of this generation, and was cancelled as superseded")
    elif reason == core.DUPLICATE:
        others = [
            other
            for other in ours(world, service.history)
            if other is not real and not other.ended(visit.began)
        ]
        if not others and not real.ended(world.now()):
            world.violate(f"5: {job.id} was cancelled as a duplicate of nothing")
    elif visit.memory.started + (world.rules.timeout or 1e12) > world.now():
        world.violate(f"5: {job.id} was cancelled before its time: {reason}")


def invariant_5_at_end(world: World, job: Job) -> None:
    """The same at the end: a job that is reported as cancelled was stopped by a person, not by us."""
    real = world.service.real(job)
    if job.phase is not Phase.CANCELLED or job.id in world.stopped_by_user | world.excused_cancels:
        return
    if world.submissions[job.id].incarnation == world.incarnation:
        world.violate(f"5: {job.id} is reported as cancelled, and we did it: {real.stop_reason}")


def invariant_6(world: World, job: Job) -> None:
    """The state of the task instance equals the outcome of its job; unknown is never success."""
    real = world.service.real(job)
    truth = real.observe(world.now())
    if job.phase is Phase.LOST:
        forget_after = world.rules.forget_after
        if truth.live or forget_after is None or world.now() < (truth.ended or 0.0) + forget_after:
            world.violate(f"6: {job.id} is reported as lost, and the service knows it")
    elif truth.phase is not job.phase:
        world.violate(f"6: {job.id} is reported as {job.phase.value}, and is {truth.phase.value}")


def no_bystander_is_stopped(world: World) -> None:
    """Nobody else's job is touched."""
    for real in world.service.history:
        if real.claim.task_key != TASK_KEY and real.stop_asked is not None:
            world.violate(f"5: {real.id}, a job of somebody else, was stopped: {real.stop_reason}")


def invariant_7(world: World) -> None:
    """Tries are not wasted: errors of the network, of limits or of a triggerer use up no retry.

    Checked where a try ends: only a crash, a stale worker or a verdict about a job, the deadline or a spent
    budget may end one. Here: without any of them there is one try per generation.
    """
    rules = world.rules
    if not (
        rules.crash or rules.goes_stale or rules.infrastructure or rules.application or rules.no_capacity
    ):
        lost = rules.forget_after is not None or rules.timeout is not None or rules.user_stops
        if not lost and world.try_number > 1 + world.clears:
            world.violate(f"7: {world.try_number} tries, and no job has failed")


def invariant_8(world: World, memory: Any) -> None:
    """Everything ends: at the deadline at the latest, but for stopping and what Airflow held it up."""
    if memory is None or world.rules.timeout is None:
        return
    late = world.now() - memory.started - world.rules.timeout - world.policy.cancel_grace - world.held_up
    if late > 180.0:
        world.violate(f"8: the try ended {late:.0f} s too late")


# --- histories ------------------------------------------------------------------------------------


def play(rules: Rules, chance: random.Random, core: Any = REAL) -> World:
    """Play one history to its end and judge it."""
    world = World(rules, chance, core)
    for _ in range(rules.steps):
        world.step()
        if world.violations:
            return world
        if world.state in ("success", "failed") and world.clears >= rules.clears and not world.zombies:
            break
    world.calm = True
    while world.zombies:
        world._zombie_step(world.zombies[0])
    for _ in range(400):
        if world.state in ("success", "failed"):
            break
        world.step()
    else:
        world.violate(f"8: still {world.state} long after all faults have ended")
    invariant_1(world)
    invariant_2(world)
    invariant_7(world)
    no_bystander_is_stopped(world)
    return world


def worlds() -> dict[str, Rules]:
    """The kinds of world in which histories are played."""
    ecs = Rules(unknown_for=10.0)
    return {
        "a service with tokens, late listings and a short memory": ecs,
        "the same before Airflow 3.3": replace(ecs, on_kill=False),
        "a service without tokens and with exact listings": Rules(tokens=False, lag=0.0, forget_after=None),
        "a service without tokens and with late listings, before 3.3": Rules(tokens=False, on_kill=False),
        "a service that forgets at once": Rules(forget_after=200.0, clears=1),
        "many faults": Rules(throttle=0.3, lose=0.2, crash=0.08, retries=6),
        "deadlines": Rules(timeout=200.0, user_stops=0.1, throttle=0.2, cancel_seconds=60.0),
        "deadlines that leave the job": Rules(timeout=100.0, on_timeout="leave"),
        "reattach after a clear": Rules(reattach=True, clears=3),
        "deploys that break DAG files": Rules(broken_deploys=0.3, clears=1),
        "the same, without tokens and with deadlines": Rules(tokens=False, broken_deploys=0.3, timeout=400.0),
        "no capacity": Rules(no_capacity=0.4, infrastructure=0.3),
        "only infrastructure fails": Rules(
            infrastructure=0.5, application=0.0, crash=0.05, forget_after=300.0
        ),
        "nobody is to blame": Rules(
            crash=0.0,
            infrastructure=0.0,
            application=0.0,
            throttle=0.3,
            lose=0.3,
            forget_after=None,
            clears=1,
        ),
        "people who stop and mark": Rules(user_stops=0.4, marks=1, clears=2),
        "two at work at once, with tokens": Rules(goes_stale=0.1, clears=0, throttle=0.1, retries=4),
        "two at work at once, with tokens and clears": Rules(goes_stale=0.1, clears=2, timeout=300.0),
        "two at work at once, without tokens": Rules(tokens=False, goes_stale=0.1, clears=1),
        "retries that change": Rules(retries_change=0.15, clears=3, crash=0.08),
        "retries that change, without tokens and with deadlines": Rules(
            tokens=False, retries_change=0.15, clears=3, timeout=400.0
        ),
        "workers whose default of retries is another one": Rules(workers_default=0, clears=2, crash=0.08),
        "the same, the other way round": Rules(retries=1, workers_default=5, clears=2, crash=0.08),
        "XComs that others write": Rules(
            made_up_xcoms=0.7, bystanders=0.1, triggerer_failures=0.5, crash=0.0
        ),
        "the same, without tokens, with deadlines and clears": Rules(
            tokens=False, made_up_xcoms=0.7, bystanders=0.1, triggerer_failures=0.5, timeout=300.0, clears=3
        ),
        "a run that is made again eleven times": Rules(
            deletions=11, clears=0, retries=1, on_kill=False, forget_after=None, steps=200
        ),
        "waiting in the worker": Rules(in_worker=True, unknown_for=10.0),
        "waiting in the worker, with deadlines and marks": Rules(
            in_worker=True, timeout=300.0, marks=1, tokens=False, cancel_seconds=60.0
        ),
        "waiting in the worker, with many faults": Rules(
            in_worker=True, throttle=0.3, lose=0.2, crash=0.08, retries=6, no_capacity=0.2
        ),
        "waiting in the worker, runs deleted and made again": Rules(
            in_worker=True, deletions=1, clears=1, retries=2
        ),
        "runs deleted and made again": Rules(deletions=1, clears=1, retries=2),
        "runs deleted and made again, without tokens": Rules(tokens=False, deletions=1, clears=1, retries=2),
    }
