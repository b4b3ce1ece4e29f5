"""The rules of the watch and of its budget, each with what the code looks like without it.

A mutant is a piece of `budget.py` or `watch.py` (as `ast.unparse` writes it) that is replaced by another one.
"""

import ast
import inspect
import types

from airflow_resilient import budget, watch

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
    "looks stop": ("max(self.ceiling / FLOOR, self.rate / 2)", "self.rate / 2"),
    "what was under way halves the rate again": ("if sent is not None and sent < self.slowed:", "if False:"),
    "what was sent since does not halve it": ("if sent is not None and sent < self.slowed:", "if sent:"),
    "the rate is not raised": ("self.rate + self.ceiling / STEPS", "self.rate"),
    "the rate is raised beyond the budget": (
        "min(self.ceiling, self.rate + self.ceiling / STEPS)",
        "self.rate + self.ceiling / STEPS",
    ),
    "a call too many is afforded": (">= min(calls, self.burst) - 1e-09", ">= min(calls, self.burst) - 1"),
    "what costs more than a bucket holds waits for ever": (
        "self.tokens >= min(calls, self.burst)",
        "self.tokens >= calls",
    ),
    "the wait for a full bucket is too long": ("max(0.0, min(calls, self.burst)", "max(0.0, calls"),
    "a share is the whole rate": ("self.per_second * share, ", "self.per_second, "),
    "a share is the whole burst": ("max(1.0, self.burst * share)", "self.burst"),
    "a small share never affords a call": ("max(1.0, self.burst * share)", "self.burst * share"),
}
WATCH = {
    # after_look
    "a job's age before the wait is forgotten": ("now - self.since + self.age", "now - self.since"),
    "whose end was heard of is not hurried": ("    elif hurried:\n", "    elif False:\n"),
    "news do not end the hurry": ("        hurried = 0\n    elif hurried:", "        pass\n    if hurried:"),
    "they are hurried for ever": ("hurried - 1)", "hurried)"),
    "a refused batch is asked for again as it is": ("crowd=batch // 2", "crowd=0"),
    "a refused batch counts as a refusal of each": ("if batch > 1:", "if False:"),
    "a refusal does not delay the next look": ("due=now + pause", "due=now"),
    "misses are not counted": ("waiting.missing + 1", "waiting.missing"),
    "a miss is not forgotten": ("(0, waiting.missing_since)", "(waiting.missing, waiting.missing_since)"),
    "a few misses are a loss": ("missing >= patience.missing and ", ""),
    "misses in a short time are a loss": (" and now - since >= patience.missing_for", ""),
    "who was refused stays alone": ("refused=0, crowd=0, ", "refused=0, "),
    # woken
    "an event brings the first look forward": ("waiting.since + patience.first, ", ""),
    "events make looks as often as they come": (", waiting.looked + patience.first)", ")"),
    "an event delays a look": ("min(waiting.due, soonest)", "soonest"),
    "every event hurries": ("HURRIED if ended else waiting.hurried", "HURRIED"),
    "no event hurries": ("HURRIED if ended else waiting.hurried", "waiting.hurried"),
    # plan
    "nobody comes along": ("waiting.due <= now + waiting.early(now)", "False"),
    "everybody comes along": ("waiting.due <= now + waiting.early(now) and ", ""),
    "not who is due next comes along": (
        "sorted(later, key=lambda waiting: waiting.due)",
        "sorted(later, key=lambda waiting: -waiting.due)",
    ),
    "who has just come comes along": (
        "0.0 if now - self.since < self.patience.first else self.interval(now) / 2",
        "self.interval(now) / 2",
    ),
    "who was refused is asked about with the others": ("min(size, most or size)", "size"),
    "batches are too large": ("min(size, most or size)", "most or 10 ** 6"),
    "a job stands in a batch twice": (
        "if other is None or waiting.due < other.due:\n                crowd[waiting.job.id] = waiting",
        "crowd[id(waiting)] = waiting",
    ),
    "calls are made in which nobody is due": ("room = -len(crowd) % size", "room = size"),
    "not who is due first is first": (
        "sorted(found.values(), key=lambda waiting: waiting.due)",
        "sorted(found.values(), key=lambda waiting: -waiting.due)",
    ),
    "it sleeps for who is due later": (
        "first = min((due for due in dues if due > now), default=inf)",
        "first = inf",
    ),
    "scopes have their turn by name": (
        "heappush(in_turn, (first, scope, number, portion))",
        "heappush(in_turn, (0.0, scope, number, portion))",
    ),
    "what is cheap goes before what is dear": (
        "return Plan(tuple(batches), bucket.wait_for(price) + 1e-06, price, now - due)",
        "continue",
    ),
    "the budget is not asked": ("if not bucket.affords(price):", "if False:"),
    "looks are free": ("bucket = bucket.spent(price)", "pass"),
    "the bucket is as it was": ("bucket = bucket.refilled(now)", "pass"),
    "the wait for calls is too short": ("bucket.wait_for(price) + 1e-06", "0.0"),
    "a scope in trouble is asked all the same": ("if until > now and scope in scopes", "if False"),
    "a scope in trouble is asked with many calls": (
        "1 if scope in rooms.paused else rooms.each",
        "rooms.each",
    ),
    "a pause is slept through by all": (
        "max(paused[scope], first)",
        "3600.0 + now",
    ),
    "one scope takes all rooms": ("taken[scope] += 1", "pass"),
    "there is no end of rooms": ("while in_turn and len(batches) < rooms.free:", "while in_turn:"),
    "lateness is not told": ("price, now - due)", "price, 0.0)"),
    "freshness is told for one call": ("calls / bucket.rate", "1 / bucket.rate"),
    # pressure
    "lateness is told again and again": ("None if self.on else 'begins'", "'begins'"),
    "a little lateness is told": ("if late > LATE:", "if late >= LATE:"),
    "a moment's calm ends it": ("now - self.last > CALM", "True"),
    "it never ends": ("if self.on and now - self.last > CALM:", "if False:"),
}


def source_of(module) -> str:
    return ast.unparse(ast.parse(inspect.getsource(module)))


SOURCES = {budget: source_of(budget), watch: source_of(watch)}


def mutant(module, old: str, new: str):
    """The module with one rule broken, a module of its own.

    :raises AssertionError: the rule is not written as the mutant expects it; write the mutant anew.
    """
    source = SOURCES[module]
    assert source.count(old) == 1, f"found {source.count(old)} times: {old}"
    return made(module, source.replace(old, new))


def made(module, source: str):
    changed = types.ModuleType(module.__name__)  # dataclasses look their module up by its name
    changed.__package__ = module.__package__
    exec(compile(source, f"{module.__name__}, changed", "exec"), vars(changed))
    return changed
