"""What a look at a container means, what to do about a name that is taken, and how its log is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.docker import entries, on_clash, read_container
from airflow_resilient.jobs import Cause, Claim, Phase
from airflow_resilient.logs import BEHIND, TimeCursor, take_since

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
    pytest.param(seen("exited", 3), "", Phase.FAILED, APP, "exit code 3. The log", id="failed"),
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
        "may pass",
        id="a-port-is-taken",
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
    pytest.param({"Id": "c0ffee"}, "", Phase.FAILED, UNKNOWN, "does not know", id="nothing-is-said"),
]


@pytest.mark.parametrize(("said", "killed", "phase", "cause", "reason"), TABLE)
def test_a_look_means(said, killed, phase, cause, reason):
    job = read_container(said, CLAIM, scope="unix:///x", engine="E", killed=killed)
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


def holder(status="running", *, token="af-abcdefghijklmnop-2", made_in="1", error="", family=CLAIM.family):
    labels = {
        "airflow_resilient.token": token,
        "airflow_resilient.try_number": made_in,
        "airflow_resilient.family": family,
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
    pytest.param(holder(token="af-b-1", family="b"), "busy", id="one-of-another-task-instance-runs"),
    pytest.param(holder("exited", token="af-b-1", family="b"), "move", id="one-of-another-has-ended"),
    pytest.param({"Config": {"Labels": None}, "State": {"Status": "exited"}}, "foreign", id="none-of-ours"),
    pytest.param({}, "foreign", id="nothing-is-known-of-it"),
]


@pytest.mark.parametrize(("found", "what"), CLASHES)
def test_about_a_name_that_is_taken(found, what):
    assert on_clash(found, "af-abcdefghijklmnop-2", CLAIM.family, "1") == what


# --- logs -----------------------------------------------------------------------------------------

STAMP = "2026-01-01T00:00:00.000000001Z"


def framed(*pieces):
    return b"".join(bytes([1, 0, 0, 0]) + len(each).to_bytes(4, "big") + each for each in pieces)


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


@given(
    st.lists(
        st.tuples(st.integers(0, 3 * BEHIND), st.integers(0, BEHIND)),
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
