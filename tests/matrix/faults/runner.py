"""Play rows: those that hit one task side by side, those that break a component in phases, all together."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_resilient.testing.airflow.local_airflow import HANG

from . import steps
from .cases import BY_ID, ROWS, Row
from .environment import ALL_IMPLEMENTATIONS, AWS_SERVICES, DOCKER, SERVICES, SWEPT, GaveUp
from .judge import Figures, figures
from .steps import Case

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .environment import Harness

CaseOf: TypeAlias = tuple[Row, str, str, str]
"""Row, fate, service and implementation."""
AT_ONCE = 8
"""Cases that are played side by side; most of them wait most of the time."""


@dataclass(frozen=True)
class Result:
    """What one case came to.

    :param note: what did not happen, if the case did not end.
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

    def to_dict(self) -> dict[str, Any]:
        """Itself as JSON values; `from_dict` reverses it."""
        return {**vars(self), "row": self.row.id, "figures": asdict(self.figures)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """What `to_dict` wrote."""
        return cls(**{**data, "row": BY_ID[data["row"]], "figures": Figures(**data["figures"])})

    @property
    def held(self) -> bool:
        """Whether it came to what is wanted, or to what is named as the best that is possible."""
        expected = self.row.expected(self.service, self.fate, swept=self.implementation == SWEPT)
        return not self.note and any(wanted.held(self.figures) for wanted in expected)

    @property
    def perfect(self) -> bool:
        """Whether it came to what anybody would want."""
        return not self.note and self.row.ideal(self.fate).held(self.figures)


# --- which ------------------------------------------------------------------------------------------------


def all_cases(
    rows: Iterable[Row] = ROWS, implementations: Sequence[str] = ALL_IMPLEMENTATIONS
) -> list[CaseOf]:
    """Row, fate, service and implementation of every case; the sweep is for those that may leave a job."""
    return [
        (row, fate, service, implementation)
        for row in rows
        for fate in row.fates
        for service in SERVICES
        for implementation in implementations
        if row.applies(service, fate) and _plays(implementation, row, fate, service)
    ]


def _plays(implementation: str, row: Row, fate: str, service: str) -> bool:
    if service == DOCKER:
        return implementation not in ("provider", SWEPT)
    return implementation != SWEPT or row.leaves_a_job(service, fate)


def representative(rows: Sequence[Row] = ROWS) -> list[CaseOf]:
    """Every row once, with our operators: services and fates take turns; and the first case with Docker."""
    chosen = []
    for number, row in enumerate(rows):
        every = all_cases([row], ["ours"])
        on_aws = [case for case in every if case[2] != DOCKER]
        possible = [case for case in on_aws if not row.limit(case[2], case[1])] or on_aws
        wanted = row.hardest or AWS_SERVICES[number % len(AWS_SERVICES)]
        mine = [case for case in possible if case[2] == wanted] or possible
        chosen.append(mine[number // len(AWS_SERVICES) % len(mine)])
        chosen += [case for case in every if case[2] == DOCKER][:1]
    return chosen


# --- phases -----------------------------------------------------------------------------------------------


@dataclass
class Meeting:
    """Lets the cases of a phase wait for each other, and breaks and restores the component in between."""

    harness: Harness
    phase: Phase
    parties: int
    late: int
    """How many begin only when all others wait for the break."""
    changed: threading.Condition = field(default_factory=threading.Condition)
    arrived: dict[str, int] = field(default_factory=lambda: {"late": 0, "break": 0, "recover": 0})
    done: set[str] = field(default_factory=set)
    gone: int = 0
    failure: str = ""

    def meet(self, point: str) -> None:
        """Wait there.

        :raises GaveUp: when the component did not break or recover.
        """
        with self.changed:
            self.arrived[point] += 1
            self.changed.notify_all()
            if not self.changed.wait_for(lambda: point in self.done or self.failure, 3 * HANG):
                raise GaveUp(f"not all cases came to the {point} of the phase")
            if self.failure:
                raise GaveUp(self.failure)

    def leave(self) -> None:
        """Say that a case comes to no further point."""
        with self.changed:
            self.gone += 1
            self.changed.notify_all()

    def run(self) -> None:
        """Break the component and let it recover, each when all cases have come."""
        try:
            self._await("late", lambda: self.arrived["late"] + self.arrived["break"] + self.gone)
            self._await("break", lambda: self.arrived["break"] + self.gone, self.phase.breaks)
            self._await("recover", lambda: self.arrived["recover"] + self.gone, self.phase.recovers)
        except Exception as error:  # noqa: BLE001 - reported to all who wait
            with self.changed:
                self.failure = f"the phase {self.phase.name!r} broke off: {error}"
                self.changed.notify_all()

    def _await(
        self, point: str, present: Callable[[], int], act: Callable[[Harness], None] | None = None
    ) -> None:
        with self.changed:
            self.changed.wait_for(lambda: present() >= self.parties, 2 * HANG)
        if act and self.gone < self.parties:
            act(self.harness)
        with self.changed:
            self.done.add(point)
            self.changed.notify_all()


@dataclass(frozen=True)
class Phase:
    """A component that breaks, for all cases of its rows at the same time."""

    name: str
    breaks: Callable[[Harness], None]
    recovers: Callable[[Harness], None]
    begins: Callable[[Harness], None] = lambda _: None
    ends: Callable[[Harness], None] = lambda _: None


def _lose_triggerer(harness: Harness) -> None:
    harness.airflow.kill("triggerer", signal.SIGKILL)


def _start_triggerer(harness: Harness) -> None:
    harness.airflow.start("triggerer")


def _lose_machine(harness: Harness) -> None:
    harness.airflow.kill("scheduler", signal.SIGKILL)


def _start_scheduler(harness: Harness) -> None:
    """Start it when the lost one is known to be lost, or it adopts its tasks only five minutes later."""

    def lost() -> bool:
        return harness.airflow.request("GET", "/monitor/health")["scheduler"]["status"] != "healthy"

    harness.airflow.wait_until(lost, what="the scheduler is known to be lost")
    harness.airflow.start("scheduler")


def _be_patient(harness: Harness) -> None:
    """Give heartbeats Airflow's own time: what is short for the sake of the others is less than a minute."""
    harness.airflow._environment["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] = "300"
    harness.airflow.restart("scheduler")


def _stop_api(harness: Harness) -> None:
    harness.airflow.kill("api-server", signal.SIGKILL)
    harness.facts["away since"] = time.monotonic()


def _start_api(harness: Harness) -> None:
    seconds = 20 if harness.brief else 60
    left = harness.facts["away since"] + seconds - time.monotonic()
    if left > 0:
        time.sleep(left)  # the row says how long it is away
    harness.airflow.start("api-server")


TRIGGERERS = "SELECT max(id) FROM job WHERE job_type = 'TriggererJob' AND state = 'running'"
BEAT = "SELECT latest_heartbeat FROM job WHERE id = :id"


def _stop_one_of_two(harness: Harness) -> None:
    """All triggers are in the first triggerer; the second one starts, the first one is stopped."""
    first = harness.observer.scalar(TRIGGERERS)
    harness.airflow.start("triggerer-2")
    harness.facts["stopped triggerer"] = first
    harness.airflow.kill("triggerer", signal.SIGSTOP)


def _continue(harness: Harness) -> None:
    first = harness.facts["stopped triggerer"]
    before = harness.observer.scalar(BEAT, id=first)
    harness.airflow.kill("triggerer", signal.SIGCONT)
    harness.facts["beats again"] = lambda: harness.observer.scalar(BEAT, id=first) > before


def _one_triggerer(harness: Harness) -> None:
    harness.airflow.stop("triggerer-2")


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


def play(harness: Harness, cases: Iterable[CaseOf], show: Callable[[Result], None]) -> list[Result]:
    """Play cases and say what they came to."""
    phases: dict[str, list[Case]] = {}
    for row, fate, service, implementation in cases:
        phases.setdefault(row.phase, []).append(Case(harness, row, fate, service, implementation))
    results: list[Result] = []
    # What takes long goes first.
    for name in ("", *PHASES):
        if members := phases.pop(name, []):
            harness.say(f"--- {name or 'single tasks'}: {len(members)} cases")
            began = time.monotonic()
            results += _together(harness, PHASES[name], members, show) if name else _alone(members, show)
            harness.say(f"--- {name or 'single tasks'}: {time.monotonic() - began:.0f} s")
    assert not phases, phases
    return results


def _alone(cases: list[Case], show: Callable[[Result], None]) -> list[Result]:
    slow = ("throttled", "worker-unread", "worker-resumed", "deploy-hard", "run-timeout", "deadline")
    cases = sorted(cases, key=lambda case: slow.index(case.row.id) if case.row.id in slow else len(slow))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda case: _play(case, show), cases))


def _together(
    harness: Harness, phase: Phase, cases: list[Case], show: Callable[[Result], None]
) -> list[Result]:
    late = sum(steps.others_first in case.row.do for case in cases)
    meeting = Meeting(harness, phase, len(cases), late)
    for case in cases:
        case.meet = meeting.meet
    phase.begins(harness)
    coordinator = threading.Thread(target=meeting.run, name=phase.name, daemon=True)
    coordinator.start()

    def one(case: Case) -> Result:
        try:
            return _play(case, show)
        finally:
            meeting.leave()

    with ThreadPoolExecutor(len(cases)) as threads:
        results = list(threads.map(one, cases))
    coordinator.join(60)
    phase.ends(harness)
    return results


def _play(case: Case, show: Callable[[Result], None]) -> Result:
    """Play one case and report its result.

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
    show(result)
    return result


def _once(case: Case) -> Result:
    """Play one case to its end, no matter what happens."""
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
    case.harness.observer.fresh()
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
