"""What earlier looks at an Airflow have seen, so that "for how long" survives a restart of the watch.

Airflow sets its own times again whenever it puts a task instance back, or a scheduler restarts. So the watch
remembers when it saw something first, by a key that stays the same.

It is kept in a file of JSON, which is replaced as a whole: a process that dies leaves the old one or the new.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .task_instances import AirflowApiError

if TYPE_CHECKING:
    from .snapshot import Dag, Snapshot

FORMAT = 4
"""Of the file; one of another format is not used."""

MAX_BREAK_SECONDS = 600.0
"""Between two looks; after a longer one, nothing is taken to have lasted since before."""

HELD_SECONDS = 1800.0
"""For which so many processes must have been alive to be usual: a restart shows two for a moment."""

USUAL_SECONDS = 6 * 3600.0
"""For how long it is remembered how many processes of a kind were alive, and which DAGs were active."""

VITAL_SECONDS = 7 * 24 * 3600.0
"""For how long it is remembered which DAGs are needed by a time, or are canaries."""

SKEW_SECONDS = 3600.0
"""For how long it is remembered which versions have answered."""


@dataclass(frozen=True)
class FirstSeen:
    """What earlier looks saw. Times are seconds since 1970, by our clock.

    :param url: of the Airflow.
    :param last: when the latest look was taken that had an answer; ``None``: there was none.
    :param looked: when the latest look was taken at all.
    :param marks: what lasts: key and when it was seen first, in an unbroken row of looks.
    :param due: when the next run of each active DAG was due.
    :param active: when each DAG was active the last time.
    :param joined: when each of these was active the first time.
    :param vital: DAGs with a *need by*, and canaries: when each was active the last time.
    :param owed: of DAGs whose next run was due: since when a run is due that was not created, although the
        next one has moved on. The DAG processor moves it on, too, where ``catchup`` is off.
    :param alive: by kind of process and number: since when, and until when, at least so many were alive.
    :param answered: versions that have answered, and since when each has, the latest last.
    """

    url: str = ""
    last: float | None = None
    looked: float | None = None
    marks: Mapping[str, float] = field(default_factory=dict)
    due: Mapping[str, float | None] = field(default_factory=dict)
    active: Mapping[str, float] = field(default_factory=dict)
    joined: Mapping[str, float] = field(default_factory=dict)
    vital: Mapping[str, float] = field(default_factory=dict)
    owed: Mapping[str, float] = field(default_factory=dict)
    alive: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    answered: tuple[tuple[float, str], ...] = ()

    @property
    def known(self) -> bool:
        """Whether there was an earlier look."""
        return self.last is not None

    def unless_broken(self, now: float) -> FirstSeen:
        """It, without what lasts where nobody has looked for long: then Airflow's own times count."""
        broken = self.looked is not None and now - self.looked > MAX_BREAK_SECONDS
        return replace(self, last=None, marks={}, due={}, owed={}) if broken else self

    def first(self, key: str, now: float) -> float:
        """When something was seen first; now, if it is new, or if nobody has looked for long."""
        if self.looked is None or now - self.looked > MAX_BREAK_SECONDS:
            return now
        return min(self.marks.get(key, now), now)

    def passed(self, dags: Iterable[Dag], now: float) -> dict[str, float]:
        """DAGs that were due in the look before, and are due again: since when.

        Either a run was created each time, or the next run has moved on without: the runs that have started
        since tell.
        """
        if self.last is None or now - self.last > MAX_BREAK_SECONDS:
            return {}
        found = {}
        for dag in dags:
            before = self.due.get(dag.dag_id)
            if before is None or dag.next_due is None or before > self.last or dag.next_due > now:
                continue
            since = min(before, self.owed.get(dag.dag_id, before))
            if since < dag.next_due:
                found[dag.dag_id] = since
        return found

    def usual(self, kind: str, now: float) -> int:
        """How many processes of a kind were alive for long at most, in the last hours."""
        counts = self.alive.get(kind, {}).items()
        held = (
            int(count)
            for count, (since, until) in counts
            if until - since >= HELD_SECONDS and now - until < USUAL_SECONDS
        )
        return max(held, default=0)

    def versions(self, version: str, now: float) -> set[str]:
        """Versions that answer in turns; one that has followed another, as in an upgrade, does not."""
        turns = [each for when, each in self._answered(version, now)]
        return set(turns) if len(turns) > len(set(turns)) else set(turns[-1:])

    def vanished(self, snapshot: Snapshot, now: float) -> set[str]:
        """DAGs that were active within the last hours, are not any more, and are not paused."""
        present = {dag.dag_id for dag in snapshot.dags or ()} | snapshot.paused
        return {dag for dag, when in self.active.items() if dag not in present and now - when < USUAL_SECONDS}

    @property
    def dag_count(self) -> int:
        """How many DAGs were active within the last hours."""
        return len(self.active)

    def after(
        self,
        snapshot: Snapshot,
        marks: Collection[str],
        alive: Mapping[str, int],
        now: float,
        owed: Mapping[str, float] | None = None,
    ) -> FirstSeen:
        """What to remember after a look.

        :param marks: keys of what it saw. Earlier ones that depend on a missing part are kept: what was not
            seen may still be there.
        :param alive: how many processes of each kind are alive.
        :param owed: see above.
        """
        seen = {key: self.first(key, now) for key in marks}
        missing = {gap.part for gap in snapshot.gaps}
        hidden = {
            key: self.first(key, now)
            for key in self.marks
            if snapshot.silent or missing & DEPENDS.get(key.partition("/")[0], set())
        }
        seen = {**hidden, **seen}
        if snapshot.silent:
            return replace(self, url=snapshot.url, looked=now, marks=seen)
        due, active, vital = dict(self.due), dict(self.active), dict(self.vital)
        if snapshot.dags is not None:
            due = {dag.dag_id: dag.next_due for dag in snapshot.dags}
            active = {dag: when for dag, when in active.items() if now - when < USUAL_SECONDS}
            active |= dict.fromkeys(due, now)
            vital = {dag: when for dag, when in vital.items() if now - when < VITAL_SECONDS}
            vital |= {dag.dag_id: now for dag in snapshot.dags if dag.needs.by or dag.needs.canary}
        return FirstSeen(
            url=snapshot.url,
            last=now,
            looked=now,
            marks=seen,
            due=due,
            active=active,
            joined={dag: self.joined.get(dag, now) for dag in active},
            vital=vital,
            owed=owed or {},
            alive={**self.alive, **{kind: self._held(kind, count, now) for kind, count in alive.items()}},
            answered=self._answered(snapshot.version, now),
        )

    def _held(self, kind: str, count: int, now: float) -> dict[str, tuple[float, float]]:
        """Since when, and until when, at least so many processes of a kind were alive."""
        held = {
            number: times
            for number, times in self.alive.get(kind, {}).items()
            if now - times[1] < USUAL_SECONDS
        }
        for number in map(str, range(1, count + 1)):
            since, until = held.get(number, (now, now))
            broken = until != self.last and until - since < HELD_SECONDS
            held[number] = (now if broken else since, now)
        return held

    def _answered(self, version: str, now: float) -> tuple[tuple[float, str], ...]:
        """Versions in the order in which they have answered."""
        recent = [each for each in self.answered if now - each[0] < SKEW_SECONDS]
        latest = (recent or list(self.answered[-1:]))[-1:]
        if not latest or latest[0][1] != version:
            recent.append((now, version))
        return tuple(recent or latest)


_RUNS, _DAGS = {"runs", "dags"}, {"dags"}
_INSTANCES = {"task instances", "runs", "dags", "pools", "running task instances"}
DEPENDS: Mapping[str, set[str]] = {
    "waiting": {"task instances"},
    "starting": _INSTANCES,
    "ended": _INSTANCES,
    "frozen": _INSTANCES | {"deferred task instances"},
    "unattended": {"deferred task instances", "jobs", "health"},
    "due": _RUNS,
    "queued": _RUNS,
    "undecided": _RUNS,
    "never": _RUNS | {"details of DAGs"},
    "peer-lost": {"jobs", "health"},
    "heartbeat-lost": {"health"},
    "no-heartbeat": {"health"},
    "database": {"health"},
    "scheduler-gone": {"health"},
    "scheduler-back": {"health"},
    "scheduler-stood": {"health", "runs"},
    "scheduler-moves": {"health", "runs"},
    "stale": _DAGS | {"DAGs that are needed"},
    "dags-vanished": _DAGS | {"paused DAGs"},
    "need-unreadable": _DAGS,
    "leg": _DAGS | {"canaries"},
}
"""What begins a key, and the parts of a look without which it cannot be seen."""


class MemoryProblem(Exception):
    """The file cannot be used; the message says why."""


class MemoryOfAnother(MemoryProblem):
    """The file is the memory of another Airflow, which must keep it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the memory: one look at a time, so that an older one does not replace what a newer one has seen.

    :raises AirflowApiError: another look holds it.
    :raises MemoryProblem: its folder cannot be written to.
    """
    import fcntl

    try:
        file = path.with_name(f".{path.name}.lock").open("a")
    except OSError as error:
        raise MemoryProblem(f"{path} cannot be written ({error})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AirflowApiError(
                f"another look with the memory {path} is under way: look less often, or use another file"
            ) from None
        yield


def load(path: Path, url: str) -> FirstSeen:
    """Read what earlier looks saw; nothing, if there is no file.

    :param url: of the Airflow that is watched.
    :raises MemoryOfAnother: it is the memory of another Airflow.
    :raises MemoryProblem: it is no memory, or cannot be read. It is safe to replace it.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return FirstSeen()
    except (OSError, ValueError) as error:
        raise MemoryProblem(f"{path} cannot be read ({error})") from None
    try:
        if found.pop("format") != FORMAT:
            raise ValueError("it is of another version")
        seen = _read(found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MemoryProblem(f"{path} is no memory of this command ({error!r})") from None
    if seen.url not in ("", url):
        raise MemoryOfAnother(f"{path} is the memory of another Airflow, {seen.url}")
    return seen


def save(path: Path, seen: FirstSeen) -> None:
    """Replace the file.

    :raises MemoryProblem: it cannot be written.
    """
    replace_file(path, {"format": FORMAT, **asdict(seen)})


def replace_file(path: Path, found: Any) -> None:
    """Replace a file of JSON as a whole, and on the disk.

    :raises MemoryProblem: it cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            try:
                json.dump(found, file)
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)  # noqa: PTH105 - both are names here
            except BaseException:
                os.unlink(file.name)  # noqa: PTH108
                raise
        _sync(path.parent)
    except OSError as error:
        raise MemoryProblem(f"{path} cannot be written ({error})") from None


def _sync(folder: Path) -> None:
    """Bring the names of the files in a folder to the disk: a power cut may undo a replacement, else."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(found: Any) -> FirstSeen:
    """Check the shape of what was read."""
    if set(found) != {each.name for each in fields(FirstSeen)}:
        raise ValueError("it has other fields")
    return FirstSeen(
        url=str(found["url"]),
        last=None if found["last"] is None else float(found["last"]),
        marks=_times(found["marks"]),
        due={str(dag): None if when is None else float(when) for dag, when in found["due"].items()},
        active=_times(found["active"]),
        vital=_times(found["vital"]),
        owed=_times(found["owed"]),
        joined=_times(found["joined"]),
        looked=None if found["looked"] is None else float(found["looked"]),
        alive={
            str(kind): {str(count): (float(since), float(until)) for count, (since, until) in counts.items()}
            for kind, counts in found["alive"].items()
        },
        answered=tuple((float(when), str(version)) for when, version in found["answered"]),
    )


def _times(found: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): float(when) for key, when in found.items()}
