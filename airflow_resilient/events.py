"""Events of AWS, from an SQS queue that EventBridge fills: each makes a look due early, and is not news.

`read_event` and `judge` are pure. Nothing depends on an event: a lost one delays, a late or doubled one costs
a look at most, and what is foreign or malformed is thrown away.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from .jobs import Claim, doubling, jitter
from .threads import in_own_thread

if TYPE_CHECKING:
    from .aws import AwsAccess
    from .watch import SharedWatch

log = logging.getLogger(__name__)

MOST_RECEIVED = 5
"""How often an event is received, by whichever triggerer, before it is taken for nobody's."""
OLD = 120.0
"""Seconds after which an event that nobody waits for is nobody's: a look has told long since."""
GIVE_BACK = 1
"""Seconds after which an event that was given back can be received again."""
LONG_POLL = 20
"""Seconds that SQS waits for a message. Source: ReceiveMessage reference, ``WaitTimeSeconds``, at most 20."""
_HIDDEN = 30  # seconds: a triggerer that dies with events in its hands delays them by that
_AT_ONCE = 10  # Source: ReceiveMessage reference, ``MaxNumberOfMessages``
_REGION = r"https?://(?:sqs\.)?([a-z]{2}(?:-[a-z]+)+-\d)\."
_STEP_ENDS = ("COMPLETED", "FAILED", "CANCELLED", "INTERRUPTED")

Verdict: TypeAlias = Literal["delete", "give back"]


@dataclass(frozen=True)
class Wake:
    """What an event says: somebody may want to look at this job.

    :param kind: of the service, ``ecs`` or ``emr``.
    :param keys: names of the job, as ``event_keys`` of the service gives them, and its claim.
    :param claim: the claim that it bears, if it bears one.
    :param ended: the event tells of an end (of the task, or of one step).
    """

    kind: str
    keys: tuple[str, ...]
    claim: Claim | None
    ended: bool


def read_event(body: str) -> Wake | None:
    """Say what the body of a message means; ``None``: it is not about an ECS task or an EMR step.

    :param body: ``{"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": {"taskArn": str,
        "startedBy": str, "lastStatus": str, ...}}`` or ``{"source": "aws.emr",
        "detail-type": "EMR Step Status Change", "detail": {"stepId": str, "name": str, "state": str, ...}}``.

    Source: "Amazon ECS events" in the ECS developer guide; "Amazon EMR events" in the EMR management guide.

    >>> read_event('{"source": "aws.ec2", "detail-type": "Something", "detail": {}}') is None
    True
    """
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        return None
    detail = event.get("detail") if isinstance(event, dict) else None
    if not isinstance(detail, dict):
        return None
    what = (event.get("source"), event.get("detail-type"))
    if what == ("aws.ecs", "ECS Task State Change"):
        kind, name, marked = (
            "ecs",
            str(detail.get("taskArn") or "").rpartition("/")[2],
            detail.get("startedBy"),
        )
        ended = detail.get("lastStatus") == "STOPPED"
    elif what == ("aws.emr", "EMR Step Status Change"):
        kind, name, marked = "emr", str(detail.get("stepId") or ""), detail.get("name")
        ended = detail.get("state") in _STEP_ENDS
    else:
        return None
    if not name:
        return None
    claim = Claim.read(str(marked or ""))
    return Wake(kind, (name, str(claim)) if claim else (name,), claim, ended)


def judge(wake: Wake | None, *, wanted: bool, ours: bool, received: int, age: float) -> Verdict:
    """Say what becomes of an event.

    :param wanted: somebody waits here for such a job, or has waited.
    :param ours: the job was started by this deployment, so another triggerer may wait for it.
    :param received: how often it was received, this time included.
    :param age: seconds since it was sent.

    >>> wake = Wake("ecs", ("0123",), Claim("abcdefghijklmnop", 1), ended=True)
    >>> judge(wake, wanted=False, ours=True, received=1, age=2.0)
    'give back'
    """
    if wake is None or wanted or not ours:
        return "delete"
    return "delete" if received >= MOST_RECEIVED or age > OLD else "give back"


def region_of(url: str) -> str | None:
    """The region in the URL of a queue; ``None`` where it does not tell.

    >>> region_of("https://sqs.eu-west-1.amazonaws.com/123456789012/events")
    'eu-west-1'
    >>> region_of("http://127.0.0.1:5005/123456789012/events") is None
    True
    """
    found = re.match(_REGION, url)
    return found[1] if found else None


class EventQueue:
    """Reads the queue, and wakes the watches of one event loop.

    :param url: of the SQS queue. Any number of triggerers may read it.
    :param access: how SQS is reached.
    :param watches: those that may be woken.
    :param ours: whether a claim was made by this deployment.
    :param with_connections: ``await with_connections(function, *args)`` runs a blocking function that may ask
        Airflow for a connection.
    :param in_thread: the same for one that does not, and that nobody waits for at the end.

    :param long_poll: seconds that SQS waits for a message.

    :ivar counts: what has happened so far: ``received``, ``woke``, ``given_back``, ``thrown_away`` and
        ``trouble``.
    """

    kind = "events"
    bucket = None

    def __init__(
        self,
        url: str,
        access: AwsAccess,
        watches: Callable[[], Iterable[SharedWatch]],
        ours: Callable[[Claim], bool],
        *,
        with_connections: Callable[..., Awaitable[Any]] = in_own_thread,
        in_thread: Callable[..., Awaitable[Any]] = in_own_thread,
        long_poll: int = LONG_POLL,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self.access = access
        self.counts: Counter[str] = Counter()
        self._watches = watches
        self._ours = ours
        self._with_connections = with_connections
        self._in_thread = in_thread
        self._long_poll = long_poll
        self._wall = wall
        self._random = random
        self._trouble = 0

    def gauges(self) -> Mapping[str, float]:
        """Nothing: a queue's length is CloudWatch's to tell."""
        return {}

    async def listen(self) -> None:
        """Read for ever. When SQS fails, that is said once, and looks go on as if there were no queue."""
        while True:
            try:
                await self.listen_once()
                if self._trouble:
                    log.info("events come again")
                self._trouble = 0
            except Exception as error:  # noqa: BLE001, PERF203 - nothing depends on events, whatever fails
                self.counts["trouble"] += 1
                self._trouble += 1
                if self._trouble == 1:
                    log.warning(
                        "no events from %s: %s: %s. Nothing fails; ends are noticed by looks alone.",
                        self.url,
                        type(error).__name__,
                        error,
                    )
                self.access.forget_clients()
                await asyncio.sleep(jitter(doubling(1.0, self._trouble, 300.0), self._random))

    async def listen_once(self) -> None:
        """Take one portion of events, wake whom they concern, and delete them or give them back."""
        client = await self._with_connections(self.access.client, "sqs")
        answer = await self._in_thread(self._receive, client)
        verdicts: dict[Verdict, list[str]] = {"delete": [], "give back": []}
        for message in answer.get("Messages", ()):
            verdicts[self._take(message)].append(message["ReceiptHandle"])
        if any(verdicts.values()):
            await self._in_thread(self._settle, client, verdicts)

    def _take(self, message: Mapping[str, Any]) -> Verdict:
        wake = read_event(message["Body"])
        attributes = message.get("Attributes", {})
        watches = [watch for watch in self._watches() if wake and watch.kind == wake.kind]
        woken = sum(watch.wake(wake.keys, ended=wake.ended) for watch in watches) if wake else 0
        known = wake is not None and any(watch.remembers(wake.keys) for watch in watches)
        verdict = judge(
            wake,
            wanted=woken > 0 or known,
            ours=wake is not None and wake.claim is not None and self._ours(wake.claim),
            received=int(attributes.get("ApproximateReceiveCount", 1)),
            age=self._wall() - float(attributes.get("SentTimestamp", 0)) / 1000,
        )
        self.counts["received"] += 1
        if woken:
            self.counts["woke"] += 1
        elif verdict == "give back":
            self.counts["given_back"] += 1
        else:
            self.counts["thrown_away"] += 1
        return verdict

    def _receive(self, client: Any) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=_AT_ONCE,
            WaitTimeSeconds=self._long_poll,
            VisibilityTimeout=_HIDDEN,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        return answer

    def _settle(self, client: Any, verdicts: Mapping[Verdict, Sequence[str]]) -> None:
        done = [{"Id": str(number), "ReceiptHandle": each} for number, each in enumerate(verdicts["delete"])]
        if done:
            client.delete_message_batch(QueueUrl=self.url, Entries=done)
        back = [
            {"Id": str(number), "ReceiptHandle": each, "VisibilityTimeout": GIVE_BACK}
            for number, each in enumerate(verdicts["give back"])
        ]
        if back:
            client.change_message_visibility_batch(QueueUrl=self.url, Entries=back)
