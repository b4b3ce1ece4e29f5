"""A fake AWS made for load: answers about thousands of jobs, ends them at given times, and counts calls.

It knows ECS ``DescribeTasks``, EMR ``ListSteps`` and ``DescribeStep``, and as much of SQS as our event queue
needs, each as JSON over HTTP on loopback. It is a process of its own, so that its work is on nobody's bill,
and is controlled by ``POST /control`` (`Endpoint.control`).

Usage: ``python -m watching.endpoint '{"jobs": 100, "clusters": 4, ...}'``; it prints its port.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from watching import names
from watching.figures import Bucket

PAGE = 50
AGE = 600.0
"""Seconds since which the jobs run when the waits begin."""

_TASK = json.dumps(
    {
        "attachments": [
            {
                "id": "8a1c5c4e-0000-4000-8000-@NUMBER@",
                "type": "ElasticNetworkInterface",
                "status": "ATTACHED",
                "details": [
                    {"name": "subnetId", "value": "subnet-0d0eab1bb38d5ca64"},
                    {"name": "networkInterfaceId", "value": "eni-0fa40520aeEXAMPLE"},
                    {"name": "macAddress", "value": "0e:89:76:28:07:b3"},
                    {"name": "privateDnsName", "value": "ip-10-0-1-184.ec2.internal"},
                    {"name": "privateIPv4Address", "value": "10.0.1.184"},
                ],
            }
        ],
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "availabilityZone": "us-east-1b",
        "clusterArn": "@CLUSTER@",
        "connectivity": "CONNECTED",
        "connectivityAt": "@CREATED@",
        "containers": [
            {
                "containerArn": "@TASK@/1c7d43d0",
                "taskArn": "@TASK@",
                "name": "main",
                "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/nightly:latest",
                "imageDigest": "sha256:476c3e8b2b4d3e27eb3b0cd2b2b2dcd6e4f3cc8a3a7f8b2c5f5a6a3f2c9cc5ec",
                "runtimeId": "@NUMBER@-2495160603",
                "lastStatus": "@STATUS@",
                "networkBindings": [],
                "networkInterfaces": [{"attachmentId": "8a1c5c4e-0000", "privateIpv4Address": "10.0.1.184"}],
                "healthStatus": "UNKNOWN",
                "cpu": "0",
                "@EXIT@": 0,
            }
        ],
        "cpu": "256",
        "createdAt": "@CREATED@",
        "desiredStatus": "@STATUS@",
        "enableExecuteCommand": False,
        "group": "family:nightly",
        "healthStatus": "UNKNOWN",
        "lastStatus": "@STATUS@",
        "launchType": "FARGATE",
        "memory": "512",
        "overrides": {
            "containerOverrides": [
                {"name": "main", "command": ["python", "-m", "nightly", "--part", "@NUMBER@"]}
            ],
            "inferenceAcceleratorOverrides": [],
        },
        "platformFamily": "Linux",
        "platformVersion": "1.4.0",
        "startedAt": "@CREATED@",
        "startedBy": "@TOKEN@",
        "tags": [],
        "taskArn": "@TASK@",
        "taskDefinitionArn": "arn:aws:ecs:us-east-1:123456789012:task-definition/nightly:7",
        "version": 4,
        "ephemeralStorage": {"sizeInGiB": 20},
        "stopCode": "EssentialContainerExited",
        "stoppedAt": "@ENDED@",
    }
)
_STEP = json.dumps(
    {
        "Id": "@STEP@",
        "Name": "nightly [@TOKEN@]",
        "Config": {
            "Jar": "command-runner.jar",
            "Properties": {},
            "Args": [
                "spark-submit",
                "--deploy-mode",
                "cluster",
                "s3://jobs/nightly.py",
                "--part",
                "@NUMBER@",
            ],
        },
        "ActionOnFailure": "CONTINUE",
        "Status": {
            "State": "@STATUS@",
            "StateChangeReason": {},
            "Timeline": {
                "CreationDateTime": "@CREATED@",
                "StartDateTime": "@CREATED@",
                "EndDateTime": "@ENDED@",
            },
        },
    }
)


@dataclass(frozen=True)
class Settings:
    """What the endpoint plays.

    :param service: ``"ecs"`` or ``"emr"``.
    :param jobs: how many there are; one more is there to warm up with.
    :param allowed: calls per second that it answers; ``None``: any number. Others are throttled.
    :param burst: calls that it answers at once, if it throttles.
    :param events: whether ends are reported by events, `event_lag` seconds later.
    :param lies: events per second that report the end of a job that still runs; as many are foreign or
        malformed.
    """

    service: str
    jobs: int
    clusters: int
    allowed: float | None = None
    burst: float = 1.0
    events: bool = False
    event_lag: float = 0.5
    lies: float = 0.0


class Endpoint:
    """The state of the fake AWS.

    :ivar calls: ``[time, operation, answer]`` of each call, ``answer`` being ``"ok"`` or ``"throttled"``.
    :ivar connections: on which calls came.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.created = time.time() - AGE
        self.ends = [inf] * (settings.jobs + 1)
        self.first_asked: list[float | None] = [None] * (settings.jobs + 1)
        self.last_asked = [0.0] * (settings.jobs + 1)
        self.gaps: list[float] = []
        self.measuring = False
        self.asked = 0
        self.calls: list[tuple[float, str, str]] = []
        self.bucket = Bucket(settings.allowed or inf, settings.burst, settings.burst, time.time())
        self.queue: deque[tuple[str, float, int]] = deque()
        self.in_flight: dict[str, tuple[str, float, int]] = {}
        self.sent = self.lied = self.connections = 0
        self.members: dict[int, list[int]] = {}
        for job in range(settings.jobs):
            self.members.setdefault(job % settings.clusters, []).append(job)
        number = "@NUMBER@"
        template = _TASK if settings.service == "ecs" else _STEP
        self.texts = [
            template.replace(number, str(job))
            .replace("@TASK@", names.task(job, settings.clusters))
            .replace("@CLUSTER@", names.ecs_cluster(job, settings.clusters))
            .replace("@STEP@", names.step(job))
            .replace("@TOKEN@", names.token(job))
            .replace('"@CREATED@"', f"{self.created:.3f}")
            for job in range(settings.jobs + 1)
        ]
        live = (
            "RUNNING",
            ', "stopCode": "EssentialContainerExited", "stoppedAt": "@ENDED@"',
            ', "@EXIT@": 0',
        )
        self.live_texts = [
            text.replace("@STATUS@", live[0])
            .replace(live[1], "")
            .replace(live[2], "")
            .replace(', "EndDateTime": "@ENDED@"', "")
            for text in self.texts
        ]

    def text_of(self, job: int, now: float) -> str:
        """One element of the answer, as JSON."""
        if self.ends[job] > now:
            return self.live_texts[job]
        status = "STOPPED" if self.settings.service == "ecs" else "COMPLETED"
        return (
            self.texts[job]
            .replace("@STATUS@", status)
            .replace("@EXIT@", "exitCode")
            .replace('"@ENDED@"', f"{self.ends[job]:.3f}")
        )

    def note_poll(self, job: int, now: float) -> None:
        """Note that an answer reports this job."""
        if self.first_asked[job] is None:
            self.first_asked[job] = now
            self.asked += job < self.settings.jobs
        elif self.measuring:
            self.gaps.append(now - self.last_asked[job])
        self.last_asked[job] = now

    def answer(self, operation: str, request: Mapping[str, Any]) -> tuple[int, str]:
        """Status and body of the answer to a call of ECS or EMR."""
        now = time.time()
        if not self.bucket.take(now):
            self.calls.append((now, operation, "throttled"))
            return 400, '{"__type": "ThrottlingException", "message": "Rate exceeded"}'
        self.calls.append((now, operation, "ok"))
        if operation == "DescribeTasks":
            found = [names.task_number(arn) for arn in request["tasks"]]
            name, more = "tasks", ', "failures": []'
        elif operation == "ListSteps":
            found, more = self._steps(request, now)
            name = "Steps"
        elif operation == "DescribeStep":
            found, name, more = [names.number(request["StepId"])], "Step", ""
        else:
            return 400, '{"__type": "InvalidAction", "message": "not played here"}'
        for job in found:
            self.note_poll(job, now)
        texts = ", ".join(self.text_of(job, now) for job in found)
        return 200, f'{{"{name}": {texts}}}' if name == "Step" else f'{{"{name}": [{texts}]{more}}}'

    def _steps(self, request: Mapping[str, Any], now: float) -> tuple[list[int], str]:
        if ids := request.get("StepIds"):
            return [names.number(step) for step in ids], ""
        members = self.members[names.number(request["ClusterId"])]
        active = [job for job in members if self.ends[job] > now]
        start = int(request.get("Marker", 0))
        more = f', "Marker": "{start + PAGE}"' if len(active) > start + PAGE else ""
        return active[start : start + PAGE], more

    # --- events ---

    async def send_events(self) -> None:
        """Put events into the queue: ends that have come, and lies."""
        reported, chance = set(), random.Random(2)  # noqa: S311 - not for secrets
        lies = 0.0
        while True:
            await asyncio.sleep(0.05)
            now = time.time()
            for job, end in enumerate(self.ends):
                if job not in reported and end + self.settings.event_lag <= now:
                    reported.add(job)
                    self._send(self._event(job))
                    self.sent += 1
            lies += 0.05 * self.settings.lies
            while lies >= 1:
                lies -= 1
                job = chance.randrange(self.settings.jobs)
                if self.ends[job] > now:
                    self._send(self._event(job))
                    self._send(chance.choice(('{"source": "aws.ecs"', self._event(job + self.settings.jobs))))
                    self.lied += 2

    def _event(self, job: int) -> str:
        clusters = self.settings.clusters
        if self.settings.service == "emr":
            source, what = "aws.emr", "EMR Step Status Change"
            detail = {
                "stepId": names.step(job),
                "name": f"nightly [{names.token(job)}]",
                "state": "COMPLETED",
            }
        else:
            source, what = "aws.ecs", "ECS Task State Change"
            detail = {
                "taskArn": names.task(job, clusters),
                "startedBy": names.token(job),
                "lastStatus": "STOPPED",
            }
        return json.dumps({"source": source, "detail-type": what, "detail": detail})

    def _send(self, body: str) -> None:
        self.queue.append((body, time.time(), 0))

    async def receive(self, request: Mapping[str, Any]) -> str:
        """SQS's ReceiveMessage, with its long poll."""
        until = time.monotonic() + request.get("WaitTimeSeconds", 0)
        while not self.queue and time.monotonic() < until:  # noqa: ASYNC110 - simple, and nobody measures it
            await asyncio.sleep(0.02)
        messages = []
        while self.queue and len(messages) < request.get("MaxNumberOfMessages", 1):
            body, sent, times = self.queue.popleft()
            handle = f"{len(self.calls)}-{time.time_ns()}"
            self.in_flight[handle] = (body, sent, times + 1)
            attributes = {"ApproximateReceiveCount": str(times + 1), "SentTimestamp": str(int(sent * 1000))}
            messages.append(
                {"MessageId": handle, "ReceiptHandle": handle, "Body": body, "Attributes": attributes}
            )
        return json.dumps({"Messages": messages} if messages else {})

    async def settle(self, operation: str, request: Mapping[str, Any]) -> str:
        """SQS's DeleteMessageBatch and ChangeMessageVisibilityBatch."""
        for entry in request["Entries"]:
            message = self.in_flight.pop(entry["ReceiptHandle"], None)
            if message and operation.startswith("Change"):
                later = entry["VisibilityTimeout"]
                asyncio.get_running_loop().call_later(later, self.queue.append, message)
        return json.dumps({"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]], "Failed": []})

    # --- what the measuring process asks ---

    async def control(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what a measuring process asks.

        ``end``: end all jobs within ``over`` seconds from ``at`` on, in an order that is no cluster's.
        ``measure``: begin (or end) to note the time between two polls of the same job; report the time since
        the last poll of each, too. ``wait``: answer when
        each job was polled, or ``seconds`` have passed. ``report``: all that was counted.
        """
        match request["do"]:
            case "end":
                order = list(range(self.settings.jobs))
                random.Random(1).shuffle(order)  # noqa: S311 - not for secrets
                for place, job in enumerate(order):
                    self.ends[job] = request["at"] + request["over"] * place / len(order)
                return {"ends": self.ends[: self.settings.jobs]}
            case "measure":
                self.measuring = request["on"]
                if self.measuring:
                    self.gaps = []
                now = time.time()
                since = [now - asked for asked in self.last_asked[: self.settings.jobs] if asked]
                return {"gaps": self.gaps, "since": since}
            case "wait":
                until = time.monotonic() + request["seconds"]
                wanted = range(self.settings.jobs + 1) if request.get("warm") is None else [request["warm"]]
                while time.monotonic() < until:
                    if request.get("warm") is None and self.asked == self.settings.jobs:
                        break
                    if request.get("warm") is not None and self.first_asked[wanted[0]] is not None:
                        break
                    await asyncio.sleep(0.02)
                times = [each for each in self.first_asked[: self.settings.jobs] if each is not None]
                return {"asked": self.asked, "last": max(times, default=None)}
            case _:
                return {
                    "calls": self.calls,
                    "events": self.sent,
                    "lies": self.lied,
                    "left": len(self.queue),
                    "connections": self.connections,
                }


async def serve(settings: Settings) -> None:
    """Listen on a free port of loopback, say which, and answer until the process is ended."""
    endpoint = Endpoint(settings)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = False
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in head[1:])
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = json.loads(body or b"{}")
                status, text = 200, ""
                operation = headers.get("x-amz-target", "").rpartition(".")[2]
                if head[0].startswith("POST /control"):
                    text = json.dumps(await endpoint.control(request))
                elif operation == "ReceiveMessage":
                    text = await endpoint.receive(request)
                elif operation in ("DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
                    text = await endpoint.settle(operation, request)
                else:
                    endpoint.connections += known is False
                    known = True
                    status, text = endpoint.answer(operation, request)
                content = text.encode()
                writer.write(
                    f"HTTP/1.1 {status} {'OK' if status == 200 else 'Bad Request'}\r\n"  # noqa: PLR2004
                    "Content-Type: application/x-amz-json-1.1\r\nx-amzn-RequestId: 0\r\n"
                    f"Content-Length: {len(content)}\r\n\r\n".encode()
                )
                writer.write(content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=8192)
    print(server.sockets[0].getsockname()[1], flush=True)
    telling = asyncio.create_task(endpoint.send_events()) if settings.events else None
    async with server:
        await server.serve_forever()
    if telling:
        telling.cancel()


if __name__ == "__main__":
    asyncio.run(serve(Settings(**json.loads(sys.argv[1]))))
