"""EventBridge: the events of ECS, sent to what moto's rules match.

Rules and targets are moto's own: ``put_rule`` and ``put_targets`` of boto3 make them.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_resilient.testing.aws.logs import put_log_lines
from airflow_resilient.testing.aws.moto_bridge import ask_moto, event_matches
from airflow_resilient.testing.aws.wire import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Mapping

_GROUP = ":log-group:"


class FakeEventBridge:
    """Sends events to the targets of the rules that match; it delivers at once, and once."""

    used: bool = False
    """A rule was made; without one, nothing is sent."""

    def send(self, region: str, source: str, kind: str, detail: Mapping[str, Any], time: float) -> None:
        """Send an event.

        :param detail: JSON values; times as ISO texts.
        :param time: the event's time, which is that of its line in a log group, too.
        """
        event = {
            "version": "0",
            "id": str(uuid4()),
            "detail-type": kind,
            "source": source,
            "account": ACCOUNT,
            "time": iso_time(time),
            "region": region,
            "resources": [],
            "detail": detail,
        }
        rules = ask_moto("events", region, "ListRules", {})["Rules"]
        for rule in rules:
            if rule.get("State") == "DISABLED" or not event_matches(rule.get("EventPattern"), event):
                continue
            targets = ask_moto("events", region, "ListTargetsByRule", {"Rule": rule["Name"]})["Targets"]
            for target in targets:
                _deliver(region, target, event, time)


def _deliver(region: str, target: Mapping[str, Any], event: Mapping[str, Any], time: float) -> None:
    arn = str(target["Arn"])
    what: Any = event["detail"] if target.get("InputPath") == "$.detail" else event
    if _GROUP in arn:
        # Source: EventBridge user guide, "CloudWatch Logs permissions": EventBridge creates log streams.
        put_log_lines(region, arn.partition(_GROUP)[2], str(uuid4()), [(time, json.dumps(what))], time)


def iso_time(seconds: float) -> str:
    """A time as events have it, without zeros at its end: ``2026-01-01T00:05:00.71Z``.

    Source: public events of ECS, such as ``"executionStoppedAt": "2024-11-13T21:22:46.71Z"``.

    >>> iso_time(0.0), iso_time(0.5)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:00.5Z')
    """
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    fraction = f".{moment.microsecond // 1000:03}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
