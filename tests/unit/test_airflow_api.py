"""What the client of Airflow's REST API works out by itself; its questions are tested on a real Airflow."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.airflow_api import AirflowApi, in_slices, seconds
from airflow_resilient.sweep import NoAnswer

PAGE = 5


class Table:
    """Rows by the time at which they changed last; between two questions, some change again."""

    def __init__(self, times, chance=None, moves=0):
        self.rows = dict(enumerate(times))
        self.time, self.chance, self.moves = max(times, default=0.0), chance, moves
        self.asked = 0

    def now(self):
        return self.time

    def page(self, begin, end):
        self.asked += 1
        fits = [row for row, at in self.rows.items() if at >= begin and (end is None or at <= end)]
        if self.chance and self.moves:
            self.chance.shuffle(fits)  # in no order
            self.time += self.chance.random()
            for row in self.chance.sample(sorted(self.rows), min(self.moves, len(self.rows))):
                self.rows[row] = self.time
        return fits[:PAGE], len(fits)

    def at_once(self, begin, end):
        return [row for row, at in self.rows.items() if at >= begin and (end is None or at <= end)]


TIMES = st.lists(st.floats(0, 1_000_000), max_size=60)


@given(TIMES, st.floats(0, 1_000_000))
def test_every_row_that_changed_since_then_comes_and_no_other(times, begin):
    table = Table(times)
    found = set(in_slices(table.page, begin, table.now, table.at_once))
    assert found == {row for row, at in table.rows.items() if at >= begin}


@given(TIMES, st.integers(1, 3), st.randoms(use_true_random=False))
def test_no_row_is_lost_when_others_move_between_two_questions(times, moves, chance):
    table = Table(times, chance, moves)
    assert set(in_slices(table.page, 0.0, table.now, table.at_once)) == set(table.rows)


def test_rows_of_one_instant_are_read_at_once():
    table = Table([7.0] * 20)
    assert set(in_slices(table.page, 0.0, table.now, table.at_once)) == set(range(20))


def test_a_clock_that_is_behind_does_not_matter():
    table = Table([100.0 + number for number in range(20)])
    assert set(in_slices(table.page, 0.0, lambda: -50.0, table.at_once)) == set(range(20))


def test_what_fits_on_one_page_takes_one_question():
    table = Table([1.0, 2.0])
    assert sorted(in_slices(table.page, 0.0, table.now, table.at_once)) == [0, 1]
    assert table.asked == 1


def test_a_busy_week_takes_few_questions_for_each_page():
    chance = random.Random(7)
    table = Table([chance.expovariate(1 / 50_000) for _ in range(1000)])
    assert len(list(in_slices(table.page, 0.0, table.now, table.at_once))) >= 1000
    assert table.asked < 5 * 1000 / PAGE


@pytest.mark.parametrize("url", ["", "airflow.example.com", "http://", "/api/v2"])
def test_what_is_no_url_is_said(url):
    with pytest.raises(NoAnswer, match="is not the URL of an Airflow; write one such as"):
        AirflowApi(url)


def test_a_password_in_the_url_is_used_and_not_shown():
    api = AirflowApi("https://me:hunter2@airflow.example.com:8443/prod/")
    assert api.url == "https://airflow.example.com:8443/prod"
    assert "hunter2" not in repr(vars(api)["url"])


@pytest.mark.parametrize(
    ("text", "number"), [("1970-01-01T00:00:01Z", 1.0), ("1970-01-01T01:00:00+01:00", 0.0), (None, None)]
)
def test_times_are_read_with_their_offset(text, number):
    assert seconds(text) == number


def test_httpx_is_loaded_with_the_first_question_only():
    script = "import sys, airflow_resilient.airflow_api; print('httpx' in sys.modules)"
    alone = "import sys, airflow_resilient.operators; print('httpx' in sys.modules)"
    seen = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        for code in (script, alone)
    ]
    assert seen[0] == seen[1], "Airflow may load it by itself; we add nothing"
