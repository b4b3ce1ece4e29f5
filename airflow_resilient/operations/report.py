"""Times, durations and tables as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from ..core.text import printable


def span(seconds: float) -> str:
    """A duration in the two largest units.

    >>> span(7), span(90), span(3 * 3600 + 61), span(100 * 3600)
    ('7 s', '1 min 30 s', '3 h 1 min', '4 d 4 h')
    """
    left = max(0, int(seconds))
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    return " ".join(f"{count} {unit}" for count, unit in parts[:2] if count) or "0 s"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows below a header, in aligned columns, each on one line; empty without rows.

    >>> table(("a", "bc"), [("long", "x"), ("", "yz")])
    ['A     BC', 'long  x', '      yz']
    """
    cells = [[column.upper() for column in header], *([printable(text) for text in row] for row in rows)]
    if len(cells) == 1:
        return []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def printable_lines(text: str) -> str:
    r"""Text of several lines for a terminal; see `printable`.

    >>> print(printable_lines("one\ntwo \x07"))
    one
    two \x07
    """
    return "\n".join(map(printable, text.split("\n")))


def moment(seconds: float) -> str:
    """A time in UTC.

    >>> moment(1767225600.0)
    '2026-01-01 00:00:00Z'
    """
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M:%S}Z"


def some(names: Iterable[str], shown: int = 3) -> str:
    """The first names of a list, and how many more there are.

    >>> some("abc"), some("abcde")
    ('a, b, c', 'a, b, c and 2 more')
    """
    listed = list(names)
    more = len(listed) - shown
    return ", ".join(listed[:shown]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """A number and what it counts.

    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
