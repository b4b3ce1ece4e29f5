"""A model of Airflow around `reconcile` and `after_look`, in which everything may go wrong at any time.

`play` makes one random history of one task instance: tries, retries, deferrals, returns from them, clears,
marks, workers that die before or after the effect of any call, tries that lose their lease and work on beside
their successor, triggerers that restart, and a service that lists late, forgets, throttles, loses answers and
refuses. Then the trouble ends, and the history is played to its end.

The eight invariants of ``docs/design/core.md`` are the functions `invariant_1` to `invariant_8`. Each tells
in code where it has exceptions; each exception is one that the documentation names.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from mutants import Translated

from airflow_resilient import jobs as real_core
from airflow_resilient import watch
from airflow_resilient.budget import DEFAULT_BUDGET
from airflow_resilient.jobs import Cause, Claim, Job, NoRoom, Phase
from airflow_resilient.testing.memory import AnswerLost, Crash, InMemoryJobs, JobPlan, RealJob, Throttled

FAMILY = "abcdefghijklmnop"
QUIET = logging.getLogger("airflow_resilient.tests.world")
QUIET.disabled = True
TRANSIENT = (Throttled, AnswerLost)
START = 1_800_000_000.0


@dataclass(frozen=True)
class Rules:
    """What kind of world it is. Probabilities are per call, or per step of the history."""

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
    capacity_trouble: float = 0.0
    crash: float = 0.03
    throttle: float = 0.05
    lose: float = 0.05
    lose_lease: float = 0.0
    clears: int = 2
    marks: int = 0
    deletions: int = 0
    user_stops: float = 0.0
    infrastructure: float = 0.15
    application: float = 0.15
    cancel_seconds: float = 20.0
    triggerer_trouble: float = 0.1
    broken_deploys: float = 0.0
    steps: int = 60


class Paused(BaseException):
    """Raised into a visit that is to go on later."""


class Visit:
    """One visit of a try to a worker, which can be stopped at any call and go on later.

    It goes on by running again from its beginning while what the world answered so far is played back. That
    this works is a property of `reconcile`, too: the same answers lead to the same calls.
    """

    def __init__(self, world: World, memory: Any, *, fresh: bool) -> None:
        self.world = world
        self.core = world.core
        self.owner = world.owner()
        self.generation, self.incarnation = world.generation, world.incarnation
        self.memory, self.fresh = memory, fresh
        self.has_lease = True
        self.began = world.now()
        self.batch_size, self.listing_lag = world.service.batch_size, world.service.listing_lag
        self.is_transient, self.address = world.service.is_transient, world.service.address
        self._answers: list[tuple[str, Any, BaseException | None]] = []
        self._position = 0
        self._budget = 0

    def go_on(self, calls: int) -> tuple[Any, Any] | None:
        """Let it make some calls; its result when it has come to its end."""
        self._position, self._budget = 0, calls
        senses = real_core.Senses(self._now, self._sleep, self._random, QUIET)
        try:
            return self.core.reconcile(
                self,
                self.owner,
                self.memory,
                self.world.policy,
                senses,
                deadline=self.world.deadline(self.memory),
                fresh=self.fresh,
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
                self.world.violate("8: a visit does not come to its end")
                raise Crash
        told, answer, error = self._answers[self._position]
        assert told == name, (
            f"reconcile called {name} where it had called {told} before, with the same answers"
        )
        self._position += 1
        if error:
            raise error
        return answer

    def _now(self) -> float:
        return self._through("now", self.world.service.now, free=True)

    def _random(self) -> float:
        return self._through("random", self.world.random.random, free=True)

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


@dataclass
class Submission:
    """Who started a real job."""

    generation: int
    incarnation: int
    had_lease: bool


@dataclass
class World:
    """One task instance, its Airflow and its service."""

    rules: Rules
    random: random.Random
    core: Any = real_core
    violations: list[str] = field(default_factory=list)
    story: list[Any] = field(default_factory=list)
    # the task instance
    state: str = "scheduled"
    try_number: int = 0
    max_tries: int = 0
    stored: str = ""  # what the try remembers, as JSON: XCom and the trigger's keywords
    trigger_jobs: tuple[Job, ...] = ()
    trigger_until: float | None = None
    looks: dict[str, Job] = field(default_factory=dict)
    waits: dict[str, watch.Waiting] = field(default_factory=dict)
    visit: Visit | None = None
    zombies: list[Visit] = field(default_factory=list)
    run_started: float = START
    try_ended_because: str = ""
    restarted: bool = False
    # what a judge knows
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
        self.max_tries = rules.retries
        self.policy = self.core.Policy(
            infrastructure_retries=rules.infrastructure_retries,
            on_timeout=rules.on_timeout,
            cancel_grace=120.0,
            longest_backoff=60.0,
        )
        self.patience = watch.Patience(poll=60.0, longest=60.0, missing=3, missing_for=60.0)
        self.bucket = DEFAULT_BUDGET.bucket()
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
            for real in self.service.history[len(self.submissions) :]:
                self.submissions[real.id] = Submission(actor.generation, actor.incarnation, actor.has_lease)
                self.tell("started", real.id, real.claim.token, "with lease" if actor.has_lease else "zombie")
        if self.calm:
            return
        if moment == "before":
            if self.chance(rules.throttle):
                self.tell(method, "throttled")
                raise Throttled
            if method == "submit" and self.chance(rules.capacity_trouble):
                self.tell("no room")
                raise NoRoom
        elif self.chance(rules.lose):
            self.tell(method, "answer lost")
            raise AnswerLost
        if actor and self.chance(rules.crash):
            self.tell("crash", moment, method)
            raise Crash

    def tell(self, *words: Any) -> None:
        self.story.append((round(self.now() - START, 1), self.try_number, *words))

    def violate(self, what: str) -> None:
        self.tell("VIOLATED", what)
        self.violations.append(what)

    def now(self) -> float:
        return self.service.now()

    # -- what the operator hands to reconcile

    def owner(self) -> Any:
        since = min(max(0, self.max_tries - self.rules.retries), self.try_number - 1)
        return self.core.Owner(
            FAMILY, self.try_number, since, self.run_started, self.rules.reattach, self.restarted
        )

    def deadline(self, memory: Any) -> float | None:
        return None if self.rules.timeout is None else memory.started + self.rules.timeout

    def recalled(self) -> Any:
        return self.core.Memory.unpack(json.loads(self.stored))

    # -- one step of the history

    def step(self) -> None:
        if self.zombies and self.chance(0.6):
            self._zombie_step(self.random.choice(self.zombies))
        if self.chance(0.15) and self._user_acts():
            return
        getattr(self, f"_when_{self.state}")()

    def _when_scheduled(self) -> None:
        self.service.advance(self.random.choice((0.0, 1.0, 10.0)))
        self.try_number += 1
        self.stored, self.held_up, self.restarted = "", 0.0, False
        self.tell("try", self.try_number, "max_tries", self.max_tries)
        self.state = "running"
        self.visit = Visit(self, self.core.Memory(started=self.now()), fresh=True)

    _when_up_for_retry = _when_scheduled

    def _when_resuming(self) -> None:
        delay = self.random.choice((0.0, 1.0, 10.0))
        self.service.advance(delay)
        if not self.calm and self.chance(self.rules.broken_deploys):
            self._begin_again()
            return
        self.held_up += delay
        memory = self.recalled().update(self.looks.values())
        self.state = "running"
        self.visit = Visit(self, memory, fresh=False)

    def _begin_again(self) -> None:
        """The worker cannot load the DAG: Airflow begins the same try again, a minute later."""
        self.tell("begun again")
        # Nobody remembers who stopped what was stopped.
        self.excused_cancels |= {real.id for real in self.service.history if real.stop_asked is not None}
        self.service.advance(60.0)
        self.stored, self.held_up, self.restarted = "", 0.0, True
        self.state = "running"
        self.visit = Visit(self, self.core.Memory(started=self.now()), fresh=True)

    def _when_running(self) -> None:
        visit = self.visit
        assert visit is not None
        interleaved = self.rules.lose_lease > 0 and not self.calm
        if interleaved and self.chance(self.rules.lose_lease):
            self.tell("lease lost")
            visit.has_lease = False
            self.zombies.append(visit)
            self._fail_try("lease lost")
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
            self.tell("crash before the verdict was stored")
            self._fail_try("crash")
            return
        self._take_verdict(*result)

    def _take_verdict(self, memory: Any, verdict: Any) -> None:
        core = self.core
        self.visit = None
        self.stored = json.dumps(memory.pack())
        assert self.recalled() == memory
        self.tell(type(verdict).__name__, verdict.why)
        if isinstance(verdict, core.Watch):
            deadline = self.deadline(memory)
            if memory.overdue_since is not None:
                deadline = memory.overdue_since + self.policy.cancel_grace
            self._defer(verdict.jobs, deadline)
        elif isinstance(verdict, core.Pause):
            self._defer((), self.now() + verdict.seconds)
            self.held_up += verdict.seconds
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
            if isinstance(verdict, core.OutOfRoom) and memory.refusals <= self.policy.infrastructure_retries:
                self.violate("7: reported no capacity before the budget was spent")
            self._fail_try("verdict", memory, verdict)

    def _defer(self, jobs: tuple[Job, ...], until: float | None) -> None:
        self.state = "deferred"
        self.trigger_jobs, self.trigger_until = jobs, until
        self.looks = {job.id: job for job in jobs}
        self.waits = {}

    def _fail_try(self, why: str, memory: Any = None, verdict: Any = None) -> None:
        self.visit = None
        if self.try_number <= self.max_tries:
            invariant_8(self, memory)
            self.state, self.try_ended_because = "up_for_retry", why
            self.tell("up for retry:", why)
        else:
            self._end("failed", why, memory, verdict)

    def _end(self, state: str, why: str, memory: Any = None, verdict: Any = None) -> None:
        self.visit = None
        self.state, self.try_ended_because = state, why
        self.tell(state, why)
        invariant_8(self, memory)
        if why == "verdict":
            invariant_4(self, memory, verdict)

    # -- the triggerer

    def _when_deferred(self) -> None:
        if not self.calm and self.chance(self.rules.triggerer_trouble):
            kind = self.random.choice(("restart", "down", "fail"))
            self.tell("triggerer", kind)
            if kind == "fail":  # the trigger timed out or crashed: the resume has no event
                self.looks = {}
                self.state = "resuming"
                return
            self.waits, self.looks = {}, {job.id: job for job in self.trigger_jobs}
            if kind == "down":
                down = self.random.choice((30.0, 300.0, 4000.0))
                self.service.advance(down)
                self.held_up += down
        self._run_trigger(self.random.choice((10.0, 60.0, 600.0)))

    def _run_trigger(self, seconds: float) -> None:
        """Watch for some time; an event makes the task instance resume."""
        self.actor = None
        end = self.now() + seconds
        trouble = 0
        for job in self.looks.values():
            if job.live and job.id not in self.waits:
                self.waits[job.id] = watch.Waiting(job, self.patience, self.now(), self.now())
        while True:
            now = self.now()
            until = self.trigger_until
            if until is not None and now >= until:
                self.tell("time is up")
                self.state = "resuming"
                return
            if self.trigger_jobs and not any(job.live for job in self.looks.values()):
                self.state = "resuming"
                return
            if now >= end:
                return
            open_waits = [wait for wait in self.waits.values() if wait.job.live]
            planned = watch.plan(now, open_waits, self.bucket, size=self.service.batch_size)
            sleep, batches = planned.sleep, [batch.jobs for batch in planned.batches]
            for batch in batches:
                try:
                    answers = {job.id: job for job in self.asked.observe(batch)}
                except TRANSIENT:
                    trouble += 1
                    sleep = watch.doubling(self.patience.first, trouble, self.patience.longest)
                    break
                trouble = 0
                for job in batch:
                    wait = watch.after_look(self.waits[job.id], answers.get(job.id), self.now(), len(batch))
                    if wait.job.phase is not self.looks[job.id].phase:
                        self.tell("seen", job.id, wait.job.phase.value)
                    self.waits[job.id], self.looks[job.id] = wait, wait.job
            else:
                sleep = 0.0 if batches else sleep
            limits = [limit for limit in (until, end) if limit is not None]
            self.service.advance(max(0.0, min([sleep, *(limit - self.now() for limit in limits)])))

    def _on_kill(self) -> bool:
        """What the trigger does when a person acted. Whether every live job that it watched was cancelled."""
        if not self.rules.on_kill or self.chance(0.2):  # before 3.3, or the triggerer is down at this moment
            return False
        self.actor = None
        for job in self.looks.values():
            if not job.live:
                continue
            for _ in range(4):
                try:
                    self.service.cancel(job, "killed by a person")
                    self.tell("on_kill", job.id)
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
                self.tell("stopped by a person", real.id)
                self.service.finish(real, Phase.CANCELLED)
                self.stopped_by_user.add(real.id)
                return True
        if (
            self.clears < self.rules.clears
            and self.state not in ("scheduled", "running")
            and self.chance(0.5)
        ):
            self.clears += 1
            self.clear()
            return True
        if self.marks < self.rules.marks and self.state == "deferred" and self.chance(0.5):
            self.marks += 1
            self.mark()
            return True
        if self.deletions < self.rules.deletions and self.chance(0.3):
            self.deletions += 1
            self.delete()
            return True
        return False

    def clear(self) -> None:
        self.tell("cleared when", self.state)
        self._count_invariant_2()
        if self.state == "deferred" and not self.rules.reattach:
            self._on_kill()
        self.max_tries = self.try_number + self.rules.retries
        self.generation += 1
        self.cleared_at = self.now()
        self.state = "scheduled"

    def mark(self) -> None:
        state = self.random.choice(("success", "failed"))
        self.tell("marked", state)
        killed = self._on_kill()
        self.state, self.try_ended_because = state, "marked"
        if killed:
            invariant_4_after_mark(self)

    def delete(self) -> None:
        """The DAG run is deleted, and made again under the same id somewhat later."""
        self.tell("run deleted when", self.state)
        if self.state == "deferred" and not self.rules.reattach:
            self._on_kill()
        if self.visit:
            self.visit.has_lease = False
            self.zombies.append(self.visit)
            self.visit = None
        self.service.advance(self.random.choice((1.0, 100.0, 400.0)))
        self.run_started = self.now()
        self.try_number, self.max_tries, self.stored = 0, self.rules.retries, ""
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
            self.tell("zombie is gone")

    def _when_success(self) -> None:
        self.service.advance(self.random.choice((10.0, 100.0, 4000.0)))

    _when_failed = _when_success

    def _count_invariant_2(self) -> None:
        invariant_2(self)


# --- the invariants -------------------------------------------------------------------------------


def of_zombie(world: World, real: RealJob) -> bool:
    return not world.submissions[real.id].had_lease


def excused(world: World, first: RealJob, second: RealJob) -> bool:
    """Whether two jobs of one family may have lived at once, or both have succeeded.

    * Another incarnation of the DAG run: the deleted one's jobs belong to nobody (the orphan sweep finds
      them).
    * A try that has lost its lease submitted one of them. Without tokens nothing tells it from its
      successor's. With tokens both come to one claim as long as they know the same: not when a clear lies
      between them, or when a job had ended before the later submission, so that one of them counts on.
    """
    a, b = world.submissions[first.id], world.submissions[second.id]
    if a.incarnation != b.incarnation:
        return True
    if a.had_lease and b.had_lease:
        return False
    if not world.rules.tokens or a.generation != b.generation:
        return True
    later = max(first.created, second.created)
    return any(
        other.ended(later) and world.submissions[other.id].generation == a.generation
        for other in world.service.history
    )


def invariant_1(world: World) -> None:
    """Never two live jobs of one task instance, once listings have caught up."""
    for first, second in world.service.overlaps():
        if not excused(world, first, second):
            world.violate(f"1: {first.id} and {second.id} lived at once")


def invariant_2(world: World) -> None:
    """At most one SUCCEEDED job per task instance between two clears.

    Except where the service had forgotten the first one before anybody looked.
    """
    now = world.now()
    good = [
        real for real in world.service.history if real.ended(now) and real.look(now).phase is Phase.SUCCEEDED
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
    own.
    """
    for other in world.service.history:
        made = world.run_started - real_core.CLOCK_SKEW <= other.created < world.run_started
        if made and world.submissions[other.id].incarnation != world.incarnation:
            return
    submission, real = world.submissions[job.id], world.service.real(job)
    if submission.generation == world.generation:
        return
    reattached = world.rules.reattach and not real.ended(world.cleared_at)
    if submission.incarnation != world.incarnation:
        if real.created < world.run_started - real_core.CLOCK_SKEW and not reattached:
            world.violate(f"3: {job.id} of a deleted run was reported")
    elif not reattached:
        world.violate(f"3: {job.id} from before the clear was reported")


def invariant_4(world: World, memory: Any, verdict: Any) -> None:
    """No live job after the task instance has ended by a verdict, except where the user asked to leave it.

    Except jobs that ignored the cancel for all of `cancel_grace`, submissions whose fate was still unknown
    then (the error says both), and jobs of tries that lost their lease and of deleted runs.
    """
    if isinstance(verdict, world.core.TimedOut):
        over = (
            memory.overdue_since is not None
            and world.now() >= memory.overdue_since + world.policy.cancel_grace
        )
        if world.rules.on_timeout == "leave" or over:
            return
    for real in world.service.live():
        submission = world.submissions[real.id]
        if submission.had_lease and submission.incarnation == world.incarnation:
            world.violate(f"4: {real.id} lives after the end: {verdict.why}")


def invariant_4_after_mark(world: World) -> None:
    """The same, after a person marked the task instance and its trigger heard of it."""
    for real in world.service.live():
        submission = world.submissions[real.id]
        mine = submission.had_lease and submission.incarnation == world.incarnation
        if mine and real.stop_asked is None and real.id in world.looks:
            world.violate(f"4: {real.id} lives on after a mark that on_kill heard of")


def invariant_5_at_cancel(world: World, visit: Visit, job: Job, reason: str) -> None:
    """No job is cancelled that some try still wants.

    The try that holds the lease cancels only what is of an earlier generation, a duplicate, or overdue; one
    that has lost it cancels nothing that its successor waits for. Except at the deadline of the try that lost
    its lease, which cannot know of its successor; a try of a deleted run that still works when the run is
    made again; and one of two jobs whose living at once is `excused`.
    """
    core, service = world.core, world.service
    real, submission = service.real(job), world.submissions[job.id]
    if job.claim.family != FAMILY:
        world.violate("5: a job without our claim was cancelled")
    if not visit.has_lease:
        if reason == core.OVERDUE or visit.incarnation != world.incarnation:
            world.excused_cancels.add(job.id)
            return
        news = json.loads(world.stored)["news"] if world.stored else []
        if job.id not in news or world.state not in ("deferred", "resuming") or real.ended(world.now()):
            return
        doubled = any(other.id != real.id and excused(world, real, other) for other in service.live())
        if reason == core.DUPLICATE and doubled:
            world.excused_cancels.add(job.id)
        else:
            world.violate(
                f"5: a try without lease cancelled {job.id}, which its successor waits for: {reason}"
            )
    elif reason == core.SUPERSEDED:
        skewed = submission.incarnation == world.incarnation or world.rules.reattach
        if submission.generation == world.generation and skewed:
            world.violate(f"5: {job.id} is of this generation, and was cancelled as superseded")
    elif reason == core.DUPLICATE:
        others = [other for other in service.history if other is not real and not other.ended(visit.began)]
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
    truth = real.look(world.now())
    if job.phase is Phase.LOST:
        forget_after = world.rules.forget_after
        if truth.live or forget_after is None or world.now() < (truth.ended or 0.0) + forget_after:
            world.violate(f"6: {job.id} is reported as lost, and the service knows it")
    elif truth.phase is not job.phase:
        world.violate(f"6: {job.id} is reported as {job.phase.value}, and is {truth.phase.value}")


def invariant_7(world: World) -> None:
    """Tries are not wasted: trouble of the network, of limits or of a triggerer uses up no retry.

    Checked where a try ends: only a crash, a lost lease or a verdict about a job, the deadline or a spent
    budget may end one. Here: without any of them there is one try per generation.
    """
    rules = world.rules
    if not (
        rules.crash or rules.lose_lease or rules.infrastructure or rules.application or rules.capacity_trouble
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


def play(rules: Rules, chance: random.Random, core: Any = real_core) -> World:
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
        world.violate(f"8: still {world.state} long after all trouble was over")
    invariant_1(world)
    invariant_2(world)
    invariant_7(world)
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
        "much trouble": Rules(throttle=0.3, lose=0.2, crash=0.08, retries=6),
        "deadlines": Rules(timeout=200.0, user_stops=0.1, throttle=0.2, cancel_seconds=60.0),
        "deadlines that leave the job": Rules(timeout=100.0, on_timeout="leave"),
        "reattach after a clear": Rules(reattach=True, clears=3),
        "deploys that break DAG files": Rules(broken_deploys=0.3, clears=1),
        "the same, without tokens and with deadlines": Rules(tokens=False, broken_deploys=0.3, timeout=400.0),
        "no capacity": Rules(capacity_trouble=0.4, infrastructure=0.3),
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
        "two at work at once, with tokens": Rules(lose_lease=0.1, clears=0, throttle=0.1, retries=4),
        "two at work at once, with tokens and clears": Rules(lose_lease=0.1, clears=2, timeout=300.0),
        "two at work at once, without tokens": Rules(tokens=False, lose_lease=0.1, clears=1),
        "runs deleted and made again": Rules(deletions=1, clears=1, retries=2),
        "runs deleted and made again, without tokens": Rules(tokens=False, deletions=1, clears=1, retries=2),
    }
