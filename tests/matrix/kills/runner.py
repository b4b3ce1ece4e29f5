"""Let the cases happen and observe what comes of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import servers

import airflow_resilient
from airflow_resilient.testing.airflow.local_airflow import HANG, LocalAirflow, LocalAirflowError
from airflow_resilient.testing.docker.local_docker import LocalDocker

from .cases import BY_ID, HELD, Figures, Row
from .relay import Relay
from .steps import TooSlow

HERE = Path(__file__).parent
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
AT_ONCE = 7  # cases
ATTEMPTS = 5  # at what must be done within milliseconds, or while a limit has not passed


class Recorder:
    """Every container that was ever made, and what it did: polled several times a second."""

    def __init__(self, engine: LocalDocker) -> None:
        self.engine = engine
        self.made: dict[str, list[str]] = defaultdict(list)
        self.started: dict[str, float] = {}
        self.state: dict[str, str] = {}
        self.ended: dict[str, int | None] = {}
        self.most: Counter[str] = Counter()
        self.polls = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._listen, self._poll)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()

    def case_of(self, container: str) -> str | None:
        return next((case for case, made in self.made.items() if container in made), None)

    def _listen(self) -> None:
        """Receive starts and ends as events, at once."""
        while not self._stop.is_set():
            with contextlib.suppress(Exception), contextlib.closing(self.engine.client()) as client:
                only = {"event": ["start", "die"]}
                for event in client.events(decode=True, filters=only):
                    container = event["id"]
                    if event["status"] == "die":
                        self.ended[container] = int(event["Actor"]["Attributes"]["exitCode"])
                        continue
                    self._note(client, container)
            self._stop.wait(0.2)

    def _poll(self) -> None:
        while not self._stop.wait(0.25):
            with contextlib.suppress(Exception), contextlib.closing(self.engine.client()) as client:
                self.poll(client)

    def poll(self, client: Any) -> None:
        listed = {each["Id"]: each["State"] for each in client.containers(all=True)}
        for container, state in listed.items():
            if state == "running":
                self._note(client, container)
            elif state == "exited" and container not in self.ended:  # while no events were received
                self.ended[container] = client.inspect_container(container)["State"]["ExitCode"]
        self.state = listed
        live = Counter(self.case_of(each) for each, state in listed.items() if state == "running")
        for case, count in live.items():
            self.most[str(case)] = max(self.most[str(case)], count)
        self.polls += 1

    def _note(self, client: Any, container: str) -> None:
        if container in self.started:
            return
        seen = client.inspect_container(container)
        variables = dict(each.partition("=")[::2] for each in seen["Config"]["Env"] or [])
        with self._lock:  # both threads may have seen it start
            if container not in self.started:
                self.started[container] = time.time()
                self.made[variables.get("CASE", "")].append(container)


@dataclass
class Case:
    """One row with one implementation."""

    row: Row
    implementation: str
    airflow: LocalAirflow
    recorder: Recorder
    meet: Callable[[], None] = lambda: None
    number: int = 1
    held: set[str] = field(default_factory=set)
    hit: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        variants = self.row.variants
        self.dag_id = f"{self.implementation}_{variants[min(self.number, len(variants)) - 1]}"
        self.run_id = f"{self.row.id}-{self.implementation}-{self.number}"

    @property
    def containers(self) -> list[str]:
        return self.recorder.made.get(self.run_id, [])

    @property
    def instance(self) -> Any:
        return self.airflow.task_instance(self.dag_id, self.run_id, "work")

    def worked(self) -> float:
        """Seconds since the start of its first container."""
        return time.time() - self.recorder.started[self.containers[0]] if self.containers else 0.0

    def until(self, predicate: Callable[[], Any], what: str, timeout: float = HANG) -> Any:
        return self.airflow.wait_until(predicate, timeout, f"{self.run_id}: {what}")

    def play(self) -> Figures:
        lines = [self.row.written(1), self.row.written(2)]
        if self.row.variants == HELD:
            self.held.add(self.run_id)
        self.airflow.trigger(self.dag_id, self.run_id, {"lines": lines})
        if self.row.do.__name__.startswith(("kill", "terminate")):
            self.until(lambda: self.instance.state in ("queued", "running"), "it is on its way")
        self.row.do(self)
        with contextlib.suppress(LocalAirflowError):  # the figures show what hangs or still runs
            self.until(lambda: self.airflow.run_state(self.dag_id, self.run_id) in ENDED, "the run has ended")
            self.until(lambda: not self._running(), "its containers have ended", 20.0)
        polls = self.recorder.polls
        self.until(lambda: self.recorder.polls > polls + 1, "the recorder has polled since")
        return self.figures()

    def let_go(self) -> None:
        """Let the engine's answer through, to whoever is left to read it."""
        self.held.discard(self.run_id)

    def _running(self) -> list[str]:
        return [each for each in self.containers if self.recorder.state.get(each) == "running"]

    def figures(self) -> Figures:
        instance = self.instance
        logs = [
            self.airflow.task_log(self.dag_id, self.run_id, "work", number)
            for number in range(1, instance.try_number + 1)
        ]
        counted = self._counted(instance.state)
        lines = [re.findall(rf"line {counted[:12]} (\d+)\b", log) for log in logs] if counted else []
        found = {number for log in lines for number in log}
        lines_of_it = self.row.written(instance.try_number)
        done = instance.state != "success" or str(lines_of_it - 1) in found
        written = range(lines_of_it) if instance.state == "success" and done else ()
        there = [each for each in self.containers if each in self.recorder.state]
        return Figures(
            made=len(self.containers),
            at_once=self.recorder.most[self.run_id],
            running=len(self._running()),
            kept=len(there) - len(self._running()),
            state=instance.state,
            tries=instance.try_number,
            lost=len({*map(str, written)} - found),
            doubled=sum(sum(count - 1 for count in Counter(log).values()) for log in lines),
            done=done,
        )

    def story(self, figures: Figures) -> str:
        """The logs of the tries, with the first and the last line of their containers; the engine's log."""
        parts = [f"\ncontainers: {self.containers}"]
        for number in range(1, figures.tries + 1):
            log = self.airflow.task_log(self.dag_id, self.run_id, "work", number).splitlines()
            theirs = [line for line in log if re.match(r".*line \w+ \d+$", line)]
            shown = [line for line in log if line not in theirs[1:-1]]
            parts += [f"--- try {number}, {len(theirs)} lines of containers", *shown]
        parts += ["--- the engine", self.recorder.engine.log()]
        return "\n".join(parts)

    def _counted(self, state: str) -> str:
        """The container whose result was reported: the last one that ended well, or the last one."""
        well = [each for each in self.containers if self.recorder.ended.get(each) == 0]
        found = (well if state == "success" else []) or self.containers
        return found[-1] if found else ""


@dataclass(frozen=True)
class Result:
    """What came of a row with one implementation."""

    row: str
    implementation: str
    figures: Figures
    seconds: float
    story: str = ""

    @property
    def held(self) -> bool:
        """Whether it is what is wanted of ours."""
        return self.figures == BY_ID[self.row].wanted

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Result:
        return cls(**{**values, "figures": Figures(**values["figures"])})


@dataclass(frozen=True)
class Harness:
    """The processes that the matrix needs.

    :param held: the runs whose task waits for the engine's answer to its first start.
    """

    airflow: LocalAirflow
    engine: LocalDocker
    recorder: Recorder
    say: Callable[[str], object]
    held: set[str]


@contextlib.contextmanager
def harness(
    implementations: Sequence[str], say: Callable[[str], object], *, more_dags: Sequence[Path] = ()
) -> Iterator[Harness]:
    """Start a real engine and a real Airflow on PostgreSQL.

    :param more_dags: further DAG files, for which the engine is that of ``DOCKER_HOST``.
    """
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(LocalDocker())
        recorder = Recorder(engine)
        recorder.start()
        stack.callback(recorder.close)
        held: set[str] = set()
        relay = Relay(
            engine.folder, Path(engine.url.removeprefix("unix://")), partial(_is_held, engine, held)
        )
        stack.callback(relay.close)
        dags = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-")))
        for implementation in implementations:
            shutil.copyfile(HERE / "dags" / "kill_dags.py", dags / f"{implementation}.py")
        for path in more_dags:
            shutil.copy(path, dags)
        database = None
        if servers.postgresql_programs() is not None or servers.required():
            database = stack.enter_context(servers.postgresql("kills"))("kills")
        package = str(Path(airflow_resilient.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        airflow = stack.enter_context(
            LocalAirflow(
                dags,
                database_url=database,
                config={("airflow_resilient", "namespace"): "kills", ("core", "parallelism"): 16},
                environment={
                    "PYTHONPATH": path,
                    "KILLS_DOCKER": engine.url,
                    "KILLS_RELAY": relay.url,
                    "DOCKER_HOST": engine.url,
                },
                progress=say,
            )
        )
        yield Harness(airflow, engine, recorder, say, held)


def _is_held(engine: LocalDocker, held: set[str], container: str) -> bool:
    """Whether the answer to the start of this container waits until its case has been hit."""
    if not held:
        return False
    with contextlib.closing(engine.client()) as client:
        environment = client.inspect_container(container)["Config"]["Env"] or []
    return any(variable.removeprefix("CASE=") in held for variable in environment)


def play(made: Harness, rows: Sequence[Row], implementations: Sequence[str]) -> list[Result]:
    """Play these rows with these implementations, phase by phase."""
    results = []
    for phase in dict.fromkeys(row.phase for row in rows):
        cases = [(row, name) for row in rows if row.phase == phase for name in implementations]
        made.say(f"phase {phase}: {len(cases)} cases")
        meet = _meeting(phase, len(cases), made)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(_play, made, row, name, meet) for row, name in cases]
        for future in futures:
            if error := future.exception():  # the others still count
                made.say(f"a case could not be played: {error!r}")
            else:
                results.append(future.result())
    return results


def _meeting(phase: str, cases: int, made: Harness) -> Callable[[], None]:
    """What the cases of a phase wait for together: that their component is killed and started again."""

    def break_and_restart() -> None:
        if phase == "triggerer":
            made.airflow.kill("triggerer")
        else:
            made.engine.kill()
        time.sleep(5)
        if phase == "triggerer":
            made.airflow.start("triggerer")
        else:
            made.engine.start()

    barrier = threading.Barrier(cases, action=break_and_restart)
    return lambda: (barrier.wait(2 * HANG), None)[1]


def _play(made: Harness, row: Row, implementation: str, meet: Callable[[], None]) -> Result:
    say = made.say
    for number in range(1, ATTEMPTS + 1):
        case, began = (
            Case(row, implementation, made.airflow, made.recorder, meet, number, made.held),
            time.monotonic(),
        )
        try:
            figures = case.play()
        except TooSlow as error:
            if number == ATTEMPTS:
                raise
            say(f"{case.run_id}: once more: {error}")
            continue
        held = figures == row.wanted
        story = "" if held or implementation != "ours" else case.story(figures)
        result = Result(row.id, implementation, figures, time.monotonic() - began, story)
        word = "ok  " if held else "BAD " if implementation == "ours" else "bad "
        say(f"{word}{case.run_id} ({result.seconds:.0f} s): {json.dumps(asdict(figures))}{story}")
        return result
    raise AssertionError("not reached")
