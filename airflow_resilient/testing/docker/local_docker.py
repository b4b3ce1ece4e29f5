"""A real Docker engine for tests: ``dockerd`` on a unix socket, with a folder of its own.

It needs root, and from Debian ``docker.io``, ``containerd``, ``runc``, ``tini`` and ``busybox-static``;
nothing is fetched from anywhere: the only image is made of busybox.  Containers have no network but the
host's or none::

    with LocalDocker() as engine:
        client = docker.APIClient(engine.url)
        client.create_container(engine.image, ["echo", "hello"], host_config=...)
        engine.kill()   # kill -9 of dockerd: containers live on
        engine.start()

``LocalDocker(tls=True)`` listens on a port of the loopback interface, too, for any client with a certificate.
Where no engine can be started, `LocalDocker.missing` says why, and `start` raises `NoEngine`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["LocalDocker", "NoEngine"]

IMAGE = "local/busybox:1"
PACKAGES = "docker.io containerd runc tini busybox-static"
_PROGRAMS = ("dockerd", "containerd", "runc", "busybox")
_MAX_START = 600.0  # seconds; only a hang takes so long
_POLL = 0.1


class NoEngine(RuntimeError):
    """No engine can be started here; the message says why, and what to install."""


class LocalDocker:
    """A ``dockerd`` that is started for a test and stopped, by its process id, at its end.

    :param live_restore: containers outlive their engine.
    :param tls: it can be reached by TLS, too, at `tls_url`.

    :ivar url: for ``docker_url``.
    :ivar tls_url: the same for TLS, ``tcp://127.0.0.1:…``; empty without `tls`.
    :ivar image: busybox, all of whose commands are in ``/bin``.
    """

    image = IMAGE

    def __init__(self, *, live_restore: bool = True, tls: bool = False) -> None:
        self.live_restore = live_restore
        self.tls = tls
        self.tls_url = ""
        self.folder = Path()
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def missing() -> str:
        """Why no engine can be started here; empty: one may try."""
        absent = [name for name in _PROGRAMS if shutil.which(name) is None]
        if absent:
            return f"no {', '.join(absent)} here: apt-get install {PACKAGES}"
        if os.geteuid() != 0:
            return "only root may start a Docker engine"
        return ""

    @property
    def certificates(self) -> Path:
        """Folder with ``ca.pem``, ``cert.pem`` and ``key.pem`` of a client, for `tls_url`."""
        return self.folder / "certificates"

    def __enter__(self) -> Self:
        if missing := self.missing():
            raise NoEngine(missing)
        # Not below pytest's folder: the path of a socket has at most 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="docker-"))
        self.url = f"unix://{self.folder}/docker.sock"
        if self.tls:
            make_certificates(self.certificates)
            self.tls_url = f"tcp://127.0.0.1:{_free_port()}"
        try:
            self.start()
            self._make_image()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the engine's process, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start the engine, again after a `kill`, and wait until it answers.

        :raises NoEngine: it does not come up; the message has the end of its log.
        """
        settings: dict[str, Any] = {
            "hosts": [self.url],
            "data-root": str(self.folder / "data"),
            "exec-root": str(self.folder / "exec"),
            "pidfile": str(self.folder / "dockerd.pid"),
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "ip-forward": False,
            "live-restore": self.live_restore,
            # A container that would inherit a limit of a billion files takes its time to start.
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 1024}},
        }
        if self.tls:
            settings["hosts"].append(self.tls_url)
            names = {"tlscacert": "ca.pem", "tlscert": "engine.pem", "tlskey": "engine-key.pem"}
            settings.update({name: str(self.certificates / file) for name, file in names.items()})
            settings["tlsverify"] = True
        (self.folder / "dockerd.json").write_text(json.dumps(settings))
        # Left by one that was killed.  Its containerd dies with it; but where nobody collects dead processes,
        # as in many a container, the new engine takes the dead one for alive and waits for it forever.
        for left in ("dockerd.pid", "exec/containerd/containerd.pid"):
            (self.folder / left).unlink(missing_ok=True)
        with (self.folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                ["dockerd", "--config-file", str(self.folder / "dockerd.json")],  # noqa: S607 - from the path
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        until = time.monotonic() + _MAX_START
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise NoEngine(f"dockerd does not come up here. The end of its log:\n{self.log()}")
            time.sleep(_POLL)

    def kill(self) -> None:
        """End the engine at once with SIGKILL; with `live_restore` its containers run on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the engine as an upgrade does; without `live_restore` it stops its containers."""
        self._end(signal.SIGTERM)

    def log(self, lines: int = 20) -> str:
        """The end of the engine's log."""
        with contextlib.suppress(OSError):
            return "\n".join(
                (self.folder / "dockerd.log").read_text("utf-8", "replace").splitlines()[-lines:]
            )
        return ""

    def client(self) -> Any:
        """A client of the SDK, to be closed."""
        from docker import APIClient

        return APIClient(self.url)

    def close(self) -> None:
        """Remove every container, end the engine and remove its folder."""
        if not self.url:
            return
        with contextlib.suppress(Exception):
            if self.pid is None:
                self.start()
            with contextlib.closing(self.client()) as client:
                for container in client.containers(all=True):
                    client.remove_container(container["Id"], force=True, v=True)
        self._end(signal.SIGTERM)
        for mount in self._mounts():
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)  # noqa: S603, S607 - ours
        shutil.rmtree(self.folder, ignore_errors=True)
        self.url = ""

    # --- inside ---

    def _answers(self) -> bool:
        from docker.errors import DockerException

        if not (self.folder / "docker.sock").exists():
            return False
        try:
            with contextlib.closing(self.client()) as client:
                return bool(client.ping())
        except (DockerException, OSError):
            return False

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _mounts(self) -> list[str]:
        """What is still mounted below our folder, innermost first."""
        with contextlib.suppress(OSError):
            mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
            return sorted((each for each in mounts if each.startswith(f"{self.folder}/")), reverse=True)
        return []

    def _make_image(self) -> None:
        """Make the image of busybox, without a registry.

        :raises NoEngine: this busybox needs libraries, which the image does not have.
        """
        busybox = shutil.which("busybox") or ""
        program = Path(busybox).read_bytes()
        if b"/ld-linux" in program[:4096] or b"/ld-musl" in program[:4096]:
            raise NoEngine(f"{busybox} needs libraries: apt-get install busybox-static")
        commands = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True)  # noqa: S603 - found above
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            about = tarfile.TarInfo("bin/busybox")
            about.size, about.mode = len(program), 0o755
            archive.addfile(about, io.BytesIO(program))
            for name in sorted({*commands.stdout.split()} - {"busybox"}):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
            folder = tarfile.TarInfo("tmp")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(folder)
        repository, tag = IMAGE.split(":")
        with contextlib.closing(self.client()) as client:
            client.import_image_from_data(
                packed.getvalue(), repository=repository, tag=tag, changes=["ENV PATH=/bin"]
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_certificates(folder: Path) -> None:
    """Write what TLS on the loopback interface needs for a day.

    These are a certificate authority (``ca.pem``), and certificates with their keys for an engine
    (``engine.pem``, ``engine-key.pem``) and for a client (``cert.pem``, ``key.pem``), with all that
    OpenSSL's strict check wants, which is Python's default from 3.13 on (``VERIFY_X509_STRICT``).
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    folder.mkdir(mode=0o700)
    now = datetime.now(timezone.utc)

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def signed(name: str, key: Any, by: Any, *extensions: tuple[x509.ExtensionType, bool]) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )
        its_own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key())
        for extension, critical in (*extensions, (its_own, False), (issuers, False)):
            builder = builder.add_extension(extension, critical)
        return builder.sign(by, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    authority, engine, client = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")])
    uses = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    more = ("key_agreement", "crl_sign", "encipher_only", "decipher_only")
    may_sign = x509.KeyUsage(key_cert_sign=True, **dict.fromkeys((*uses, *more), False))
    serves, asks = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    files = {
        "ca.pem": signed(
            "authority", authority, authority, (x509.BasicConstraints(True, None), True), (may_sign, True)
        ),
        "engine.pem": signed(
            "engine", engine, authority, (here, False), (x509.ExtendedKeyUsage([serves]), False)
        ),
        "cert.pem": signed("client", client, authority, (x509.ExtendedKeyUsage([asks]), False)),
        **{
            file: key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            for file, key in (("engine-key.pem", engine), ("key.pem", client))
        },
    }
    for file, content in files.items():
        (folder / file).write_bytes(content)
