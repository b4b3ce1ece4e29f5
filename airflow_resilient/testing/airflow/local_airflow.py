"""A real Airflow for tests and demonstrations: processes on loopback with a home of their own.

``dag.test()`` runs a DAG in one process and bypasses scheduler, executor and triggerer, so it proves nothing
about what happens when one of them dies.  :class:`LocalAirflow` starts them all, each in its own session, and
can kill them one by one::

    with LocalAirflow(dags=Path("dags"), pools={"two": 2}, progress=print) as airflow:
        run_id = airflow.trigger("orders")
        airflow.wait_until(lambda: airflow.task_instance("orders", run_id, "load").state == "deferred")
        airflow.restart("triggerer", signal.SIGKILL)
        airflow.wait_for("orders", run_id, until=["success"])

Several can run side by side: ports, homes and secrets are not shared.  Everything listens on 127.0.0.1 only.
Nothing sleeps for a fixed time: each step waits for a fact (a health endpoint, a job's row, a state) with a
bound that only a hang exceeds (:data:`HANG`), and the error names the missing fact and contains the last
lines of the components' logs.

It starts Airflow 2.11 and 3.x alike.  2.x has other components (``webserver``, and no DAG processor), no ids
for single tries, and with SQLite it executes one task at a time: give it a PostgreSQL.

It needs Linux or macOS; :meth:`LocalAirflow.task_processes` needs Linux, where Airflow names its processes.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import shutil
import signal as signals
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import weakref
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_resilient.testing.airflow.releases import TASK, WORKER, Component, name_of, release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from airflow_resilient.testing.airflow.releases import Settings

__all__ = ["LocalAirflow", "LocalAirflowError", "PoolSlots", "TaskInstance", "TaskProcess"]

T = TypeVar("T")

FINISHED = ("success", "failed")
"""States in which a DAG run has ended."""

HANG = 600.0
"""Seconds after which what is waited for does not come any more, on however busy a machine.

On two cores that were kept busy by others, Airflow needed 80 s to start, a worker 45 s to load a DAG, and the
triggerer stood still for 18 s; none of that is a fault.
"""

_POLL = 0.2  # seconds between two checks of a fact
_PORT_TAKEN = re.compile(r"address already in use|connection in use|Errno (98|48)", re.IGNORECASE)

# How long a writer waits for the others.
_SQLITE_CONNECT_ARGUMENTS = """\
brief = {"timeout": 2}
patient = {"timeout": 30}
"""


class LocalAirflowError(RuntimeError):
    """Something did not happen in time, or a component died; the message shows the last log lines."""


@dataclass(frozen=True)
class TaskInstance:
    """One observation of a task instance.

    :param id: Airflow's id of this *try*; a retry and a clear give a new one.  On Airflow 2, which has none,
        DAG, run, task and map index.
    :param state: ``None`` before it is scheduled, then as in Airflow's UI.
    :param try_number: 0 before the first try.
    :param pool_slots: slots of ``pool`` that it holds while it is queued or running.
    :param start: when it started to run or, after a deferral, to run again.
    :param end: when it ended; ``None`` while it is unfinished.
    :param raw: the response of the REST API.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    id: str
    state: str | None
    try_number: int
    max_tries: int
    pool: str
    pool_slots: int
    start: datetime | None
    end: datetime | None
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @property
    def in_a_triggerer(self) -> bool:
        """Whether a triggerer has taken its trigger; a moment before that, any triggerer may take it."""
        return (self.raw.get("trigger") or {}).get("triggerer_id") is not None

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What stays the same over all tries: DAG, run, task, map index."""
        return (self.dag_id, self.run_id, self.task_id, self.map_index)


@dataclass(frozen=True)
class PoolSlots:
    """One observation of a pool: how many slots there are and what the task instances in it do."""

    total: int
    running: int
    queued: int
    scheduled: int
    deferred: int
    open: int


@dataclass(frozen=True)
class TaskProcess:
    """A process that works on a task instance.

    :param task_instance_id: :attr:`TaskInstance.id` of the try it works on.
    :param started: when, in seconds since the epoch; with the pid it identifies the process.
    :param role: ``"task"`` executes the operator, ``"worker"`` is the executor's process above it (on
        Airflow 2 there are two), which watches the task and reports its end to Airflow.  Without its worker,
        the death of a task is noticed by its missing heartbeat only.
    :param component: whose process it is: ``scheduler`` with LocalExecutor, else one of ``more_components``.
    """

    pid: int
    task_instance_id: str
    role: str
    started: float = field(repr=False, default=0.0)
    component: str = ""

    def kill(self, signal: int = signals.SIGKILL) -> bool:
        """Send it a signal, unless it has ended; another process that got its pid since is not hit.

        :return: whether it was still there.
        """
        import psutil  # type: ignore[import-untyped,unused-ignore]

        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            process = psutil.Process(self.pid)
            if process.create_time() == self.started and process.status() != psutil.STATUS_ZOMBIE:
                os.kill(self.pid, signal)
                return True
        return False


def _variables_of(config: Mapping[tuple[str, str], object]) -> dict[str, str]:
    """Options of ``airflow.cfg`` as environment variables."""
    return {
        f"AIRFLOW__{section.upper()}__{key.upper()}": str(value) for (section, key), value in config.items()
    }


class _PortTakenError(LocalAirflowError):
    """Between choosing a port and listening on it, another process was faster."""


class _Process:
    """A running component, in a session of its own: what it starts can be found and stopped with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, cwd: Path) -> None:
        self.log = log
        self._gone = False  # the session has ended; its id may belong to another process by now
        with log.open("ab") as output:
            self.popen = subprocess.Popen(  # noqa: S603
                command,
                env=dict(environment),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def exit_code(self) -> int | None:
        return self.popen.poll()

    def members(self) -> list[int]:
        """Pids of the session: the component and what it started, also after the component itself died.

        Task runners move to a process group of their own, but nobody leaves the session.  Its id cannot be
        given to another process as long as it has members.
        """
        import psutil  # type: ignore[import-untyped,unused-ignore]  # comes with Airflow

        found: list[int] = []
        if self._gone:
            return found
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) == self.pid and pid != os.getpid():
                    found.append(pid)
        self._gone = not found
        return found

    def listens(self, port: int) -> bool:
        """Say whether it, or what it started, listens on a port."""
        import psutil

        for pid in self.members():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                # psutil 6 renamed it
                ask = process.net_connections if hasattr(process, "net_connections") else process.connections
                if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in ask("inet")):
                    return True
        return False

    def signal(self, number: int, *, whole: bool) -> None:
        """Send a signal to the component, or with ``whole`` to all its session."""
        for pid in self.members() if whole else [self.pid]:
            if pid == self.pid and self.exit_code is not None:
                continue  # reaped: the pid may belong to another process by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self, timeout: float) -> None:
        """Wait until it has stopped by itself, kill what is left after ``timeout`` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(timeout)
        until = time.monotonic() + HANG
        while True:
            self.signal(signals.SIGKILL, whole=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(1)
            if not self.members() or time.monotonic() > until:
                return
            time.sleep(0.05)


class LocalAirflow:
    """A real Airflow on this machine: what serves the API, scheduler, triggerer and so on as processes.

    :param dags: folder of DAG files; a changed file is read within seconds.
    :param connections: connection id to a URI, a JSON string or a mapping, as in ``AIRFLOW_CONN_…``.
    :param variables: Airflow's variables, as in ``AIRFLOW_VAR_…``.
    :param config: options of ``airflow.cfg`` by section and key; they win over what this class sets (short
        intervals).
    :param pools: pool's name to its number of slots; deferred task instances hold none.
    :param executor: ``LocalExecutor`` (on Airflow 2 with SQLite, ``SequentialExecutor`` instead, which is all
        that it allows), or whatever ``more_components`` and ``config`` make work.
    :param database_url: SQLAlchemy URL of an empty database; ``None`` is SQLite in the home.
    :param python: interpreter of the environment in which Airflow is installed.
    :param more_components: further processes: name to command line after ``airflow``, for example
        ``{"triggerer-2": ["triggerer", "--skip-serve-logs"]}``.
    :param environment: further variables for all processes, for example ``PYTHONPATH``.
    :param home: Airflow's home; ``None`` makes a temporary one that :meth:`close` removes, unless the
        ``with`` block failed.
    :param start_timeout: seconds until everything must be healthy.
    :param progress: called with a sentence whenever something is started or stopped, for example ``print``.
    """

    def __init__(  # noqa: PLR0913 - all are keyword-only
        self,
        dags: Path | str,
        *,
        connections: Mapping[str, str | Mapping[str, Any]] | None = None,
        variables: Mapping[str, str] | None = None,
        config: Mapping[tuple[str, str], object] | None = None,
        pools: Mapping[str, int] | None = None,
        executor: str = "LocalExecutor",
        database_url: str | None = None,
        python: str | Path = sys.executable,
        more_components: Mapping[str, Sequence[str]] | None = None,
        environment: Mapping[str, str] | None = None,
        home: Path | str | None = None,
        start_timeout: float = HANG,
        progress: Callable[[str], object] | None = None,
    ) -> None:
        self.dags = Path(dags).resolve()
        self.python = str(python)
        self.home = Path(home) if home else Path()
        self.port = 0
        self._own_home = home is None
        self._connections = dict(connections or {})
        self._variables = dict(variables or {})
        self._config = dict(config or {})
        self._pools = dict(pools or {})
        self._executor = executor
        self._database_url = database_url
        self._more_components = {n: Component(n, tuple(a)) for n, a in (more_components or {}).items()}
        self._more_environment = dict(environment or {})
        self._start_timeout = start_timeout
        self._progress = progress or (lambda _: None)
        self._processes: dict[
            str, _Process
        ] = {}  # by component; one that was stopped on purpose is not in it
        self._sessions: list[_Process] = []  # all that was ever started
        self._environment: dict[str, str] = {}
        self._components: dict[str, Component] = {}
        self._release = release("3")
        self._token: str | None = None
        # Loopback must never go through somebody's proxy.
        self._http = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    # ----- life cycle

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close(keep_home=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(keep_home=error is not None)

    def open(self) -> None:
        """Migrate the database, start all components and wait until they are healthy.

        :raises LocalAirflowError: when they are not within ``start_timeout``, with their last log lines.
        """
        began = time.monotonic()
        until = began + self._start_timeout
        version = self._installed_version()
        self._release = release(version)
        if self._own_home:
            self.home = Path(tempfile.mkdtemp(prefix="local-airflow-"))
        for folder in (
            "config",
            "log-of",
            "plugins",
        ):  # the triggerer searches for plugins only when it starts
            (self.home / folder).mkdir(parents=True, exist_ok=True)
        for name, text in self._release.files.items():
            (self.home / name).write_text(text)
        # Without a call of close(), no processes are left behind.
        self._finalizer = weakref.finalize(self, _end_all, self._sessions)
        self._components = {c.name: c for c in self._release.components} | self._more_components
        self._choose_port()
        self._migrate(until)
        for attempt in range(5):
            self._progress(f"starting Airflow {version} ({', '.join(self._components)}) on {self.url}")
            for name in self._components:
                self._spawn(name)
            try:
                self.wait_until(self._healthy, until - time.monotonic(), what="all components are healthy")
                break
            except _PortTakenError:
                if attempt == 4:  # noqa: PLR2004
                    raise
                self._progress(f"port {self.port} was taken, trying another one")
                for name in list(self._processes):
                    self._processes.pop(name).end(0)
                self._log_path(self._release.front).unlink()
                self._choose_port()
        for name, slots in self._pools.items():
            body = {"name": name, "slots": slots, "include_deferred": False}
            self.request("POST", "/pools", body, accept=(409,))
        self._progress(f"Airflow is healthy after {time.monotonic() - began:.0f} s")

    def close(self, *, keep_home: bool = False) -> None:
        """Stop everything that was started, and remove the temporary home.

        :param keep_home: leave it, with all logs; a home that the caller named is never removed.
        """
        if self._processes:
            self._progress("stopping Airflow")
        for process in self._processes.values():
            process.signal(signals.SIGTERM, whole=False)
        _end_all(self._sessions, timeout=5)
        self._sessions.clear()
        self._processes.clear()
        if self._own_home and self.home != Path():
            if keep_home:
                self._progress(f"logs are kept in {self.home}")
            else:
                shutil.rmtree(self.home, ignore_errors=True)

    @property
    def url(self) -> str:
        """Address of the UI and the API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which the components run, for command lines of one's own."""
        return dict(self._environment)

    # ----- components

    @property
    def components(self) -> tuple[str, ...]:
        """Names to be used with :meth:`start`, :meth:`stop`, :meth:`kill` and :meth:`restart`."""
        return tuple(self._components)

    def pid(self, component: str) -> int | None:
        """Give the pid of a component, or ``None`` when it does not run."""
        process = self._processes.get(self._known(component))
        return process.pid if process and process.exit_code is None else None

    def start(
        self, component: str, timeout: float = HANG, *, config: Mapping[tuple[str, str], object] | None = None
    ) -> None:
        """Start a component that was stopped or killed, and wait until it works.

        :param config: options of ``airflow.cfg`` for this process alone, for example
            ``{("scheduler", "use_job_schedule"): False}``.
        :raises LocalAirflowError: when it runs already, dies, or does not work within ``timeout`` seconds.
        """
        sign = self._components[self._known(component)].sign
        if self.pid(component):
            raise LocalAirflowError(f"{component} is running already, as process {self.pid(component)}")
        front = self._release.front
        with_api = component == front or self.pid(front) is not None
        before = self._signs(sign) if sign and component != front and with_api else set()
        self._progress(f"starting {component}")
        self._spawn(component, config or MappingProxyType({}))
        if not with_api:
            return
        if component == front:
            self.wait_until(self._answers, timeout, what=f"{front} answers")
        elif sign:
            self.wait_until(lambda: self._signs(sign) - before, timeout, what=f"{component} works")

    def stop(self, component: str, timeout: float = HANG) -> None:
        """Ask a component to stop (SIGTERM), as a deploy does.

        :param timeout: seconds after which what is left of it is killed.
        """
        process = self._processes.get(self._known(component))
        if process is None:
            raise LocalAirflowError(f"{component} does not run")
        self._progress(f"stopping {component}")
        del self._processes[component]
        process.signal(signals.SIGTERM, whole=False)
        process.end(timeout)

    def kill(self, component: str, signal: int = signals.SIGKILL, *, whole: bool = True) -> None:
        """Send a signal to a component, by default as if its machine lost power.

        :param signal: after SIGKILL the component counts as stopped; :meth:`start` brings it back.
        :param whole: everything it started too (for the scheduler with LocalExecutor: workers and tasks), not
            only its first process.
        """
        process = self._processes.get(self._known(component))
        if process is None:
            raise LocalAirflowError(f"{component} does not run")
        self._progress(f"sending {signals.Signals(signal).name} to {component}")
        if signal == signals.SIGKILL:
            del self._processes[component]
        process.signal(signal, whole=whole)
        if signal == signals.SIGKILL:
            process.popen.wait(HANG)
            until = time.monotonic() + HANG
            while whole and process.members() and time.monotonic() < until:
                time.sleep(0.01)

    def restart(self, component: str, signal: int = signals.SIGTERM, timeout: float = HANG) -> None:
        """Stop a component, by SIGTERM or SIGKILL, and start it again."""
        if signal == signals.SIGKILL:
            self.kill(component)
        else:
            self.stop(component, timeout)
        self.start(component, timeout)

    def log(self, component: str, lines: int = 40) -> str:
        """Give the last lines of what a component printed."""
        path = self._log_path(self._known(component))
        return "\n".join(_tail(path, lines))

    # ----- runs and tasks

    def trigger(
        self,
        dag_id: str,
        run_id: str | None = None,
        conf: Mapping[str, Any] | None = None,
        timeout: float = HANG,
        *,
        logical_date: datetime | None = None,
    ) -> str:
        """Trigger a DAG run, after waiting until the DAG has been parsed.

        :param logical_date: with a time zone; ``None`` is none, which on Airflow 2 is now.
        :return: the run's id.
        :raises LocalAirflowError: when there is no such DAG within ``timeout`` seconds, at once when its file
            cannot be imported.
        """
        chosen = run_id or f"manual__{datetime.now(timezone.utc).isoformat()}"
        if logical_date is None and not self._release.undated_runs:
            logical_date = datetime.now(timezone.utc)
        date = None if logical_date is None else logical_date.isoformat()
        body = {"dag_run_id": chosen, "logical_date": date, "conf": dict(conf or {})}
        path = f"/dags/{_quoted(dag_id)}/dagRuns"
        self.wait_for_dag(dag_id, timeout)

        def created() -> bool:
            answer = self.request("POST", path, body, accept=(404, 409))
            if answer.get("dag_run_id") == chosen:
                return True
            # 409 when an earlier attempt has been carried out although its answer was an error
            return bool(self.request("GET", f"{path}/{_quoted(chosen)}", accept=(404,)).get("dag_run_id"))

        self.wait_until(created, timeout, what=f"DAG {dag_id!r} has run {chosen!r}")
        return chosen

    def wait_for_dag(
        self,
        dag_id: str,
        timeout: float = HANG,
        *,
        holds: Callable[[str], bool] = bool,
    ) -> None:
        """Wait until a DAG is known to Airflow.

        :param holds: asked with the source of the DAG's file as Airflow knows it; waits until it agrees, for
            example until a changed file has been read.
        :raises LocalAirflowError: at once when a DAG file cannot be imported, with its traceback.
        """

        def known() -> bool:
            errors = self.request("GET", "/importErrors").get("import_errors", [])
            if errors:
                text = "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)
                raise LocalAirflowError(f"DAG files cannot be imported:\n{text}")
            dag = self.request("GET", f"/dags/{_quoted(dag_id)}", accept=(404,))
            if "dag_id" not in dag:
                return False
            path = f"/dagSources/{_quoted(dag[self._release.source])}"
            return holds(self.request("GET", path, accept=(404,)).get("content") or "")

        self.wait_until(known, timeout, what=f"DAG {dag_id!r} is known to Airflow")

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Give the state of a DAG run."""
        return str(self.request("GET", _run_path(dag_id, run_id))["state"])

    def wait_for(
        self, dag_id: str, run_id: str, until: Iterable[str] = FINISHED, timeout: float = HANG
    ) -> str:
        """Wait until a DAG run is in one of the states ``until``.

        :return: its state.
        :raises LocalAirflowError: after ``timeout`` seconds, or at once when the run ends otherwise; tells
            the task instances.
        """
        wanted = frozenset(until)

        def there() -> str | None:
            state = self.run_state(dag_id, run_id)
            if state in wanted:
                return state
            if state in FINISHED:
                raise LocalAirflowError(
                    f"run {run_id!r} of DAG {dag_id!r} is {state}, wanted {' or '.join(sorted(wanted))}\n"
                    + self._described(dag_id, run_id)
                )
            return None

        what = f"run {run_id!r} of DAG {dag_id!r} is {' or '.join(sorted(wanted))}"
        return self.wait_until(there, timeout, what=what, tell=lambda: self._described(dag_id, run_id))

    def task_instances(
        self,
        dag_id: str | None = None,
        run_id: str | None = None,
        *,
        states: Iterable[str] = (),
        pool: str | None = None,
    ) -> list[TaskInstance]:
        """Give the latest try of the task instances of a run, of a DAG, or of everything, sorted by key.

        :param states: only those in one of these states.
        :param pool: only those in this pool.
        """
        query = [("limit", "100"), *(("state", s) for s in states), *([("pool", pool)] if pool else [])]
        found: list[TaskInstance] = []
        path = f"{_run_path(dag_id or '~', run_id or '~')}/taskInstances"
        while True:
            page = self.request(
                "GET", f"{path}?{urllib.parse.urlencode([*query, ('offset', str(len(found)))])}"
            )
            found += map(_task_instance, page["task_instances"])
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return sorted(found, key=lambda instance: instance.key)

    def task_instance(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskInstance:
        """Give the latest try of one task instance."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}"
        return _task_instance(self.request("GET", path if map_index < 0 else f"{path}/{map_index}"))

    def tries(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[TaskInstance]:
        """Give all tries of one task instance, oldest first."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}"
        path += "/tries" if map_index < 0 else f"/{map_index}/tries"
        found = [_task_instance(raw) for raw in self.request("GET", path)["task_instances"]]
        return sorted(found, key=lambda instance: instance.try_number)

    def clear(self, dag_id: str, run_id: str, task_ids: Iterable[str] | None = None, **more: Any) -> None:
        """Clear task instances of a run, as the UI's button does.

        :param task_ids: all of them when ``None``.
        :param more: further fields of the API's request, for example ``include_downstream=True``.
        """
        body = {"dry_run": False, "dag_run_id": run_id, "only_failed": False, "reset_dag_runs": True, **more}
        if task_ids is not None:
            body["task_ids"] = list(task_ids)
        self.request("POST", f"/dags/{_quoted(dag_id)}/clearTaskInstances", body)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Mark a task instance as ``success``, ``failed`` or ``skipped``, as the UI's buttons do."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}"
        body = {"new_state": state, **self._release.mark}
        self.request("PATCH", path if map_index < 0 else f"{path}/{map_index}", body)

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Mark a DAG run as ``success`` or ``failed``; what it still executes is stopped."""
        self.request("PATCH", _run_path(dag_id, run_id), {"state": state})

    def task_log(
        self, dag_id: str, run_id: str, task_id: str, try_number: int | None = None, map_index: int = -1
    ) -> str:
        """Give the log of a try (by default of the latest), one line per message."""
        number = try_number or self.task_instance(dag_id, run_id, task_id, map_index).try_number
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/logs/{number}"
        answer = self.request("GET", f"{path}?full_content=true&map_index={map_index}", accept=(404,))
        if "content" not in answer:  # a try that Airflow failed before it ran again is not in its history
            folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
            folder = folder if map_index < 0 else folder / f"map_index={map_index}"
            return "\n".join(_tail(folder / f"attempt={number}.log", 10_000))
        return "\n".join(_log_lines(answer["content"]))

    def xcom(
        self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1
    ) -> Any:
        """Give an XCom's value, or ``None`` when there is none."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{_quoted(task_id)}/xcomEntries/{_quoted(key)}"
        query = f"map_index={map_index}&stringify=false"
        return self.request("GET", f"{path}?{query}", accept=(404,)).get("value")

    def events(
        self, event: str, dag_id: str | None = None, run_id: str | None = None
    ) -> list[Mapping[str, Any]]:
        """Give lines of Airflow's audit log, oldest first.

        :param event: for example ``state mismatch``, which says that the scheduler failed a task instance
            because it had not yet processed the executor's event, or ``heartbeat timeout``.
        """
        wanted = {"event": event, "dag_id": dag_id, "run_id": run_id, "limit": 100}
        query = urllib.parse.urlencode({k: v for k, v in wanted.items() if v is not None})
        found = self.request("GET", f"/eventLogs?{query}")["event_logs"]
        return sorted(found, key=lambda line: line["event_log_id"])

    def deferrals_processed(self, task_instance: TaskInstance) -> int:
        """The number of deferrals of a try that the scheduler has processed.

        A task instance is deferred when its task says so, and its process ends a little later; the scheduler
        reads that end when its turn comes, seconds later on a busy machine. If the trigger has fired and the
        task instance is queued again before that, the scheduler takes the old event for the end of the new
        process and fails the try ("state mismatch", see :meth:`events`). A test that counts tries therefore
        lets a remote job end when the scheduler has processed the deferral.

        Source: ``process_executor_events`` in ``airflow/jobs/scheduler_job_runner.py``, which logs what is
        counted here, and ``change_state`` in ``airflow/executors/base_executor.py``.
        """
        dag_id, run_id, task_id, map_index = task_instance.key
        key = f"dag_id={dag_id}, task_id={task_id}, run_id={run_id}, map_index={map_index},"
        try_number = f"try_number={task_instance.try_number},"
        pattern = re.compile(rf"TaskInstance Finished: {re.escape(key)} .*\bstate=deferred, .*\b{try_number}")
        with self._log_path("scheduler").open(errors="replace") as lines:
            return sum(1 for line in lines if pattern.search(line))

    def stray_log(self, dag_id: str, run_id: str) -> str:
        """Give the lines of triggers of a run that stand in no log of a task, but in that of a triggerer.

        A triggerer closes the log of a task instance when its trigger has ended, and writes what it reads
        later to its own output; it reads 4096 bytes of all triggers' lines for each message that says that
        triggers have ended, so it reads last lines later when it has much to do.

        Source: ``_handle_request`` and ``_process_log_messages_from_subprocess`` in
        ``airflow/jobs/triggerer_job_runner.py`` (3.3.2), ``make_buffered_socket_reader`` in
        ``airflow/sdk/execution_time/supervisor.py``.
        """
        theirs = [f" dag_id={dag_id} ", f" run_id={run_id} "]
        lines = [
            line
            for name in self._components
            if name.startswith("triggerer") and self._log_path(name).exists()
            for line in self._log_path(name).read_text(errors="replace").splitlines()
        ]
        return "\n".join(line for line in lines if all(part in f"{line} " for part in theirs))

    def pool_slots(self, pool: str) -> PoolSlots:
        """Say how many slots of a pool are in use."""
        raw = self.request("GET", f"/pools/{_quoted(pool)}")
        return PoolSlots(
            total=raw["slots"],
            running=raw["running_slots"],
            queued=raw["queued_slots"],
            scheduled=raw["scheduled_slots"],
            deferred=raw["deferred_slots"],
            open=raw["open_slots"],
        )

    # ----- task processes

    def task_processes(self, task_instance: TaskInstance | None = None) -> list[TaskProcess]:
        """List the processes that work on task instances right now, workers before tasks.

        :param task_instance: only those that work on this try.

        Verified: ``test_task_process_is_found_and_killed``.
        """
        import psutil

        components = {process.pid: name for name, process in self._processes.items()}
        sessions = {process.pid: components.get(process.pid, "") for process in self._sessions}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
                component = sessions.get(os.getsid(process.pid))
                if component is None:
                    continue
                above = psutil.Process(process.ppid()).cmdline()
                work = self._release.work(_title(process.cmdline()), _title(above))
                if work is None or (work.idle_without_child and not process.children()):
                    continue
                found.append(TaskProcess(process.pid, work.name, work.role, process.create_time(), component))
        wanted = [p for p in found if task_instance is None or p.task_instance_id == task_instance.id]
        return sorted(wanted, key=lambda p: (p.role != WORKER, p.started))

    def kill_task(
        self, task_instance: TaskInstance, signal: int = signals.SIGKILL, *, worker: bool = True
    ) -> list[int]:
        """Send a signal to the processes that execute a try.

        :param worker: to the worker's process too, first, so that nobody is left to report what happened:
            Airflow notices by the missing heartbeat.  Otherwise to the task alone, as the out-of-memory
            killer does.
        :return: their pids.
        :raises LocalAirflowError: when nothing executes it.

        See :meth:`kill_task_when` for a kill at a certain moment.
        """
        doomed = [p for p in self.task_processes(task_instance) if worker or p.role == TASK]
        for process in doomed:
            process.kill(signal)
        if not doomed:
            raise LocalAirflowError(f"no process executes {task_instance}")
        return [process.pid for process in doomed]

    def kill_task_when(
        self,
        task_instance: TaskInstance,
        moment: Callable[[], object],
        signal: int = signals.SIGKILL,
        *,
        worker: bool = True,
        timeout: float = HANG,
    ) -> list[int]:
        """Wait until a try is executed, then until a moment comes, and send a signal within milliseconds.

        Call it right after :meth:`trigger`.  From the moment a service has taken a job until its task defers,
        some 0.05 s pass: too few for :meth:`kill_task`, which has to find the processes first.

        :param moment: true when it has come, for example ``lambda: aws.emr.steps(cluster)``; asked a thousand
            times a second.
        :param worker: as in :meth:`kill_task`.
        :param timeout: seconds for both waits together.
        :return: the pids that were hit.
        :raises LocalAirflowError: when the moment does not come, or it came after the process had ended.
        """
        until = time.monotonic() + timeout
        what = f"{task_instance.dag_id}.{task_instance.task_id} is executed"

        def executed() -> list[TaskProcess] | None:
            found = self.task_processes(task_instance)
            return found if {process.role for process in found} == {WORKER, TASK} else None

        doomed = [p for p in self.wait_until(executed, timeout, what) if worker or p.role == TASK]
        left = max(0, until - time.monotonic())
        self.wait_until(lambda: bool(moment()), left, f"the moment to kill it: {what}", every=0.001)
        hit = [process.pid for process in doomed if process.kill(signal)]
        if not any(process.pid in hit for process in doomed if process.role == TASK):
            raise LocalAirflowError(f"the process had ended before the moment came: {task_instance}")
        return hit

    # ----- waiting, asking

    def wait_until(
        self,
        predicate: Callable[[], T | None],
        timeout: float = HANG,
        what: str = "the condition holds",
        *,
        tell: Callable[[], str] | None = None,
        every: float = _POLL,
    ) -> T:
        """Ask ``predicate`` until it answers something true.

        :param timeout: seconds.
        :param what: completes "waited … s until"; stands in the error.
        :param tell: returns further text for the error.
        :param every: seconds between two questions.
        :return: the true answer.
        :raises LocalAirflowError: after ``timeout``, and at once when a component has died that nobody
            killed.
        """
        until = time.monotonic() + timeout
        while True:
            self._check_alive()
            if answer := predicate():
                return answer
            if time.monotonic() > until:
                more = f"\n{tell()}" if tell else ""
                raise LocalAirflowError(
                    f"waited {timeout:.0f} s until {what}, without success{more}\n{self._tails()}"
                )
            time.sleep(every)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        accept: Iterable[int] = (),
        timeout: float = HANG,
    ) -> dict[str, Any]:
        """Call Airflow's REST API: v2, or v1 on Airflow 2.

        :param path: after ``/api/v2``, quoted, for example ``/pools/two``.
        :param accept: status codes above 399 that are answers, not errors.
        :param timeout: seconds; within it, what failed for reasons that pass is tried again.
        :return: the decoded answer, an empty dict when there is none.
        :raises LocalAirflowError: with the response of the API.
        """
        until = time.monotonic() + timeout
        while True:
            problem = ""
            try:
                return self._ask(method, self._release.api + path, body, timeout)
            except urllib.error.HTTPError as error:
                text = error.read().decode(errors="replace")
                if error.code in accept:
                    return _decoded(text)
                problem = f"{error.code}: {text}"
                if error.code == 401 and self._release.token:  # noqa: PLR2004 - the API server was restarted
                    self._token = None
                elif error.code < 500:  # noqa: PLR2004
                    raise LocalAirflowError(f"{method} {path} answered {problem}") from None
            except OSError as error:  # refused, reset, timed out
                problem = str(error)
                refused = isinstance(getattr(error, "reason", error), ConnectionRefusedError)
                if method != "GET" and not refused:  # it may have been carried out
                    raise LocalAirflowError(f"{method} {path} failed: {problem}\n{self._tails()}") from error
            self._check_alive()
            if time.monotonic() > until:
                raise LocalAirflowError(
                    f"{method} {path} failed for {timeout:.0f} s: {problem}\n{self._tails()}"
                )
            time.sleep(_POLL)

    # ----- internals

    def _installed_version(self) -> str:
        code = "import importlib.metadata as m; print(m.version('apache-airflow'))"
        command = [self.python, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=HANG)  # noqa: S603
        if done.returncode:
            raise LocalAirflowError(f"{self.python} has no Airflow:\n{done.stderr.strip()}")
        return done.stdout.strip()

    def _choose_port(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._token = None
        self._environment = self._make_environment()

    def _make_environment(self) -> dict[str, str]:
        database = self._database_url or f"sqlite:///{self.home}/airflow.db"
        settings: Settings = {
            ("core", "dags_are_paused_at_creation"): False,
            ("core", "dags_folder"): self.dags,
            ("core", "executor"): self._executor,
            ("core", "load_examples"): False,
            ("core", "plugins_folder"): self.home / "plugins",
            ("database", "sql_alchemy_conn"): database,
            **self._release.settings(self.port),
        }
        if database.startswith("sqlite"):
            if self._executor == "LocalExecutor":
                settings["core", "executor"] = self._release.executor_with_sqlite
            settings["database", "sql_alchemy_connect_args"] = "local_airflow_database.brief"
            settings["database", "sql_alchemy_connect_args_async"] = "local_airflow_database.brief"
            (self.home / "config" / "local_airflow_database.py").write_text(_SQLITE_CONNECT_ARGUMENTS)
        # Variables of another Airflow are not inherited.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW_", "_AIRFLOW_"))}
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "PYTHONUNBUFFERED": "1",
            # SequentialExecutor calls `airflow`, the webserver of 2.x `gunicorn`.
            "PATH": os.pathsep.join([str(Path(self.python).parent), inherited.get("PATH", os.defpath)]),
            **{f"AIRFLOW_VAR_{name.upper()}": value for name, value in self._variables.items()},
            **{
                f"AIRFLOW_CONN_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
                for name, value in self._connections.items()
            },
            **_variables_of({**settings, **self._config}),
            **self._more_environment,
        }

    def _migrate(self, until: float) -> None:
        self._progress(f"making Airflow's database in {self.home}")
        log = self._log_path("migrate")
        process = _Process([self.python, "-m", "airflow", "db", "migrate"], self._environment, log, self.home)
        self._sessions.append(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.popen.wait(max(1, until - time.monotonic()))
        exit_code = process.exit_code
        process.end(0)
        if exit_code != 0:
            text = "\n".join(_tail(log, 30))
            raise LocalAirflowError(f"making Airflow's database failed (exit code {exit_code}):\n{text}")
        database = self.home / "airflow.db"
        if database.exists():
            # Stays with the file.  Readers no longer block writers: without it, "database is locked" comes
            # within minutes.
            with contextlib.closing(sqlite3.connect(database)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")

    def _spawn(self, component: str, config: Mapping[tuple[str, str], object] = MappingProxyType({})) -> None:
        command = [self.python, "-m", "airflow", *self._components[component].arguments]
        environment = dict(self._environment)
        key = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS"
        if component in self._release.patient and environment.get(key) == "local_airflow_database.brief":
            environment[key] = "local_airflow_database.patient"
        environment |= _variables_of(config)
        process = _Process(command, environment, self._log_path(component), self.home)
        self._sessions.append(process)
        self._processes[component] = process

    def _known(self, component: str) -> str:
        if component not in self._components:
            raise LocalAirflowError(f"no component {component!r}; there are {', '.join(self._components)}")
        return component

    def _log_path(self, name: str) -> Path:
        return self.home / "log-of" / f"{name}.log"

    def _check_port(self) -> None:
        """Read in its log whether what serves the API found its port taken; it takes long to give up."""
        if _PORT_TAKEN.search("\n".join(_tail(self._log_path(self._release.front), 200))):
            raise _PortTakenError(f"port {self.port} is in use")

    def _check_alive(self) -> None:
        for name, process in list(self._processes.items()):  # other threads may kill components meanwhile
            if process.exit_code is not None and self._processes.get(name) is process:
                if name == self._release.front:
                    self._check_port()
                text = "\n".join(_tail(process.log, 40))
                raise LocalAirflowError(
                    f"{name} died with exit code {process.exit_code}; its last log lines:\n{text}"
                )

    def _healthy(self) -> bool:
        self._check_port()
        if not self._answers():
            return False
        try:
            health = self._ask("GET", self._release.health, None, 10)
        except OSError:  # busy: it is asked again
            return False
        return all(health.get(part, {}).get("status") == "healthy" for part in self._release.healthy)

    def _answers(self) -> bool:
        try:
            self._ask("GET", self._release.health, None, 5)
        except OSError:  # HTTPError and URLError are OSErrors too
            return False
        return self._processes[self._release.front].listens(self.port)  # or somebody else's Airflow answered

    def _signs(self, sign: str) -> set[object]:
        return self._release.signs(lambda path: self.request("GET", path), sign)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> dict[str, Any]:
        token = self._release.token
        if token and self._token is None and path not in (self._release.health, token):
            self._token = self._ask("GET", token, None, timeout)["access_token"]
        headers = {"Accept": "application/json"}
        encoded = None
        if body is not None:  # Airflow 2 takes nothing for JSON that cannot be read
            encoded = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if self._token and path != token:
            headers["Authorization"] = f"Bearer {self._token}"
        question = urllib.request.Request(self.url + path, encoded, headers, method=method)  # noqa: S310
        with self._http.open(question, timeout=timeout) as answer:
            return _decoded(answer.read().decode())

    def _described(self, dag_id: str, run_id: str) -> str:
        """The states of a run's task instances and the end of the logs of those that failed."""
        lines = []
        with contextlib.suppress(LocalAirflowError, KeyError):
            for instance in self.task_instances(dag_id, run_id):
                lines.append(f"  {instance.task_id}: {instance.state}, try {instance.try_number}")
                if instance.state in ("failed", "up_for_retry"):
                    log = self.task_log(dag_id, run_id, instance.task_id, None, instance.map_index)
                    lines += [f"      {line}" for line in log.splitlines()[-12:]]
        return "\n".join(lines)

    def _tails(self) -> str:
        lines = []
        for name in self._components:
            process = self._processes.get(name)
            state = "stopped" if process is None else "running" if process.exit_code is None else "died"
            lines.append(f"--- {name} ({state}), {self._log_path(name)}")
            lines += _tail(self._log_path(name), 8)
        return "\n".join(lines)


def _end_all(processes: Iterable[_Process], timeout: float = 0) -> None:
    """Wait for what was asked to stop, and kill the rest; ``timeout`` seconds in all."""
    until = time.monotonic() + timeout
    for process in processes:
        process.end(max(0, until - time.monotonic()))


def _tail(path: Path, lines: int) -> list[str]:
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-lines:]


def _log_lines(content: str | list[str | dict[str, Any]]) -> Iterator[str]:
    """Read the lines of a log as v1 returns it (pairs of host and text, written in Python) or v2."""
    if isinstance(content, str):
        for _, text in ast.literal_eval(content):
            yield from str(text).splitlines()
        return
    for message in content:
        if isinstance(message, str):
            yield message
            continue
        at, level = message.get("timestamp") or "", message.get("level") or ""
        yield f"{at} {level} {message.get('event', '')}".strip()
        if message.get("error_detail"):
            yield f"    {json.dumps(message['error_detail'])}"


def _title(command_line: list[str]) -> str:
    return " ".join(command_line).strip("\0 ")


def _quoted(part: str) -> str:
    return urllib.parse.quote(part, safe="~")


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}"


def _decoded(text: str) -> dict[str, Any]:
    try:
        answer = json.loads(text) if text else {}
    except ValueError:
        answer = text
    return answer if isinstance(answer, dict) else {"answer": answer}


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None


def _task_instance(raw: Mapping[str, Any]) -> TaskInstance:
    return TaskInstance(
        dag_id=raw["dag_id"],
        run_id=raw["dag_run_id"],
        task_id=raw["task_id"],
        map_index=raw["map_index"],
        id=raw.get("id") or name_of(raw["dag_id"], raw["dag_run_id"], raw["task_id"], raw["map_index"]),
        state=raw["state"],
        try_number=raw["try_number"],
        max_tries=raw["max_tries"],
        pool=raw["pool"],
        pool_slots=raw["pool_slots"],
        start=_moment(raw["start_date"]),
        end=_moment(raw["end_date"]),
        raw=raw,
    )
