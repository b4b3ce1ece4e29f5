"""Read the answers of a Docker engine. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Literal

from ...core.job import NO_CLAIM, Cause, Claim, Job, Phase
from ...core.service import UNATTENDED
from ...core.text import (
    MAX_REASON_CHARS,
    describe_exit_code,
    redact,
    says,
    shorten,
    signal_of,
    small_number,
    values_of,
)
from .request import secrets_of

LABEL_PREFIX = "airflow_resilient"

CLAIM, TASK_KEY, TOKEN = f"{LABEL_PREFIX}.claim", f"{LABEL_PREFIX}.task_key", f"{LABEL_PREFIX}.token"
GENERATION = f"{LABEL_PREFIX}.generation"
TRY, AUTO_REMOVE, STOPS_IN = (
    f"{LABEL_PREFIX}.try_number",
    f"{LABEL_PREFIX}.auto_remove",
    f"{LABEL_PREFIX}.stop_timeout",
)
"""Labels of a container. ``TOKEN`` is its name, unless the user chose another one."""

UNATTENDED_LABEL = f"{LABEL_PREFIX}.{UNATTENDED}"
"""Label of a container that may run on without its task instance."""

NAME = f"{LABEL_PREFIX}.name"
"""Label of the name that the user chose. Labels are copied with a container; names are unique."""

CANCELLED = ".cancelled"
"""Suffix of the name of a container that this library has stopped: the engine forgets who stopped it."""

ENDING_SIGNALS = frozenset({"2", "3", "6", "9", "15", "SIGINT", "SIGQUIT", "SIGABRT", "SIGKILL", "SIGTERM"})

_EVENTS_LOST_REASON = (
    "exit code 0, but the engine was restarted since, and may have stopped it: whether the work was done is "
    "unknown. Check its output; live-restore lets containers outlive their engine."
)

TIMED_OUT = (
    r"(?i:\b(i/o|handshake|operation|connection|context|request|gateway)\s+time-?d?\s?-?out\b|\btimed out\b"
    r"|\btimeout (was reached|exceeded|awaiting|waiting)\b|\(Client\.Timeout|\bdeadline exceeded\b)"
)
"""How engines and registries, which are written in Go, say that something took too long."""

_NO_SUCH_COMMAND, _NOT_EXECUTABLE, _ENGINE_FAILED = 127, 126, 125

# Errors with which a container that could not be started may start a minute later. Phrases, because names of
# the user, such as that of the network or the command `timeout`, may be any word.
_TRANSIENT_START_ERROR = (
    r"(?i)port is already allocated|address already in use|no space left|cannot allocate memory"
    r"|resource temporarily unavailable|too many open files|" + TIMED_OUT
)


def read_container(
    inspection: Mapping[str, Any],
    claim: Claim,
    *,
    scope: str = "",
    engine: str = "",
    killed: str = "",
    forgotten: bool = False,
) -> Job:
    """Read the inspection of a container.

    :param inspection: ``{"Id": str, "Name": str, "Created": str, "State": {"Status": str, "ExitCode": int,
        ...}}``.
    :param scope: URL of its engine, `engine` the engine's id.
    :param killed: who ended it, according to the events of the engine; empty: unknown.
    :param forgotten: the engine has no events of its end, and may have been stopped, which ends it, too.
    :return: SUCCEEDED only if it ran, ended with exit code 0, and nobody asked the engine to end it.
    """
    state = inspection.get("State") or {}
    status = str(state.get("Status") or "")
    name = str(inspection.get("Name") or "").lstrip("/")
    job = Job(
        id=str(inspection["Id"]),
        claim=claim,
        phase=Phase.RUNNING,
        created=(read_time(inspection.get("Created")) or 0) / 10**9,
        scope=scope,
        facts={"engine": engine, "name": name},
    )
    if status == "created" and not state.get("Error"):
        return replace(job, phase=Phase.QUEUED)
    if status in ("running", "restarting", "paused"):
        return job
    if status == "removing":
        return replace(job, phase=Phase.STOPPING)
    if status not in ("created", "exited", "dead", "stopped"):
        reason = f"the engine reports the state {status!r}, which this version does not know"
        return replace(job, phase=Phase.FAILED, cause=Cause.UNKNOWN, reason=reason)
    if name.endswith(CANCELLED):
        killed = killed or "it was stopped by Airflow"
    code = state.get("ExitCode")
    shown = redact(str(state.get("Error") or ""), _secrets_of(inspection))
    phase, cause, reason = _read_end(
        state,
        int(code) if code is not None else None,
        killed,
        shown,
        _values_of(inspection),
        ran=status != "created",
    )
    if phase is Phase.SUCCEEDED and forgotten:
        phase, cause, reason = Phase.FAILED, Cause.UNKNOWN, _EVENTS_LOST_REASON
    finished = read_time(state.get("FinishedAt"))
    return replace(
        job,
        phase=phase,
        cause=cause,
        exit_code=code,
        ended=finished / 10**9 if finished else None,
        reason=shorten(reason, MAX_REASON_CHARS),
    )


def _values_of(inspection: Mapping[str, Any]) -> tuple[str, ...]:
    """What the user wrote into the request for a container: the engine may quote it in an error."""
    config = inspection.get("Config") or {}
    networks = (inspection.get("NetworkSettings") or {}).get("Networks") or {}
    variables = [str(each).partition("=")[2] for each in config.get("Env") or ()]
    name = str(inspection.get("Name") or "").lstrip("/")
    return (name, *variables, *values_of(config, keys=True), *networks)


def _secrets_of(inspection: Mapping[str, Any]) -> Iterator[str]:
    """Values of the request, which the engine may quote: 'exec: "…": executable file not found'."""
    config = inspection.get("Config") or {}
    labels = config.get("Labels") or {}
    return secrets_of(
        environment=[each.partition("=")[2] for each in config.get("Env") or ()],
        command=config.get("Cmd"),
        entrypoint=config.get("Entrypoint"),
        labels={name: labels[name] for name in labels if not name.startswith(LABEL_PREFIX)},
        mounts=(inspection.get("HostConfig") or {}).get("Mounts"),
    )


def _read_end(
    state: Mapping[str, Any],
    code: int | None,
    killed: str,
    shown: str,
    quoted: Collection[str],
    *,
    ran: bool,
) -> tuple[Phase, Cause, str]:
    """Classify the end of a container, and give advice. The first rule that matches applies.

    :param shown: the engine's error without values of the request.
    :param quoted: what the engine may quote of the request.
    """
    raw, message = str(state.get("Error") or ""), shorten(shown, 250)
    exit_text = describe_exit_code(code)
    if not ran:
        return _read_start_failure(code, message, passes=says(raw, _TRANSIENT_START_ERROR, quoted))
    if killed:
        return Phase.CANCELLED, Cause.USER, f"{exit_text}; {killed}."
    if code == 0 and not message:
        return Phase.SUCCEEDED, Cause.UNKNOWN, ""
    if state.get("OOMKilled"):
        advice = "it ran out of memory. Raise mem_limit, or let it use less."
        return Phase.FAILED, Cause.APPLICATION, f"{exit_text}; {advice}"
    if message:
        return Phase.FAILED, Cause.UNKNOWN, f"{exit_text}; the engine reports: {message}. Check its output."
    if code is None:
        return Phase.FAILED, Cause.UNKNOWN, f"{exit_text}; whether the work was done is unknown."
    if signal_of(code) in ("SIGKILL", "SIGTERM"):
        advice = (
            "nobody is known to have asked the engine for it: it exceeded mem_limit, which engines do not "
            "always report, or the host ran out of memory; the engine was restarted without live-restore; or "
            "it was killed on the host. See the host's log."
        )
        return Phase.FAILED, Cause.UNKNOWN, f"{exit_text}; {advice}"
    advice = {
        _ENGINE_FAILED: "125 means that docker itself could not run the container.",
        _NOT_EXECUTABLE: "126 usually means that the command exists and cannot be executed.",
        _NO_SUCH_COMMAND: "127 usually means that there is no such command. Check image, command and "
        "entrypoint.",
    }.get(code, "See the log of the container.")
    return Phase.FAILED, Cause.APPLICATION, f"{exit_text}. {advice}"


def _read_start_failure(code: int | None, message: str, *, passes: bool) -> tuple[Phase, Cause, str]:
    if passes:
        return (
            Phase.FAILED,
            Cause.INFRASTRUCTURE,
            f"it could not be started: {message}. This may be transient.",
        )
    advice = {
        _NO_SUCH_COMMAND: "There is no such command in the image: check image, command and entrypoint.",
        _NOT_EXECUTABLE: "The command cannot be executed: check its permissions in the image.",
    }.get(code or 0, "It never ran: fix what the engine reports.")
    return Phase.FAILED, Cause.APPLICATION, f"it could not be started: {message}. {advice}"


def read_time(text: Any) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time of the engine; ``None`` for no time, written as year 1.

    >>> read_time("2026-01-01T00:00:00.000000001Z"), read_time("0001-01-01T00:00:00Z")
    (1767225600000000001, None)
    """
    match = re.fullmatch(_TIME, str(text), re.ASCII)
    if match is None or match[1].startswith("0001"):
        return None
    zone = "+0000" if match[4] in (None, "Z") else match[4].replace(":", "")
    try:
        moment = datetime.strptime(f"{match[1]}T{match[2]}{zone}", "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:  # it looks like a time: a day 99
        return None
    whole = (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // _SECOND
    return whole * 10**9 + int((match[3] or "0")[:9].ljust(9, "0"))


_TIME = r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:?\d\d)?"
_SECOND = datetime(2000, 1, 1, 0, 0, 1) - datetime(2000, 1, 1)  # noqa: DTZ001 - a length of time

NameConflict = Literal["adopt", "start", "replace", "move", "wait", "busy", "foreign"]


def on_name_conflict(holder: Mapping[str, Any], token: str, task_key: str, try_number: str) -> NameConflict:
    """Decide what to do with the container that has the wanted name.

    :param holder: its inspection.
    :param token: of this claim, like `task_key`; `try_number` as it is on the label.
    :return: ``adopt``: it is the job of this claim. ``start``: the same, but it was made and not started.
        ``replace``: it never ran, and an earlier try, or another task instance, made it. ``move``: it has
        ended and can be renamed. ``wait``: another job of this task instance has the name; try again.
        ``busy``: a job of another task instance has it. ``foreign``: this library did not make it.
    """
    labels = (holder.get("Config") or {}).get("Labels") or {}
    state = holder.get("State") or {}
    if TOKEN not in labels:
        return "foreign"
    unstarted = state.get("Status") == "created" and not state.get("Error")
    if labels[TOKEN] == token:
        if not unstarted:
            return "adopt"
        return "start" if labels.get(TRY) == try_number else "replace"
    if unstarted:
        return "replace"
    if state.get("Status") in ("running", "restarting", "paused", "removing"):
        return "wait" if labels.get(TASK_KEY) == task_key else "busy"
    return "move"


def claim_of(labels: Mapping[str, str]) -> Claim | None:
    """The claim in the labels of a container, with the number of its resubmission and its generation."""
    claim = Claim.read(labels.get(CLAIM, ""))
    if claim is None or str(claim) != labels[CLAIM]:
        return None
    claim = with_generation(claim, labels)
    number = labels.get(TOKEN, "").removeprefix(f"{claim}-")
    return replace(claim, resubmission=small_number(number, 0))


def with_generation(claim: Claim, labels: Mapping[str, str]) -> Claim:
    """`claim` with the generation in the labels of a container; a sensor's job has none."""
    return claim if claim == NO_CLAIM else replace(claim, generation=str(labels.get(GENERATION) or ""))


def is_container_of(job: Job, labels: Mapping[str, str]) -> bool:
    """Whether the labels of a container say that it is this job; a sensor's job has no claim to compare."""
    return job.claim in (NO_CLAIM, claim_of(labels))


def why_copied(inspection: Mapping[str, Any]) -> str:
    """Why a container may be a copy of the one that was made under its claim; empty: it is none.

    ``docker commit`` keeps the labels of a container in the image, hence in every container that is made
    from it, and tools that duplicate a container copy its labels. Source: ``docker container commit``
    reference; "Duplicate/Edit" of Portainer.

    :param inspection: of a container that bears a claim.
    """
    labels = (inspection.get("Config") or {}).get("Labels") or {}
    token = str(labels.get(TOKEN) or "")
    moved = f"{token}-{str(inspection.get('Id'))[:12]}"  # the name was needed again
    name = str(inspection.get("Name") or "").lstrip("/").removesuffix(CANCELLED)
    if name and name in (labels.get(NAME), token, moved):
        return ""
    return f"its labels are of a container of another name, and it is named {name!r}: it may be a copy"


def should_remove(auto_remove: str | None, job: Job) -> bool:
    """Whether `auto_remove` asks for the removal of an ended container."""
    return auto_remove == "force" or (auto_remove == "success" and job.phase is Phase.SUCCEEDED)
