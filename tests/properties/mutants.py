"""Rules of the core, each of them broken once. What is not missed when it is gone is not a rule.

A mutant is the core with one piece of the source of one of its modules replaced (see `whole_core`). A
replacement that does not apply, or applies twice, is an error.
"""

from types import SimpleNamespace

from whole_core import SOURCES, core

NEXT_NUMBER = (
    "taken = [owner.cleared_after_try, *(job.claim.number for job in (*cleared, *mine))]\n"
    "    number = min(max(taken) + 1, owner.try_number)"
)

# By the module whose rules they are: what the module says, as `ast.unparse` writes it, and what instead.
RULES = {
    "job": {
        "a clear is not distinguished from a retry": (
            "        mine, its = (",
            "        return False\n        mine, its = (",
        ),
        "a deleted run is not distinguished from the one that was created again": (
            "if job.created < self.run_started - CLOCK_SKEW or ",
            "if ",
        ),
        "reattach takes over what has ended": ("if self.reattach and job.live:", "if self.reattach:"),
        "reattach takes over nothing": ("if self.reattach and job.live:", "if False:"),
        "claims reach only to the number before": (
            "for number in range(1, self.try_number + 1)]",
            "for number in range(1, self.try_number)]",
        ),
        "only retries search, not tries after a clear": (
            "return self.try_number > 1 or self.cleared_after_try > 0",
            "return self.cleared_after_try > 0",
        ),
        "a try that is restarted does not search": (" or self.restarted", ""),
        "which token was used up is forgotten at the next observation": (
            "claim = replace(better.claim, resubmission=resubmission, ",
            "claim = replace(better.claim, ",
        ),
        "a generation that is known is forgotten at the next observation": (
            "other.claim.generation or self.claim.generation",
            "other.claim.generation",
        ),
        "a job of any task instance is ours": ("if job.claim.task_key != self.task_key:", "if False:"),
        "the numbers alone tell a clear": ("if mine is None or its is None:", "if True:"),
        "a number that is known tells no clear": (
            "if mine is None or its is None:\n            return claim.number <= self.cleared_after_try",
            "if mine is None or its is None:\n            return False",
        ),
        "max_tries does not tell a clear": ("its[0] != max_tries or ", ""),
        "max_tries alone tells a clear": (
            "its[0] != max_tries or claim.number <= max_tries - retries < self.try_number",
            "its[0] != max_tries",
        ),
        "retries that were lowered make a clear": (" - retries < self.try_number", " - retries"),
        "workers with other retries than the scheduler see a clear": (
            "if mine == its:",
            "if False:",
        ),
        "jobs from before the clear do not show it": (
            "return not any(",
            "return True or any(",
        ),
        "jobs from before the clear show it for younger ones": (" and job.created <= other.created", ""),
        "jobs from before the clear show it for higher numbers": (
            "job.claim.number <= other.claim.number and ",
            "",
        ),
        "a job of a number that no earlier try can have given shows a clear": (
            " and job.claim.number < self.try_number",
            "",
        ),
        "a job that does not tell its generation shows a clear": (
            "_read_generation(job.claim.generation) and self._cleared_since",
            "self._cleared_since",
        ),
        "jobs of a deleted run show a clear": (
            "if job.created >= self.run_started - CLOCK_SKEW and ",
            "if ",
        ),
        "the earlier phase wins": ("> _PHASE_ORDER.index(other.phase)", "< _PHASE_ORDER.index(other.phase)"),
        "a lost job wins over an end": (
            (
                "_PHASE_ORDER = [Phase.LOST, Phase.QUEUED, "
                "Phase.RUNNING, Phase.STOPPING, Phase.CANCELLED, Phase.FAILED, "
            ),
            (
                "_PHASE_ORDER = [Phase.QUEUED, Phase.RUNNING, "
                "Phase.STOPPING, Phase.CANCELLED, Phase.FAILED, Phase.LOST, "
            ),
        ),
    },
    "decide": {
        "no archive is asked about a claim that may be the owner's own": (
            "if unconfirmed or owner.restarted else",
            "if False else",
        ),
        "an archive is asked about jobs that cannot be": (
            "if unconfirmed or owner.restarted else owner.try_number - 1",
            "if True else owner.try_number - 1",
        ),
        "an archive is asked although the service shows the job": (
            "if highest < claim.number <= last]",
            "if claim.number <= last]",
        ),
        "jobs of other task instances are facts": (
            "(job for job in facts.jobs if job.claim.task_key == owner.task_key)",
            "facts.jobs",
        ),
        "a job does not bear its generation": (" + 1), owner.generation)", " + 1))"),
        "any job that answers a token becomes ours": (
            "if job.claim.task_key != claim.task_key:",
            "if False:",
        ),
        "a job that answers a token becomes one of this generation": (
            "replace(claim, generation=job.claim.generation)",
            "claim",
        ),
        "what the service says is not believed": ("if seen is not None:", "if False:"),
        "which token was used up is forgotten when a job is proved": (
            "max(remembered.claim.resubmission, seen.claim.resubmission)",
            "seen.claim.resubmission",
        ),
        "a live job that is unknown stands beside one that is known": (
            "return None if others_live else remembered",
            "return remembered",
        ),
        "a memory may show a clear": (
            "remembered = replace(remembered, claim=replace(remembered.claim, generation=''))",
            "pass",
        ),
        "a live job that is unknown is dropped": (
            "return None if others_live else remembered",
            "return None",
        ),
        "a success that nobody has proved counts": (
            "if remembered.phase is Phase.SUCCEEDED:",
            "if False:",
        ),
        "a failure that is not known any more is lost": (
            "if remembered.phase is Phase.SUCCEEDED:",
            "if True:",
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
        "jobs of a later try are mine": (
            "if job not in newer and (owner.owns(job, cleared)",
            "if (owner.owns(job, cleared)",
        ),
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
            "if job.phase is Phase.SUCCEEDED and job.id in facts.own_job_ids:\n            return Finish",
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
            "last = next((job for job in reversed(mine) if job.id in facts.own_job_ids), None)",
            "last = next((job for job in reversed(mine)), None)",
        ),
        "own jobs are history": (
            "last = next((job for job in reversed(mine) if job.id in facts.own_job_ids), None)",
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
        "resubmissions share a token": ("max(len(used), max(used, default=-1) + 1), owner", "0, owner"),
        "tokens that are known to be used are used again": (
            "max(len(used), max(used, default=-1) + 1), owner",
            "len(used), owner",
        ),
        "resubmissions use up a number": (
            "number = max(last.claim.number, owner.cleared_after_try + 1)",
            "number = last.claim.number + 1",
        ),
        "what is submitted again after a clear is from before it": (
            "number = max(last.claim.number, owner.cleared_after_try + 1)",
            "number = last.claim.number",
        ),
        "a timeout is reported before a search": (
            "isinstance(action, TimedOut) and action.job is None",
            "False",
        ),
        "resubmissions do not wait": ("why, policy.backoff(attempt))", "why, 0.0)"),
        "refused submissions do not wait": (
            "policy.backoff(facts.refusals) if facts.refusals else 0.0",
            "0.0",
        ),
        "numbers begin at 1 after a clear": (
            NEXT_NUMBER,
            NEXT_NUMBER.replace(
                "owner.cleared_after_try, *(job.claim.number for job in (*cleared, *mine))", "0"
            ),
        ),
        "numbers are given twice": (
            NEXT_NUMBER,
            "number = owner.cleared_after_try + 1",
        ),
        "the number is Airflow's try number": (
            NEXT_NUMBER,
            "number = owner.try_number",
        ),
        "the deadline does not cancel": (
            "if facts.overdue and stays and (stays.phase is not Phase.STOPPING):",
            "if False:",
        ),
        "on_timeout='leave' is ignored": ("(policy.on_timeout == 'leave')", "False"),
        "jobs are always left": ("(policy.on_timeout == 'leave')", "True"),
        "the grace period never ends": (
            "if facts.overdue and facts.cancel_grace_over and live:",
            "if False:",
        ),
        "past the deadline it is submitted": ("\n    if facts.overdue:\n", "\n    if False:\n"),
        "the next number may be above the try's own": (
            NEXT_NUMBER,
            "number = max([owner.cleared_after_try, *(job.claim.number for job in mine)]) + 1",
        ),
        "a job that somebody is stopping is taken for a new one": (
            "or given_up or (old and (not job.live))",
            "or (old and (not job.live))",
        ),
        "a return from the watch searches again": (
            "(isinstance(action, Submit) or unfounded or unconfirmed > 0)",
            "True",
        ),
        "the own jobs of a restarted try are history": (
            "owner.try_number if owner.restarted else 0",
            "0",
        ),
        "an old job of the token is an own job": (" or (old and (not job.live))", ""),
        "a job that was being stopped when it was found is an own job": (
            "return owner.owns(job) and job.phase is not Phase.STOPPING",
            "return owner.owns(job)",
        ),
        "the end of a predecessor is reported": (
            "return owner.owns(job) and job.phase is not Phase.STOPPING",
            "return True",
        ),
        "a cancelled job is not taken for one that stops": (
            "return replace(answer, phase=Phase.STOPPING) if unclear else answer",
            "return answer",
        ),
        "a job that the service forgot is cancelled without a limit": (
            "unclear = answer.live or answer.phase is Phase.LOST",
            "unclear = answer.live",
        ),
        "a submission is not preceded by a search": ("isinstance(action, Submit) or unfounded", "unfounded"),
        "a lost answer leads to a search only before a submission": (" or unconfirmed > 0", ""),
        "a search is made after the grace period": (" and (not cancel_grace_over)", ""),
        "a lost answer is about no submission": ("numbers = {unconfirmed,", "numbers = {0,"),
        "every job that is found was submitted by this try": (
            "return job.claim.number in numbers and owner.owns(job)",
            "return owner.owns(job)",
        ),
        "the number alone identifies who submitted a job": (
            "return job.claim.number in numbers and owner.owns(job)",
            "return job.claim.number in numbers",
        ),
        "a live job of a deleted run is what was asked for": (
            "return not owner.owns(job) or given_up",
            "return given_up",
        ),
        "an old job that lives is of no use": ("(old and (not job.live))", "old"),
        "clocks may not differ": ("asked - CLOCK_SKEW or known", "asked or known"),
        "only its age shows that a job is old": (" or known\n", "\n"),
        "a job that is old is known by that alone": (
            "old = job.created < asked - CLOCK_SKEW or known",
            "old = known",
        ),
        "what was stopped a moment ago is what was asked for": (
            "(Phase.STOPPING, Phase.CANCELLED)",
            "(Phase.STOPPING,)",
        ),
        "what is being stopped is what was asked for": (
            "(Phase.STOPPING, Phase.CANCELLED)",
            "(Phase.CANCELLED,)",
        ),
        "an end that a cancel was answered with is not believed": (
            "unclear = answer.live or answer.phase is Phase.LOST",
            "unclear = True",
        ),
        "a job that lives after a cancel is not going to stop": (
            "unclear = answer.live or answer.phase is Phase.LOST",
            "unclear = answer.phase is Phase.LOST",
        ),
        "a job of any owner is taken over": (
            "return owner.owns(job) and job.phase is not Phase.STOPPING",
            "return job.phase is not Phase.STOPPING",
        ),
        "nothing is taken over": (
            "return owner.owns(job) and job.phase is not Phase.STOPPING",
            "return False",
        ),
        "a job is cancelled whenever its trigger stops": (
            "return state in ('failed', 'success', 'skipped', 'upstream_failed')",
            "return True",
        ),
        "a job lives on when its task instance was marked": (
            "return state in ('failed', 'success', 'skipped', 'upstream_failed')",
            "return False",
        ),
        "a job lives on when its task instance was marked as failed": (
            "('failed', 'success', 'skipped', 'upstream_failed')",
            "('success', 'skipped', 'upstream_failed')",
        ),
        "a job lives on when its task instance was marked as success": (
            "('failed', 'success', 'skipped', 'upstream_failed')",
            "('failed', 'skipped', 'upstream_failed')",
        ),
        "a job lives on when its task instance was skipped": (
            "('failed', 'success', 'skipped', 'upstream_failed')",
            "('failed', 'success', 'upstream_failed')",
        ),
        "a job lives on when what its task depends on has failed": (
            "('failed', 'success', 'skipped', 'upstream_failed')",
            "('failed', 'success', 'skipped')",
        ),
        "no job survives a clear": ("return on_clear == 'restart'", "return True"),
        "every job survives a clear": ("return on_clear == 'restart'", "return False"),
        "a job lives on when its task was removed": (
            "(None, 'removed', 'restarting')",
            "(None, 'restarting')",
        ),
        "a job lives on when its task instance was cleared": (
            "(None, 'removed', 'restarting')",
            "('removed', 'restarting')",
        ),
        "a job lives on when its task instance was cleared on a worker": (
            "(None, 'removed', 'restarting')",
            "(None, 'removed')",
        ),
    },
    "request": {
        "another request counts as the same": ("if not before or not now:", "if True:"),
        "a request of which nothing is known counts as another one": (
            "if not before or not now:",
            "if False:",
        ),
        "a field that is gone is not compared": ("{*before, *now}", "{*now}"),
        "a new field is not compared": ("{*before, *now}", "{*before}"),
        "the order of a dict counts": (
            "sorted(([str(name), _plain(each)] for name, each in value.items()), key=json.dumps)",
            "[[str(name), _plain(each)] for name, each in value.items()]",
        ),
        "where a thing is in memory counts": ("{'class': type(value).__qualname__}", "repr(value)"),
        "a field without a value counts": ("if value is not None}", "}"),
    },
    "reconcile": {
        "no archive is asked": ("jobs = service.find_forgotten(", "jobs = [] and service.find_forgotten("),
        "an archive that does not answer knows nothing": (
            "if patient and service.is_transient(error):",
            "if False:",
        ),
        "an archive is waited for for ever": (
            "if patient and service.is_transient(error):",
            "if service.is_transient(error):",
        ),
        "an archive that refuses fails the try": (
            "if patient and service.is_transient(error):",
            "if patient:",
        ),
        "an archive is believed without an end": (
            "ended = [job for job in jobs if not job.live and job.phase is not Phase.LOST]",
            "ended = list(jobs)",
        ),
        "errors are believed to pass for ever": (
            "if believed is not None and memory.submit_errors_for >= believed:",
            "if False:",
        ),
        "errors of searches are believed to pass for ever": (
            "if advice or (believed is not None and age >= believed):",
            "if advice:",
        ),
        "what no wait heals is waited for": ("if advice or (", "if False or ("),
        "advice ends a try while a job may run": (
            "advice = '' if believed is None else service.lasting",
            "advice = service.lasting",
        ),
        "a throttle does not count as an answer": (" or service.is_throttle(error)", ""),
        "a submission that never left is unconfirmed": (
            "if sending and (not service.may_have_submitted(error)):",
            "if False:",
        ),
        "an error of a search confirms that nothing was submitted": (
            "if sending and (not service.may_have_submitted(error)):",
            "if not service.may_have_submitted(error):",
        ),
        "a search does not tell what earlier tries have left": (
            "after_answer(unconfirmed_submission=0, searched=True, transient_for=0.0)",
            "after_answer(unconfirmed_submission=0, transient_for=0.0)",
        ),
        "errors that passed count later": (
            "remember(**NO_ERRORS)",
            "remember(transient_errors=0)",
        ),
        "a worker that stops submits": ("if stops() and isinstance(action, Submit | Cancel):", "if False:"),
        "what a visit has done is not kept": (
            "        keep(remember())\n        if stops()",
            "        if stops()",
        ),
        "a submission that is under way is not kept": (
            "                keep(remember())",
            "                pass",
        ),
        "no search is made before a submission": (
            "searched = first_visit and (not owner.may_have_predecessors)",
            "searched = True",
        ),
        "the first try searches, too": (
            "searched = first_visit and (not owner.may_have_predecessors)",
            "searched = False",
        ),
        "a lost answer does not lead to a search": (
            "                raise\n            searched = False\n",
            "                raise\n",
        ),
        "a second token is used without a look": (
            "if spent:\n                    searched = False\n",
            "if spent:\n",
        ),
        "a submission too many is made before it is noticed": ("submissions >= MAX_SUBMISSIONS", "False"),
        "a recalled memory has what was submitted a moment ago": (
            "(not memory.unconfirmed_submission) and (not memory.unproved)",
            "(not memory.unconfirmed_submission)",
        ),
        "a memory may say that the grace period is over": ("overdue_since=None, ", ""),
        "a memory may say that errors have lasted too long": (
            "transient_for=0.0, submit_errors_for=0.0, searched=False",
            "searched=False",
        ),
        "a memory may say that the service was searched": (
            "transient_for=0.0, submit_errors_for=0.0, searched=False",
            "transient_for=0.0, submit_errors_for=0.0",
        ),
        "a try that may have submitted what an XCom lacks is given up": (
            "memory.unproved or memory.unconfirmed_submission > 0 or",
            "memory.unconfirmed_submission > 0 or",
        ),
        "a memory may say where the clear was": ("cleared_after_try=None, generation='')", "generation='')"),
        "retries that change during a try change what is its own": (
            "if self.cleared_after_try is None:",
            "if True:",
        ),
        "a recalled memory is believed": ("if memory.unproved:", "if False:"),
        "a recalled memory is proved only before a submission": ("elif memory.unproved or (", "elif ("),
        "a recalled memory is proved only in part": ("[*_observed(service, doubted), *found]", "found"),
        "a search proves nothing": ("[*_observed(service, doubted), *found]", "_observed(service, doubted)"),
        "a recalled memory is proved when the time is over": ("if memory.unproved and over:", "if False:"),
        "all jobs are asked about at once": (
            "for start in range(0, len(members), service.batch_size)",
            "for start in (0,)",
        ),
        "jobs of all scopes are asked about together": (".setdefault(job.scope, [])", ".setdefault('', [])"),
        "a recalled memory is not proved": (
            "own_job_ids=own_job_ids, unproved=True)",
            "own_job_ids=own_job_ids)",
        ),
        "a memory may name jobs of other task instances": (
            "if job.claim.task_key == owner.task_key))\n            if not",
            "))\n            if not",
        ),
        "ids of no job are remembered": (
            "memory.own_job_ids & {job.id for job in seen}",
            "memory.own_job_ids",
        ),
        "a memory may call any job the try's own": (
            "                    own_job_ids &= _possibly_own(known.values(), owner)\n                for",
            "                for",
        ),
        "a memory may call any job the try's own when the time is over": (
            "                own_job_ids &= _possibly_own(known.values(), owner)\n            elif",
            "            elif",
        ),
        "what was taken over is not the try's own": (
            "if owner.reattach or owner.owns(job)",
            "if owner.owns(job)",
        ),
        "a memory may contain anything": (
            "if not all((_has_its_types",
            "if False and not all((_has_its_types",
        ),
        "what is no memory is an error": (
            "except (TypeError, ValueError, KeyError, AttributeError):",
            "except ZeroDivisionError:",
        ),
        "a stale try cancels what its successor has adopted": ("and (not still_ours())", "and False"),
        "a try asks before each cancel whether it is stale": (
            "isinstance(action, Cancel) and action.why == OVERDUE and ",
            "isinstance(action, Cancel) and ",
        ),
        "a lost answer is forgotten": (
            "replace(memory, unconfirmed_submission=action.claim.number, ",
            "replace(memory, ",
        ),
        "the first request of a try is forgotten": ("request=request or memory.request)", "request={})"),
        "a request of which nothing is known is remembered": (
            "request=request or memory.request)",
            "request=request)",
        ),
        "another request is submitted": (
            "if changed is None or changed:",
            "if False:",
        ),
        "the job behind a lost answer is history": (
            "if job.id not in known and submitted_by_this_try(job, owner, memory.unconfirmed_submission):",
            "if False:",
        ),
        "listings are believed at once": ("runtime.sleep(service.listing_lag)", "pass"),
        "after errors listings are believed at once": (
            "max(jitter(policy.pause(memory.transient_errors), runtime.random), service.listing_lag)",
            "0.0",
        ),
        "a pause that was cut short is not made up for": (
            "listing_lag_served = not first_visit and (not memory.unconfirmed_submission) and",
            "listing_lag_served = not first_visit and",
        ),
        "a transient error fails the try": ("if not service.is_transient(error):", "if True:"),
        "transient errors hold the worker's slot": (
            "if memory.transient_errors > policy.quick_retries:",
            "if False:",
        ),
        "the job of a spent token is an own job": ("if spent:", "if False:"),
        "it is not kept which token was used up": ("add(answered(answer, action.claim))", "add(answer)"),
        "a submitted job is not an own job": (
            "own_job_ids.add(answer.id)\n                    runtime.log.info('submitted",
            "runtime.log.info('submitted",
        ),
        "a watched job is not an own job": ("own_job_ids.add(first.id)", "pass"),
        "the end of a duplicate is reported": ("if action.why != OVERDUE:", "if False:"),
        "the end at the deadline is not reported": ("if action.why != OVERDUE:", "if True:"),
        "observations are not compared": (
            "known[job.id] = known[job.id].merge(job) if job.id in known else job",
            "known[job.id] = job",
        ),
        "which token was used up is forgotten by the watch": (
            "replace(newer.get(job.id, job), claim=job.claim)",
            "newer.get(job.id, job)",
        ),
        "what stops is forgotten between visits": (
            "if job.id in own_job_ids or job.live))",
            "if job.id in own_job_ids))",
        ),
        "what ended is forgotten between visits": ("if job.id in own_job_ids or job.live))", "if job.live))"),
        "the back-off is served again at each visit": ("remember(backoff_served_for=occasion)", "remember()"),
        "refusals are not counted": ("refusals=memory.refusals + 1", "refusals=memory.refusals"),
        "the grace period starts again at each visit": (
            "if overdue and memory.overdue_since is None:",
            "if overdue:",
        ),
        "the deadline is ignored": (
            "overdue = deadline is not None and now >= deadline",
            "overdue = False",
        ),
        "what the watch saw is ignored": ("replace(newer.get(job.id, job), claim=job.claim)", "job"),
    },
}
MUTANTS = {name: (module, *rule) for module, rules in RULES.items() for name, rule in rules.items()}
assert len(MUTANTS) == sum(map(len, RULES.values())), "two mutants have one name"


def mutant(name: str) -> SimpleNamespace:
    """The core with one rule broken.

    :raises AssertionError: the rule is not written as the mutant expects it; write the mutant again.
    """
    module, old, new = MUTANTS[name]
    source = SOURCES[module]
    assert source.count(old) == 1, f"{name}: found {source.count(old)} times in {module}: {old}"
    return core(**{module: source.replace(old, new)})
