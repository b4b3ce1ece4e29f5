"""The rules of the watch and of its budget, each with the code that breaks it.

A mutant is a piece of `budget.py`, `plan.py`, `watches.py` or `core/polling.py` (as `ast.unparse` writes it)
that is replaced by another one.
"""

import ast
import inspect
import types

from airflow_resilient.core import polling
from airflow_resilient.watching import budget, plan, watches

BUDGET = {
    "a bucket overflows": (
        "min(self.burst, self.tokens + (now - self.at) * self.rate)",
        "self.tokens + (now - self.at) * self.rate",
    ),
    "a bucket is not refilled": ("self.tokens + (now - self.at) * self.rate", "self.tokens"),
    "a clock that goes back takes calls away": ("if now <= self.at:", "if now == self.at:"),
    "what is given back overfills it": (
        "tokens=min(self.burst, self.tokens - calls)",
        "tokens=self.tokens - calls",
    ),
    "throttling does not empty it": ("tokens=min(self.tokens, 0.0)", "tokens=self.tokens"),
    "throttling forgives a debt": ("tokens=min(self.tokens, 0.0)", "tokens=0.0"),
    "throttling does not halve the rate": ("self.rate / 2)", "self.rate)"),
    "polling stops": ("max(self.ceiling / MAX_SLOWDOWN, self.rate / 2)", "self.rate / 2"),
    "what was under way halves the rate again": ("if sent is not None and sent < self.slowed:", "if False:"),
    "what was sent since does not halve it": ("if sent is not None and sent < self.slowed:", "if sent:"),
    "the rate is not raised": ("self.rate + self.ceiling / STEPS_TO_CEILING", "self.rate"),
    "the rate is raised beyond the budget": (
        "min(self.ceiling, self.rate + self.ceiling / STEPS_TO_CEILING)",
        "self.rate + self.ceiling / STEPS_TO_CEILING",
    ),
    "a call too many is afforded": (">= min(calls, self.burst) - 1e-09", ">= min(calls, self.burst) - 1"),
    "what costs more than a bucket holds waits forever": (
        "self.tokens >= min(calls, self.burst)",
        "self.tokens >= calls",
    ),
    "the wait for a full bucket is too long": ("max(0.0, min(calls, self.burst)", "max(0.0, calls"),
    "a share is the whole rate": ("budget.per_second * share, ", "budget.per_second, "),
    "a share is the whole burst": ("max(1.0, budget.burst * share)", "budget.burst"),
    "a small share never affords a call": ("max(1.0, budget.burst * share)", "budget.burst * share"),
}
POLLING = {
    "a job's age before the wait is forgotten": ("now - self.since + self.age", "now - self.since"),
    "a job whose end was reported is not polled fast": ("    elif fast_polls_left:\n", "    elif False:\n"),
    "a change does not end the fast polls": (
        "        fast_polls_left = 0\n    elif fast_polls_left:",
        "        pass\n    if fast_polls_left:",
    ),
    "fast polls never end": ("fast_polls_left - 1)", "fast_polls_left)"),
    "a refused batch is asked for again as it is": ("batch_limit=batch // 2", "batch_limit=0"),
    "a refused batch counts as a refusal of each": ("if batch > 1:", "if False:"),
    "a refusal does not delay the next poll": ("due=now + pause", "due=now"),
    "misses are not counted": ("waiting.missing + 1", "waiting.missing"),
    "a miss is not forgotten": ("(0, waiting.missing_since)", "(waiting.missing, waiting.missing_since)"),
    "a few misses are a loss": ("missing >= policy.lost_after_polls and ", ""),
    "misses in a short time are a loss": (" and now - since >= policy.lost_after_seconds", ""),
    "a job that was refused stays alone": ("refused=0, batch_limit=0, ", "refused=0, "),
    # after_archive
    "an archive that does not answer is waited for for ever": (
        "if now - lost.missing_since - lost.policy.lost_after_seconds < patience:",
        "if True:",
    ),
    "an archive that does not answer knows nothing": (
        "if now - lost.missing_since - lost.policy.lost_after_seconds < patience:",
        "if False:",
    ),
    "the archive's running job is believed": (
        "answer is not None and (not answer.live) and (answer.phase is not Phase.LOST)",
        "answer is not None",
    ),
    "the archive changes whose job it is": (
        "job=replace(waiting.job.merge(answer), claim=waiting.job.claim)",
        "job=waiting.job.merge(answer)",
    ),
    "a new wait joins a batch before its first poll is due": (
        "0.0 if now - self.since < self.policy.first_interval else self.interval(now) / 2",
        "self.interval(now) / 2",
    ),
}
PLAN = {
    # after_event
    "an event brings the first poll forward": ("waiting.since + policy.first_interval, ", ""),
    "each event causes a poll at once": (", waiting.polled + policy.first_interval)", ")"),
    "an event delays a poll": ("min(waiting.due, soonest)", "soonest"),
    "every event causes fast polls": ("FAST_POLLS if ended else waiting.fast_polls_left", "FAST_POLLS"),
    "no event causes fast polls": (
        "FAST_POLLS if ended else waiting.fast_polls_left",
        "waiting.fast_polls_left",
    ),
    # plan
    "no wait joins a batch early": ("waiting.due <= now + waiting.join_early_by(now)", "False"),
    "every wait joins a batch early": ("waiting.due <= now + waiting.join_early_by(now) and ", ""),
    "the wait that is due last joins first": (
        "sorted(later, key=lambda waiting: waiting.due)",
        "sorted(later, key=lambda waiting: -waiting.due)",
    ),
    "a job that was refused is polled with the others": ("min(size, limit or size)", "size"),
    "batches are too large": ("min(size, limit or size)", "limit or 10 ** 6"),
    "a job stands in a batch twice": (
        "if other is None or waiting.due < other.due:\n                due_waits[waiting.job.id] = waiting",
        "due_waits[id(waiting)] = waiting",
    ),
    "calls are made for batches in which nothing is due": ("free = -len(due_waits) % size", "free = size"),
    "the wait that is due first is not polled first": (
        "sorted(due_waits.values(), key=lambda waiting: waiting.due)",
        "sorted(due_waits.values(), key=lambda waiting: -waiting.due)",
    ),
    "later due times are ignored for the sleep": (
        "first = min((due for due in dues if due > now), default=inf)",
        "first = inf",
    ),
    "scopes are polled in the order of their names": (
        "heappush(in_turn, (first, scope, number, portion))",
        "heappush(in_turn, (0.0, scope, number, portion))",
    ),
    "cheap batches go before expensive ones": (
        (
            "            waiting_ways.add(way.operation)\n"
            "            if division is None or waiting_ways >= division.operations:\n"
            "                return Plan(tuple(batches), affordable, short, late)\n"
        ),
        "            continue\n",
    ),
    "the budget is ignored": ("if not left[budget].affords(way.calls)", "if False"),
    "polls are free": ("for budget in lacking or takes))", "for budget in lacking))"),
    "the bucket is not refilled before planning": (
        "{budget: bucket.refilled(now) for budget, bucket in buckets.items()}",
        "buckets",
    ),
    "the wait for calls is too short": (
        "max((left[budget].wait_for(way.calls) for budget in lacking)) + 1e-06",
        "0.0",
    ),
    "a scope that fails is polled without a pause": ("if until > now and scope in scopes", "if False"),
    "a scope that fails is polled with many calls": (
        "1 if scope in concurrency.paused else concurrency.per_scope",
        "concurrency.per_scope",
    ),
    "the pause of one scope pauses all": (
        "max(paused[scope], first)",
        "3600.0 + now",
    ),
    "one scope takes all concurrency": ("in_flight[scope] += 1", "pass"),
    "concurrency has no limit": (
        "while in_turn and len(batches) < concurrency.free:",
        "while in_turn:",
    ),
    "lateness is not reported": ("late = max(late, now - due)", "late = 0.0"),
    # several ways
    "scopes are divided though the preferred way affords everything": (
        "if planned.short and len(buckets) > 1:",
        "if len(buckets) > 1:",
    ),
    "scopes are never divided": ("if planned.short and len(buckets) > 1:", "if False:"),
    "polls in flight have no part in the division": ("(*waits, *others)", "waits"),
    "what waits for one way holds up the others": (
        "if division is None or waiting_ways >= division.operations:",
        "if True:",
    ),
    "what waits keeps calls of a shared budget that it does not lack": (
        "for budget in lacking or takes))",
        "for budget in takes))",
    ),
    "what waits does not keep the calls of a shared budget that it lacks": (
        "for budget in lacking or takes))",
        "for budget in (() if lacking else takes)))",
    ),
    "calls take from the first budget alone": (
        "takes = [budget for budget in left if budget.counts(way.operation)]",
        "takes = list(left)[:1]",
    ),
    "calls take from every budget": (
        "takes = [budget for budget in left if budget.counts(way.operation)]",
        "takes = list(left)",
    ),
    "it sleeps until the slowest way affords a call": (
        "affordable = min(affordable, ",
        "affordable = max(affordable if affordable < inf else 0.0, ",
    ),
    "it sleeps though somebody else is due": (
        "min(_MAX_SLEEP_SECONDS, nearest - now, affordable)",
        "min(_MAX_SLEEP_SECONDS, affordable if affordable < inf else nearest - now)",
    ),
    "a batch is polled in a way that it does not offer": (
        "next((way for way in offered if chosen and way.operation == chosen.operation), offered[0])",
        "chosen or offered[0]",
    ),
    "what shares no call waits for calls for a whole batch": (
        "largest = chosen and chosen.size or size",
        "largest = size",
    ),
    "every scope changes to the other way": ("if after < best:", "if True:"),
    "a change that brings nothing stays counted": ("load = before", "pass"),
    "scopes change that take the fewest calls": (
        "way.calls / max(chosen[scope].calls, 1.0)",
        "way.calls",
    ),
    "scopes change in any order": ("sorted(changes, key=lambda change: change[:2])", "changes[::-1]"),
    "a scope is polled in a way that a part of it does not offer": (
        "set.intersection(*",
        "set.union(*",
    ),
    "freshness counts one call": ("calls / buckets[budget].rate", "1 / buckets[budget].rate"),
    # pressure
    "lateness is logged again and again": ("None if self.on else 'begins'", "'begins'"),
    "a little lateness is logged": ("if late > LATE_SECONDS:", "if late >= LATE_SECONDS:"),
    "a moment's calm ends it": ("now - self.last > RECOVERED_SECONDS", "True"),
    "it never ends": ("if self.on and now - self.last > RECOVERED_SECONDS:", "if False:"),
}


WATCHES = {
    "each who asks makes a watch": (
        "self._entries.get(key) or self._start(key, make)",
        "self._start(key, make)",
    ),
    "the end of the first who asked is the end for all": (
        "asyncio.shield(entry.making)",
        "entry.making",
    ),
    "an error is kept for those who ask later": ("if (task.cancelled() or task.exception())", "if False"),
    "all are made at once": ("async with self._turn:", "if True:"),
    "its log lines are those of the first who asked": (
        "contextvars.Context().run(create, in_turn())",
        "create(in_turn())",
    ),
    "asking does not keep it": ("entry.used = self._now()\n        return watch", "return watch"),
    "waiting does not keep it": ("if entry.watch:", "if False:"),
    "it is dropped at once": ("now - entry.used >= IDLE_SECONDS", "True"),
    "it is never dropped": ("now - entry.used >= IDLE_SECONDS", "False"),
    "it is dropped while it is made": ("self.used = inf", "self.used = 0.0"),
    "it is kept forever when all who asked are gone": (
        "            entry.used = self._now()\n            if",
        "            if",
    ),
    "one that is being made counts as made": (" if entry.watch is not None]", "]"),
}


def source_of(module) -> str:
    return ast.unparse(ast.parse(inspect.getsource(module)))


SOURCES = {module: source_of(module) for module in (budget, plan, polling, watches)}


def mutant(module, old: str, new: str):
    """The module with one rule broken, a module of its own.

    :raises AssertionError: the rule is not written as the mutant expects it; update the mutant.
    """
    source = SOURCES[module]
    assert source.count(old) == 1, f"found {source.count(old)} times: {old}"
    return made(module, source.replace(old, new))


def with_plan(module, changed):
    """What `test_watch` tests, with one of the two modules changed."""
    both = {polling: polling, plan: plan, module: changed}
    return types.SimpleNamespace(**(vars(both[polling]) | vars(both[plan])))


def made(module, source: str):
    changed = types.ModuleType(module.__name__)  # dataclasses look their module up by its name
    changed.__package__ = module.__package__
    exec(compile(source, f"{module.__name__}, changed", "exec"), vars(changed))
    return changed
