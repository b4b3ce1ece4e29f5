"""Inspections of a container, names that are in use, and how its log is read."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_resilient.core.job import Cause, Claim, Phase
from airflow_resilient.services.docker.log import MAX_REORDERING_NS, TimeCursor, entries, take_since
from airflow_resilient.services.docker.read import (
    claim_of,
    on_name_conflict,
    read_container,
    read_time,
    why_copied,
)

CLAIM = Claim("abcdefghijklmnop", 2)
CREATED = "2026-01-01T00:00:00.5Z"
ENDED = "2026-01-01T00:01:00.25+00:00"
NOWHERE = 'exec: "nosuch": executable file not found in $PATH: unknown'


def seen(status, code=0, *, error="", oom=False, name="/af-abcdefghijklmnop-2", **state):
    return {
        "Id": "c0ffee",
        "Name": name,
        "Created": CREATED,
        "State": {"Status": status, "ExitCode": code, "Error": error, "OOMKilled": oom, "FinishedAt": ENDED}
        | state,
    }


APP, INFRA, USER, UNKNOWN = Cause.APPLICATION, Cause.INFRASTRUCTURE, Cause.USER, Cause.UNKNOWN
STOPPED = "somebody asked the engine to end it (signal 15)"
TABLE = [
    pytest.param(seen("created"), "", Phase.QUEUED, UNKNOWN, "", id="made-and-not-started"),
    pytest.param(seen("running"), "", Phase.RUNNING, UNKNOWN, "", id="runs"),
    pytest.param(seen("paused"), "", Phase.RUNNING, UNKNOWN, "", id="paused-is-alive"),
    pytest.param(seen("restarting"), "", Phase.RUNNING, UNKNOWN, "", id="restarting-is-alive"),
    pytest.param(seen("removing"), "", Phase.STOPPING, UNKNOWN, "", id="being-removed"),
    pytest.param(seen("exited"), "", Phase.SUCCEEDED, UNKNOWN, "", id="ended-well"),
    pytest.param(seen("exited"), STOPPED, Phase.CANCELLED, USER, "signal 15", id="stopped-gracefully"),
    pytest.param(
        seen("exited", name="/af-abcdefghijklmnop-2.cancelled"),
        "",
        Phase.CANCELLED,
        USER,
        "stopped by Airflow",
        id="stopped-gracefully-by-us-and-the-engine-forgot",
    ),
    pytest.param(seen("exited", 3), "", Phase.FAILED, APP, "exit code 3. See the log", id="failed"),
    pytest.param(
        seen("exited", 1), STOPPED, Phase.CANCELLED, USER, "signal 15", id="failed-because-it-was-stopped"
    ),
    pytest.param(seen("exited", 137, oom=True), "", Phase.FAILED, APP, "mem_limit", id="out-of-memory"),
    pytest.param(
        seen("exited", 0, oom=True), "", Phase.SUCCEEDED, UNKNOWN, "", id="only-a-child-was-too-big"
    ),
    pytest.param(
        seen("exited", 137), "", Phase.FAILED, UNKNOWN, "(SIGKILL); nobody", id="killed-from-outside-docker"
    ),
    pytest.param(seen("exited", 143), "", Phase.FAILED, UNKNOWN, "live-restore", id="ended-with-its-engine"),
    pytest.param(seen("exited", 137), STOPPED, Phase.CANCELLED, USER, "SIGKILL", id="killed-by-somebody"),
    pytest.param(seen("exited", 139), "", Phase.FAILED, APP, "SIGSEGV", id="crashed"),
    pytest.param(seen("exited", 125), "", Phase.FAILED, APP, "docker itself", id="code-125"),
    pytest.param(seen("exited", 126), "", Phase.FAILED, APP, "cannot be executed", id="code-126"),
    pytest.param(seen("exited", 127), "", Phase.FAILED, APP, "no such command", id="code-127"),
    pytest.param(
        seen("created", 127, error=NOWHERE), "", Phase.FAILED, APP, "no such command", id="no-such-command"
    ),
    pytest.param(
        seen("created", 126, error="permission denied"), "", Phase.FAILED, APP, "permissions", id="no-program"
    ),
    pytest.param(
        seen("created", 128, error="driver failed: port is already allocated"),
        "",
        Phase.FAILED,
        INFRA,
        "may be transient",
        id="a-port-is-taken",
    ),
    *(
        pytest.param(
            seen("created", 127, error=error)
            | {"Config": {"Cmd": ["timeout", "60"], "Env": ["A=no", "B=x"]}},
            "",
            Phase.FAILED,
            cause,
            reason,
            id=f"{cause.value}:{error[-60:]}",
        )
        for error, cause, reason in (
            ('exec: "timeout": executable file not found in $PATH: unknown', APP, "no such command"),
            ('exec: "address already in use": executable file not found in $PATH', APP, "no such command"),
            (
                'error mounting "/srv/no space left" to rootfs at "/timed out": not a directory',
                APP,
                "no such",
            ),
            ("network timeout not found", APP, "no such command"),
            (
                "OCI runtime create failed: " + 300 * "x" + ": no space left on device",
                INFRA,
                "may be transient",
            ),
            ("dial tcp 10.0.0.1:80: i/o timeout", INFRA, "may be transient"),
            ("operation timed out", INFRA, "may be transient"),
            ("context deadline exceeded", INFRA, "may be transient"),
        )
    ),
    pytest.param(
        seen("exited", 0, error="out of disk"),
        "",
        Phase.FAILED,
        UNKNOWN,
        "out of disk",
        id="code-0-and-error",
    ),
    pytest.param(seen("exited", None), "", Phase.FAILED, UNKNOWN, "no exit code", id="no-exit-code"),
    pytest.param(seen("dead", 0), "", Phase.SUCCEEDED, UNKNOWN, "", id="ended-and-badly-removed"),
    pytest.param(seen("hibernating"), "", Phase.FAILED, UNKNOWN, "'hibernating'", id="a-status-not-known"),
    pytest.param({"Id": "c0ffee"}, "", Phase.FAILED, UNKNOWN, "does not know", id="nothing-is-reported"),
]


@pytest.mark.parametrize(("inspection", "killed", "phase", "cause", "reason"), TABLE)
def test_an_inspection_means(inspection, killed, phase, cause, reason):
    job = read_container(inspection, CLAIM, scope="unix:///x", engine="E", killed=killed)
    assert (job.phase, job.cause) == (phase, cause)
    assert reason.lower() in job.reason.lower()
    assert (job.id, job.claim, job.scope, job.facts["engine"]) == ("c0ffee", CLAIM, "unix:///x", "E")


def test_what_nobody_has_seen_end_before_the_engine_was_restarted_is_no_success():
    job = read_container(seen("exited"), CLAIM, forgotten=True)
    assert (job.phase, job.cause, job.exit_code) == (Phase.FAILED, Cause.UNKNOWN, 0)
    assert "restarted" in job.reason


def test_times_are_the_engines():
    job = read_container(seen("exited", 1), CLAIM)
    assert (job.created, job.ended) == (1767225600.5, 1767225660.25)


def holder(
    status="running", *, token="af-abcdefghijklmnop-2", made_in="1", error="", task_key=CLAIM.task_key
):
    labels = {
        "airflow_resilient.token": token,
        "airflow_resilient.try_number": made_in,
        "airflow_resilient.task_key": task_key,
    }
    return {"Config": {"Labels": labels}, "State": {"Status": status, "Error": error}}


CLASHES = [
    pytest.param(holder(), "adopt", id="our-job-runs"),
    pytest.param(holder("exited"), "adopt", id="our-job-has-ended"),
    pytest.param(holder("created", error="no such command"), "adopt", id="our-job-could-not-be-started"),
    pytest.param(holder("created"), "start", id="somebody-of-this-try-made-it-and-did-not-start-it"),
    pytest.param(holder("created", made_in="0"), "replace", id="an-earlier-try-made-it-with-another-request"),
    pytest.param(holder("created", token="af-abcdefghijklmnop-1"), "replace", id="an-older-one-never-ran"),
    pytest.param(holder(token="af-abcdefghijklmnop-1"), "wait", id="an-older-one-of-ours-runs"),
    pytest.param(
        holder("exited", token="af-abcdefghijklmnop-1"), "move", id="an-older-one-of-ours-has-ended"
    ),
    pytest.param(holder(token="af-b-1", task_key="b"), "busy", id="one-of-another-task-instance-runs"),
    pytest.param(holder("exited", token="af-b-1", task_key="b"), "move", id="one-of-another-has-ended"),
    pytest.param({"Config": {"Labels": None}, "State": {"Status": "exited"}}, "foreign", id="none-of-ours"),
    pytest.param({}, "foreign", id="nothing-is-known-of-it"),
]


@pytest.mark.parametrize(("found", "what"), CLASHES)
def test_about_a_name_that_is_taken(found, what):
    assert on_name_conflict(found, "af-abcdefghijklmnop-2", CLAIM.task_key, "1") == what


@pytest.mark.parametrize(
    ("number", "token", "claim"),
    [
        pytest.param("2", "2", CLAIM, id="a-claim"),
        pytest.param("2", "2-3", replace(CLAIM, resubmission=3), id="a-resubmission"),
        pytest.param("2", "2-" + "9" * 5000, CLAIM, id="a-resubmission-with-5000-digits"),
        pytest.param("2", "2-\u0663", CLAIM, id="a-resubmission-in-arabic-digits"),
        pytest.param("9" * 9, "1", Claim(CLAIM.task_key, 10**9 - 1), id="nine-digits"),
        pytest.param("9" * 10, "1", None, id="ten-digits"),
        pytest.param("9" * 5000, "1", None, id="5000-digits"),
        pytest.param("\u0663", "1", None, id="arabic-digits"),
        pytest.param("02", "1", None, id="not-as-we-write-it"),
    ],
)
def test_a_claim_on_labels(number, token, claim):
    labels = {
        "airflow_resilient.claim": f"af-{CLAIM.task_key}-{number}",
        "airflow_resilient.token": f"af-{CLAIM.task_key}-{token}",
    }
    found = claim_of(labels)
    assert found == claim
    if claim is not None:
        assert found.resubmission == claim.resubmission


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00Z",
        "2026-13-45T00:00:00Z",
        "2026-01-01T99:00:00Z",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00+99:99",
        "\u0662026-01-01T00:00:00Z",
        "",
        None,
        7,
    ],
)
def test_what_is_no_time_is_none(text):
    assert read_time(text) is None


# --- logs -----------------------------------------------------------------------------------------

STAMP = "2026-01-01T00:00:00.000000001Z"


def frame(piece, stream=1):
    return bytes([stream, 0, 0, 0]) + len(piece).to_bytes(4, "big") + piece


def framed(*pieces):
    return b"".join(map(frame, pieces))


@pytest.mark.parametrize("size", [1, 3, 9, 10_000])
@pytest.mark.parametrize("tty", [False, True])
def test_a_log_is_read_however_it_is_cut_into_chunks(size, tty):
    pieces = [f"{STAMP} one\r\n".encode(), f"{STAMP} zwölf \n".encode(), f"{STAMP} \n".encode()]
    raw = b"".join(pieces) if tty else framed(*pieces)
    chunks = [raw[start : start + size] for start in range(0, len(raw), size)]
    assert list(entries(chunks)) == [(1767225600000000001, text) for text in ("one", "zwölf", "")]


def test_a_long_line_comes_in_pieces_that_all_have_its_time():
    raw = framed(f"{STAMP} be".encode(), f"{STAMP} gin".encode(), f"{STAMP} end\n".encode())
    assert [text for _, text in entries([raw])] == ["beginend"]


def test_the_last_line_of_a_running_container_is_left_until_it_is_whole():
    raw = framed(f"{STAMP} one\n".encode(), f"{STAMP} tw".encode())
    assert [text for _, text in entries([raw], ended=False)] == ["one"]
    assert [text for _, text in entries([raw], ended=True)] == ["one", "tw"]


def cut(raw, places):
    """Bytes in pieces that end at these places, as far as there are so many bytes."""
    ends = sorted({place % (len(raw) + 1) for place in places} | {len(raw)})
    return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


places = st.lists(st.integers(0, 10**6), max_size=8)
written = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=60)


@given(text=written, pieces=places, chunks=places, noise=st.booleans())
@example(text="zw\u00f6lf \u2603 \U0001f600", pieces=list(range(40)), chunks=[], noise=True)
def test_however_a_line_is_cut_it_is_read_as_it_was_written(text, pieces, chunks, noise):
    """Between the bytes of a character, too, and with pieces of standard error in between."""
    raw = b""
    parts = cut(f"{text}\n".encode(), pieces)
    for number, part in enumerate(parts):
        raw += frame(f"{STAMP} ".encode() + part)
        if noise and number < len(parts) - 1:
            raw += frame(f"{STAMP} \u2603".encode()[:-1], stream=2)
            raw += frame(f"{STAMP} ".encode() + "\u2603\n".encode()[2:], stream=2)
    lines = [line for _, line in entries(cut(raw, chunks))]
    assert lines == ["\u2603"] * (len(parts) - 1 if noise else 0) + [text.rstrip()]


@given(
    size=st.integers(0, 5),
    text=st.text(st.sampled_from("a\u00f6\u2603\U0001f600"), max_size=3),
    chunks=places,
)
@example(size=2, text="a", chunks=[])
def test_a_long_line_of_a_terminal_is_read_as_it_was_written(size, text, chunks):
    """Its pieces are not framed: each begins with the time of the line, right behind the one before."""
    line = ("x" + text) * (size * 16384 // 2 + 1) if text else "x" * (size * 16384)
    raw = f"{line}\n".encode()
    raw = b"".join(f"{STAMP} ".encode() + raw[start : start + 16384] for start in range(0, len(raw), 16384))
    assert [line for _, line in entries(cut(raw, chunks))] == [line]


def test_an_error_of_the_engine_in_the_log_is_shown_as_it_is():
    raw = frame(b"Error grabbing logs: unexpected EOF\n", stream=3)
    assert [text for _, text in entries([raw])] == ["Error grabbing logs: unexpected EOF"]


@given(
    st.lists(
        st.tuples(st.integers(0, 3 * MAX_REORDERING_NS), st.integers(0, MAX_REORDERING_NS)),
        max_size=30,
    ),
    st.data(),
)
def test_a_log_is_read_without_gap_and_without_doubles(written, data):
    """Whenever it is asked, and though a line may be up to a second behind the one before it."""
    clock, log = 0, []
    for number, (step, behind) in enumerate(written):
        clock += step
        log.append((max(0, clock - behind), str(number)))
    cursor, read, there = TimeCursor(), [], 0
    while there < len(log):
        there = data.draw(st.integers(there, len(log)))
        answer = [entry for entry in log[:there] if entry[0] >= cursor.since]
        if data.draw(st.booleans()):  # the engine may be asked for a portion only
            answer = answer[: cursor.count + 3]
        cursor, lines = take_since(cursor, answer)
        read += [text for _, text in lines]
        if there == len(log):
            while lines:
                answer = [entry for entry in log if entry[0] >= cursor.since]
                cursor, lines = take_since(cursor, answer)
                read += [text for _, text in lines]
    assert read == [text for _, text in log]


def test_a_log_that_was_rotated_goes_on_behind_what_was_read():
    cursor, _ = take_since(TimeCursor(), [(10, "a"), (20, "b"), (30, "c")])
    cursor, lines = take_since(cursor, [(30, "c"), (40, "d")])
    assert [text for _, text in lines] == ["d"]


TOKEN = "af-abcdefghijklmnop-2-1"


@pytest.mark.parametrize(
    ("name", "labels", "copied"),
    [
        pytest.param(TOKEN, {}, False, id="named-by-its-token"),
        pytest.param(f"{TOKEN}.cancelled", {}, False, id="stopped-by-this-library"),
        pytest.param(f"{TOKEN}-c0ffee", {}, False, id="ended-and-its-name-was-needed-again"),
        pytest.param("nightly", {"airflow_resilient.name": "nightly"}, False, id="named-by-the-user"),
        pytest.param("eager_hopper", {}, True, id="from-an-image-that-was-committed"),
        pytest.param(
            "eager_hopper", {"airflow_resilient.name": "nightly"}, True, id="from-an-image-of-one-with-a-name"
        ),
        pytest.param(f"{TOKEN}-copy", {}, True, id="duplicated-by-a-tool"),
        pytest.param(f"{TOKEN}-2", {}, True, id="another-resubmission"),
        pytest.param("", {}, True, id="no-name"),
    ],
)
def test_a_container_that_bears_our_labels_under_another_name_is_a_copy(name, labels, copied):
    inspection = seen("running", name=f"/{name}") | {
        "Config": {"Labels": {"airflow_resilient.token": TOKEN, **labels}}
    }
    assert bool(why_copied(inspection)) is copied
    assert not copied or repr(name) in why_copied(inspection)
