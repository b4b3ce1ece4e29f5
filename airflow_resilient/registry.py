"""The services and tools of this package. A new one needs a folder, or a file, and a line here.

Public names, links in Airflow's UI, the command line, the targets of the sweep, the output of ``explain``,
the routing of events, descriptions of options and the page of IAM policies are made from each `ServiceInfo`.

A service outside of this package is included in the sweep, ``explain`` and events by an entry point of the
group ``airflow_resilient.services`` that names its `ServiceInfo`::

    [options.entry_points]
    airflow_resilient.services =
        glue = our_company.glue_runs:SERVICE
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.service import RemoteService, ServiceInfo

SERVICES = (
    "ecs",
    "emr_steps",
    "docker",
)
"""Folders of ``services/``."""
OPERATIONS = (
    "check",
    "export",
    "unstick",
    "orphans",
    "explain",
)
"""Files of ``operations/`` that define a ``COMMAND``."""
ENTRY_POINTS = "airflow_resilient.services"
"""The group of entry points of services outside of this package."""


@cache
def services() -> dict[str, ServiceInfo]:
    """Every service by its name; those of other distributions come last.

    :raises LookupError: two services have the same name.
    """
    found = {name: _own(name) for name in SERVICES}
    for name, info in _installed().items():
        if name in found:
            raise LookupError(f"entry point {ENTRY_POINTS} {name!r}: a service of that name exists already")
        found[name] = info
    return found


def service(name: str) -> ServiceInfo:
    """The description of the service of that name.

    :raises LookupError: there is no such service.
    """
    if name in SERVICES:  # without entry points, which need the metadata of all distributions
        return _own(name)
    try:
        return services()[name]
    except KeyError:
        raise LookupError(f"no service {name!r}; the services are {', '.join(services())}") from None


def client_class(info: ServiceInfo) -> type[RemoteService]:
    """The client class of the service.

    :raises LookupError: the service's description names something else than a subclass of `RemoteService`.
    """
    from .core.service import RemoteService

    path = info.path_of(info.client)
    module, _, name = path.partition(":")
    found = getattr(import_module(module), name, None)
    if not isinstance(found, type) or not issubclass(found, RemoteService):
        raise LookupError(  # noqa: TRY004 - not a type error of the caller
            f"service {info.name!r}: client {path!r} is not a subclass of airflow_resilient.RemoteService at "
            "the top level of a module"
        )
    return found


def public_names() -> dict[str, str]:
    """Public names of our own services, and the full names of the modules that define them."""
    return {
        name: info.path_of(module) for info in map(_own, SERVICES) for name, module in info.public.items()
    }


def operation(name: str) -> Any:
    """The command of that tool."""
    return import_module(f".operations.{name}", __package__).COMMAND


@cache
def _own(name: str) -> ServiceInfo:
    folder = f"{__package__}.services.{name}"
    info: ServiceInfo = import_module(f"{folder}.service").SERVICE
    return replace(info, package=folder)


def _installed() -> dict[str, ServiceInfo]:
    from importlib.metadata import entry_points

    return {entry.name: entry.load() for entry in entry_points(group=ENTRY_POINTS)}
