"""Rules of the core, each of them broken once. What is not missed when it is gone is not a rule.

A mutant is `jobs.py` with one piece of its source replaced, executed in a namespace of its own. The source
is normalised first (``ast.unparse``), so that formatting does not matter. A replacement that does not apply
is an error.
"""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

from airflow_resilient import jobs

SOURCE = ast.unparse(ast.parse(Path(jobs.__file__).read_text()))
# Values that travel between the core and the service under test; they stay the real ones.
SHARED = {"Phase", "Cause", "Claim", "NoRoom"}

MUTANTS = {
    # decide
    "a clear is not told from a retry": (
        "return job.claim.number > self.since and job.created",
        "return job.created",
    ),
    "a deleted run is not told from the one that was made again": (
        " and job.created >= self.run_started - CLOCK_SKEW",
        "",
    ),
    "reattach takes over what has ended": ("if self.reattach and job.live:", "if self.reattach:"),
    "reattach takes over nothing": ("if self.reattach and job.live:", "if False:"),
    "claims reach only to the number before": (
        "for number in range(1, self.try_number + 1)]",
        "for number in range(1, self.try_number)]",
    ),
    "predecessors are not cancelled": (
        "and job not in newer and (job.phase is not Phase.STOPPING):",
        "and job in mine and (job.phase is not Phase.STOPPING):",
    ),
    "duplicates are not cancelled": (
        "and job not in newer and (job.phase is not Phase.STOPPING):",
        "and job not in mine and (job.phase is not Phase.STOPPING):",
    ),
    "jobs of a later try are cancelled": ("job not in newer and (job.phase", "(job.phase"),
    "jobs of a later try are mine": ("if job not in newer and (owner.owns(job)", "if (owner.owns(job)"),
    "jobs are cancelled again and again": (
        "and job not in newer and (job.phase is not Phase.STOPPING):",
        "and job not in newer:",
    ),
    "the youngest duplicate stays": (
        "key=lambda job: (job.created, job.claim, job.id))",
        "key=lambda job: (-job.created, job.claim, job.id))",
    ),
    "what is being stopped may stay": (
        "next((job for job in running if job.phase is not Phase.STOPPING), None) or ",
        "",
    ),
    "the end of predecessors is not awaited": (
        "\n    if live:\n        first",
        "\n    if stays:\n        first",
    ),
    "only the job that counts is awaited": (
        "return Watch((first, *(job for job in live if job is not first)), why)",
        "return Watch((first,), why)",
    ),
    "a success that was found is not adopted": (
        "if job.phase is Phase.SUCCEEDED:\n            return Finish",
        "if job.phase is Phase.SUCCEEDED and job.id in facts.news:\n            return Finish",
    ),
    "a lost job counts as a success": (
        "if job.phase is Phase.SUCCEEDED:",
        "if job.phase in (Phase.SUCCEEDED, Phase.LOST):",
    ),
    "a success before the clear is adopted": (
        "    for job in mine:\n        if job.phase",
        "    for job in jobs:\n        if job.phase",
    ),
    "the deadline wins over a success": (
        "    for job in mine:\n        if job.phase is Phase.SUCCEEDED:",
        "    for job in mine:\n        if job.phase is Phase.SUCCEEDED and (not facts.overdue):",
    ),
    "history is reported": (
        "last = next((job for job in reversed(mine) if job.id in facts.news), None)",
        "last = next((job for job in reversed(mine)), None)",
    ),
    "news is history": (
        "last = next((job for job in reversed(mine) if job.id in facts.news), None)",
        "last = None",
    ),
    "the first failure is reported": (
        "last = next((job for job in reversed(mine) if",
        "last = next((job for job in mine if",
    ),
    "infrastructure is not submitted again": (
        "if last.cause is not Cause.INFRASTRUCTURE or last.phase is not Phase.FAILED:",
        "if True:",
    ),
    "every failure is submitted again": (
        "if last.cause is not Cause.INFRASTRUCTURE or last.phase is not Phase.FAILED:",
        "if last.phase is not Phase.FAILED:",
    ),
    "a lost job is submitted again": (" or last.phase is not Phase.FAILED:", ":"),
    "the budget is one too large": (
        "if len(failed) + facts.refusals > policy",
        "if len(failed) + facts.refusals > 1 + policy",
    ),
    "refusals have a budget of their own": (
        "if len(failed) + facts.refusals > policy",
        "if len(failed) > policy",
    ),
    "refusals have no budget": ("if facts.refusals > policy.infrastructure_retries:", "if False:"),
    "resubmissions share a token": (
        "max(len(used), max(used, default=-1) + 1))",
        "0)",
    ),
    "tokens that are known to be used are used again": (
        "max(len(used), max(used, default=-1) + 1))",
        "len(used))",
    ),
    "resubmissions use up a number": (
        "number = max(last.claim.number, owner.since + 1)",
        "number = last.claim.number + 1",
    ),
    "what is submitted again after a clear is from before it": (
        "number = max(last.claim.number, owner.since + 1)",
        "number = last.claim.number",
    ),
    "a timeout is reported before anything was looked for": (
        "isinstance(action, TimedOut) and action.job is None",
        "False",
    ),
    "resubmissions do not wait": ("why, policy.backoff(attempt))", "why, 0.0)"),
    "refused submissions do not wait": ("policy.backoff(facts.refusals) if facts.refusals else 0.0", "0.0"),
    "numbers begin at 1 after a clear": (
        "number = min(max([owner.since, *(job.claim.number for job in mine)]) + 1, owner.try_number)",
        "number = min(max([0, *(job.claim.number for job in mine)]) + 1, owner.try_number)",
    ),
    "numbers are given twice": (
        "number = min(max([owner.since, *(job.claim.number for job in mine)]) + 1, owner.try_number)",
        "number = owner.since + 1",
    ),
    "the number is Airflow's try number": (
        "number = min(max([owner.since, *(job.claim.number for job in mine)]) + 1, owner.try_number)",
        "number = owner.try_number",
    ),
    "the deadline does not cancel": (
        "if facts.overdue and stays and (stays.phase is not Phase.STOPPING):",
        "if False:",
    ),
    "on_timeout='leave' is ignored": ("(policy.on_timeout == 'leave')", "False"),
    "jobs are always left": ("(policy.on_timeout == 'leave')", "True"),
    "patience never ends": ("if facts.overdue and facts.patience_over and live:", "if False:"),
    "past the deadline it is submitted": ("\n    if facts.overdue:\n", "\n    if False:\n"),
    "the next number may be above the try's own": (
        "number = min(max([owner.since, *(job.claim.number for job in mine)]) + 1, owner.try_number)",
        "number = max([owner.since, *(job.claim.number for job in mine)]) + 1",
    ),
    # reconcile
    "a job that somebody is stopping is taken for a new one": (
        "or given_up or (old and (not job.live))",
        "or (old and (not job.live))",
    ),
    "nothing is looked for before a submission": (
        "searched = fresh and (not owner.may_have_predecessors)",
        "searched = True",
    ),
    "the first try looks, too": (
        "searched = fresh and (not owner.may_have_predecessors)",
        "searched = False",
    ),
    "only retries look, not tries after a clear": (
        "return self.try_number > 1 or self.since > 0",
        "return self.since > 0",
    ),
    "a return from the watch looks again": (
        "(isinstance(action, Submit) or unfounded or memory.unsure)",
        "True",
    ),
    "a lost answer does not lead to a look": ("            searched = False\n", ""),
    "a lost answer is forgotten": ("memory = replace(memory, unsure=action.claim.number)", "pass"),
    "the job behind a lost answer is history": (
        "if job.claim.number in ours and job.id not in known and owner.owns(job):",
        "if False:",
    ),
    "a try that is begun again looks for nothing": (" or self.restarted", ""),
    "what a try did before it was begun again is history": (
        "owner.try_number if owner.restarted else 0",
        "0",
    ),
    "listings are believed at once": ("senses.sleep(listing_lag(service))", "pass"),
    "after trouble listings are believed at once": (
        "max(jitter(policy.pause(memory.trouble), senses.random), listing_lag(service))",
        "0.0",
    ),
    "a pause that was cut short is not made up for": (
        "settled = not fresh and (not memory.unsure)",
        "settled = not fresh",
    ),
    "trouble fails the try": ("if not service.is_transient(error):", "if True:"),
    "trouble holds the worker's slot": ("if memory.trouble > policy.quick_retries:", "if False:"),
    "a spent token is news": ("if not owner.owns(job) or given_up or (old and (not job.live)):", "if False:"),
    "an old job that the token started is news": (" or (old and (not job.live)):", ":"),
    "it is not kept which token was used up": ("add(replace(job, claim=action.claim))", "add(job)"),
    "what was submitted is not news": (
        "news.add(job.id)\n                    senses.log.info('submitted",
        "senses.log.info('submitted",
    ),
    "what is watched is not news": ("news.add(first.id)", "pass"),
    "what was being stopped when it was found is news": (
        "if owner.owns(first) and first.phase is not Phase.STOPPING:",
        "if owner.owns(first):",
    ),
    "the end of a predecessor is news": (
        "if owner.owns(first) and first.phase is not Phase.STOPPING:",
        "if True:",
    ),
    "the end of a duplicate is news": ("if action.why != OVERDUE:", "if False:"),
    "the end at the deadline is no news": ("if action.why != OVERDUE:", "if True:"),
    "a cancelled job is not taken for one that stops": (
        "add(replace(look, phase=Phase.STOPPING) if unclear else look)",
        "add(look)",
    ),
    "a job that the service forgot is cancelled for ever": (
        "unclear = look.live or look.phase is Phase.LOST",
        "unclear = look.live",
    ),
    "looks are not compared": (
        "known[job.id] = known[job.id].learn(job) if job.id in known else job",
        "known[job.id] = job",
    ),
    "which token was used up is forgotten at the next look": (
        "return replace(better, claim=replace(better.claim, again=again))",
        "return better",
    ),
    "which token was used up is forgotten by the watch": (
        "replace(newer.get(job.id, job), claim=job.claim)",
        "newer.get(job.id, job)",
    ),
    "the earlier phase wins": ("> _NEWS.index(other.phase)", "< _NEWS.index(other.phase)"),
    "no news wins over an end": (
        "_NEWS = [Phase.LOST, Phase.QUEUED, Phase.RUNNING, Phase.STOPPING, Phase.CANCELLED, Phase.FAILED, ",
        "_NEWS = [Phase.QUEUED, Phase.RUNNING, Phase.STOPPING, Phase.CANCELLED, Phase.FAILED, Phase.LOST, ",
    ),
    "what stops is forgotten between visits": ("if job.id in news or job.live))", "if job.id in news))"),
    "what ended is forgotten between visits": ("if job.id in news or job.live))", "if job.live))"),
    "the back-off is served again at each visit": ("remember(waited=occasion)", "remember()"),
    "refusals are not counted": ("refusals=memory.refusals + 1", "refusals=memory.refusals"),
    "patience begins anew at each visit": (
        "if overdue and memory.overdue_since is None:",
        "if overdue:",
    ),
    "the deadline is not looked at": (
        "overdue = deadline is not None and now >= deadline",
        "overdue = False",
    ),
    "what the watch saw is ignored": ("replace(newer.get(job.id, job), claim=job.claim)", "job"),
}


def core(source: str = SOURCE) -> SimpleNamespace:
    """`jobs.py` as `source` says, but for the classes in `SHARED`."""
    kept = [node for node in ast.parse(source).body if getattr(node, "name", "") not in SHARED]
    names = {name: getattr(jobs, name) for name in SHARED} | {"__name__": jobs.__name__}
    # Annotations stay strings: nothing but the imports of the module itself is needed to run it.
    exec(compile(ast.Module(kept, []), "jobs.py, changed", "exec"), names)
    return SimpleNamespace(**names)


def mutant(name: str) -> SimpleNamespace:
    """The core with one rule broken.

    :raises AssertionError: the rule is not written as the mutant expects it; write the mutant anew.
    """
    old, new = MUTANTS[name]
    assert SOURCE.count(old) == 1, f"{name}: found {SOURCE.count(old)} times: {old}"
    return core(re.sub(re.escape(old), lambda _: new, SOURCE))


class Translated:
    """A service whose looks are of the changed core's own class."""

    def __init__(self, service, changed) -> None:
        self.service, self.changed = service, changed
        self.listing_lag, self.batch_size = service.listing_lag, service.batch_size
        self.is_transient, self.address = service.is_transient, service.address

    def look(self, job):
        return job if self.changed is jobs else self.changed.Job(**vars(job))

    def find(self, claims):
        return [self.look(job) for job in self.service.find(claims)]

    def submit(self, claim):
        return self.look(self.service.submit(claim))

    def observe(self, asked):
        return [self.look(job) for job in self.service.observe(asked)]

    def cancel(self, job, reason):
        return self.look(self.service.cancel(job, reason))
