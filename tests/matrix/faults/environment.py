"""The harness: a real Airflow on PostgreSQL, a fake AWS on loopback, an observer of Airflow's tables."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import servers

import airflow_resilient
from airflow_resilient.testing import FakeAws, FakeDocker
from airflow_resilient.testing.airflow.local_airflow import HANG, LocalAirflow
from airflow_resilient.testing.aws.faults import Fault
from airflow_resilient.testing.aws.wire import ACCOUNT

from . import mutants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from airflow_resilient.testing.aws.wire import Reply, Request

HERE = Path(__file__).parent
IMPLEMENTATIONS = ("ours", "provider")
SWEPT = "swept"
"""Our operators, beside a DAG that cancels orphans: for the cases that may leave a job running."""
ALL_IMPLEMENTATIONS = (*IMPLEMENTATIONS, SWEPT)
AWS_SERVICES = ("ecs", "emr")
DOCKER = "docker"
"""Containers on a fake engine, one for each case, with our operators alone: see also tests/matrix/kills."""
SERVICES = (*AWS_SERVICES, DOCKER)
SHARED, SWEPT_CLUSTER = "etl", "swept"
"""Clusters of all jobs that need none of their own: all orphans of the second one are cancelled."""
EVENTS = "/aws/events/faults"
"""The log group of events; a case has none there unless the step ``archived`` says so."""
CONNECTIONS = ("aws_default", "aws_throttled", "aws_broken", "aws_denied")


class GaveUp(Exception):
    """Something did not happen in time."""


# --- AWS --------------------------------------------------------------------------------------------------


@dataclass
class Hold:
    """An answer that AWS keeps back: what was asked for has been carried out."""

    operation: str
    job: str
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)


@dataclass
class ClusterFault:
    """Faults of the calls about one cluster."""

    operations: tuple[str, ...]
    cluster: str
    fault: Fault
    times: int | None
    met: int = 0


class Aws(FakeAws):
    """A fake AWS that fails calls about single jobs or clusters, and notes what was polled and cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self._holds: list[Hold] = []
        self._cluster_faults: list[ClusterFault] = []
        self.polled: dict[str, float] = {}  # id of a job: when it was polled last
        self.lags: dict[str, float] = {}  # id of an EMR cluster: how late new steps are listed
        self.cancels: dict[str, float] = {}  # id of a job: when its end was first asked for

    def archive(self, cluster: str) -> None:
        """Let EventBridge write the ends of the ECS tasks of a cluster into the log group of events."""
        arn = f"arn:aws:ecs:{self.region}:{ACCOUNT}:cluster/{cluster}"
        detail = {"lastStatus": ["STOPPED"], "startedBy": [{"prefix": "af-"}], "clusterArn": [arn]}
        pattern = {"source": ["aws.ecs"], "detail-type": ["ECS Task State Change"], "detail": detail}
        self.make_event_rule(cluster, pattern, EVENTS)

    def hold(self, operation: str, job: str) -> Hold:
        """Carry out the next call that names this job, and keep its answer back."""
        made = Hold(operation, job)
        self._holds.append(made)
        return made

    def fail(self, cluster: str, *operations: str, times: int | None = None, **fault: Any) -> ClusterFault:
        """Let calls about one cluster fail, until :meth:`heal_cluster`; keywords of `FakeAws.fail_next`."""
        made = ClusterFault(operations, cluster, Fault("", **fault), times)
        self._cluster_faults.append(made)
        return made

    def heal_cluster(self, cluster: str) -> None:
        """End the faults of a cluster."""
        self._cluster_faults = [failing for failing in self._cluster_faults if failing.cluster != cluster]

    def _front(self, request: Request, let_moto_act: Callable[[], object]) -> Reply | None:
        reply = super()._front(request, let_moto_act)
        for hold in list(self._holds):
            if hold.operation == request.operation and hold.job == _job_named(request):
                self._holds.remove(hold)
                hold.reached.set()
                hold.released.wait(240)
        return reply

    def _answer(self, request: Request, let_moto_act: Callable[[], object], time: float) -> Reply | None:
        names = (str(request.params.get(name)) for name in ("cluster", "ClusterId", "JobFlowId"))
        clusters = {name.rpartition("/")[2] for name in names}  # ECS clusters are named by ARN, too
        for failing in self._cluster_faults:
            if failing.cluster in clusters and request.operation in failing.operations:
                if failing.times is not None and failing.met >= failing.times:
                    continue
                failing.met += 1
                if failing.fault.carried_out:
                    self._act(request)
                raise failing.fault.error_for(request)
        self.emr.visible_after_seconds = self.lags.get(str(request.params.get("ClusterId")), 0.0)
        reply = super()._answer(request, let_moto_act, time)
        self._note(request, time)
        return reply

    def _note(self, request: Request, now: float) -> None:
        """Remember polls and cancels that AWS has answered."""
        params = request.params
        if request.operation == "ecs:DescribeTasks":
            self.polled.update((str(task).rpartition("/")[2], now) for task in params.get("tasks", []))
        elif request.operation in ("emr:ListSteps", "emr:DescribeStep"):
            ids = params.get("StepIds") or [params["StepId"]] if "StepId" in params else params.get("StepIds")
            if not ids:
                ids = [step.id for step in self.emr.steps(params["ClusterId"]) if step.live]
            self.polled.update((step_id, now) for step_id in ids)
        elif request.operation == "ecs:StopTask":
            self.cancels.setdefault(str(params["task"]).rpartition("/")[2], now)
        elif request.operation == "emr:CancelSteps":
            for step_id in params["StepIds"]:
                self.cancels.setdefault(step_id, now)


def _job_named(request: Request) -> str:
    """The job that a submit is about."""
    if request.operation == "ecs:RunTask":
        return str(request.params["taskDefinition"])
    if request.operation == "emr:AddJobFlowSteps":
        return str(request.params["Steps"][0]["Name"]).split(" ", 1)[0]
    return ""


# --- an engine ---------------------------------------------------------------------------------------------


class Engine(FakeDocker):
    """A fake engine of one case: it fails calls, keeps answers back, and notes polls and cancels in `aws`."""

    def __init__(self, aws: Aws) -> None:
        super().__init__()
        self._aws = aws
        self._hold: Hold | None = None
        self._failing: list[ClusterFault] = []

    def hold_start(self, job: str) -> Hold:
        """Start the next container, and keep the answer back."""
        self._hold = Hold("docker:start", job)
        return self._hold

    def fail(self, *operations: str, times: int | None, carried_out: bool = False) -> ClusterFault:
        """Let calls fail with an error 500, until `heal`."""
        fault = Fault("", carried_out=carried_out)
        made = ClusterFault(tuple(each.partition(":")[2] for each in operations), "", fault, times)
        self._failing.append(made)
        return made

    def heal(self) -> None:
        """End all faults."""
        self._failing.clear()

    def take_fault(self, operation: str) -> Any:
        """The fault of this call, if there is one."""
        for failing in self._failing:
            if operation in failing.operations and failing.times != failing.met:
                failing.met += 1
                self.fail_next(operation, carried_out=failing.fault.carried_out)
        return super().take_fault(operation)

    def answer(self, operation: str, name: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Answer, note it, and wait if it is to be kept back."""
        answer = super().answer(operation, name, query, body)
        now = time.time()
        if operation in ("list", "inspect"):
            self._aws.polled.update((one.id, now) for one in self.live())
        elif operation == "stop":
            self._aws.cancels.setdefault(self._get(name).id, now)
        elif operation == "start" and self._hold is not None:
            hold, self._hold = self._hold, None
            hold.reached.set()
            hold.released.wait(240)
        return answer


# --- Airflow's tables -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Observation:
    """One observation of a task instance.

    :param id: of the try.
    :param triggerer: id of the triggerer that has its trigger; ``None`` when none has.
    :param run: state of its DAG run.
    """

    id: str
    state: str | None
    try_number: int
    max_tries: int
    start: float | None
    triggerer: int | None
    run: str | None


Key = tuple[str, str]  # DAG and run


class Observer:
    """Observes all task instances several times a second, by one query: asking the API would be a load."""

    def __init__(self, url: str) -> None:
        import sqlalchemy

        self._engine = sqlalchemy.create_engine(url, pool_pre_ping=True)
        self._text = sqlalchemy.text
        self._news = threading.Condition()
        self._observations: dict[Key, Observation] = {}
        self._histories: dict[Key, list[tuple[float, str]]] = defaultdict(list)
        self._rounds = 0
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        self._engine.dispose()

    def latest(self, key: Key) -> Observation | None:
        """The latest observation of the task instance of a run; ``None`` when there is none (any more)."""
        with self._news:
            return self._observations.get(key)

    def history(self, key: Key) -> list[tuple[float, str]]:
        """When its state, try or ``max_tries`` was seen to change, and to what."""
        with self._news:
            return list(self._histories[key])

    def wait(self, predicate: Callable[[], Any], timeout: float, what: str) -> Any:
        """Ask after each query until the answer is true.

        :raises GaveUp: after ``timeout`` seconds.
        """
        until = time.monotonic() + timeout
        while not (answer := predicate()):
            if self._error:
                raise GaveUp(f"the observer died: {self._error!r}")
            if time.monotonic() > until:
                raise GaveUp(f"waited {timeout:.0f} s until {what}, without success")
            with self._news:
                self._news.wait(1)
        return answer

    def fresh(self) -> None:
        """Wait for a query that began after this call."""
        with self._news:
            wanted = self._rounds + 2
            self._news.wait_for(lambda: self._rounds >= wanted or self._error, HANG)

    def scalar(self, query: str, **parameters: Any) -> Any:
        """Ask the database for one value."""
        with self._engine.connect() as connection:
            return connection.execute(self._text(query), parameters).scalar()

    def audit_log(self, key: Key) -> str:
        """The lines of Airflow's audit log about a run, for a person."""
        query = "SELECT event, try_number, extra FROM log WHERE dag_id = :dag AND run_id = :run ORDER BY id"
        with self._engine.connect() as connection:
            rows = connection.execute(self._text(query), {"dag": key[0], "run": key[1]}).all()
        return "\n".join(" ".join(str(part) for part in row) for row in rows)

    def change(self, statement: str, **parameters: Any) -> None:
        """Change Airflow's tables, as time or another component would."""
        with self._engine.begin() as connection:
            connection.execute(self._text(statement), parameters)

    def mismatches(self, key: Key) -> set[int]:
        """Which tries of a run the scheduler has failed because the executor's event did not fit."""
        query = (
            "SELECT try_number FROM log WHERE event = 'state mismatch' AND dag_id = :dag AND run_id = :run"
        )
        with self._engine.connect() as connection:
            rows = connection.execute(self._text(query), {"dag": key[0], "run": key[1]}).all()
        return {int(number or 0) for (number,) in rows}

    def _run(self) -> None:
        query = self._text(
            "SELECT ti.dag_id, ti.run_id, ti.id, ti.state, ti.try_number, ti.max_tries, ti.start_date,"
            " t.triggerer_id, dr.state FROM task_instance ti LEFT JOIN trigger t ON t.id = ti.trigger_id"
            " JOIN dag_run dr ON dr.dag_id = ti.dag_id AND dr.run_id = ti.run_id"
        )
        try:
            while not self._stop.wait(0.2):
                with self._engine.connect() as connection:
                    rows = connection.execute(query).all()
                observations = {
                    (dag, run): Observation(
                        str(of), state, tries or 0, most, start and start.timestamp(), triggerer, of_run
                    )
                    for dag, run, of, state, tries, most, start, triggerer, of_run in rows
                }
                now = time.time()
                with self._news:
                    for key in observations.keys() | self._observations.keys():
                        brief = _in_brief(observations.get(key))
                        if brief != _in_brief(self._observations.get(key)):
                            self._histories[key].append((now, brief))
                    self._observations = observations
                    self._rounds += 1
                    self._news.notify_all()
        except Exception as error:  # noqa: BLE001 - reported to all who wait
            self._error = error


def _in_brief(seen: Observation | None) -> str:
    return f"{seen.state}/{seen.try_number}({seen.max_tries})" if seen else "gone"


# --- all of it --------------------------------------------------------------------------------------------


@dataclass
class Harness:
    """The processes that the matrix needs, and what its steps share."""

    aws: Aws
    airflow: LocalAirflow
    observer: Observer
    gates: Path
    say: Callable[[str], object]
    facts: dict[str, Any] = field(default_factory=dict)
    """Values that a phase hands to its steps."""
    brief: bool = False
    """The part for every check: waits that are "minutes" are shorter."""

    def cluster(self, name: str) -> str:
        """Make a cluster of this name for both services; give the id of EMR's."""
        return _cluster(self.aws, name)


def _cluster(aws: Aws, name: str) -> str:
    aws.make_ecs_cluster(name)
    return aws.make_emr_cluster(name, concurrency=200)


class _ModestAirflow(LocalAirflow):
    """Asks its API to change a few things at a time: more would wait for connections to the database."""

    _turns = threading.Semaphore(4)

    def request(self, method: str, *args: Any, **options: Any) -> dict[str, Any]:
        with contextlib.nullcontext() if method == "GET" else self._turns:
            return super().request(method, *args, **options)


@contextlib.contextmanager
def harness(
    database_url: str,
    *,
    implementations: Sequence[str] = IMPLEMENTATIONS,
    say: Callable[[str], object] = print,
    brief: bool = False,
    python: str = sys.executable,
    home: Path | None = None,
) -> Iterator[Harness]:
    """Start everything."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for part in ("dags", "gates", "broken"):
            (folder / part).mkdir()
        for implementation in implementations:
            shutil.copyfile(HERE / "dags" / "fault_dags.py", folder / "dags" / f"{implementation}.py")
            if implementation in mutants.BY_ID:
                mutants.write(mutants.BY_ID[implementation], folder / "broken")
        package = str(Path(airflow_resilient.__file__).parent.parent)
        path = os.pathsep.join(
            filter(
                None, [package, str(HERE / "on_path"), str(folder / "broken"), os.environ.get("PYTHONPATH")]
            )
        )
        aws = stack.enter_context(Aws().serve())
        swept = {"ecs": [SWEPT_CLUSTER], "emr_steps": [_cluster(aws, SWEPT_CLUSTER)]}
        _cluster(aws, SHARED)
        if SWEPT in implementations:
            shutil.copyfile(HERE / "dags" / "fault_sweep.py", folder / "dags" / "fault_sweep.py")
        airflow = stack.enter_context(
            _ModestAirflow(
                folder / "dags",
                database_url=database_url,
                config={
                    ("core", "dagbag_import_timeout"): 120,  # a busy machine is no fault of a DAG
                    ("core", "parallelism"): 12,
                    ("core", "plugins_folder"): HERE / "plugins",
                    # By default workers ask five times, which is over in a quarter of a minute.
                    ("workers", "execution_api_retries"): 40,
                    ("workers", "execution_api_retry_wait_max"): 5,
                    ("airflow_resilient", "events_log_group"): EVENTS,
                },
                environment={
                    "PYTHONPATH": path,
                    "FAULT_GATES": str(folder / "gates"),
                    "FAULT_SWEEP": json.dumps(swept),
                },
                python=python,
                home=home,
                progress=say,
            )
        )
        # Not started with the others: one phase only needs it.
        airflow._components["triggerer-2"] = replace(airflow._components["triggerer"], name="triggerer-2")
        observer = Observer(database_url)
        observer.start()
        stack.callback(observer.close)
        made = Harness(aws, airflow, observer, folder / "gates", say, brief=brief)
        aws.archive("none")
        # In Airflow's database, as in most deployments: then triggers ask Airflow for them.
        connection = json.loads(aws.airflow_connection())
        connection["extra"] = json.dumps(connection["extra"])
        for name in CONNECTIONS:
            airflow.request("POST", "/connections", {"connection_id": name, **connection})
        this_airflow = {"connection_id": "this_airflow", "conn_type": "http", "host": airflow.url}
        airflow.request("POST", "/connections", this_airflow)
        for implementation in implementations:
            for service in SERVICES if implementation != "provider" else AWS_SERVICES:
                airflow.wait_for_dag(f"{implementation}_{service}_plain")
        yield made


@contextlib.contextmanager
def database() -> Iterator[str]:
    """An empty PostgreSQL database of our own."""
    with servers.postgresql("faults") as url:
        yield url("faults")
