"""The orphan sweep: the command, and the operator for a maintenance DAG."""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .. import registry
from ..compat import BaseOperator
from ..core.retry import Runtime
from ..core.service import AWS_ACCESS
from ..core.text import last_part, printable
from ..deployment import namespace
from ..errors import ResilientError
from ..parameters import is_templated, reject
from .command import Command, ExitCode
from .options import (
    access_for,
    access_of,
    add_access_options,
    add_airflow_options,
    add_namespace_option,
    add_service_options,
    api_of,
    duration,
    namespace_of,
    scopes_of,
)
from .report import moment, table
from .sweep import GRACE, OrphanStatus, SweepTarget, sweep
from .task_instances import Instance

if TYPE_CHECKING:
    from airflow.sdk import Context

    from .sweep import Report

WAIT = 120.0
"""Seconds for which the ends of cancelled jobs are awaited.

Source: StopTask reference: by default, a container is killed 30 seconds after SIGTERM.
"""


class OrphanSweepOperator(BaseOperator):
    """List the remote jobs that no task instance needs any more, and optionally cancel them.

    A job is an orphan when it bears a claim of this deployment, has not ended, and its task instance has
    ended or does not exist any more, for example because its DAG run was deleted, or because it was marked
    while no triggerer was running. Immediately before a job is cancelled, it and its task instance are
    checked again. A job that is not proved to be an orphan is reported as ``unknown`` and never cancelled.

    :param airflow_conn_id: connection to this very Airflow's REST API: URL as host, and login and password,
        or a token as password without login. The sweep looks for its own task instance there, so a
        connection to another Airflow cancels nothing. The account must be able to read every DAG. (templated)
    :param services: names of services, such as ``["ecs", "emr_steps"]``; default: the services in `scopes`,
        or all whose scopes can be listed.
    :param scopes: scopes to search, by service: ``{"ecs": ["etl"], "docker": ["tcp://build:2375"]}``;
        default: every cluster of the account and region. Docker engines cannot be listed, so only those in
        `scopes` are swept; with `cancel`, their containers that ended long ago and that ``auto_remove``
        requires to be removed are removed, too. (templated)
    :param tls: for Docker engines with TLS, paths: ``{"ca_cert": str, "client_cert": str, "client_key":
        str}``.
    :param cancel: cancel the orphans; by default they are only reported. (templated)
    :param grace: minimum time since a job was created and since its task instance ended; a timedelta, or
        seconds. (templated)
    :param wait: how long to wait for the ends of all cancelled jobs together.
    :param sees_every_dag: you know that the account may read every DAG, where Airflow cannot prove it: in
        multi-team mode, or with an auth manager that is neither the simple one nor that of the fab provider.
        Without a proof, the jobs of deleted runs are ``unknown``.
    :param fail_when_found: fail when orphans are left after the sweep, as they are without `cancel`.
    :param aws_conn_id: Airflow connection; ``None`` for boto3's own credentials. (templated)
    :param region_name: overrides the connection's region. (templated)
    :param verify: whether, or with which CA bundle, certificates are verified.
    :param botocore_config: keywords for ``botocore.config.Config``.
    :return: one dict for each live job with a claim of this deployment: ``verdict``, ``reason``, ``outcome``,
        ``service``, ``scope``, ``job``, ``claim``, ``phase``, ``created`` (seconds since 1970), ``dag_id``,
        ``run_id``, ``task_id``, ``map_index``, ``state``. It is also pushed when the task fails.
    :raises InvalidParameter: when the DAG is parsed: a parameter is wrong.

    At run time it raises `ResilientError` when something could not be determined, regardless of
    `fail_when_found`: unknown is not "no orphans".
    """

    template_fields: Sequence[str] = (
        "airflow_conn_id",
        "aws_conn_id",
        "cancel",
        "grace",
        "region_name",
        "scopes",
    )
    ui_color = "#d9d9d9"

    def __init__(  # noqa: PLR0913 - all are keyword-only
        self,
        *,
        airflow_conn_id: str = "airflow_default",
        services: Sequence[str] | None = None,
        scopes: Mapping[str, Sequence[str]] | None = None,
        tls: Mapping[str, Any] | None = None,
        cancel: bool | str = False,
        grace: timedelta | float | str = timedelta(seconds=GRACE),
        wait: timedelta = timedelta(seconds=WAIT),
        sees_every_dag: bool = False,
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
        self.scopes = scopes or {}
        self.tls = tls
        self.cancel = cancel
        self.grace = grace
        self.wait = wait
        self.sees_every_dag = sees_every_dag
        self.fail_when_found = fail_when_found
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.verify = verify
        self.botocore_config = botocore_config
        self._check()

    def _check(self) -> None:
        """Check the parameters; templates are checked after they are rendered.

        :raises InvalidParameter: a parameter is wrong.
        """
        known = registry.services()
        services = self.services
        if services is not None and (isinstance(services, str) or not set(services) <= set(known)):
            reject(self, "services", services, f"a list of names among {', '.join(known)}")
        if not is_templated(self.scopes):
            if not isinstance(self.scopes, Mapping) or not set(self.scopes) <= set(known):
                reject(self, "scopes", self.scopes, f"a dict with keys among {', '.join(known)}")
            for name, scopes in self.scopes.items():
                if isinstance(scopes, str) and not is_templated(scopes):
                    reject(self, f"scopes[{name!r}]", scopes, f"a list, such as {[scopes]!r}")
        if not is_templated(self.cancel) and str(self.cancel).lower() not in ("true", "false"):
            reject(self, "cancel", self.cancel, "True or False")
        if not is_templated(self.grace) and _seconds(self.grace) is None:
            reject(self, "grace", self.grace, "a timedelta or seconds, 0 or more")
        if not isinstance(self.sees_every_dag, bool):
            reject(self, "sees_every_dag", self.sees_every_dag, "True or False")
        if _seconds(self.wait) is None:
            reject(self, "wait", self.wait, "a timedelta, such as wait=timedelta(minutes=2)")

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Sweep once."""
        from .airflow_api import api_of_connection

        self._check()  # again: templates are rendered now
        access = {name: getattr(self, name) for name in AWS_ACCESS} | ({"tls": self.tls} if self.tls else {})
        report = sweep(
            sweep_targets(access, self.services, self.scopes),
            api_of_connection(self.airflow_conn_id),
            namespace(),
            Runtime(time.time, time.sleep, random.random, self.log),
            cancel=str(self.cancel).lower() == "true",
            grace=_seconds(self.grace) or 0.0,
            wait=_seconds(self.wait) or 0.0,
            me=_running_try(context["ti"]),
            sees_every_dag=self.sees_every_dag,
        )
        lines = format_report(report)
        for line in lines:
            self.log.info("%s", line)
        rows = [finding.row() for finding in report.findings]
        unknown = report.exit_code is ExitCode.UNKNOWN
        if unknown or (self.fail_when_found and report.orphans):
            if self.do_xcom_push:
                context["ti"].xcom_push(key="return_value", value=rows)
            problem = (
                "The sweep is incomplete: some states are unknown"
                if unknown
                else f"{len(report.orphans)} orphans are left"
            )
            raise ResilientError(f"{problem}. {' '.join(lines[-3:])}")
        return rows


def _running_try(ti: Any) -> Instance:
    """The try of a task instance that runs this code, as Airflow's API should show it.

    Source: ``TaskInstance`` (3.x) has an id, a UUID, which is another one in each try, and which the API
    shows. On 2.11 the start of a try, which is kept with microseconds, tells it from that of another
    deployment.
    """
    started = getattr(ti, "start_date", None)
    return Instance(
        ti.dag_id,
        ti.run_id,
        ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        state="running",
        try_number=ti.try_number,
        started=started.timestamp() if started else None,
        id=str(getattr(ti, "id", None) or ""),
    )


def _seconds(length: Any) -> float | None:
    """A duration in seconds; ``None`` when it is not valid."""
    try:
        seconds = length.total_seconds() if isinstance(length, timedelta) else float(length)
    except (TypeError, ValueError):
        return None
    return seconds if seconds >= 0 else None


def sweep_targets(
    access: Mapping[str, Any],
    services: Sequence[str] | None,
    scopes: Mapping[str, Sequence[str]],
) -> list[SweepTarget]:
    """The services and scopes to search.

    :param access: parameters of access; each service gets those of its `ServiceInfo.access`.
    :param services: default: the services in `scopes`, or all whose scopes can be listed.
    :param scopes: by service.
    """
    known = registry.services()
    wanted = services or [name for name in known if scopes.get(name)]
    wanted = wanted or [name for name, info in known.items() if info.scopes_listable]
    return [
        SweepTarget(
            name,
            registry.client_class(info).connect(access_for(info.access, access), tuple(scopes.get(name, ()))),
            tuple(scopes.get(name, ())),
        )
        for name, info in known.items()
        if name in wanted
    ]


def format_report(report: Report, *, everything: bool = False) -> list[str]:
    """The report as lines of text; the last one is a summary.

    :param everything: also list jobs that are wanted, or left running on purpose.
    """
    quiet = (OrphanStatus.WANTED, OrphanStatus.LEFT_RUNNING)
    rows = [
        (
            finding.verdict.status.value,
            finding.service,
            last_part(finding.job.scope),
            last_part(finding.job.id),
            str(finding.job.claim),
            moment(finding.job.created),
            str(finding.instance or "-"),
            f"{finding.verdict.reason}. {finding.outcome}" if finding.outcome else finding.verdict.reason,
        )
        for finding in report.findings
        if everything or finding.verdict.status not in quiet or finding.outcome
    ]
    lines = table(("verdict", "service", "scope", "job", "claim", "created", "task instance", "why"), rows)
    lines += [f"UNKNOWN: {error}" for error in report.errors]
    if report.removable:
        removed = sum(each.ended for each in report.removable)
        text = f"Ended jobs to remove: {len(report.removable)}"
        lines.append(f"{text}; {removed} of them removed." if removed else f"{text}.")
        lines += [
            f"{each.job.id}: {each.outcome}" for each in report.removable if each.outcome and not each.ended
        ]
    counts = Counter(finding.verdict.status.value for finding in report.findings)
    ended = sum(finding.ended for finding in report.findings)
    statuses = (
        ", ".join(f"{counts[each.value]} {each.value}" for each in OrphanStatus if counts[each.value])
        or "none"
    )
    text = f"Live jobs with claims of {report.namespace!r}: {statuses}."
    text += f" Of these, {ended} have ended." if ended else ""
    text += f" Claims of other namespaces: {report.foreign}." if report.foreign else ""
    if report.foreign and not report.findings:
        text += " None belongs to this namespace: is it the namespace of this Airflow?"
    return [printable(line) for line in (*lines, text)]


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cancel", action="store_true", help="cancel the orphans and wait for their ends")
    parser.add_argument(
        "--grace",
        type=duration,
        default=GRACE,
        metavar="TIME",
        help="minimum time since the job was created and its task instance ended (default 10m)",
    )
    parser.add_argument(
        "--wait",
        type=duration,
        default=WAIT,
        metavar="TIME",
        help="how long to wait for the ends of cancelled jobs (default 2m)",
    )
    parser.add_argument(
        "--same-airflow",
        action="store_true",
        help="the Airflow that is asked has submitted the jobs of this namespace: needed where none of the "
        "jobs that are found has a task instance there",
    )
    parser.add_argument(
        "--sees-every-dag",
        action="store_true",
        help="the account may read every DAG: needed for jobs of deleted runs where Airflow cannot prove it",
    )
    parser.add_argument("--all", action="store_true", help="list wanted jobs, too")
    add_service_options(parser, several=True)
    add_airflow_options(parser)
    add_namespace_option(parser)
    add_access_options(parser, aws_conn_id="aws_default")


def _run(options: argparse.Namespace) -> tuple[str, ExitCode]:
    report = sweep(
        sweep_targets(access_of(options), options.service, scopes_of(options)),
        api_of(options),
        namespace_of(options),
        Runtime(time.time, time.sleep, random.random),
        cancel=options.cancel,
        grace=options.grace,
        wait=options.wait,
        same_airflow=options.same_airflow,
        sees_every_dag=options.sees_every_dag,
    )
    if options.json:
        found = {
            "namespace": report.namespace,
            "findings": [finding.row() for finding in report.findings],
            "foreign": report.foreign,
            "errors": list(report.errors),
            "removable": [finding.row() for finding in report.removable],
            "exit_code": int(report.exit_code),
        }
        return json.dumps(found, indent=2), report.exit_code
    lines = format_report(report, everything=options.all)
    if report.orphans and not options.cancel:
        lines.append("This was a dry run: pass --cancel to cancel the orphans.")
    return "\n".join(lines), report.exit_code


COMMAND = Command(
    name="orphans",
    summary="list, and with --cancel cancel, the remote jobs that no task instance needs any more",
    description="List the live remote jobs with a claim of this Airflow whose task instance has ended or "
    "does not exist any more. A dry run, unless --cancel is given.",
    exit_codes="0 nothing is left to do, 1 orphans were found, 2 something could not be determined",
    add_options=_add_options,
    run=_run,
)
