"""Helpers for messages: short, on one line, and without secrets.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

MAX_REASON_CHARS = 500
"""Maximum length of a job's reason, which is stored in logs, XComs and a trigger's arguments."""

_SIGNALS_FROM = 128

HIDDEN = "(hidden)"
"""What stands in the place of a value that may be a secret."""

_SHORTEST_SECRET = 3
"""Characters; hiding shorter values would make messages unreadable and protect nothing."""

# What a service quotes, of any owner. Compiled at their first use: most processes only parse DAG files.
_QUOTATIONS = (
    r'"[^"]*"|`[^`]*`',
    r"(?<!\w)'[^']*'(?!\w)",  # an apostrophe as in "You've" is no mark
    r"\barn:[\w-]+:\S*",
    r"(?<!\S)[^\s/=@]*[/=@]\S*",  # URLs, paths, images, NAME=value
)

_MARKS = r"""(?<=["'`=\[({<])"""

_URL_PASSWORD = re.compile(r"(\w://[^\s/?#:@]*:)[^\s/?#]*@")


def shorten(text: str, max_chars: int) -> str:
    r"""`text` on one line, in at most `max_chars` characters.

    >>> shorten("one  two\nthree", 9)
    'one two …'
    """
    text = " ".join(text.split())
    return text if len(text) <= max_chars else f"{text[: max_chars - 1]}…"


def printable(text: str) -> str:
    r"""`text` with escapes for characters that a terminal would act on, or that hide others.

    Names of jobs, runs and tasks come from outside: one may contain a sequence that clears the screen, or a
    line break that adds a line of a table.

    >>> print(printable("a\x1b[2Jb\nc é"))
    a\x1b[2Jb\nc é
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
    )


def signal_of(code: int) -> str:
    """Name of the signal that an exit code means (128 and its number); empty when it means none.

    >>> signal_of(137), signal_of(1), signal_of(255)
    ('SIGKILL', '', '')
    """
    if code > _SIGNALS_FROM:
        with contextlib.suppress(ValueError):
            return signal.Signals(code - _SIGNALS_FROM).name
    return ""


def describe_exit_code(code: int | None) -> str:
    """An exit code as part of a sentence.

    >>> describe_exit_code(1), describe_exit_code(143), describe_exit_code(None)
    ('exit code 1', 'exit code 143 (SIGTERM)', 'no exit code')
    """
    if code is None:
        return "no exit code"
    name = signal_of(code)
    return f"exit code {code} ({name})" if name else f"exit code {code}"


def redact(text: str, secrets: Iterable[object]) -> str:
    """`text`, as it is shown, with possible secrets replaced, in case that a service quotes the request.

    Values of one or two characters are no secrets, and nothing could be read without them. Nothing may be
    decided by the result: `says` decides by the text as the service wrote it.

    >>> redact("bad value hunter2 for PASSWORD", ["hunter2", None, "", "a"])
    'bad value (hidden) for PASSWORD'
    """
    values = {str(secret) for secret in secrets if secret is not None and not isinstance(secret, bool)}
    spelled = {each for value in values for each in _spellings(value) if len(each) >= _SHORTEST_SECRET}
    for each in sorted(spelled, key=len, reverse=True):
        text = text.replace(each, HIDDEN)
    return text


def says(text: str, pattern: str, quoted: Iterable[str] = ()) -> bool:
    r"""Whether a service itself says something that `pattern` matches, in `text` as the service wrote it.

    A match within a quotation does not count: texts in quotation marks, ARNs, URLs, paths, ``NAME=value``,
    and the user's values. A match that only contains a user's value does count, because then the words
    around it are the service's.

    :param quoted: values of the user that the service may quote, such as an image. A value of one word or
        number, or of several, may be the service's own words, so it counts as quoted only after a mark; one
        such as ``etl:7`` may not.

    >>> says("write /var: no space left on device", "no space left", ["no", "left"])
    True
    >>> says("image etl:503 not found", r"\b50\d\b", ["etl:503"])
    False
    """
    quotations = _quotations(text, quoted)
    return any(
        not any(start <= match.start() and match.end() <= end for start, end in quotations)
        for match in re.finditer(pattern, text)
    )


def _quotations(text: str, quoted: Iterable[str]) -> list[tuple[int, int]]:
    """Where `text` quotes: the places of the first and behind the last character, overlapping ones joined."""
    patterns = [*_QUOTATIONS, *(_as_quotation(value) for value in set(quoted) if value in text)]
    found = [match.span() for pattern in patterns if pattern for match in re.finditer(pattern, text)]
    spans: list[tuple[int, int]] = []
    for start, end in sorted([*found, *_validated_values(text)]):
        if spans and start < spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return spans


def _validated_values(text: str) -> Iterator[tuple[int, int]]:
    """Where AWS's validation quotes, ``Value '...' at 'name'``; the value itself may contain marks."""
    start = text.find("Value '")
    while start >= 0 and (end := text.find("' at '", start)) >= 0:
        yield start, end
        start = text.find("Value '", end)


def _as_quotation(value: str) -> str:
    """The pattern of `value` where it is quoted; empty for a value that is too short to be recognised."""
    if len(value) < _SHORTEST_SECRET:
        return ""
    prose = value.isalnum() or any(character.isspace() for character in value)
    may_be_prose = prose and not re.search(r"\w[:=@]\w", value)
    return rf"{_MARKS if may_be_prose else ''}(?<!\w){re.escape(value)}(?!\w)"


def small_number(text: object, default: int) -> int:
    """The whole number in a text from outside, of one to nine ASCII digits; `default` for anything else.

    Python refuses to read more than 4300 digits, and a number that somebody else has written may have them.

    >>> small_number("12", 0), small_number("9" * 5000, 0), small_number(None, 7), small_number("-1", 7)
    (12, 0, 7, 7)
    """
    return int(str(text)) if re.fullmatch(r"[0-9]{1,9}", str(text)) else default


def _spellings(value: str) -> set[str]:
    """A value as it is, and as JSON, Python, a URL and this package's `shorten` write it."""
    if len(value) < _SHORTEST_SECRET:
        return set()
    from urllib.parse import quote, quote_plus

    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        quote(value, safe=""),
        quote_plus(value),
        " ".join(value.split()) or value,
    }


def values_of(value: Any, shown: Container[str] = (), *, keys: bool = False) -> Iterator[str]:
    """Every text and number in nested dicts and lists: what a service may quote of a request.

    :param shown: keys under which nothing is secret.
    :param keys: the keys, too.

    >>> list(values_of({"tags": [{"key": "team", "value": "data"}], "cpu": 5}, shown={"key"}))
    ['data', '5']
    >>> list(values_of({"tags": [{"key": "team", "value": 7}], "group": None}, keys=True))
    ['tags', 'key', 'team', 'value', '7', 'group']
    """
    if isinstance(value, Mapping):
        for name, each in value.items():
            if keys:
                yield str(name)
            if name not in shown:
                yield from values_of(each, shown, keys=keys)
    elif isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from values_of(each, shown, keys=keys)
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def without_passwords(value: Any) -> Any:
    """JSON values without the passwords in their URLs.

    >>> without_passwords({"proxies": {"https": "http://me:hunter2@proxy:3128"}})
    {'proxies': {'https': 'http://me:(hidden)@proxy:3128'}}
    """
    if isinstance(value, Mapping):
        return {name: without_passwords(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_passwords(each) for each in value]
    return _URL_PASSWORD.sub(rf"\1{HIDDEN}@", value) if isinstance(value, str) else value


def last_part(name: str) -> str:
    """The part of an ARN that identifies it among others of its kind.

    >>> last_part("arn:aws:ecs:eu-west-1:123456789012:cluster/etl"), last_part("s-1,s-2")
    ('etl', 's-1,s-2')
    """
    return name.rpartition("/")[2]


def error_text(error: BaseException) -> str:
    """An error on one line, with the name of its class.

    >>> error_text(ValueError("bad"))
    'ValueError: bad'
    """
    return f"{type(error).__name__}: {error}"
