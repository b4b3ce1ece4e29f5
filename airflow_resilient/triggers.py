"""The only trigger: it watches remote jobs until they end and reports their state. It decides nothing."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from airflow.triggers.base import BaseTrigger, TriggerEvent

from . import compat
from .background import shared_watch
from .core.decide import should_cancel
from .core.job import Claim, Job, Phase, known_fields
from .core.polling import PollPolicy, Unanswered, tell_change
from .core.reconcile import LOG_XCOM
from .core.text import error_text, without_passwords
from .deployment import load_service
from .watching.log_forwarder import LogForwarder

if TYPE_CHECKING:
    from .core.service import RemoteService
    from .watching.shared_watch import SharedWatch

T = TypeVar("T")

_SEMAPHORES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)
_CANCELLING: set[asyncio.Task[None]] = set()
"""Tasks that outlive their triggers; an event loop alone does not keep its tasks alive."""

MAX_CONCURRENT_CANCELS = 16
"""Maximum number of stopped triggers that query Airflow, or cancel, at the same time."""
SHUTDOWN_CANCEL_SECONDS = 8.0
"""Seconds for which a stopping triggerer waits for its cancels, before Airflow 3.3."""
MAX_CANCEL_RETRY_SECONDS = 600.0
"""Seconds for which a cancel is retried after transient errors (throttling, lost answers)."""


def _intern_keys(value: Any) -> Any:
    """A copy of JSON values with interned keys: decoders create new ones, kilobytes for each trigger."""
    if isinstance(value, Mapping):
        return {sys.intern(str(name)): _intern_keys(each) for name, each in value.items()}
    return [_intern_keys(each) for each in value] if isinstance(value, list | tuple) else value


@lru_cache(maxsize=64)
def _parsed(text: str) -> dict[str, Any]:
    return dict(json.loads(text))


def _shared(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """JSON values as an object that all triggers with equal ones share, and that nothing changes."""
    return _parsed(json.dumps(values or {}))


async def _in_limited_threads(function: Callable[..., T], *args: Any) -> T:
    """Run `function` in a thread, with limited concurrency: thousands of triggers may stop at once."""
    async with _SEMAPHORES.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_CONCURRENT_CANCELS)):
        return await compat.in_thread(function, *args)


def _described(claim: Mapping[str, Any]) -> str:
    """The job of a serialized claim whose submission is not confirmed, for messages."""
    return f"the job of claim {Claim(**known_fields(Claim, claim))}, if there is one,"


class _CancelFailed(Exception):
    """The service did not cancel a job; `transient`: a later attempt may succeed."""

    def __init__(self, error: Exception, *, transient: bool) -> None:
        super().__init__(error_text(error))
        self.transient = transient


class RemoteJobTrigger(BaseTrigger):
    """Wait until remote jobs have ended, the deadline has passed, or a state has been reached.

    :param service: name of a `RemoteService`, of the registry or ``module:Class``, which the triggerer
        creates from `address`.
    :param address: constructor keywords; JSON values, no secrets.
    :param jobs: serialized jobs; the outcome of the first one counts. Empty to wait for the deadline only.
    :param memory: serialized memory of the try; returned with the event.
    :param poll_policy: fields of `PollPolicy`.
    :param deadline: when to stop waiting, in seconds since 1970.
    :param until: name of one of the job's facts, and the values of it that end the wait (for sensors).
    :param log: location of the job's log, for the service's ``read_log``; ``None`` to forward nothing.
    :param log_interval: seconds between two reads of the log.
    :param log_lines: how many of its last lines the event may contain, where the log has been read to its
        end; the worker writes them. 0 where nothing of the log is pushed: events are stored, and nothing in
        them is masked.
    :param on_clear: ``"restart"`` or ``"reattach"``; see `should_cancel`.
    :param paused: only the deadline ends the wait; `jobs` are those that a user's kill cancels.
    :param unconfirmed: serialized claims of submissions that may have taken effect: a user's kill looks for
        their jobs.
    :param lookup: constructor keywords that this search needs in addition to `address`.
    :param cancel_on_kill: whether the job may be cancelled (an operator's) or is only observed (a sensor's).
    :param unknown: fields that a newer version has stored, before a rollback or where workers are upgraded
        before triggerers. They are kept and ignored, with a warning: the trigger only observes, and the
        operator, which has the newer version, decides what the observations mean. Whether the newer version
        would cancel the job is unknown, so the trigger cancels nothing.

    The event's payload: ``{"memory": {...}, "jobs": [{...}], "time": bool, "refused": str | None, "log":
    [str, ...], "log_position": {...} | None, "unanswered": bool}``.
    """

    def __init__(  # noqa: PLR0913 - all are keyword-only
        self,
        *,
        service: str,
        address: Mapping[str, Any],
        jobs: Sequence[Mapping[str, Any]],
        memory: Mapping[str, Any],
        poll_policy: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        until: tuple[str, Sequence[str]] | None = None,
        log: Mapping[str, Any] | None = None,
        log_interval: float = 10.0,
        log_lines: int = 0,
        on_clear: Literal["restart", "reattach"] = "restart",
        paused: bool = False,
        unconfirmed: Sequence[Mapping[str, Any]] = (),
        lookup: Mapping[str, Any] | None = None,
        cancel_on_kill: bool = True,
        **unknown: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.arguments: dict[str, Any] = {
            "service": service,
            "address": _shared(address),
            "poll_policy": _shared(poll_policy),
            "deadline": deadline,
            "until": [until[0], list(until[1])] if until else None,
            "log": dict(log) if log else None,
            "log_interval": log_interval,
            "log_lines": log_lines,
            "on_clear": on_clear,
            "paused": paused,
            "unconfirmed": [dict(claim) for claim in unconfirmed],
            "lookup": _shared(lookup),
            "cancel_on_kill": cancel_on_kill,
            **unknown,
        }
        # As text, which takes less: nothing here reads it again, and a triggerer has thousands of triggers.
        self._memory, self._jobs = json.dumps(memory), json.dumps(list(jobs))
        newer = {
            f"{name} of a claim" for claim in unconfirmed for name in {*claim} - {*Claim.__dataclass_fields__}
        }
        self.unknown = (*unknown, *sorted(newer))
        self.observed: dict[str, Job] = {job.id: job for job in map(Job.from_dict, _intern_keys(jobs))}
        self.forwarder: LogForwarder | None = None
        self.reported = False

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and constructor keywords."""
        stored = {"jobs": json.loads(self._jobs), "memory": json.loads(self._memory)}
        return f"{__name__}.{type(self).__name__}", {**self.arguments, **stored}

    def __repr__(self) -> str:
        """Airflow's, without passwords of proxies in the address."""
        return str(without_passwords(super().__repr__()))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield one event with the observations; the operator decides what they mean."""
        if self.unknown:
            self.log.warning(
                "%s ignored: another version of airflow_resilient has stored this. The job is observed, and "
                "not cancelled from here. Let workers and triggerers have the same version",
                ", ".join(self.unknown),
            )
        waiting = self._pause() if self.arguments["paused"] or not self.observed else self._watch()
        try:
            yield await waiting
        except asyncio.CancelledError:
            if not compat.calls_on_kill():
                await self._cancel_before_shutdown()
            raise

    async def _pause(self) -> TriggerEvent:
        """Wait for the deadline."""
        await asyncio.sleep(max(0.0, (self.arguments["deadline"] or 0.0) - time.time()))
        return self._event(time_is_up=True)

    async def _watch(self) -> TriggerEvent:
        """Observe the jobs until they have ended or the deadline has passed."""
        arguments = self.arguments
        watch = await shared_watch(arguments["service"], arguments["address"])
        if arguments["log"]:
            self.forwarder = self._make_forwarder(watch)
        follows = [asyncio.ensure_future(self._follow(watch, job)) for job in self.observed.values()]
        forward = [asyncio.ensure_future(self.forwarder.run())] if self.forwarder else []
        try:
            # A triggerer that restarts after the deadline polls once more: the job may have ended.
            minimum = 2 * self._poll_policy().first_interval
            left = (
                None if arguments["deadline"] is None else max(minimum, arguments["deadline"] - time.time())
            )
            done, pending = await asyncio.wait(follows, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            errors = [error for follow in done if (error := follow.exception())]
            refused = error_text(errors[0]) if errors else None
            unanswered = any(isinstance(error, Unanswered) for error in errors)
            if self.forwarder:  # the end is reported without the rest of the log, which the worker copies
                succeeded = next(iter(self.observed.values())).phase is Phase.SUCCEEDED
                self.forwarder.end(drain=succeeded and arguments["log_lines"] > 0)
                await asyncio.gather(*forward)
            time_is_up = bool(pending) and not errors
            return self._event(time_is_up=time_is_up, refused=refused, unanswered=unanswered)
        finally:
            for task in (*follows, *forward):
                task.cancel()
            await asyncio.gather(*follows, *forward, return_exceptions=True)

    async def on_kill(self) -> None:
        """Cancel the job when a user cleared or marked the task instance (Airflow calls it from 3.3 on)."""
        await asyncio.shield(self._start_cancel())

    async def _cancel_before_shutdown(self) -> None:
        """Do what `on_kill` does, before Airflow 3.3, which only cancels the trigger's task.

        Airflow does the same when the triggerer stops or has lost its triggers: then the task instance has
        not ended, and nothing is cancelled. A triggerer that stops must not wait long for responses; jobs
        that are not cancelled in time are left to the next try and to the orphan sweep.
        """
        await asyncio.wait({self._start_cancel()}, timeout=SHUTDOWN_CANCEL_SECONDS)

    def _start_cancel(self) -> asyncio.Task[None]:
        """Run `_cancel_live_jobs` in its own task, which does not end with the trigger's task.

        Airflow cancels a trigger again each second until it has ended, also during `on_kill`, which then ends
        silently. Source: ``cancelling_triggers``, sent as ``to_cancel`` with each
        ``TriggerStateSync``, in ``airflow/jobs/triggerer_job_runner.py`` of 3.3.2.
        """
        task = asyncio.ensure_future(self._cancel_live_jobs())
        _CANCELLING.add(task)
        task.add_done_callback(_CANCELLING.discard)
        return task

    async def _cancel_live_jobs(self) -> None:
        """Cancel the live jobs if their task instance has ended."""
        if self.reported or not self.arguments["cancel_on_kill"]:
            return
        live = [job for job in self.observed.values() if job.live]
        if self.unknown:
            names = [*(job.id for job in live), *map(_described, self.arguments["unconfirmed"])]
            if names:
                self.log.warning("not cancelling %s: see the warning at the start", ", ".join(names))
            return
        cancels = [self._cancel_with_retries(job.id, partial(self._cancel, job)) for job in live]
        for each in self.arguments["unconfirmed"]:
            find_and_cancel = partial(self._find_and_cancel, Claim(**each))
            cancels.append(self._cancel_with_retries(_described(each), find_and_cancel))
        await asyncio.gather(*cancels)

    async def _cancel_with_retries(
        self, name: str, cancel: Callable[[RemoteService, str], Awaitable[None]]
    ) -> None:
        """Cancel a job if its task instance has ended, by its current state in Airflow.

        The state is read again before each attempt: the next try may have taken the job over meanwhile.

        :param name: of the job, for messages.
        :param cancel: makes one attempt, given the service and the reason.
        """
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

        def is_transient(error: BaseException) -> bool:
            """Whether the service, not Airflow, failed with a transient error."""
            return isinstance(error, _CancelFailed) and error.transient

        attempts = AsyncRetrying(
            stop=stop_after_delay(MAX_CANCEL_RETRY_SECONDS),
            wait=wait_random_exponential(multiplier=0.5, max=30),
            retry=retry_if_exception(is_transient),
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    await self._cancel_once(name, cancel)
        except _CancelFailed as error:
            self.log.warning("%s could not be cancelled: %s", name, error)
        except Exception as error:  # noqa: BLE001 - it is logged
            self.log.warning(
                "%s is not cancelled: cannot read the state of the task instance from Airflow: %s",
                name,
                error_text(error),
            )

    async def _cancel_once(self, name: str, cancel: Callable[[RemoteService, str], Awaitable[None]]) -> None:
        """Make one attempt.

        :raises _CancelFailed: the task instance has ended, and the service failed to cancel the job.
        """
        state = await _in_limited_threads(compat.state_of, self.task_instance)
        if not should_cancel(state, self.arguments["on_clear"]):
            self.log.info("not cancelling %s: the task instance is %s", name, state or "cleared")
            return
        reason = f"task instance {state or 'cleared or deleted'} in Airflow"
        self.log.info("cancelling %s: %s", name, reason)
        service = None
        try:
            service = (await shared_watch(self.arguments["service"], self.arguments["address"])).service
            await cancel(service, reason)
        except Exception as error:
            raise _CancelFailed(
                error, transient=service is not None and service.is_transient(error)
            ) from error

    @staticmethod
    async def _cancel(job: Job, service: RemoteService, reason: str) -> None:
        await _in_limited_threads(service.cancel, job, reason)

    async def _find_and_cancel(self, claim: Claim, service: RemoteService, reason: str) -> None:
        """Cancel the live job of a submission that may have taken effect."""
        if self.arguments["lookup"]:
            keywords = {**self.arguments["address"], **self.arguments["lookup"]}
            service = await _in_limited_threads(load_service, self.arguments["service"], keywords)
        await asyncio.sleep(service.listing_lag)
        for job in await _in_limited_threads(service.find, [claim]):
            if job.live and job.claim == claim:
                await self._cancel(job, service, reason)

    def _poll_policy(self) -> PollPolicy:
        return PollPolicy(**known_fields(PollPolicy, self.arguments["poll_policy"]))

    def _event(
        self, *, time_is_up: bool = False, refused: str | None = None, unanswered: bool = False
    ) -> TriggerEvent:
        self.reported = True
        # Without it, the worker asks for the stored one.
        position = self.forwarder.position if self.forwarder and self.forwarder.continued else None
        return TriggerEvent(  # type: ignore[no-untyped-call]
            {
                "memory": json.loads(self._memory),
                "jobs": [job.to_dict() for job in self.observed.values()],
                "time": time_is_up,
                "refused": refused,
                "unanswered": unanswered,
                "log": list(self.forwarder.tail) if self.forwarder and self.forwarder.whole else [],
                "log_position": position.to_dict() if position else None,
            }
        )

    async def _follow(self, watch: SharedWatch, job: Job) -> None:
        """Keep the latest observation of `job` until it ends or has reached what a sensor waits for."""
        until = self.arguments["until"]
        policy = self._poll_policy()
        async for seen in watch.follow(job, policy, lambda silence: silence.tell(job.id, self.log)):
            before, self.observed[job.id] = self.observed[job.id], seen
            tell_change(before, seen, time.time(), self.log)
            if until and seen.facts.get(until[0]) in until[1]:
                return

    def _make_forwarder(self, watch: SharedWatch) -> LogForwarder:
        """What copies the log of the first job into the task instance's log."""
        job_id = next(iter(self.observed))
        return LogForwarder(
            watch.service,
            lambda: self.observed[job_id],
            self.arguments["log"],
            keep=self.arguments["log_lines"],
            write=self.log,
            in_thread=compat.in_thread,
            recall=partial(compat.recall, self.task_instance, LOG_XCOM),
            remember=partial(compat.remember, self.task_instance, LOG_XCOM),
            turns=watch.log_turns,
            interval=self.arguments["log_interval"],
        )
