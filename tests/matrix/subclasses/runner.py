"""Run each DAG with the provider's classes and with ours, and observe what comes of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import servers

import airflow_resilient
from airflow_resilient.services.emr_steps.marker import read_marker
from airflow_resilient.testing import FakeAws
from airflow_resilient.testing.airflow.local_airflow import LocalAirflow
from airflow_resilient.testing.docker.local_docker import LocalDocker

from .cases import CLUSTER, HOOKS, IMPLEMENTATIONS, OURS, RECIPE, ROWS, Row, Seen

ENDED = ("success", "failed")
SECONDS = 3  # that an ECS task works
DEFINITIONS = ("export", "load-good", "load-bad", "region", "nightly", "report", "never")
INTERNAL = re.compile(r"remote_job|airflow_resilient|_link_|emr_|ecs_task(_logs)?$")
"""Keys of XComs of this library itself, and of links of either."""
OWN_LINKS = {"Wiki"}
LINKS = """
from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink


class WikiLink(BaseOperatorLink):
    name = "Wiki"

    def get_link(self, operator, *, ti_key):
        return f"https://wiki.example.com/{ti_key.task_id}"


class TeamLinks(AirflowPlugin):
    name = "team_links"
    operator_extra_links = [WikiLink()]
"""


@dataclass
class Harness:
    """A real Airflow, a fake AWS, and a real Docker engine."""

    airflow: LocalAirflow
    aws: FakeAws
    engine: LocalDocker
    clusters: Mapping[str, str]
    failed: set[str] = field(default_factory=set)

    def _note(self, job_id: str, *, failed: bool) -> None:
        if failed:
            self.failed.add(job_id)

    # --- what came of a DAG

    def seen(self, row: Row, implementation: str) -> Seen:
        """Wait until every run of the DAG has ended, and say what came of it."""
        dag_id = f"{row.id}_{implementation}"
        file = "move_a_subclass_hooks" if implementation == HOOKS else dag_id
        if error := self.error_of_file(file):
            return Seen(error=error)
        if missing := [each for each in row.more_dags if not self._is_known(f"{each}_{implementation}")]:
            return Seen(error=f"no DAG {missing}")
        runs = self.airflow.wait_until(lambda: self._ended_runs(dag_id), what=f"the runs of {dag_id} end")
        instances = [self.airflow.task_instances(dag_id, run) for run in runs]
        jobs = self._jobs(dag_id, implementation)
        names = {id_: f"<{request}>" for id_, request, _ in jobs}
        return Seen(
            states=tuple(
                {"run": self.airflow.run_state(dag_id, run), **{_name(each): each.state for each in some}}
                for run, some in zip(runs, instances, strict=True)
            ),
            tries=tuple({_name(each): self._tries(each) for each in some} for some in instances),
            xcoms=tuple(
                {_name(each): self._xcoms(dag_id, run, each, names) for each in some}
                for run, some in zip(runs, instances, strict=True)
            ),
            requests=tuple(sorted(request for _, request, _ in jobs)),
            failed=tuple(sorted(request for id_, request, _ in jobs if id_ in self.failed)),
            left=sum(live for _, _, live in jobs),
            links=self._links(dag_id, runs[-1], instances[-1]),
            by_scheduler=sum(len(self.airflow.events("state mismatch", dag_id, run)) for run in runs),
            where=self._where(dag_id, [each for some in instances for each in some]),
        )

    def error_of_file(self, file: str) -> str:
        """The error of a DAG file, empty if there is none, as soon as the file has been read."""

        def read() -> str | bool:
            for error in self.airflow.request("GET", "/importErrors?limit=100")["import_errors"]:
                if f"{file}.py" in error["filename"]:
                    return str(error["stack_trace"])
            found = self.airflow.request("GET", "/dags?limit=100&exclude_stale=true")["dags"]
            return any(f"{file}.py" in each["fileloc"] for each in found)

        found = self.airflow.wait_until(read, what=f"{file}.py has been read")
        return found if isinstance(found, str) else ""

    def _is_known(self, dag_id: str) -> bool:
        return bool(self.airflow.request("GET", f"/dags/{dag_id}", accept=(404,)).get("dag_id"))

    def _ended_runs(self, dag_id: str) -> list[str]:
        """The ids of its runs in their order, if there are some and all have ended."""
        path = f"/dags/{dag_id}/dagRuns?order_by=run_after&limit=50"
        runs = self.airflow.request("GET", path)["dag_runs"]
        if not runs or any(run["state"] not in ENDED for run in runs):
            return []
        scheduled = dag_id.startswith("latest_only")
        return [] if scheduled and not self._caught_up(dag_id) else [run["dag_run_id"] for run in runs]

    def _caught_up(self, dag_id: str) -> bool:
        """Whether no run is due any more."""
        following = self.airflow.request("GET", f"/dags/{dag_id}")["next_dagrun_run_after"]
        return (
            bool(following)
            and following
            > self.airflow.request("GET", "/monitor/health")["scheduler"]["latest_scheduler_heartbeat"]
        )

    def _tries(self, instance: Any) -> int:
        """Its tries, without those that the scheduler has failed by itself."""
        lines = self.airflow.events("state mismatch", instance.dag_id, instance.run_id)
        mine = (instance.task_id, max(-1, instance.map_index))
        failed = [(line["task_id"], -1 if line["map_index"] is None else line["map_index"]) for line in lines]
        return int(instance.try_number) - failed.count(mine)

    def _xcoms(self, dag_id: str, run_id: str, task: Any, names: Mapping[str, str]) -> dict[str, Any]:
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task.task_id}/xcomEntries"
        found = self.airflow.request("GET", f"{path}?map_index={task.map_index}")["xcom_entries"]
        keys = sorted({each["key"] for each in found})
        values = {
            key: self.airflow.xcom(dag_id, run_id, task.task_id, key, task.map_index)
            for key in keys
            if not INTERNAL.match(key)
        }
        text = json.dumps(values)
        for id_, name in names.items():
            text = text.replace(id_, name)
        for implementation in IMPLEMENTATIONS:
            text = text.replace(self.clusters[implementation], CLUSTER)
        shown: dict[str, Any] = json.loads(text)
        return shown

    def _links(self, dag_id: str, run_id: str, tasks: Sequence[Any]) -> tuple[str, ...]:
        found = set()
        for task in tasks:
            path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task.task_id}/links"
            path += f"?map_index={task.map_index}"
            found |= set(self.airflow.request("GET", path)["extra_links"])
        return tuple(sorted(found & OWN_LINKS))

    def _where(self, dag_id: str, instances: Sequence[Any]) -> str:
        """Where the tasks of ours wait, as their logs say."""
        logs = "".join(
            self.airflow.task_log(dag_id, each.run_id, each.task_id, number, each.map_index)
            for each in instances
            for number in range(1, each.try_number + 1)
        )
        if "waiting in the worker, which keeps its slot" in logs:
            return "in the worker"
        return "without a slot" if "Pausing task as DEFERRED" in logs else ""

    # --- jobs

    def _jobs(self, dag_id: str, implementation: str) -> list[tuple[str, str, bool]]:
        """Id, request and whether it lives, of each remote job of the DAG."""
        found: list[tuple[str, str, bool]] = []
        for task in self.aws.ecs.tasks(cluster=dag_id):
            request = " ".join([task.task_definition.rpartition("/")[2], *task.command])
            found.append((task.arn, request, task.live))
            self._note(task.arn, failed=not task.live and task.exit_code != 0)
        for step in self.aws.emr.steps(self.clusters[implementation]):
            marker = read_marker(step.name)
            name = step.name.partition(" [")[0] if marker else step.name
            if name in STEPS_OF.get(dag_id.removesuffix(f"_{implementation}"), ()):
                found.append((step.id, f"{name}: {' '.join(step.args)}", step.live))
                self._note(step.id, failed=step.state == "FAILED")
        with contextlib.closing(self.engine.client()) as client:
            for each in client.containers(all=True, filters={"label": f"dag={dag_id}"}):
                config = client.inspect_container(each["Id"])["Config"]
                extra = [text for text in config["Env"] or () if text.startswith("NVIDIA")]
                request = " ".join([config["Image"], *config["Cmd"], *extra])
                found.append((each["Id"], request, each["State"] == "running"))
                state = client.inspect_container(each["Id"])["State"]
                self._note(each["Id"], failed=state["ExitCode"] != 0)
        return found


def _name(task: Any) -> str:
    return str(task.task_id) if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"


STEPS_OF = {"insides": ("sort",), "own_response": ("join",), "late_values": ("sum",)}


@contextlib.contextmanager
def harness(say: Callable[[str], object], rows: Sequence[Row] = ROWS) -> Iterator[Harness]:
    """Start everything, and a run of each DAG with each implementation."""
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(LocalDocker())
        aws = stack.enter_context(FakeAws().serve())
        clusters = _make_account(aws)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="subclasses-")))
        dags, plugins = folder / "dags", folder / "plugins"
        for each in (dags, plugins):
            each.mkdir()
        (plugins / "team_links.py").write_text(LINKS)
        files = {
            (row, implementation): _filled_in(row, implementation, clusters[implementation])
            for row in rows
            for implementation in (each for each in row.implementations if each != HOOKS)
        }
        (dags / "move_a_subclass_hooks.py").write_text(
            _with_names(RECIPE.read_text(), HOOKS, clusters[HOOKS])
        )
        refused = [(row, OURS) for row in rows if row.refused]
        for (row, implementation), text in files.items():
            if (row, implementation) not in refused:
                (dags / f"{row.id}_{implementation}.py").write_text(text)
        database = None
        if servers.postgresql_programs() is not None or servers.required():
            database = stack.enter_context(servers.postgresql("subclasses"))("subclasses")
        package = str(Path(airflow_resilient.__file__).parent.parent)
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        airflow = stack.enter_context(
            LocalAirflow(
                dags,
                database_url=database,
                connections={"aws_default": json.loads(aws.airflow_connection())},
                config={
                    ("airflow_resilient", "namespace"): "subclasses",
                    ("core", "dagbag_import_timeout"): 120,
                    # Each try that the scheduler fails by itself is followed by another one.
                    ("core", "default_task_retries"): 8,
                    ("core", "default_task_retry_delay"): 1,
                    ("core", "parallelism"): 8,
                    ("core", "plugins_folder"): plugins,
                    ("dag_processor", "min_file_process_interval"): 3600,
                },
                environment={"PYTHONPATH": path, "ENGINE": engine.url, "DOCKER_HOST": engine.url},
                progress=say,
            )
        )
        made = Harness(airflow, aws, engine, clusters)
        for row in rows:
            for each in row.implementations:
                if row.id != "latest_only" and (row, each) not in refused:
                    airflow.trigger(f"{row.id}_{each}", "by-hand", {"day": "2026-03-02"})
        for row, implementation in refused:  # an Airflow with an import error starts nothing by hand here
            (dags / f"{row.id}_{implementation}.py").write_text(files[row, implementation])
        yield made


def _filled_in(row: Row, implementation: str, cluster: str) -> str:
    return _with_names(row.source(implementation), implementation, cluster)


def _with_names(source: str, implementation: str, cluster: str) -> str:
    """The file with DAG ids of its own, clusters that are there, and labels to count containers by."""
    parts = re.split(r"(?=^with DAG\()", source.replace(CLUSTER, cluster), flags=re.MULTILINE)
    parts[:2] = ["".join(parts[:2])]  # what stands before a DAG belongs to it
    return "".join(_with_name(part, implementation) for part in parts)


def _with_name(part: str, implementation: str) -> str:
    (found,) = re.findall(r'dag_id="(\w+)"', part)
    dag_id = f"{found}_{implementation}"
    named = part.replace(f'dag_id="{found}"', f'dag_id="{dag_id}"').replace('"etl"', f'"{dag_id}"')
    return named.replace('network_mode="none"', f'network_mode="none", labels={{"dag": "{dag_id}"}}')


def _make_account(aws: FakeAws) -> dict[str, str]:
    """What the DAGs name in AWS: an ECS cluster for each of them, an EMR cluster for each implementation."""
    for definition in DEFINITIONS:
        aws.make_task_definition(definition, ["main"])
        aws.ecs.plan(definition, seconds=SECONDS)
    for row in ROWS:
        for implementation in row.implementations:
            aws.make_ecs_cluster(f"{row.id}_{implementation}")
    for implementation in IMPLEMENTATIONS:
        lost = {"seconds": SECONDS, "stop_code": "SpotInterruption", "exit_code": 137}
        well = [{"stop_code": "EssentialContainerExited", "exit_code": 0}]
        aws.ecs.plan("export", cluster=f"own_request_{implementation}", then=well, **lost)
    aws.ecs.plan("load-bad", seconds=SECONDS, exit_code=4)
    aws.ecs.plan("never", stop_code="TaskFailedToStart", exit_code=None)
    aws.emr.plan(seconds=SECONDS)
    return {name: aws.make_emr_cluster(name, concurrency=10) for name in IMPLEMENTATIONS}


def play(made: Harness, rows: Sequence[Row] = ROWS) -> dict[str, dict[str, Seen]]:
    """What came of each row with each implementation."""
    return {row.id: {name: made.seen(row, name) for name in row.implementations} for row in rows}
