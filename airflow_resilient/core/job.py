"""A remote job: its name (the claim), its phase, the cause of its end, and the try that owns it.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from typing import Any, TypeVar

_E = TypeVar("_E", bound=Enum)

NAMESPACE_LENGTH = 5
"""Characters of a task key that identify the namespace: 25 bits, enough to distinguish deployments."""

CLOCK_SKEW = 60.0
"""Seconds by which Airflow's clock and the service's clock may differ."""


class Phase(str, Enum):
    """The state of a job, in the terms that all services share."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """The service no longer knows the job; it may have succeeded or failed."""

    @property
    def live(self) -> bool:
        """Whether a job in this phase still runs or may still run."""
        return self in (Phase.QUEUED, Phase.RUNNING, Phase.STOPPING)


class Cause(str, Enum):
    """What ended a job that did not succeed."""

    APPLICATION = "application"
    """The code that ran; running it again is up to Airflow's ``retries``."""
    INFRASTRUCTURE = "infrastructure"
    """Spot interruption, lost host or cluster, capacity: the same job may succeed elsewhere."""
    USER = "user"
    """A person or a tool stopped it on purpose."""
    UNKNOWN = "unknown"


# Which of two observations is better informed: a later phase wins, an end wins over all, LOST is the weakest.
_PHASE_ORDER = [
    Phase.LOST,
    Phase.QUEUED,
    Phase.RUNNING,
    Phase.STOPPING,
    Phase.CANCELLED,
    Phase.FAILED,
    Phase.SUCCEEDED,
]

_INSTANCE_LENGTH, _CALL_LENGTH = 16, 8

TASK_KEY = rf"[a-z2-7]{{{_INSTANCE_LENGTH}}}(?:_[a-z2-7]{{{_CALL_LENGTH}}})?"
"""What a task key looks like, as a regular expression: see `task_key` and `call_key`."""

# At most nine digits: others write names of jobs, too, and Python refuses to read more than 4300 digits.
_CLAIM = re.compile(rf"af-({TASK_KEY})-([0-9]{{1,9}})(?![0-9])(?:@([0-9]{{1,9}}\.[0-9]{{1,9}}))?")
_GENERATION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")


@dataclass(frozen=True, order=True)
class Claim:
    """The name that a remote job bears, so that any later try can recognise it.

    `number` counts the tries of one task instance that submitted a job. It is computed from the jobs that
    exist, not from Airflow's try number, so two workers that both believe they own the task instance arrive
    at the same claim. `resubmission` counts the resubmissions within one number: it makes the idempotency
    token of each submission unique. `generation` is that of the try that submitted the job, see
    `generation_of`; ``""`` where the job does not tell. Neither is part of the name, and both are ignored in
    comparisons. The name has letters, digits, ``-`` and, for a call inside of a task, ``_``.

    >>> str(Claim("abcdefghijklmnop", 2)), Claim("abcdefghijklmnop", 2, resubmission=1).token
    ('af-abcdefghijklmnop-2', 'af-abcdefghijklmnop-2-1')
    """

    task_key: str
    number: int
    resubmission: int = field(default=0, compare=False)
    generation: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"af-{self.task_key}-{self.number}"

    @property
    def instance_key(self) -> str:
        """The part of the task key that identifies the task instance.

        >>> Claim("abcdefghijklmnop_k3v7ahq2", 2).instance_key, Claim("abcdefghijklmnop", 2).instance_key
        ('abcdefghijklmnop', 'abcdefghijklmnop')
        """
        return self.task_key[:_INSTANCE_LENGTH]

    @property
    def call(self) -> str:
        """The part of the task key that identifies a call within the task instance; mostly empty.

        >>> Claim("abcdefghijklmnop_k3v7ahq2", 2).call, Claim("abcdefghijklmnop", 2).call
        ('k3v7ahq2', '')
        """
        return self.task_key[_INSTANCE_LENGTH + 1 :]

    @property
    def token(self) -> str:
        """The idempotency token of this one submission (at most 50 ASCII characters)."""
        return f"{self}-{self.resubmission}" if self.resubmission else str(self)

    @property
    def full_name(self) -> str:
        """The name with the generation, for a field that is read and never searched as a whole.

        >>> Claim("abcdefghijklmnop", 2, generation="4.3").full_name
        'af-abcdefghijklmnop-2@4.3'
        """
        return f"{self}@{self.generation}" if self.generation else str(self)

    @classmethod
    def read(cls, text: str) -> Claim | None:
        """The first claim in `text`, with or without its generation, or ``None``.

        >>> Claim.read("sort [af-abcdefghijklmnop-2]")
        Claim(task_key='abcdefghijklmnop', number=2, resubmission=0, generation='')
        >>> Claim.read("af-abcdefghijklmnop_k3v7ahq2-2")
        Claim(task_key='abcdefghijklmnop_k3v7ahq2', number=2, resubmission=0, generation='')
        >>> Claim.read("af-abcdefghijklmnop-1234567890") is None
        True
        """
        found = _CLAIM.search(text)
        return cls(found[1], int(found[2]), generation=found[3] or "") if found else None


def task_key(namespace: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """The part of a claim that identifies the task instance: 16 characters of ``a-z2-7``, two hashes.

    The first `NAMESPACE_LENGTH` characters depend on the namespace alone, so that jobs of another deployment
    are recognised even when none of our task instances is left to compare them with (see `same_namespace`).
    The other 11, 55 bits, identify the task instance.

    :param namespace: distinguishes this Airflow deployment from others that run the same DAGs in the same
        account.

    >>> len(task_key("prod", "etl", "manual__1", "sort", -1))
    16
    """
    identity = (namespace, dag_id, run_id, task_id, str(map_index))
    return _hash(namespace, NAMESPACE_LENGTH) + _hash(
        "\0".join(identity), _INSTANCE_LENGTH - NAMESPACE_LENGTH
    )


def call_key(key: str, task_id: str, number: int, content: str = "") -> str:
    """The task key of the jobs of an operator that is called inside the task instance of `key`.

    40 bits of a hash distinguish the call from others. It is the same in every try that makes the same calls
    in the same order, so that a retry finds the job of each. A call that asks for something else is another
    call: a retry whose list has become shorter does not take the job of one element for that of another.

    :param task_id: of the operator that is called.
    :param number: which call of an operator with this `task_id` and `content` it is, in its try, from 1.
    :param content: a hash of what it asks for.

    >>> call_key("abcdefghijklmnop", "load", 1), call_key("abcdefghijklmnop", "load", 2)
    ('abcdefghijklmnop_z6l6bxej', 'abcdefghijklmnop_afm7r7tc')
    """
    call = _hash("\0".join((task_id, str(number), *filter(None, [content]))), _CALL_LENGTH)
    return f"{key}_{call}"


def same_namespace(claim: Claim, namespace: str) -> bool:
    """Whether `claim` was made by a deployment with that namespace.

    A different namespace matches by chance once in 2**25.

    >>> claim = Claim(task_key("prod", "etl", "manual__1", "sort", -1), 1)
    >>> same_namespace(claim, "prod"), same_namespace(claim, "staging")
    (True, False)
    """
    return claim.task_key[:NAMESPACE_LENGTH] == _hash(namespace, NAMESPACE_LENGTH)


def _hash(text: str, length: int) -> str:
    """`length` characters of ``a-z2-7``, 5 bits each; at most 16."""
    return base64.b32encode(hashlib.blake2b(text.encode(), digest_size=10).digest()).decode().lower()[:length]


NO_CLAIM = Claim("", 0)
"""The claim of a job that is not ours, such as a sensor's: no job bears it, so none is ever cancelled."""


def generation_of(max_tries: int, retries: int) -> str:
    """What tells the tries before a clear from those after it, written on each job that a try submits.

    Airflow sets ``max_tries`` when it creates a task instance and when somebody clears it, and never in
    between; see `Owner.owns` for what follows. Source: ``clear_task_instances`` in
    ``airflow/models/taskinstance.py`` of 2.11 to 3.3, and ``process_executor_events`` in
    ``airflow/jobs/scheduler_job_runner.py`` from 3.1 on.

    :param max_tries: the task instance's.
    :param retries: the task's, as this worker reads it from the DAG file and the configuration.

    >>> generation_of(4, 3)
    '4.3'
    """
    return f"{max(0, max_tries)}.{retries}"


def _read_generation(text: str) -> tuple[int, int] | None:
    """``max_tries`` and ``retries`` of a generation; ``None`` if it is unknown."""
    found = _GENERATION.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None


def known_fields(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """The items of `data` that are fields of the dataclass `kind`.

    Workers and triggerers are not upgraded at the same instant, and upgrades are rolled back: a reader must
    ignore fields that a newer writer has added.
    """
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in data.items() if name in names}


def _member(kind: type[_E], value: Any, default: _E) -> _E:
    """The member of `kind` with that value; `default` for a value that another version has added."""
    try:
        return kind(value)
    except ValueError:
        return default


FROM_ARCHIVE = "from_archive"
"""Key in the facts of a job whose service has forgotten it: the archive that says how it ended."""


@dataclass(frozen=True)
class Job:
    """One observation of one remote job.

    :param id: the service's identifier (an ECS task's ARN, EMR step ids).
    :param claim: the name that it bears.
    :param created: when the service accepted it, in seconds since 1970 by the service's clock.
    :param scope: where it runs (ECS cluster, EMR cluster id), so that it can be observed without the
        request.
    :param reason: why it ended, for people; never contains secrets.
    :param exit_code: of the container or process that decided the outcome; ``None`` when there was none.
    :param ended: when it ended, in seconds since 1970, where the service reports it.
    :param facts: further properties that operators and sensors need; JSON values only, a few hundred bytes.
    """

    id: str
    claim: Claim
    phase: Phase
    created: float
    scope: str = ""
    reason: str = ""
    exit_code: int | None = None
    cause: Cause = Cause.UNKNOWN
    ended: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Whether the job still runs or may still run."""
        return self.phase.live

    def merge(self, other: Job) -> Job:
        """The better informed of two observations of one job: a later phase wins; on a tie, `other`.

        The higher resubmission number and a known generation are kept: a claim that was read back from the
        service may lack them.
        """
        better = self if _PHASE_ORDER.index(self.phase) > _PHASE_ORDER.index(other.phase) else other
        resubmission = max(self.claim.resubmission, other.claim.resubmission)
        generation = other.claim.generation or self.claim.generation
        claim = replace(better.claim, resubmission=resubmission, generation=generation)
        return replace(better, claim=claim)

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON values; `from_dict` reverses it."""
        return {**asdict(self), "phase": self.phase.value, "cause": self.cause.value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """The job that `to_dict` wrote; fields that another version has added are ignored.

        A phase that another version has added says nothing here: the job is QUEUED, so it is observed again.
        """
        values = {
            **known_fields(cls, data),
            "claim": Claim(**known_fields(Claim, data["claim"])),
            "phase": _member(Phase, data["phase"], Phase.QUEUED),
            "cause": _member(Cause, data["cause"], Cause.UNKNOWN),
        }
        return cls(**values)


@dataclass(frozen=True)
class Owner:
    """The try of a task instance on whose behalf `decide` acts.

    :param task_key: see `task_key`.
    :param try_number: Airflow's, from 1.
    :param cleared_after_try: the last try before the latest clear, 0 when it was never cleared. Airflow sets
        ``max_tries = try_number + retries`` when a task instance that is not running is cleared, hence
        ``cleared_after_try = max_tries - retries``, and all automatic retries that follow share it. Source:
        ``clear_task_instances`` in Airflow 2.11 and 3.x.
    :param run_started: start of the DAG run, in seconds since 1970: distinguishes the run from an earlier one
        that was deleted and created again under the same id.
    :param reattach: ``on_clear="reattach"``: a job from before the clear that is still alive is taken over.
    :param restarted: Airflow has started this very try before and starts it again from the beginning, because
        the worker could not load the DAG when the try was to resume, or because the scheduler has failed a
        healthy try. The try's memory is lost. See `airflow_resilient.compat.started_before`.
    :param generation: see `generation_of`; ``""``: unknown.
    """

    task_key: str
    try_number: int
    cleared_after_try: int = 0
    run_started: float = 0.0
    reattach: bool = False
    restarted: bool = False
    generation: str = ""

    def owns(self, job: Job, cleared: Iterable[Job] = ()) -> bool:
        """Whether `job` is of this task instance, of this run, and not from before the latest clear.

        :param cleared: jobs that are known to be from before the clear; so is what is no younger, because
            numbers only grow.
        """
        if job.claim.task_key != self.task_key:
            return False
        if self.reattach and job.live:
            return True
        if job.created < self.run_started - CLOCK_SKEW or self._cleared_since(job.claim):
            return False
        return not any(
            job.claim.number <= other.claim.number and job.created <= other.created for other in cleared
        )

    def _cleared_since(self, claim: Claim) -> bool:
        """Whether a clear lies between the try that submitted the job of `claim` and this one.

        ``retries`` may have changed since the task instance was created or cleared; the DAG processor, the
        API server and the workers may even disagree about it all the time (``default_task_retries``). So
        `cleared_after_try`, which is computed from it, decides only where nothing else is known:

        * another ``max_tries``: there was a clear, because nothing else changes ``max_tries``;
        * the same ``max_tries`` and the same ``retries``: there was none;
        * the same ``max_tries`` and other ``retries``: ``retries`` has changed. A clear can have led to the
          same ``max_tries`` only if ``max_tries - retries`` is an earlier try, the last one before it: then
          the number decides;
        * a job that does not tell its generation: the number decides.
        """
        mine, its = _read_generation(self.generation), _read_generation(claim.generation)
        if mine is None or its is None:
            return claim.number <= self.cleared_after_try
        if mine == its:
            return False
        max_tries, retries = mine
        return its[0] != max_tries or claim.number <= max_tries - retries < self.try_number

    def from_before_clear(self, jobs: Iterable[Job]) -> list[Job]:
        """Those jobs of this run that tell by their generation that there was a clear since.

        :param jobs: the jobs that are known.
        """
        return [
            job
            for job in jobs
            if job.created >= self.run_started - CLOCK_SKEW
            and job.claim.number < self.try_number
            and _read_generation(job.claim.generation)
            and self._cleared_since(job.claim)
        ]

    @property
    def may_have_predecessors(self) -> bool:
        """Whether jobs may exist that were submitted before this start of the try; never for a first try."""
        return self.try_number > 1 or self.cleared_after_try > 0 or self.restarted

    def claims(self) -> list[Claim]:
        """Every claim that this task instance can have used so far."""
        return [Claim(self.task_key, number) for number in range(1, self.try_number + 1)]


@dataclass(frozen=True)
class LogTail:
    """The last lines of the job's log, as many as are needed."""

    lines: tuple[str, ...] = ()

    @property
    def last_line(self) -> str | None:
        """The last line; ``None`` when there is none."""
        return self.lines[-1] if self.lines else None
