"""Which plan a job gets: rules given by the test, hints in the request, the default."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

PlanT = TypeVar("PlanT")

Then = Sequence[Mapping[str, Any]] | Callable[[Mapping[str, Any], int], Mapping[str, Any]]
"""What the following jobs of a rule get: changes to its plan, one by one (the last one stays), or a
function of the request and the number of the job (1 for the second) that returns such changes."""

_SLEEP = re.compile(r"\bsleep\s+(\d+(?:\.\d+)?)")
_EXIT = re.compile(r"\bexit\s+(\d+)")


@dataclass
class _Rule:
    fits: Callable[[Mapping[str, Any]], bool]
    changes: Mapping[str, Any]
    then: Then
    used: int = 0

    def next_changes(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        number, self.used = self.used, self.used + 1
        if number == 0 or not self.then:
            return self.changes
        if callable(self.then):
            return {**self.changes, **self.then(request, number)}
        return {**self.changes, **self.then[min(number, len(self.then)) - 1]}


class Plans(Generic[PlanT]):
    """The rules of one service; a later rule goes before an earlier one."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def add(
        self,
        fits: Callable[[Mapping[str, Any]], bool],
        changes: Mapping[str, Any],
        then: Then,
        default: PlanT,
    ) -> None:
        """Add a rule.

        :raises TypeError: at once, when a change names no field of the plan.
        """
        for each in [changes, *(then if not callable(then) else ())]:
            replace(default, **each)  # type: ignore[type-var]
        self._rules.insert(0, _Rule(fits, dict(changes), then))

    def choose(self, request: Mapping[str, Any], base: PlanT) -> PlanT:
        """Give the next job its plan: ``base``, changed by the first rule that fits the request."""
        for rule in self._rules:
            if rule.fits(request):
                return replace(base, **rule.next_changes(request))  # type: ignore[type-var]
        return base


def seconds_and_exit(words: Sequence[str]) -> tuple[float | None, int | None]:
    """Read ``sleep N`` and ``exit N`` out of a command line.

    >>> seconds_and_exit(["bash", "-c", "sleep 2.5; exit 3"])
    (2.5, 3)
    >>> seconds_and_exit(["spark-submit", "--class", "Sort"])
    (None, None)
    """
    line = " ".join(words)
    sleep, code = _SLEEP.search(line), _EXIT.search(line)
    return (float(sleep[1]) if sleep else None), (int(code[1]) if code else None)
