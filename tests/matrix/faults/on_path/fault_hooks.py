"""What the DAGs of the fault matrix add to operators and triggers, ours and the provider's alike.

A *gate* is a place at which a task waits while a file is there, so that it can be killed at exactly that
moment.  The library itself is not touched: everything happens in subclasses that the DAG files use.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import time
from pathlib import Path
from typing import Any

import setproctitle
from airflow.triggers.base import BaseTrigger

_TITLE = re.compile(r"airflow worker -- ([0-9a-f-]{36})$")
_now: dict[str, str] = {}  # the job that this process works for


def gate(point: str, name: str | None = None) -> None:
    """Wait here as long as the gate is closed, and write which process waits.

    :param point: ``execute``, ``defer``, ``deferred``, ``resumed`` or ``resume``.
    :param name: of the job; by default the one that this process works for.
    """
    name = name or _now.get("name")
    if name is None:
        return
    closed = _folder() / f"{name}.{point}"
    if closed.exists():
        _write(f"{name}.{point}.here", f"{os.getpid()} {os.getppid()}")
        while closed.exists():
            time.sleep(0.02)


def load() -> None:
    """Let this very process fail to load the DAG file, once, if that was asked for."""
    title = _TITLE.match(setproctitle.getproctitle())
    if title and (asked := _folder() / f"{title[1]}.unloadable").exists():
        asked.unlink()
        raise ImportError("this file cannot be imported now, as the fault matrix asked")


def runs_here(name: str) -> None:
    """Say that this process works for a job."""
    _now["name"] = name
    _write(f"{name}.runs.here", f"{os.getpid()} {os.getppid()}")


def hooked(operator: type) -> type:
    """Give an operator its gates."""

    class Hooked(operator):  # type: ignore[misc]
        def execute(self, context: Any) -> Any:
            runs_here(context["dag_run"].conf["job"])
            gate("execute")
            return super().execute(context)

        def execute_complete(self, context: Any, event: Any = None) -> Any:
            _now["name"] = context["dag_run"].conf["job"]
            gate("resume")
            try:
                return super().execute_complete(context, event)
            finally:
                gate("resumed")

        def defer(self, *, trigger: Any, **more: Any) -> Any:
            gate("defer")
            name = _now.get("name")
            if name and (_folder() / f"{name}.crash").exists():
                trigger = Crashing(*trigger.serialize(), str(_folder() / f"{name}.crash"))
            if name and (_folder() / f"{name}.report").exists():
                trigger = Reporting(*trigger.serialize(), name)
            return super().defer(trigger=trigger, **more)

        def on_kill(self) -> Any:
            try:
                return super().on_kill()
            finally:
                if name := _now.get("name"):
                    _write(f"{name}.on_kill", "")

    Hooked.__name__ = Hooked.__qualname__ = operator.__name__
    return Hooked


class Reporting(BaseTrigger):
    """A trigger that writes a file when it starts; otherwise it is what it stands for."""

    def __init__(self, path: str, arguments: dict[str, Any], name: str) -> None:
        super().__init__()
        self.path, self.arguments, self.name = path, arguments, name
        module, _, kind = path.rpartition(".")
        self.stands_for = getattr(importlib.import_module(module), kind)(**arguments)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kept = {"path": self.path, "arguments": self.arguments, "name": self.name}
        return f"{__name__}.{type(self).__name__}", kept

    async def run(self) -> Any:
        self.stands_for.task_instance = self.task_instance
        _write(f"{self.name}.started{self.task_instance.try_number}", "")
        async for event in self.stands_for.run():
            yield event

    async def on_kill(self) -> None:
        await self.stands_for.on_kill()


class Crashing(BaseTrigger):
    """A trigger that raises while a file is there, which it removes; then it is the trigger it replaces."""

    def __init__(self, path: str, arguments: dict[str, Any], file: str) -> None:
        super().__init__()
        self.path, self.arguments, self.file = path, arguments, file

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kept = {"path": self.path, "arguments": self.arguments, "file": self.file}
        return f"{__name__}.{type(self).__name__}", kept

    async def run(self) -> Any:
        if os.path.exists(self.file):  # noqa: ASYNC240, PTH110 - a local file, for a test
            await asyncio.sleep(3)  # the scheduler has registered the deferral: see SharedWatch.follow
            os.unlink(self.file)  # noqa: PTH108
            raise RuntimeError("this trigger crashes, as the fault matrix asked")
        module, _, name = self.path.rpartition(".")
        stands_for = getattr(importlib.import_module(module), name)(**self.arguments)
        stands_for.task_instance = self.task_instance
        async for event in stands_for.run():
            yield event


def _folder() -> Path:
    return Path(os.environ["FAULT_GATES"])


def _write(name: str, text: str) -> None:
    """Write a file in one piece."""
    draft = _folder() / f"{name}.draft{os.getpid()}"
    draft.write_text(text)
    draft.rename(_folder() / name)
