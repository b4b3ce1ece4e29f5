"""Look at an Airflow, remember what was seen, and say what is wrong: what each front of the watch does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from . import first_seen
from .first_seen import FirstSeen, MemoryOfAnother, MemoryProblem
from .health import Diagnosis, Finding, diagnosis, memory_lost
from .snapshot import Snapshot, look

if TYPE_CHECKING:
    from .airflow_api import AirflowApi
    from .limits import Limits


P = ParamSpec("P")


@dataclass(frozen=True)
class Examined:
    """What one look has shown.

    :param findings: the most urgent ones first.
    :param seen: what was seen until now.
    :param diagnosis: what is behind the findings.
    """

    snapshot: Snapshot
    findings: tuple[Finding, ...]
    seen: FirstSeen
    diagnosis: Diagnosis


@contextlib.contextmanager
def examined(
    api: AirflowApi,
    limits: Limits,
    memory: Path | None,
    *,
    seen: FirstSeen | None = None,
    ended_since: float | None = None,
    progress: Callable[[str], object] = str,
    now: Callable[[], float] = time.time,
) -> Iterator[Examined]:
    """Take one look, and say what is wrong: with Airflow, or with the memory, which starts empty then.

    The memory is held until the block ends.

    :param memory: file with what earlier looks saw; it is replaced.
    :param seen: what earlier looks saw, where there is no file, or nothing in it. Without either, Airflow's
        own times count.
    :param ended_since: see `snapshot.look`.
    :param progress: called with what is read next.
    :raises AirflowApiError: another look uses this memory now.
    """
    seen, problems = seen or FirstSeen(), []
    with contextlib.ExitStack() as stack:
        if memory is not None:
            try:
                stack.enter_context(first_seen.locked(memory))
                loaded = first_seen.load(memory, api.url)
                seen = loaded if loaded.looked is not None else seen
            except MemoryOfAnother as problem:
                problems.append(str(problem))
                memory = None  # the other Airflow's watch needs it
            except MemoryProblem as problem:
                problems.append(f"{problem}; it starts empty")
        snapshot = look(
            api,
            seen=seen,
            deferred_for=limits.triggerer,
            canary_limit=limits.canary,
            ended_since=ended_since,
            progress=progress,
            now=now,
        )
        found = diagnosis(snapshot, seen, limits, now())
        if memory is not None:
            try:
                first_seen.save(memory, found.seen)
            except MemoryProblem as problem:
                problems.append(str(problem))
        lost = (memory_lost(problem, snapshot.taken) for problem in problems[:1])
        yield Examined(snapshot, (*found.findings, *lost), found.seen, found)


def _at_once(make: Callable[P, contextlib.AbstractContextManager[Examined]]) -> Callable[P, Examined]:
    """A function that returns what the block of a context manager would get."""

    def examine(*args: P.args, **kwargs: P.kwargs) -> Examined:
        with make(*args, **kwargs) as made:
            return made

    return examine


examine = _at_once(examined)
"""As `examined`, for those who do nothing while they hold the memory."""
