"""A dead man's switch: a service that alerts somebody when no beat comes, or one of a failure.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

from http.client import HTTPException
from urllib.parse import urlsplit

BEAT_SECONDS = 10.0
"""For which the answer of the switch is waited."""

WANTED = "a URL such as https://hc-ping.com/UUID"
"""What the URL of a switch looks like, for messages."""

_MAX_CHARS = 10_000


class BeatFailed(Exception):
    """The switch did not take the beat; the message says why, and shows of its URL the host alone."""


def is_beat_url(text: str) -> bool:
    """Whether this can be the URL of a switch.

    >>> is_beat_url("https://hc-ping.com/UUID"), is_beat_url("hc-ping.com/UUID")
    (True, False)
    """
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0  # may raise
    except ValueError:
        return False


def beat(url: str, signal: str, text: str) -> None:
    """Tell a dead man's switch in the form of healthchecks.

    :param signal: what its URL gets appended: nothing, if all is well, or ``/fail``.
    :param text: sent with it.

    The URL is a secret: no error shows more of it than its host.

    Source: "Pinging API" of healthchecks.io: POST to the URL, or to the URL with ``/fail``, with a body.

    :raises BeatFailed: it does not take it.
    """
    import urllib.error
    import urllib.request

    parts = urlsplit(url)
    full = parts._replace(path=parts.path.rstrip("/") + signal).geturl()
    problem = ""
    try:
        request = urllib.request.Request(full, text.encode()[:_MAX_CHARS], method="POST")  # noqa: S310 - http
        with urllib.request.urlopen(request, timeout=BEAT_SECONDS):  # noqa: S310 - http; httpx would log the URL
            pass
    except urllib.error.HTTPError as error:
        problem = f"it answers {error.code}"
        error.close()
    except (OSError, HTTPException, ValueError) as error:
        problem = type(getattr(error, "reason", error)).__name__
    if problem:
        raise BeatFailed(f"the dead man's switch at {parts.hostname} could not be reached: {problem}")
