"""Between a task and the engine: the answer to a start is held back until the task has been hit.

From the moment a container runs until its task defers, some 0.05 s pass: on a busy machine the task is often
gone before anybody has seen the container. A task whose answer is held back cannot go.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

_START = re.compile(rb"POST (?:/v[\d.]+)?/containers/([^/ ]+)/start[ ?]")
_HANG = 300.0  # seconds


class Relay:
    """Pass every byte on, in both directions.

    :param folder: for its socket.
    :param engine: the socket of the engine.
    :param held: given the container of a start that the engine has answered, whether the answer is held back.
    """

    def __init__(self, folder: Path, engine: Path, held: Callable[[str], bool]) -> None:
        self.path, self.engine, self.held = folder / "relay.sock", engine, held
        self.url = f"unix://{self.path}"
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen(64)
        _in_a_thread(self._accept)

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            engine = socket.socket(socket.AF_UNIX)
            try:
                engine.connect(str(self.engine))
            except OSError:
                client.close()
                continue
            started: list[str] = []
            _in_a_thread(self._requests, client, engine, started)
            _in_a_thread(self._answers, engine, client, started)

    def _requests(self, client: socket.socket, engine: socket.socket, started: list[str]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                started.extend(found.decode() for found in _START.findall(data))
                engine.sendall(data)
        with contextlib.suppress(OSError):
            engine.shutdown(socket.SHUT_WR)

    def _answers(self, engine: socket.socket, client: socket.socket, started: list[str]) -> None:
        with contextlib.suppress(OSError):
            while data := engine.recv(65536):
                until = time.monotonic() + _HANG
                for container in started:
                    while self.held(container) and time.monotonic() < until:
                        time.sleep(0.05)
                started.clear()
                client.sendall(data)
        for end in (engine, client):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # a close alone does not wake the thread that reads from it
            end.close()


def _in_a_thread(work: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()
