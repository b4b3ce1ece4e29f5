"""What runs beside the watches of a triggerer: the report of metrics, and the queue of events."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from . import compat, events, metrics, settings
from .aws import AwsAccess
from .jobs import Claim, same_namespace
from .threads import in_own_thread

if TYPE_CHECKING:
    from .watch import SharedWatch

log = logging.getLogger(__name__)

_SIDECARS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[asyncio.Task[None]]] = (
    weakref.WeakKeyDictionary()
)


def start_sidecars(watches: Callable[[], Sequence[SharedWatch]]) -> None:
    """Report on the watches of this event loop, and wake them by events, from the first call on."""
    loop = asyncio.get_running_loop()
    if loop in _SIDECARS:
        return
    for other in [other for other in _SIDECARS if other.is_closed()]:
        del _SIDECARS[other]
    chosen = settings.current()
    queue = None
    if chosen.events_queue_url:
        queue = events.EventQueue(
            chosen.events_queue_url,
            AwsAccess(chosen.events_aws_conn_id, events.region_of(chosen.events_queue_url)),
            watches,
            made_here,
            with_connections=compat.in_thread,
        )
        log.info("listening to the events of %s", chosen.events_queue_url)

    def told() -> list[Any]:
        """Whoever counts something."""
        return [*watches(), *([queue] if queue else [])]

    _SIDECARS[loop] = [_start(metrics.report(told, in_own_thread), "metrics")]
    if queue:
        _SIDECARS[loop].append(_start(queue.listen(), "events"))


def made_here(claim: Claim) -> bool:
    """Whether a claim was made by this deployment."""
    from .operators import namespace

    return same_namespace(claim, namespace())


def _start(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start a task that belongs to no trigger: what it logs goes to the triggerer's log."""
    create: Any = asyncio.get_running_loop().create_task
    task: asyncio.Task[None] = contextvars.Context().run(create, coroutine, name=f"airflow-resilient-{name}")
    return task
