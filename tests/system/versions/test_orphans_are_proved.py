"""What a sweep must not cancel, because a real Airflow does not prove that it may.

XComs in object storage, a connection to another Airflow, and an account that may not read every DAG.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from command_line import Ran, run

from airflow_resilient.compat import airflow_version
from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_resilient.testing import FakeAws
    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

DAGS = Path(__file__).parent.parent / "dags" / "every_version"
CLUSTER = "orphans"
DAG_OF = {
    "proved_deleted": "orphans_ecs",
    "proved_marked": "orphans_ecs",
    "proved_live": "orphans_ecs",
    "proved_left": "orphans_ecs_left",
}
ALL = set(DAG_OF)
USER, PASSWORD = "half", "half-of-the-dags"
FAB_ROLE = f"""
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

READS = ["DAG:orphans_ecs_left", "DAG Runs", "Task Instances", "XComs", "Pools", "Website"]
with get_application_builder() as appbuilder:
    manager = appbuilder.sm
    role = manager.add_role("Half") or manager.find_role("Half")
    for name in READS:
        manager.add_permission_to_role(role, manager.create_permission("can_read", name))
    assert manager.add_user({USER!r}, "h", "h", "h@example.com", role, password={PASSWORD!r})
"""
TEAMS = """
from airflow.models.dagbundle import DagBundleModel
from airflow.models.team import Team, dag_bundle_team_association_table
from airflow.utils.session import create_session
from sqlalchemy import insert, select

with create_session() as session:
    session.add_all([Team(name="others"), Team(name="mine")])
    session.flush()
    for name in session.scalars(select(DagBundleModel.name)).all():
        row = {"dag_bundle_name": name, "team_name": "others"}
        session.execute(insert(dag_bundle_team_association_table).values(**row))
"""


@dataclass
class Story:
    """Everything that happened, in order; the tests only look at it."""

    aws: FakeAws
    airflow: LocalAirflow
    runs: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    def start(self, name: str) -> None:
        self.aws.make_task_definition(name)
        self.aws.ecs.plan(name, seconds=None)
        self.runs[name] = self.airflow.trigger(DAG_OF[name], conf={"job": name})

    def until(self, name: str, state: str) -> None:
        key = (DAG_OF[name], self.runs[name], "job")

        def there() -> bool:
            found = self.airflow.task_instance(*key)
            # Until a triggerer has taken it, a new one would take it, too, although the old one is killed.
            return found.state == state and (state != "deferred" or found.in_a_triggerer)

        self.airflow.wait_until(
            there,
            what=f"{name} is {state}",
            tell=lambda: self.airflow.task_log(*key),
        )

    def jobs(self) -> dict[str, Any]:
        """The ECS tasks of this story: name to task."""
        found = {}
        for task in self.aws.ecs.tasks():
            name = task.task_definition.rpartition("/")[2].rpartition(":")[0]
            if name in DAG_OF:
                found[name] = task
        return found

    def live(self) -> set[str]:
        return {name for name, task in self.jobs().items() if task.live}

    def verdicts(self, findings: list[dict[str, Any]]) -> dict[str, str]:
        names = {task.arn: name for name, task in self.jobs().items()}
        return {names[row["job"]]: row["verdict"] for row in findings if row["job"] in names}

    def orphans(self, *arguments: str, **environment: str) -> Ran:
        command = ["orphans", "--grace", "0", "--json", "--ecs-cluster", CLUSTER, *arguments]
        return run(self.airflow, *command, **environment)

    def sweep(self, **params: Any) -> tuple[str, str]:
        """Run the maintenance DAG: how its task ended, and its log."""
        run_id = self.airflow.trigger("sweep_one_cluster", conf=params)
        key = ("sweep_one_cluster", run_id, "sweep")
        self.airflow.wait_until(
            lambda: self.airflow.task_instance(*key).state in ("success", "failed"),
            what="the sweep has ended",
        )
        return self.airflow.task_instance(*key).state, self.airflow.task_log(*key)

    def xcom(self, name: str, key: str) -> str:
        path = f"/dags/{DAG_OF[name]}/dagRuns/{quote(self.runs[name], safe='')}/taskInstances/job/xcomEntries"
        return str(self.airflow.request("GET", f"{path}/{key}")["value"])


def script(airflow: LocalAirflow, text: str) -> None:
    """Run Python with the configuration of an Airflow."""
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=airflow.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def where_an_account_sees_less(airflow: LocalAirflow, home: Path) -> Iterator[str]:
    """The URL at which the account `USER` may not read every DAG; from 3.2 on that of another API server."""
    if airflow_version() < (3, 0):
        script(airflow, FAB_ROLE)
        yield airflow.url
        return
    script(airflow, TEAMS)
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({USER: PASSWORD}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "MULTI_TEAM": "True",
        "SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "SIMPLE_AUTH_MANAGER_USERS": f"{USER}:viewer:mine",
        "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
    environment = {**airflow.environment, "AIRFLOW__API__PORT": str(port)}
    environment |= {f"AIRFLOW__CORE__{key}": value for key, value in settings.items()}
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "airflow", "api-server"]
    with (home / "api-server.log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True
        )
        try:
            airflow.wait_until(lambda: answers(url), what="another API server answers")
            yield url
        finally:
            server.terminate()
            server.wait(HANG)


def answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/api/v2/version", timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def airflow(make_airflow, tmp_path_factory) -> Iterator[LocalAirflow]:
    """An Airflow that keeps XComs in object storage and whose new triggerer takes over nothing."""
    config = {
        ("triggerer", "triggerer_health_check_threshold"): int(6 * HANG),
        ("core", "xcom_backend"): "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        ("common_io", "xcom_objectstorage_path"): f"file://{tmp_path_factory.mktemp('xcoms')}",
        ("common_io", "xcom_objectstorage_threshold"): 0,
    }
    if airflow_version() < (3, 0):
        backends = "airflow.api.auth.backend.basic_auth,airflow.api.auth.backend.session"
        config["api", "auth_backends"] = backends
    with make_airflow(DAGS, config=config) as running:
        yield running


@pytest.fixture(scope="module")
def story(aws, airflow, make_airflow, tmp_path_factory) -> Iterator[Story]:
    """Make jobs, sweep where nothing may be cancelled, and at last where it may."""
    story = Story(aws, airflow)
    seen = story.seen
    aws.make_ecs_cluster(CLUSTER)
    for name in DAG_OF:
        story.start(name)
    for name in ("proved_deleted", "proved_marked", "proved_live"):
        story.until(name, "deferred")
    story.until("proved_left", "success")
    seen["xcoms"] = {
        "proved_live": story.xcom("proved_live", "remote_job"),
        "proved_left": story.xcom("proved_left", "airflow_resilient_left_1"),
    }
    airflow.kill("triggerer", signal.SIGKILL)
    airflow.mark(DAG_OF["proved_marked"], story.runs["proved_marked"], "job", "failed")
    run = f"/dags/{DAG_OF['proved_deleted']}/dagRuns/{quote(story.runs['proved_deleted'], safe='')}"
    airflow.mark_run(DAG_OF["proved_deleted"], story.runs["proved_deleted"], "failed")
    airflow.request("DELETE", run)
    airflow.start("triggerer")
    seen["made"] = story.live()

    with make_airflow(DAGS) as other:
        for name, url in (("this_airflow", airflow.url), ("another_airflow", other.url)):
            connection = {"connection_id": name, "conn_type": "http", "host": url}
            airflow.request("POST", "/connections", connection, accept=(409,))
        elsewhere = ("--cancel", "--airflow-url", other.url, "--namespace", airflow.url)
        seen["another"] = story.orphans(*elsewhere)
        seen["another, by the maintenance DAG"] = story.sweep(airflow="another_airflow", cancel=True)
        seen["after another"] = story.live()

    if airflow_version() < (3, 0) or airflow_version() >= (3, 2):
        with where_an_account_sees_less(airflow, tmp_path_factory.mktemp("less")) as url:
            login = {"AIRFLOW_API_USER": USER, "AIRFLOW_API_PASSWORD": PASSWORD}
            arguments = ("--airflow-url", url, "--namespace", airflow.url)
            seen["half"] = story.orphans("--cancel", *arguments, **login)
            seen["half, sworn"] = story.orphans("--cancel", "--same-airflow", *arguments, **login)
            seen["after half"] = story.live()

    seen["dry"] = story.orphans()
    seen["wet"] = story.orphans("--cancel", "--wait", f"{HANG:.0f}")
    seen["after wet"] = story.live()
    yield story
    for task in story.jobs().values():
        if task.live:
            aws.ecs.finish(task.arn)


def test_the_api_shows_where_xcoms_are_and_not_what_they_are(story):
    assert story.seen["made"] == ALL
    for value in story.seen["xcoms"].values():
        assert "file://" in value
        assert "arn:" not in value


def test_another_airflow_cancels_nothing_of_ours(story):
    ran = story.seen["another"]
    assert ran.code == 2, ran
    findings = ran.json["findings"]
    assert story.verdicts(findings) == dict.fromkeys(ALL, "unknown"), ran
    assert {row["reason"].partition(",")[0] for row in findings if row["scope"].endswith(CLUSTER)} == {
        "the Airflow that was asked knows none of the jobs of this namespace"
    }


def test_a_maintenance_dag_with_a_connection_to_another_airflow_cancels_nothing(story):
    state, log = story.seen["another, by the maintenance DAG"]
    assert state == "failed", log
    assert "it is another Airflow. Correct the connection" in log
    assert story.seen["after another"] == ALL


@pytest.mark.skipif(
    (3, 0) <= airflow_version() < (3, 2), reason="every account of the simple auth manager may read every DAG"
)
@pytest.mark.parametrize("which", ["half", "half, sworn"])
def test_an_account_that_may_not_read_every_dag_makes_no_job_one_of_a_deleted_run(story, which):
    ran = story.seen[which]
    assert ran.code == 2, ran
    verdicts = story.verdicts(ran.json["findings"])
    assert verdicts.keys() == ALL
    hidden = ALL - ({"proved_left"} if airflow_version() < (3, 0) else set())
    assert {verdicts[name] for name in hidden} == {"unknown"}, ran
    assert story.seen["after half"] == ALL


def test_with_xcoms_in_object_storage_what_was_left_is_told_from_orphans(story):
    dry = story.seen["dry"]
    assert dry.code == 1, dry
    assert story.verdicts(dry.json["findings"]) == {
        "proved_deleted": "deleted",
        "proved_marked": "ended",
        "proved_live": "wanted",
        "proved_left": "left_running",
    }


def test_with_proofs_orphans_are_cancelled_and_nothing_else(story):
    wet = story.seen["wet"]
    assert wet.code == 0, wet
    assert story.seen["after wet"] == {"proved_live", "proved_left"}
