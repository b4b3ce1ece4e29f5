"""What the watch remembers: as a value, and as a file that no crash and no other hand can spoil."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.operations.first_seen import FirstSeen, MemoryProblem, load, locked, save
from airflow_resilient.operations.snapshot import Gap, Snapshot
from airflow_resilient.operations.task_instances import AirflowApiError

URL = "http://airflow"
SEEN = FirstSeen(
    url=URL,
    last=10.0,
    looked=10.0,
    marks={"waiting/a": 5.0},
    due={"etl": 20.0, "by-hand": None},
    active={"etl": 10.0},
    joined={"etl": 4.0},
    owed={"etl": 2.0},
    alive={"scheduler": {"2": (3.0, 10.0)}},
    answered=((1.0, "3.3.2"), (2.0, "3.2.2")),
)
WELL = Snapshot(URL, 20.0, version="3.3.2", dags=())


def test_what_is_saved_is_loaded(tmp_path):
    assert load(tmp_path / "memory", URL) == FirstSeen()
    save(tmp_path / "memory", SEEN)
    assert load(tmp_path / "memory", URL) == SEEN
    assert os.listdir(tmp_path) == ["memory"], "and nothing is left beside it"  # noqa: PTH208


def spoiled(**changed):
    found = json.loads(json.dumps({"format": 3, **vars(SEEN)}))
    return json.dumps({**found, **changed})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="an-empty-file"),
        pytest.param('{"url": "htt', id="half-a-file"),
        pytest.param("[]", id="a-list"),
        pytest.param("null", id="null"),
        pytest.param(spoiled(format=1), id="another-version"),
        pytest.param(spoiled(marks=[1]), id="marks-that-are-none"),
        pytest.param(spoiled(marks={"a": "x"}), id="a-time-that-is-none"),
        pytest.param(spoiled(more=1), id="a-field-too-many"),
        pytest.param(spoiled(answered=[1]), id="versions-that-are-none"),
        pytest.param(spoiled(alive={"scheduler": {"2": 3}}), id="numbers-of-processes-that-are-none"),
    ],
)
def test_a_file_that_is_no_memory_is_said(tmp_path, text):
    (tmp_path / "memory").write_text(text)
    with pytest.raises(MemoryProblem, match="memory"):
        load(tmp_path / "memory", URL)


def test_the_memory_of_another_airflow_is_not_used(tmp_path):
    save(tmp_path / "memory", SEEN)
    with pytest.raises(MemoryProblem, match="another Airflow, http://airflow"):
        load(tmp_path / "memory", "http://other")


@given(st.binary(max_size=200))
def test_whatever_is_in_the_file_it_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("memory") / "memory"
    path.write_bytes(content)
    with pytest.raises(MemoryProblem):
        load(path, URL)


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(MemoryProblem, match="cannot be written"):
        save(tmp_path / "missing" / "memory", SEEN)


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from airflow_resilient.operations.first_seen import FirstSeen, save
number = 0
while True:
    number += 1
    marks = {str(each): float(number) for each in range(5000)}
    save(Path(sys.argv[1]), FirstSeen("http://airflow", float(number), marks=marks))
"""


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_file(tmp_path):
    path = tmp_path / "memory"
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        before = load(path, URL).last
        until = time.monotonic() + 60
        while load(path, URL).last == before and time.monotonic() < until:
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        seen = load(path, URL)
        assert len(seen.marks) == 5000
        assert set(seen.marks.values()) == {seen.last}


def test_the_first_time_is_kept_and_never_lies_ahead():
    assert SEEN.first("waiting/a", 11.0) == 5.0
    assert SEEN.first("waiting/b", 11.0) == 11.0
    assert SEEN.first("waiting/a", 3.0) == 3.0, "a clock that was set back makes no wait negative"


def test_after_a_break_nothing_has_lasted_since_before():
    assert SEEN.first("waiting/a", 10.0 + 599) == 5.0
    assert SEEN.first("waiting/a", 10.0 + 601) == 10.0 + 601


@pytest.mark.parametrize(
    ("look", "kept"),
    [
        pytest.param(WELL, set(), id="what-is-not-there-any-more-is-forgotten"),
        pytest.param(replace(WELL, silent="no"), {"waiting/a", "never/a", "api-silent"}, id="no-answer"),
        pytest.param(replace(WELL, gaps=(Gap("task instances", "500"),)), {"waiting/a"}, id="no-instances"),
        pytest.param(replace(WELL, gaps=(Gap("audit log", "403"),)), set(), id="no-audit-log"),
        pytest.param(replace(WELL, gaps=(Gap("dags", "500"),)), {"never/a"}, id="no-dags"),
    ],
)
def test_a_gap_hides_what_depends_on_it_and_nothing_else(look, kept):
    seen = replace(SEEN, marks=dict.fromkeys(("waiting/a", "never/a", "api-silent"), 5.0))
    assert set(seen.after(look, (), {}, 20.0).marks) == kept


def looks(counts, seconds=60.0):
    """The memory after looks that saw so many schedulers alive."""
    seen, now = FirstSeen(), 0.0
    for count in counts:
        now += seconds
        seen = seen.after(WELL, (), {"scheduler": count}, now)
    return seen.usual("scheduler", now)


@pytest.mark.parametrize(
    ("counts", "usual"),
    [
        pytest.param([2] * 60, 2, id="two-for-an-hour"),
        pytest.param([1] * 60 + [2, 2] + [1] * 60, 1, id="a-restart-shows-two-for-a-moment"),
        pytest.param([1, 2] * 60, 1, id="restarts-all-the-time"),
        pytest.param([2] * 60 + [1] * 60, 2, id="one-of-two-is-gone"),
        pytest.param([2] * 60 + [1] * 500, 1, id="for-so-long-that-it-is-usual"),
        pytest.param([3] * 60 + [2] * 5 + [3] * 5 + [1], 3, id="one-came-back-meanwhile"),
    ],
)
def test_what_was_alive_for_long_is_usual(counts, usual):
    assert looks(counts) == usual


def test_one_look_at_a_time_holds_the_memory(tmp_path):
    with (
        locked(tmp_path / "memory"),
        pytest.raises(AirflowApiError, match="another look with the memory"),
        locked(tmp_path / "memory"),
    ):
        pass
    with locked(tmp_path / "memory"):
        pass


def test_a_relative_path_is_replaced_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("memory"), SEEN)
    assert load(Path("memory"), URL) == SEEN
