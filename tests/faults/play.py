"""Play rows: those that hit one task side by side, those that break a component in phases, all together."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from . import steps
from .judge import Figures, figures
from .rows import BY_ID, ROWS, Row
from .stage import IMPLEMENTATIONS, SERVICES, GaveUp
from .steps import LONG, Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .stage import Stage

CaseOf: TypeAlias = tuple[Row, str, str, str]
"""Row, fate, service and implementation."""
AT_ONCE = 8
"""Cases that are played side by side; most of them wait most of the time."""


@dataclass(frozen=True)
class Result:
    """What one case came to.

    :param note: what did not happen, if the case did not come to its end.
    :param history: states of the task instance and its jobs, for a person.
    """

    row: Row
    fate: str
    service: str
    implementation: str
    figures: Figures
    note: str = ""
    history: str = ""
    seconds: float = 0.0

    def pack(self) -> dict[str, Any]:
        """Itself as JSON values; `unpack` reverses it."""
        return {**vars(self), "row": self.row.id, "figures": asdict(self.figures)}

    @classmethod
    def unpack(cls, data: Mapping[str, Any]) -> Result:
        """What `pack` wrote."""
        return cls(**{**data, "row": BY_ID[data["row"]], "figures": Figures(**data["figures"])})

    @property
    def held(self) -> bool:
        """Whether it came to what is wanted, or to what is named as the best that is possible."""
        expected = self.row.expected(self.service, self.fate)
        return not self.note and any(wanted.held(self.figures) for wanted in expected)

    @property
    def perfect(self) -> bool:
        """Whether it came to what anybody would want."""
        return not self.note and self.row.ideal(self.fate).held(self.figures)


# --- which ------------------------------------------------------------------------------------------------


def all_cases(rows: Iterable[Row] = ROWS, implementations: Sequence[str] = IMPLEMENTATIONS) -> list[CaseOf]:
    """Row, fate, service and implementation of every case."""
    return [
        (row, fate, service, implementation)
        for row in rows
        for fate in row.fates
        for service in SERVICES
        for implementation in implementations
        if row.applies(service, fate)
    ]


def representative(rows: Sequence[Row] = ROWS) -> list[CaseOf]:
    """Every row once, with our operators: services and fates take turns."""
    chosen = []
    for number, row in enumerate(rows):
        possible = [case for case in all_cases([row], ["ours"]) if not row.limit(case[2], case[1])]
        possible = possible or all_cases([row], ["ours"])
        wanted = row.hardest or SERVICES[number % len(SERVICES)]
        mine = [case for case in possible if case[2] == wanted] or possible
        chosen.append(mine[number // len(SERVICES) % len(mine)])
    return chosen


# --- phases -----------------------------------------------------------------------------------------------


@dataclass
class Meeting:
    """Lets the cases of a phase wait for each other, and breaks and mends the component in between."""

    stage: Stage
    phase: Phase
    parties: int
    late: int
    """How many begin only when all others wait for the break."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    arrived: dict[str, int] = field(default_factory=lambda: {"late": 0, "break": 0, "mend": 0})
    done: set[str] = field(default_factory=set)
    gone: int = 0
    trouble: str = ""

    def meet(self, point: str) -> None:
        """Wait there.

        :raises GaveUp: when the component did not break or mend.
        """
        with self.changed:
            self.arrived[point] += 1
            self.changed.notify_all()
            if not self.changed.wait_for(lambda: point in self.done or self.trouble, 900):
                raise GaveUp(f"not all cases came to the {point} of the phase")
            if self.trouble:
                raise GaveUp(self.trouble)

    def leave(self) -> None:
        """Say that a case comes to no further point."""
        with self.changed:
            self.gone += 1
            self.changed.notify_all()

    def run(self) -> None:
        """Break and mend, each when all cases have come."""
        try:
            self._await("late", lambda: self.arrived["late"] + self.arrived["break"] + self.gone)
            self._await("break", lambda: self.arrived["break"] + self.gone, self.phase.breaks)
            self._await("mend", lambda: self.arrived["mend"] + self.gone, self.phase.mends)
        except Exception as error:  # noqa: BLE001 - told to all who wait
            with self.changed:
                self.trouble = f"the phase {self.phase.name!r} broke off: {error}"
                self.changed.notify_all()

    def _await(
        self, point: str, present: Callable[[], int], act: Callable[[Stage], None] | None = None
    ) -> None:
        with self.changed:
            self.changed.wait_for(lambda: present() >= self.parties, 800)
        if act and self.gone < self.parties:
            act(self.stage)
        with self.changed:
            self.done.add(point)
            self.changed.notify_all()


@dataclass(frozen=True)
class Phase:
    """A component that breaks, for all cases of its rows at the same time."""

    name: str
    breaks: Callable[[Stage], None]
    mends: Callable[[Stage], None]
    begins: Callable[[Stage], None] = lambda _: None
    ends: Callable[[Stage], None] = lambda _: None


def _lose_triggerer(stage: Stage) -> None:
    stage.airflow.kill("triggerer", signal.SIGKILL)


def _start_triggerer(stage: Stage) -> None:
    stage.airflow.start("triggerer", LONG)


def _lose_machine(stage: Stage) -> None:
    stage.airflow.kill("scheduler", signal.SIGKILL)


def _start_scheduler(stage: Stage) -> None:
    """Start it when the lost one is known to be lost, or it looks after its tasks five minutes later only."""

    def lost() -> bool:
        return stage.airflow.request("GET", "/monitor/health")["scheduler"]["status"] != "healthy"

    stage.airflow.wait_until(lost, LONG, "the scheduler is known to be lost")
    stage.airflow.start("scheduler", LONG)


def _be_patient(stage: Stage) -> None:
    """Give heartbeats Airflow's own time: what is short for the sake of the others is less than a minute."""
    stage.airflow._environment["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] = "300"
    stage.airflow.restart("scheduler", timeout=LONG)


def _stop_api(stage: Stage) -> None:
    stage.airflow.kill("api-server", signal.SIGKILL)
    stage.facts["away since"] = time.monotonic()


def _start_api(stage: Stage) -> None:
    seconds = 20 if stage.brief else 60
    left = stage.facts["away since"] + seconds - time.monotonic()
    if left > 0:
        time.sleep(left)  # the row says how long it is away
    stage.airflow.start("api-server", LONG)


TRIGGERERS = "SELECT max(id) FROM job WHERE job_type = 'TriggererJob' AND state = 'running'"
BEAT = "SELECT latest_heartbeat FROM job WHERE id = :id"


def _stop_one_of_two(stage: Stage) -> None:
    """All triggers are in the first triggerer; the second one starts, the first one is stopped."""
    first = stage.observer.scalar(TRIGGERERS)
    stage.airflow.start("triggerer-2", LONG)
    stage.facts["stopped triggerer"] = first
    stage.airflow.kill("triggerer", signal.SIGSTOP)


def _continue(stage: Stage) -> None:
    first = stage.facts["stopped triggerer"]
    before = stage.observer.scalar(BEAT, id=first)
    stage.airflow.kill("triggerer", signal.SIGCONT)
    stage.facts["beats again"] = lambda: stage.observer.scalar(BEAT, id=first) > before


def _one_triggerer(stage: Stage) -> None:
    stage.airflow.stop("triggerer-2")


PHASES = {
    phase.name: phase
    for phase in (
        Phase("triggerer down", _lose_triggerer, _start_triggerer),
        Phase("takeover", _stop_one_of_two, _continue, ends=_one_triggerer),
        Phase("scheduler lost", _lose_machine, _start_scheduler),
        Phase("API server away", _stop_api, _start_api, begins=_be_patient),
    )
}


# --- playing ----------------------------------------------------------------------------------------------


def play(stage: Stage, cases: Iterable[CaseOf], told: Callable[[Result], None]) -> list[Result]:
    """Play cases and say what they came to."""
    phases: dict[str, list[Case]] = {}
    for row, fate, service, implementation in cases:
        phases.setdefault(row.phase, []).append(Case(stage, row, fate, service, implementation))
    results: list[Result] = []
    # What takes long goes first.
    for name in ("", *PHASES):
        if members := phases.pop(name, []):
            stage.say(f"--- {name or 'single tasks'}: {len(members)} cases")
            began = time.monotonic()
            results += _together(stage, PHASES[name], members, told) if name else _alone(members, told)
            stage.say(f"--- {name or 'single tasks'}: {time.monotonic() - began:.0f} s")
    assert not phases, phases
    return results


def _alone(cases: list[Case], told: Callable[[Result], None]) -> list[Result]:
    slow = ("throttled", "worker-unread", "worker-resumed", "deploy-hard", "run-timeout", "deadline")
    cases = sorted(cases, key=lambda case: slow.index(case.row.id) if case.row.id in slow else len(slow))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda case: _play(case, told), cases))


def _together(stage: Stage, phase: Phase, cases: list[Case], told: Callable[[Result], None]) -> list[Result]:
    late = sum(steps.others_first in case.row.do for case in cases)
    meeting = Meeting(stage, phase, len(cases), late)
    for case in cases:
        case.meet = meeting.meet
    phase.begins(stage)
    coordinator = threading.Thread(target=meeting.run, name=phase.name, daemon=True)
    coordinator.start()

    def one(case: Case) -> Result:
        try:
            return _play(case, told)
        finally:
            meeting.leave()

    with ThreadPoolExecutor(len(cases)) as threads:
        results = list(threads.map(one, cases))
    coordinator.join(60)
    phase.ends(stage)
    return results


def _play(case: Case, told: Callable[[Result], None]) -> Result:
    """Play one case and tell its result.

    Where the machine was too slow, or the scheduler has failed a healthy try by itself and the case did not
    hold, it is played again, unless its phase is over.  For the scheduler's sake our operators get that only
    where the case says nothing about them: it did not come to the fault, or no retry was left.
    """
    for number in range(2, 6):
        result = _once(case)
        spoiled = bool(result.figures.by_scheduler) and not result.held
        pardoned = result.note or case.retries == 0 or case.implementation == "provider"
        if not (case.too_slow or (spoiled and pardoned)) or case.row.phase:
            break
        case = replace(case, number=number)
    told(result)
    return result


def _once(case: Case) -> Result:
    """Play one case to its end, whatever happens."""
    began = time.monotonic()
    note = ""
    try:
        steps.prepare(case)
        for step in case.row.do:
            current = step.__name__
            try:
                step(case)
            except GaveUp as error:
                case.too_slow = isinstance(error, steps.TooSlow)
                raise GaveUp(f"{current}: {error}") from None
        steps.settle(case)
    except GaveUp as error:
        note = str(error)
    except Exception as error:  # noqa: BLE001 - one case must not end the others
        note = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-3)}"
    case.stage.observer.fresh()
    result = Result(
        case.row,
        case.fate,
        case.service,
        case.implementation,
        figures(case.seen()),
        note,
        steps.story(case),
        time.monotonic() - began,
    )
    steps.clean_up(case)
    return result
