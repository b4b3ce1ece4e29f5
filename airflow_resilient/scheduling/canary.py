"""A DAG that shows that tasks really run: one small task for each way in which a task can be stuck.

Heartbeats say that a process lives, not that it works: a triggerer may beat and run nothing, a worker may
listen on another queue. So the canary runs a task on each queue, on each executor and through the triggerer,
and tells a dead man's switch when all of them have succeeded.

Its tags tell ``airflow-resilient check`` which legs it has, and how often; see `core.needs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ..compat import BaseOperator, conf, short_trigger, variable
from ..core.beat import WANTED, BeatFailed, beat, is_beat_url
from ..core.needs import (
    CANARY_EVERY,
    CANARY_LEG,
    EXECUTOR_LEG,
    LONGEST_TAG,
    QUEUE_LEG,
    TRIGGERER_LEG,
    read_length,
)
from ..errors import InvalidParameter, ResilientError
from .needs import length_of

if TYPE_CHECKING:
    from airflow.sdk import DAG, Context

__all__ = ["CanaryBeat", "CanaryLeg", "DeferredCanaryLeg", "canary_dag"]

DAG_ID = "airflow_resilient_canary"
SHORTEST = timedelta(minutes=1)
RUN_SHARE = 0.8
"""Of the interval: how long a run may take, so that it ends before the next one is due."""
PRIORITY = 1_000_000
"""Above that of other tasks: theirs is 1 by default, to which Airflow adds those of the tasks downstream."""
ALWAYS = 1_000_000
"""Failed runs in a row after which Airflow pauses the DAG; 0 would be that of the configuration."""
START = datetime(2024, 1, 1, tzinfo=timezone.utc)
DEFERRED = timedelta(seconds=1)


class CanaryLeg(BaseOperator):
    """Succeeds, if it runs."""

    def execute(self, context: Context) -> None:
        """Do nothing: that it runs is what counts."""
        self.log.info("%s runs", self.task_id)


class DeferredCanaryLeg(CanaryLeg):
    """Defers for a second, and succeeds, if the triggerer runs its trigger.

    :param patience: seconds for which it waits for the triggerer.
    """

    def __init__(self, *, patience: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.patience = patience

    def execute(self, context: Context) -> None:
        """Defer."""
        self.defer(
            trigger=short_trigger(DEFERRED),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.patience),
        )

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """Succeed: the triggerer has run the trigger."""
        self.log.info("the triggerer has run its trigger")


class CanaryBeat(BaseOperator):
    """Tells the dead man's switch that all legs have succeeded.

    :param url_variable: name of the Airflow variable with the URL of the switch, which is a secret: it is
        read when the task runs, and neither logs nor errors show it.
    """

    def __init__(self, *, url_variable: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.url_variable = url_variable

    def execute(self, context: Context) -> None:
        """Send the beat.

        :raises InvalidParameter: there is no such variable, or it is no URL.
        :raises ResilientError: the switch does not take the beat.
        """
        url = variable(self.url_variable)
        if url is None or not is_beat_url(url):
            problem = "there is no variable" if url is None else "no URL of a switch is in the variable"
            raise InvalidParameter(f"{problem} {self.url_variable!r}; set it to {WANTED}")
        try:
            beat(url, "", f"{self.dag_id}: all legs have succeeded")
        except BeatFailed as error:
            problem = str(error)
        else:
            self.log.info("the dead man's switch has taken the beat")
            return
        raise ResilientError(problem)


def canary_dag(
    *,
    dag_id: str = DAG_ID,
    every: timedelta | str = "10m",
    queues: Sequence[str] | None = None,
    executors: Sequence[str] = (),
    deferrable: bool = True,
    pool: str = "default_pool",
    beat_url_variable: str | None = None,
    tags: Iterable[str] = (),
) -> DAG:
    """Make a DAG that shows that tasks really run, on each queue and executor, and through the triggerer.

    It needs a DAG file with these two lines::

        from airflow_resilient import canary_dag

        dag = canary_dag()

    Its tasks, the *legs*, do nothing, and have the highest priority. A run has four fifths of the interval:
    one that is stuck ends, and the next one starts. Neither runs nor tasks are made up for. The DAG is not
    paused when it is created.

    ``airflow-resilient check`` knows the legs by the tags of the DAG, and finds a leg that does not succeed
    for two and a half intervals. In a pool that does not exist no leg starts, which it finds, too.

    Source of the end of a run: ``_schedule_dag_run`` of ``SchedulerJobRunner`` fails a run after
    ``dagrun_timeout``, and skips what is unfinished in it (2.11 to 3.3).

    :param every: between two runs: a timedelta, or a text such as ``"10m"``; one minute at least.
    :param queues: a leg for each of them; by default Airflow's ``[operators] default_queue``, if no
        `executors` are given.
    :param executors: a leg for each of them: names or aliases in ``[core] executor``.
    :param deferrable: a leg for the triggerer. It starts, and resumes, on the first of `queues`.
    :param pool: of all tasks; it must exist.
    :param beat_url_variable: name of an Airflow variable that holds the URL of a dead man's switch, such as
        ``https://hc-ping.com/UUID``, which gets a POST at the end of a run in which all legs have succeeded.
        The URL is a secret: it is read when the task runs. Airflow hides the value of a variable in its UI if
        its name contains ``secret``. By default, nothing is sent.
    :param tags: further tags of the DAG.
    :return: the DAG, for a variable of the DAG file.
    :raises InvalidParameter: a parameter is not valid, or there would be no leg.

    >>> dag = canary_dag(every="5m", queues=("default", "spark"))
    >>> sorted(dag.task_ids)
    ['queue-default', 'queue-spark', 'triggerer']
    """
    from airflow.providers.common.compat.sdk import DAG

    text = length_of("canary_dag: every", every)
    interval = timedelta(seconds=read_length(text))
    if interval < SHORTEST:
        raise InvalidParameter(f'canary_dag: every={every!r} is not valid; write one minute, "1m", or more')
    if queues is None:
        queues = () if executors else (conf.get("operators", "default_queue"),)
    legs: dict[str, dict[str, Any]] = {}
    for parameter, prefix, names in (("queue", QUEUE_LEG, queues), ("executor", EXECUTOR_LEG, executors)):
        for name in _names(f"{parameter}s", names):
            task_id = prefix + re.sub(r"[^\w.-]", "_", name)
            if task_id in legs:
                raise InvalidParameter(
                    f"canary_dag: {parameter}s has {name!r} twice, or a name that gives the same task, "
                    f"{task_id!r}; write each {parameter} once"
                )
            legs[task_id] = {parameter: name}
    if not isinstance(deferrable, bool):
        raise InvalidParameter(f"canary_dag: deferrable={deferrable!r} is not valid; write True or False")
    if not legs and not deferrable:
        raise InvalidParameter(
            "canary_dag: it has no leg; name queues or executors, or write deferrable=True"
        )
    _check_text("pool", pool)
    _check_variable(beat_url_variable)
    first = next(iter(legs.values()), {})
    timeout = interval * RUN_SHARE
    own = [f"{CANARY_EVERY}={text}", *(f"{CANARY_LEG}={leg}" for leg in legs)]
    own += [f"{CANARY_LEG}={TRIGGERER_LEG}"] if deferrable else []
    if long := [tag for tag in own if len(tag) > LONGEST_TAG]:
        raise InvalidParameter(f"canary_dag: the tag {long[0]!r} has more than {LONGEST_TAG} characters")
    with DAG(
        dag_id,
        description="Shows that tasks really run",
        schedule=interval,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        max_active_tasks=max(16, len(legs) + 1),
        dagrun_timeout=timeout,
        is_paused_upon_creation=False,
        max_consecutive_failed_dag_runs=ALWAYS,
        default_args={
            "retries": 0,
            "pool": pool,
            "priority_weight": PRIORITY,
            "weight_rule": "absolute",
            "execution_timeout": timeout,
        },
        tags=[*own, *tags],
    ) as dag:
        tasks: list[Any] = [CanaryLeg(task_id=task_id, **where) for task_id, where in legs.items()]
        if deferrable:
            patience = timeout.total_seconds()
            tasks.append(DeferredCanaryLeg(task_id=TRIGGERER_LEG, patience=patience, **first))
        if beat_url_variable is not None:
            tasks >> CanaryBeat(task_id="beat", url_variable=beat_url_variable, **first)
    return dag


def _names(parameter: str, names: Any) -> Sequence[str]:
    """Names of queues or executors.

    :raises InvalidParameter: they are none.
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        raise InvalidParameter(f'canary_dag: {parameter}={names!r} is not valid; write names: ("default",)')
    return names


def _check_text(parameter: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise InvalidParameter(
            f"canary_dag: {parameter}={value!r} is not valid; write the name of a {parameter}"
        )


def _check_variable(name: Any) -> None:
    """Check the name of the variable with the URL; the message does not show it: it may be the URL itself."""
    if name is not None and not (isinstance(name, str) and name and "://" not in name):
        raise InvalidParameter(
            "canary_dag: beat_url_variable is not valid; write the name of an Airflow variable with the "
            "URL, not the URL itself: that is a secret"
        )
