"""Events of AWS from an SQS queue that EventBridge fills: each makes a poll due early, and nothing else.

`read_event` and `disposition_of` are pure. Nothing depends on an event: a lost one delays a poll, a late or
duplicate one costs at most one poll, and foreign or malformed ones are discarded.
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
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from ..core.retry import doubling, jitter
from ..core.service import JobEvent
from ..core.text import shorten, small_number
from ..core.threads import in_own_thread

if TYPE_CHECKING:
    from ..aws.access import AwsAccess
    from ..core.job import Claim
    from .shared_watch import SharedWatch


log = logging.getLogger(__name__)

MAX_RECEIVES = 5
"""How often an event is received, by any triggerer, before it is deleted because no wait matches."""

MAX_AGE_SECONDS = 120.0
"""Seconds after which an event that matches no wait is deleted: polls have shown the change by then."""

GIVE_BACK_SECONDS = 1
"""Seconds after which an event that was given back can be received again."""

_WITHOUT_A_REGION = "queue.amazonaws.com"  # the legacy endpoint of us-east-1

LONG_POLL_SECONDS = 20
"""Seconds that SQS waits for a message. Source: ReceiveMessage reference, ``WaitTimeSeconds``, at most 20."""

_VISIBILITY_SECONDS = 30  # the delay of events whose triggerer dies before it has deleted them
_MAX_KINDS_SAID = 20
_MAX_MESSAGES = 10  # Source: ReceiveMessage reference, ``MaxNumberOfMessages``

_MAX_ENVELOPES = 3  # SNS in SNS in SQS

_ENVELOPE = ("source", "detail-type", "detail")  # of every event. Source: EventBridge user guide, "Events"

EventReader: TypeAlias = Callable[[Mapping[str, Any]], JobEvent | None]

Disposition: TypeAlias = Literal["delete", "give back", "set aside"]


class UnreadableMessage(ValueError):
    """The body of a message is no event of EventBridge; the text says what it is instead."""


def read_event(
    body: str, readers: Iterable[EventReader], sources: Iterable[Sequence[str]] = ()
) -> JobEvent | None:
    """Read the body of a message; ``None``: it is not about a job of this library.

    :param body: an event of EventBridge, ``{"source": str, "detail-type": str, "detail": {...}}``, or SNS's
        envelope of one, ``{"Type": "Notification", "TopicArn": str, "Message": str, ...}``. Source: SNS
        developer guide, "Amazon SNS raw message delivery".
    :param readers: the readers of the services; the first that can read it is used.
    :param sources: ``source`` and ``detail-type`` of the services' events, to recognize a detail alone.
    :raises UnreadableMessage: it is none of these.

    >>> read_event('{"source": "aws.ec2", "detail-type": "Something", "detail": {}}', []) is None
    True
    """
    readers = list(readers)
    content = _unwrap(body)
    if not isinstance(content, dict):
        raise UnreadableMessage("JSON, but no event of EventBridge")
    if not _is_event(content):
        for source in filter(None, sources):
            whole = {"source": source[0], "detail-type": source[1], "detail": content}
            if _read(whole, readers) is not None:
                raise UnreadableMessage(
                    f'only the detail of an event "{source[1]}", as a rule with InputPath $.detail sends it'
                )
        known = " and ".join(name for name in ("Type", *_ENVELOPE) if name in content)
        raise UnreadableMessage(f"JSON with {known or 'nothing'} of what an event of EventBridge has")
    return _read(content, readers)


def _unwrap(body: str) -> Any:
    """The JSON value of a message, without the envelopes of SNS.

    :raises UnreadableMessage: it is not JSON.
    """
    content: Any = body
    for _ in range(_MAX_ENVELOPES + 1):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            raise UnreadableMessage("a text that is not JSON") from None
        if not isinstance(content, dict) or "TopicArn" not in content:
            return content
        if not isinstance(content.get("Message"), str):
            return content
        content = content["Message"]
    return content


def _is_event(content: Mapping[str, Any]) -> bool:
    source, kind, detail = (content.get(name) for name in _ENVELOPE)
    return isinstance(source, str) and isinstance(kind, str) and isinstance(detail, dict)


def _read(event: Mapping[str, Any], readers: Iterable[EventReader]) -> JobEvent | None:
    try:
        return next((found for read in readers if (found := read(event))), None)
    except Exception as error:
        raise UnreadableMessage(
            f"an event {shorten(repr(event['detail-type']), 60)} that the reader of its service cannot read"
        ) from error


def disposition_of(
    event: JobEvent | None, *, wanted: bool, ours: bool, received: int, age: float, readable: bool = True
) -> Disposition:
    """Whether to delete a message or to give it back to the queue.

    A message that cannot be read may be somebody else's. It is set aside: it comes back after its visibility
    timeout, so that a dead-letter queue whose ``maxReceiveCount`` is less than `MAX_RECEIVES` gets it.
    Without one it is deleted when it was received as often as that.

    :param wanted: this triggerer waits for such a job, or has waited for it.
    :param ours: this deployment started the job, so another triggerer may wait for it.
    :param received: how often it was received, including this time.
    :param age: seconds since it was sent.

    >>> from airflow_resilient.core.job import Claim
    >>> event = JobEvent("ecs", ("0123",), Claim("abcdefghijklmnop", 1), ended=True)
    >>> disposition_of(event, wanted=False, ours=True, received=1, age=2.0)
    'give back'
    """
    if not readable:
        return "delete" if received >= MAX_RECEIVES else "set aside"
    if event is None or wanted or not ours:
        return "delete"
    return "delete" if received >= MAX_RECEIVES or age > MAX_AGE_SECONDS else "give back"


def region_of(url: str) -> str | None:
    """The region in the URL of a queue; ``None`` when the URL contains none.

    It is the part of the host's name that is a region's name in one of the partitions that botocore knows:
    of a regional, FIPS, dual-stack or VPC endpoint. Blocks for a moment: loads the list of partitions.
    Source: "Amazon Simple Queue Service endpoints and quotas" in the AWS General Reference.

    >>> region_of("https://sqs.eu-west-1.amazonaws.com/123456789012/events")
    'eu-west-1'
    >>> region_of("https://vpce-0a1b-c2d3-us-east-1a.sqs.us-east-1.vpce.amazonaws.com/123456789012/events")
    'us-east-1'
    >>> region_of("http://127.0.0.1:5005/123456789012/events") is None
    True
    """
    from botocore.loaders import create_loader

    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:  # a bracket without its counterpart, for example
        return None
    if host == _WITHOUT_A_REGION:
        return "us-east-1"
    partitions = create_loader().load_data("partitions")["partitions"]
    patterns = [each["regionRegex"] for each in partitions]
    return next(
        (part for part in host.split(".") if any(re.fullmatch(each, part) for each in patterns)), None
    )


class EventQueue:
    """Reads the queue, and wakes the watches of one event loop.

    :param url: of the SQS queue. Any number of triggerers may read it.
    :param access: access to SQS.
    :param watches: the watches to wake.
    :param ours: whether this deployment made a claim.
    :param readers: one for each service; reads its events.
    :param sources: ``source`` and ``detail-type`` of these events.
    :param with_connections: ``await with_connections(function, *args)`` runs a blocking function that may
        read an Airflow connection.
    :param in_thread: the same for a function that does not, and that does not delay the end of the process.
    :param long_poll: seconds that SQS waits for a message.

    The region of the calls is that in `url`, if there is one.

    :ivar counts: counters ``received``, ``woke``, ``given_back``, ``thrown_away``, ``unreadable`` and
        ``errors``.
    """

    name = "events"
    buckets = ()

    def __init__(  # noqa: PLR0913 - all but three are keywords
        self,
        url: str,
        access: AwsAccess,
        watches: Callable[[], Iterable[SharedWatch]],
        ours: Callable[[Claim], bool],
        *,
        readers: Sequence[EventReader],
        sources: Sequence[Sequence[str]] = (),
        with_connections: Callable[..., Awaitable[Any]] = in_own_thread,
        in_thread: Callable[..., Awaitable[Any]] = in_own_thread,
        long_poll: int = LONG_POLL_SECONDS,
        wall: Callable[[], float] = time.time,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self.access = access
        self.counts: Counter[str] = Counter()
        self._watches = watches
        self._ours = ours
        self._readers = readers
        self._sources = sources
        self._with_connections = with_connections
        self._in_thread = in_thread
        self._long_poll = long_poll
        self._wall = wall
        self._random = random
        self._errors = 0
        self._region: str | None = None
        self._said: set[str] = set()

    def gauges(self) -> Mapping[str, float]:
        """None: CloudWatch has the length of the queue."""
        return {}

    async def listen(self) -> None:
        """Receive without an end. A failure of SQS is logged once, and does not affect polling."""
        while True:
            try:
                await self.listen_once()
                if self._errors:
                    log.info("events are received again")
                self._errors = 0
            except Exception as error:  # noqa: BLE001 - nothing depends on events, whatever fails
                self.counts["errors"] += 1
                self._errors += 1
                if self._errors == 1:
                    log.warning(
                        "no events from %s: %s: %s. Nothing fails: until events are received again, only "
                        "polls notice ends",
                        self.url,
                        type(error).__name__,
                        error,
                    )
                self.access.forget_clients()
                await asyncio.sleep(jitter(doubling(1.0, self._errors, 300.0), self._random))

    async def listen_once(self) -> None:
        """Receive a batch of events, wake the waits that they match, and delete them or give them back."""
        client = await self._with_connections(self._client)
        answer = await self._in_thread(self._receive, client)
        dispositions: dict[Disposition, list[str]] = {"delete": [], "give back": [], "set aside": []}
        for message in answer.get("Messages", ()):
            dispositions[self._handle(message)].append(message["ReceiptHandle"])
        if dispositions["delete"] or dispositions["give back"]:
            await self._in_thread(self._delete_or_give_back, client, dispositions)

    def _client(self) -> Any:
        if self._region is None:
            self._region = region_of(self.url) or ""
        return self.access.client("sqs", region_name=self._region or None)

    def _handle(self, message: Mapping[str, Any]) -> Disposition:
        event, readable = None, True
        try:
            event = read_event(str(message.get("Body") or ""), self._readers, self._sources)
        except UnreadableMessage as error:
            readable = False
            self._say_unreadable(str(error))
        attributes = message.get("Attributes", {})
        watches = [watch for watch in self._watches() if event and watch.name == event.service]
        woken = sum(watch.wake(event.names, ended=event.ended) for watch in watches) if event else 0
        known = event is not None and any(watch.remembers(event.names) for watch in watches)
        disposition = disposition_of(
            event,
            wanted=woken > 0 or known,
            ours=event is not None and event.claim is not None and self._ours(event.claim),
            received=small_number(attributes.get("ApproximateReceiveCount"), 1),
            age=self._wall() - float(attributes.get("SentTimestamp", 0)) / 1000,
            readable=readable,
        )
        self.counts["received"] += 1
        if woken:
            self.counts["woke"] += 1
        elif not readable:
            self.counts["unreadable"] += 1
        elif disposition == "give back":
            self.counts["given_back"] += 1
        else:
            self.counts["thrown_away"] += 1
        return disposition

    def _say_unreadable(self, what: str) -> None:
        """Log the first message of each kind that cannot be read."""
        if what in self._said or len(self._said) >= _MAX_KINDS_SAID:
            return
        self._said.add(what)
        log.warning(
            "a message on %s cannot be read: it is %s. Such messages wake no poll. Let rules send whole "
            "events: no InputPath, Input or InputTransformer on their targets; an SNS topic is fine. "
            "Until then they go to the queue's dead-letter queue, if its maxReceiveCount is less than %d, or "
            "are deleted when they were received as often as that. Logged once; the metric "
            "airflow_resilient.watch.events.unreadable counts all",
            self.url,
            what,
            MAX_RECEIVES,
        )

    def _receive(self, client: Any) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = client.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=_MAX_MESSAGES,
            WaitTimeSeconds=self._long_poll,
            VisibilityTimeout=_VISIBILITY_SECONDS,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        return answer

    def _delete_or_give_back(self, client: Any, dispositions: Mapping[Disposition, Sequence[str]]) -> None:
        done = [
            {"Id": str(number), "ReceiptHandle": each} for number, each in enumerate(dispositions["delete"])
        ]
        if done:
            client.delete_message_batch(QueueUrl=self.url, Entries=done)
        back = [
            {"Id": str(number), "ReceiptHandle": each, "VisibilityTimeout": GIVE_BACK_SECONDS}
            for number, each in enumerate(dispositions["give back"])
        ]
        if back:
            client.change_message_visibility_batch(QueueUrl=self.url, Entries=back)
