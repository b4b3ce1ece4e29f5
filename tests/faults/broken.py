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


RULES = (
    Broken(
        "adopt",
        "a later try looks for jobs of earlier ones",
        "jobs.py",
        "searched = fresh and not owner.may_have_predecessors",
        "searched = True",
        (
            ("kill-unread", "runs on", "emr"),
            ("worker-unread", "runs on", "emr"),
            ("kill-answered", "runs on", "emr"),
        ),
    ),
    Broken(
        "result",
        "a job that ended well while nobody watched counts",
        "jobs.py",
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
        "a clear is told from a retry",
        "jobs.py",
        "return job.claim.number > self.since and job.created",
        "return job.created",
        (
            ("clear-deferred", "runs on", "emr"),
            ("clear-success", "well", "ecs"),
            ("clear-twice", "runs on", "emr"),
            ("clear-then", "runs on", "ecs"),
            ("clear-down", "runs on", "emr"),
        ),
    ),
    Broken(
        "run",
        "a run that is made again is told from the deleted one",
        "jobs.py",
        " and job.created >= self.run_started - CLOCK_SKEW",
        "",
        (("again-down", "runs on", "ecs"),),
    ),
    Broken(
        "spent",
        "a token whose job was given up is spent",
        "jobs.py",
        "if not owner.owns(job) or given_up or (old and not job.live):",
        "if False:",
        (("again-down", "runs on", "ecs"),),
    ),
    Broken(
        "end",
        "the end of a job that is being stopped is awaited",
        "jobs.py",
        "    if live:\n        first = stays",
        "    if stays:\n        first = stays",
        (("clear-deferred", "runs on", "ecs"), ("clear-down", "runs on", "ecs")),
    ),
    Broken(
        "lost",
        "after a lost answer it looks before it submits again",
        "jobs.py",
        "            searched = False\n            memory = replace(memory, trouble=memory.trouble + 1)",
        "            memory = replace(memory, trouble=memory.trouble + 1)",
        (("lost-answer", "runs on", "emr"), ("dropped-answer", "runs on", "emr")),
    ),
    Broken(
        "once",
        "a submit without a token is sent once",
        "emr.py",
        'client = self.access.client("emr", retries=False)\n        try:\n            answer',
        'client = self.access.client("emr")\n        try:\n            answer',
        (("lost-answer", "runs on", "emr"), ("dropped-answer", "runs on", "emr")),
    ),
    Broken(
        "mark",
        "the trigger cancels the job of a task instance that a person ended",
        "triggers.py",
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
        "triggers.py",
        'return on_clear == "restart"',
        "return False",
        (("delete-run", "runs on", "ecs"), ("delete-run", "runs on", "emr")),
    ),
    Broken(
        "goes_on",
        "a cancel goes on when Airflow stops its trigger again",
        "triggers.py",
        "await asyncio.shield(self._cancelling())",
        "await self._cancel_if_killed()",
        (("mark-throttled", "runs on", "ecs"), ("mark-throttled", "runs on", "emr")),
    ),
    Broken(
        "takeover",
        "the trigger does not cancel when another triggerer has it",
        "triggers.py",
        'return state in ("failed", "success", "skipped", "upstream_failed")',
        "return True",
        (("takeover", "runs on", "ecs"), ("takeover", "runs on", "emr")),
    ),
    Broken(
        "deploy",
        "a worker that is told to stop leaves the job running",
        "operators.py",
        'if deadline is None or time.time() < deadline or self.on_timeout == "leave":',
        "if False:",
        (("deploy", "runs on", "ecs"), ("deploy-hard", "runs on", "emr")),
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
        "ecs.py",
        '_TAKEN_AWAY = ("SpotInterruption", "TerminationNotice", "InfrastructureHealth")',
        "_TAKEN_AWAY = ()",
        (("spot", "runs on", "ecs"),),
    ),
    Broken(
        "stopped",
        "a task that somebody stopped is no success, whatever the exit code",
        "ecs.py",
        'if stop_code == "UserInitiated":',
        'if stop_code == "Nobody":',
        (("by-hand", "runs on", "ecs"),),
    ),
    Broken(
        "budget",
        "lost infrastructure is paid from a budget of its own",
        "operators.py",
        "return Policy(infrastructure_retries=self.infrastructure_retries,",
        "return Policy(infrastructure_retries=0,",
        (("lost-host", "runs on", "ecs"), ("lost-host", "runs on", "emr"), ("spot", "runs on", "ecs")),
    ),
    Broken(
        "throttled",
        "a throttled call is no news about a job",
        "aws.py",
        "        return (\n            code in _TRANSIENT\n",
        "        return not is_throttle(error) and (\n            code in _TRANSIENT\n",
        (
            ("throttled-submit", "runs on", "ecs"),
            ("throttled-submit", "runs on", "emr"),
        ),
    ),
    Broken(
        "slowed",
        "a throttled look makes looks rarer and ends no wait",
        "watch.py",
        "return _Answer(trouble=error, throttled=True)",
        "return _Answer(refused=Refused(error), concerns=len(batch.jobs))",
        (("throttled", "runs on", "ecs"),),
    ),
    Broken(
        "errors",
        "an error 500 is no news about a job",
        "aws.py",
        "        return (\n            code in _TRANSIENT\n",
        "        return is_throttle(error) and (\n            code in _TRANSIENT\n",
        (("looks-500", "runs on", "emr"), ("submit-500", "runs on", "ecs")),
    ),
    Broken(
        "denied",
        "a refused look is asked again before it counts",
        "watch.py",
        "    refused: int = 10",
        "    refused: int = 1",
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
        "jobs.py",
        "    after = policy.backoff(facts.refusals) if facts.refusals else 0.0",
        '    after = 0.0\n    if owner.try_number > 1 and not jobs:\n        return OutOfRoom(0, "")',
        (("kill-before", "runs on", "ecs"), ("kill-before", "runs on", "emr")),
    ),
    Broken(
        "restarted",
        "a try that Airflow begins again looks for its own jobs",
        "jobs.py",
        "return self.try_number > 1 or self.since > 0 or self.restarted",
        "return self.try_number > 1 or self.since > 0",
        (("begun-again", "well", "emr"),),
    ),
    Broken(
        "news",
        "the failure of a job that a try has watched is the try's own",
        "jobs.py",
        '"news": frozenset(data["news"])',
        '"news": frozenset()',
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
        "jobs.py",
        "last = next((job for job in reversed(mine) if job.id in facts.news), None)",
        "last = next(reversed(mine), None)",
        (
            ("kill-unread", "badly", "ecs"),
            ("clear-failure", "badly", "ecs"),
            ("clear-failure", "badly", "emr"),
        ),
        # What is from before a clear is told apart by this, too.
        also=(("jobs.py", "return job.claim.number > self.since and job.created", "return job.created"),),
    ),
    Broken(
        "late",
        "a job that ended well before the deadline has ended well, however late that is seen",
        "jobs.py",
        "if job.phase is Phase.SUCCEEDED:\n            return Finish(job",
        "if job.phase is Phase.SUCCEEDED and not facts.overdue:\n            return Finish(job",
        (("deadline-late", "well", "ecs"), ("deadline-late", "well", "emr")),
    ),
    Broken(
        "missing",
        "a task that AWS does not know is asked for again before it counts as lost",
        "watch.py",
        "if missing >= patience.missing and now - since >= patience.missing_for:",
        "if missing:",
        (("missing", "runs on", "ecs"), ("missing", "well", "ecs")),
    ),
    Broken(
        "unseen",
        "a job whose end nobody has seen has not ended well",
        "watch.py",
        "job = replace(job, phase=Phase.LOST, reason=reason)",
        "job = replace(job, phase=Phase.SUCCEEDED, reason=reason)",
        (("triggerer-killed", "badly forgotten", "ecs"), ("kill-deferred", "badly forgotten", "ecs")),
    ),
    Broken(
        "lag",
        "a later try waits until lists show what an earlier one has submitted",
        "jobs.py",
        "senses.sleep(listing_lag(service))",
        "senses.sleep(0.0)",
        (("late-listing", "runs on", "emr"),),
    ),
    Broken(
        "terminated",
        "a cluster that a person terminates is no trouble of the infrastructure",
        "emr.py",
        "    if code in _INFRASTRUCTURE:\n",
        '    if code in _INFRASTRUCTURE or code == "USER_REQUEST":\n',
        (("terminated", "runs on", "emr"),),
    ),
)
NOT_OURS = {
    "api-submitted": "it is Airflow's worker that asks again until the API server is back",
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
