"""What differs between Airflow's major versions for `LocalAirflow`: how it is started, asked and watched.

Statements about Airflow 2 are from the source of 2.11.2, statements about Airflow 3 hold for 3.0 to 3.3;
``tests/system/versions`` runs on all of them.
"""

from __future__ import annotations

import ast
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Ask = Callable[[str], Mapping[str, Any]]
    Settings = dict[tuple[str, str], object]

TASK, WORKER = "task", "worker"


@dataclass(frozen=True)
class Component:
    """A process of Airflow.

    :param arguments: command line after ``airflow``.
    :param sign: what :attr:`Release.signs` is asked for to see that it works; ``None``: not waited for.
    """

    name: str
    arguments: tuple[str, ...]
    sign: str | None = None


@dataclass(frozen=True)
class Work:
    """What a process does for a task instance.

    :param role: ``TASK`` or ``WORKER``.
    :param name: of the task instance: the id that the API returns, or what :func:`name_of` makes.
    :param idle_without_child: it keeps its title when the task has ended.
    """

    role: str
    name: str
    idle_without_child: bool = False


@dataclass(frozen=True)
class Release:
    """How one major version of Airflow is started, asked and watched.

    :param components: its processes; the first one serves the UI and the REST API.
    :param api: path of the REST API.
    :param health: path of the health page.
    :param healthy: what the health page must call healthy.
    :param token: path where a token for the REST API is given; ``None``: it needs none.
    :param settings: options of ``airflow.cfg``, given the port: everything on loopback, short intervals.
    :param executor_with_sqlite: executor that works with SQLite.
    :param patient: components that wait long for their turn to write to SQLite.
    :param files: what must stand in Airflow's home: name to text.
    :param undated_runs: whether a run may have no logical date.
    :param mark: further fields of the request that marks a task instance.
    :param source: field of a DAG that names its source to the API.
    :param signs: facts of which there is one more when a component has begun to work.
    :param work: what a process does, by its title and by that of the process above it.
    """

    components: tuple[Component, ...]
    api: str
    health: str
    healthy: tuple[str, ...]
    token: str | None
    settings: Callable[[int], Settings]
    executor_with_sqlite: str
    patient: frozenset[str]
    files: Mapping[str, str]
    undated_runs: bool
    mark: Mapping[str, object]
    source: str
    signs: Callable[[Ask, str], set[object]]
    work: Callable[[str, str], Work | None]

    @property
    def front(self) -> str:
        """Name of the component that serves the UI and the REST API."""
        return self.components[0].name


def name_of(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Name a task instance where Airflow has no id for it."""
    return f"{dag_id}/{run_id}/{task_id}/{map_index}"


# ----- Airflow 3: API server, scheduler, DAG processor and triggerer; REST API v2

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# The task runner calls itself "airflow worker -- ID" (task_runner.startup), the process above it "airflow
# worker -- LocalExecutor: ID" or "airflow supervisor: ID" (BaseExecutor.run_workload; with Celery, too).
_TASK_OF_3 = re.compile(rf"^airflow worker -- ({_UUID})$")
_WORKER_OF_3 = re.compile(rf"^airflow (?:worker -- .+|(supervisor)): ({_UUID})$")


def _settings_of_3(port: int) -> Settings:
    address = f"http://127.0.0.1:{port}"
    return {
        ("api", "base_url"): address,
        ("api", "host"): "127.0.0.1",
        ("api", "port"): port,
        ("api", "workers"): 1,
        ("api_auth", "jwt_secret"): secrets.token_urlsafe(48),
        ("core", "execution_api_server_url"): f"{address}/execution/",
        ("core", "parallelism"): 8,
        ("core", "simple_auth_manager_all_admins"): True,
        ("dag_processor", "bundle_refresh_check_interval"): 1,
        ("dag_processor", "min_file_process_interval"): 60,  # a changed file is parsed at once all the same
        ("dag_processor", "refresh_interval"): 3,
        ("scheduler", "task_instance_heartbeat_timeout"): 20,
        ("scheduler", "task_instance_heartbeat_timeout_detection_interval"): 3,
        ("scheduler", "trigger_timeout_check_interval"): 3,
        ("triggerer", "job_heartbeat_sec"): 2,
        ("triggerer", "triggerer_health_check_threshold"): 10,  # afterwards another triggerer takes over
        ("workers", "execution_api_timeout"): 30,  # a busy machine is no reason to fail
    }


def _signs_of_3(ask: Ask, job_type: str) -> set[object]:
    """Give the ids of the rows that components of this type have written when they began to work."""
    found = ask(f"/jobs?job_type={job_type}&limit=100")["jobs"]
    return {job["id"] for job in found if job.get("latest_heartbeat")}


def _work_of_3(title: str, above: str) -> Work | None:
    if task := _TASK_OF_3.match(title):
        return Work(TASK, task[1])
    if worker := _WORKER_OF_3.match(title):
        # Between its fork and its start a task still has the title of the worker above it.
        role = TASK if above == title else WORKER
        return Work(role, worker[2], idle_without_child=role == WORKER and bool(worker[1]))
    return None


_AIRFLOW_3 = Release(
    components=(
        Component("api-server", ("api-server",)),
        # --skip-serve-logs: they would listen on all interfaces otherwise
        Component("scheduler", ("scheduler", "--skip-serve-logs"), "SchedulerJob"),
        Component("dag-processor", ("dag-processor",), "DagProcessorJob"),
        Component("triggerer", ("triggerer", "--skip-serve-logs"), "TriggererJob"),
    ),
    api="/api/v2",
    health="/api/v2/monitor/health",
    healthy=("metadatabase", "scheduler", "dag_processor", "triggerer"),
    token="/auth/token",  # noqa: S106 - a path
    settings=_settings_of_3,
    executor_with_sqlite="LocalExecutor",
    # Not the API server: it writes (its audit log, for one) in its event loop, which the others need to
    # commit. Whatever it waits then is lost for everybody, and its clients try again after an error.
    patient=frozenset({"scheduler"}),
    files={},
    undated_runs=True,
    mark={},
    source="dag_id",
    signs=_signs_of_3,
    work=_work_of_3,
)


# ----- Airflow 2: webserver, scheduler (which reads the DAG files itself) and triggerer; REST API v1

_COMMAND_OF_2 = re.compile(r"^airflow (?:worker -- LocalExecutor|task supervisor): (\[.*\])$")


def _settings_of_2(port: int) -> Settings:
    return {
        # A worker that is killed is not replaced until the scheduler restarts. Not 0 (a process for each
        # task): those are forked in the middle of the scheduler's transactions and close its connection.
        ("core", "parallelism"): 16,
        ("core", "min_serialized_dag_fetch_interval"): 1,
        ("core", "min_serialized_dag_update_interval"): 1,
        ("scheduler", "dag_dir_list_interval"): 3,
        ("scheduler", "job_heartbeat_sec"): 2,
        ("scheduler", "min_file_process_interval"): 60,  # a changed file is parsed at once all the same
        ("scheduler", "scheduler_zombie_task_threshold"): 20,
        ("scheduler", "trigger_timeout_check_interval"): 3,
        ("scheduler", "zombie_detection_interval"): 3,
        ("triggerer", "job_heartbeat_sec"): 2,
        ("triggerer", "triggerer_health_check_threshold"): 10,  # afterwards another triggerer takes over
        ("webserver", "base_url"): f"http://127.0.0.1:{port}",
        ("webserver", "secret_key"): secrets.token_urlsafe(48),
        ("webserver", "warn_deployment_exposure"): False,
        ("webserver", "web_server_host"): "127.0.0.1",
        ("webserver", "web_server_port"): port,
        ("webserver", "workers"): 1,
    }


def _signs_of_2(ask: Ask, part: str) -> set[object]:
    """Give the latest heartbeat of all components of this type: v1 does not distinguish them."""
    return {ask("/health")[part].get(f"latest_{part}_heartbeat")} - {None}


def _work_of_2(title: str, above: str) -> Work | None:
    # The runner's own title lacks the map index.
    runner = title.startswith("airflow task runner: ")
    name = _named_in(above if runner else title)
    if name is None:
        return None
    # Between its fork and its start a process still has the title of the one above it.
    task = runner or (title == above and title.startswith("airflow task supervisor: "))
    return Work(TASK if task else WORKER, name)


def _named_in(title: str) -> str | None:
    """Name the task instance whose ``airflow tasks run`` command stands in a title."""
    found = _COMMAND_OF_2.match(title)
    if not found:
        return None
    try:
        command = [str(part) for part in ast.literal_eval(found[1])]
        dag_id, task_id, run_id = command[command.index("run") + 1 :][:3]
        index = int(command[command.index("--map-index") + 1]) if "--map-index" in command else -1
    except (SyntaxError, ValueError, IndexError):  # a title may be cut short
        return None
    return name_of(dag_id, run_id, task_id, index)


_AIRFLOW_2 = Release(
    components=(
        Component("webserver", ("webserver",)),
        Component("scheduler", ("scheduler", "--skip-serve-logs"), "scheduler"),
        Component("triggerer", ("triggerer", "--skip-serve-logs"), "triggerer"),
    ),
    api="/api/v1",
    health="/api/v1/health",
    healthy=("metadatabase", "scheduler", "triggerer"),
    token=None,
    settings=_settings_of_2,
    executor_with_sqlite="SequentialExecutor",  # every other one is refused
    patient=frozenset({"webserver", "scheduler", "triggerer"}),
    files={"webserver_config.py": "AUTH_ROLE_PUBLIC = 'Admin'\n"},  # as Airflow 3's "all admins"
    undated_runs=False,
    mark={"dry_run": False},
    source="file_token",
    signs=_signs_of_2,
    work=_work_of_2,
)


def release(version: str) -> Release:
    """Choose how to start the Airflow of that version."""
    return _AIRFLOW_2 if version.startswith("2.") else _AIRFLOW_3
