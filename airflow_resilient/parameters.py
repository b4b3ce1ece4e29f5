"""Checks of operators' parameters: rejected values, ignored parameters, templates."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Container, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from . import settings
from .core.shapes import misfit, structure_of, wanted_of
from .errors import InvalidParameter

if TYPE_CHECKING:
    from .core.polling import PollPolicy
    from .core.shapes import Shape


def reject(task: Any, parameter: str, value: Any, wanted: str) -> NoReturn:
    """Raise `InvalidParameter` with the task, the parameter, its value, and a valid value.

    Only a plain value is shown: what stands in a dict or a list in the wrong place may be a secret.
    """
    if not isinstance(value, str | int | float | timedelta | None):
        reject_hidden(task, parameter, value, wanted)
    raise InvalidParameter(f"task {task.task_id!r}: {parameter}={value!r} is not valid; write {wanted}")


def reject_hidden(task: Any, parameter: str, value: Any, wanted: str) -> NoReturn:
    """`reject` for a value that may contain a secret: the message has its type only."""
    kind = type(value).__name__
    raise InvalidParameter(f"task {task.task_id!r}: {parameter} is not valid ({kind}); write {wanted}")


class NotGiven(str):
    """The default of a parameter that must be given; an empty text that says so."""

    __slots__ = ()


NOT_GIVEN = NotGiven()


def is_open(value: Any, *, rendered: bool) -> bool:
    """Whether a value may still become a valid one: a template; when the DAG is parsed, an empty value, too.

    A DAG file that is parsed where a variable is missing (``os.environ.get("CLUSTER")`` in a test) must not
    break as a whole, and a subclass may fill in a parameter when it runs.

    :param rendered: templates have been rendered: this is the value that counts.

    >>> [is_open(value, rendered=False) for value in (None, "", [], "{{ ds }}", "etl", 0, False, NOT_GIVEN)]
    [True, True, True, True, False, False, False, False]
    >>> is_open(None, rendered=True)
    False
    """
    if is_templated(value):
        return True
    empty = value is None or (isinstance(value, str | list | tuple | Mapping) and not value)
    return empty and not rendered and not isinstance(value, NotGiven)


def require_shapes(task: Any, shapes: Mapping[str, Shape], *, rendered: bool = True) -> None:
    """Check the shapes of parameters; what is open (see `is_open`), inside of a value, too, is accepted.

    :param shapes: by name of the attribute, which may begin with ``_``.
    """
    still_open = partial(is_open, rendered=rendered)
    for name, shape in shapes.items():
        found = misfit(shape, getattr(task, name), name.lstrip("_"), still_open)
        if found:
            reject_hidden(task, found.place, found.value, found.wanted)


def require_choice(task: Any, parameter: str, value: Any, choices: Sequence[str]) -> None:
    """Check that `value` is one of `choices`."""
    if value not in choices:
        reject(task, parameter, value, " or ".join(map(repr, choices)))


def require_codes(task: Any, parameter: str, codes: Any) -> None:
    """Check that `codes` is an exit code, a collection of exit codes, or ``None``."""
    several = codes if isinstance(codes, list | tuple | set | frozenset) else ()
    one_or_several = isinstance(codes, int | Container | None) and not isinstance(
        codes, str | bytes | Mapping
    )
    if not one_or_several or not all(isinstance(code, int) for code in several):
        reject(task, parameter, codes, "an exit code or a collection of them: 99 or [98, 99]")


def listed_codes(codes: Any) -> Any:
    """One exit code, or none, as a list; as the provider's operators keep them. Anything else is left.

    >>> listed_codes(None), listed_codes(99), listed_codes((98, 99))
    ([], [99], (98, 99))
    """
    if codes is None:
        return []
    return [codes] if isinstance(codes, int) else codes


def codes_of(codes: int | Container[int] | None) -> Container[int]:
    """A collection of exit codes, from one exit code, a collection, or ``None``.

    >>> codes_of(None), codes_of(99), codes_of([98, 99])
    ((), (99,), [98, 99])
    """
    if codes is None:
        return ()
    return codes if isinstance(codes, Container) else (codes,)


def warn_ignored_parameters(
    task: Any, ignored: Mapping[str, tuple[object, str]], *, stacklevel: int = 4
) -> None:
    """Warn, once per task, about parameters that are set and have no effect.

    :param ignored: by name of the parameter: its default, and what happens instead.
    """
    given = {
        name: instead
        for name, (default, instead) in ignored.items()
        if getattr(task, name) not in (default, None)
    }
    if given:
        listed = "; ".join(f"{name} ({instead})" for name, instead in given.items())
        text = f"task {task.task_id!r}: accepted and ignored: {listed}. Leave them out."
        warnings.warn(text, UserWarning, stacklevel=stacklevel)


def require_match(
    task: Any, parameter: str, value: Any, pattern: str, wanted: str, *, rendered: bool = True
) -> None:
    """Check that a text matches `pattern` as a whole; what is open (see `is_open`) is accepted.

    It finds a template with a single brace, and the ``None`` that a template without a value renders.
    """
    if not is_open(value, rendered=rendered) and not (
        isinstance(value, str) and re.fullmatch(pattern, value)
    ):
        reject(task, parameter, value, wanted)


def read_literal(value: Any) -> Any:
    """Parse the text that a template renders for a list or a dict: JSON, else a Python literal.

    Nothing is evaluated: ``ast.literal_eval`` reads literals only. A value that is no text is returned.

    :raises ValueError: the text is neither. The error does not quote it.

    >>> read_literal('[{"Name": "a", "x": true}]'), read_literal("[{'Name': 'a', 'x': True}]")
    ([{'Name': 'a', 'x': True}], [{'Name': 'a', 'x': True}])
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("the text is neither JSON nor a Python literal") from None


def read_structures(
    task: Any, shapes: Mapping[str, Shape], missing: Mapping[str, Any], *, rendered: bool = True
) -> None:
    """Turn the texts that templates have rendered for dicts and lists into those.

    What is open (see `is_open`) is left.

    :param shapes: of the parameters; those that are no dict or list, or no template field, are left.
    :param missing: what stands for a parameter that is ``None``, or for which a template has found no value.
    :raises InvalidParameter: a value is something else. The message does not show it: it may be a secret.
    """
    for name, shape in shapes.items():
        kind, value = structure_of(shape), getattr(task, name, None)
        if kind is None or name not in task.template_fields or is_open(value, rendered=rendered):
            continue
        if name in missing and (value is None or (isinstance(value, str) and value.strip() in ("", "None"))):
            setattr(task, name, missing[name])
            continue
        try:
            found = read_literal(value)
        except ValueError:
            found = None
        if not isinstance(found, Mapping if kind is dict else list | tuple):
            text = (
                f"{wanted_of(shape)}, its JSON, or set render_template_as_native_obj=True for the DAG, so "
                f"that a template renders a {kind.__name__}"
            )
            reject_hidden(task, name, value, text)
        setattr(task, name, found)


def is_templated(value: Any) -> bool:
    """Whether `value` is known at run time only: a string with a template, or the output of a task."""
    return (isinstance(value, str) and ("{{" in value or "{%" in value)) or hasattr(value, "resolve")


def is_true(value: Any) -> bool:
    """The boolean value of a parameter that a template may have rendered.

    >>> [is_true(value) for value in (True, "False", "no", None, "yes", 1)]
    [True, False, False, False, True, True]
    """
    return (
        value.strip().lower() not in ("", "0", "false", "no", "none")
        if isinstance(value, str)
        else bool(value)
    )


def poll_policy(seconds: Any) -> PollPolicy:
    """The policy for the operator's longest time between two polls; ``None``: the default."""
    return settings.current().poll_policy(seconds)
