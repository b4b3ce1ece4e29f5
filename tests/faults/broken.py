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
    """

    id: str
    rule: str
    module: str
    old: str
    new: str
    rows: tuple[tuple[str, str, str], ...]


RULES = (
    Broken(
        "adopt",
        "a later try looks for jobs of earlier ones",
        "jobs.py",
        "searched = fresh and not owner.may_have_predecessors",
        "searched = True",
        (
            ("kill-unread", "runs on", "emr"),
            ("worker-unread", "well", "ecs"),
            ("kill-answered", "runs on", "emr"),
        ),
    ),
    Broken(
        "result",
        "a job that ended well while nobody watched counts",
        "jobs.py",
        "if job.phase is Phase.SUCCEEDED:\n            return Finish(job",
        "if False:\n            return Finish(job",
        (("kill-unread", "well", "ecs"), ("kill-resumed", "well", "emr"), ("machine-unread", "well", "emr")),
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
        (("again", "runs on", "ecs"), ("again-down", "runs on", "ecs")),
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
            ("fail-run", "runs on", "emr"),
            ("run-timeout", "runs on", "ecs"),
        ),
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
        (("throttled-submit", "runs on", "ecs"), ("throttled-submit", "runs on", "emr")),
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
)
BY_ID = {rule.id: rule for rule in RULES}


def package_of(rule: Broken) -> str:
    """Name of the copy in which the rule is broken."""
    return f"{PACKAGE.name}_{rule.id}"


def broken_source(rule: Broken) -> str:
    """The source of the module with the rule broken.

    :raises LookupError: the piece of source does not stand there exactly once; the library has changed.
    """
    source = (PACKAGE / rule.module).read_text()
    if source.count(rule.old) != 1:
        raise LookupError(f"{rule.id}: {rule.module} has {source.count(rule.old)} times: {rule.old}")
    return source.replace(rule.old, rule.new)


def write(rule: Broken, folder: Path) -> None:
    """Write the copy into a folder of Python's path."""
    copy = folder / package_of(rule)
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "testing"))
    (copy / rule.module).write_text(broken_source(rule))
