"""A fake AWS for tests of DAGs: moto, plus what moto lacks.

Jobs take time, end the way a test says, are listed late and forgotten in the end. RunTask honours its client
token, steps of an EMR cluster run one after the other, calls are throttled, fail or lose their answer on
demand, and everything is counted. No call ever reaches the real AWS.

In the process of the test, for every boto3 client made there::

    from airflow_resilient.testing import FakeAws

    with FakeAws(fake_time=True) as aws:
        aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        aws.ecs.plan("nightly", seconds=60, exit_code=1)
        ...                                     # run the DAG's tasks
        aws.advance(60)
        assert [task.exit_code for task in aws.ecs.tasks()] == [1]

For other processes, such as a scheduler, a triggerer and workers, over HTTP on the loopback interface::

    with FakeAws().serve() as aws:
        environment = {**os.environ, **aws.environment()}

From the command line: ``python -m airflow_resilient.testing.aws.account --port 5005``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time as real_time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from airflow_resilient.testing.aws.ecs import EcsPlan, EcsTask, FakeEcs
from airflow_resilient.testing.aws.emr_steps import EmrCluster, EmrPlan, EmrStep, FakeEmr
from airflow_resilient.testing.aws.events import FakeEventBridge
from airflow_resilient.testing.aws.faults import Fault, Faults
from airflow_resilient.testing.aws.logs import FakeLogs, put_log_lines
from airflow_resilient.testing.aws.moto_bridge import InProcess, WsgiApplication, ask_moto, forget_everything
from airflow_resilient.testing.aws.throttling import PUBLISHED_SIZES, Buckets, BucketSize
from airflow_resilient.testing.aws.wire import ACCOUNT, AwsError, reply_with, reply_with_error, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from airflow_resilient.testing.aws.faults import Answer
    from airflow_resilient.testing.aws.wire import Reply, Request

__all__ = [
    "PUBLISHED_SIZES",
    "BucketSize",
    "Call",
    "EcsPlan",
    "EcsTask",
    "EmrCluster",
    "EmrPlan",
    "EmrStep",
    "FakeAws",
    "FakeEcs",
    "FakeEmr",
    "FakeLogs",
]

_READS = ("Describe", "List", "Get")
_JOURNAL_LENGTH = 100_000
_ENDLESS = "emr:ListSteps=1000, emr:DescribeStep=1000, emr=1000, ecs:DescribeTasks=1000"
_UNWANTED = (
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


class Call(NamedTuple):
    """One line of the journal.

    :param time: by the fake's clock, in seconds since the epoch.
    :param operation: ``ecs:RunTask``.
    :param params: the request's plain parameters; structures are left out.
    :param answer: ``ok``, ``moto`` (answered by moto alone), an error code, or ``no answer``.
    """

    time: float
    operation: str
    params: dict[str, Any]
    answer: str


class FakeAws:
    """An AWS account made of moto and of what moto lacks.

    :param clock: gives the time in seconds since the epoch; the real time by default.
    :param fake_time: time stands still but for :meth:`advance`.
    :param throttling: limit calls as AWS does.
    :param buckets: sizes of throttling's buckets that differ from :data:`PUBLISHED_SIZES`, by operation
        (``emr:ListSteps``) or bucket (``ecs cluster reads``).
    :param region: of the helpers below and of ``AWS_DEFAULT_REGION``; clients may use any region.

    :ivar ecs: plans, control and insight for ECS tasks, a :class:`FakeEcs`.
    :ivar emr: the same for EMR steps and clusters, a :class:`FakeEmr`.
    :ivar logs: how FilterLogEvents pages, a :class:`FakeLogs`.
    :ivar throttling: may be switched at any time.

    One of them at a time in a process: moto's backends are global. Methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] | None = None,
        fake_time: bool = False,
        throttling: bool = False,
        buckets: Mapping[str, BucketSize] | None = None,
        region: str = "us-east-1",
    ) -> None:
        if clock and fake_time:
            raise ValueError("give either a clock or fake_time=True, not both")
        start = float(int(real_time.time()))
        self.region = region
        self.throttling = throttling
        self._clock: Callable[[], float] = (lambda: start) if fake_time else (clock or real_time.time)
        self._advanced = 0.0
        self._lock = threading.RLock()
        self._buckets = Buckets(buckets or {})
        self._faults = Faults()
        self._calls: Counter[str] = Counter()
        self._journal: deque[Call] = deque(maxlen=_JOURNAL_LENGTH)
        self.ecs: FakeEcs = FakeEcs(self.now, self._lock)
        self.emr: FakeEmr = FakeEmr(self.now, self._lock)
        self.logs: FakeLogs = FakeLogs()
        self._event_bridge = FakeEventBridge()
        self._actions = {
            **{f"logs:{name}": action for name, action in self.logs.actions.items()},
            **{f"ecs:{name}": action for name, action in self.ecs.actions.items()},
            **{f"emr:{name}": action for name, action in self.emr.actions.items()},
        }
        self._in_process: InProcess | None = None
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._environment_before: dict[str, str | None] | None = None

    # -- open and close -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._server is None:
            in_process = InProcess(self._front, self.region)
            in_process.start()
            self._in_process = in_process
        mine = self.environment()
        mine.pop("AIRFLOW_CONN_AWS_DEFAULT")
        unwanted = [*_UNWANTED, *(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL_"))]
        self._environment_before = {name: os.environ.get(name) for name in {*mine, *unwanted}}
        for name in unwanted:
            os.environ.pop(name, None)
        os.environ.update(mine)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def serve(self, port: int = 0, host: str = "127.0.0.1") -> Self:
        """Answer over HTTP, in threads of this process, until :meth:`stop` or the end of the ``with`` block.

        :param port: 0 takes a free one; see :attr:`endpoint_url`.
        :return: the same object, so that ``with FakeAws().serve() as aws:`` works.
        """
        from moto.moto_server.werkzeug_app import MotoRequestHandler
        from werkzeug.serving import make_server

        class QuietHandler(MotoRequestHandler):
            def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - werkzeug's own name
                """Log nothing; the journal has it all."""

        if self._server is not None:
            raise RuntimeError(f"this fake AWS serves at {self.endpoint_url} already")
        if self._in_process is None:
            forget_everything()
        application: Any = WsgiApplication(self._front, self.region)
        self._server = make_server(host, port, application, threaded=True, request_handler=QuietHandler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="fake-aws", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and intercepting, and restore the environment variables."""
        for name, value in (self._environment_before or {}).items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment_before = None
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._in_process is not None:
            self._in_process.stop()
            self._in_process = None

    @property
    def endpoint_url(self) -> str | None:
        """Where it serves over HTTP, or ``None``."""
        return f"http://{self._server.host}:{self._server.port}" if self._server is not None else None

    def environment(self) -> dict[str, str]:
        """Return environment variables that make another process use this fake instead of AWS.

        Fake credentials, the region, the endpoint when serving, and Airflow's connection ``aws_default``.
        Without throttling, also a budget of calls that no test will use up: polls need not be paced.
        """
        variables = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AIRFLOW_CONN_AWS_DEFAULT": self.airflow_connection(),
        }
        if not self.throttling:
            variables["AIRFLOW__AIRFLOW_RESILIENT__API_BUDGETS"] = _ENDLESS
        if self.endpoint_url:
            variables["AWS_ENDPOINT_URL"] = self.endpoint_url
        return variables

    def airflow_connection(self) -> str:
        """Return the JSON text for ``AIRFLOW_CONN_AWS_DEFAULT``."""
        extra = {"region_name": self.region, **self._endpoint()}
        return json.dumps({"conn_type": "aws", "login": "test", "password": "test", "extra": extra})

    def connection_uri(self) -> str:
        """Return the same connection as an URI, as ``airflow connections add --conn-uri`` wants it."""
        return f"aws://test:test@/?{urlencode({'region_name': self.region, **self._endpoint()})}"

    def _endpoint(self) -> dict[str, str]:
        return {"endpoint_url": self.endpoint_url} if self.endpoint_url else {}

    # -- time ---------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the fake's time in seconds since the epoch."""
        return self._clock() + self._advanced

    def advance(self, seconds: float) -> None:
        """Let time pass, on a fake clock and on a real one alike. Nothing ever sleeps."""
        if seconds < 0:
            raise ValueError("time does not go backwards")
        with self._lock:
            self._advanced += seconds

    # -- faults -------------------------------------------------------------------------------------------

    def fail_next(
        self,
        operation: str,
        code: str | None = None,
        *,
        times: int | None = 1,
        carried_out: bool = False,
        answer: Answer = "500",
        message: str | None = None,
        status: int | None = None,
    ) -> None:
        """Let the next calls of an operation fail.

        :param operation: ``ecs:RunTask``, or a pattern such as ``emr:*``.
        :param code: of the error, such as ``ThrottlingException``.
        :param times: how many calls; ``None``: all until :meth:`heal`.
        :param carried_out: the action happens all the same; only its answer is lost or wrong.
        :param answer: without a code: ``500`` is an internal server error, ``drop`` closes the connection.
        :param status: HTTP status, if not the usual one of the code.

        boto3 retries throttles, 500s and dropped connections by itself (legacy mode: four times more), and
        each of its attempts uses up one of ``times``.
        """
        with self._lock:
            self._faults.add(Fault(operation, code, message, status, carried_out, answer), times)

    def deny(self, operation: str) -> None:
        """Answer an operation with AccessDeniedException until :meth:`heal`."""
        self.fail_next(operation, "AccessDeniedException", times=None)

    def heal(self, operation: str | None = None) -> None:
        """End the faults and denials of one operation (named as when they were asked for), or all."""
        with self._lock:
            self._faults.heal(operation)

    # -- what was called ----------------------------------------------------------------------------------

    @property
    def calls(self) -> Counter[str]:
        """How often each operation was called, failed calls included: ``{"ecs:RunTask": 2}``."""
        with self._lock:
            return Counter(self._calls)

    @property
    def journal(self) -> list[Call]:
        """The latest 100,000 calls in the order of their answers."""
        with self._lock:
            return list(self._journal)

    def forget_calls(self) -> None:
        """Reset the counts and the journal, for example after the set-up."""
        with self._lock:
            self._calls.clear()
            self._journal.clear()

    # -- set-up -------------------------------------------------------------------------------------------

    def make_ecs_cluster(self, name: str = "default") -> str:
        """Make an ECS cluster; return its ARN."""
        self._open()
        answer = ask_moto("ecs", self.region, "CreateCluster", {"clusterName": name})
        return str(answer["cluster"]["clusterArn"])

    def make_task_definition(
        self, family: str, containers: Sequence[str] = ("main",), log_group: str | None = None
    ) -> str:
        """Register a task definition; return its ARN.

        :param containers: names; the first one's exit code is the plan's.
        :param log_group: containers log there, to the stream ``ecs/CONTAINER/TASK_ID``.
        """
        self._open()
        log: dict[str, Any] = {}
        if log_group:
            options = {
                "awslogs-group": log_group,
                "awslogs-region": self.region,
                "awslogs-stream-prefix": "ecs",
            }
            log = {"logConfiguration": {"logDriver": "awslogs", "options": options}}
        definitions = [
            {
                "name": name,
                "image": f"{family}:latest",
                "cpu": 128,
                "memory": 256,
                "essential": number == 0,
                **log,
            }
            for number, name in enumerate(containers)
        ]
        params = {
            "family": family,
            "containerDefinitions": definitions,
            "requiresCompatibilities": ["EC2", "FARGATE"],
            "networkMode": "awsvpc",
            "cpu": "256",
            "memory": "512",
        }
        answer = ask_moto("ecs", self.region, "RegisterTaskDefinition", params)
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def make_emr_cluster(
        self,
        name: str = "demo",
        concurrency: int = 1,
        release: str = "emr-7.1.0",
        *,
        keep_alive: bool = True,
        log_uri: str | None = None,
    ) -> str:
        """Start an EMR cluster; return its id.

        :param concurrency: ``StepConcurrencyLevel``.
        :param keep_alive: do not terminate when no step is left.

        It is WAITING at once unless ``aws.emr.start_seconds`` is set.
        """
        self._open()
        params: dict[str, Any] = {
            "Name": name,
            "ReleaseLabel": release,
            "Instances": {"KeepJobFlowAliveWhenNoSteps": keep_alive},
            "JobFlowRole": "EMR_EC2_DefaultRole",
            "ServiceRole": "EMR_DefaultRole",
            "StepConcurrencyLevel": concurrency,
            **({"LogUri": log_uri} if log_uri else {}),
        }
        with self._lock:
            return str(self._actions["emr:RunJobFlow"](self.region, params)["JobFlowId"])

    def make_event_rule(self, name: str, pattern: Mapping[str, Any], log_group: str) -> None:
        """Let EventBridge write the events that match to a log group, which is made if it is missing.

        boto3's ``put_rule`` and ``put_targets`` do the same.

        :param pattern: of the rule, such as ``{"source": ["aws.ecs"]}``.
        """
        self._open()
        put_log_lines(self.region, log_group, "log_stream_created_by_aws_to_validate_log_delivery", [], 0.0)
        group = f"arn:aws:logs:{self.region}:{ACCOUNT}:log-group:{log_group}"
        with self._lock:
            self._note_rules()
            ask_moto("events", self.region, "PutRule", {"Name": name, "EventPattern": json.dumps(pattern)})
            targets = [{"Id": "log-group", "Arn": group}]
            ask_moto("events", self.region, "PutTargets", {"Rule": name, "Targets": targets})

    def _note_rules(self) -> None:
        """Begin to send events, or go on; a rule gets none of what has happened before it was made."""
        self.deliver_events()
        self.ecs.events()
        self._event_bridge.used = True

    def deliver_events(self) -> None:
        """Send the events of ECS tasks that have stopped to the log groups of the rules that match.

        Rules are made with boto3's ``put_rule`` and ``put_targets``, as on AWS. Every call of AWS does this,
        and so does a test that ends a task and makes no call.
        """
        with self._lock:
            for time, region, detail in self.ecs.events() if self._event_bridge.used else ():
                self._event_bridge.send(region, "aws.ecs", "ECS Task State Change", detail, time)

    def put_log_lines(self, group: str, stream: str, lines: Iterable[str | tuple[float, str]]) -> None:
        """Append lines to a CloudWatch Logs stream, which is made if it is missing.

        :param lines: text, stamped with the fake's time, or (seconds since the epoch, text).
        """
        self._open()
        put_log_lines(self.region, group, stream, lines, self.now())

    def _open(self) -> None:
        if self._in_process is None and self._server is None:
            raise RuntimeError("use FakeAws in a with block, or after serve()")

    # -- every call ---------------------------------------------------------------------------------------

    def _front(self, request: Request, let_moto_act: Callable[[], object]) -> Reply | None:
        """Answer a request, or return ``None`` for moto to answer.

        :raises ConnectionDropped: when the answer is to be lost with its connection.
        """
        with self._lock:
            time = self.now()
            self.deliver_events()
            self._calls[request.operation] += 1
            answer = "no answer"
            try:
                reply = self._answer(request, let_moto_act, time)
                answer = "moto" if reply is None else "ok"
            except AwsError as error:
                answer = error.code
                reply = reply_with_error(error, request.protocol)
            finally:
                self._journal.append(Call(time, request.operation, shorten(request.params), answer))
            return reply

    def _answer(self, request: Request, let_moto_act: Callable[[], object], time: float) -> Reply | None:
        fault = self._faults.take(request.operation)
        if fault is None:
            if self.throttling and not self._buckets.take(request.operation, request.region, time):
                raise AwsError("ThrottlingException", "Rate exceeded")
            return self._act(request)
        if fault.carried_out:
            try:
                if self._act(request) is None:
                    let_moto_act()
            except AwsError:
                pass  # what the action itself would have answered is dropped
        raise fault.error_for(request)

    def _act(self, request: Request) -> Reply | None:
        if request.service == "events":
            self._note_rules()
        action = self._actions.get(request.operation)
        if action:
            return reply_with(action(request.region, request.params))
        if request.service == "ecs" and not request.action.startswith(_READS):
            self.ecs.forget_clusters()
        return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted, for use by hand."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m airflow_resilient.testing.aws.account",
        description="Serve a fake AWS (ECS, EMR, CloudWatch Logs; moto for the rest) on 127.0.0.1.",
    )
    parser.add_argument("--port", type=int, default=5005, help="0 takes a free one")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--throttling", action="store_true", help="limit calls as AWS does")
    parser.add_argument("--ecs-cluster", action="append", default=[], metavar="NAME")
    parser.add_argument("--task-definition", action="append", default=[], metavar="FAMILY")
    parser.add_argument("--emr-cluster", action="append", default=[], metavar="NAME")
    options = parser.parse_args(arguments)
    with FakeAws(throttling=options.throttling, region=options.region).serve(options.port) as aws:
        lines = [f"fake AWS at {aws.endpoint_url}", f"AIRFLOW_CONN_AWS_DEFAULT={aws.airflow_connection()!r}"]
        lines += [f"ECS cluster {aws.make_ecs_cluster(name)}" for name in options.ecs_cluster]
        lines += [f"task definition {aws.make_task_definition(name)}" for name in options.task_definition]
        lines += [f"EMR cluster {name}: {aws.make_emr_cluster(name)}" for name in options.emr_cluster]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.stdout.write("\n")


if __name__ == "__main__":
    main()
