"""How long is too long: the limits of the watch, and the file that changes them.

A file in TOML, for ``airflow-resilient check --limits FILE``::

    [limits]
    waiting = "30m"

    [dags."etl_*"]
    waiting = "2h"
    overdue = "10m"

What a DAG says itself, by the tags of `scheduling.needs`, goes before the file.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.needs import read_length

if TYPE_CHECKING:
    from .snapshot import Dag


class InvalidLimits(ValueError):
    """A limit, or the file, is not valid; the message says what to write."""


@dataclass(frozen=True)
class DagLimits:
    """Limits of the DAGs whose ids match a pattern; ``None``: those of all DAGs."""

    overdue: float | None = None
    waiting: float | None = None


@dataclass(frozen=True)
class Limits:
    """Limits in seconds, unless it says otherwise.

    :param heartbeat: age of the latest heartbeat of a scheduler, a triggerer or a DAG processor. Airflow
        itself calls a scheduler unhealthy after 30 s; a restart takes longer.
    :param scheduling: for which there is work and no scheduler does anything.
    :param overdue: for which a run is due and does not exist.
    :param waiting: for which a task instance is scheduled or queued.
    :param triggerer: for which a task instance is deferred and no living triggerer has it.
    :param deferred: for which a task instance is deferred at all; 0: any time.
    :param parsed: since a DAG file was read the last time.
    :param requeues: how often, within an hour, a task instance is put back from *queued*; a number.
    :param canary: since a leg of a canary has succeeded the last time; 0: two and a half of its intervals.
    :param clock: by which the clocks of Airflow and of this process may differ.
    :param vanished: share of the DAGs that may be gone since the look before; a number from 0 to 1.
    :param dags: by pattern of the DAG's id, as of a shell; the first that matches counts.
    """

    heartbeat: float = 120.0
    scheduling: float = 120.0
    overdue: float = 120.0
    waiting: float = 900.0
    triggerer: float = 300.0
    deferred: float = 0.0
    parsed: float = 900.0
    requeues: float = 2.0
    canary: float = 0.0
    clock: float = 30.0
    vanished: float = 0.25
    dags: Mapping[str, DagLimits] = field(default_factory=dict)

    def overdue_of(self, dag: Dag) -> float:
        """Seconds for which a run of this DAG may be due and not exist."""
        if dag.needs.start_within is not None:
            return dag.needs.start_within
        found = self._of(dag.dag_id).overdue
        return self.overdue if found is None else found

    def waiting_of(self, dag_id: str, dag: Dag | None) -> float:
        """Seconds for which a task instance of a DAG may wait.

        :param dag: what is known of it; ``None`` where it is paused or deleted.
        """
        if dag is not None and dag.needs.wait_at_most is not None:
            return dag.needs.wait_at_most
        found = self._of(dag_id).waiting
        return self.waiting if found is None else found

    def _of(self, dag_id: str) -> DagLimits:
        return next((own for pattern, own in self.dags.items() if fnmatchcase(dag_id, pattern)), DagLimits())


_NUMBERS = ("requeues", "vanished")
NAMES = tuple(each.name for each in fields(Limits) if each.name != "dags")


def read_limit(name: str, value: Any) -> float:
    """Read the value of one limit: a duration such as ``"10m"``, or a number.

    >>> read_limit("waiting", "10m"), read_limit("waiting", 90), read_limit("requeues", 3)
    (600.0, 90.0, 3.0)

    :raises InvalidLimits: it is neither.
    """
    try:
        if isinstance(value, bool) or value is None:
            raise ValueError
        found = read_length(value) if isinstance(value, str) and name not in _NUMBERS else float(value)
        if not 0 <= found < float("inf"):
            raise ValueError
    except (TypeError, ValueError):
        wanted = "a number" if name in _NUMBERS else 'a duration such as "90s", "10m" or "2h"'
        raise InvalidLimits(f"{name} = {value!r} is not valid; write {wanted}") from None
    return found


def read_limits(text: str, source: str) -> Limits:
    """Read the limits in a TOML file.

    :param text: its content.
    :param source: its name, for messages.
    :raises InvalidLimits: it is no TOML, has names that are not known, or values that are not valid.
    """
    try:
        found = _toml(text)
    except ValueError as error:
        raise InvalidLimits(f"{source} is no TOML: {error}") from None
    if unknown := set(found) - {"limits", "dags"}:
        raise InvalidLimits(f'{source}: [{min(unknown)}] is not known; write [limits] or [dags."PATTERN"]')
    limits = _section(found.get("limits", {}), "limits", NAMES, source)
    own = ("overdue", "waiting")
    dags = {
        str(pattern): DagLimits(**_section(values, f'dags."{pattern}"', own, source))
        for pattern, values in _mapping(found.get("dags", {}), "dags", source).items()
    }
    return replace(Limits(), **limits, dags=dags)


def load_limits(path: Path) -> Limits:
    """Read the limits in a file.

    :raises InvalidLimits: it cannot be read, or is not valid.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidLimits(f"{path} cannot be read: {error}") from None
    return read_limits(text, str(path))


def _mapping(values: Any, where: str, source: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise InvalidLimits(f"{source}: {where} is not valid; write it as a table, [{where}]")
    return values


def _section(values: Any, where: str, known: tuple[str, ...], source: str) -> dict[str, float]:
    values = _mapping(values, where, source)
    if unknown := set(values) - set(known):
        raise InvalidLimits(
            f"{source}: [{where}] {min(unknown)} is not known; write one of {', '.join(known)}"
        )
    try:
        return {name: read_limit(name, value) for name, value in values.items()}
    except InvalidLimits as error:
        raise InvalidLimits(f"{source}: [{where}] {error}") from None


def _toml(text: str) -> dict[str, Any]:
    """Read TOML. Python 3.10 has no reader of its own; tomli is the one that became Python's."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]
    return dict(tomllib.loads(text))
