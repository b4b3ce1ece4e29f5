"""Section ``[airflow_resilient]`` of Airflow's configuration, as far as it is about watching.

`read` is pure and says all that is wrong. `current` is what the code asks: a value that cannot be used is
said once, as an error, and its default is used instead, because jobs that run must be watched whatever is
written there.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from .watch import AT_ONCE, Patience

if TYPE_CHECKING:
    from .budget import Budget

log = logging.getLogger(__name__)

SECTION = "airflow_resilient"
# Compiled at their first use: most processes only parse DAG files.
_BUDGET = r"([\w:.-]+)\s*=\s*([0-9.]+)(?:\s*/\s*([0-9.]+))?"
_QUEUE = r"https?://[^/\s]+/\d+/[\w.-]+(\.fifo)?"


class Usual(int):
    """A number of seconds that stands in a signature because the amazon provider has it there.

    Who did not write the parameter did not ask for this number, so ``[airflow_resilient] poll_interval`` goes
    before it.
    """


@dataclass(frozen=True)
class Settings:
    """What the section says. Durations are seconds.

    :param api_budget_share: how much of the account's budget of calls the looks of one triggerer may use.
    :param api_budgets: budgets that differ from the published ones: name of the API to calls per second and
        burst (``None``: in the published proportion).
    :param poll_interval: longest time between two looks where the operator does not say; ``None``: its
        default.
    :param first_look: shortest time between two looks, and until the first one.
    :param longest_backoff: ceiling of the back-off after trouble.
    :param looks_at_once: how many looks of one service may be under way at the same time.
    :param events_queue_url: the SQS queue with AWS's events; empty for none.
    :param events_aws_conn_id: the Airflow connection for that queue.
    """

    api_budget_share: float = 0.5
    api_budgets: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    poll_interval: float | None = None
    first_look: float = Patience.first
    longest_backoff: float = Patience.longest
    looks_at_once: int = AT_ONCE
    events_queue_url: str = ""
    events_aws_conn_id: str = "aws_default"

    def budget_of(self, published: Budget) -> Budget:
        """The budget of an account whose limits were raised, or the published one."""
        if published.name not in self.api_budgets:
            return published
        per_second, burst = self.api_budgets[published.name]
        return replace(
            published,
            per_second=per_second,
            burst=burst or published.burst * per_second / published.per_second,
        )

    def patience(self, poll: float | None = None) -> Patience:
        """How often to look.

        :param poll: the longest time between two looks, where the operator says it.
        """
        if poll is None or isinstance(poll, Usual):
            poll = self.poll_interval or poll or Patience.poll
        return Patience(
            poll=float(poll), first=min(self.first_look, float(poll)), longest=self.longest_backoff
        )


def read(get: Callable[[str], str | None]) -> tuple[Settings, tuple[str, ...]]:
    """Read the section.

    :param get: gives the text of an option; empty: its default.
    :return: the settings, and what is wrong: which option, what stands there, what to write. What is wrong
        has its default in the settings.

    >>> read({"api_budget_share": "50 %"}.get)[1]
    ("[airflow_resilient] api_budget_share = '50 %': write a number above 0 and at most 1, such as 0.5",)
    """
    found: dict[str, Any] = {}
    wrong: list[str] = []
    for option in fields(Settings):
        text = (get(option.name) or "").strip()
        if not text:
            continue
        parse, wanted = _OPTIONS[option.name]
        try:
            found[option.name] = parse(text)
        except ValueError:
            wrong.append(f"[{SECTION}] {option.name} = {text!r}: write {wanted}")
    return Settings(**found), tuple(wrong)


def _number(least: float, most: float = math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        """The number, if it is in the range.

        :raises ValueError: it is not, or is no number.
        """
        value = float(text)
        if not (least <= value <= most and math.isfinite(value)):
            raise ValueError(text)
        return value

    return parse


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        """The whole number, if it is in the range.

        :raises ValueError: it is not, or is no whole number.
        """
        if not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return parse


def _budgets(text: str) -> dict[str, tuple[float, float | None]]:
    """Budgets by API.

    >>> _budgets("emr:ListSteps = 2/40, ecs:DescribeTasks = 50")
    {'emr:ListSteps': (2.0, 40.0), 'ecs:DescribeTasks': (50.0, None)}
    """
    budgets: dict[str, tuple[float, float | None]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(_BUDGET, part)
        if match is None:
            raise ValueError(part)
        positive = _number(1e-3)
        budgets[match[1]] = positive(match[2]), positive(match[3]) if match[3] else None
    return budgets


def _queue(text: str) -> str:
    if not re.fullmatch(_QUEUE, text):
        raise ValueError(text)
    return text


_OPTIONS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "api_budget_share": (_number(0.001, 1.0), "a number above 0 and at most 1, such as 0.5"),
    "api_budgets": (
        _budgets,
        "API=calls per second/calls at once, such as emr:ListSteps=2/40, several with commas between them",
    ),
    "poll_interval": (_number(1.0, 3600.0), "a number of seconds from 1 to 3600, such as 30"),
    "first_look": (_number(1.0, 60.0), "a number of seconds from 1 to 60, such as 2"),
    "longest_backoff": (_number(10.0, 3600.0), "a number of seconds from 10 to 3600, such as 300"),
    "looks_at_once": (_whole(1, 50), "a whole number from 1 to 50, such as 8"),
    "events_queue_url": (
        _queue,
        "the URL of an SQS queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/airflow-events",
    ),
    "events_aws_conn_id": (str, "the id of an Airflow connection, such as aws_default"),
}

_current: Settings | None = None


def current() -> Settings:
    """The settings of this process, read when they are first asked for."""
    return _current or reread()


def reread() -> Settings:
    """The settings of this process as they are now. Errors are said, once for each reading."""
    global _current
    from .compat import conf

    _current, wrong = read(lambda name: conf.get(SECTION, name, fallback=""))
    for complaint in wrong:
        log.error("%s. Its default is used until then.", complaint)
    return _current
