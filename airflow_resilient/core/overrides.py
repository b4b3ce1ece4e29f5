"""What a user's subclass overrides, and what of that nothing here calls.

A method of the provider's class that is never called fails silently: a warning or an error says so early.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import dis
import inspect
import warnings
from abc import ABC
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
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


MAY_BE_OVERRIDDEN = frozenset({"_policy"})
"""Private methods of ours that a subclass may override."""


def check_overrides(kind: type, table: Mapping[str, NotCalled]) -> None:
    """Check what `kind`, a new subclass, overrides.

    What nothing calls is mentioned in a warning, or refused; see `NotCalled`. What the code of the user's own
    classes calls is called, and is not mentioned. A name with an underscore that this package uses itself is
    refused: the package would call the user's method in its place.

    :param table: by name of the method.
    :raises TypeError: one of them is refused. Classes of this package are not checked.
    """
    users = [each for each in kind.__mro__ if _is_users(each)]
    new = [each for each in users if not _was_checked(each, kind)]
    if not new:
        return
    called = _called({**table}, users)
    for name, entry in table.items():
        owner = next((each for each in new if _defines(each, name)), None)
        if owner is None or (name in called and not entry.even_if_used):
            continue
        text = (
            f"{owner.__qualname__} overrides {name}, which the provider's class uses and this one does not. "
            f"{_sentence(entry.instead)}"
        )
        if entry.refused:
            raise TypeError(f"{text} The page 'Move a subclass' of the documentation shows how")
        _warn(text)
    for name in sorted(called & {each for each in table if not hasattr(kind, each)}):
        text = f"{kind.__qualname__} uses {name}, which the provider's class has and this one does not. "
        _warn(f"{text}{_sentence(table[name].instead)}")
    ours = {name for each in kind.__mro__ if not _is_users(each) and _is_ours(each) for name in vars(each)}
    for each in new:
        for name in sorted(ours & {*vars(each)} - {*table} - MAY_BE_OVERRIDDEN):
            if name.startswith("_") and not name.startswith(("__", "_abc_", "_BaseOperator__")):
                raise TypeError(
                    f"{each.__qualname__} defines {name}, a private name of this package, which would use it "
                    "as its own. Give it another name"
                )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _warn(text: str) -> None:
    """Warn, and point to the line of the class, which is above the frames of metaclasses."""
    frame: Any = inspect.currentframe()
    while frame.f_back is not None and _root(str(frame.f_globals.get("__name__"))) in _NOT_THE_USERS:
        frame = frame.f_back
    where = (frame.f_code.co_filename, frame.f_lineno)
    warnings.warn_explicit(text, UserWarning, *where)


def _root(module: str) -> str:
    return module.partition(".")[0]


_PACKAGE = _root(__name__)
_NOT_THE_USERS = frozenset({_PACKAGE, "airflow", "abc", "functools"})


def _is_ours(kind: type) -> bool:
    return _root(kind.__module__) == _PACKAGE


def _is_users(kind: type) -> bool:
    """Whether a user has made it. A class that is made at run time has the module of its metaclass."""
    return kind is not ABC and _root(kind.__module__) not in (_PACKAGE, "airflow", "builtins", "typing")


def _was_checked(kind: type, new: type) -> bool:
    """Whether `kind` was checked when a class was made of which `new` is a subclass."""
    return any(hasattr(base, "not_called") and kind in base.__mro__ for base in new.__bases__)


def _defines(kind: type, name: str) -> bool:
    return name in vars(kind) and not getattr(vars(kind)[name], "__isabstractmethod__", False)


def _called(table: Mapping[str, NotCalled], users: Sequence[type]) -> frozenset[str]:
    """The names that the code of the user's classes uses.

    A method in `table` is not called by others than that code, so it counts only if that code uses it.
    """
    used = [(name, frozenset(_names_used(value))) for each in users for name, value in vars(each).items()]
    called = {name for method, names in used if method not in table for name in names}
    while more := {name for method, names in used if method in called for name in names} - called:
        called |= more
    return frozenset(called)


def _names_used(method: Any) -> Iterator[str]:
    """The attributes that a method uses, or names in a text; not its own name, as in ``super().name()``."""
    seen: set[int] = set()
    while id(method) not in seen:
        seen.add(id(method))
        own = getattr(method, "__name__", "")
        if isinstance(method, FunctionType):
            yield from (name for name in _attributes(method.__code__) if name != own)
        for wrapped in ("__func__", "fget", "func", "__wrapped__"):
            method = getattr(method, wrapped, method)


def _attributes(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in _LOADS:
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _attributes(constant)
        elif isinstance(constant, str) and constant.isidentifier():  # getattr(self, "name")
            yield constant


_LOADS = frozenset({"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_SUPER_METHOD"})
