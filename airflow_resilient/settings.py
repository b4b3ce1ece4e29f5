"""Section ``[airflow_resilient]`` of Airflow's configuration.

`OPTIONS` is the only table of options: the settings, Airflow's provider info and the reference in the
documentation are made from it. `read` is pure and returns all errors. `current` is the accessor for all other
modules: it logs an error for each invalid value, once, and uses the default instead, because running jobs
must be watched even if the configuration is invalid.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .core.decide import Policy
from .core.polling import MAX_CONCURRENT_POLLS, PollPolicy

if TYPE_CHECKING:
    from .core.service import Budget

log = logging.getLogger(__name__)

SECTION = "airflow_resilient"

# Compiled at their first use: most processes only parse DAG files.
_BUDGET = r"([\w:.-]+)\s*=\s*([0-9.]+)(?:\s*/\s*([0-9.]+))?"
_QUEUE = r"https?://[^/\s]+/\d+/[\w.-]+(\.fifo)?"
_LOG_GROUP = r"[\w./#-]{1,512}"  # Source: CreateLogGroup reference, ``logGroupName``


MIN_INTERVAL = 1.0
"""Shortest time between two polls that can be set, in seconds."""


class ProviderDefault(int):
    """A default of an operator's parameter, seconds or a truth, that is copied from the amazon provider.

    A user who did not set the parameter did not choose it, so ``[airflow_resilient] poll_interval`` takes
    precedence over these seconds, and a default that is false is no wish of the user.
    """


def _number(minimum: float, maximum: float = math.inf) -> Callable[[str], float]:
    def parse(text: str) -> float:
        """Return the number.

        :raises ValueError: the text is not a number, or the number is out of range.
        """
        value = float(text)
        if not (minimum <= value <= maximum and math.isfinite(value)):
            raise ValueError(text)
        return value

    return parse


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        """Return the whole number.

        :raises ValueError: the text is not a whole number, or the number is out of range.
        """
        if not minimum <= int(text) <= maximum:
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


def _log_group(text: str) -> str:
    if not re.fullmatch(_LOG_GROUP, text, re.ASCII):
        raise ValueError(text)
    return text


@dataclass(frozen=True)
class Option:
    """One option of the section.

    :param description: for Airflow's list of options and the reference. ``{budgets}``, ``{poll_intervals}``,
        ``{events}`` and ``{archived_events}``, here and in `example`, are replaced by values of the services.
    :param default: as text; empty: no value.
    :param parse: converts the text; raises ``ValueError``.
    :param wanted: describes the valid values, for error messages.
    :param type: the type in Airflow's schema of provider info.
    """

    description: str
    example: str
    default: str = ""
    parse: Callable[[str], Any] = str
    wanted: str = ""
    type: str = "string"
    version_added: str = "0.1.0"


OPTIONS: Mapping[str, Option] = {
    "namespace": Option(
        "Distinguishes this deployment's remote jobs from those of other deployments in the same AWS "
        "account. Empty: the base URL, which is sufficient where every deployment has its own. Two "
        "deployments with the same value treat jobs of equal DAG runs as the same jobs, so that a DAG can "
        "move from one deployment to the other while its job runs. A change while jobs are running makes "
        "their task instances start new jobs.",
        example="production",
    ),
    "local_timezone": Option(
        "The time zone of the macros for local time (local_ds and others) where neither the call nor the "
        "DAG sets one, such as Europe/Paris. Empty: the time zone of the DAG, which is that of its "
        "start_date.",
        example="America/New_York",
    ),
    "api_budget_share": Option(
        "The share of the account's budget of AWS API calls that the polls of one triggerer may use, above 0 "
        "and at most 1. Divide it by the number of triggerers.",
        example="0.25",
        default="0.5",
        parse=_number(0.001, 1.0),
        wanted="a number above 0 and at most 1, such as 0.5",
        type="float",
    ),
    "api_budgets": Option(
        "Budgets that AWS has raised for the account: API, calls per second, burst. Empty: the limits that "
        "AWS publishes, {budgets}.",
        example="{raised_budgets}",
        parse=_budgets,
        wanted="API=calls per second/burst, such as service:Operation=2/40; separate several with commas",
    ),
    "poll_interval": Option(
        "Longest time between two polls of a job, in seconds, where the operator sets neither waiter_delay "
        "nor poke_interval nor poll_policy. Empty: the operator's default, {poll_intervals}.",
        example="15",
        parse=_number(MIN_INTERVAL, 3600.0),
        wanted="a number of seconds from 1 to 3600, such as 30",
    ),
    "first_poll_interval": Option(
        "Shortest time between two polls of a remote job, and until the first one, in seconds.",
        example="5",
        default=f"{PollPolicy.first_interval:g}",
        parse=_number(MIN_INTERVAL, 60.0),
        wanted="a number of seconds from 1 to 60, such as 2",
        type="float",
    ),
    "max_backoff": Option(
        "Longest back-off, in seconds, between polls of a scope (such as a cluster) after transient errors.",
        example="120",
        default=f"{PollPolicy.max_backoff:g}",
        parse=_number(10.0, 3600.0),
        wanted="a number of seconds from 10 to 3600, such as 300",
        type="float",
    ),
    "transient_error_timeout": Option(
        "How long a try that has no remote job believes that errors of the service will pass (throttling, "
        "lost connections, time-outs, 5xx), in seconds. Then it fails, and Airflow's retries and alerts take "
        "over. At most 600 s as long as no call of the try has ever been answered. Once a job may exist, "
        "errors only delay the try.",
        example="7200",
        default=f"{Policy.transient_error_timeout:g}",
        parse=_number(60.0, 7 * 86400.0),
        wanted="a number of seconds from 60 to 604800, such as 3600",
        type="float",
    ),
    "max_concurrent_polls": Option(
        "Maximum number of concurrent polls of one service and connection in a triggerer. Each poll "
        "occupies a thread until the service responds.",
        example="16",
        default=str(MAX_CONCURRENT_POLLS),
        parse=_integer(1, 50),
        wanted="a whole number from 1 to 50, such as 8",
        type="integer",
    ),
    "events_queue_url": Option(
        "URL of an SQS queue to which EventBridge delivers the events {events}. An event makes the triggerer "
        "poll the job at once. Empty: no queue.",
        example="https://sqs.eu-west-1.amazonaws.com/123456789012/airflow-events",
        parse=_queue,
        wanted="the URL of an SQS queue, such as "
        "https://sqs.eu-west-1.amazonaws.com/123456789012/airflow-events",
    ),
    "events_aws_conn_id": Option(
        "The Airflow connection for reading that queue.",
        example="aws_events",
        default="aws_default",
        wanted="the id of an Airflow connection, such as aws_default",
    ),
    "events_log_group": Option(
        "Name of a CloudWatch Logs group to which EventBridge writes the events {archived_events}. It is "
        "asked how a job ended that the service has forgotten, in the region and with the connection of the "
        "job. Empty: none; how such a job ended stays unknown.",
        example="/aws/events/airflow",
        parse=_log_group,
        wanted="the name of a log group, such as /aws/events/airflow",
    ),
}


@dataclass(frozen=True)
class Settings:
    """The values of the section; `OPTIONS` describes each field. Durations are seconds.

    A budget is calls per second and burst; a burst of ``None`` keeps the published proportion.
    """

    namespace: str = ""
    local_timezone: str = ""
    api_budget_share: float = 0.5
    api_budgets: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    poll_interval: float | None = None
    first_poll_interval: float = PollPolicy.first_interval
    max_backoff: float = PollPolicy.max_backoff
    transient_error_timeout: float = Policy.transient_error_timeout
    max_concurrent_polls: int = MAX_CONCURRENT_POLLS
    events_queue_url: str = ""
    events_aws_conn_id: str = "aws_default"
    events_log_group: str = ""

    def budget_of(self, published: Budget) -> Budget:
        """The configured budget of an API, or the published one."""
        if published.name not in self.api_budgets:
            return published
        per_second, burst = self.api_budgets[published.name]
        return replace(
            published,
            per_second=per_second,
            burst=burst or published.burst * per_second / published.per_second,
        )

    def poll_policy(self, interval: float | None = None) -> PollPolicy:
        """How often to poll.

        :param interval: the operator's longest time between two polls; ``None`` where it is not set. Less
            than a second counts as one: the back-off after refusals is a multiple of it.
        """
        if interval is None or isinstance(interval, ProviderDefault):
            interval = self.poll_interval or interval or PollPolicy.interval
        interval = max(MIN_INTERVAL, interval)
        return PollPolicy(
            interval=float(interval),
            first_interval=min(self.first_poll_interval, float(interval)),
            max_backoff=self.max_backoff,
        )


def read(get: Callable[[str], str | None]) -> tuple[Settings, tuple[str, ...]]:
    """Read the section.

    :param get: returns the text of an option; empty: its default.
    :return: the settings, and an error message for each invalid value, which names the option, the value and
        the valid values. The settings have the default instead of an invalid value.

    >>> read({"api_budget_share": "50 %"}.get)[1]
    ("[airflow_resilient] api_budget_share = '50 %': write a number above 0 and at most 1, such as 0.5",)
    """
    found: dict[str, Any] = {}
    errors: list[str] = []
    for name, option in OPTIONS.items():
        text = (get(name) or "").strip()
        if not text:
            continue
        try:
            found[name] = option.parse(text)
        except ValueError:
            errors.append(f"[{SECTION}] {name} = {text!r}: write {option.wanted}")
    return Settings(**found), tuple(errors)


_current: Settings | None = None


def current() -> Settings:
    """The settings of this process, read at the first call."""
    return _current or reread()


def reread() -> Settings:
    """Read the settings of this process again. Errors are logged at each reading."""
    global _current
    from .compat import conf

    _current, errors = read(lambda name: conf.get(SECTION, name, fallback=""))
    for error in errors:
        log.error("%s. The default is used until then.", error)
    return _current
