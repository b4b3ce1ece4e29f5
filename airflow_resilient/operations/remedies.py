"""What to do about task instances that wait too long, by cause. Pure functions.

Two causes have a remedy that nobody has to think about; for the others, a person decides:

* The executor has lost a queued task instance: it is cleared, in its own run.
* Queued task instances of ended runs, *ghosts*, occupy slots of a pool: they are skipped. Marking a task
  instance makes Airflow clear what failed downstream of it, whatever state it gets, and then its run goes on
  (``set_task_instance_state`` in ``airflow/models/dag.py`` of 2.11 and of ``SerializedDAG`` in 3.3). So that
  is done only where nothing of the run has failed. A failed run is given the state that it has, *failed*,
  instead: that skips what is unfinished and clears nothing (``set_dag_run_state_to_failed`` in
  ``airflow/api/common/mark_tasks.py``, 2.11 and 3.3). The same with *success* would turn every task instance
  of the run into a success on 2.11, so it is not done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ..core.needs import WAIT_AT_MOST
from .mwaa import is_mwaa, step_there
from .report import counted, moment, span
from .why_waiting import (
    Late,
    Request,
    WaitingFacts,
    Why,
    clear_request,
    explain,
    is_lost,
    mark_request,
    run_path,
)

if TYPE_CHECKING:
    from .acted import Acted
    from .snapshot import Waiting

HOUR = 3600.0
MARGIN = 120.0
"""See `is_lost`; seconds."""
MAX_NOTE = 1000
"""Characters of a note. Source: ``PatchTaskInstanceBody`` (3.x), ``SetTaskInstanceNoteFormSchema`` (2.11)."""
_MIN_NOTE = 60  # what remains of ours must still say something

ENDED_RUN = ("success", "failed")
FAILED = ("failed", "upstream_failed")
"""What Airflow clears downstream of a task instance that is marked. Source: ``DAG.clear``."""
SETTLED = (*FAILED, "success", "skipped", "removed", "none", "scheduled", "queued", "up_for_retry")
"""States of task instances on which nothing works, so that a run that is marked as failed ends nothing."""
NEEDED = (
    "task instances",
    "runs",
    "dags",
    "pools",
    "running task instances",
    "health",
    "jobs",
)
"""Parts of a look without which a cause may be another one."""


class Do(Enum):
    """What is done about a task instance, or about a cause."""

    CLEAR = "clear"
    """Its next try starts."""
    SKIP = "skip"
    """It is marked as skipped."""
    FAIL_RUN = "fail-run"
    """Its run, which has failed, is marked as failed again, which skips what is unfinished in it."""
    LATER = "later"
    """One of these, in a later run of the command."""
    TELL = "tell"
    """Only a person can do something."""
    UNKNOWN = "unknown"
    """What is known does not tell what to do."""


CHANGES = (Do.CLEAR, Do.SKIP, Do.FAIL_RUN)


@dataclass(frozen=True)
class EndedRun:
    """The run of a ghost.

    :param state: of the run; ``None``: it does not exist.
    :param failed: how many of its task instances are in a state of `FAILED`.
    :param active: how many of them are in a state that is not one of `SETTLED`.
    """

    state: str | None
    failed: int = 0
    active: int = 0


@dataclass(frozen=True)
class Action:
    """What is done about a task instance, or what is left to a person.

    :param waiting: the task instance, for a cause the oldest one; ``None``: it is about Airflow as a whole.
    :param since: since when it, or what it keeps from starting, waits.
    :param reason: why this.
    :param next_step: of a person.
    :param request: what is sent.
    :param count: how many task instances it is about.
    :param subject: what the cause is about: a pool, a DAG, a queue.
    :param run: the run of a ghost, as it was seen.
    """

    do: Do
    waiting: Waiting | None
    why: Why | None
    since: float | None
    reason: str
    next_step: str = ""
    request: Request | None = None
    count: int = 1
    subject: str = ""
    run: EndedRun | None = None

    @property
    def changes(self) -> bool:
        """Whether it changes something."""
        return self.do in CHANGES


@dataclass(frozen=True)
class Bounds:
    """What may be done.

    :param at_most: changes in one run of the command.
    :param at_most_hourly: changes in an hour.
    :param dags: patterns of ids of DAGs, as of a shell; empty: all.
    :param causes: empty: all.
    """

    at_most: int = 10
    at_most_hourly: int = 30
    dags: tuple[str, ...] = ()
    causes: tuple[Why, ...] = ()

    def cover(self, waiting: Waiting, why: Why) -> bool:
        """Whether this task instance, and this cause, are chosen."""
        chosen = not self.dags or any(fnmatchcase(waiting.dag_id, each) for each in self.dags)
        return chosen and (not self.causes or why in self.causes)


@dataclass(frozen=True)
class Situation:
    """What is known before anything is done. Times are by our clock.

    :param late: what has waited too long.
    :param scheduled: a scheduler is known to be alive, and is not known to stand still.
    :param queues_have_workers: see `is_lost`.
    :param unknown: why the causes are not certain; empty: they are.
    :param runs: of ghosts, by DAG and run, as far as they were read.
    """

    late: Sequence[Late]
    facts: WaitingFacts
    now: float
    scheduled: bool = True
    queues_have_workers: bool = False
    unknown: tuple[str, ...] = ()
    runs: Mapping[tuple[str, str], EndedRun] = field(default_factory=dict)


def ghosts(situation: Situation, bounds: Bounds) -> dict[str, Late]:
    """The queued task instances of ended runs that are to be skipped, by their keys.

    Those that keep a task instance from starting are late since that one waits.
    """
    found: dict[str, Late] = {}
    for each in _oldest_first(situation.late):
        mine = [each.waiting] if each.why is Why.RUN_ENDED and each.waiting.state == "queued" else []
        if each.why is Why.GHOSTS:
            mine = situation.facts.ghosts(each.subject)
        for ghost in mine:
            if bounds.cover(ghost, each.why):
                found.setdefault(ghost.key, Late(ghost, each.since, each.why, each.subject))
    return found


def plan(situation: Situation, past: Acted, bounds: Bounds) -> list[Action]:
    """Say what is done, what waits for a later run of the command, and what is left to a person.

    :param past: what was done before.
    """
    if situation.unknown:
        reason = f"nothing is done: {'; '.join(situation.unknown)}"
        return [Action(Do.UNKNOWN, None, None, None, reason, "airflow-resilient check says more")]
    if not situation.scheduled:
        reason = "nothing is done: no scheduler is known to be alive and to schedule, so nothing would start"
        step = _where_it_is("restart the scheduler first: airflow scheduler", situation.facts)
        return [Action(Do.TELL, None, None, None, reason, step)]
    chosen = [each for each in _oldest_first(situation.late) if bounds.cover(each.waiting, each.why)]
    freed = ghosts(situation, bounds)
    pools = {each.waiting.pool for each in freed.values()}
    actions = [_free(each, situation, past) for each in freed.values()]
    causes: dict[tuple[Why, str], Action] = {}
    for each in chosen:
        if each.why is Why.NOT_STARTED:
            actions.append(_start(each, situation, past))
        elif each.waiting.key not in freed and not (each.why is Why.GHOSTS and each.subject in pools):
            before = causes.get((each.why, each.subject))
            oldest = _tell(each, situation) if before is None else replace(before, count=before.count + 1)
            causes[each.why, each.subject] = oldest
    actions += causes.values()
    return list(_merged(_bounded(filter(None, actions), past, bounds, situation.now)))


def _oldest_first(late: Iterable[Late]) -> list[Late]:
    return sorted(late, key=lambda each: (each.since, each.waiting.key))


def _start(each: Late, situation: Situation, past: Acted) -> Action:
    """What is done about a queued task instance that the executor does not start."""
    again = _again(each, situation, past)
    if again is not None:
        return again
    waiting, facts = each.waiting, situation.facts
    dag = (facts.dags or {}).get(waiting.dag_id)
    if dag is not None and any(tag.startswith(f"{WAIT_AT_MOST}=") for tag in dag.needs.wrong):
        return _tell(each, situation, "how long it may wait is not known: a tag of its DAG cannot be read")
    lost, reason = is_lost(waiting, facts, after=MARGIN, queues_have_workers=situation.queues_have_workers)
    if not lost:
        return _tell(each, situation, reason)
    if waiting.queued is None or situation.now - waiting.queued < each.limit:
        return _tell(each, situation, f"it was queued less than {span(each.limit)} ago")
    return Action(
        Do.CLEAR,
        each.waiting,
        each.why,
        each.since,
        f"it has its slot, and the executor does not start it: {reason}",
        request=clear_request(each.waiting, on_3=situation.facts.on_3),
        subject=each.subject,
    )


def _free(each: Late, situation: Situation, past: Acted) -> Action | None:
    """What is done about a queued task instance of an ended run; ``None``: its run goes on."""
    ghost, run = each.waiting, situation.runs.get((each.waiting.dag_id, each.waiting.run_id))
    if run is not None and run.state not in (None, *ENDED_RUN):
        return None
    again = _again(each, situation, past)
    if again is not None:
        return again
    if run is None:
        reason = "its run was not looked at: --at-most is reached"
        return Action(Do.LATER, ghost, each.why, each.since, reason, subject=each.subject)
    do, reason = how_to_free(run)
    request = None
    if do is Do.SKIP:
        request = mark_request(ghost, "skipped", on_3=situation.facts.on_3)
    if do is Do.FAIL_RUN:
        request = Request("PATCH", run_path(ghost), {"state": "failed"})
    if request is None:
        return _tell(each, situation, reason)
    return Action(do, ghost, each.why, each.since, reason, request=request, subject=each.subject, run=run)


def how_to_free(run: EndedRun) -> tuple[Do, str]:
    """The least that frees the slot of a ghost and does not let its run go on: `Do.TELL`, if nothing does."""
    occupies = "its run has ended, and it occupies slots of its pool"
    if run.state is None:
        return Do.TELL, f"{occupies}; its run does not exist any more"
    if not run.failed:
        return Do.SKIP, f"{occupies}; nothing of its run has failed, so marking it wakes nothing"
    if run.state != "failed":
        return Do.TELL, f"{occupies}; marking it may clear what has failed in its run, which would go on"
    if run.active:
        working = counted(run.active, "task instance")
        return Do.TELL, f"{occupies}; {working} of its run may still work, which marking the run would end"
    return Do.FAIL_RUN, (
        f"{occupies}; marking its run with the state that it has skips what is unfinished, and clears nothing"
    )


def _again(each: Late, situation: Situation, past: Acted) -> Action | None:
    """What is left to a person of a task instance that was acted on before; ``None``: it was not."""
    before = past.of(each.waiting) or past.of_run(each.waiting, Do.FAIL_RUN.value)
    if not before:
        return None
    last = before[-1]
    when = f"{last.when_text} (try {last.try_number})"
    if last.try_number == each.waiting.try_number:
        unclear = "" if last.is_done else ", without knowing whether Airflow did it"
        reason = f"{last.do} was tried at {when}{unclear}, and it still waits: this try is not touched again"
    else:
        reason = f"{last.do} was done at {when}, and it is stuck again: a restart of the scheduler may help"
    return _tell(each, situation, reason)


def _tell(each: Late, situation: Situation, reason: str = "") -> Action:
    """What is left to a person: the cause and the next step of `why_waiting.explain`."""
    cause, step = explain(each.why, each.subject, each.waiting, situation.facts)
    step = _where_it_is(step, situation.facts)
    return Action(Do.TELL, each.waiting, each.why, each.since, reason or cause, step, subject=each.subject)


def _where_it_is(step: str, facts: WaitingFacts) -> str:
    """A next step, as it can be done for this Airflow."""
    return step_there(step, facts.url) if is_mwaa(facts.url) else step


def _bounded(actions: Iterable[Action], past: Acted, bounds: Bounds, now: float) -> Iterator[Action]:
    """At most so many changes, one for each run that is marked."""
    hourly = bounds.at_most_hourly - past.count_since(now - HOUR)
    left, runs = min(bounds.at_most, hourly), dict[tuple[str, str], int]()
    found: list[Action] = []
    for each in actions:
        key = (each.waiting.dag_id, each.waiting.run_id) if each.waiting is not None else ("", "")
        if each.do is Do.FAIL_RUN and key in runs:
            first = found[runs[key]]
            found[runs[key]] = replace(first, count=first.count + 1)
            continue
        if each.do is Do.FAIL_RUN:
            runs[key] = len(found)
        if each.changes:
            left -= 1
            if left < 0:
                bound = "--at-most" if hourly >= bounds.at_most else "--at-most-hourly"
                each = replace(each, do=Do.LATER, reason=f"{bound} is reached", request=None)  # noqa: PLW2901
        found.append(each)
    yield from found


def _merged(actions: Iterable[Action]) -> Iterator[Action]:
    """One for all task instances about which the same is to be written."""
    found: dict[object, Action] = {}
    for each in actions:
        key: object = len(found) if each.changes else (each.do, each.why, each.subject, each.reason)
        if key in found:
            each = replace(found[key], count=found[key].count + each.count)  # noqa: PLW2901
        found[key] = each
    yield from found.values()


def noted(note: str | None, done: str) -> str | None:
    r"""A note that says what was done, after what it contains already; ``None``: there is no room for it.

    >>> noted("do not touch", "cleared by airflow-resilient")
    'do not touch\ncleared by airflow-resilient'
    """
    before = f"{note}\n" if note else ""
    room = MAX_NOTE - len(before)
    if room < min(_MIN_NOTE, len(done)):
        return None
    return before + (done if len(done) <= room else f"{done[: room - 1]}…")


def note_of(action: Action, now: float) -> str:
    """What a note says about an action: what was done, when and why."""
    verbs = {Do.CLEAR: "cleared it", Do.SKIP: "marked it as skipped", Do.FAIL_RUN: "marked its run as failed"}
    since = f", waiting for {span(now - action.since)}" if action.since is not None else ""
    attempt = action.waiting.try_number if action.waiting is not None else 0
    return (
        f"airflow-resilient unstick, {moment(now)}: {verbs[action.do]} (try {attempt}{since}): "
        f"{action.reason}"
    )
