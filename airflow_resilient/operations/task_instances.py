"""Task instances as Airflow's API shows them, and the queries that a sweep sends to Airflow."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..core.job import task_key
from ..core.reconcile import RUNNING_ON_XCOM, call_of_memory


def tells_of_jobs(key: str) -> bool:
    """Whether the XCom of that key tells a sweep about jobs.

    >>> tells_of_jobs("remote_job"), tells_of_jobs("airflow_resilient_left_2"), tells_of_jobs("return_value")
    (True, True, False)
    """
    return call_of_memory(key) is not None or key.startswith(RUNNING_ON_XCOM)


UNFINISHED = (
    "running",
    "deferred",
    "queued",
    "scheduled",
    "restarting",
    "up_for_retry",
    "up_for_reschedule",
)
"""States of unfinished task instances; a cleared one has no state until it is scheduled."""
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
"""States in which Airflow does nothing more by itself. States unknown to this list are not among them."""


class AirflowApiError(Exception):
    """Airflow's API gave no usable response; the message says what to do. It says nothing of any job.

    :ivar status: the HTTP status of the response; ``None``: there was none, or it was not from Airflow.
    """

    status: int | None = None


class UnclearError(AirflowApiError):
    """A change was sent, and nothing says whether Airflow has made it."""


@dataclass(frozen=True)
class Instance:
    """One observation of a task instance.

    :param state: as in Airflow's UI; ``None`` before it is scheduled and after it was cleared.
    :param try_number: its latest try, 0 before the first.
    :param started: start of the latest try, in seconds since 1970.
    :param ended: end of the latest try, in seconds since 1970, where Airflow reports it.
    :param pool_slots: slots of its pool that it occupies.
    :param id: identifies this try of it in all deployments; empty on Airflow 2.11, which has no such id.
    :param raw: the response of the API.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    state: str | None = None
    try_number: int = 0
    max_tries: int = 0
    started: float | None = None
    ended: float | None = None
    pool_slots: int = 1
    id: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def task_key(self, namespace: str) -> str:
        """The part of its jobs' claims that identifies it; see `core.job.task_key`, `Claim.instance_key`."""
        return task_key(namespace, self.dag_id, self.run_id, self.task_id, self.map_index)

    @property
    def over(self) -> bool:
        """Whether it has ended, so that Airflow does nothing more with it by itself."""
        return self.state in ENDED

    def __str__(self) -> str:
        """DAG, run, task and map index."""
        index = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id} / {self.run_id} / {self.task_id}{index}"


class Airflow(Protocol):
    """The queries of a sweep. Every method raises `AirflowApiError` when Airflow gives no usable response."""

    def instances(
        self,
        states: Sequence[str] = (),
        changed_since: float = 0.0,
        changed_until: float | None = None,
    ) -> Iterator[Instance]:
        """Yield every task instance in one of `states` (default: any) whose row changed last in that time.

        Without `changed_until` none is left out that matches all the time; one that changes meanwhile may be
        yielded twice.
        """

    def current(self, instance: Instance) -> Instance | None:
        """The same task instance now; ``None`` when it does not exist any more."""

    def xcoms(self, instance: Instance) -> Mapping[str, Any]:
        """The XComs of its latest try that tell about jobs (see `tells_of_jobs`): key and value.

        A value is whatever the API shows: JSON or a Python ``repr`` in a string, or, with an XCom backend
        that stores values elsewhere, what that backend keeps in the database.
        """

    def retries(self, instance: Instance) -> int | None:
        """The ``retries`` of its task; ``None`` when the task does not exist any more."""

    def deferred_slots(self) -> int:
        """Slots of all deferred task instances, in all pools that the account may read.

        Up to Airflow 3.2 every pool is shown with all its slots, those of task instances that the account may
        not read included.
        """

    def why_not_every_dag(self) -> str:
        """Why it is not proved that the account may read every DAG; empty when it is proved."""


def read_value(value: Any) -> Any:
    """The value of an XCom or a rendered field, which the API may return as JSON or as a Python ``repr``.

    Nothing is evaluated: ``ast.literal_eval`` reads literals only.

    >>> read_value('{"a": true}'), read_value("{'a': True}"), read_value("plain"), read_value([1])
    ({'a': True}, {'a': True}, 'plain', [1])
    """
    for read in (json.loads, ast.literal_eval) * 2:
        if not isinstance(value, str):
            break
        try:
            value = read(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return value
