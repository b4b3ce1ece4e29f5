"""How services say what became of a job: short, and without secrets."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable

LONGEST_REASON = 500
"""Characters of a job's reason; it goes into logs, XComs and a trigger's arguments."""
_SIGNALS_FROM = 128


def short(text: str, most: int) -> str:
    r"""`text` on one line, in at most `most` characters.

    >>> short("one  two\nthree", 9)
    'one two …'
    """
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def signal_of(code: int) -> str:
    """Name of the signal that an exit code stands for: 128 and its number; empty when it stands for none.

    >>> signal_of(137), signal_of(1), signal_of(255)
    ('SIGKILL', '', '')
    """
    if code > _SIGNALS_FROM:
        with contextlib.suppress(ValueError):
            return signal.Signals(code - _SIGNALS_FROM).name
    return ""


def exit_code_in_words(code: int | None) -> str:
    """An exit code as part of a sentence.

    >>> exit_code_in_words(1), exit_code_in_words(143), exit_code_in_words(None)
    ('exit code 1', 'exit code 143 (SIGTERM)', 'no exit code')
    """
    if code is None:
        return "no exit code"
    name = signal_of(code)
    return f"exit code {code} ({name})" if name else f"exit code {code}"


def without(text: str, secrets: Iterable[object]) -> str:
    """`text` in which values that may be secrets are hidden, in case that a service quotes the request.

    >>> without("bad value hunter2 for PASSWORD", ["hunter2", None, ""])
    'bad value (hidden) for PASSWORD'
    """
    for value in sorted(
        {str(secret) for secret in secrets if secret not in (None, "")}, key=len, reverse=True
    ):
        text = text.replace(value, "(hidden)")
    return text
