"""Every rule by which the watch judges an Airflow is missed when it is gone, by a row of its tables."""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType

import pytest
import test_health as tables

pytestmark = pytest.mark.pure

PACKAGE = "airflow_resilient.operations"
ORDER = ("first_seen", "why_waiting", "health")

MUTANTS = {
    "a lost scheduler hides nothing": ("health", "elif _SCHEDULER not in self.lost:", "else:"),
    "a lost scheduler does not hide what waits": (
        "health",
        "if stands is None and _SCHEDULER not in self.lost:",
        "if stands is None:",
    ),
    "a lost triggerer does not hide what is deferred": (
        "health",
        "if not deferred or _TRIGGERER in self.lost:",
        "if not deferred:",
    ),
    "a lost DAG processor does not hide old files": (
        "health",
        "and _PROCESSOR not in self.lost and _SCHEDULER not in self.lost",
        "",
    ),
    "a scheduler that stands still does not hide what is overdue": (
        "health",
        "        elif _SCHEDULER not in self.lost:\n            yield from overdue",
        "        yield from overdue",
    ),
    "gaps are not reported": ("health", "yield from self._gaps()", ""),
    "a silent API is a page at once": (
        "health",
        "Severity.PAGE if self.now - since > self.limits.heartbeat else Severity.UNKNOWN",
        "Severity.PAGE",
    ),
    "heartbeats are believed at any age": ("health", "if age > self.limits.heartbeat:", "if False:"),
    "a heartbeat that never was is no loss": ("health", "if each.kind != _TRIGGERER and", "if False and"),
    "a triggerer must have run once": ("health", "if each.kind != _TRIGGERER and", "if"),
    "a heartbeat that is not there yet is a loss": (
        "health",
        'self.lasts(f"no-heartbeat/{each.kind}", self.limits.heartbeat):',
        'self.first(f"no-heartbeat/{each.kind}"):',
    ),
    "a database that fails over loses heartbeats": (
        "health",
        "if look.database is False:  # then Airflow knows no heartbeat",
        "if False:",
    ),
    "the clock of Airflow is taken for ours": (
        "health",
        "in_our_time(snapshot, ahead) if abs(ahead) > limits.clock else snapshot",
        "snapshot",
    ),
    "the clock of Airflow is corrected the wrong way": (
        "health",
        "getattr(each, name) - ahead",
        "getattr(each, name) + ahead",
    ),
    "a peer is missed at once": (
        "health",
        "            if self.now - since <= self.limits.heartbeat:\n                continue\n",
        "",
    ),
    "max_active_runs is no reason": (
        "health",
        "if self.unfinished.get(dag.dag_id, 0) >= dag.max_active_runs:",
        "if False:",
    ),
    "any unfinished run is a reason": (
        "health",
        "if self.unfinished.get(dag.dag_id, 0) >= dag.max_active_runs:",
        "if self.unfinished.get(dag.dag_id, 0):",
    ),
    "without runs nothing is intended": (
        "health",
        '        if self.snapshot.runs is None or "runs" in self.partial:\n            return None  #',
        "        if False:\n            return None  #",
    ),
    "a run is overdue since it was due": (
        "health",
        "return max(dag.next_due, first, self.back) if self.seen.known else dag.next_due",
        "return dag.next_due",
    ),
    "a first look knows nothing of a run that is due": (
        "health",
        "return max(dag.next_due, first, self.back) if self.seen.known else dag.next_due",
        "return max(dag.next_due, first)",
    ),
    "a run of a paused DAG is meant to go on": (
        "health",
        "            and run.dag_id in self.dags\n            and run.decided is not None",
        "            and run.decided is not None",
    ),
    "nothing is a sign of scheduling": (
        "health",
        "since = max(filter(None, [self._last_sign(), min(begins), self.back]))",
        "since = min(begins)",
    ),
    "what a DAG that was just unpaused has is stuck": (
        "health",
        "[first if self.seen.known else run.decided or first for run, first in undecided]",
        "[run.decided or first for run, first in undecided]",
    ),
    "a backfill counts for max_active_runs": (
        "health",
        "if not (look.on_3 and run.backfill)]",
        "]",
    ),
    "on 2.11, a backfill does not count for max_active_runs": (
        "health",
        "if not (look.on_3 and run.backfill)]",
        "if not run.backfill]",
    ),
    "on 2.11, the scheduler looks at backfills": (
        "health",
        "and (self.snapshot.on_3 or not run.backfill)",
        "",
    ),
    "a run that is meant for later is late": (
        "health",
        "if run.due is not None and run.due > self.now:",
        "if False:",
    ),
    "a scheduler that is back has been there all the time": (
        "health",
        'known = {"scheduler-gone", "scheduler-back"} & self.seen.marks.keys()',
        "known = False",
    ),
    "a scheduler that moves again has done so all the time": (
        "health",
        'known = {"scheduler-stood", "scheduler-moves"} & self.seen.marks.keys()',
        "known = False",
    ),
    "a scheduler that stands still moves in the next look": (
        "health",
        "if stood is not None and (self._last_sign() or 0.0) <= stood:",
        "if False:",
    ),
    "an Airflow that answers again has done so all the time": (
        "health",
        "looked - last > self.limits.heartbeat:",
        "False:",
    ),
    "it has its time once more in one look only": (
        "health",
        'before = [key for key in self.seen.marks if key.startswith("answers-again/")]',
        "before = []",
    ),
    "what is vital and hidden is never a page": ("health", "Severity.PAGE if vital and long else", ""),
    "what is hidden is a page, whatever it is": (
        "health",
        "gap.part in _VITAL and not gap.denied",
        "True",
    ),
    "a triggerer that nobody needs is a page": ("health", "Severity.TICKET if idle else", ""),
    "a triggerer that is needed is a ticket": (
        "health",
        "return not look.deferred and not any(pool.deferred for pool in look.pools)",
        "return True",
    ),
    "a needed DAG that vanishes is missed": ("health", "if look.stale and", "if False and"),
    "a long break is none": (
        "first_seen",
        "now - self.looked > MAX_BREAK_SECONDS\n        return replace",
        "False\n        return replace",
    ),
    "another interval is the same canary": (
        "health",
        'f"leg/{canary.every:.0f}/{leg.dag_id}/{leg.leg}"',
        'f"leg/{leg.dag_id}/{leg.leg}"',
    ),
    "a task that is queued again is about to start no more": (
        "health",
        'f"starting/{each.state}/{each.queued or 0.0:.0f}/{each.key}"',
        'f"starting/{each.state}/{each.key}"',
    ),
    "a pool that is too small for one keeps all": (
        "health",
        "full = [why for why in _OF_POOLS if why is not Why.POOL_TOO_SMALL]",
        "full = _OF_POOLS",
    ),
    "queued runs are not late": ("health", "[*self._overdue(), *self._not_started()]", "[*self._overdue()]"),
    "max_active_runs is no reason to be queued": (
        "health",
        "elif self.running.get(run.dag_id, 0) >= dag.max_active_runs:",
        "elif False:",
    ),
    "max_active_runs is a reason although the DAG needs it": (
        "health",
        "if dag.needs.start_within is not None and run.automatic:",
        "if False:",
    ),
    "a DAG whose end date has passed has a next run": (
        "health",
        "or 0 < (dag.end or 0.0) < self.now:",
        "or False:",
    ),
    "an end date that is not known is none": (
        "health",
        "Severity.TICKET if dag.end is None else Severity.PAGE,",
        "Severity.PAGE,",
    ),
    "a DAG that was deployed later has missed it": (
        "health",
        "if evidence and joined < deadline:",
        "if evidence:",
    ),
    "a run that was missed once has ended": (
        "health",
        'if gone and self.lasts(f"ended/{each.key}", _SURE_SECONDS) is not None:',
        "if gone:",
    ),
    "two DAGs that are gone are many": (
        "health",
        "max(_FEW, self.limits.vanished * self.seen.dag_count)",
        "self.limits.vanished * self.seen.dag_count",
    ),
    "a DAG without a schedule has a next run": (
        "health",
        "if not dag.scheduled or dag.next_due",
        "if dag.next_due",
    ),
    "unfinished runs are no reason for no next run": (
        "health",
        "dag.next_due is not None or self.unfinished.get(dag.dag_id):",
        "dag.next_due is not None:",
    ),
    "a wait counts from what Airflow says": (
        "health",
        "since = first if each.since is None else min(first, each.since)",
        "since = each.since or first",
    ),
    "a paused DAG is a page": (
        "health",
        "Severity.TICKET if why is Why.DAG_PAUSED else Severity.PAGE,",
        "Severity.PAGE,",
    ),
    "a run is frozen although a task of it runs": (
        "health",
        "if ours and (run.dag_id, run.run_id) not in active and",
        "if ours and",
    ),
    "a run is frozen although nobody knows whether a task runs": (
        "health",
        "if None in (look.dags, look.runs, look.running, look.deferred) or self.partial:",
        "if look.dags is None:",
    ),
    "what is about to start is late": ("health", "if not self._is_starting(each, why):", "if True:"),
    "what has no reason to wait is about to start": (
        "health",
        "return since is not None and self.now - since <= self.limits.scheduling",
        "return True",
    ),
    "a frozen run is told twice": ("health", "and run.dag_id not in known", ""),
    "whoever has a trigger is in good hands": ("health", "if each.triggerer in alive:", "if each.triggerer:"),
    "no trigger is in good hands": ("health", "if each.triggerer in alive:", "if False:"),
    "one old file is enough": (
        "health",
        "age = self.now - max(parsed, default=self.now)",
        "age = self.now - min(parsed, default=self.now)",
    ),
    "one DAG that is gone is enough": (
        "health",
        "many = len(gone) > max(_FEW, self.limits.vanished * self.seen.dag_count)",
        "many = bool(gone)",
    ),
    "what is needed counts although it is due after that": (
        "health",
        "before <= run.due < deadline",
        "before <= run.due",
    ),
    "yesterday's runs are needed today": ("health", "before <= run.due < deadline", "run.due < deadline"),
    "a run that was never created is not missed": (
        "health",
        "if dag.next_due is not None and dag.next_due < deadline:",
        "if False:",
    ),
    "a run by hand is needed": ("health", "            if run.automatic:\n", "            if True:\n"),
    "one requeue is enough": ("health", "count <= self.limits.requeues:", "count <= 0:"),
    "what was given up must have been requeued often": ("health", "name not in gave_up and count", "count"),
    "legs count although they were not all read": ("health", 'if "canaries" in self.partial:', "if False:"),
    "a canary without runs is late, too": (
        "health",
        "if canary is None or no_runs & known:",
        "if canary is None:",
    ),
    "a lost triggerer does not hide its leg": (
        "health",
        "if leg.leg == TRIGGERER_LEG and _TRIGGERER in self.lost:",
        "if False:",
    ),
    "a lost triggerer hides every leg": (
        "health",
        "if leg.leg == TRIGGERER_LEG and _TRIGGERER in self.lost:",
        "if _TRIGGERER in self.lost:",
    ),
    "a late leg is never explained": ("health", " and not _explained(leg, known)", ""),
    "what waits for a pool does not explain a leg": (
        "health",
        '    keys = {f"{Kind.WAITING.value}/{why.value}/{leg.pool}" for why in full}',
        "    keys = set()",
    ),
    "a queue without workers does not explain a leg": (
        "health",
        '    keys.add(f"{Kind.WAITING.value}/{Why.NO_WORKER.value}/{leg.queue}")\n',
        "",
    ),
    "what nobody takes over does not explain a leg": (
        "health",
        '    if leg.leg == TRIGGERER_LEG:\n        keys |= {"no-triggerer", "unattended"}\n',
        "",
    ),
    "a canary is late at once": (
        "health",
        "return max(first, leg.succeeded or first, self.back)",
        "return leg.succeeded or first",
    ),
    "a leg counts since it was seen first": (
        "health",
        "return max(first, leg.succeeded or first, self.back)",
        "return first",
    ),
    "a first look takes any old success for late": (
        "health",
        "return self.now if leg.tried is None else leg.tried",
        "return leg.succeeded or self.now",
    ),
    "a first look finds no late leg": (
        "health",
        "return self.now if leg.tried is None else leg.tried",
        "return self.now",
    ),
    "the limit of all canaries is ignored": (
        "health",
        "canary.late_after(self.limits.canary)",
        "canary.late_after(0.0)",
    ),
    "all late legs have the cause of each": ("health", "if len(late) == len(every):", "if False:"),
    "a pool is a cause for one leg alone": ("health", "if len(late) == len(every):", "if True:"),
    "a pool is no cause for late legs": (
        "health",
        "            if why in _OF_POOLS:\n",
        "            if False:\n",
    ),
    "one leg is Airflow as a whole": ("health", "            if len(every) > 1:\n", "            if True:\n"),
    "an executor is taken for a queue": ("health", "if leg.leg.startswith(EXECUTOR_LEG):", "if False:"),
    "a triggerer is a cause although its leg cannot start": (
        "health",
        "leg.leg == TRIGGERER_LEG and leg.queue not in starts for leg in late",
        "leg.leg == TRIGGERER_LEG for leg in late",
    ),
    "a triggerer that never ran beats": (
        "health",
        "            elif beats[0] is None:\n",
        "            elif False:\n",
    ),
    "a triggerer of which nothing is known beats": (
        "health",
        "            if not beats:\n",
        "            if False:\n",
    ),
    "any executor has workers of a queue": (
        "health",
        'celery = not facts.executors or any("Celery" in name for name in facts.executors)',
        "celery = True",
    ),
    "a Celery executor has no workers of a queue": (
        "health",
        'celery = not facts.executors or any("Celery" in name for name in facts.executors)',
        "celery = not facts.executors",
    ),
    "legs are not by our clock": (
        "health",
        'legs=shifted(snapshot.legs, "succeeded", "tried"),',
        "",
    ),
    "the memory forgets the legs of a look that shows none": (
        "first_seen",
        '"leg": _DAGS | {"canaries"},',
        "",
    ),
    "an ended run is not noticed": ("why_waiting", "    if each.key in facts.ended:\n", "    if False:\n"),
    "a paused DAG is not noticed": ("why_waiting", "each.dag_id not in facts.dags:", "False:"),
    "a missing pool is not noticed": (
        "why_waiting",
        "    if pool is None:\n        return Why.POOL_MISSING\n",
        "    if pool is None:\n        return None\n",
    ),
    "a pool may be negative": ("why_waiting", "if pool.total < -1:", "if False:"),
    "a pool is large enough": ("why_waiting", "each.slots > pool.total:", "False:"),
    "ghosts are not seen": ("why_waiting", "if facts.ghosts(each.pool):", "if False:"),
    "an overcommitted pool is full": ("why_waiting", "pool.occupied > pool.total else", "False else"),
    "all runs count together on 3": ("why_waiting", "(not self.on_3 or other.run_id == each.run_id)", "True"),
    "each run counts for itself on 2": (
        "why_waiting",
        "(not self.on_3 or other.run_id == each.run_id)",
        "other.run_id == each.run_id",
    ),
    "a queue without workers is not noticed": ("why_waiting", "if each.queue not in served:", "if False:"),
    "the memory forgets what it could not see": (
        "first_seen",
        'missing & DEPENDS.get(key.partition("/")[0], set())',
        "False",
    ),
    "the memory forgets when nobody answers": ("first_seen", "if snapshot.silent or missing", "if missing"),
    "the memory keeps what is over": ("first_seen", "if snapshot.silent or missing", "if True or missing"),
    "paused DAGs have vanished": ("first_seen", " | snapshot.paused", ""),
    "an upgrade is a skew": (
        "first_seen",
        "return set(turns) if len(turns) > len(set(turns)) else set(turns[-1:])",
        "return set(turns)",
    ),
    "versions in turns are no skew": (
        "first_seen",
        "return set(turns) if len(turns) > len(set(turns)) else set(turns[-1:])",
        "return set(turns[-1:])",
    ),
    "yesterday's peers are usual": ("first_seen", " and now - until < USUAL_SECONDS", ""),
    "a next run that moves on pays for what was never created": (
        "health",
        "if dag.dag_id in self.owed:",
        "if False:",
    ),
    "a run that was created does not count": (
        "health",
        "if run.automatic:  # on 2.11",
        "if False:  # on 2.11",
    ),
    "a DAG at max_active_runs owes a run": (
        "health",
        "and self.unfinished.get(dag_id, 0) < self.dags[dag_id].max_active_runs",
        "",
    ),
    "what has started is believed although it could not be read": (
        "health",
        'or {"runs", "runs that have started"} & self.partial:',
        "and False:",
    ),
    "that others start is no sign of a scheduler": (
        "health",
        "for run in (*(self.snapshot.runs or ()), *(self.snapshot.started or ())):",
        "for run in self.snapshot.runs or ():",
    ),
    "what is owed is forgotten at the next look": (
        "first_seen",
        "since = min(before, self.owed.get(dag.dag_id, before))",
        "since = before",
    ),
}


def mutated(module: str, old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """These modules, with one rule changed, executed anew in their order."""
    found = {}
    for name in ORDER:
        real = importlib.import_module(f"{PACKAGE}.{name}")
        source = inspect.getsource(real)
        if name == module:
            assert source.count(old) == 1, f"this stands {source.count(old)} times in {name}.py: {old}"
            source = source.replace(old, new)
        made = ModuleType(real.__name__)
        made.__package__ = PACKAGE
        monkeypatch.setitem(sys.modules, real.__name__, made)
        exec(compile(source, f"{name}.py", "exec"), made.__dict__)
        found[name] = made
    return found


def first_failure(core: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The first test of the tables that fails with these modules."""
    own = core["first_seen"].FirstSeen

    def diagnose(snapshot, seen, limits, now):
        findings, after = core["health"].diagnose(snapshot, own(**vars(seen)), limits, now)
        return findings, tables.FirstSeen(**vars(after))

    monkeypatch.setattr(tables, "diagnose", diagnose)
    monkeypatch.setattr(tables, "Kind", core["health"].Kind)
    monkeypatch.setattr(tables, "Severity", core["health"].Severity)
    for name, test in inspect.getmembers(tables, inspect.isfunction):
        if not name.startswith("test_"):
            continue
        rows = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        for values in rows[0].args[1] if rows else [None]:
            arguments = () if values is None else getattr(values, "values", values)
            arguments = arguments if isinstance(arguments, tuple) else (arguments,)
            try:
                test(*arguments)
            except (AssertionError, KeyError, ValueError, TypeError, IndexError):
                return f"{name}[{getattr(values, 'id', '')}]"
    return None


def test_the_tables_hold_for_the_rules_as_they_are(monkeypatch):
    core = mutated("health", "def diagnose(", "def diagnose(", monkeypatch)
    assert first_failure(core, monkeypatch) is None


@pytest.mark.parametrize("name", MUTANTS)
def test_a_rule_that_is_gone_is_missed_by_a_row(name, monkeypatch):
    core = mutated(*MUTANTS[name], monkeypatch)
    assert first_failure(core, monkeypatch) is not None
