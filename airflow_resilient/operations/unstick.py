"""``airflow-resilient unstick``: act on what waits too long, where that is safe; say what a person does else.

It takes the same look as ``check``, and plans by cause (`remedies.plan`). Without ``--apply`` it changes
nothing. With it, each change is looked at again right before, written down before it is sent, sent once, and
read again after that; see `carry_out`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import acted
from .acted import Acted
from .check import ANSWER_SECONDS, ATTEMPTS, add_limit_options, limits_of, progress_on
from .command import Command, ExitCode
from .examine import Examined, examined
from .first_seen import MemoryProblem
from .health import Kind
from .options import add_airflow_options, api_of
from .remedies import (
    FAILED,
    NEEDED,
    SETTLED,
    Action,
    Bounds,
    Do,
    EndedRun,
    Situation,
    ghosts,
    how_to_free,
    note_of,
    noted,
    plan,
)
from .report import moment, span
from .task_instances import AirflowApiError, Instance, UnclearError
from .why_waiting import Request, Why, clear_request, path_of

if TYPE_CHECKING:
    from .airflow_api import AirflowApi
    from .snapshot import Snapshot, Waiting


class Outcome(Enum):
    """What became of an action."""

    PLANNED = "planned"
    """Nothing was sent: it is a dry run, or nothing is to be done."""
    DONE = "done"
    CHANGED = "changed"
    """Nothing was sent: the task instance is not any more what the plan was made for."""
    REFUSED = "refused"
    """Airflow has not done it."""
    UNKNOWN = "unknown"
    """Whether Airflow has done it is not known, or it could not be looked at before."""


@dataclass(frozen=True)
class Result:
    """An action, and what became of it.

    :param detail: what Airflow says.
    :param without_note: why the task instance has no note of it.
    :param sent: it was sent to Airflow.
    """

    action: Action
    outcome: Outcome = Outcome.PLANNED
    detail: str = ""
    without_note: str = ""
    sent: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing is left to do about it."""
        return self.outcome in (Outcome.DONE, Outcome.CHANGED) and not self.without_note

    @property
    def unknown(self) -> bool:
        """Whether it is not known what is, or was, to be done."""
        return self.outcome is Outcome.UNKNOWN or self.action.do is Do.UNKNOWN

    def row(self) -> dict[str, Any]:
        """It as JSON values."""
        action, waiting = self.action, self.action.waiting
        return {
            "do": action.do.value,
            "outcome": self.outcome.value,
            "cause": action.why.value if action.why is not None else None,
            "subject": action.subject,
            "dag_id": waiting.dag_id if waiting is not None else None,
            "run_id": waiting.run_id if waiting is not None else None,
            "task_id": waiting.task_id if waiting is not None else None,
            "map_index": waiting.map_index if waiting is not None else None,
            "try_number": waiting.try_number if waiting is not None else None,
            "count": action.count,
            "since": action.since,
            "reason": action.reason,
            "next_step": action.next_step,
            "request": None
            if action.request is None
            else {"method": action.request.method, "path": action.request.path, "body": action.request.body},
            "detail": self.detail,
            "without_note": self.without_note,
        }


class Journal:
    """What was done, on the disk before it is done.

    :param path: ``None``: nothing is kept, and so nothing may be done.
    :param past: what was done before.
    """

    def __init__(self, path: Path | None, past: Acted) -> None:
        self.path, self.past = path, past

    def intend(self, action: Action, now: float) -> None:
        """Write down what is about to be done.

        :raises MemoryProblem: it could not be written, so it must not be done.
        """
        assert self.path is not None  # noqa: S101 - --apply needs it
        assert action.waiting is not None  # noqa: S101 - it changes something
        intended = self.past.intend(action.waiting, action.do.value, now)
        acted.save(self.path, intended)
        self.past = intended

    def settle(self, outcome: str) -> None:
        """Write down what became of it; if that fails, the intention stays, and nothing is done twice."""
        assert self.path is not None  # noqa: S101 - see above
        self.past = self.past.settle(outcome)
        with contextlib.suppress(MemoryProblem):
            acted.save(self.path, self.past)


def situation_of(examined: Examined, *, queues_have_workers: bool = False) -> Situation:
    """What a plan is made for, without the runs of ghosts.

    :param queues_have_workers: see `is_lost`.
    """
    about = examined.diagnosis
    blind = (Kind.API_SILENT, Kind.LOGIN_REFUSED, Kind.DATABASE_UNHEALTHY, Kind.MEMORY_LOST)
    unknown = [
        f"{each.subject}: {each.evidence}" if each.kind is Kind.NOT_SHOWN else each.evidence
        for each in examined.findings
        if each.kind in blind or (each.kind is Kind.NOT_SHOWN and each.subject in NEEDED)
    ]
    return Situation(
        about.late,
        about.facts,
        time.time(),
        about.scheduled,
        queues_have_workers=queues_have_workers,
        unknown=tuple(unknown),
    )


def read_run(api: AirflowApi, ghost: Waiting) -> EndedRun:
    """Read the run of a ghost, as far as `how_to_free` asks for it.

    :raises AirflowApiError: it cannot be read.
    """
    instance = _instance_of(ghost)
    state = api.run_state(instance)
    if state is None:
        return EndedRun(None)
    failed = api.count(instance, FAILED)
    active = api.count(instance, ()) - api.count(instance, SETTLED) if failed else 0
    return EndedRun(state, failed, active)


def read_runs(
    api: AirflowApi, found: Iterable[Waiting], at_most: int
) -> tuple[dict[tuple[str, str], EndedRun], list[str]]:
    """Read the runs of ghosts, at most so many; and what could not be read."""
    runs: dict[tuple[str, str], EndedRun] = {}
    problems: list[str] = []
    for each in found:
        key = (each.dag_id, each.run_id)
        if key in runs or len(runs) == at_most or problems:
            continue
        try:
            runs[key] = read_run(api, each)
        except AirflowApiError as error:
            problems.append(f"the run of {each.name}: {error}")
    return runs, problems


def carry_out(
    api: AirflowApi,
    actions: Sequence[Action],
    as_read: Callable[[Waiting], Waiting],
    journal: Journal,
    *,
    now: Callable[[], float] = time.time,
) -> list[Result]:
    """Do what is planned, one after the other; stop where it is not known what Airflow has done.

    :param as_read: gives a task instance with Airflow's own times.
    """
    results: list[Result] = []
    for each in actions:
        stopped = any(result.unknown and result.sent for result in results)
        if stopped or not each.changes:
            reason = "what is before it is not known" if stopped and each.changes else ""
            results.append(Result(replace(each, do=Do.LATER, reason=reason) if reason else each))
            continue
        assert each.waiting is not None  # noqa: S101 - it changes something
        results.append(_do(api, each, as_read(each.waiting), journal, now))
    return results


def _do(
    api: AirflowApi, action: Action, waiting: Waiting, journal: Journal, now: Callable[[], float]
) -> Result:
    """Look again, write it down, send it once, write down what became of it, and look once more."""
    assert action.request is not None  # noqa: S101 - it changes something
    try:
        stopped = _look_again(api, action, waiting)
        if stopped is not None:
            return stopped
        journal.intend(action, now())
    except AirflowApiError as error:
        return Result(action, Outcome.UNKNOWN, f"nothing was sent: it could not be read again: {error}")
    except MemoryProblem as problem:
        return Result(action, Outcome.UNKNOWN, f"nothing was sent: it could not be written down: {problem}")
    try:
        api.write(action.request.method, action.request.path, action.request.body)
    except UnclearError as error:
        journal.settle(acted.UNCLEAR)
        detail = f"Airflow may have done it; it is not sent again: {error}"
        return Result(action, Outcome.UNKNOWN, detail, sent=True)
    except AirflowApiError as error:
        journal.settle(acted.REFUSED)
        return Result(action, Outcome.REFUSED, str(error))
    journal.settle(acted.DONE)
    try:
        after = api.current(_instance_of(waiting))
    except AirflowApiError as error:
        return Result(action, Outcome.DONE, "", f"it could not be read afterwards: {error}")
    if after is None:
        return Result(action, Outcome.DONE, "it does not exist any more")
    detail = f"Airflow says: {after.state or 'cleared'}, try {after.try_number}"
    return Result(action, Outcome.DONE, detail, _note(api, waiting, after, note_of(action, now())))


def _look_again(api: AirflowApi, action: Action, waiting: Waiting) -> Result | None:
    """Why the action is not for what is there now; ``None``: it is.

    :raises AirflowApiError: it cannot be read.
    """
    if action.run is None and (more := _clears_more(api, action, waiting)) is not None:
        return more
    current = api.current(_instance_of(waiting))  # last, because it may start at any moment
    if current is None:
        return Result(action, Outcome.CHANGED, "it does not exist any more")
    if (changed := _changed(waiting, current)) is not None:
        return Result(action, Outcome.CHANGED, changed)
    if action.run is not None:
        run = read_run(api, waiting)
        if run.state != action.run.state or how_to_free(run)[0] is not action.do:
            return Result(
                action, Outcome.CHANGED, f"its run, or what is in it, has changed: it is {run.state}"
            )
    return None


def _changed(waiting: Waiting, current: Instance) -> str | None:
    """What is different from what the plan was made for."""
    from .airflow_api import seconds

    if current.state != waiting.state or current.try_number != waiting.try_number:
        return f"it is {current.state or 'cleared'} now, try {current.try_number}"
    if seconds(current.raw.get("queued_when")) != waiting.queued:
        return "it was queued again meanwhile"
    return None


def _clears_more(api: AirflowApi, action: Action, waiting: Waiting) -> Result | None:
    """Whether Airflow would clear anything else with it, as it says itself in a dry run.

    On 2.11 it clears all map indexes of a task, and does not say which ones it lists.
    """
    request = clear_request(waiting, on_3=api.is_v2, dry_run=True)
    try:
        answer = api.write(request.method, request.path, request.body)
    except AirflowApiError as error:
        if isinstance(error, UnclearError):
            raise
        return Result(action, Outcome.REFUSED, str(error))
    listed = answer.get("task_instances")
    rows = listed if isinstance(listed, list) else []
    names = [(row.get("dag_run_id"), row.get("task_id")) for row in rows]
    if names != [(waiting.run_id, waiting.task_id)]:
        detail = f"Airflow would clear {len(rows)} task instances with it, and not it alone"
        return Result(action, Outcome.REFUSED, detail)
    return None


def _note(api: AirflowApi, waiting: Waiting, current: Instance, done: str) -> str:
    """Add a note to a task instance, below what it says already; why that was not done, if it was not."""
    note = noted(current.raw.get("note"), done)
    if note is None:
        return "there is no room for it"
    path = f"{path_of(waiting)}?update_mask=note" if api.is_v2 else path_of(waiting, "setNote")
    try:
        api.write("PATCH", path, {"note": note})
    except AirflowApiError as error:
        return str(error)
    return ""


def _instance_of(waiting: Waiting) -> Instance:
    return Instance(waiting.dag_id, waiting.run_id, waiting.task_id, map_index=waiting.map_index)


def unstick(
    api: AirflowApi,
    made: Examined,
    bounds: Bounds,
    memory: Path | None,
    *,
    apply: bool,
    queues_have_workers: bool = False,
) -> list[Result]:
    """Plan, and with `apply` act.

    :param memory: with it, what was done is kept beside it.
    :raises AirflowApiError: what was done before cannot be read.
    """
    path = acted.path_beside(memory) if memory is not None else None
    try:
        past = acted.load(path, api.url) if path is not None else Acted(api.url)
    except MemoryProblem as problem:
        raise AirflowApiError(
            f"{problem}: it says what was done already, so nothing is done. Look at the task instances that "
            "wait, then remove the file"
        ) from None
    situation = situation_of(made, queues_have_workers=queues_have_workers)
    if not situation.unknown and situation.scheduled:
        wanted = [each.waiting for each in ghosts(situation, bounds).values()]
        runs, problems = read_runs(api, wanted, bounds.at_most)
        situation = replace(situation, runs=runs, unknown=tuple(problems))
    actions = plan(situation, past, bounds)
    if not apply:
        return [Result(each) for each in actions]
    rows = {each.key: each for each in made.snapshot.waiting or ()}
    past = past.kept({acted.key_of(each) for each in rows.values()}, situation.now)
    return carry_out(api, actions, lambda each: rows[each.key], Journal(path, past))


def exit_code_of(results: Sequence[Result]) -> ExitCode:
    """UNKNOWN if something is unknown, else FOUND if something is left."""
    if any(each.unknown for each in results):
        return ExitCode.UNKNOWN
    return ExitCode.DONE if all(each.over for each in results) else ExitCode.FOUND


_DID = {Do.CLEAR: "cleared", Do.SKIP: "skipped", Do.FAIL_RUN: "freed with its run"}


def _word(result: Result, *, apply: bool) -> str:
    do, outcome = result.action.do, result.outcome
    if not result.action.changes:
        return {Do.TELL: "for a person", Do.LATER: "later", Do.UNKNOWN: "unknown"}[do]
    if not apply:
        return f"would be {_DID[do]}"
    return {
        Outcome.DONE: _DID[do],
        Outcome.CHANGED: "left alone",
        Outcome.REFUSED: "not done",
        Outcome.UNKNOWN: "unknown",
        Outcome.PLANNED: "later",
    }[outcome]


def format_results(snapshot: Snapshot, results: Sequence[Result], now: float, *, apply: bool) -> list[str]:
    """The results as text; the last line is a summary."""
    lines: list[str] = []
    for each in results:
        action = each.action
        about = action.waiting.name if action.waiting is not None else "Airflow"
        more = f" and {action.count - 1} more" if action.count > 1 else ""
        since = f"  since {moment(action.since)} ({span(now - action.since)})" if action.since else ""
        cause = f" [{action.why.value}]" if action.why is not None else ""
        lines.append(f"{_word(each, apply=apply).upper()}: {about}{more}{cause}{since}")
        lines.append(f"        why:   {action.reason}")
        if each.detail:
            lines.append(f"        now:   {each.detail}")
        if action.request is not None and each.outcome in (Outcome.PLANNED, Outcome.UNKNOWN):
            lines.append(f"        {'sends' if not apply else 'sent'}: {_line(action.request, snapshot)}")
        if each.without_note:
            lines.append(f"        note:  not written: {each.without_note}")
        if action.next_step:
            lines.append(f"        next:  {action.next_step}")
        lines.append("")
    counts = Counter(_word(each, apply=apply) for each in results)
    found = ", ".join(f"{count} {word}" for word, count in counts.items()) or "nothing to do"
    version = f"Airflow {snapshot.version}" if snapshot.version else "Airflow"
    dry = "" if apply or not any(each.action.changes for each in results) else "; --apply does it"
    return [*lines, f"{version} at {snapshot.url}: {found}{dry}."]


def _line(request: Request, snapshot: Snapshot) -> str:
    api = "/api/v2" if snapshot.on_3 else "/api/v1"
    return f"{request.method} {api}{request.path} {json.dumps(request.body)}"


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; write one such as 10")
    return int(text)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="do it; without it, nothing is changed")
    parser.add_argument(
        "--memory",
        type=Path,
        metavar="FILE",
        help="what earlier looks saw, and beside it, in FILE.acted, what was done; not the file of check, "
        "which looks more often. --apply needs it",
    )
    parser.add_argument(
        "--at-most", type=_count, default=Bounds.at_most, metavar="N", help="changes in one run (default 10)"
    )
    parser.add_argument(
        "--at-most-hourly",
        type=_count,
        default=Bounds.at_most_hourly,
        metavar="N",
        help="changes in an hour (default 30)",
    )
    parser.add_argument(
        "--queues-have-workers",
        action="store_true",
        help="living workers listen on every queue, as with LocalExecutor: what is queued where nothing runs "
        "was lost. Without it, only what something that was queued later has passed by was",
    )
    parser.add_argument(
        "--dag",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only DAGs whose ids match, as in a shell (repeatable)",
    )
    parser.add_argument(
        "--cause",
        action="append",
        default=[],
        choices=[each.value for each in Why],
        help="only what waits for this cause (repeatable)",
    )
    add_limit_options(parser)
    add_airflow_options(parser)


def _run(options: argparse.Namespace) -> tuple[str, ExitCode]:
    if options.apply and options.memory is None:
        raise AirflowApiError(
            "--apply needs --memory FILE, such as --memory /var/lib/airflow-watch/unstick.json: beside it is "
            "kept what was done, so that nothing is done twice"
        )
    bounds = Bounds(
        options.at_most, options.at_most_hourly, tuple(options.dag), tuple(map(Why, options.cause))
    )
    with contextlib.ExitStack() as stack:
        api = stack.enter_context(
            contextlib.closing(api_of(options, timeout=ANSWER_SECONDS, attempts=ATTEMPTS))
        )
        made = stack.enter_context(examined(api, limits_of(options), options.memory, progress=progress_on()))
        results = unstick(
            api,
            made,
            bounds,
            options.memory,
            apply=options.apply,
            queues_have_workers=options.queues_have_workers,
        )
        requests = api.requests
    code = exit_code_of(results)
    snapshot = made.snapshot
    if not options.json:
        return "\n".join(format_results(snapshot, results, time.time(), apply=options.apply)), code
    found = {
        "url": snapshot.url,
        "version": snapshot.version or None,
        "taken": snapshot.taken,
        "applied": options.apply,
        "requests": requests,
        "actions": [each.row() for each in results],
        "exit_code": int(code),
    }
    return json.dumps(found, indent=2), code


COMMAND = Command(
    name="unstick",
    summary="clear what the executor has lost, skip what occupies slots for an ended run; dry run by default",
    description="Act on task instances that wait too long, as check finds them: clear what is queued and not "
    "started, skip what is queued for a run that has ended; say what only a person can do. Without --apply, "
    "nothing is changed.",
    exit_codes="0 nothing to do, or all done; 1 something is left, or a dry run found something; 2 something "
    "could not be determined",
    add_options=_add_options,
    run=_run,
)
