"""What a try has asked a service for, so that it never asks for something else when it submits again.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

UNKNOWN: Mapping[str, Any] = {"": "unknown"}
"""Stands for the fingerprints of a first request of which there is no record any more."""

_DIGEST_BYTES = 3
"""Enough to notice a change, and too few to tell which of many values a secret has."""


def fingerprints(fields: Mapping[str, Any], key: str) -> dict[str, str]:
    """A short hash of each field of a request that has a value.

    They travel with the trigger, and never in an XCom: a reader of XComs could try out guesses of a weak
    secret, although a hash of 24 bits, which depends on the task instance, fits very many values.

    :param fields: what the user has asked for, see `RemoteService.request_fields`.
    :param key: the task key of the claims.

    >>> fingerprints({"image": "etl:7", "user": None}, "abcdefghijklmnop")
    {'image': 'ef04fe'}
    """
    return {
        name: hashlib.blake2b(
            json.dumps(_plain(value)).encode(), digest_size=_DIGEST_BYTES, key=key.encode()
        ).hexdigest()
        for name, value in fields.items()
        if value is not None
    }


def content_hash(fields: Mapping[str, Any]) -> str:
    """A hash of what an operator that is called inside of a task asks for.

    Claims have it only hashed again, with other values: 40 bits of it.

    >>> content_hash({"image": "etl:7"}) == content_hash({"image": "etl:8"})
    False
    """
    text = json.dumps(sorted((name, _plain(value)) for name, value in fields.items() if value is not None))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> Any:
    """`value` as JSON that is the same in every process; an object of another kind counts by its class."""
    if isinstance(value, Mapping):
        return {"items": sorted(([str(name), _plain(each)] for name, each in value.items()), key=json.dumps)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((_plain(each) for each in value), key=json.dumps)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if value is None or isinstance(value, str | int | float):
        return value
    return {"class": type(value).__qualname__}


def changed_fields(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of the fields in which a request differs from the one that the try has submitted before.

    :param before: `fingerprints` of that one; empty: there is none, or they are unknown.
    :param now: those of the request that is about to be submitted; empty: the service tells none.
    :return: ``None``: it may differ, because `before` is `UNKNOWN`.

    >>> changed_fields({"image": "a", "user": "b"}, {"image": "c", "user": "b", "tty": "d"})
    ('image', 'tty')
    >>> changed_fields({}, {"image": "c"}), changed_fields({"image": "a"}, {})
    ((), ())
    >>> changed_fields(UNKNOWN, {"image": "c"}) is None
    True
    """
    if not before or not now:
        return ()
    if before == UNKNOWN:
        return None
    return tuple(sorted(name for name in {*before, *now} if before.get(name) != now.get(name)))
