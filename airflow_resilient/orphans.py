"""The orphan sweep for a maintenance DAG, and what it shares with the command line."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from .compat import BaseOperator
from .errors import ResilientError
from .jobs import Senses
from .operators import namespace
from .parameters import access_of, may_change, reject
from .sweep import GRACE, Kind, Place, Report, sweep

if TYPE_CHECKING:
    from airflow.sdk import Context

    from .airflow_api import AirflowApi

SERVICES = ("ecs", "emr", "docker")
AWS = ("ecs", "emr")
WAIT = 120.0
"""Seconds for which the ends of cancelled jobs are awaited.

Source: StopTask reference: a container is killed 30 seconds after it was asked to stop, by default.
"""


class OrphanSweepOperator(BaseOperator):
    """List the remote jobs that nobody wants any more, and cancel them if asked to.

    A job is an orphan when it bears a claim of this deployment, it has not ended, and its task instance has,
    or does not exist any more: its DAG run was deleted, or it was marked while no triggerer was there to hear
    of it. Immediately before a job is cancelled, it and its task instance are looked at once more.

    :param airflow_conn_id: connection to this very Airflow's REST API: URL as host, and login and password,
        or a token as password without login. The account must be able to read every DAG. (templated)
    :param services: of ``"ecs"``, ``"emr"`` and ``"docker"``; by default those whose clusters or engines are
        named, or ECS and EMR.
    :param ecs_clusters: names or ARNs of the ECS clusters to look in; by default all of the account and
        region. (templated)
    :param emr_clusters: ids of the EMR clusters to look on; by default all that can run steps. (templated)
    :param docker_urls: URLs of the Docker engines to look on; nobody can list engines. Containers there that
        ended long ago and that ``auto_remove`` asks to remove are removed with `cancel`, too. (templated)
    :param docker_tls: for engines with TLS, paths: ``{"ca_cert": str, "client_cert": str, "client_key":
        str}``.
    :param cancel: cancel the orphans; by default they are only reported. (templated)
    :param grace: how long ago a job must have been created, and its task instance have ended; a timedelta, or
        seconds. (templated)
    :param wait: for how long the ends of cancelled jobs are awaited, all together.
    :param fail_when_found: fail when orphans are left after the sweep, as they are without `cancel`.
    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credentials. (templated)
    :param region_name: overrides the connection's region. (templated)
    :param verify: whether, or with which CA bundle, certificates are verified.
    :param botocore_config: keywords for ``botocore.config.Config``.
    :return: one dict for each live job with a claim of this deployment: ``verdict``, ``reason``, ``outcome``,
        ``service``, ``cluster``, ``job``, ``claim``, ``phase``, ``created`` (seconds since 1970), ``dag_id``,
        ``run_id``, ``task_id``, ``map_index``, ``state``. It is pushed also when the task fails.
    :raises InvalidParameter: when the DAG is parsed: a parameter is wrong.

    At run time it raises `ResilientError` when something could not be found out, whatever `fail_when_found`
    says: unknown is not "no orphans".
    """

    template_fields: Sequence[str] = (
        "airflow_conn_id",
        "aws_conn_id",
        "cancel",
        "docker_urls",
        "ecs_clusters",
        "emr_clusters",
        "grace",
        "region_name",
    )
    ui_color = "#d9d9d9"

    def __init__(
        self,
        *,
        airflow_conn_id: str = "airflow_default",
        services: Sequence[str] | None = None,
        ecs_clusters: Sequence[str] = (),
        emr_clusters: Sequence[str] = (),
        docker_urls: Sequence[str] = (),
        docker_tls: Mapping[str, Any] | None = None,
        cancel: bool | str = False,
        grace: timedelta | float | str = timedelta(seconds=GRACE),
        wait: timedelta = timedelta(seconds=WAIT),
        fail_when_found: bool = True,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        verify: bool | str | None = None,
        botocore_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.airflow_conn_id = airflow_conn_id
        self.services = services
        self.ecs_clusters = ecs_clusters
        self.emr_clusters = emr_clusters
        self.docker_urls = docker_urls
        self.docker_tls = docker_tls
        self.cancel = cancel
        self.grace = grace
        self.wait = wait
        self.fail_when_found = fail_when_found
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self._check()

    def _check(self) -> None:
        """Refuse what can be seen to be wrong; a template is looked at when it has been rendered.

        :raises InvalidParameter: naming task, parameter and what to write.
        """
        services = self.services
        if services is not None and (isinstance(services, str) or not set(services) <= set(SERVICES)):
            reject(self, "services", services, "a list of 'ecs', 'emr' and 'docker'")
        for name in ("ecs_clusters", "emr_clusters", "docker_urls"):
            clusters = getattr(self, name)
            if isinstance(clusters, str) and not may_change(clusters):
                reject(self, name, clusters, f"a list, such as {name}=[{clusters!r}]")
        if not may_change(self.cancel) and str(self.cancel).lower() not in ("true", "false"):
            reject(self, "cancel", self.cancel, "True or False")
        if not may_change(self.grace) and _seconds(self.grace) is None:
            reject(self, "grace", self.grace, "a timedelta or seconds, 0 or more")
        if _seconds(self.wait) is None:
            reject(self, "wait", self.wait, "a timedelta, such as wait=timedelta(minutes=2)")

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Sweep once."""
        self._check()  # again: what was a template at parse time is a value now
        report = sweep(
            places(
                access_of(self),
                self.services,
                self.ecs_clusters,
                self.emr_clusters,
                docker_urls=self.docker_urls,
                docker_tls=self.docker_tls,
            ),
            api_of(self.airflow_conn_id),
            namespace(),
            Senses(time.time, time.sleep, random.random, self.log),
            cancel=str(self.cancel).lower() == "true",
            grace=_seconds(self.grace) or 0.0,
            wait=_seconds(self.wait) or 0.0,
        )
        for line in told(report):
            self.log.info("%s", line)
        rows = [finding.row() for finding in report.findings]
        unknown, found = report.exit_code > 1, self.fail_when_found and report.orphans
        if unknown or found:
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=rows)
            what = (
                "Not everything could be found out" if unknown else f"{len(report.orphans)} orphans are left"
            )
            raise ResilientError(f"{what}. {' '.join(told(report)[-3:])}")
        return rows


def _seconds(length: Any) -> float | None:
    """A length of time in seconds; ``None`` when it is none."""
    try:
        seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    except (TypeError, ValueError):
        return None
    return seconds if seconds >= 0 else None


def places(
    access: Mapping[str, Any],
    services: Sequence[str] | None,
    ecs_clusters: Iterable[str],
    emr_clusters: Iterable[str],
    *,
    docker_urls: Iterable[str] = (),
    docker_tls: Mapping[str, Any] | None = None,
) -> list[Place]:
    """Where to look.

    :param access: keywords of `AwsAccess`.
    :param services: by default those whose clusters or engines are named, or those of AWS.
    :param docker_tls: see `OrphanSweepOperator`.
    """
    from .docker import DockerContainers, default_url
    from .ecs import EcsTasks
    from .emr import EmrSteps

    named = {"ecs": tuple(ecs_clusters), "emr": tuple(emr_clusters), "docker": tuple(docker_urls)}
    wanted = services or [name for name, scopes in named.items() if scopes] or AWS

    def service(name: str) -> Any:
        if name == "docker":
            return DockerContainers(docker_url=named[name] or default_url(), tls=docker_tls)
        return {"ecs": EcsTasks, "emr": EmrSteps}[name](**access)

    # An engine is called by the URL that it is asked with, which TLS may change.
    scopes = {**named, "docker": ()}
    return [Place(name, service(name), scopes[name]) for name in SERVICES if name in wanted]


def api_of(conn_id: str) -> AirflowApi:
    """The REST API behind an Airflow connection.

    Its host is the URL, or a name with the schema as ``http`` or ``https`` and the port beside it.
    """
    from airflow.providers.common.compat.sdk import BaseHook

    from .airflow_api import AirflowApi

    connection: Any = BaseHook.get_connection(conn_id)
    url = str(connection.host or "")
    if "://" not in url:
        port = f":{connection.port}" if connection.port else ""
        url = f"{connection.schema or 'http'}://{url}{port}"
    if not connection.login:
        return AirflowApi(url, token=connection.password or connection.extra_dejson.get("token"))
    return AirflowApi(url, user=connection.login, password=connection.password)


def told(report: Report, *, everything: bool = False) -> list[str]:
    """The report for a person, as lines; the last one sums up.

    :param everything: list also what is wanted, or left on purpose.
    """
    quiet = (Kind.WANTED, Kind.LEFT)
    rows = [
        (
            finding.verdict.kind.value,
            finding.place,
            last_part(finding.job.scope),
            last_part(finding.job.id),
            str(finding.job.claim),
            moment(finding.job.created),
            str(finding.instance or "-"),
            f"{finding.verdict.reason}. {finding.outcome}" if finding.outcome else finding.verdict.reason,
        )
        for finding in report.findings
        if everything or finding.verdict.kind not in quiet or finding.outcome
    ]
    lines = table(("verdict", "service", "cluster", "job", "claim", "created", "task instance", "why"), rows)
    lines += [f"NOT KNOWN: {trouble}" for trouble in report.troubles]
    if report.leftovers:
        removed = sum(each.ended for each in report.leftovers)
        text = f"Ended, and to be removed: {len(report.leftovers)}"
        lines.append(f"{text}; {removed} of them removed." if removed else f"{text}.")
        lines += [
            f"{each.job.id}: {each.outcome}" for each in report.leftovers if each.outcome and not each.ended
        ]
    counts = Counter(finding.verdict.kind.value for finding in report.findings)
    ended = sum(finding.ended for finding in report.findings)
    kinds = ", ".join(f"{counts[kind.value]} {kind.value}" for kind in Kind if counts[kind.value]) or "none"
    text = f"Live jobs with claims of {report.namespace!r}: {kinds}."
    text += f" Of these, {ended} seen to end." if ended else ""
    text += f" Claims of other namespaces: {report.foreign}." if report.foreign else ""
    if report.foreign and not report.findings:
        text += " None is ours: is that the namespace of this Airflow?"
    return [*lines, text]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows below a head, in columns; nothing without rows.

    >>> table(("a", "bc"), [("long", "x"), ("", "yz")])
    ['A     BC', 'long  x', '      yz']
    """
    cells = [[column.upper() for column in head], *([*row] for row in rows)]
    if len(cells) == 1:
        return []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def last_part(name: str) -> str:
    """What tells an ARN from others of its kind.

    >>> last_part("arn:aws:ecs:eu-west-1:123456789012:cluster/etl"), last_part("s-1,s-2")
    ('etl', 's-1,s-2')
    """
    return name.rpartition("/")[2]


def moment(seconds: float) -> str:
    """A time for a person, in UTC.

    >>> moment(1767225600.0)
    '2026-01-01 00:00:00Z'
    """
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}Z"
