"""A PostgreSQL and a Redis of our own: started on loopback with a directory of their own, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

USER = "airflow"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    # The data lives as long as the test: a crash of the machine may lose it.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


def required() -> bool:
    """Say whether a server that is not installed is a failure: in CI, where nobody would notice a skip."""
    return bool(os.environ.get("CI"))


def postgresql_programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: the newest of Debian's, or the one on PATH."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(versions, key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0)
    found = newest[-1] if newest else shutil.which("initdb")
    return Path(found).parent if found else None


def redis_program() -> str | None:
    """The path of ``redis-server``, or ``None`` if it is not installed."""
    return shutil.which("redis-server")


@contextlib.contextmanager
def postgresql(*databases: str) -> Iterator[Callable[[str], str]]:
    """Start a PostgreSQL with these databases.

    :return: a function from a database's name to its URL for SQLAlchemy.
    """
    programs = postgresql_programs()
    if programs is None:
        raise RuntimeError("no PostgreSQL here: install the Debian package postgresql")
    with tempfile.TemporaryDirectory(prefix="postgresql-") as folder:
        home, port = Path(folder), free_port()
        user = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            account = pwd.getpwnam("postgres")
            os.chown(home, account.pw_uid, account.pw_gid)
        run(
            [programs / "initdb", "-D", home / "data", "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"],
            **user,
        )
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [programs / "postgres", "-D", home / "data", "-p", str(port), "-k", home, *settings]
        with server(command, home / "log", lambda: answers(port), **user):
            psql = [programs / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", USER, "-d", "postgres"]
            # It listens before it has recovered; psql is refused until then.
            wait_until(lambda: ran([*psql, "-c", "SELECT 1"]), "PostgreSQL answers", home / "log")
            for database in databases:
                run([*psql, "-c", f'CREATE DATABASE "{database}"'])
            yield lambda database: f"postgresql+psycopg2://{USER}@127.0.0.1:{port}/{database}"


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Start a Redis.

    :return: its URL.
    """
    program = redis_program()
    if program is None:
        raise RuntimeError("no Redis here: install the Debian package redis-server")
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        port = free_port()
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with server(command, Path(folder) / "log", lambda: answers(port)):
            yield f"redis://127.0.0.1:{port}/0"


@contextlib.contextmanager
def server(
    command: Sequence[str | Path], log: Path, ready: Callable[[], bool], **user: object
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; SIGINT is a fast and clean stop for both."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **user,  # type: ignore[call-overload]
        )
    try:
        wait_until(lambda: process.poll() is not None or ready(), f"{command[0]} listens", log)
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(2)
        try:
            process.wait(HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(HANG)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def run(command: Sequence[str | Path], **user: object) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
        cwd="/",
        **user,  # type: ignore[call-overload]
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def ran(command: Sequence[str | Path]) -> bool:
    try:
        run(command)
    except RuntimeError:
        return False
    return True


def wait_until(predicate: Callable[[], bool], what: str, log: Path) -> None:
    until = time.monotonic() + HANG
    while not predicate():
        if time.monotonic() > until:
            raise RuntimeError(f"not within {HANG:.0f} s: {what}:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
