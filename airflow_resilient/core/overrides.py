"""What a user's subclass overrides, and what of that nothing here calls.

A method of the provider's class that is never called fails silently: a warning or an error says so early.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def overriding_class(kind: type, base: type, method: str) -> str:
    """The name of the class outside of this package that overrides a method of `base`; empty: none does.

    :param kind: a subclass of `base`.
    """
    package = base.__module__.partition(".")[0]
    for each in kind.__mro__[: kind.__mro__.index(base)]:
        if method in vars(each) and each.__module__.partition(".")[0] != package:
            return each.__qualname__
    return ""


@dataclass(frozen=True)
class NotCalled:
    """A method or an attribute of the provider's class that only the provider's class uses.

    :param instead: what to write, with a subject left out: "override conclude()".
    :param refused: without it, another job would run, or another end would count as success: a subclass that
        overrides it is an error.
    :param even_if_used: it is mentioned although the user's own code uses it.
    """

    instead: str
    refused: bool = False
    even_if_used: bool = False


def check_overrides(kind: type, table: Mapping[str, NotCalled], stacklevel: int = 3) -> None:
    """Warn about what `kind` overrides that nothing calls; see `NotCalled`.

    What the code of the user's own classes calls is called, and is not mentioned.

    :param kind: a new subclass. Classes of this package are not checked.
    :param table: by name of the method.
    :raises TypeError: one of them is refused.
    """
    theirs = list(_classes_of_the_user(kind))
    called = {name for each in theirs for name in _names_used(each)}
    for name, entry in table.items():
        owner = next((each for each in theirs if name in vars(each)), None)
        if owner is None or (name in called and not entry.even_if_used):
            continue
        text = (
            f"{owner.__qualname__} overrides {name}, which the provider's class uses and this one does not. "
            f"{entry.instead[0].upper()}{entry.instead[1:]}."
        )
        if entry.refused:
            raise TypeError(f"{text} The page 'Move a subclass' of the documentation shows how")
        warnings.warn(text, UserWarning, stacklevel=stacklevel)
    for name in sorted(called & {each for each in table if not hasattr(kind, each)}):
        text = f"{kind.__qualname__} uses {name}, which the provider's class has and this one does not. "
        advice = table[name].instead
        warnings.warn(f"{text}{advice[0].upper()}{advice[1:]}.", UserWarning, stacklevel=stacklevel)


def _classes_of_the_user(kind: type) -> Iterator[type]:
    """`kind` and those of its bases that are new with it; others were checked when they were made."""
    package = __name__.partition(".")[0]
    checked = {each for base in kind.__bases__ if hasattr(base, "not_called") for each in base.__mro__}
    for each in kind.__mro__:
        if each not in checked and each.__module__.partition(".")[0] != package:
            yield each


def _names_used(kind: type) -> Iterator[str]:
    """The names that methods of a class use, except a method its own name, as in ``super().name()``."""
    for name, value in vars(kind).items():
        found: Any = value
        for wrapped in ("__func__", "fget", "func", "__wrapped__"):
            found = getattr(found, wrapped, found)
        if isinstance(found, FunctionType):
            yield from (used for used in found.__code__.co_names if used != name)
