"""The rows as data: what a DAG does with a provider's class, and what may differ with ours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DAGS = Path(__file__).parent / "dags"
RECIPE = Path(__file__).parents[3] / "docs" / "recipes" / "move-a-subclass.py"
PROVIDER, OURS, HOOKS = "provider", "ours", "hooks"
IMPLEMENTATIONS = (PROVIDER, OURS, HOOKS)
"""The provider's class; the same file with the import changed; the same with hooks, in the recipe."""
CLUSTER = "j-2AXXXXXXGAPLF"

_MODULES = (
    r"airflow\.providers\.amazon\.aws\.(?:operators|sensors)\.(?:ecs|emr)"
    r"|airflow\.providers\.docker\.operators\.docker"
    r"|airflow\.providers\.standard\.operators\.latest_only"
)
_IMPORT = re.compile(rf"^from (?:{_MODULES}) import ", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One DAG file.

    :param what: what it does.
    :param differs: what differs with ours, by the name of a field of `Seen`, and why.
    :param refused: the DAG file has an import error with ours that contains this text.
    :param more_dags: of the file, which are parsed and not run.
    :param with_hooks: what differs in the recipe's version; ``None``: the recipe has none.
    :param where: ours waits "in the worker", or "without a slot".
    """

    id: str
    what: str
    differs: Mapping[str, str] = field(default_factory=dict, hash=False)
    refused: str = ""
    more_dags: tuple[str, ...] = ()
    with_hooks: Mapping[str, str] | None = field(default=None, hash=False)
    where: str = "in the worker"

    @property
    def implementations(self) -> tuple[str, ...]:
        """Those that there are."""
        return IMPLEMENTATIONS if self.with_hooks is not None else (PROVIDER, OURS)

    def source(self, implementation: str) -> str:
        """The file. For ours, only the lines that import the providers' operators are changed."""
        text = (DAGS / f"{self.id}.py").read_text()
        return _IMPORT.sub("from airflow_resilient import ", text) if implementation == OURS else text

    def named(self, implementation: str) -> Mapping[str, str]:
        """What may differ from the provider's."""
        return (self.with_hooks or {}) if implementation == HOOKS else self.differs


ONE_TRY = {"tries": "lost capacity uses up no retry: the same try submits the same request again"}
ROWS = (
    Row(
        "own_request",
        "`execute` builds the request and calls `super().execute`; Spot takes the first task away",
        differs=ONE_TRY,
        with_hooks=ONE_TRY,
    ),
    Row(
        "own_outcome",
        "code after `super().execute` returns a value, pushes an XCom, or skips at an error",
        with_hooks={},
    ),
    Row(
        "refused",
        "`except AirflowException` around `super().execute`, and AWS refuses the request",
        differs={
            "states": "a refused request is an `AirflowException` here, so this clause catches it, too: "
            "write `except JobFailed`"
        },
        where="",  # nothing waits
    ),
    Row(
        "inside_a_task",
        "a Python task calls `execute` of three operators in a loop",
        with_hooks=dict.fromkeys(("states", "tries", "xcoms"), "three mapped task instances, not one task"),
    ),
    Row("insides", "the code uses `arn`, `client`, `hook`, `cli` and `container`", with_hooks={}),
    Row("own_poke", "a sensor overrides `poke`", with_hooks={}),
    Row(
        "own_container",
        "an operator overrides `_run_image_with_mounts`, which adds to the container",
        refused="GpuOperator overrides _run_image_with_mounts",
        with_hooks={},
    ),
    Row(
        "own_response",
        "a sensor overrides `get_emr_response`, which decides what is a success",
        refused="LastStepSensor overrides get_emr_response",
        with_hooks={},
    ),
    Row(
        "late_values",
        "`steps` is the text of a list, or filled in by `execute`; `task_definition` is `None` at parse time",
        more_dags=("late_values_elsewhere",),
        where="",  # nothing waits
    ),
    Row("latest_only", "`LatestOnlyOperator` in a daily DAG with `catchup`", where="without a slot"),
    Row("caught", "`except DockerContainerFailedException`, `except EcsTaskFailToStart`"),
    Row(
        "base_class", "a shared base class with `reattach=True` and a link of its own", where="without a slot"
    ),
)
BY_ID = {row.id: row for row in ROWS}


@dataclass(frozen=True)
class Seen:
    """What came of a DAG.

    :param error: of the import of its file.
    :param states: of each run and of its task instances, by the order of the runs.
    :param tries: of the task instances.
    :param xcoms: of the task instances, without those for links and for the library itself; ids of jobs are
        replaced by their requests.
    :param requests: what was asked for, for each job.
    :param left: jobs that live when all runs have ended.
    :param links: of the user's own classes, in Airflow's UI.
    :param where: "in the worker" if the log of a task says that it waits there, else "without a slot" if one
        says that it defers; empty: neither, because its job has ended before.
    :param failed: those of `requests` whose job has failed.
    :param by_scheduler: tries that Airflow's scheduler has failed by itself.
    """

    error: str = ""
    states: tuple[Mapping[str, str], ...] = ()
    tries: tuple[Mapping[str, int], ...] = ()
    xcoms: tuple[Mapping[str, Mapping[str, object]], ...] = ()
    requests: tuple[str, ...] = ()
    left: int = 0
    links: tuple[str, ...] = ()
    where: str = ""
    by_scheduler: int = 0
    failed: tuple[str, ...] = ()

    def differences(self, other: Seen) -> set[str]:
        """The names of the fields that differ, but for where it waits.

        After a try that the scheduler has failed by itself, a job that has failed is followed by another one.
        """
        fields = set(vars(self)) - {"where", "by_scheduler", "requests", "failed"}
        found = {name for name in fields if getattr(self, name) != getattr(other, name)}
        once = bool(self.by_scheduler or other.by_scheduler)
        return found | {"requests"} if self._counted(once=once) != other._counted(once=once) else found

    def _counted(self, *, once: bool) -> Counter[str]:
        """How often each request was made.

        :param once: of several jobs of the same request that have failed, one counts.
        """
        failed = Counter(self.failed)
        extra = Counter({request: count - 1 for request, count in failed.items()}) if once else Counter()
        return Counter(self.requests) - extra
