"""Rules of the library, each broken on purpose in a copy of it, and the rows that have to notice.

A copy is the package with one piece of source replaced, under a name of its own beside the real one, so that
all of them run on one Airflow: ``python -m faults --broken``.  What no row misses when it is gone is not
shown by the matrix.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import airflow_resilient

PACKAGE = Path(airflow_resilient.__file__).parent


@dataclass(frozen=True)
class Broken:
    """A rule that is broken.

    :param id: short, of letters; part of a package's name.
    :param rule: what does not hold any more, as a sentence without its end.
    :param module: in which it stands.
    :param old: a piece of its source that stands there once.
    :param new: instead of it.
    :param rows: (row, fate, service) of the matrix that must notice; one of them is enough.
    :param also: further pieces, as (module, old, new), where one alone changes nothing: a second rule stands
        behind it.
    """

    id: str
    rule: str
    module: str
    old: str
    new: str
    rows: tuple[tuple[str, str, str], ...]
    also: tuple[tuple[str, str, str], ...] = ()


_ASKED = "if should_cancel(state, self.on_clear):"

RULES = (
    Broken(
        "adopt",
        "a later try searches for jobs of earlier ones",
        "core/reconcile.py",
        "searched = first_visit and not owner.may_have_predecessors",
        "searched = True",
        (
            ("kill-unread", "runs on", "emr"),
            ("worker-unread", "runs on", "emr"),
            ("kill-answered", "runs on", "emr"),
            ("here-kill", "runs on", "emr"),
            ("here-worker", "runs on", "emr"),
            ("here-deploy", "runs on", "emr"),
            ("loop-kill", "runs on", "emr"),
        ),
    ),
    Broken(
        "result",
        "a job that ended well while nobody watched counts",
        "core/decide.py",
        "if job.phase is Phase.SUCCEEDED:\n            return Finish(job",
        "if False:\n            return Finish(job",
        (
            ("kill-unread", "well", "ecs"),
            ("kill-resumed", "well", "emr"),
            ("worker-resumed", "well", "ecs"),
            ("machine-unread", "well", "emr"),
        ),
    ),
    Broken(
        "since",
        "a clear is distinguished from a retry",
        "core/job.py",
        "        mine, its = _read_generation(self.generation)",
        "        return False\n        mine, its = _read_generation(self.generation)",
        (
            ("clear-paused", "runs on", "ecs"),
            ("clear-deferred", "runs on", "emr"),
            ("clear-success", "well", "ecs"),
            ("clear-twice", "runs on", "emr"),
            ("clear-then", "runs on", "ecs"),
            ("clear-down", "runs on", "emr"),
        ),
    ),
    Broken(
        "run",
        "a run that is created again is distinguished from the deleted one",
        "core/job.py",
        "if job.created < self.run_started - CLOCK_SKEW or self._cleared_since",
        "if self._cleared_since",
        (("again-down", "runs on", "ecs"),),
    ),
    Broken(
        "spent",
        "a token whose job was given up is spent",
        "core/decide.py",
        "return not owner.owns(job) or given_up or (old and not job.live)",
        "return False",
        (("again-down", "runs on", "ecs"),),
    ),
    Broken(
        "end",
        "the end of a job that is being stopped is awaited",
        "core/decide.py",
        "    if live:\n        first = stays",
        "    if stays:\n        first = stays",
        (("clear-deferred", "runs on", "ecs"), ("clear-down", "runs on", "ecs")),
    ),
    Broken(
        "lost",
        "after a lost answer, a try searches before it submits again",
        "core/reconcile.py",
        "            searched = False\n            memory = replace(\n                memory,",
        "            memory = replace(\n                memory,",
        (("lost-answer", "runs on", "emr"), ("dropped-answer", "runs on", "emr")),
    ),
    Broken(
        "once",
        "a submit without a token is sent once",
        "services/emr_steps/client.py",
        "client = self.client(retries=False)\n        try:\n            marked",
        "client = self.client()\n        try:\n            marked",
        (("lost-answer", "runs on", "emr"), ("dropped-answer", "runs on", "emr")),
    ),
    Broken(
        "mark",
        "the trigger cancels the job of a task instance that a person ended",
        "core/decide.py",
        'return state in ("failed", "success", "skipped", "upstream_failed")',
        "return False",
        (
            ("mark-failed", "runs on", "ecs"),
            ("mark-success", "runs on", "emr"),
            ("fail-run", "runs on", "emr"),
            ("run-timeout", "runs on", "ecs"),
        ),
    ),
    Broken(
        "deleted",
        "the trigger cancels the job of a task instance that is deleted",
        "core/decide.py",
        'return on_clear == "restart"',
        "return False",
        (("delete-run", "runs on", "ecs"), ("delete-run", "runs on", "emr")),
    ),
    Broken(
        "goes_on",
        "a cancel goes on when Airflow stops its trigger again",
        "triggers.py",
        "await asyncio.shield(self._start_cancel())",
        "await self._cancel_live_jobs()",
        (("mark-throttled", "runs on", "ecs"), ("mark-throttled", "runs on", "emr")),
    ),
    Broken(
        "takeover",
        "the trigger does not cancel when another triggerer has it",
        "core/decide.py",
        'return state in ("failed", "success", "skipped", "upstream_failed")',
        "return True",
        (("takeover", "runs on", "ecs"), ("takeover", "runs on", "emr")),
    ),
    Broken(
        "deploy",
        "a worker that receives SIGTERM leaves the job running",
        "operators.py",
        "if visit is None or visit.under_way:",
        "if visit is None:",
        (
            ("deploy", "runs on", "ecs"),
            ("deploy-unread", "runs on", "emr"),
            ("deploy-hard", "runs on", "emr"),
        ),
        also=(("operators.py", "if deadline is None or time.time() < deadline:", "if False:"),),
    ),
    Broken(
        "interrupt",
        "execution_timeout interrupts no submission, and what it has interrupted is cancelled",
        "operators.py",
        "if self.execution_timeout is not None and self._limit is None:",
        "if False:",
        (("deadline-unread", "runs on", "emr"), ("deadline-unread", "runs on", "ecs")),
        also=(("operators.py", "if unconfirmed := memory.unconfirmed_submission:", "if unconfirmed := 0:"),),
    ),
    Broken(
        "unconfirmed",
        "a mark in a pause ends the job of a submission that had no answer",
        "triggers.py",
        'for each in self.arguments["unconfirmed"]:',
        "for each in ():",
        (
            ("mark-unconfirmed", "runs on", "emr"),
        ),  # on ECS botocore sends the token again, and gets the answer
    ),
    Broken(
        "paused",
        "a mark in a pause ends the jobs that are known",
        "operators.py",
        "jobs=[job for job in memory.seen if job.live],",
        "jobs=[],",
        (("mark-paused", "runs on", "ecs"), ("mark-paused", "runs on", "emr")),
    ),
    Broken(
        "deadline",
        "execution_timeout counts over all deferrals",
        "operators.py",
        "return None if limit is None else memory.started + limit.total_seconds()",
        "return None",
        (("deadline", "runs on", "ecs"), ("deadline-down", "runs on", "emr")),
    ),
    Broken(
        "spot",
        "a Spot interruption is no success, whatever the exit code",
        "services/ecs/read.py",
        '_TAKEN_AWAY = ("SpotInterruption", "TerminationNotice", "InfrastructureHealth")',
        "_TAKEN_AWAY = ()",
        (("spot", "runs on", "ecs"),),
    ),
    Broken(
        "stopped",
        "a task that somebody stopped is no success, whatever the exit code",
        "services/ecs/read.py",
        'if stop_code == "UserInitiated":',
        'if stop_code == "Nobody":',
        (("by-hand", "runs on", "ecs"),),
    ),
    Broken(
        "budget",
        "lost infrastructure has a retry budget of its own",
        "operators.py",
        "            infrastructure_retries=self.infrastructure_retries,",
        "            infrastructure_retries=0,",
        (("lost-host", "runs on", "ecs"), ("lost-host", "runs on", "emr"), ("spot", "runs on", "ecs")),
    ),
    Broken(
        "throttled",
        "a throttled call says nothing about a job",
        "aws/errors.py",
        "code in _TRANSIENT or code in EXPIRED or status >= _SERVER_ERROR or is_throttle(error, quoted)",
        "not is_throttle(error, quoted) and (code in _TRANSIENT or status >= _SERVER_ERROR)",
        (
            ("throttled-submit", "runs on", "ecs"),
            ("throttled-submit", "runs on", "emr"),
        ),
    ),
    Broken(
        "slowed",
        "a throttled poll makes polls less frequent and ends no wait",
        "watching/shared_watch.py",
        "return _Answer(error=error, throttled=True)",
        "return _Answer(refused=Refused(error), concerns=len(batch.jobs))",
        (("throttled", "runs on", "ecs"),),
    ),
    Broken(
        "errors",
        "an error 500 says nothing about a job",
        "aws/errors.py",
        "code in _TRANSIENT or code in EXPIRED or status >= _SERVER_ERROR or is_throttle(error, quoted)",
        "is_throttle(error, quoted)",
        (("polls-500", "runs on", "emr"), ("submit-500", "runs on", "ecs")),
    ),
    Broken(
        "denied",
        "a denied poll is repeated before it counts",
        "core/polling.py",
        "    give_up_after_denials: int = 10",
        "    give_up_after_denials: int = 1",
        (("denied", "runs on", "ecs"), ("denied", "well", "emr")),
    ),
    Broken(
        "crash",
        "a trigger that crashes is no failure",
        "operators.py",
        "memory = replace(memory, crashes=memory.crashes + 1)",
        "raise RuntimeError(error)",
        (("trigger-crash", "runs on", "ecs"), ("trigger-crash", "runs on", "emr")),
    ),
    Broken(
        "empty",
        "a later try that finds no job submits one",
        "core/decide.py",
        "    after = policy.backoff(facts.refusals) if facts.refusals else 0.0",
        '    after = 0.0\n    if owner.try_number > 1 and not jobs:\n        return OutOfCapacity(0, "")',
        (("kill-before", "runs on", "ecs"), ("kill-before", "runs on", "emr")),
    ),
    Broken(
        "restarted",
        "a try that Airflow begins again searches for its own jobs",
        "core/job.py",
        "return self.try_number > 1 or self.cleared_after_try > 0 or self.restarted",
        "return self.try_number > 1 or self.cleared_after_try > 0",
        (("begun-again", "well", "emr"),),
    ),
    Broken(
        "own_job_ids",
        "the failure of a job that a try has watched is the try's own",
        "core/reconcile.py",
        '"own_job_ids": frozenset(data["own_job_ids"])',
        '"own_job_ids": frozenset()',
        (
            ("kill-deferred", "badly", "ecs"),
            ("machine-deferred", "badly", "emr"),
            ("triggerer-killed", "badly", "ecs"),
            ("api-deferred", "badly", "emr"),
        ),
    ),
    Broken(
        "history",
        "the failure of a job that another try has watched is history",
        "core/decide.py",
        "last = next((job for job in reversed(mine) if job.id in facts.own_job_ids), None)",
        "last = next(reversed(mine), None)",
        (
            ("kill-unread", "badly", "ecs"),
            ("clear-failure", "badly", "ecs"),
            ("clear-failure", "badly", "emr"),
        ),
        # What is from before a clear is distinguished by this, too.
        also=(
            (
                "core/job.py",
                "        mine, its = _read_generation(self.generation)",
                "        return False\n        mine, its = _read_generation(self.generation)",
            ),
        ),
    ),
    Broken(
        "late",
        "a job that ended well before the deadline has ended well, however late that is seen",
        "core/decide.py",
        "if job.phase is Phase.SUCCEEDED:\n            return Finish(job",
        "if job.phase is Phase.SUCCEEDED and not facts.overdue:\n            return Finish(job",
        (("deadline-late", "well", "ecs"), ("deadline-late", "well", "emr")),
    ),
    Broken(
        "missing",
        "a task that AWS does not know is polled again before it counts as lost",
        "core/polling.py",
        "if missing >= policy.lost_after_polls and now - since >= policy.lost_after_seconds:",
        "if missing:",
        (("missing", "runs on", "ecs"), ("missing", "well", "ecs")),
    ),
    Broken(
        "unseen",
        "a job whose end nobody has seen has not ended well",
        "core/polling.py",
        "job = replace(job, phase=Phase.LOST, reason=reason)",
        "job = replace(job, phase=Phase.SUCCEEDED, reason=reason)",
        (("triggerer-killed", "badly forgotten", "ecs"), ("kill-deferred", "badly forgotten", "ecs")),
    ),
    Broken(
        "archive",
        "what AWS has forgotten is looked up in the archive",
        "services/ecs/client.py",
        "        group = current().events_log_group\n        if not group:",
        "        group = current().events_log_group\n        if group:",
        (("kill-archived", "forgotten", "ecs"), ("watch-archived", "forgotten", "ecs")),
    ),
    Broken(
        "lag",
        "a later try waits until lists show what an earlier one has submitted",
        "core/reconcile.py",
        "runtime.sleep(service.listing_lag)",
        "runtime.sleep(0.0)",
        (("late-listing", "runs on", "emr"),),
    ),
    Broken(
        "terminated",
        "a cluster that a person terminates is no failure of the infrastructure",
        "services/emr_steps/read.py",
        "    if code in _INFRASTRUCTURE:\n",
        '    if code in _INFRASTRUCTURE or code == "USER_REQUEST":\n',
        (("terminated", "runs on", "emr"),),
    ),
    Broken(
        "ends",
        "a mark ends the job of a task that waits in the worker",
        "operators.py",
        _ASKED,
        "if False:",
        (("here-mark", "runs on", "ecs"), ("loop-mark", "runs on", "emr")),
    ),
    Broken(
        "leaves",
        "a process that is ended leaves the job of the task that waits in it, if nobody has ended the task",
        "operators.py",
        _ASKED,
        "if True:",
        (("here-term", "runs on", "ecs"), ("here-term", "runs on", "emr")),
    ),
    Broken(
        "cleared",
        "a clear ends the job of a task that waits in the worker, at once or in the next try",
        "operators.py",
        _ASKED,
        "if False:",
        (("here-clear", "runs on", "ecs"),),
        also=(
            (
                "core/job.py",
                "        mine, its = _read_generation(self.generation)",
                "        return False\n        mine, its = _read_generation(self.generation)",
            ),
        ),
    ),
    Broken(
        "overdue",
        "a task that waits in the worker ends its job at its deadline",
        "operators.py",
        "return None if limit is None else memory.started + limit.total_seconds()",
        "return None",
        (("here-deadline", "runs on", "ecs"),),
        # Airflow's own limit comes later, and ends the job, too.
        also=(
            (
                "operators.py",
                "            self._end_at_timeout(visit)\n            return",
                "            return",
            ),
        ),
    ),
)
NOT_OURS = {
    "api-submitted": "Airflow's worker itself retries until the API server is back",
    "deploy-early": "a worker that submits although it is being stopped comes to the same if it lives on",
}
"""Rows that stand on no rule of the library, and why."""
BY_ID = {rule.id: rule for rule in RULES}


def package_of(rule: Broken) -> str:
    """Name of the copy in which the rule is broken."""
    return f"{PACKAGE.name}_{rule.id}"


def broken_sources(rule: Broken) -> dict[str, str]:
    """The source of each module in which the rule is broken.

    :raises LookupError: a piece of source does not stand there exactly once; the library has changed.
    """
    sources: dict[str, str] = {}
    for module, old, new in ((rule.module, rule.old, rule.new), *rule.also):
        source = sources.get(module) or (PACKAGE / module).read_text()
        if source.count(old) != 1:
            raise LookupError(f"{rule.id}: {module} has {source.count(old)} times: {old}")
        sources[module] = source.replace(old, new)
    return sources


def write(rule: Broken, folder: Path) -> None:
    """Write the copy into a folder of Python's path."""
    copy = folder / package_of(rule)
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "testing"))
    for module, source in broken_sources(rule).items():
        (copy / module).write_text(source)
