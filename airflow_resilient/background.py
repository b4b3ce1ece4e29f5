"""Background tasks of a triggerer: shared watches, the metrics reporter and the event queue."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import weakref
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from . import compat, registry, settings
from .aws.access import AwsAccess
from .core.threads import in_own_thread
from .deployment import load_service, submitted_here
from .watching import events, metrics
from .watching.budget import shared_bucket
from .watching.shared_watch import SharedWatch
from .watching.watches import Watches

log = logging.getLogger(__name__)

DROP_SECONDS = 60.0
"""Seconds between two looks for watches that nobody uses any more."""

_WATCHES: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watches] = weakref.WeakKeyDictionary()
_BACKGROUND: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[asyncio.Task[None]]] = (
    weakref.WeakKeyDictionary()
)


def make_watch(service: str, address: Mapping[str, Any]) -> SharedWatch:
    """Make a watch that shares its budgets of calls with all others of this process (blocking)."""
    client, options = load_service(service, address), settings.reread()
    account = client.account() or json.dumps([service, address], sort_keys=True)
    buckets = [
        shared_bucket(options.budget_of(budget), account, options.api_budget_share)
        for budget in (client.budget, *client.more_budgets)
    ]
    return SharedWatch(
        client,
        compat.in_thread,
        buckets=buckets,
        max_concurrent_polls=options.max_concurrent_polls,
        archive_timeout=options.transient_error_timeout,
    )


async def shared_watch(service: str, address: Mapping[str, Any]) -> SharedWatch:
    """The watch of this event loop for that service and address; all triggers of a triggerer share it.

    A thread makes the service, once for all who ask, because importing it may block the loop for too long.
    """
    loop = asyncio.get_running_loop()
    # A watch refers to its loop, so the weak key alone does not remove it.
    for other in [other for other in _WATCHES if other.is_closed()]:
        del _WATCHES[other]
    watches = _WATCHES.setdefault(loop, Watches(loop.time))
    watch = await watches.get(
        json.dumps([service, address], sort_keys=True),
        lambda: compat.in_thread(make_watch, service, address),
    )
    start_background_tasks(watches)
    return watch


def start_background_tasks(watches: Watches) -> None:
    """Start the metrics reporter, the dropping of watches and the event listener of this loop, once."""
    loop = asyncio.get_running_loop()
    if loop in _BACKGROUND:
        return
    for other in [other for other in _BACKGROUND if other.is_closed()]:
        del _BACKGROUND[other]
    options = settings.current()
    queue = None
    if options.events_queue_url:
        queue = events.EventQueue(
            options.events_queue_url,
            AwsAccess(options.events_aws_conn_id),
            watches.made,
            submitted_here,
            readers=[info.read_event for info in registry.services().values()],
            sources=[info.event_source for info in registry.services().values()],
            with_connections=compat.in_thread,
        )
        log.info("listening for events on %s", options.events_queue_url)

    def sources() -> list[Any]:
        """Everything that has metrics."""
        return [*watches.made(), *([queue] if queue else [])]

    _BACKGROUND[loop] = [
        _start(metrics.report(sources, in_own_thread, emit), "metrics"),
        _start(drop_idle_watches(watches), "drop"),
    ]
    if queue:
        _BACKGROUND[loop].append(_start(queue.listen(), "events"))


async def drop_idle_watches(watches: Watches, every: float = DROP_SECONDS) -> None:
    """Drop unused watches without an end: connections come and go while a triggerer lives for months."""
    while True:
        await asyncio.sleep(every)
        dropped = watches.drop_idle()
        if dropped:
            log.debug("dropped %d watches that nobody used", dropped)


def emit(measures: Sequence[metrics.Measure]) -> None:
    """Send measures to Airflow (blocking), with the name of this machine as a tag."""
    stats, tags = compat.stats(), {"hostname": compat.hostname()}
    for kind, name, value in measures:
        if kind == "incr":
            stats.incr(name, int(value), tags=tags)
        else:
            stats.gauge(name, round(value, 3), tags=tags)


def _start(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task that belongs to no trigger, so that its log lines go to the triggerer's log."""
    create: Any = asyncio.get_running_loop().create_task
    task: asyncio.Task[None] = contextvars.Context().run(create, coroutine, name=f"airflow-resilient-{name}")
    return task
