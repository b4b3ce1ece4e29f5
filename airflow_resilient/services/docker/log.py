"""Read the log of a container from a position that survives restarts. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .read import read_time

if TYPE_CHECKING:
    from ...core.service import LogLine


MAX_REORDERING_NS = 1_000_000_000
"""Nanoseconds by which lines may be out of order: Docker copies standard output and standard error in
parallel into one log."""

_MAX_NS = 10**19  # in the year 2286


@dataclass(frozen=True)
class TimeCursor:
    """How far a log has been read. Times are nanoseconds since 1970.

    :param since: start of the next request.
    :param count: how many lines of its answer have been read.
    :param last: time of the latest line that has been read.
    """

    since: int = 0
    count: int = 0
    last: int = 0

    @classmethod
    def read(cls, stored: Any) -> TimeCursor:
        """The stored position; the beginning if there is none, or if it is none that this class has made.

        >>> TimeCursor.read({"since": 5, "count": 1, "last": 7}), TimeCursor.read({"since": "5"})
        (TimeCursor(since=5, count=1, last=7), TimeCursor(since=0, count=0, last=0))
        """
        names = ("since", "count", "last")
        values: list[Any] = [stored.get(name) for name in names] if isinstance(stored, Mapping) else []
        if not values or not all(type(value) is int and 0 <= value < _MAX_NS for value in values):
            return cls()
        return cls(*values)


def take_since(cursor: TimeCursor, entries: Sequence[tuple[int, str]]) -> tuple[TimeCursor, list[LogLine]]:
    """Apply the lines of a log since ``cursor.since``.

    :param entries: ``(nanoseconds since 1970, line)`` in the log's order, which is not quite that of time;
        the end may be missing.
    :return: the new position, and the new lines.

    The same request returns the same lines with new ones after them, so lines are recognised by their count.
    A log that was rotated meanwhile has lost lines at the beginning; then new lines are recognised by their
    time.
    """
    if len(entries) < cursor.count:
        new = [entry for entry in entries if entry[0] > cursor.last]
    else:
        new = list(entries[cursor.count :])
    last = max([cursor.last, *(stamp for stamp, _ in entries)])
    since = max(cursor.since, last - MAX_REORDERING_NS)
    count = sum(stamp >= since for stamp, _ in entries)
    return TimeCursor(since, count, last), [(stamp / 10**9, text) for stamp, text in new]


def entries(chunks: Iterable[bytes], *, ended: bool = True) -> Iterator[tuple[int, str]]:
    """Parse the engine's answer to a request for a log with times.

    :param chunks: frames of 8 bytes (stream, 0, 0, 0, length) and a piece of a line each; with a pseudo-TTY
        just lines. A line of more than 16 KB comes in pieces, each with the time. Pieces are joined before
        they are decoded, because a piece may end within a character, and for each stream by itself, because
        pieces of the other one may come between.
    :param ended: no more lines follow, so a last line without a line end is complete.

    Source: "Attach to a container", stream format, in the engine's API reference; ``Copier.copySrc`` in
    ``daemon/logger/copier.go`` and ``Write`` in ``daemon/server/httputils/logstream/logstream.go`` of moby.
    """
    unfinished: dict[int, tuple[int, bytearray]] = {}
    for stream, piece in _pieces(chunks):
        stamp, _, rest = (b"", b"", piece) if stream == _ENGINE_ERROR else piece.partition(b" ")
        if stream == _TTY and len(rest) > _PIECE_BYTES:  # nothing but the repeated time separates the pieces
            rest = rest.replace(stamp + b" ", b"")
        if stream not in unfinished:
            unfinished[stream] = read_time(stamp.decode("utf-8", "replace")) or 0, bytearray()
        at, line = unfinished.pop(stream)
        line += rest
        if rest.endswith(b"\n"):
            yield at, _text_of(line)
        else:
            unfinished[stream] = at, line
    if ended:
        yield from ((at, _text_of(line)) for at, line in unfinished.values() if line)


_TTY, _ENGINE_ERROR = 0, 3  # numbers of streams: of what is not framed, and of errors of the engine itself
_PIECE_BYTES = 16 * 1024  # Source: ``defaultBufSize`` in ``daemon/logger/copier.go`` of moby


def _text_of(line: bytearray) -> str:
    return line.decode("utf-8", "replace").rstrip()


def _pieces(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The number of the stream, and a piece of a line with its time."""
    buffer, framed = b"", None
    for chunk in chunks:
        buffer += chunk
        if framed is None and len(buffer) >= 4:  # noqa: PLR2004 - a time does not begin with zeros
            framed = buffer[1:4] == b"\0\0\0"
        while framed and len(buffer) >= 8 and len(buffer) >= 8 + int.from_bytes(buffer[4:8], "big"):  # noqa: PLR2004 - the header
            end = 8 + int.from_bytes(buffer[4:8], "big")
            yield buffer[0], buffer[8:end]
            buffer = buffer[end:]
        if framed is False:
            *lines, buffer = buffer.split(b"\n")
            yield from ((_TTY, line + b"\n") for line in lines)
    if buffer and not framed:
        yield _TTY, buffer
