"""Options that the commands share: access to Airflow and to the services, and scopes to search."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import registry

if TYPE_CHECKING:
    from ..core.service import AccessOption
    from .airflow_api import AirflowApi

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_ENVIRONMENT = "AIRFLOW_API_URL, AIRFLOW_API_TOKEN, AIRFLOW_API_USER, AIRFLOW_API_PASSWORD"
_NOT_GIVEN: Any = object()


def duration(text: str) -> float:
    """A duration in seconds, from a number of seconds or a number with a unit.

    >>> duration("90"), duration("10m"), duration("1.5h")
    (90.0, 600.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write one such as 600, 10m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _scope_of(service: str, name: str) -> tuple[str, str]:
    return service, name


def scope(text: str) -> tuple[str, str]:
    """A service and one of its scopes.

    >>> scope("ecs=etl"), scope("docker=tcp://build:2375")
    (('ecs', 'etl'), ('docker', 'tcp://build:2375'))
    """
    service, equals, name = text.partition("=")
    if not equals or not name or service not in registry.services():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a scope; write SERVICE=NAME, where SERVICE is one of "
            f"{', '.join(registry.services())}"
        )
    return service, name


def add_service_options(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """Add ``--service``, ``--scope`` and the aliases of ``--scope``.

    :param several: whether each can be given more than once.
    """
    many = " (repeatable)" if several else ""
    parser.add_argument(
        "--service",
        action="append",
        choices=tuple(registry.services()),
        help=f"search this service only{many}; default: "
        + (
            "the services of the given scopes, or all whose scopes can be listed"
            if several
            else "the service that the task instance has used"
        ),
    )
    parser.add_argument(
        "--scope",
        action="append",
        default=[],
        type=scope,
        metavar="SERVICE=NAME",
        help=f"search this scope only: {_describe_scopes()}{many}",
    )
    for info in registry.services().values():
        if info.scope_option:
            parser.add_argument(
                info.scope_option,
                dest="scope",
                action="append",
                type=partial(_scope_of, info.name),
                metavar="NAME",
                help=f"the same as --scope {info.name}=NAME",
            )


def _describe_scopes() -> str:
    return ", ".join(f"{info.name}={info.scope_noun.upper()}" for info in registry.services().values())


def scopes_of(options: argparse.Namespace) -> dict[str, list[str]]:
    """The given scopes, by service."""
    found: dict[str, list[str]] = {}
    for service, name in options.scope:
        found.setdefault(service, []).append(name)
    return found


def add_access_options(parser: argparse.ArgumentParser, *, aws_conn_id: str | None) -> None:
    """Add the options for the access to services.

    :param aws_conn_id: the default; ``None``: that of the task instance.
    """
    for option in _access_options():
        parser.add_argument(option.option, dest=_dest_of(option), metavar=option.metavar, help=option.help)
    aws = parser.add_argument_group("AWS")
    aws.add_argument(
        "--aws-conn-id",
        default=_NOT_GIVEN if aws_conn_id is None else aws_conn_id,
        metavar="ID",
        help="Airflow connection, or none for boto3's own credentials (default "
        f"{aws_conn_id or 'that of the task'})",
    )
    aws.add_argument("--region", default=_NOT_GIVEN, metavar="NAME", help="default: that of the connection")


def access_of(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters of access that are given as options; `access_for` selects those of one service."""
    given = {"aws_conn_id": options.aws_conn_id, "region_name": options.region}
    access = {name: value for name, value in given.items() if value is not _NOT_GIVEN}
    if str(access.get("aws_conn_id", "-")).lower() in ("none", ""):
        access["aws_conn_id"] = None
    for option in _access_options():
        value = option.read(getattr(options, _dest_of(option)))
        if value is not None:
            access[option.parameter] = value
    return access


def _access_options() -> list[AccessOption]:
    return [option for info in registry.services().values() for option in info.access_options]


def _dest_of(option: AccessOption) -> str:
    return f"access_{option.parameter}"


def access_for(parameters: Sequence[str], access: Mapping[str, Any]) -> dict[str, Any]:
    """The items of `access` that a service accepts.

    :param parameters: see `ServiceInfo.access`.
    """
    return {name: access[name] for name in parameters if name in access}


def add_airflow_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` and the options for the access to Airflow."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    airflow = parser.add_argument_group("Airflow", f"or the environment variables {_ENVIRONMENT}")
    airflow.add_argument(
        "--airflow-url",
        metavar="URL",
        help="such as https://airflow.example.com, or mwaa://NAME?region=eu-west-1 for an "
        "environment of Amazon MWAA; default: the base URL in Airflow's configuration here",
    )
    seen = "other users of this machine can see it here: prefer the environment variable"
    airflow.add_argument("--token", metavar="TOKEN", help=f"for Airflow's REST API; {seen}")
    airflow.add_argument(
        "--user",
        metavar="NAME",
        help="with a password, without --token; a token in the environment is ignored",
    )
    airflow.add_argument("--password", metavar="TEXT", help=seen)


def add_namespace_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--namespace``."""
    parser.add_argument(
        "--namespace",
        metavar="TEXT",
        help="namespace of this Airflow's claims (default: [airflow_resilient] namespace in the "
        "configuration here, else the base URL; of Amazon MWAA, the environment's configuration option "
        "airflow_resilient.namespace)",
    )


def api_of(options: argparse.Namespace, **more: Any) -> AirflowApi:
    """The client of Airflow's REST API.

    :param more: further parameters of it.
    :raises AirflowApiError: the URL is not set, or it is not valid.
    """
    from .airflow_api import AirflowApi, split_url
    from .mwaa import is_mwaa
    from .task_instances import AirflowApiError

    url = _url_of(options)
    if not url:
        from ..compat import base_url  # imports Airflow, which is not needed where the URL is given

        url = base_url()
    if not url:
        raise AirflowApiError(
            "Airflow URL not set: pass --airflow-url or set AIRFLOW_API_URL, such as "
            "https://airflow.example.com, or to mwaa:// and the name of an environment of Amazon MWAA"
        )
    # A login on the command line, in the URL or beside it, goes before everything in the environment.
    in_url = bool(options.airflow_url and (is_mwaa(url) or split_url(url)[1]))
    given = options.user or options.password or in_url

    def environment(name: str, *, unless: Any) -> str | None:
        return None if unless else os.environ.get(f"AIRFLOW_API_{name}")

    return AirflowApi(
        url,
        token=options.token or environment("TOKEN", unless=given),
        user=options.user or environment("USER", unless=in_url),
        password=options.password or environment("PASSWORD", unless=in_url and not options.user),
        **_aws_of(options),
        **more,
    )


def _url_of(options: argparse.Namespace) -> str | None:
    return options.airflow_url or os.environ.get("AIRFLOW_API_URL")


def _aws_of(options: argparse.Namespace) -> dict[str, Any]:
    """``--region`` and ``--aws-conn-id``, where a command has them and they are given."""
    access = access_of(options) if hasattr(options, "aws_conn_id") else {}
    return {name: access[name] for name in ("region_name", "aws_conn_id") if name in access}


def namespace_of(options: argparse.Namespace) -> str:
    """The namespace of the claims; for an Airflow elsewhere its URL, which is its own default.

    An environment of Amazon MWAA has no base URL, so its default identifies nothing: its namespace is what
    its configuration options say.

    :raises AirflowApiError: it has none there, or they cannot be read.
    """
    from ..deployment import namespace
    from .airflow_api import split_url
    from .mwaa import MwaaTransport, is_mwaa, read_url

    url = _url_of(options)
    if options.namespace:
        return str(options.namespace)
    if url and is_mwaa(url):
        aws = _aws_of(options)
        at = read_url(url).filled(region=aws.get("region_name"), aws_conn_id=aws.get("aws_conn_id"))
        with contextlib.closing(MwaaTransport(at)) as environment:
            return environment.namespace()
    configured = namespace()
    elsewhere = not configured or "://localhost" in configured
    return split_url(url)[0] if elsewhere and url else configured
