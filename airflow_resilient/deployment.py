"""This Airflow deployment: its namespace, and the names under which it stores services."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import compat, registry
from .compat import conf
from .core.job import same_namespace
from .core.service import RemoteService
from .errors import InvalidParameter

if TYPE_CHECKING:
    from .core.job import Claim

_warned: set[str] = set()


def namespace() -> str:
    """The namespace of this deployment's jobs: ``[airflow_resilient] namespace``, else the base URL."""
    return str(conf.get("airflow_resilient", "namespace", fallback="") or compat.base_url())


def submitted_here(claim: Claim) -> bool:
    """Whether a claim was made by this deployment."""
    return same_namespace(claim, namespace())


def warn_default_namespace(task: Any) -> None:
    """Warn, once per process, when nothing distinguishes this deployment from others."""
    if "namespace" in _warned:
        return
    _warned.add("namespace")
    if not namespace() or "://localhost" in namespace():
        task.log.warning(
            "Neither [airflow_resilient] namespace nor a public base URL is set. A second Airflow that "
            "runs the same DAGs in this account would share its remote jobs with this one: set a different "
            "[airflow_resilient] namespace in each."
        )


def service_name(task: Any, service: RemoteService) -> str:
    """The name under which triggers and tries store a service.

    :return: the name of a service of the registry, else ``module:Class``.
    :raises InvalidParameter: the triggerer cannot import the class, the object is not a `RemoteService`, or
        its address is not JSON.
    """
    kind = type(service)
    if not isinstance(service, RemoteService):
        raise InvalidParameter(
            f"task {task.task_id!r}: remote_jobs() returns a {kind.__qualname__}, which is not a "
            "RemoteService; let the class inherit from airflow_resilient.RemoteService"
        )
    if kind.__module__.startswith("unusual_prefix_") or kind.__module__ == "__main__":
        path = getattr(sys.modules.get(kind.__module__), "__file__", "a DAG file")
        raise InvalidParameter(
            f"task {task.task_id!r}: {kind.__qualname__} is defined in {path}, which the triggerer "
            "cannot import; move the class to a module on the Python path (or in the plugins folder)"
        )
    if "." in kind.__qualname__:
        raise InvalidParameter(
            f"task {task.task_id!r}: {kind.__qualname__} is nested in a function or a class, so that "
            "the triggerer cannot import it; move the class to the top level of its module"
        )
    try:
        json.dumps(service.address())
    except TypeError as error:
        raise InvalidParameter(
            f"task {task.task_id!r}: {kind.__qualname__}.address() must return JSON values: {error}"
        ) from None
    path = f"{kind.__module__}:{kind.__qualname__}"
    if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is not kind:
        raise InvalidParameter(
            f"task {task.task_id!r}: {path} is not the class of the service, so that the triggerer cannot "
            "import it; define the class at the top level of its module, under its own name"
        )
    known = registry.service(service.name) if service.name in registry.SERVICES else None
    return known.name if known is not None and known.path_of(known.client) == path else path


def service_class(name: str) -> type[RemoteService]:
    """The class for a name that `service_name` has returned.

    :raises LookupError: the name is neither in the registry nor ``module:Class``, or it does not name a
        subclass of `RemoteService`.
    """
    if ":" not in name:
        return registry.client_class(registry.service(name))
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute, None)
    if not isinstance(found, type) or not issubclass(found, RemoteService):
        raise LookupError(f"{name} is not a subclass of airflow_resilient.RemoteService")  # noqa: TRY004 - not a type error of the caller
    return found


def load_service(name: str, address: Mapping[str, Any]) -> RemoteService:
    """Create a service from the name and the address that a trigger or a try has stored."""
    return service_class(name)(**address)
