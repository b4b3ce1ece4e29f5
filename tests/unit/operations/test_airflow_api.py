"""What the client of Airflow's REST API computes by itself; its requests are tested on a real Airflow."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.core.retry import Runtime
from airflow_resilient.operations.airflow_api import (
    AirflowApi,
    detail_of,
    in_slices,
    says_missing,
    seconds,
    split_url,
)
from airflow_resilient.operations.examine import examine
from airflow_resilient.operations.limits import Limits
from airflow_resilient.operations.task_instances import AirflowApiError, Instance

PAGE = 5


class Table:
    """Rows by the time at which they changed last; between two requests, some change again."""

    def __init__(self, times, chance=None, moves=0):
        self.rows = dict(enumerate(times))
        self.time, self.chance, self.moves = max(times, default=0.0), chance, moves
        self.asked = 0

    def now(self):
        return self.time

    def page(self, begin, end):
        self.asked += 1
        fits = [row for row, at in self.rows.items() if at >= begin and (end is None or at <= end)]
        if self.chance and self.moves:
            self.chance.shuffle(fits)  # in no order
            self.time += self.chance.random()
            for row in self.chance.sample(sorted(self.rows), min(self.moves, len(self.rows))):
                self.rows[row] = self.time
        return fits[:PAGE], len(fits)

    def all_pages(self, begin, end):
        return [row for row, at in self.rows.items() if at >= begin and (end is None or at <= end)]


TIMES = st.lists(st.floats(0, 1_000_000), max_size=60)


@given(TIMES, st.floats(0, 1_000_000))
def test_every_row_that_changed_since_then_comes_and_no_other(times, begin):
    table = Table(times)
    found = set(in_slices(table.page, begin, table.now, table.all_pages))
    assert found == {row for row, at in table.rows.items() if at >= begin}


@given(TIMES, st.integers(1, 3), st.randoms(use_true_random=False))
def test_no_row_is_lost_when_others_move_between_two_requests(times, moves, chance):
    table = Table(times, chance, moves)
    assert set(in_slices(table.page, 0.0, table.now, table.all_pages)) == set(table.rows)


def test_rows_of_one_instant_are_read_all_pages():
    table = Table([7.0] * 20)
    assert set(in_slices(table.page, 0.0, table.now, table.all_pages)) == set(range(20))


def test_a_clock_that_is_behind_does_not_matter():
    table = Table([100.0 + number for number in range(20)])
    assert set(in_slices(table.page, 0.0, lambda: -50.0, table.all_pages)) == set(range(20))


def test_what_fits_on_one_page_takes_one_request():
    table = Table([1.0, 2.0])
    assert sorted(in_slices(table.page, 0.0, table.now, table.all_pages)) == [0, 1]
    assert table.asked == 1


def test_a_busy_week_takes_few_requests_for_each_page():
    chance = random.Random(7)
    table = Table([chance.expovariate(1 / 50_000) for _ in range(1000)])
    assert len(list(in_slices(table.page, 0.0, table.now, table.all_pages))) >= 1000
    assert table.asked < 5 * 1000 / PAGE


@pytest.mark.parametrize(
    "url",
    [
        "",
        "airflow.example.com",
        "http://",
        "/api/v2",
        "https://a:port",
        "https://[::1",
        "me:hunter2@airflow.example.com",
        "https://me:hun/ter2@airflow.example.com",
        "https://me:hunter#2@airflow.example.com",
        "https://me:hunter2@",
        "https://me:hun[ter2@airflow.example.com",
    ],
)
def test_what_is_no_url_is_said_without_its_password(url):
    with pytest.raises(
        AirflowApiError, match=r"invalid Airflow URL .*: write scheme and host, such as"
    ) as caught:
        AirflowApi(url)
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://a", ("https://a", None, "")),
        ("https://me:hunter2@a:8443/prod/", ("https://a:8443/prod", "me", "hunter2")),
        ("https://me%40x:p%40ss%2Fw%25@a", ("https://a", "me@x", "p@ss/w%")),
        ("https://me@a", ("https://a", "me", "")),
        ("https://:t0ken@a", ("https://a", "", "t0ken")),
        ("https://a/prod?token=hunter2#x", ("https://a/prod", None, "")),
    ],
)
def test_a_login_in_the_url_is_decoded_and_not_shown(url, parts):
    assert split_url(url) == parts
    assert AirflowApi(url).url == parts[0]


@pytest.mark.parametrize(
    ("given", "login"),
    [
        ({}, ("me", "p@ss")),
        ({"user": "you", "password": "other"}, ("you", "other")),
        ({"user": "you"}, ("you", "")),
        ({"password": "other"}, ("me", "other")),
    ],
)
def test_a_login_beside_the_url_goes_before_the_one_in_it(given, login):
    assert AirflowApi("https://me:p%40ss@a", **given)._login == login


@pytest.mark.parametrize(
    ("text", "number"), [("1970-01-01T00:00:01Z", 1.0), ("1970-01-01T01:00:00+01:00", 0.0), (None, None)]
)
def test_times_are_read_with_their_offset(text, number):
    assert seconds(text) == number


def test_httpx_is_loaded_with_the_first_request_only():
    script = "import sys, airflow_resilient.operations.airflow_api; print('httpx' in sys.modules)"
    seen = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert seen.stdout.split()[-1] == "False"


# --- what an answer means -------------------------------------------------------------------------

NOT_FOUND_2_11 = (
    "https://airflow.apache.org/docs/apache-airflow/2.11.2/stable-rest-api-ref.html#section/Errors/NotFound"
)


@pytest.mark.parametrize(
    ("api", "body", "missing"),
    [
        pytest.param(
            "/api/v2", {"detail": "XCom entry with key: `remote_job` not found"}, True, id="3-an-xcom"
        ),
        pytest.param(
            "/api/v2",
            {"detail": "The Task Instance with dag_id: `etl` ... was not found"},
            True,
            id="3-an-instance",
        ),
        pytest.param("/api/v2", {"detail": "Not Found"}, False, id="3-no-such-path"),
        pytest.param("/api/v2", {"detail": None}, False, id="3-no-detail"),
        pytest.param("/api/v2", {"detail": [{"msg": "x"}]}, False, id="3-a-list-of-details"),
        pytest.param(
            "/api/v1",
            {"detail": None, "status": 404, "title": "XCom entry not found", "type": NOT_FOUND_2_11},
            True,
            id="2-an-xcom",
        ),
        pytest.param(
            "/api/v1",
            {
                "detail": "The DAG with dag_id: x was not found",
                "title": "DAG not found",
                "type": NOT_FOUND_2_11,
            },
            True,
            id="2-a-dag",
        ),
        pytest.param(
            "/api/v1",
            {"title": "Not Found", "type": "about:blank", "status": 404},
            False,
            id="2-no-such-path",
        ),
        pytest.param("/api/v1", {"detail": "XCom not found"}, False, id="2-without-a-type"),
        *[
            pytest.param(api, body, False, id=f"{api[-2:]}-{row}")
            for api in ("/api/v1", "/api/v2")
            for body, row in [
                ({"message": "no Route matched with those values"}, "kong"),
                ({"message": "Not Found"}, "an-api-gateway-of-aws"),
                ({"error": {"code": 404, "message": "x"}}, "a-load-balancer"),
                ({"fault": {"faultstring": "x"}}, "apigee"),
                ({}, "nothing"),
                ([], "a-list"),
                ("Not Found", "a-text"),
                (None, "no-json"),
                (404, "a-number"),
            ]
        ],
    ],
)
def test_only_airflow_s_own_404_says_that_something_does_not_exist(api, body, missing):
    assert says_missing(api, body) is missing


LOGIN = {"username": "me", "password": "hunter2"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({"detail": "Forbidden"}, "Forbidden", id="a-text"),
        pytest.param({"title": "Forbidden", "detail": None, "type": "x"}, "Forbidden", id="2.11"),
        pytest.param({"message": "no Route matched"}, "no Route matched", id="a-gateway"),
        pytest.param(
            {
                "detail": [
                    {"type": "missing", "loc": ["body", "username"], "msg": "Field required", "input": LOGIN}
                ]
            },
            "body.username: Field required",
            id="fastapi-repeats-the-input",
        ),
        pytest.param(
            {
                "detail": [
                    {
                        "loc": ["query", "limit", 0],
                        "msg": "too\n big",
                        "input": "hunter2",
                        "ctx": {"x": "hunter2"},
                    },
                    {"loc": "body", "msg": "bad", "url": "hunter2"},
                ]
            },
            "query.limit.0: too big; bad",
            id="several",
        ),
        pytest.param({"detail": {"reason": "hunter2", "input": LOGIN}}, "", id="an-object"),
        pytest.param({"detail": [LOGIN, "why", 5, None]}, "why", id="a-list-of-anything"),
        pytest.param(LOGIN, "", id="what-was-sent"),
        pytest.param([LOGIN], "", id="a-list"),
        pytest.param("hunter2", "", id="a-json-text"),
        pytest.param(None, "", id="no-json"),
    ],
)
def test_an_error_message_does_not_repeat_what_was_sent(body, text):
    assert detail_of(body) == text


# --- a server -------------------------------------------------------------------------------------


@dataclass
class Server:
    """An HTTP server with answers kept by hand: path to status and body; a text is no JSON."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def api(self, **login: Any) -> AirflowApi:
        return AirflowApi(self.url, **login, runtime=Runtime(lambda: 0.0, lambda _: None, lambda: 0.5))


@pytest.fixture
def server(serve):
    made = Server()

    def answer(method, path, query, body):
        made.asked.append((path, query, body))
        known = (made.answers[each] for each in (path, path.rpartition("/")[0]) if each in made.answers)
        return next(known, (404, {"detail": "Not Found"}))

    made.url = serve(answer)
    return made


TASK = Instance("etl", "manual__1", "sort", state="failed")
ENTRIES = "/api/v2/dags/etl/dagRuns/manual__1/taskInstances/sort/xcomEntries"
AIRFLOW_3 = {"/api/v2/version": (200, {"version": "3.3.2"}), "/auth/token": (201, {"access_token": "t0"})}
AIRFLOW_2 = {"/api/v1/version": (200, {"version": "2.11.2"})}


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("status", [400, 401, 403, 422, 500])
def test_nothing_of_an_answer_to_a_login_is_shown(server, status, method):
    server.answers = {
        **AIRFLOW_3,
        "/auth/token": (status, {"detail": f"bad password hunter2 of me for {method}"}),
    }
    login = {"user": "me", "password": "hunter2"} if method == "POST" else {}
    with pytest.raises(AirflowApiError) as caught:
        server.api(**login).version()
    assert str(status) in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert json.loads(server.asked[-1][2] or "{}") == (
        {"username": "me", "password": "hunter2"} if login else {}
    )


def test_a_secret_that_a_server_repeats_is_hidden(server):
    server.answers = {**AIRFLOW_3, "/api/v2/pools": (403, {"detail": "t0ken-of-mine may not read pools"})}
    with pytest.raises(AirflowApiError, match=r"403 \(\(hidden\) may not read pools\)"):
        server.api(token="t0ken-of-mine").deferred_slots()


# --- a login of the user's own --------------------------------------------------------------------


class Renewed(httpx.Auth):
    """A login that is another one with each request, as one that is renewed."""

    def __init__(self):
        self.sent = 0

    def auth_flow(self, request):
        self.sent += 1
        request.headers["Authorization"] = f"Bearer t0ken-{self.sent}"
        yield request


class NoLonger(httpx.Auth):
    def auth_flow(self, request):
        raise LookupError("the key hunter2 is not valid")


@pytest.fixture
def guarded():
    """Airflows of both versions behind a gateway that demands a login with every request: url, and logins."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        status = 200

        def do_GET(self):
            seen.append((self.path.partition("?")[0], self.headers.get("Authorization")))
            status = self.status if self.headers.get("Authorization") else 401
            found = {"version": "3.3.2", "pools": [], "total_entries": 0}
            status = 404 if self.path.startswith("/api/v2") and self.path.startswith(self.gone) else status
            data = json.dumps(found if status == 200 else {"detail": "Unauthorized"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 - http.server's names
        gone = "nothing"

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", seen, Handler
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize("gone", ["nothing", "/api/v2"], ids=["airflow-3", "airflow-2"])
def test_a_login_of_ones_own_is_sent_with_every_request_and_nothing_is_exchanged(guarded, gone):
    url, seen, handler = guarded
    handler.gone = gone
    AirflowApi(url, auth=Renewed()).deferred_slots()
    assert "/auth/token" not in [path for path, _ in seen]
    assert [login for _, login in seen] == [f"Bearer t0ken-{number + 1}" for number in range(len(seen))]


@pytest.mark.parametrize(
    ("auth", "login"),
    [
        pytest.param(("me", "pass"), "Basic bWU6cGFzcw==", id="user-and-password"),
        pytest.param(
            lambda request: (request.headers.update({"Authorization": "x"}), request)[1], "x", id="a-function"
        ),
    ],
)
def test_whatever_httpx_takes_as_a_login_is_one(guarded, auth, login):
    url, seen, _ = guarded
    AirflowApi(url, auth=auth).deferred_slots()
    assert {sent for _, sent in seen} == {login}


def test_a_token_is_sent_with_the_first_request_already(guarded):
    url, seen, _ = guarded
    AirflowApi(url, token="t0ken").deferred_slots()
    assert {sent for _, sent in seen} == {"Bearer t0ken"}


@pytest.mark.parametrize(
    ("login", "words"),
    [
        pytest.param({"auth": Renewed()}, "correct what auth= sends", id="auth"),
        pytest.param({"token": "expired-t0ken"}, "pass a valid token", id="a-token-that-has-expired"),
    ],
)
def test_a_401_is_a_refused_login_and_is_not_renewed(guarded, login, words):
    url, seen, handler = guarded
    handler.status = 401
    api = AirflowApi(url, **login)
    with pytest.raises(AirflowApiError, match=f"401 .*: {words}") as caught:
        api.version()
    assert caught.value.status == 401
    assert len(seen) == 1
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize("login", [{"auth": Renewed()}, {"token": "t0ken"}], ids=["auth", "token"])
def test_a_login_that_is_refused_later_is_not_renewed_either(guarded, login):
    url, seen, handler = guarded
    api = AirflowApi(url, **login)
    api.version()
    handler.status = 401
    with pytest.raises(AirflowApiError, match="401"):
        api.deferred_slots()
    assert [path for path, _ in seen].count("/api/v2/pools") == 1


@pytest.mark.parametrize(
    ("login", "step"),
    [
        pytest.param({"auth": Renewed()}, "correct what auth= sends", id="auth"),
        pytest.param({"token": "expired-t0ken"}, "set AIRFLOW_API_TOKEN", id="a-token-that-has-expired"),
    ],
)
def test_the_watch_says_how_a_refused_login_is_corrected(guarded, login, step):
    url, _, handler = guarded
    handler.status = 401
    findings = examine(AirflowApi(url, **login), Limits(), None).findings
    assert [each.kind.value for each in findings] == ["login-refused"]
    assert findings[0].next_step.startswith(step)


def test_a_login_that_cannot_be_made_is_said_without_its_secrets(guarded):
    url, seen, _ = guarded
    with pytest.raises(AirflowApiError, match=r"auth= raised LookupError$"):
        AirflowApi(url, auth=NoLonger()).version()
    assert not seen


@pytest.mark.parametrize("auth", [object(), 3, "t0ken"])
def test_what_is_no_login_is_refused_with_what_to_pass(guarded, auth):
    with pytest.raises(AirflowApiError, match=r"pass an httpx\.Auth, a callable") as caught:
        AirflowApi(guarded[0], auth=auth).version()
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("http://a", {"token": "hunter2"}),
        ("http://a", {"user": "me", "password": "hunter2"}),
        ("http://me:hunter2@a", {}),
    ],
)
def test_two_logins_are_one_too_many(url, login):
    with pytest.raises(AirflowApiError, match="gets two logins: give auth, or") as caught:
        AirflowApi(url, auth=Renewed(), **login)
    assert "hunter2" not in str(caught.value)


# --- XComs ----------------------------------------------------------------------------------------


def test_xcoms_that_tell_about_jobs_are_read_and_no_others(server):
    keys = ["remote_job", "return_value", "airflow_resilient_left_2", "remote_job_log"]
    server.answers = {
        **AIRFLOW_3,
        ENTRIES: (200, {"xcom_entries": [{"key": key} for key in keys], "total_entries": 4}),
        f"{ENTRIES}/remote_job": (200, {"key": "remote_job", "value": "s3://xcoms/7"}),
        f"{ENTRIES}/airflow_resilient_left_2": (200, {"key": "airflow_resilient_left_2", "value": '["s-1"]'}),
    }
    assert server.api().xcoms(TASK) == {"remote_job": "s3://xcoms/7", "airflow_resilient_left_2": '["s-1"]'}
    assert server.asked[2][1] == {"map_index": "-1", "limit": "100", "offset": "0"}
    assert len(server.asked) == 5


def test_a_mark_that_vanishes_between_two_requests_is_still_a_mark(server):
    server.answers = {
        **AIRFLOW_3,
        ENTRIES: (200, {"xcom_entries": [{"key": "airflow_resilient_left_1"}], "total_entries": 1}),
        f"{ENTRIES}/airflow_resilient_left_1": (404, {"detail": "XCom entry with key: `x` not found"}),
    }
    assert server.api().xcoms(TASK) == {"airflow_resilient_left_1": None}


GATEWAY = {"message": "no Route matched with those values"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(404, GATEWAY, id="a-gateway-without-a-route"),
        pytest.param(404, {"detail": "Not Found"}, id="no-such-path"),
        pytest.param(404, "<html>", id="a-page"),
        pytest.param(200, GATEWAY, id="a-gateway-that-calls-it-ok"),
        pytest.param(200, "<html>", id="a-login-page"),
        pytest.param(200, [], id="a-list"),
        pytest.param(200, {"xcom_entries": None, "total_entries": 0}, id="no-rows"),
        pytest.param(200, {"xcom_entries": [], "total_entries": 1}, id="fewer-rows-than-there-are"),
        pytest.param(302, "", id="a-redirect-to-a-login"),
    ],
)
def test_what_is_not_airflow_s_answer_is_not_taken_for_no_xcom(server, status, body):
    server.answers = {**AIRFLOW_3, ENTRIES: (status, body)}
    with pytest.raises(AirflowApiError):
        server.api().xcoms(TASK)


@pytest.mark.parametrize(
    "call",
    [
        lambda api: api.current(TASK),
        lambda api: api.retries(TASK),
        lambda api: api.xcom(TASK, "remote_job"),
        lambda api: list(api.instances()),
        lambda api: api.deferred_slots(),
        lambda api: api.run_start(TASK),
    ],
    ids=["current", "retries", "xcom", "instances", "deferred_slots", "run_start"],
)
@pytest.mark.parametrize("status", [200, 404])
def test_a_gateway_s_answer_is_none_whatever_was_asked(server, call, status):
    paths = ["/pools", "/dags/~/dagRuns/~/taskInstances", "/dags/etl/tasks", "/dags/etl/dagRuns"]
    paths += [
        "/dags/etl/dagRuns/manual__1/taskInstances",
        "/dags/etl/dagRuns/manual__1/taskInstances/sort/xcomEntries",
    ]
    server.answers = AIRFLOW_3 | {f"/api/v2{path}": (status, GATEWAY) for path in paths}
    with pytest.raises(AirflowApiError):
        call(server.api())


@pytest.mark.parametrize("body", [GATEWAY, "<html>", []])
def test_what_has_no_version_is_no_airflow(server, body):
    server.answers = {"/api/v2/version": (200, body)}
    with pytest.raises(AirflowApiError):
        server.api().version()


SIMPLE = {"/auth/openapi.json": (200, {"info": {"title": "Simple auth manager sub application"}})}
FAB = {"/auth/openapi.json": (200, {"info": {"title": "FAB auth manager API"}})}
KEYCLOAK = {"/auth/openapi.json": (200, {"info": {"title": "Keycloak auth manager sub application"}})}
NO_TEAMS, TEAMS = {"/ui/config": (200, {"multi_team": False})}, {"/ui/config": (200, {"multi_team": True})}
MAY, MAY_NOT = {"/api/v2/dags": (404, {"detail": "Dag with id x was not found"})}, {"/api/v2/dags": (403, {})}
AIRFLOW_3_1 = AIRFLOW_3 | {"/api/v2/version": (200, {"version": "3.1.8"})}
MAY_2 = {
    "/api/v1/dags": (404, {"title": "DAG not found", "type": NOT_FOUND_2_11, "detail": "x"}),
}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        pytest.param(AIRFLOW_3 | SIMPLE | NO_TEAMS | MAY, "", id="simple"),
        pytest.param(AIRFLOW_3_1 | SIMPLE | MAY, "", id="simple-before-there-were-teams"),
        pytest.param(AIRFLOW_3 | FAB | MAY, "", id="fab"),
        pytest.param(AIRFLOW_3 | FAB | TEAMS | MAY, "", id="fab-knows-no-teams"),
        pytest.param(AIRFLOW_2 | {"/api/v1/roles": (200, {})} | MAY_2, "", id="2.11-as-admin"),
        pytest.param(AIRFLOW_2 | {"/api/v1/roles": (403, {})} | MAY_2, "", id="2.11-as-viewer"),
        pytest.param(AIRFLOW_3 | FAB | MAY_NOT, "does not show every DAG", id="fab-and-some-dags-only"),
        pytest.param(
            AIRFLOW_2 | {"/api/v1/roles": (403, {}), "/api/v1/dags": (403, {"title": "Forbidden"})},
            "does not show every DAG",
            id="2.11-and-some-dags-only",
        ),
        pytest.param(AIRFLOW_3 | SIMPLE | TEAMS | MAY, "multi-team mode", id="simple-with-teams"),
        pytest.param(
            AIRFLOW_3 | SIMPLE | MAY, "multi-team mode", id="simple-and-whether-with-teams-is-not-said"
        ),
        pytest.param(
            AIRFLOW_3 | KEYCLOAK | NO_TEAMS | MAY, "auth manager is neither", id="another-auth-manager"
        ),
        pytest.param(
            AIRFLOW_3 | NO_TEAMS | MAY, "auth manager is neither", id="an-auth-manager-without-an-api"
        ),
        pytest.param(
            AIRFLOW_3 | {"/auth/openapi.json": (200, {"info": "x"})} | MAY,
            "auth manager is neither",
            id="odd-about",
        ),
        pytest.param(
            AIRFLOW_2 | {"/api/v1/roles": (400, {})} | MAY_2,
            "auth manager is neither",
            id="2.11-with-another",
        ),
        pytest.param(
            AIRFLOW_3 | FAB | {"/api/v2/dags": (404, GATEWAY)},
            "does not exist is 404",
            id="a-gateway-answers",
        ),
        pytest.param(AIRFLOW_3 | FAB | {"/api/v2/dags": (200, {})}, "does not exist is 200", id="it-exists"),
        pytest.param(AIRFLOW_3 | FAB | {"/api/v2/dags": (401, {})}, "does not exist is 401", id="logged-out"),
    ],
)
def test_whether_an_account_may_read_every_dag_is_proved_or_not(server, answers, words):
    server.answers = answers
    why = server.api().why_not_every_dag()
    assert bool(why) is bool(words)
    assert words in why
    assert not why or "use an account" in why or "--sees-every-dag" in why


def test_a_task_instance_has_its_id(server):
    row = {
        "id": "0198-a",
        "dag_id": "etl",
        "dag_run_id": "manual__1",
        "task_id": "sort",
        "map_index": -1,
        "state": "running",
        "try_number": 1,
        "max_tries": 0,
        "start_date": "2026-01-01T00:00:00.123456Z",
    }
    server.answers = {**AIRFLOW_3, "/api/v2/dags/etl/dagRuns/manual__1/taskInstances/sort": (200, row)}
    found = server.api().current(TASK)
    assert (found.id, found.started) == ("0198-a", 1767225600.123456)


# --- errors of the connection ---------------------------------------------------------------------


def all_of(base):
    return {base}.union(*(all_of(each) for each in base.__subclasses__()))


CONNECTION_ERRORS = {
    # error of httpx: asked again
    httpx.TransportError: True,
    httpx.TimeoutException: True,
    httpx.ConnectTimeout: True,
    httpx.ReadTimeout: True,
    httpx.WriteTimeout: True,
    httpx.PoolTimeout: True,
    httpx.NetworkError: True,
    httpx.ConnectError: True,
    httpx.ReadError: True,
    httpx.WriteError: True,
    httpx.CloseError: True,
    httpx.ProtocolError: True,
    httpx.LocalProtocolError: False,  # of the request: it is not sent
    httpx.RemoteProtocolError: True,
    httpx.ProxyError: True,
    httpx.UnsupportedProtocol: True,
}


def test_every_connection_error_of_httpx_is_decided():
    """A class that a later version adds is noticed here: decide whether it passes, and add it."""
    found = {each for each in all_of(httpx.TransportError) if each.__module__.startswith("httpx")}
    assert found - set(CONNECTION_ERRORS) == set()


@pytest.mark.parametrize(
    "kind", [kind for kind, again in CONNECTION_ERRORS.items() if again], ids=lambda kind: kind.__name__
)
def test_a_connection_error_is_asked_again_a_few_times_and_then_reported_as_no_answer(kind):
    asked = []

    def fail(request):
        asked.append(request)
        raise kind("it broke")

    naps = []
    api = AirflowApi("http://airflow", token="t", runtime=Runtime(lambda: 0.0, naps.append, lambda: 0.5))
    api._http._client = httpx.Client(transport=httpx.MockTransport(fail))
    with pytest.raises(AirflowApiError, match=rf"does not respond: .*{kind.__name__}: it broke"):
        api.version()
    assert len(asked) == len(naps) + 1 > 1


@pytest.mark.parametrize("token", ["s3cret-t0ken\nx", "s3cret-t0ken\x00"])
def test_a_token_that_cannot_be_sent_is_not_shown(server, token):
    server.answers = {**AIRFLOW_3}
    with pytest.raises(AirflowApiError, match="is a line break in the token") as caught:
        AirflowApi(server.url, token=token).version()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_token_from_a_file_may_end_with_a_line_break(server):
    server.answers = {**AIRFLOW_3}
    assert AirflowApi(server.url, token="t0ken\n").version() == "3.3.2"
