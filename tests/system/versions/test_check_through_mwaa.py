"""A real Airflow behind a server that speaks Amazon MWAA's API: what is seen through AWS is what is there."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from command_line import run
from fake_mwaa import FakeMwaa, serving

from airflow_resilient.compat import airflow_version
from airflow_resilient.operations.airflow_api import AirflowApi
from airflow_resilient.operations.snapshot import look
from airflow_resilient.operations.task_instances import UNFINISHED, AirflowApiError, Instance
from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_resilient.operations.snapshot import Snapshot
    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

DAGS = Path(__file__).parent.parent / "dags_watched"
NOT_THE_SAME = {"url", "taken", "requests", "seconds", "clock_ahead", "login_hint"}
RUNS: dict[str, str] = {}
BEATS = {"overall", "peers"}  # go on between two looks


def passed_on(client: httpx.Client) -> Any:
    """Send requests to the Airflow, with a login, as Amazon MWAA does."""
    if airflow_version() >= (3, 0):
        token = client.get("/auth/token").json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"

    def send(method: str, path: str, query: list[tuple[str, str]], body: bytes) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} if body else {}
        answer = client.request(method, quote(path, safe="/~"), params=query, content=body, headers=headers)
        return answer.status_code, answer.json()

    return send


@pytest.fixture(scope="module")
def airflow(make_airflow, tmp_path_factory) -> Iterator[LocalAirflow]:
    dags, gates = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("gates")
    for path in DAGS.glob("*.py"):
        (dags / path.name).write_text(path.read_text())
    with make_airflow(dags, environment={"WATCHED_GATES": str(gates)}) as running:
        running.wait_for_dag("without_pool")
        for dag_id, task_id, state in (
            ("without_pool", "work", "scheduled"),
            ("in_a_full_pool", "first", "running"),
            ("in_a_full_pool", "second", "scheduled"),
            ("deferred", "wait", "deferred"),
        ):
            run_id = RUNS[dag_id] = RUNS.get(dag_id) or running.trigger(dag_id)
            running.wait_until(
                lambda: running.task_instance(dag_id, run_id, task_id).state == state,  # noqa: B023 - at once
                what=f"{dag_id}.{task_id} is {state}",
            )
        yield running


@pytest.fixture
def mwaa(airflow, monkeypatch) -> Iterator[FakeMwaa]:
    major, minor = airflow_version()[:2]
    with (
        httpx.Client(base_url=airflow.url, timeout=HANG) as client,
        serving(FakeMwaa(passed_on(client), version=f"{major}.{minor}.0")) as served,
    ):
        for name, value in environment(served).items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.fixture
def both(airflow, mwaa) -> Iterator[tuple[AirflowApi, AirflowApi]]:
    """The same Airflow over HTTP and through AWS."""
    with (
        contextlib.closing(AirflowApi(airflow.url)) as over_http,
        contextlib.closing(AirflowApi("mwaa://prod")) as through_aws,
    ):
        yield over_http, through_aws


def environment(mwaa: FakeMwaa) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_MWAA": mwaa.url,
    }


def steady(seen: Snapshot) -> dict[str, Any]:
    """The parts of a look, without what each loop of a scheduler or a DAG processor changes."""
    parts = {
        field.name: getattr(seen, field.name) for field in fields(seen) if field.name not in NOT_THE_SAME
    }
    for name in BEATS:
        parts[name] = parts[name] and sorted((each.kind, each.hostname) for each in parts[name])
    parts["runs"] = {replace(run, decided=None) for run in seen.runs or ()}
    parts["dags"] = {each.dag_id: replace(each, parsed=None) for each in seen.dags or ()}
    for name in ("waiting", "running", "deferred"):
        parts[name] = set(parts[name])
    return parts


def test_a_look_through_aws_sees_the_same_airflow(both):
    """What two looks over HTTP agree in, one through AWS between them has seen, too."""
    over_http, through_aws = both
    left, until = set(steady(look(over_http))), time.monotonic() + HANG
    while left and time.monotonic() < until:
        before, here, after = (look(api, deferred_for=0.0) for api in (over_http, through_aws, over_http))
        assert not here.gaps
        same = {name for name in left if steady(before)[name] == steady(after)[name]}
        assert {name: steady(here)[name] for name in same} == {name: steady(before)[name] for name in same}
        left -= same
    assert not left
    assert "in_a_full_pool" in {each.dag_id for each in here.waiting}
    assert "deferred" in {each.dag_id for each in here.deferred}


def pools_found(airflow: LocalAirflow, mwaa: FakeMwaa, url: str, memory: Path) -> dict[str, str]:
    """What the command finds wrong with pools: subject and next step.

    Airflow 2.11 does not say since when a task instance is scheduled, so that needs two looks and a memory.
    """
    found: dict[str, str] = {}

    def look_again() -> bool:
        options = ("--airflow-url", url, "--memory", str(memory), "--json", "--limit", "waiting=1s")
        rows = run(airflow, "check", *options, **environment(mwaa)).json["findings"]
        found.update({row["subject"]: row["next_step"] for row in rows if "/pool-" in row["key"]})
        return "one_slot" in found

    airflow.wait_until(look_again, what=f"a full pool is found at {url}")
    return found


def test_the_command_finds_through_aws_what_it_finds_over_http(airflow, mwaa, tmp_path):
    there = pools_found(airflow, mwaa, airflow.url, tmp_path / "there")
    here = pools_found(airflow, mwaa, "mwaa://prod", tmp_path / "here")
    assert set(here) == set(there)
    print(run(airflow, "check", "--airflow-url", "mwaa://prod", "--limit", "waiting=1s", **environment(mwaa)))


def test_the_sweep_reads_the_same_task_instances_through_aws(both):
    over_http, through_aws = both
    here = {str(each): each for each in through_aws.instances(states=UNFINISHED)}
    assert {each.dag_id for each in here.values()} >= {"in_a_full_pool", "deferred"}
    some = next(each for each in here.values() if each.task_id == "second")
    assert through_aws.current(some) == over_http.current(some)
    assert through_aws.xcoms(some) == over_http.xcoms(some) == {}
    assert through_aws.run_start(some) == over_http.run_start(some)
    assert through_aws.retries(some) == over_http.retries(some)
    assert through_aws.deferred_slots() == over_http.deferred_slots()
    assert through_aws.current(Instance(some.dag_id, "no-such-run", "second")) is None
    with pytest.raises(AirflowApiError, match="or Amazon MWAA does not pass on"):
        through_aws.current(Instance(some.dag_id, "no such run", "second"))
    assert "--sees-every-dag" in through_aws.why_not_every_dag()


def test_a_next_step_works_through_aws(airflow, mwaa, tmp_path):
    """The AWS CLI is not installed here; boto3 takes the same parameters."""
    import boto3
    from botocore.config import Config

    steps = pools_found(airflow, mwaa, "mwaa://prod", tmp_path / "memory")
    words = shlex.split(steps["made_later"])
    assert words[:3] == ["aws", "mwaa", "invoke-rest-api"]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    with contextlib.closing(boto3.client("mwaa", config=Config(inject_host_prefix=False))) as client:
        client.invoke_rest_api(
            Name=given["--name"],
            Method=given["--method"],
            Path=given["--path"],
            Body=json.loads(given["--body"]),
        )
    airflow.wait_for("without_pool", RUNS["without_pool"], until=["success"])
