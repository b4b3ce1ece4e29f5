"""A fake Docker engine on a unix socket: real HTTP, no containers, and faults on demand.

::

    with FakeDocker() as engine:
        engine.plan("etl:7", seconds=None, lines=["one", "two"])
        engine.fail_next("create", carried_out=True, drop=True)  # created, and the answer is lost
        ...
        engine.finish(container_id, exit_code=0)

It answers as Docker 20.10 does, or with `podman` as podman 4.3 where that differs.  Each call stands in
`calls`.
Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import tarfile
import tempfile
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["ContainerPlan", "FakeContainer", "FakeDocker"]

EVENTS = 256
"""How many events an engine knows. Source: ``eventsLimit`` in ``daemon/events/events.go`` of moby."""
_PIECE = 16 * 1024
_NEVER = "0001-01-01T00:00:00Z"
_BILLION = 10**9
_PATHS = (
    ("ping", "GET|HEAD", r"/_ping"),
    ("version", "GET", r"/version"),
    ("info", "GET", r"/info"),
    ("events", "GET", r"/events"),
    ("network", "GET", r"/networks/(?P<name>[^/]+)"),
    ("list", "GET", r"/containers/json"),
    ("create", "POST", r"/containers/create"),
    ("pull", "POST", r"/images/create"),
    ("login", "POST", r"/auth"),
    ("inspect", "GET", r"/containers/(?P<name>[^/]+)/json"),
    ("logs", "GET", r"/containers/(?P<name>[^/]+)/logs"),
    ("archive", "GET", r"/containers/(?P<name>[^/]+)/archive"),
    ("extract", "PUT", r"/containers/(?P<name>[^/]+)/archive"),
    ("start", "POST", r"/containers/(?P<name>[^/]+)/start"),
    ("stop", "POST", r"/containers/(?P<name>[^/]+)/stop"),
    ("rename", "POST", r"/containers/(?P<name>[^/]+)/rename"),
    ("remove", "DELETE", r"/containers/(?P<name>[^/]+)"),
)


@dataclass(frozen=True)
class ContainerPlan:
    """How containers of an image go.

    :param seconds: how long they run; ``None``: until `FakeDocker.finish` or a stop.
    :param lines: what they write, all at their start.
    :param stop_code: exit code with which they end when they are stopped.
    :param start_error: why they cannot be started, with `exit_code`.
    :param files: content of files in them.
    """

    seconds: float | None = None
    exit_code: int = 0
    lines: Sequence[str] = ()
    stop_code: int = 143
    out_of_memory: bool = False
    start_error: str = ""
    files: tuple[tuple[str, bytes], ...] = ()


@dataclass
class FakeContainer:
    """What really became of one container. Times are seconds since 1970.

    :ivar modes: of files and folders that were copied into it.
    :ivar grace: seconds that a stop has given it before it would be killed; ``None`` without a stop.
    """

    id: str
    name: str
    body: dict[str, Any]
    plan: ContainerPlan
    created: float
    status: str = "created"
    exit_code: int = 0
    error: str = ""
    started: float | None = None
    finished: float | None = None
    out_of_memory: bool = False
    grace: int | None = None
    log: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Nanoseconds since 1970, 1 for standard output or 2 for standard error, and a piece of a line."""
    modes: dict[str, int] = field(default_factory=dict)

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return self.body.get("Labels") or {}

    @property
    def environment(self) -> dict[str, str]:
        """Its variables."""
        return dict(each.partition("=")[::2] for each in self.body.get("Env") or [])


@dataclass
class _Fault:
    operation: str
    status: int
    message: str
    carried_out: bool
    drop: bool
    cut: bool
    slow: float
    times: int | None


class _Answer(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class FakeDocker:
    """An engine without containers.

    :param podman: a taken name is refused with 500, and log lines have whole seconds.
    :param engine_id: what the engine calls itself.
    :param live_restore: it says that its containers outlive it.
    :param bridge: it has the network of this name, which is as old as its last start.

    :ivar url: for ``docker_url``.
    :ivar containers: those that are there, by id.
    :ivar made: all that were ever made, in order.
    :ivar calls: operations in the order in which they came, such as ``["create", "start"]``.
    :ivar images: names with tags that need no pull.
    """

    def __init__(
        self,
        *,
        podman: bool = False,
        engine_id: str = "FAKE",
        live_restore: bool = False,
        bridge: bool = True,
    ) -> None:
        self.podman = podman
        self.engine_id = engine_id
        self.live_restore = live_restore
        self.bridge = bridge
        self.opened = 0.0
        self.containers: dict[str, FakeContainer] = {}
        self.made: list[FakeContainer] = []
        self.calls: list[str] = []
        self.images: set[str] = set()
        self.registry: set[str] = set()
        self.registry_error = ""
        self.logins: list[dict[str, Any]] = []
        self.url = ""
        self._plans: dict[str, ContainerPlan] = {}
        self._faults: list[_Fault] = []
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._offset = 0.0
        self._lock = threading.RLock()
        self._server: _Server | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="fake-docker-")
        self.url = f"unix://{self._folder.name}/docker.sock"
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if self._folder is not None:
            self._folder.cleanup()

    # --- plans and control ---

    def now(self) -> float:
        """The engine's time, in seconds since 1970."""
        return time.time() + self._offset

    def advance(self, seconds: float) -> None:
        """Let time pass for the engine."""
        self._offset += seconds

    def plan(self, image: str, **fields: Any) -> None:
        """Say how containers of `image` go (see `ContainerPlan`); the engine then has it."""
        self._plans[image] = ContainerPlan(**fields)
        self.images.add(image)

    def open(self) -> None:
        """Answer (again)."""
        self.opened = self.now()
        path = self.url.removeprefix("unix://")
        Path(path).unlink(missing_ok=True)
        self._server = _Server(path, self)
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self) -> None:
        """Answer no more; containers go on. A new engine knows no events."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.drop_all()
            Path(self.url.removeprefix("unix://")).unlink(missing_ok=True)
        self._events.clear()

    def fail_next(
        self,
        operation: str,
        *,
        status: int = 500,
        message: str = "server error, as the test asked",
        carried_out: bool = False,
        drop: bool = False,
        cut: bool = False,
        slow: float = 0.0,
        times: int | None = 1,
    ) -> None:
        """Let something go wrong.

        :param operation: ``create``, ``logs`` ... as in `calls`, or ``*``.
        :param carried_out: it is done all the same; only the answer is bad.
        :param drop: the connection is closed instead of an answer.
        :param cut: the connection is closed in the middle of the answer.
        :param slow: the answer is right, and comes after so many seconds.
        :param times: how often; ``None``: until `heal`.
        """
        self._faults.append(_Fault(operation, status, message, carried_out, drop, cut, slow, times))

    def heal(self) -> None:
        """End all faults."""
        self._faults.clear()

    def write(self, container: str, *lines: str, at: float | None = None, stderr: bool = False) -> None:
        """Let a container write lines, all at the same time.

        A long line is stored in pieces, wherever a character ends, as the engine does it.
        Source: ``defaultBufSize`` and ``Copier.copySrc`` in ``daemon/logger/copier.go`` of moby.
        """
        moment = int((self.now() if at is None else at) * _BILLION)
        for line in lines:
            text = line.encode()
            whole = len(text) // _PIECE * _PIECE
            pieces = [text[start : start + _PIECE] for start in range(0, whole, _PIECE)]
            self._get(container).log += [
                (moment, 2 if stderr else 1, piece) for piece in (*pieces, text[whole:] + b"\n")
            ]

    def finish(self, container: str, exit_code: int = 0, *, out_of_memory: bool = False) -> None:
        """Let a container end by itself."""
        self._end(self._get(container), exit_code, out_of_memory=out_of_memory)

    def signal(self, container: str, number: int = 15, exit_code: int = 143) -> None:
        """Let somebody end a container with ``docker kill``."""
        one = self._get(container)
        self._event(one, "kill", signal=str(number))
        self._end(one, exit_code)

    def remove(self, container: str) -> None:
        """Let somebody remove a container, whatever it does."""
        del self.containers[self._get(container).id]

    def live(self) -> list[FakeContainer]:
        """The containers that run."""
        self._settle()
        return [one for one in self.containers.values() if one.status == "running"]

    # --- answers ---

    def answer(self, operation: str, name: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """What the engine says to one call: status, and a value for JSON or bytes."""
        with self._lock:
            self._settle()
            try:
                found: tuple[int, Any] = getattr(self, f"_do_{operation}")(name, query, body)
            except _Answer as answer:
                return answer.status, {"message": answer.message}
            return found

    def take_fault(self, operation: str) -> _Fault | None:
        """Use up one fault for this call, if there is one for it."""
        with self._lock:
            self.calls.append(operation)
            for fault in self._faults:
                if fault.operation in (operation, "*"):
                    if fault.times is not None:
                        fault.times -= 1
                        if not fault.times:
                            self._faults.remove(fault)
                    return fault
        return None

    def _do_ping(self, *_: Any) -> tuple[int, Any]:
        return 200, b"OK"

    def _do_version(self, *_: Any) -> tuple[int, Any]:
        name = "Podman Engine" if self.podman else "Engine"
        return 200, {"ApiVersion": "1.44", "MinAPIVersion": "1.12", "Components": [{"Name": name}]}

    def _do_info(self, *_: Any) -> tuple[int, Any]:
        engine_id = uuid.uuid4().hex if self.podman else self.engine_id
        return 200, {"ID": engine_id, "LiveRestoreEnabled": self.live_restore}

    def _do_network(self, name: str, *_: Any) -> tuple[int, Any]:
        if name != "bridge" or not self.bridge:
            raise _Answer(404, f"network {name} not found")
        return 200, {"Name": name, "Created": _stamp(self.opened)}

    def _do_login(self, _: str, __: Any, body: Any) -> tuple[int, Any]:
        self.logins.append(body)
        return 200, {"Status": "Login Succeeded"}

    def _do_pull(self, _: str, query: dict[str, str], __: Any) -> tuple[int, Any]:
        image = f"{query['fromImage']}:{query.get('tag') or 'latest'}"
        lines = [{"status": f"Pulling from {query['fromImage']}", "id": query.get("tag")}]
        if self.registry_error:
            lines.append({"error": self.registry_error})
        elif image in self.registry:
            self.images.add(image)
        else:
            raise _Answer(404, f"manifest for {image} not found: manifest unknown: manifest unknown")
        return 200, b"".join(json.dumps(line).encode() + b"\r\n" for line in lines)

    def _do_events(self, _: str, query: dict[str, str], __: Any) -> tuple[int, Any]:
        filters = json.loads(query.get("filters") or "{}")
        since, until = (int(float(query[key]) * _BILLION) for key in ("since", "until"))
        events = [
            event
            for event in self._events
            if since <= event["timeNano"] <= until
            and event["Actor"]["ID"] in filters.get("container", [event["Actor"]["ID"]])
            and event["Action"] in filters.get("event", [event["Action"]])
        ]
        # Go escapes fewer characters than Python.
        return 200, b"".join(json.dumps(event, ensure_ascii=False).encode() + b"\n" for event in events)

    def _do_list(self, _: str, query: dict[str, str], __: Any) -> tuple[int, Any]:
        filters = json.loads(query.get("filters") or "{}")
        found = []
        for one in self.containers.values():
            labels = {f"{key}={value}" for key, value in one.labels.items()} | set(one.labels)
            if (
                any(one.id.startswith(wanted) for wanted in filters.get("id", [one.id]))
                and set(filters.get("label", [])) <= labels
                and one.status in filters.get("status", [one.status])
            ):
                about = {"Id": one.id, "Names": [f"/{one.name}"], "Labels": one.labels, "State": one.status}
                found.append(about)
        return 200, found

    def _do_create(self, _: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        name, image = query.get("name") or uuid.uuid4().hex, str(body["Image"])
        if image not in self.images and f"{image}:latest" not in self.images:
            raise _Answer(404, f"No such image: {image}")
        self._claim_name(name)
        plan = self._plans.get(image, ContainerPlan())
        one = FakeContainer(uuid.uuid4().hex * 2, name, body, plan, self.now())
        self.containers[one.id] = one
        self.made.append(one)
        return 201, {"Id": one.id, "Warnings": []}

    def _do_inspect(self, name: str, *_: Any) -> tuple[int, Any]:
        one = self._get(name)
        state = {
            "Status": one.status,
            "ExitCode": one.exit_code,
            "Error": one.error,
            "OOMKilled": one.out_of_memory,
            "StartedAt": _stamp(one.started),
            "FinishedAt": _stamp(one.finished),
        }
        config = {
            "Labels": one.labels,
            "Tty": bool(one.body.get("Tty")),
            "Image": one.body["Image"],
            "User": one.body.get("User") or "",
        }
        config |= {name: one.body.get(name) for name in ("Env", "Cmd", "Entrypoint")}
        return 200, {
            "Id": one.id,
            "Name": f"/{one.name}",
            "Created": _stamp(one.created),
            "State": state,
            "Config": config,
            "HostConfig": {"Mounts": (one.body.get("HostConfig") or {}).get("Mounts")},
        }

    def _do_start(self, name: str, *_: Any) -> tuple[int, Any]:
        one = self._get(name)
        if one.status == "running":
            return 304, b""
        if one.plan.start_error:
            one.error, one.exit_code = one.plan.start_error, one.plan.exit_code
            raise _Answer(400, one.plan.start_error)
        one.status, one.started = "running", self.now()
        self.write(one.id, *one.plan.lines)
        return 204, b""

    def _do_stop(self, name: str, query: dict[str, str], _: Any) -> tuple[int, Any]:
        one = self._get(name)
        one.grace = int(query.get("t", 10))
        if one.status != "running":
            return 304, b""
        self._event(one, "kill", signal="15")
        self._end(one, one.plan.stop_code)
        self._event(one, "stop")
        return 204, b""

    def _do_rename(self, name: str, query: dict[str, str], _: Any) -> tuple[int, Any]:
        one = self._get(name)
        self._claim_name(query["name"])
        one.name = query["name"]
        return 204, b""

    def _do_remove(self, name: str, query: dict[str, str], _: Any) -> tuple[int, Any]:
        one = self._get(name)
        if one.status == "running" and query.get("force", "").lower() not in ("1", "true"):
            raise _Answer(409, f"You cannot remove a running container {one.id}.")
        del self.containers[one.id]
        return 204, b""

    def _do_logs(self, name: str, query: dict[str, str], _: Any) -> tuple[int, Any]:
        one = self._get(name)
        since = int(query["since"].partition(".")[0]) * _BILLION if query.get("since") else 0
        since += int((query.get("since", "").partition(".")[2] or "0")[:9].ljust(9, "0"))
        written = [each for each in one.log if each[0] >= since]
        if query.get("tail", "all") != "all":
            written = written[-int(query["tail"]) :]
        out = b""
        for at, stream, piece in written:
            text = f"{_stamp(at / _BILLION) if self.podman else _stamp_of(at)} ".encode() + piece
            framed = bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text
            out += text if one.body.get("Tty") else framed
        return 200, out

    def _do_archive(self, name: str, query: dict[str, str], _: Any) -> tuple[int, Any]:
        path = query["path"]
        content = dict(self._get(name).plan.files).get(path)
        if content is None:
            raise _Answer(404, f"Could not find the file {path} in container {name}")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            about = tarfile.TarInfo(Path(path).name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
        return 200, packed.getvalue()

    def _do_extract(self, name: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        folder = query["path"].rstrip("/")
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            modes = {f"{folder}/{each.name}": each.mode for each in archive.getmembers()}
        self._get(name).modes.update(modes)
        return 200, b""

    # --- inside ---

    def _get(self, name: str) -> FakeContainer:
        for one in self.containers.values():
            if name in (one.id, one.name):
                return one
        raise _Answer(404, f"No such container: {name}")

    def _claim_name(self, name: str) -> None:
        holder = next((one for one in self.containers.values() if one.name == name), None)
        if holder is not None and self.podman:
            raise _Answer(
                500,
                f'creating container storage: the container name "{name}" is already in use by {holder.id}. '
                "You have to remove that container to be able to reuse that name",
            )
        if holder is not None:
            raise _Answer(
                409, f'Conflict. The container name "/{name}" is already in use by container "{holder.id}".'
            )

    def _settle(self) -> None:
        for one in list(self.containers.values()):
            if one.status == "running" and one.plan.seconds is not None and one.started is not None:
                ends = one.started + one.plan.seconds
                if ends <= self.now():
                    self._end(one, one.plan.exit_code, out_of_memory=one.plan.out_of_memory, at=ends)

    def _end(
        self, one: FakeContainer, code: int, *, out_of_memory: bool = False, at: float | None = None
    ) -> None:
        one.status, one.exit_code, one.out_of_memory = "exited", code, out_of_memory
        one.finished = self.now() if at is None else at
        self._event(one, "die", exitCode=str(code))

    def _event(self, one: FakeContainer, action: str, **attributes: str) -> None:
        self._events.append(
            {
                "Type": "container",
                "Action": action,
                "Actor": {"ID": one.id, "Attributes": {**one.labels, "name": one.name, **attributes}},
                "timeNano": int(self.now() * _BILLION),
            }
        )


def _stamp(seconds: float | None) -> str:
    """A time as the engine writes it."""
    return _NEVER if seconds is None else _stamp_of(int(seconds * _BILLION))


def _stamp_of(nanoseconds: int) -> str:
    whole = datetime.fromtimestamp(nanoseconds // _BILLION, timezone.utc)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{nanoseconds % _BILLION:09d}Z"


class _Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: str, engine: FakeDocker) -> None:
        self.engine = engine
        self.open_sockets: set[socket.socket] = set()
        super().__init__(path, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open_sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open_sockets.discard(request)
        super().shutdown_request(request)

    def drop_all(self) -> None:
        """Close every connection, as the end of a process does."""
        for each in list(self.open_sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client may go away at any time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        url = urlsplit(self.path)
        path = re.sub(r"^/v\d+\.\d+", "", url.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        engine = self.server.engine
        known = (
            (operation, found)
            for operation, methods, pattern in _PATHS
            if self.command in methods.split("|") and (found := re.fullmatch(pattern, path))
        )
        operation, found = next(known, ("", None))
        if found is None:
            self._send(501, {"message": f"the fake engine does not know {self.command} {path}"})
            return
        fault = engine.take_fault(operation)
        body = raw if operation == "extract" else json.loads(raw) if raw and raw[:1] in b"{[" else None
        name = unquote(found.groupdict().get("name") or "")
        if fault is not None and fault.slow:
            time.sleep(fault.slow)
        if fault is None or fault.carried_out or fault.cut or fault.slow:
            status, content = engine.answer(operation, name, query, body)
            if fault is None or fault.slow:
                self._send(status, content)
                return
            if fault.cut:
                self._send(status, content, cut=True)
                return
        if fault.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(fault.status, {"message": fault.message})

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815 - the names that http.server calls

    def _send(self, status: int, content: Any, *, cut: bool = False) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if self.command == "HEAD" or status in (204, 304):
            self.end_headers()
            return
        streamed = re.search(r"/(events|logs|images/create)($|\?)", self.path) is not None
        whole = data
        data = data[: len(data) // 2] if cut else data
        if streamed:
            self.send_header("Transfer-Encoding", "chunked")
            data = b"%x\r\n%s\r\n" % (len(data), data) if data else b""
            data += b"" if cut else b"0\r\n\r\n"
        else:
            self.send_header("Content-Length", str(len(whole)))
        if self.path.partition("?")[0].endswith("/archive"):
            self.send_header("X-Docker-Container-Path-Stat", _archive_stat(whole))
        self.end_headers()
        self.wfile.write(data)
        if cut:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


def _archive_stat(packed: bytes) -> str:
    import base64

    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        about = archive.getmembers()[0]
        return base64.b64encode(json.dumps({"name": about.name, "size": about.size}).encode()).decode()
    return ""
