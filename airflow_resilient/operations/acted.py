"""What ``airflow-resilient unstick`` has done, so that nothing is done twice.

It is a file of its own, beside what looks have seen: that one is replaced where it is spoiled, and a wait
then counts from now on; without this one, a task instance could be cleared twice. So one that cannot be read
stops the command, until a person has looked at it.

What is about to be done is written before it is done: a process that dies in between leaves an entry without
an outcome, and the task instance is left to a person.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .first_seen import MemoryOfAnother, MemoryProblem, replace_file
from .report import moment

if TYPE_CHECKING:
    from .snapshot import Waiting

FORMAT = 1
"""Of the file; one of another format is not used."""
KEEP_SECONDS = 7 * 86_400.0
"""For which an action is remembered after its task instance has stopped to wait."""

INTENDED, DONE, REFUSED, UNCLEAR = "intended", "done", "refused", "unclear"
"""Outcomes: it was about to be done; Airflow has done it; has not done it; may have done it."""


@dataclass(frozen=True)
class Act:
    """Something that was done to a try of a task instance.

    :param key: of the task instance, over all tries: DAG, run, task and map index.
    :param do: see `remedies.Do`.
    :param when: in seconds since 1970.
    :param outcome: see `INTENDED`.
    """

    key: str
    try_number: int
    do: str
    when: float
    outcome: str = INTENDED

    @property
    def is_done(self) -> bool:
        """Whether Airflow has done it for certain."""
        return self.outcome == DONE

    @property
    def when_text(self) -> str:
        """When it was done, for a person."""
        return moment(self.when)


@dataclass(frozen=True)
class Acted:
    """What was done before, the latest last.

    :param url: of the Airflow.
    """

    url: str = ""
    acts: tuple[Act, ...] = ()

    def of(self, waiting: Waiting) -> list[Act]:
        """What was, or may have been, done to any try of a task instance."""
        key = key_of(waiting)
        return [act for act in self.acts if act.key == key and act.outcome != REFUSED]

    def of_run(self, waiting: Waiting, do: str) -> list[Act]:
        """What was, or may have been, done to the run of a task instance, for any of its task instances."""
        run = [waiting.dag_id, waiting.run_id]
        mine = (act for act in self.acts if act.do == do and json.loads(act.key)[:2] == run)
        return [act for act in mine if act.outcome != REFUSED]

    def count_since(self, moment: float) -> int:
        """How much was, or may have been, done since then."""
        return sum(act.when > moment and act.outcome != REFUSED for act in self.acts)

    def intend(self, waiting: Waiting, do: str, now: float) -> Acted:
        """With what is about to be done."""
        return replace(self, acts=(*self.acts, Act(key_of(waiting), waiting.try_number, do, now)))

    def settle(self, outcome: str) -> Acted:
        """With what became of the latest one."""
        return replace(self, acts=(*self.acts[:-1], replace(self.acts[-1], outcome=outcome)))

    def kept(self, waiting: Collection[str], now: float) -> Acted:
        """Without what nobody needs any more.

        :param waiting: keys of the task instances that wait, see `key_of`.
        """
        kept = tuple(act for act in self.acts if act.key in waiting or now - act.when < KEEP_SECONDS)
        return replace(self, acts=kept)


def key_of(waiting: Waiting) -> str:
    """Identifies a task instance over all tries.

    The parts are quoted as JSON, so that no other task instance has the same key.
    """
    return json.dumps([waiting.dag_id, waiting.run_id, waiting.task_id, waiting.map_index])


def path_beside(memory: Path) -> Path:
    """The file of what was done, for a file of what looks have seen."""
    return memory.with_name(f"{memory.name}.acted")


def load(path: Path, url: str) -> Acted:
    """Read what was done before; nothing, if there is no file.

    :param url: of the Airflow.
    :raises MemoryProblem: it cannot be read, or is that of another Airflow. It must not be replaced.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Acted(url)
    except (OSError, ValueError) as error:
        raise MemoryProblem(f"{path} cannot be read ({error})") from None
    try:
        if found.pop("format") != FORMAT or set(found) != {"url", "acts"}:
            raise ValueError("it is of another version")
        acted = Acted(str(found["url"]), tuple(map(_act, found["acts"])))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MemoryProblem(f"{path} does not say what was done ({error!r})") from None
    if acted.url != url:
        raise MemoryOfAnother(f"{path} is about another Airflow, {acted.url}")
    return acted


def save(path: Path, acted: Acted) -> None:
    """Replace the file.

    :raises MemoryProblem: it cannot be written.
    """
    replace_file(path, {"format": FORMAT, **asdict(acted)})


def _act(found: Mapping[str, Any]) -> Act:
    if set(found) != {each.name for each in fields(Act)}:
        raise ValueError("it has other fields")
    return Act(
        str(found["key"]),
        int(found["try_number"]),
        str(found["do"]),
        float(found["when"]),
        str(found["outcome"]),
    )
