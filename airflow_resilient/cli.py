"""The command line, ``airflow-resilient``: what a person on call asks."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .airflow_api import AirflowApi

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_EXIT_CODES = "exit code: 0 nothing is left to do, 1 orphans were found, 2 something could not be found out"
_ENVIRONMENT = "AIRFLOW_API_URL, AIRFLOW_API_TOKEN, AIRFLOW_API_USER, AIRFLOW_API_PASSWORD"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: those of the command line by default.
    :return: the exit code: 0 nothing is left to do, 1 orphans were found, 2 something could not be found out.
    """
    options = _parser().parse_args(arguments)
    return _run(options.command, options)


def _run(command: Callable[[argparse.Namespace], tuple[str, int]], options: argparse.Namespace) -> int:
    """Run a command that gives its result and its exit code. Only the result stands on standard output."""
    os.environ.setdefault(
        "AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING"
    )  # what goes well is not of interest here
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    with contextlib.redirect_stdout(sys.stderr):  # Airflow and boto3 may print what they like
        from .sweep import NoAnswer

        try:
            text, code = command(options)
        except NoAnswer as error:
            sys.stderr.write(f"airflow-resilient: {error}\n")
            return 2
        except KeyboardInterrupt:
            sys.stderr.write("airflow-resilient: interrupted; what was cancelled already will end\n")
            return 130
        except Exception:
            logging.getLogger(__name__).exception(
                "airflow-resilient: this should not happen; please report it"
            )
            return 2  # never 1, which would mean that orphans were found
    sys.stdout.write(text + "\n")
    return code


def orphans(options: argparse.Namespace) -> tuple[str, int]:
    """List or cancel the jobs that nobody wants."""
    from .jobs import Senses
    from .orphans import places, told
    from .sweep import sweep

    report = sweep(
        places(
            _access(options),
            options.service,
            options.ecs_cluster,
            options.emr_cluster,
            docker_urls=options.docker_url,
            docker_tls=_tls(options),
        ),
        _api(options),
        _namespace(options),
        Senses(time.time, time.sleep, random.random),
        cancel=options.cancel,
        grace=options.grace,
        wait=options.wait,
    )
    if options.json:
        found = {
            "namespace": report.namespace,
            "findings": [finding.row() for finding in report.findings],
            "foreign": report.foreign,
            "troubles": list(report.troubles),
            "leftovers": [finding.row() for finding in report.leftovers],
            "exit_code": report.exit_code,
        }
        return json.dumps(found, indent=2), report.exit_code
    lines = told(report, everything=options.all)
    if report.orphans and not options.cancel:
        lines.append("This was a dry run; --cancel ends the orphans.")
    return "\n".join(lines), report.exit_code


def explain(options: argparse.Namespace) -> tuple[str, int]:
    """Explain a task instance."""
    from .explain import Assumed, told
    from .explain import explain as gather
    from .sweep import Instance

    found = gather(
        _api(options),
        Instance(options.dag, options.run, options.task, options.map_index),
        _namespace(options),
        assumed=Assumed(options.on_clear, options.on_timeout, options.infrastructure_retries),
        ecs_cluster=options.ecs_cluster,
        emr_cluster=options.emr_cluster,
        docker_url=options.docker_url,
        docker_tls=_tls(options),
        access=_access(options),
    )
    text = json.dumps(found, indent=2) if options.json else "\n".join(told(found))
    return text, 2 if found["troubles"] else 0


def seconds(text: str) -> float:
    """A length of time: a number of seconds, or with a unit.

    >>> seconds("90"), seconds("10m"), seconds("1.5h")
    (90.0, 600.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; write one such as 600, 10m or 2h")
    return float(found[1]) * _UNITS[found[2]]


# --- options --------------------------------------------------------------------------------------

_NOT_GIVEN: Any = object()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airflow-resilient", description="Look after the remote jobs of airflow_resilient's operators."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sweeping = commands.add_parser(
        "orphans",
        help="list, and with --cancel cancel, the remote jobs that nobody wants any more",
        description="List the live remote jobs with a claim of this Airflow whose task instance has ended or "
        "does not exist any more. A dry run, unless --cancel is given.",
        epilog=_EXIT_CODES,
    )
    sweeping.set_defaults(command=orphans)
    sweeping.add_argument("--cancel", action="store_true", help="cancel the orphans and wait for their ends")
    sweeping.add_argument(
        "--grace",
        type=seconds,
        default=600.0,
        metavar="TIME",
        help="how long ago the job must have been created, and its task instance have ended (default 10m)",
    )
    sweeping.add_argument(
        "--wait",
        type=seconds,
        default=120.0,
        metavar="TIME",
        help="for how long to wait for the ends of what was cancelled (default 2m)",
    )
    sweeping.add_argument("--all", action="store_true", help="list wanted jobs, too")
    sweeping.add_argument(
        "--service",
        action="append",
        choices=("ecs", "emr", "docker"),
        help="look there only (repeatable; default: where clusters or engines are named, or ECS and EMR)",
    )
    sweeping.add_argument(
        "--ecs-cluster",
        action="append",
        default=[],
        metavar="NAME",
        help="look in this ECS cluster only (repeatable; default: all)",
    )
    sweeping.add_argument(
        "--emr-cluster",
        action="append",
        default=[],
        metavar="ID",
        help="look on this EMR cluster only (repeatable; default: all that can run steps)",
    )
    sweeping.add_argument(
        "--docker-url",
        action="append",
        default=[],
        metavar="URL",
        help="look on this Docker engine; with --cancel, also remove what has ended there and was to be "
        "removed (repeatable)",
    )
    _add_common(sweeping, conn_id="aws_default")

    explaining = commands.add_parser(
        "explain",
        help="tell which jobs a task instance has, what happens next and why",
        description="Tell the claims of a task instance, the remote jobs that bear them, what its next try "
        "does and why, and what you can do.",
        epilog="exit code: 0, or 2 when something could not be found out",
    )
    explaining.set_defaults(command=explain)
    explaining.add_argument("dag", metavar="DAG")
    explaining.add_argument("run", metavar="RUN")
    explaining.add_argument("task", metavar="TASK")
    explaining.add_argument(
        "--map-index", type=int, default=-1, metavar="N", help="of a mapped task instance"
    )
    explaining.add_argument("--ecs-cluster", metavar="NAME", help="look in this ECS cluster")
    explaining.add_argument("--emr-cluster", metavar="ID", help="look on this EMR cluster")
    explaining.add_argument(
        "--docker-url", metavar="URL", help="look on this Docker engine (default DOCKER_HOST, or the socket)"
    )
    explaining.add_argument(
        "--on-clear",
        choices=("restart", "reattach"),
        default="restart",
        help="the operator's parameter, which Airflow's API does not show (default restart)",
    )
    explaining.add_argument(
        "--on-timeout", choices=("cancel", "leave"), default="cancel", help="the same (default cancel)"
    )
    explaining.add_argument(
        "--infrastructure-retries", type=int, default=2, metavar="N", help="the same (default 2)"
    )
    _add_common(explaining, conn_id=_NOT_GIVEN)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, conn_id: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")
    airflow = parser.add_argument_group("Airflow", f"or the environment variables {_ENVIRONMENT}")
    airflow.add_argument(
        "--airflow-url", metavar="URL", help="default: the base URL in Airflow's configuration here"
    )
    airflow.add_argument("--token", metavar="TOKEN", help="for Airflow's REST API")
    airflow.add_argument("--user", metavar="NAME", help="without a token")
    airflow.add_argument(
        "--password", metavar="TEXT", help="others on this machine can read it here: prefer the environment"
    )
    airflow.add_argument(
        "--namespace",
        metavar="TEXT",
        help="of this Airflow's claims (default: [airflow_resilient] namespace here, else the base URL)",
    )
    parser.add_argument(
        "--docker-tls",
        metavar="FOLDER",
        help="with ca.pem, cert.pem and key.pem for Docker engines with TLS (default DOCKER_CERT_PATH, if "
        "DOCKER_TLS_VERIFY is set)",
    )
    aws = parser.add_argument_group("AWS")
    default = "that of the task" if conn_id is _NOT_GIVEN else conn_id
    aws.add_argument(
        "--aws-conn-id",
        default=conn_id,
        metavar="ID",
        help=f"Airflow connection, or none for boto3's own credentials (default {default})",
    )
    aws.add_argument("--region", default=_NOT_GIVEN, metavar="NAME", help="default: that of the connection")


def _access(options: argparse.Namespace) -> dict[str, Any]:
    """Keywords of `AwsAccess`, those that were given."""
    given = {"aws_conn_id": options.aws_conn_id, "region_name": options.region}
    access = {name: value for name, value in given.items() if value is not _NOT_GIVEN}
    if str(access.get("aws_conn_id", "-")).lower() in ("none", ""):
        access["aws_conn_id"] = None
    return access


def _tls(options: argparse.Namespace) -> dict[str, str] | None:
    """Paths of certificates, as docker's own command line finds them."""
    folder = options.docker_tls
    if folder is None and os.environ.get("DOCKER_TLS_VERIFY"):
        folder = os.environ.get("DOCKER_CERT_PATH")
    if not folder:
        return None
    names = {"ca_cert": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}
    return {name: os.path.join(folder, file) for name, file in names.items()}  # noqa: PTH118 - the user's text


def _api(options: argparse.Namespace) -> AirflowApi:
    from .airflow_api import AirflowApi
    from .compat import base_url
    from .sweep import NoAnswer

    url = options.airflow_url or os.environ.get("AIRFLOW_API_URL") or base_url()
    if not url:
        raise NoAnswer(
            "where Airflow is is not known: give --airflow-url, such as https://airflow.example.com"
        )
    return AirflowApi(
        url,
        token=options.token or os.environ.get("AIRFLOW_API_TOKEN"),
        user=options.user or os.environ.get("AIRFLOW_API_USER"),
        password=options.password or os.environ.get("AIRFLOW_API_PASSWORD"),
    )


def _namespace(options: argparse.Namespace) -> str:
    """Whose claims are ours; an Airflow elsewhere goes by the URL that is asked, as it does itself."""
    from .operators import namespace

    configured = namespace()
    elsewhere = not configured or "://localhost" in configured
    url = options.airflow_url or os.environ.get("AIRFLOW_API_URL")
    return options.namespace or (url.rstrip("/") if elsewhere and url else configured)


def _version() -> str:
    from importlib.metadata import version

    return f"airflow-resilient {version('airflow-resilient')}"
