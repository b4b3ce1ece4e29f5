"""Airflow's REST API through Amazon MWAA: boto3 is real; AWS, and the Airflow behind it, are served here."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass, field

import pytest
from botocore import exceptions
from fake_mwaa import FakeMwaa, serving

from airflow_resilient import cli
from airflow_resilient.core.job import Claim
from airflow_resilient.core.retry import Runtime
from airflow_resilient.operations.airflow_api import AirflowApi, api_of_connection, iso, split_url
from airflow_resilient.operations.examine import examine
from airflow_resilient.operations.first_seen import FirstSeen
from airflow_resilient.operations.health import diagnose
from airflow_resilient.operations.limits import Limits
from airflow_resilient.operations.mwaa import (
    Environment,
    MwaaTransport,
    answer_to,
    path_of,
    query_of,
    read_url,
    step_there,
)
from airflow_resilient.operations.options import api_of, namespace_of
from airflow_resilient.operations.snapshot import Component, Dag, Run, Snapshot, Waiting, look
from airflow_resilient.operations.sweep import SweepTarget, sweep
from airflow_resilient.operations.task_instances import UNFINISHED, AirflowApiError, Instance
from airflow_resilient.operations.transport import Answer, NoAnswer
from airflow_resilient.operations.why_waiting import WaitingFacts, slots_command
from airflow_resilient.testing import InMemoryJobs

NOW = 1_793_622_600.0
FACTS = WaitingFacts(url="mwaa://prod?region=eu-west-1")
STATES = ["scheduled", "queued", "queued", "running", "deferred", "success", "up_for_retry"]
MISSING = {
    "/api/v2": {"detail": "it was not found"},
    "/api/v1": {"title": "not found", "type": "https://airflow.apache.org/#section/Errors/NotFound"},
}


def instance(number, state):
    return {
        "dag_id": "etl",
        "dag_run_id": "scheduled__2026-01-01T00:00:00+00:00",
        "task_id": f"task {number}",
        "map_index": -1,
        "try_number": 1,
        "max_tries": 1,
        "state": state,
        "pool": "default_pool",
        "pool_slots": 1,
        "queue": "default",
        "start_date": iso(NOW - 4000),
        "queued_when": iso(NOW - 5000),
        "scheduled_when": iso(NOW - 5000),
        "trigger": None,
    }


@dataclass
class Airflow:
    """A small Airflow: it filters and pages like both versions of the API, and has odd names."""

    version: str = "3.0.6"
    rows: list[dict] = field(default_factory=lambda: [instance(*each) for each in enumerate(STATES)])
    broken: dict[str, tuple[int, object]] = field(default_factory=dict)
    asked: list[tuple[str, str, list[tuple[str, str]]]] = field(default_factory=list)

    def __call__(self, method, path, query, body):
        self.asked.append((method, path, query))
        api = "/api/v1" if self.version.startswith("2.") else "/api/v2"
        if path == "/auth/token":
            return 201, {"access_token": "t"}
        if not path.startswith(api):
            return 404, {"detail": "Not Found"}
        below = path.removeprefix(api)
        if below in self.broken:
            return self.broken[below]
        health = {"metadatabase": {"status": "healthy"}, "scheduler": {}, "triggerer": {}}
        found = {"/version": {"version": self.version}, "/health": health, "/monitor/health": health}.get(
            below
        )
        if found is not None:
            return 200, found
        named = {
            f"/dags/etl/dagRuns/{row['dag_run_id']}/taskInstances/{row['task_id']}": row for row in self.rows
        }
        if below in named:
            return 200, named[below]
        states = [value for name, value in query if name == "state"]
        lists = {
            "/dags/~/dagRuns/~/taskInstances": ("task_instances", self.rows),
            "/dags/~/dagRuns": ("dag_runs", [{**run(each), "state": each} for each in ("queued", "running")]),
            **{f"/{name}": (field, []) for name, field in OTHERS.items()},
        }
        if below not in lists:
            return 404, MISSING[api]
        name, rows = lists[below]
        rows = [row for row in rows if not states or row["state"] in states]
        offset, limit = int(dict(query).get("offset", 0)), int(dict(query).get("limit", 100))
        return 200, {name: rows[offset : offset + limit], "total_entries": len(rows)}


OTHERS = {
    "dags": "dags",
    "jobs": "jobs",
    "pools": "pools",
    "importErrors": "import_errors",
    "eventLogs": "event_logs",
    "roles": "roles",
}


def run(name):
    return {
        "dag_id": "etl",
        "dag_run_id": name,
        "run_type": "manual",
        "run_after": iso(NOW - 600),
        "logical_date": iso(NOW - 600),
        "start_date": None,
        "last_scheduling_decision": None,
    }


@pytest.fixture
def mwaa(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-key-of-aws")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with serving(FakeMwaa(Airflow())) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MWAA", served.url)
        yield served


def runs(mwaa, version):
    mwaa.version = mwaa.airflow.version = version
    return mwaa


def api(url="mwaa://prod", **more):
    naps = Runtime(lambda: NOW, lambda _: None, lambda: 0.5)
    return AirflowApi(url, runtime=naps, **more)


VERSIONS = pytest.mark.parametrize("version", ["2.11.0", "3.0.6"])


# --- URLs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("mwaa://prod", Environment("prod")),
        ("mwaa://Prod-1_x/", Environment("Prod-1_x")),
        ("mwaa://prod?region=eu-west-1", Environment("prod", "eu-west-1")),
        ("mwaa://prod?region=eu-west-1&aws_conn_id=reader", Environment("prod", "eu-west-1", "reader")),
    ],
)
def test_a_url_names_an_environment(url, environment):
    assert read_url(url) == environment


@pytest.mark.parametrize(
    "url",
    [
        "mwaa://",
        "mwaa:prod",
        "mwaa://1prod",
        "mwaa://prod/dags",
        "mwaa://prod:443",
        "mwaa://prod?zone=eu-west-1",
        "mwaa://prod?region=",
        "mwaa://prod#x",
        "mwaa://me:hunter2@prod",
        "mwaa://" + "a" * 81,
    ],
)
def test_what_names_no_environment_is_refused_with_what_to_write(url):
    with pytest.raises(
        AirflowApiError, match=r"invalid Airflow URL .*write mwaa://NAME\?|mwaa://NAME"
    ) as caught:
        AirflowApi(url)
    assert "hunter2" not in str(caught.value)


def test_environments_of_two_regions_are_two_airflows(monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    urls = {AirflowApi("mwaa://prod", region_name=each).url for each in (None, "eu-west-1")}
    assert urls == {"mwaa://prod?region=us-east-1", "mwaa://prod?region=eu-west-1"}
    assert split_url("mwaa://prod?region=eu-west-1") == ("mwaa://prod?region=eu-west-1", None, "")


@pytest.mark.parametrize(
    "login",
    [
        {"token": "t0ken"},
        {"user": "me", "password": "t0ken"},
        {"password": "t0ken"},
        {"auth": ("me", "t0ken")},
    ],
)
def test_another_login_than_that_of_aws_is_refused(login):
    with pytest.raises(AirflowApiError, match=r"takes AWS's credentials alone: leave out") as caught:
        AirflowApi("mwaa://prod", **login)
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("region", "endpoint", "host"),
    [
        ("eu-west-1", None, "env.airflow.eu-west-1.amazonaws.com"),
        ("cn-north-1", None, "env.airflow.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", None, "env.airflow.us-gov-west-1.amazonaws.com"),
        (
            "eu-west-1",
            "https://vpce-1.airflow.env.eu-west-1.vpce.amazonaws.com",
            "vpce-1.airflow.env.eu-west-1.vpce.amazonaws.com",
        ),
    ],
)
def test_requests_go_to_the_host_of_environments_or_to_the_one_that_is_configured(
    mwaa, monkeypatch, region, endpoint, host
):
    monkeypatch.delenv("AWS_ENDPOINT_URL_MWAA")
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_MWAA", endpoint)
    client, seen = MwaaTransport(Environment("prod", region))._open(), []

    def stop(request, **_):
        seen.append(request.url)
        raise exceptions.EndpointConnectionError(endpoint_url=request.url)

    client.meta.events.register("before-send", stop)
    with pytest.raises(exceptions.EndpointConnectionError):
        client.invoke_rest_api(Name="prod", Path="/dags", Method="GET")
    assert seen == [f"https://{host}/restapi/prod"]


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/api/v2/dags", "/dags"),
        ("/api/v1/dags/~/dagRuns", "/dags/~/dagRuns"),
        ("/api/v2/dags/a%20b%2Fc%25/x%3A%2B%40", "/dags/a%20b%2Fc%25/x:+@"),
        ("/auth/token", None),
        ("/ui/config", None),
        ("/api/v3/dags", None),
    ],
)
def test_a_path_has_no_version_and_nothing_escaped_that_need_not_be(path, below):
    assert path_of(path) == below


def test_a_time_is_sent_without_anything_that_has_to_be_escaped():
    assert query_of([("updated_at_gte", iso(NOW)), ("x", "a+00:00")]) == {
        "updated_at_gte": "2026-11-02T12:30:00.000000Z",
        "x": "a+00:00",
    }


def test_a_key_of_a_query_has_one_value():
    with pytest.raises(AirflowApiError, match="one value for each of state"):
        query_of([("state", "queued"), ("state", "running")])


@VERSIONS
@pytest.mark.parametrize("passes_version", [True, False])
def test_the_version_is_that_of_airflow_or_of_the_environment(mwaa, version, passes_version):
    runs(mwaa, version).passes_version = passes_version
    with_two = api()
    assert with_two.is_v2 is version.startswith("3")
    assert with_two.first_version == version
    assert [operation for operation, _ in mwaa.asked] == ["InvokeRestApi", "GetEnvironment"][
        : 2 - passes_version
    ]
    assert with_two.requests == len(mwaa.asked)


def test_a_version_that_nobody_tells_is_no_version(mwaa):
    mwaa.passes_version, mwaa.denied = False, {"GetEnvironment"}
    with pytest.raises(AirflowApiError, match=r"\(AccessDenied.*\): allow airflow:GetEnvironment$"):
        api().is_v2  # noqa: B018 - it asks


@VERSIONS
@pytest.mark.parametrize("escapes", [True, False])
def test_a_task_instance_with_odd_characters_is_found_or_unknown_and_never_missing(mwaa, version, escapes):
    runs(mwaa, version).escapes = escapes
    mwaa.airflow.rows[0]["task_id"] = "plain"
    wanted = Instance("etl", "scheduled__2026-01-01T00:00:00+00:00", "plain")
    assert api().current(wanted).state == "scheduled"
    assert api().current(Instance("etl", "run", "nothing")) is None
    odd = Instance("etl", "scheduled__2026-01-01T00:00:00+00:00", "task 1")
    unknown = [Instance("etl", "run", "no such task"), *([odd] if escapes else [])]
    for each in unknown:
        with pytest.raises(AirflowApiError, match="or Amazon MWAA does not pass on"):
            api().current(each)
    assert escapes or api().current(odd).state == "queued"


def test_a_path_that_aws_refuses_is_unknown(mwaa):
    mwaa.max_path = 64
    with pytest.raises(AirflowApiError, match=r"AWS allows 64 characters in a path, and /dags.* has 90"):
        api().current(Instance("etl", "scheduled__2026-01-01T00:00:00+00:00", "a_long_name_of_a_task"))


@VERSIONS
def test_states_are_asked_for_one_by_one_and_each_row_comes(mwaa, version):
    runs(mwaa, version)
    found = [each.state for each in api().instances(states=UNFINISHED)]
    assert sorted(found) == sorted(state for state in STATES if state != "success")
    sent = [request.get("QueryParameters", {}) for _, request in mwaa.asked]
    assert {each["state"] for each in sent if "state" in each} == set(UNFINISHED)


@VERSIONS
def test_a_look_through_aws_sees_what_a_look_over_http_sees(mwaa, version):
    runs(mwaa, version)
    here, there = (look(each, now=lambda: NOW) for each in (api(), api(mwaa.url, token="t")))
    assert not here.gaps
    assert len(here.waiting) == 3
    for part in (
        "version",
        "waiting",
        "running",
        "deferred",
        "runs",
        "dags",
        "pools",
        "overall",
        "peers",
        "requeues",
    ):
        assert getattr(here, part) == getattr(there, part), part


def test_no_path_of_a_look_is_longer_than_aws_allows(mwaa):
    mwaa.max_path = 64
    seen = look(api(), now=lambda: NOW)
    assert not seen.gaps
    assert seen.requests == len(mwaa.asked) <= 12 + 4


def test_a_body_is_passed_on(mwaa):
    sent = []
    mwaa.airflow = lambda method, path, query, body: (200, sent.append((method, path, body)) or {"a": 1})
    mwaa.passes_version = False
    assert api().read("/dags/~/dagRuns/list", body={"dag_ids": ["etl"], "page_limit": 3}) == {"a": 1}
    assert sent == [("POST", "/api/v2/dags/~/dagRuns/list", b'{"dag_ids": ["etl"], "page_limit": 3}')]


def test_a_query_in_a_path_is_sent_as_one(mwaa):
    api().read("/pools?limit=7", [("offset", "0")])
    assert mwaa.asked[-1][1]["QueryParameters"] == {"limit": "7", "offset": "0"}


def test_more_rows_than_fit_on_a_page_all_come(mwaa):
    mwaa.airflow.rows = [instance(each, "queued" if each % 2 else "scheduled") for each in range(450)]
    assert len(look(api(), now=lambda: NOW).waiting) == 450


def test_the_clock_is_that_of_aws(mwaa):
    seen = AirflowApi("mwaa://prod")
    seen.version()
    assert abs(seen.clock_ahead) < 60


# --- errors ---------------------------------------------------------------------------------------

CLIENT, SERVER = "RestApiClientException", "RestApiServerException"
GATEWAY = {"RestApiStatusCode": 502, "RestApiResponse": None}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((400, "ThrottlingException", {"message": "Rate exceeded"}), id="throttled"),
        pytest.param((429, "TooManyRequestsException", {}), id="throttled-by-its-status"),
        pytest.param((500, "InternalServerException", {}), id="aws-has-an-error"),
        pytest.param((503, "ServiceUnavailable", {}), id="aws-is-away"),
        pytest.param((400, SERVER, {"RestApiStatusCode": 503, "RestApiResponse": {}}), id="airflow-is-away"),
        pytest.param((400, SERVER, {"message": "timed out"}), id="after-ten-seconds"),
        pytest.param(
            (400, CLIENT, {"RestApiStatusCode": 429, "RestApiResponse": {}}), id="airflow-throttles"
        ),
        pytest.param(None, id="the-connection-breaks"),
    ],
)
def test_what_may_pass_is_asked_again_and_then_no_answer(mwaa, fault):
    mwaa.faults = [fault]
    assert api().version() == "3.0.6"
    assert len(mwaa.asked) == 3  # a fault, the version, and the version again for the caller
    mwaa.faults = [fault] * 9
    again = api(attempts=2)
    with pytest.raises(AirflowApiError, match=r"mwaa://prod\?region=eu-west-1 does not respond") as caught:
        again.version()
    assert caught.value.status is None
    assert again.requests == 2 == len(mwaa.asked) - 3  # botocore repeats nothing
    assert not look(again, now=lambda: NOW).login_refused


DENIED = {"Message": "User: arn:aws:iam::1:user/me is not authorized to perform: airflow:InvokeRestApi"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param((403, "AccessDeniedException", DENIED), id="denied"),
        pytest.param((403, "ExpiredTokenException", {"message": "x"}), id="expired"),
        pytest.param((403, "UnrecognizedClientException", {"message": "x"}), id="no-such-key"),
        pytest.param((403, "InvalidSignatureException", {"message": "x"}), id="a-wrong-secret"),
        pytest.param((400, CLIENT, {"RestApiStatusCode": 401, "RestApiResponse": {}}), id="airflow-refuses"),
    ],
)
def test_a_refused_login_ends_the_look_and_says_what_to_allow(mwaa, fault):
    mwaa.faults = [fault] * 9
    made = examine(api(), Limits(), None, now=lambda: NOW)
    seen, findings = made.snapshot, made.findings
    assert seen.login_refused
    assert seen.requests == 1
    assert [each.kind.value for each in findings] == ["login-refused"]
    assert (
        "airflow:InvokeRestApi on arn:aws:airflow:eu-west-1:ACCOUNT:role/prod/ROLE" in findings[0].next_step
    )
    assert "AIRFLOW_API_TOKEN" not in f"{findings[0]}"


def test_credentials_are_read_again_after_a_refusal(mwaa, monkeypatch):
    seen = api()
    seen.version()
    mwaa.denied = {"InvokeRestApi"}
    with pytest.raises(AirflowApiError, match="AccessDeniedException"):
        seen.version()
    mwaa.denied = set()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "renewed")
    seen.version()
    assert (mwaa.keys[0], mwaa.keys[-1]) == ("testing", "renewed")


def test_without_credentials_the_login_is_refused(mwaa, monkeypatch, tmp_path):
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    seen = look(api(), now=lambda: NOW)
    assert seen.login_refused
    assert "Unable to locate credentials" in seen.silent
    assert not mwaa.asked


def test_without_a_region_it_says_where_to_write_it(mwaa, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(
        AirflowApiError, match=r"write mwaa://prod\?region=eu-west-1, or set AWS_DEFAULT_REGION"
    ):
        api().version()


def test_an_environment_that_is_not_there_is_named(mwaa):
    with pytest.raises(AirflowApiError, match=r"mwaa://dev.* cannot be asked .*is this its name"):
        api("mwaa://dev").version()
    assert len(mwaa.asked) == 1


@VERSIONS
def test_what_airflow_does_not_show_is_a_gap(mwaa, version):
    runs(mwaa, version).airflow.broken = {
        "/pools": (403, {"detail": "Forbidden"}),
        "/importErrors": (404, {}),
    }
    gaps = {gap.part: gap.denied for gap in look(api(), now=lambda: NOW).gaps}
    assert gaps == {"pools": True, "import errors": False}


def test_an_answer_that_is_too_large_is_a_gap(mwaa):
    mwaa.airflow.rows = [{**instance(0, "queued"), "note": "x" * 7 * 1024 * 1024}]
    gaps = look(api(attempts=1), now=lambda: NOW).gaps
    assert [gap.part for gap in gaps] == ["task instances"]


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ({"RestApiStatusCode": 200, "RestApiResponse": {"a": 1}}, Answer(200, {"a": 1})),
        ({"RestApiStatusCode": 200, "RestApiResponse": '{"a": 1}'}, Answer(200, {"a": 1})),
        ({"RestApiStatusCode": 200, "RestApiResponse": "<html>"}, Answer(200, None)),
        ({"RestApiResponse": {"a": 1}}, Answer(0, {"a": 1}, "without a status")),
    ],
)
def test_an_answer_without_a_status_is_no_success(found, answer):
    from airflow_resilient.operations.mwaa import _answer

    assert _answer(found) == answer
    assert answer.good is (answer.status == 200)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.ReadTimeoutError(endpoint_url="https://env.airflow"),
        exceptions.ConnectTimeoutError(endpoint_url="https://env.airflow"),
        exceptions.EndpointConnectionError(endpoint_url="https://env.airflow"),
        exceptions.ConnectionClosedError(endpoint_url="https://env.airflow"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_may_come_back(error):
    with pytest.raises(NoAnswer):
        answer_to(error, Environment("prod"))


def test_an_error_of_ours_stays_one():
    with pytest.raises(ZeroDivisionError):
        answer_to(ZeroDivisionError(), Environment("prod"))


# --- the sweep ------------------------------------------------------------------------------------


@VERSIONS
def test_nothing_proves_that_every_dag_is_shown(mwaa, version):
    runs(mwaa, version)
    assert "(Amazon MWAA does not show its auth manager)" in api().why_not_every_dag()
    assert "--sees-every-dag" in api().why_not_every_dag()
    assert all(len(request.get("Path", "")) <= 64 for _, request in mwaa.asked)


def test_an_account_that_is_not_shown_every_dag_is_one(mwaa):
    mwaa.airflow = lambda *_: (403, {"detail": "Forbidden"})
    mwaa.passes_version = False
    assert "does not show every DAG" in api().why_not_every_dag()


class Listed(InMemoryJobs):
    def list_scopes(self):
        return ["memory"]

    def list_jobs(self, scope):
        return [real.observe(self.now()) for real in self.live()]


@VERSIONS
def test_a_sweep_through_aws_leaves_what_is_wanted_and_proves_no_deleted_run(mwaa, version):
    runs(mwaa, version)
    service = Listed(seconds=None, cancel_seconds=5)
    wanted = Instance("etl", mwaa.airflow.rows[1]["dag_run_id"], mwaa.airflow.rows[1]["task_id"])
    jobs = [
        service.submit(Claim(each.task_key("prod"), 1)) for each in (wanted, Instance("etl", "gone", "sort"))
    ]
    service.advance(3600)
    runtime = Runtime(service.now, service.advance, lambda: 0.5)

    def found(**more):
        targets = [SweepTarget("memory", service)]
        report = sweep(targets, api(), "prod", runtime, cancel=True, same_airflow=True, **more)
        return [each.verdict.status.value for each in report.findings]

    assert sorted(found()) == ["unknown", "wanted"]
    assert sorted(found(sees_every_dag=True)) == ["deleted", "wanted"]
    assert [real.id for real in service.live()] == [jobs[0].id]


def parsed(*arguments):
    return cli._parser(arguments).parse_args(arguments)


def test_the_namespace_is_that_in_the_options_of_the_environment(mwaa, configured):
    configured("https://another.example.com", "another")
    mwaa.options = {"airflow_resilient.namespace": "prod-etl"}
    orphans = parsed("orphans", "--airflow-url", "mwaa://prod", "--aws-conn-id", "none")
    assert namespace_of(orphans) == "prod-etl"
    assert namespace_of(parsed("orphans", "--airflow-url", "mwaa://prod", "--namespace", "mine")) == "mine"


@pytest.mark.parametrize("denied", [set(), {"GetEnvironment"}], ids=["not-set", "not-shown"])
def test_a_namespace_that_is_not_known_is_asked_for(mwaa, configured, denied):
    configured("https://another.example.com", "another")
    mwaa.denied = denied
    with pytest.raises(AirflowApiError, match="pass --namespace, or set the configuration option"):
        namespace_of(parsed("orphans", "--airflow-url", "mwaa://prod", "--aws-conn-id", "none"))


# --- commands -------------------------------------------------------------------------------------


def test_the_commands_take_their_region_and_connection(monkeypatch):
    monkeypatch.setenv("AIRFLOW_API_URL", "mwaa://prod")
    found = api_of(
        parsed("orphans", "--region", "eu-north-1", "--aws-conn-id", "none")
    )._transport.environment
    assert found == Environment("prod", "eu-north-1")
    found = api_of(parsed("orphans", "--airflow-url", "mwaa://prod?region=us-east-2"))._transport.environment
    assert found == Environment("prod", "us-east-2", "aws_default")
    assert api_of(parsed("check"))._transport.environment == Environment("prod")


def test_a_token_beside_the_url_of_an_environment_is_an_error(monkeypatch):
    monkeypatch.setenv("AIRFLOW_API_TOKEN", "t0ken")
    api_of(parsed("check", "--airflow-url", "mwaa://prod"))  # the environment is of another Airflow
    with pytest.raises(AirflowApiError, match="leave out token"):
        api_of(parsed("check", "--airflow-url", "mwaa://prod", "--token", "t0ken"))
    monkeypatch.setenv("AIRFLOW_API_URL", "mwaa://prod")
    with pytest.raises(AirflowApiError, match="leave out token"):
        api_of(parsed("check"))


def test_check_reports_over_aws(mwaa, capsys):
    assert cli.main(["check", "--airflow-url", "mwaa://prod", "--json"]) in (1, 2)
    shown = capsys.readouterr().out
    assert json.loads(shown)["url"] == "mwaa://prod?region=eu-west-1"
    assert json.loads(shown)["version"] == "3.0.6"
    assert "s3cr3t-key-of-aws" not in shown


def test_a_silent_environment_is_looked_at_with_the_aws_cli(mwaa):
    mwaa.faults = [None] * 9
    findings = examine(api(attempts=1), Limits(), None, now=time.time).findings
    assert findings[0].next_step == (
        "aws mwaa get-environment --region eu-west-1 --name prod --query Environment.Status"
    )


ODD = shlex.quote("it's mine")
STEPS = [
    pytest.param("wait, or give it more slots", [], id="nothing-to-change"),
    pytest.param(
        "airflow dags unpause etl.daily",
        [("PATCH", "/dags/etl.daily", {"update_mask": "is_paused"}, {"is_paused": False})],
        id="unpause",
    ),
    pytest.param(
        "airflow dags pause etl; airflow dags unpause etl",
        [
            ("PATCH", "/dags/etl", {"update_mask": "is_paused"}, {"is_paused": True}),
            ("PATCH", "/dags/etl", {"update_mask": "is_paused"}, {"is_paused": False}),
        ],
        id="pause-and-unpause",
    ),
    pytest.param(
        "airflow pools set made_later 128 ''",
        [("POST", "/pools", None, {"name": "made_later", "slots": 128})],
        id="a-new-pool",
    ),
    pytest.param(
        f"airflow pools set {ODD} 9 ''",
        [("POST", "/pools", None, {"name": "it's mine", "slots": 9})],
        id="a-new-pool-with-an-odd-name",
    ),
    pytest.param(
        slots_command("a b", 3, FACTS),
        [
            (
                "PATCH",
                "/pools/a%20b",
                {"update_mask": "slots"},
                {"name": "a b", "slots": 3, "include_deferred": False},
            )
        ],
        id="more-slots",
    ),
]


@pytest.mark.parametrize(("step", "requests"), STEPS)
def test_a_next_step_is_a_command_of_the_aws_cli(mwaa, step, requests):
    """What the words of the command mean, as the AWS CLI reads them: the parameters of boto3."""
    there = step_there(step, "mwaa://prod?region=eu-west-1")
    assert there.count("aws mwaa invoke-rest-api --region eu-west-1 --name prod ") == len(requests)
    for one, wanted in zip(there.split("; ") if requests else (), requests, strict=True):
        words = shlex.split(one)
        given = dict(zip(words[3::2], words[4::2], strict=True))
        query, body = (json.loads(given.get(name, "null")) for name in ("--query-parameters", "--body"))
        assert (given["--method"], given["--path"], query, body) == wanted
    assert "airflow " not in there


@pytest.mark.parametrize("step", ["restart it: airflow scheduler", "airflow triggerer", "airflow db check"])
def test_what_only_aws_can_do_is_left_to_aws(step):
    there = step_there(step, "mwaa://prod")
    assert there.startswith(f"{step}. That runs inside of Amazon MWAA alone, and AWS starts its processes: ")
    assert "aws mwaa get-environment --name prod" in there
    assert "airflow-prod-Scheduler" in there


def test_a_finding_of_an_environment_says_what_to_do_there():
    waits = Waiting("etl", "run", "load", state="scheduled", pool="made_later", since=NOW - 6000)
    runs, beats = (Run("etl", "run", "running", decided=NOW),), (Component("scheduler", NOW),)
    seen = Snapshot(
        "mwaa://prod",
        NOW,
        version="3.0.6",
        overall=beats,
        waiting=(waits,),
        runs=runs,
        dags=(Dag("etl"),),
        pools=(),
    )
    steps = {each.key: each.next_step for each in diagnose(seen, FirstSeen(), Limits(), NOW)[0]}
    (step,) = (step for key, step in steps.items() if key.startswith("waiting/pool-missing"))
    assert step.startswith("aws mwaa invoke-rest-api --name prod --method POST --path /pools ")


def test_check_imports_no_airflow(mwaa, imported_by):
    script = "from airflow_resilient.cli import main; main(['check', '--airflow-url', 'mwaa://prod'])"
    assert imported_by(script) == {"boto3"}


def test_an_airflow_connection_can_be_an_environment(mwaa, monkeypatch):
    made = {"conn_type": "http", "host": "mwaa://prod?region=eu-west-1&aws_conn_id=reader"}
    monkeypatch.setenv("AIRFLOW_CONN_THIS_AIRFLOW", json.dumps(made))
    reader = {"conn_type": "aws", "extra": {"region_name": "eu-west-1", "endpoint_url": mwaa.url}}
    monkeypatch.setenv("AIRFLOW_CONN_READER", json.dumps(reader))
    found = api_of_connection("this_airflow")
    assert found._transport.environment == Environment("prod", "eu-west-1", "reader")
    assert found.version() == "3.0.6"


def test_a_connection_that_cannot_be_used_is_said_without_its_secrets(mwaa, monkeypatch):
    broken = {
        "conn_type": "aws",
        "password": "hunter2",
        "extra": {"role_arn": "x", "assume_role_method": "hunter2"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_READER", json.dumps(broken))
    with pytest.raises(
        AirflowApiError, match="cannot use Airflow connection 'reader' for mwaa://prod"
    ) as caught:
        api("mwaa://prod?aws_conn_id=reader").version()
    assert "hunter2" not in str(caught.value)


def test_a_login_in_the_connection_of_an_environment_is_an_error(monkeypatch):
    made = {"conn_type": "http", "host": "mwaa://prod", "login": "me", "password": "hunter2"}
    monkeypatch.setenv("AIRFLOW_CONN_THIS_AIRFLOW", json.dumps(made))
    with pytest.raises(AirflowApiError, match="leave out user") as caught:
        api_of_connection("this_airflow")
    assert "hunter2" not in str(caught.value)


def test_credentials_with_a_line_break_are_not_shown(mwaa, monkeypatch):
    """As from a file; the text of the error contains the whole header."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "s3ss10n-t0ken\n")
    made = examine(api(attempts=1), Limits(), None, now=lambda: NOW)
    (finding,) = made.findings
    assert finding.kind.value == "login-refused"
    assert "a line break is in the credentials of AWS" in finding.evidence
    assert "s3ss10n" not in json.dumps(finding.row())
