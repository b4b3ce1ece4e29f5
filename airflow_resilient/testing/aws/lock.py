"""One lock for the whole fake: requests come in threads of a server, a test reads from its own."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Locked(Protocol):
    """Has a re-entrant lock, so that locked methods may call each other, and plans may read the state."""

    _lock: threading.RLock


LockedT = TypeVar("LockedT", bound=Locked)


def locked(method: Callable[Concatenate[LockedT, P], R]) -> Callable[Concatenate[LockedT, P], R]:
    """Run a method while no other thread is inside the fake."""

    @functools.wraps(method)
    def run(self: LockedT, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return run
