"""The request for a container: the shapes of its parameters, and which of its values may be secrets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...core.shapes import (
    ANYTHING,
    NOTHING,
    NUMBER,
    TEXT,
    TRUTH,
    WHOLE,
    Fields,
    ListOf,
    MapOf,
    OneOf,
    Plain,
    Shape,
    optional,
    text,
)
from ...core.text import values_of

_SCALAR = Plain((str, int, float, bool, bytes, type(None)), "a text, such as json.dumps(...) of the value")
_ENVIRONMENT = MapOf(_SCALAR, "a dict of texts: {'NAME': 'value'}")
_WORDS = OneOf((TEXT, ListOf(TEXT, "a list of texts")), "a text, or a list of texts: ['python', 'run.py']")
_NAMES = ListOf(TEXT, "a list of texts")
_SOME = OneOf((_NAMES, Plain((set, frozenset), "a set of texts")), "a list of texts: ['SYS_PTRACE']")
_LABELS = OneOf(
    (MapOf(TEXT, "a dict of texts: {'team': 'data'}"), _NAMES),
    "a dict of texts: {'team': 'data'}, or a list of names",
)
_HOSTS = OneOf(
    (MapOf(TEXT, "a dict of texts: {'db': '10.0.0.5'}"), _NAMES), "a dict of texts: {'db': '10.0.0.5'}"
)
_DRIVER = OneOf((NOTHING, MapOf(ANYTHING, "docker.types.DriverConfig")), "docker.types.DriverConfig")
_MOUNT = Fields(
    {
        **dict.fromkeys(("target", "Target", "type", "Type"), TEXT),
        **dict.fromkeys(
            ("source", "Source", "consistency", "Consistency", "propagation", "subpath"), optional(TEXT)
        ),
        **dict.fromkeys(("read_only", "ReadOnly", "no_copy"), optional(TRUTH)),
        "labels": OneOf((NOTHING, _LABELS), _LABELS.wanted),
        "driver_config": _DRIVER,
        "tmpfs_size": OneOf((NOTHING, WHOLE, TEXT), "a number of bytes"),
        "tmpfs_mode": optional(WHOLE),
    },
    "docker.types.Mount, or its keywords as a dict: {'target': '/data', 'source': 'data', 'type': 'volume'}",
)

SHAPES: Mapping[str, Shape] = {
    "image": text("etl:7"),
    "api_version": optional(text("auto")),
    "command": OneOf((NOTHING, *_WORDS.shapes), _WORDS.wanted),
    "container_name": optional(TEXT),
    "cpus": NUMBER,
    "docker_url": OneOf((TEXT, _NAMES), "a URL, or a list of URLs: 'tcp://build:2375'"),
    "environment": _ENVIRONMENT,
    "_private_environment": _ENVIRONMENT,
    "env_file": optional(text("NAME=value")),
    "mem_limit": OneOf((NOTHING, NUMBER, TEXT), "bytes, or a text such as '1g'"),
    "host_tmp_dir": optional(TEXT),
    "network_mode": optional(text("bridge")),
    "tls_ca_cert": optional(TEXT),
    "tls_client_cert": optional(TEXT),
    "tls_client_key": optional(TEXT),
    "tls_hostname": OneOf((NOTHING, TRUTH, TEXT), "a host name, or False"),
    "tls_ssl_version": OneOf((NOTHING, TEXT, WHOLE), "a version of TLS"),
    "tmp_dir": text("/tmp/airflow"),  # noqa: S108 - in the container
    "user": OneOf((NOTHING, TEXT, WHOLE), "a name or a number: '1000:1000'"),
    "mounts": ListOf(_MOUNT, f"a list, each {_MOUNT.wanted}"),
    "entrypoint": OneOf((NOTHING, *_WORDS.shapes), _WORDS.wanted),
    "working_dir": optional(TEXT),
    "docker_conn_id": optional(TEXT),
    "dns": optional(_NAMES),
    "dns_search": optional(_NAMES),
    "shm_size": OneOf((NOTHING, WHOLE, TEXT), "bytes, or a text such as '1g'"),
    "tty": TRUTH,
    "hostname": optional(TEXT),
    "privileged": TRUTH,
    "cap_add": OneOf((NOTHING, *_SOME.shapes), _SOME.wanted),
    "extra_hosts": OneOf((NOTHING, *_HOSTS.shapes), _HOSTS.wanted),
    "retrieve_output_path": optional(text("/tmp/result")),  # noqa: S108 - in the container
    "timeout": NUMBER,
    "device_requests": optional(
        ListOf(MapOf(ANYTHING, "docker.types.DeviceRequest"), "a list of docker.types.DeviceRequest")
    ),
    "log_opts_max_size": optional(text("10m")),
    "log_opts_max_file": optional(text("3")),
    "ipc_mode": optional(TEXT),
    "port_bindings": Plain((dict,), "a dict: {8080: 80}"),
    "ulimits": ListOf(MapOf(ANYTHING, "docker.types.Ulimit"), "a list of docker.types.Ulimit"),
    "labels": OneOf((NOTHING, *_LABELS.shapes), _LABELS.wanted),
}
"""Parameters of the operator, by attribute."""

_SHOWN_FIELDS = frozenset(
    {
        *("target", "source", "type", "read_only", "consistency", "propagation", "no_copy", "tmpfs_size"),
        *("Target", "Source", "Type", "ReadOnly", "Consistency", "BindOptions", "TmpfsOptions", "Name"),
    }
)
"""Fields of a mount that are no secrets; the options of a volume's driver may hold a password."""


def secrets_of(
    *,
    environment: Any = None,
    command: Any = None,
    entrypoint: Any = None,
    labels: Any = None,
    mounts: Any = None,
) -> Iterator[str]:
    """The values of a request that may be secrets: all but names of the engine's things.

    :param environment: a dict of variables, or several.

    >>> list(secrets_of(environment={"PASSWORD": "hunter2"}, command="load -k k3y", labels={"team": "data"}))
    ['hunter2', 'load -k k3y', 'load', '-k', 'k3y', 'data']
    """
    yield from values_of(environment)
    for words in (command, entrypoint):
        yield from values_of(words)
        if isinstance(words, str):
            yield from _words(words)
    yield from values_of(labels if isinstance(labels, Mapping) else None)
    for option in values_of(mounts, _SHOWN_FIELDS):
        yield option  # such as "username=etl,password=…"
        yield from (part.partition("=")[2] for part in option.split(",") if "=" in part)


def _words(command: str) -> Iterable[str]:
    """The words that the SDK, too, makes of a command; none if it cannot."""
    try:
        return shlex.split(command)
    except ValueError:
        return ()


def has_login(url: Any) -> bool:
    """Whether a URL has a password, which the SDK drops and which would stand in messages.

    >>> has_login("tcp://me:hunter2@build:2375"), has_login("ssh://me@build"), has_login("unix://var/run/docker.sock")
    (True, False, False)
    """
    return isinstance(url, str) and bool(re.search(r"://[^/?#]*:[^/?#]*@", url))


def unfit_option(request: Mapping[str, Any]) -> tuple[str, str] | None:
    """The option of a request that the SDK does not take, and the class of its error; without any call.

    :param request: ``{"config": {...}, "host": {...}}``; see `DockerContainers`.
    """
    from docker.types import ContainerConfig, HostConfig

    for kind, options, further in (
        (ContainerConfig, request["config"], {"image": "image", "command": None}),
        (HostConfig, request["host"], {}),
    ):
        for name, value in options.items():
            try:
                kind(_NEW_API, **{**further, name: value})
            except Exception as error:  # noqa: BLE001 - whatever the SDK raises, it takes no such value
                return name, type(error).__name__
    return None


_NEW_API = "1.44"  # options that an older engine lacks are left to that engine
