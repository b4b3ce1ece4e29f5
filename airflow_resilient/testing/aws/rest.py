"""Which operation an HTTP request to a REST service of AWS is: its path says so, and nothing else in it.

AWS Batch, EMR Serverless, EMR on EKS and EKS speak ``rest-json``. The paths come from botocore's own service
models, so a service needs no table here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

_PLACEHOLDER = re.compile(r"\{(\w+)(\+?)\}")


class RestCall(NamedTuple):
    """The operation, and the request's parameters by their names on the wire: path, query and JSON body."""

    action: str
    params: dict[str, Any]


@dataclass(frozen=True)
class _Route:
    method: str
    path: re.Pattern[str]
    placeholders: int
    action: str


def read_rest_request(signed_for: str, method: str, path: str, query: str, body: bytes) -> RestCall | None:
    """Return the operation of a request.

    :param signed_for: the service that the request is signed for, such as ``batch``.
    :param path: as it was sent, escaped.
    :return: ``None`` when the service is no ``rest-json`` service, or has no such path.
    """
    for route in _routes(signed_for):
        found = route.path.fullmatch(path) if route.method == method else None
        if found:
            params: dict[str, Any] = {name: unquote(value) for name, value in found.groupdict().items()}
            params.update(parse_qsl(query))
            params.update(_object(body))
            return RestCall(route.action, params)
    return None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@cache
def _routes(signed_for: str) -> tuple[_Route, ...]:
    """The operations of a service; those with fewer placeholders first, because they say more."""
    from botocore.session import get_session

    session = get_session()
    if signed_for not in session.get_available_services():
        return ()
    model = session.get_service_model(signed_for)
    if model.protocol != "rest-json":
        return ()
    routes = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path = str(http["requestUri"]).partition("?")[0]
        pattern, end = "", 0
        for each in _PLACEHOLDER.finditer(path):
            pattern += re.escape(path[end : each.start()])
            pattern += f"(?P<{each[1]}>{'.+' if each[2] else '[^/]+'})"
            end = each.end()
        pattern += re.escape(path[end:])
        routes.append(
            _Route(str(http["method"]), re.compile(pattern), len(_PLACEHOLDER.findall(path)), str(name))
        )
    return tuple(sorted(routes, key=lambda route: (route.placeholders, route.action)))
