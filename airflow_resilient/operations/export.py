"""``airflow-resilient export``: look at an Airflow again and again, for Prometheus and for people.

It needs Airflow's REST API and nothing else: it does not import Airflow, and works while a scheduler does
not. There is one look at a time, however many ask.

It uses prometheus_client, the official library for this format, and Jinja, which Airflow depends on; both
are imported when the command starts.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import ipaddress
import os
import signal
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.text import error_text
from .alerts import RUNBOOKS
from .check import ANSWER_SECONDS, ATTEMPTS, add_limit_options, limits_of
from .command import Command, ExitCode
from .examine import examine
from .exported_metrics import COMPLETE, FAILED, INCOMPLETE, METRICS, SILENT, Exported
from .first_seen import FirstSeen
from .options import add_airflow_options, api_of, duration
from .page import render
from .recent import FIRST_LOOK_BACK
from .shipped_files import NAMES, text_of
from .task_instances import AirflowApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .airflow_api import AirflowApi
    from .limits import Limits

DEFAULT_ADDRESS = "127.0.0.1:9112"
DEFAULT_EVERY = 30.0
SHORTEST_EVERY, LONGEST_EVERY = 5.0, 120.0
TOKEN_VARIABLE = "AIRFLOW_EXPORT_TOKEN"  # noqa: S105 - its name
_OVERLAP_SECONDS = 60.0  # what ended while the look before was taken, by another clock
_STALE_LOOKS = 4  # after so many intervals without a look, nothing is exported of the last one
_STALE_SECONDS = 120.0
_SHORTEST_TOKEN = 16
_MAX_CONNECTIONS = 32
_HIGHEST_PORT = 65_535


@dataclass(eq=False)
class Exporter:
    """Looks at one Airflow, and keeps what is exported.

    :param every: seconds from the begin of a look to the begin of the next one.
    :param memory: file with what was seen; ``None``: it is kept in this process.
    :param report: called with each sentence for the log.
    """

    api: AirflowApi
    limits: Limits
    every: float = DEFAULT_EVERY
    memory: Path | None = None
    report: Callable[[str], object] = str
    now: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic  # a clock that nobody sets
    last: Exported = field(default_factory=Exported)
    began: float = 0.0
    _looks: Counter[str] = field(default_factory=Counter)

    def look(self) -> Exported:
        """Take one look, and keep what it shows. It raises nothing."""
        before = self.last
        self.began, now = self.steady(), self.now()
        since = now - FIRST_LOOK_BACK if before.answered is None else before.answered - _OVERLAP_SECONDS
        # What lasts counts from the first look: without that, a catch-up at a restart would be late.
        seen = before.seen or FirstSeen(self.api.url, last=now, looked=now)
        try:
            examined = examine(self.api, self.limits, self.memory, seen=seen, ended_since=since, now=self.now)
        except Exception as error:  # noqa: BLE001 - the next look may succeed, and this one is counted
            self.report(f"the look has failed: {error_text(error)}")
            self._looks[FAILED] += 1
            found = replace(before, snapshot=None, findings=())
        else:
            snapshot = examined.snapshot
            outcome = SILENT if snapshot.silent else INCOMPLETE if snapshot.gaps else COMPLETE
            self._looks[outcome] += 1
            found = Exported(
                snapshot,
                examined.findings,
                examined.seen,
                before.recent if snapshot.silent else before.recent.after(snapshot),
                answered=before.answered if snapshot.silent else snapshot.taken,
            )
            self._say(before, found)
        self.last = replace(found, looks=dict(self._looks), requests=self.api.requests)
        self.api.close()  # a login ends, and another API server may answer
        return self.last

    def _say(self, before: Exported, found: Exported) -> None:
        """Log what is new, and what is over."""
        old, new = ({each.key: each for each in exported.findings} for exported in (before, found))
        for key, each in new.items():
            if key not in old:
                self.report(f"{each.severity.value} {each.kind.value}: {each.subject}: {each.evidence}")
        for key, each in old.items():
            if key not in new:
                self.report(f"over: {each.kind.value}: {each.subject}")

    def run(self, after: Callable[[Exported], object] = str) -> None:
        """Look until it is interrupted.

        :param after: called with what each look has shown.
        """
        while True:
            after(self.look())
            time.sleep(max(0.0, self.began + self.every - self.steady()))

    @property
    def is_alive(self) -> bool:
        """Whether looks go on."""
        return self.steady() - self.began <= max(_STALE_LOOKS * self.every, _STALE_SECONDS)

    @property
    def current(self) -> Exported:
        """What is exported now: nothing of Airflow, if looks do not go on."""
        return self.last if self.is_alive else replace(self.last, snapshot=None, findings=())

    def collect(self) -> Iterator[Any]:
        """The metrics, for a registry of prometheus_client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        exported = self.current
        for metric in METRICS:
            kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
            family = kind(metric.full_name, metric.about, labels=metric.labels)
            for labels, value in metric.bounded(exported):
                family.add_metric(labels, value)
            yield family


def application(exporter: Exporter, token: str = "") -> Callable[..., Iterable[bytes]]:
    """The WSGI application: ``/metrics``, ``/healthz``, and a page for people at ``/``.

    :param token: wanted as a bearer token, or as the password of basic authentication; empty: none is.
    """
    from prometheus_client import CollectorRegistry, make_wsgi_app

    registry = CollectorRegistry()
    registry.register(exporter)
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def answer(start: Callable[..., Any], status: str, text: str, *more: tuple[str, str]) -> Iterable[bytes]:
        kind = "text/html" if text.startswith("<") else "text/plain"
        headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Cache-Control", "no-store"), *more]
        start(status, headers)
        return [text.encode()]

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return answer(start, "405 Method Not Allowed", "only GET\n")
        if path == "/healthz":  # for the probe of an orchestrator: it tells nothing of Airflow
            alive = exporter.is_alive
            return answer(start, "200 OK" if alive else "503 Service Unavailable", f"looking: {alive}\n")
        if token and not is_allowed(environ.get("HTTP_AUTHORIZATION", ""), token):
            wanted = ("WWW-Authenticate", 'Basic realm="airflow-resilient"')
            return answer(start, "401 Unauthorized", "a token is required\n", wanted)
        if path == "/metrics":
            return metrics(environ, start)
        if path == "/":
            text = render(exporter.current, exporter.every, exporter.now())
            policy = ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
            return answer(start, "200 OK", text, policy, ("X-Frame-Options", "DENY"))
        return answer(start, "404 Not Found", "try / or /metrics\n")

    return app


def is_allowed(header: str, token: str) -> bool:
    """Whether an ``Authorization`` header carries the token.

    >>> is_allowed("Bearer 0123456789abcdef", "0123456789abcdef"), is_allowed("Bearer no", "0123456789abcdef")
    (True, False)
    """
    kind, _, given = header.partition(" ")
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())


def listening_problem(host: str, *, clients_known: bool, token: str) -> str:
    """Why it may not listen there; empty: it may.

    What is exported names DAGs, tasks and hosts.

    :param clients_known: they show a certificate.

    >>> listening_problem("127.0.0.1", clients_known=False, token="")
    ''
    """
    if token and len(token) < _SHORTEST_TOKEN:
        return f"the token is too short: give it {_SHORTEST_TOKEN} characters or more"
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if loopback or token or clients_known:
        return ""
    return (
        f"{host} is not loopback, and everybody who reaches it would read the names of DAGs and hosts: set "
        f"{TOKEN_VARIABLE}, or pass --certificate, --key and --client-ca"
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address; write HOST:PORT, such as {DEFAULT_ADDRESS}"
        )
    return host, int(port)


def _every(text: str) -> float:
    found = duration(text)
    if found > LONGEST_EVERY:
        raise argparse.ArgumentTypeError(f"{text!r} is too seldom: look every {LONGEST_EVERY:.0f} s at least")
    if found < SHORTEST_EVERY:
        raise argparse.ArgumentTypeError(f"{text!r} is too often: look every {SHORTEST_EVERY:.0f} s at most")
    return found


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        type=_address,
        metavar="HOST:PORT",
        help=f"where /metrics and the page are served (default: {DEFAULT_ADDRESS}; with --textfile nowhere)",
    )
    parser.add_argument(
        "--textfile",
        type=Path,
        metavar="FILE",
        help="write the metrics to this file after each look, for the textfile collector of node_exporter; "
        "its name ends with .prom",
    )
    parser.add_argument(
        "--every", type=_every, default=DEFAULT_EVERY, metavar="TIME", help="between looks (default: 30s)"
    )
    parser.add_argument(
        "--memory",
        type=Path,
        metavar="FILE",
        help="what was seen, so that it survives a restart; it is made, and replaced",
    )
    add_limit_options(parser)
    files = parser.add_argument_group("files for Prometheus, Alertmanager, Grafana, systemd and Kubernetes")
    files.add_argument("--print", choices=NAMES, metavar="FILE", help=f"print one of {', '.join(NAMES)}")
    files.add_argument(
        "--runbooks",
        default=RUNBOOKS,
        metavar="URL",
        help="in the rules: what begins the URL of each runbook",
    )
    access = parser.add_argument_group(
        "who may read it", f"or a token in the environment variable {TOKEN_VARIABLE}"
    )
    access.add_argument("--certificate", type=Path, metavar="FILE", help="serve HTTPS: certificate, in PEM")
    access.add_argument("--key", type=Path, metavar="FILE", help="its key, in PEM")
    access.add_argument(
        "--client-ca", type=Path, metavar="FILE", help="clients need a certificate of this CA"
    )
    add_airflow_options(parser)


def _tls(options: argparse.Namespace) -> ssl.SSLContext | None:
    """The TLS context of the options; ``None``: plain HTTP.

    :raises AirflowApiError: the options do not fit together, or a file cannot be used.
    """
    if not options.certificate:
        if options.key or options.client_ca:
            raise AirflowApiError("--key and --client-ca need --certificate")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(options.certificate, options.key)
        if options.client_ca:
            context.load_verify_locations(options.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise AirflowApiError(f"the certificate, key or CA cannot be used: {error}") from None
    return context


def serve(
    exporter: Exporter, host: str, port: int, *, token: str = "", tls: ssl.SSLContext | None = None
) -> Any:
    """A server for the exporter, which listens already; call its ``serve_forever``.

    :raises AirflowApiError: it cannot listen there.
    """
    import socket
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True
        slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)

        def process_request(self, request: Any, client_address: Any) -> None:
            if self.slots.acquire(blocking=False):
                super().process_request(request, client_address)
            else:  # looks need connections, too
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.slots.release()

        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, *_: Any) -> None:
            """Ignore a client that goes, or does not speak TLS: wsgiref itself reports errors of ours."""

    class Handler(WSGIRequestHandler):
        timeout = 10.0  # of a client that sends nothing

        def setup(self) -> None:
            self.request.settimeout(self.timeout)
            if tls is not None:  # here and not in the accepting thread, which a slow client would hold
                self.request = tls.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            if tls is not None:
                self.request.close()

        def log_message(self, *_: Any) -> None:
            pass

    try:
        server = Server((host, port), Handler)
    except OSError as error:
        raise AirflowApiError(f"it cannot listen on {host}:{port}: {error}") from None
    server.set_app(application(exporter, token))
    return server


def _run(options: argparse.Namespace) -> tuple[str, ExitCode]:
    if options.print:
        return text_of(options.print, options.runbooks).rstrip("\n"), ExitCode.DONE
    try:
        import prometheus_client
    except ImportError:
        raise AirflowApiError(
            "prometheus_client is not installed: pip install 'airflow-resilient[exporter]'"
        ) from None
    token = os.environ.get(TOKEN_VARIABLE, "")
    address = options.listen or (None if options.textfile else _address(DEFAULT_ADDRESS))
    tls = _tls(options)
    problem = (
        listening_problem(address[0], clients_known=bool(options.client_ca), token=token) if address else ""
    )
    if options.textfile and options.textfile.suffix != ".prom":
        problem = f"{options.textfile} must end with .prom: node_exporter reads no other file"
    if problem:
        raise AirflowApiError(problem)

    def report(text: str) -> None:
        sys.stderr.write(f"airflow-resilient: {text}\n")
        sys.stderr.flush()

    exporter = Exporter(
        api_of(options, timeout=ANSWER_SECONDS, attempts=ATTEMPTS),
        limits_of(options),
        options.every,
        options.memory,
        report,
    )
    registry = prometheus_client.CollectorRegistry()
    registry.register(exporter)

    def write(_: Exported) -> None:
        if options.textfile:
            try:
                prometheus_client.write_to_textfile(str(options.textfile), registry)
            except OSError as error:
                report(f"{options.textfile} cannot be written: {error}")

    server = serve(exporter, *address, token=token, tls=tls) if address else None
    # As Control-C: an event that is set here could not be waited for in the same thread.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if server is not None and address is not None:
            scheme = "https" if tls else "http"
            report(f"listening on {scheme}://{address[0]}:{server.server_port}/")
            threading.Thread(target=server.serve_forever, daemon=True).start()
        exporter.run(write)
    except KeyboardInterrupt:
        pass
    finally:
        exporter.api.close()
    return "stopped", ExitCode.DONE


COMMAND = Command(
    name="export",
    summary="look at an Airflow again and again, and serve what is wrong, metrics for Prometheus, and a page",
    description="Look at an Airflow over its REST API every 30 seconds, and serve Prometheus metrics at "
    "/metrics and a page for people at /. It changes nothing.",
    exit_codes="0 it was stopped, 2 it could not start",
    add_options=_add_options,
    run=_run,
)
