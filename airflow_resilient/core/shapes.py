"""The shape of a structured parameter, as a value that can be checked before any call of a service.

A service's SDK refuses a wrong shape, too, but only when the request is sent, and it quotes the value.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias


class Misfit(NamedTuple):
    """The first place at which a value does not have its shape.

    :param place: as it is written in Python: ``overrides['containerOverrides'][0]['environment']``.
    :param value: what stands there; it may be a secret.
    :param wanted: what to write instead.
    """

    place: str
    value: Any
    wanted: str


@dataclass(frozen=True)
class Plain:
    """One value of some types.

    :param types: accepted types; ``bool`` is not accepted as an ``int``.
    :param wanted: what to write, for people.
    """

    types: tuple[type, ...]
    wanted: str

    def fits(self, value: Any) -> bool:
        """Whether the type is one of the accepted ones."""
        if isinstance(value, bool):
            return bool in self.types
        return isinstance(value, self.types) and not (isinstance(value, float) and not math.isfinite(value))


@dataclass(frozen=True)
class ListOf:
    """A list or tuple."""

    each: Shape
    wanted: str


@dataclass(frozen=True)
class MapOf:
    """A dict with any texts as keys."""

    each: Shape
    wanted: str


@dataclass(frozen=True)
class Fields:
    """A dict with known keys. What stands under other keys is not checked: the SDK may be newer than this.

    :param required: keys that must be there.
    """

    known: Mapping[str, Shape]
    wanted: str
    required: tuple[str, ...] = ()


@dataclass(frozen=True)
class OneOf:
    """A value of any of several shapes; the first whose outermost type fits is the one to have."""

    shapes: tuple[Shape, ...]
    wanted: str = field(default="")


Shape: TypeAlias = Plain | ListOf | MapOf | Fields | OneOf

TEXT = Plain((str,), "a text")
WHOLE = Plain((int,), "a whole number")
NUMBER = Plain((int, float), "a number")
TRUTH = Plain((bool,), "True or False")
ANYTHING = Plain((object, bool), "a value")
NOTHING = Plain((type(None),), "None")


def text(example: str) -> Plain:
    """A text such as `example`."""
    return Plain((str,), f"a text, such as {example!r}")


def optional(shape: Shape) -> OneOf:
    """`shape` or ``None``."""
    return OneOf((NOTHING, shape), wanted_of(shape))


def structure_of(shape: Shape) -> type[dict[Any, Any] | list[Any]] | None:
    """``dict`` or ``list``, if every value of `shape` but ``None`` is one; otherwise ``None``.

    >>> structure_of(optional(ListOf(TEXT, "a list"))), structure_of(OneOf((TEXT, ListOf(TEXT, "a list"))))
    (<class 'list'>, None)
    """
    if isinstance(shape, OneOf):
        kinds = {structure_of(each) for each in shape.shapes if each is not NOTHING}
        return kinds.pop() if len(kinds) == 1 else None
    if isinstance(shape, ListOf):
        return list
    return dict if isinstance(shape, MapOf | Fields) else None


def wanted_of(shape: Shape) -> str:
    """What to write, as part of a sentence."""
    if isinstance(shape, OneOf) and not shape.wanted:
        return " or ".join(wanted_of(each) for each in shape.shapes)
    return shape.wanted


def misfit(
    shape: Shape, value: Any, place: str, is_unknown: Callable[[Any], bool] = lambda _: False
) -> Misfit | None:
    """The first place at which `value` does not have `shape`; ``None`` if it has it.

    :param is_unknown: whether a value is known later only (a template); it fits.

    >>> found = misfit(ListOf(MapOf(TEXT, "a dict"), "a list of dicts"), [{"a": 5}], "steps")
    >>> found.place, found.wanted
    ("steps[0]['a']", 'a text')
    """
    if is_unknown(value):
        return None
    if isinstance(shape, OneOf):
        outer = [each for each in shape.shapes if _outermost_fits(each, value)]
        if not outer:
            return Misfit(place, value, wanted_of(shape))
        return misfit(outer[0], value, place, is_unknown)
    if not _outermost_fits(shape, value):
        keys = isinstance(shape, MapOf | Fields) and isinstance(value, Mapping)
        return Misfit(place, value, f"texts as its keys: {shape.wanted}" if keys else shape.wanted)
    if isinstance(shape, Fields):
        for name in shape.required:
            if name not in value:
                return Misfit(f"{place}[{name!r}]", None, wanted_of(shape.known[name]))
    for key, each, part in _parts(shape, value):
        found = misfit(part, each, f"{place}[{key!r}]", is_unknown)
        if found:
            return found
    return None


def _parts(shape: Shape, value: Any) -> Iterator[tuple[Any, Any, Shape]]:
    """The key, the value and the shape of each part."""
    if isinstance(shape, ListOf):
        yield from ((place, each, shape.each) for place, each in enumerate(value))
    elif isinstance(shape, MapOf):
        yield from ((key, each, shape.each) for key, each in value.items())
    elif isinstance(shape, Fields):
        yield from ((key, each, shape.known[key]) for key, each in value.items() if key in shape.known)


def _outermost_fits(shape: Shape, value: Any) -> bool:
    """Whether the type is right, without a look at what is inside."""
    if isinstance(shape, Plain):
        return shape.fits(value)
    if isinstance(shape, ListOf):
        return isinstance(value, list | tuple)
    if isinstance(shape, OneOf):
        return any(_outermost_fits(each, value) for each in shape.shapes)
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
