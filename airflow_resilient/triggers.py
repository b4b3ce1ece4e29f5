"""The one trigger: it watches remote jobs until they end and reports what it saw. It decides nothing."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from . import compat, settings
from .budget import DEFAULT_BUDGET, shared_bucket
from .jobs import Job, RemoteJobs
from .sidecars import start_sidecars
from .watch import Patience, SharedWatch

T = TypeVar("T")

_WATCHES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedWatch]] = (
    weakref.WeakKeyDictionary()
)
_TURNS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()
_CANCELLING: set[asyncio.Task[None]] = set()
"""What goes on when its trigger is gone; an event loop alone does not keep its tasks alive."""

LOG_XCOM = "remote_job_log"
"""Key of the XCom in which the trigger keeps how far it has forwarded the job's log."""
LINES_AT_ONCE = 200
"""How many lines of a log are written before other triggers have their turn."""
LOG_DRAIN = 6.0
"""Seconds for which the log is still read after the job's end: CloudWatch shows lines a few seconds late. A
service's ``log_drain`` says otherwise."""
LOG_TROUBLE = 60.0
"""Seconds for which the end of a log is asked for, when the job has ended and its log cannot be read."""

AT_ONCE = 16
"""How many triggers that are stopped at the same time ask Airflow why, or cancel, at the same time."""
TIME_TO_CANCEL = 8.0
"""Seconds for which a stopping triggerer waits for answers, before Airflow 3.3."""
CANCEL_TROUBLE = 600.0
"""Seconds for which a cancel is sent again that could not be carried out (throttling, lost answers)."""


def load(service: str, address: Mapping[str, Any]) -> RemoteJobs:
    """Build the service named ``module:Class`` from its address."""
    module, _, name = service.partition(":")
    made: RemoteJobs = getattr(importlib.import_module(module), name)(**address)
    return made


def make_watch(service: str, address: Mapping[str, Any]) -> SharedWatch:
    """A watch that shares the budget of calls with all others of this process (blocking)."""
    jobs, chosen = load(service, address), settings.reread()
    budget = chosen.budget_of(getattr(jobs, "budget", DEFAULT_BUDGET))
    account = getattr(jobs, "account", None)
    whose = account() if account else json.dumps([service, address], sort_keys=True)
    bucket = shared_bucket(budget, whose, chosen.api_budget_share)
    return SharedWatch(jobs, compat.in_thread, bucket=bucket, at_once=chosen.looks_at_once)


async def shared_watch(service: str, address: Mapping[str, Any]) -> SharedWatch:
    """The watch of this event loop for that service and address; all triggers of a triggerer share it.

    The service is made in a thread, because importing it may take long enough to hold up the loop.
    """
    key = json.dumps([service, address], sort_keys=True)
    for loop in [loop for loop in _WATCHES if loop.is_closed()]:  # a watch knows its loop, so it keeps it
        del _WATCHES[loop]
    watches = _WATCHES.setdefault(asyncio.get_running_loop(), {})
    if key not in watches:
        made = await compat.in_thread(make_watch, service, address)
        watches.setdefault(key, made)  # somebody else may have been quicker
        start_sidecars(lambda: list(watches.values()))
    return watches[key]


def _one_copy_of_names(value: Any) -> Any:
    """A copy of JSON values. Decoders make the names in objects anew each time, kilobytes for a trigger."""
    if isinstance(value, Mapping):
        return {sys.intern(str(name)): _one_copy_of_names(each) for name, each in value.items()}
    return [_one_copy_of_names(each) for each in value] if isinstance(value, list | tuple) else value


def killed_by_a_person(state: str | None, on_clear: str) -> bool:
    """Say whether a job is to be cancelled, by its task instance's state when the trigger is stopped.

    Airflow (3.3) also calls `on_kill` when a triggerer wakes after its triggers were given to another one,
    and when the trigger's own event has been taken already; before 3.3 a trigger is stopped in the same way
    when the triggerer stops, too. Then the task instance is deferred, or on its way to a worker. A task
    instance that was cleared has no state until it is scheduled; after that its next try cancels the job.

    :param state: the task instance's state; ``None`` when it was cleared or its DAG run deleted.
    :param on_clear: ``"reattach"``: a job survives the clear.

    Source: Airflow issue 73454.

    >>> [killed_by_a_person(state, "restart") for state in ("failed", "success", None, "deferred", "running")]
    [True, True, True, False, False]
    """
    if state in (None, "removed"):
        return on_clear == "restart"
    return state in ("failed", "success", "skipped", "upstream_failed")


async def _in_turn(function: Callable[..., T], *args: Any) -> T:
    """Run it in a thread when others have been answered: thousands of triggers may stop at once."""
    async with _TURNS.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)):
        return await compat.in_thread(function, *args)


class _CancelFailed(Exception):
    """The service has not cancelled a job that is to end; `passes`: it may do so later."""

    def __init__(self, error: Exception, *, passes: bool) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.passes = passes


class RemoteJobTrigger(BaseTrigger):
    """Wait until remote jobs have ended, a time has come, or a state has been reached.

    :param service: ``module:Class`` of a `RemoteJobs`, built from `address` in the triggerer.
    :param address: constructor keywords; JSON values, no secrets.
    :param jobs: packed jobs; the first one is the one that counts. Empty to wait for a time only.
    :param memory: packed memory of the try; handed back with the event.
    :param patience: fields of `Patience`.
    :param deadline: when to report that time is up, in seconds since 1970.
    :param until: name of one of the job's facts, and the values of it that end the wait (for sensors).
    :param log: where the job's log is, for the service's ``read_log``; ``None`` to forward nothing.
    :param log_interval: seconds between two reads of the log.
    :param log_lines: how many of its last lines the event carries.
    :param on_clear: ``"restart"`` or ``"reattach"``; see `killed_by_a_person`.
    :param cancel_on_kill: whether the job is ours to cancel (an operator's) or only looked at (a sensor's).

    The event's payload: ``{"memory": {...}, "jobs": [packed], "time": bool, "refused": str | None, "log":
    [str, ...]}``.
    """

    def __init__(
        self,
        *,
        service: str,
        address: Mapping[str, Any],
        jobs: Sequence[Mapping[str, Any]],
        memory: Mapping[str, Any],
        patience: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        until: tuple[str, Sequence[str]] | None = None,
        log: Mapping[str, Any] | None = None,
        log_interval: float = 10.0,
        log_lines: int = 10,
        on_clear: Literal["restart", "reattach"] = "restart",
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments: dict[str, Any] = {
            "service": service,
            "address": dict(address),
            "jobs": [_one_copy_of_names(job) for job in jobs],
            "memory": _one_copy_of_names(memory),
            "patience": dict(patience or {}),
            "deadline": deadline,
            "until": [until[0], list(until[1])] if until else None,
            "log": dict(log) if log else None,
            "log_interval": log_interval,
            "log_lines": log_lines,
            "on_clear": on_clear,
            "cancel_on_kill": cancel_on_kill,
        }
        self.looks: dict[str, Job] = {job.id: job for job in map(Job.unpack, self.arguments["jobs"])}
        # Not made where nothing is forwarded: there may be thousands of triggers.
        self.tail: deque[str] | None = deque(maxlen=log_lines) if log else None
        self.reported = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and constructor keywords."""
        return f"{__name__}.{type(self).__name__}", self.arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event: what was seen, not what it means."""
        arguments = self.arguments
        if not self.looks:
            await asyncio.sleep(max(0.0, (arguments["deadline"] or 0.0) - time.time()))
            yield self._event(time_is_up=True)
            return
        watch = await shared_watch(arguments["service"], arguments["address"])
        ended = asyncio.Event() if arguments["log"] else None
        follows = [asyncio.ensure_future(self._follow(watch, job)) for job in self.looks.values()]
        forward = (
            [asyncio.ensure_future(self._forward_log(watch, next(iter(self.looks)), ended))] if ended else []
        )
        try:
            # A triggerer that comes back after the deadline has time for one look: the job may have ended.
            least = 2 * Patience(**arguments["patience"]).first
            left = None if arguments["deadline"] is None else max(least, arguments["deadline"] - time.time())
            done, pending = await asyncio.wait(follows, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            errors = [error for follow in done if (error := follow.exception())]
            refused = f"{type(errors[0]).__name__}: {errors[0]}" if errors else None
            if ended:
                ended.set()
            if not errors and not pending:
                await asyncio.gather(*forward)
            yield self._event(time_is_up=bool(pending) and not errors, refused=refused)
        except asyncio.CancelledError:
            if not compat.calls_on_kill():
                await self._cancel_in_time()
            raise
        finally:
            for task in (*follows, *forward):
                task.cancel()
            await asyncio.gather(*follows, *forward, return_exceptions=True)

    async def on_kill(self) -> None:
        """Cancel the job when a person cleared or marked the task instance (Airflow calls it from 3.3 on)."""
        await asyncio.shield(self._cancelling())

    async def _cancel_in_time(self) -> None:
        """Do what `on_kill` does, before Airflow 3.3, which says nothing but that the trigger is to stop.

        It says the same when the triggerer stops or has lost its triggers: then the task instance is not
        over, and nothing happens. A triggerer that stops must not wait long for answers; what is not answered
        in time is left to the next try and to the orphan sweep.
        """
        await asyncio.wait({self._cancelling()}, timeout=TIME_TO_CANCEL)

    def _cancelling(self) -> asyncio.Task[None]:
        """Let `_cancel_if_killed` run by itself, whatever becomes of the trigger's own task.

        Airflow stops a trigger again each second until it is gone, also in the middle of `on_kill`, which
        then ends without a word. Source: ``cancelling_triggers``, sent as ``to_cancel`` with each
        ``TriggerStateSync``, in ``airflow/jobs/triggerer_job_runner.py`` of 3.3.2.
        """
        task = asyncio.ensure_future(self._cancel_if_killed())
        _CANCELLING.add(task)
        task.add_done_callback(_CANCELLING.discard)
        return task

    async def _cancel_if_killed(self) -> None:
        """Cancel what lives if nobody wants it any more."""
        live = [job for job in self.looks.values() if job.live]
        if not self.reported and self.arguments["cancel_on_kill"]:
            await asyncio.gather(*map(self._cancel_if_over, live))

    async def _cancel_if_over(self, job: Job) -> None:
        """Cancel `job` if its task instance is over, by what Airflow says now.

        Airflow is asked again before each attempt: a next try may have taken the job over meanwhile.
        """
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

        def passes(error: BaseException) -> bool:
            """Whether the service, not Airflow, was in trouble, and may soon be well."""
            return isinstance(error, _CancelFailed) and error.passes

        attempts = AsyncRetrying(
            stop=stop_after_delay(CANCEL_TROUBLE),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            retry=retry_if_exception(passes),
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    await self._ask_and_cancel(job)
        except _CancelFailed as error:
            self.log.warning("%s could not be cancelled: %s", job.id, error)
        except Exception as error:  # noqa: BLE001 - it is said
            self.log.warning(
                "not known whether the task instance is over, so nothing is cancelled: %s: %s",
                type(error).__name__,
                error,
            )

    async def _ask_and_cancel(self, job: Job) -> None:
        """Make one attempt.

        :raises _CancelFailed: the task instance is over, and the service has not cancelled.
        """
        state = await _in_turn(compat.state_of, self.task_instance)
        if not killed_by_a_person(state, self.arguments["on_clear"]):
            self.log.info("not cancelling %s: the task instance is %s", job.id, state or "cleared")
            return
        reason = f"task instance {state or 'cleared or deleted'} in Airflow"
        self.log.info("cancelling %s: %s", job.id, reason)
        service = None
        try:
            service = (await shared_watch(self.arguments["service"], self.arguments["address"])).service
            await _in_turn(service.cancel, job, reason)
        except Exception as error:
            raise _CancelFailed(error, passes=service is not None and service.is_transient(error)) from error

    def _event(self, *, time_is_up: bool = False, refused: str | None = None) -> TriggerEvent:
        self.reported = True
        return TriggerEvent(  # type: ignore[no-untyped-call]
            {
                "memory": self.arguments["memory"],
                "jobs": [job.pack() for job in self.looks.values()],
                "time": time_is_up,
                "refused": refused,
                "log": list(self.tail or ()),
            }
        )

    async def _follow(self, watch: SharedWatch, job: Job) -> None:
        """Keep the latest look at `job` until it ends or has reached what a sensor waits for."""
        until = self.arguments["until"]
        async for look in watch.follow(job, Patience(**self.arguments["patience"])):
            before, self.looks[job.id] = self.looks[job.id], look
            if look.phase is not before.phase:
                age = max(0.0, (look.ended or time.time()) - look.created)
                why = f" ({look.reason})" if look.reason else ""
                self.log.info("%s: %s, %.0f s after it was submitted%s", look.id, look.phase.value, age, why)
            if until and look.facts.get(until[0]) in until[1]:
                return

    async def _forward_log(self, watch: SharedWatch, job_id: str, ended: asyncio.Event) -> None:
        """Copy the job's log into the task's log. Trouble with it delays lines and changes nothing else.

        How far it came is kept in an XCom after each portion, so that a restarted triggerer goes on from
        there; when the triggerer is killed between writing a portion and keeping that, this one portion is
        written twice.
        """
        service = watch.service
        where, read, tail = self.arguments["log"], getattr(service, "read_log", None), self.tail
        if where is None or read is None or tail is None:
            return
        cursor: Any = None
        kept = await self._keep(compat.recall)
        if kept and kept.get("job") == job_id:
            cursor = kept["cursor"]
            tail.extend(kept["tail"])
        drain = float(getattr(service, "log_drain", LOG_DRAIN))
        drained = given_up = None
        while True:
            lines: Sequence[tuple[float, str]] = ()
            trouble = False
            try:
                async with watch.reading:
                    lines, cursor = await compat.in_thread(read, self.looks[job_id], where, cursor)
            except Exception as error:  # noqa: BLE001 - sorted out by is_transient, or said
                if not service.is_transient(error):
                    self.log.warning("the job's log cannot be read: %s: %s", type(error).__name__, error)
                    return
                trouble = True
            for number, (_, message) in enumerate(lines, 1):
                self.log.info("%s", message)
                if number % LINES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # other triggers have their turn
            if lines:
                tail.extend(message for _, message in lines)
                await self._keep(compat.remember, {"job": job_id, "cursor": cursor, "tail": list(tail)})
            elif trouble and given_up is not None and time.monotonic() >= given_up:
                self.log.warning("the end of the job's log cannot be read")
                return
            elif drained is not None and not trouble and time.monotonic() >= drained:
                return
            if ended.is_set() and drained is None:
                drained = time.monotonic() + drain
                given_up = time.monotonic() + max(drain, LOG_TROUBLE)
            if not ended.is_set():
                try:
                    await asyncio.wait_for(ended.wait(), self.arguments["log_interval"])
                except asyncio.TimeoutError:
                    continue
            elif trouble:
                await asyncio.sleep(LOG_DRAIN / 4)
            elif not lines:
                await asyncio.sleep(drain / 4)

    async def _keep(self, function: Any, *value: Any) -> Any:
        """Read or write the XCom of the log's cursor; ``None`` where this version of Airflow cannot."""
        try:
            return await compat.in_thread(function, self.task_instance, LOG_XCOM, *value)
        except Exception as error:  # noqa: BLE001 - sorted out by is_transient, or said
            self.log.debug("the position in the log cannot be kept: %s", error)
            return None
