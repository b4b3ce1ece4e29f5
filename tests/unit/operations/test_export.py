"""The command ``export``: metrics over HTTP, who may read them, a page for people, and a file."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPException

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from airflow_resilient.cli import main
from airflow_resilient.operations.airflow_api import AirflowApi, iso
from airflow_resilient.operations.export import Exporter, listening_problem
from airflow_resilient.operations.export import serve as serve_exporter
from airflow_resilient.operations.first_seen import locked
from airflow_resilient.operations.limits import Limits

pytestmark = pytest.mark.pure

NOW = 1_793_622_600.0
TOKEN = "t0ken-t0ken-t0ken"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
MARKUP = "<script>alert('no')</script>&amp;"


class Airflow:
    """An Airflow 3 with one DAG file that cannot be imported, over HTTP."""

    def __init__(self):
        self.status = 200
        self.denied = ""
        self.asked = 0
        self.url = ""

    def answer(self, method, path, query, body):
        self.asked += 1
        path = path.removeprefix("/api/v2")
        lists = {
            "/dags": "dags",
            "/dags/~/dagRuns/~/taskInstances": "task_instances",
            "/dags/~/dagRuns": "dag_runs",
            "/jobs": "jobs",
            "/pools": "pools",
            "/importErrors": "import_errors",
            "/eventLogs": "event_logs",
        }
        rows = {
            "/importErrors": [
                {"filename": f"/dags/{MARKUP}.py", "timestamp": iso(NOW - 60), "stack_trace": "E"}
            ],
            "/jobs": [
                {
                    "job_type": "SchedulerJob",
                    "latest_heartbeat": iso(NOW - 3),
                    "hostname": "one",
                    "id": 1,
                }
            ],
        }.get(path, [])
        found = {
            "/version": {"version": "3.3.2"},
            "/auth/token": {"access_token": "t"},
            "/monitor/health": {
                "metadatabase": {"status": "healthy"},
                "scheduler": {"status": "healthy", "latest_scheduler_heartbeat": iso(NOW - 3)},
            },
        }.get(path, {})
        if path in lists:
            found = {lists[path]: rows, "total_entries": len(rows)}
        return 403 if path == self.denied else self.status, found


@pytest.fixture
def airflow(serve):
    made = Airflow()
    made.url = serve(made.answer)
    return made


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def exporter(airflow):
    clock = Clock()
    with closing(AirflowApi(airflow.url, attempts=1)) as api:
        made = Exporter(api, Limits(clock=1e12), now=clock, steady=clock)
        made.clock = clock
        yield made


@contextmanager
def served(exporter, **more):
    server = serve_exporter(exporter, "127.0.0.1", 0, **more)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{'https' if 'tls' in more else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def get(url, headers=None, *, context=None):
    """Status and text."""
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(url, headers=None):
    """Name and labels to value, as a scraper reads it."""
    status, text = get(f"{url}/metrics", {**OPENMETRICS, **(headers or {})})
    assert status == 200
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_shows_the_last_look(exporter):
    exporter.look()
    with served(exporter) as url:
        found = metrics(url)
    assert found["airflow_resilient_up",] == 1
    assert found["airflow_resilient_heartbeat_timestamp_seconds", "scheduler", "one"] == NOW - 3
    assert found["airflow_resilient_findings", "import-error"] == 1
    assert found["airflow_resilient_looks_total", "complete"] == 1
    assert found["airflow_resilient_requests_total",] > 10


def test_the_text_format_of_old_scrapers_is_served_too(exporter):
    exporter.look()
    with served(exporter) as url:
        status, text = get(f"{url}/metrics")
    assert status == 200
    assert "\nairflow_resilient_up 1.0\n" in text


def test_there_is_no_look_for_a_scrape_however_many_there_are(exporter, airflow):
    exporter.look()
    asked = airflow.asked
    with served(exporter) as url, ThreadPoolExecutor(20) as pool:
        statuses = [status for status, _ in pool.map(get, [f"{url}/metrics", f"{url}/"] * 20)]
    assert statuses == [200] * 40
    assert airflow.asked == asked


def test_a_silent_airflow_is_down_and_nothing_of_it_is_repeated(exporter, airflow):
    exporter.look()
    airflow.status = 503
    exporter.clock.now += 30
    exporter.look()
    with served(exporter) as url:
        found = metrics(url)
    names = {name for name, *_ in found}
    assert found["airflow_resilient_up",] == 0
    assert found["airflow_resilient_look_timestamp_seconds",] == NOW
    assert found["airflow_resilient_findings", "api-silent"] == 1
    assert "airflow_resilient_heartbeat_timestamp_seconds" not in names


def test_a_part_that_could_not_be_read_counts_as_an_incomplete_look(exporter, airflow):
    airflow.denied = "/pools"
    exporter.look()
    assert exporter.last.looks == {"incomplete": 1}
    assert "not-shown" in {each.kind.value for each in exporter.last.findings}


def test_looks_that_do_not_go_on_are_noticed_and_nothing_old_is_shown(exporter):
    exporter.look()
    with served(exporter) as url:
        exporter.clock.now += 120
        assert get(f"{url}/healthz")[0] == 200
        assert metrics(url)["airflow_resilient_up",] == 1
        exporter.clock.now += 1
        assert get(f"{url}/healthz")[0] == 503
        assert metrics(url)["airflow_resilient_up",] == 0
        assert ("airflow_resilient_findings", "import-error") not in metrics(url)
        assert "no look has succeeded" in get(f"{url}/")[1]


def test_a_look_that_fails_here_is_counted_and_the_next_one_is_taken(exporter, tmp_path):
    exporter.memory = tmp_path / "memory"
    reports = []
    exporter.report = reports.append
    with locked(exporter.memory):
        exporter.look()
    exporter.look()
    assert exporter.last.looks == {"failed": 1, "complete": 1}
    assert "the look has failed: AirflowApiError: another look with the memory" in reports[0]


def test_what_begins_and_what_is_over_is_logged_once(exporter, airflow):
    reports = []
    exporter.report = reports.append
    exporter.look()
    exporter.look()
    assert reports == [f"ticket import-error: /dags/{MARKUP}.py: E"]
    airflow.status = 503
    exporter.look()
    assert [text.partition(":")[0] for text in reports[1:]] == ["unknown api-silent", "over"]


# --- who may read it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        (f"Bearer {TOKEN}", 200),
        ("Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode(), 200),
        ("Basic " + base64.b64encode(b"me:wrong").decode(), 401),
        ("Basic ?", 401),
        (f"Digest {TOKEN}", 401),
        ("Bearer " + "\u00e9", 401),
    ],
)
def test_with_a_token_nobody_reads_anything_without_it(exporter, header, status):
    exporter.look()
    headers = {"Authorization": header} if header else {}
    with served(exporter, token=TOKEN) as url:
        assert get(f"{url}/metrics", headers)[0] == status
        assert get(f"{url}/", headers)[0] == status
        assert get(f"{url}/nowhere", headers)[0] == (404 if status == 200 else 401)
        assert get(f"{url}/healthz")[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_token(host):
    assert listening_problem(host, clients_known=False, token="") == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "airflow.example.com"])
def test_elsewhere_a_token_or_certificates_of_clients_are_needed(host):
    assert "AIRFLOW_EXPORT_TOKEN" in listening_problem(host, clients_known=False, token="")
    assert listening_problem(host, clients_known=True, token="") == ""
    assert listening_problem(host, clients_known=False, token=TOKEN) == ""
    assert "too short" in listening_problem(host, clients_known=True, token="short")


def authority(folder):
    """A certificate for 127.0.0.1 that signs itself: file with it, and file with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    begin = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=3))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    kinds = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, *kinds))
    return files


def test_over_https_a_client_without_a_certificate_is_refused_if_one_is_wanted(exporter, tmp_path):
    exporter.look()
    certificate, key = authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    with served(exporter, tls=server) as url:
        assert get(f"{url}/metrics", context=client)[0] == 200
        server.load_verify_locations(certificate)
        server.verify_mode = ssl.CERT_REQUIRED
        with pytest.raises((OSError, ssl.SSLError)):
            get(f"{url}/metrics", context=client)
        client.load_cert_chain(certificate, key)
        assert get(f"{url}/metrics", context=client)[0] == 200


# --- the page -------------------------------------------------------------------------------------------


def test_the_page_shows_findings_first_and_escapes_each_name(exporter):
    exporter.look()
    with served(exporter) as url:
        status, page = get(f"{url}/")
    assert status == 200
    assert "<script" not in page
    assert "&lt;script&gt;alert(" in page
    assert page.index("import-error") < page.index("Is it scheduling?")
    assert '<meta http-equiv="refresh" content="30">' in page
    for question in ("Is it scheduling?", "What is the delay?", "What is slowest?", "Is anything stuck?"):
        assert f"<h2>{question}</h2>" in page


def test_the_page_of_a_silent_airflow_shows_why_and_no_tables(exporter, airflow):
    airflow.status = 503
    exporter.look()
    with served(exporter) as url:
        page = get(f"{url}/")[1]
    assert "api-silent" in page
    assert "Is it scheduling?" not in page


def test_only_get_is_answered(exporter):
    with served(exporter) as url:
        request = urllib.request.Request(f"{url}/", data=b"x", method="POST")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        with caught.value as error:
            assert error.code == 405


# --- the command ----------------------------------------------------------------------------------------


@contextmanager
def running(*arguments, **environment):
    """The command, in a process of its own; its standard error, line by line."""
    with subprocess.Popen(
        [sys.executable, "-m", "airflow_resilient", "export", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_command_serves_until_it_is_stopped(airflow):
    with running("--airflow-url", airflow.url, "--listen", "127.0.0.1:0", "--every", "5s") as process:
        url = re.search(r"http://[\d.:]+", process.stderr.readline())[0]
        assert "heartbeat-lost: scheduler" in process.stderr.readline(), "after the first look"
        assert metrics(url)["airflow_resilient_findings", "import-error"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == "stopped\n"


def test_a_file_for_node_exporter_is_written_whole(airflow, tmp_path):
    path = tmp_path / "airflow.prom"
    with running("--airflow-url", airflow.url, "--textfile", str(path), "--every", "5s") as process:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "\nairflow_resilient_up 1.0\n" in path.read_text()
    assert [each.name for each in tmp_path.iterdir()] == ["airflow.prom"]


def test_neither_airflow_nor_a_service_is_imported(airflow, imported_by):
    script = (
        "from airflow_resilient.operations.airflow_api import AirflowApi\n"
        "from airflow_resilient.operations.export import Exporter, application\n"
        "from airflow_resilient.operations.limits import Limits\n"
        f"exporter = Exporter(AirflowApi({airflow.url!r}), Limits())\n"
        "exporter.look()\n"
        "for path in ('/', '/metrics'):\n"
        "    environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': path}\n"
        "    list(application(exporter)(environ, lambda status, headers: print(status)))\n"
    )
    assert imported_by(script) == {"httpx"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "9112"], "is no address; write HOST:PORT, such as 127.0.0.1:9112"),
        (["--listen", "x:99999"], "is no address"),
        (["--every", "1s"], "is too often: look every 5 s at most"),
        (["--every", "15m"], "is too seldom: look every 120 s at least"),
        (["--print", "nothing"], "invalid choice"),
    ],
)
def test_an_option_that_is_not_valid_is_refused(capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        main(["export", *arguments])
    assert caught.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "0.0.0.0:0"], "0.0.0.0 is not loopback, and everybody who reaches it would read"),
        (["--key", "k.pem"], "--key and --client-ca need --certificate"),
        (["--certificate", "/nowhere/c.pem"], "the certificate, key or CA cannot be used"),
        (["--textfile", "metrics.txt"], "must end with .prom"),
    ],
)
def test_it_does_not_start_where_it_would_not_be_safe(capsys, airflow, arguments, words):
    assert main(["export", "--airflow-url", airflow.url, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert airflow.asked == 0


def test_a_token_that_is_too_short_is_refused_and_not_shown(capsys, airflow, monkeypatch):
    monkeypatch.setenv("AIRFLOW_EXPORT_TOKEN", "s3cret")
    assert main(["export", "--airflow-url", airflow.url]) == 2
    printed = capsys.readouterr().err
    assert "the token is too short" in printed
    assert "s3cret" not in printed


def test_a_file_is_printed(capsys):
    assert main(["export", "--print", "grafana-dashboard.json"]) == 0
    assert json.loads(capsys.readouterr().out)["uid"] == "airflow-resilient"


def test_a_clock_that_is_set_back_stops_no_look(airflow):
    with closing(AirflowApi(airflow.url, attempts=1)) as api:
        exporter = Exporter(api, Limits(clock=1e12), now=iter([NOW, NOW - 3600, *[NOW - 3600] * 99]).__next__)
        exporter.look()
        assert exporter.is_alive
        assert exporter.began + exporter.every - exporter.steady() <= exporter.every


def test_a_first_look_begins_the_memory_so_that_a_catch_up_at_a_restart_is_not_late(exporter):
    exporter.look()
    assert exporter.last.seen.known
    assert exporter.last.seen.last == NOW


def test_more_clients_than_it_has_slots_for_are_turned_away_and_others_are_served_after_them(exporter):
    exporter.look()
    with served(exporter) as url:
        host, port = url.removeprefix("http://").split(":")
        with ExitStack() as stack:
            for _ in range(40):
                stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            with pytest.raises((OSError, HTTPException)):
                get(f"{url}/metrics")
        while True:  # until the server has noticed that they are gone
            with suppress(OSError, HTTPException):
                assert get(f"{url}/metrics")[0] == 200
                break
