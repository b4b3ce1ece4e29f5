"""The cells of the table say what was seen."""

import pytest

from kills.cases import ROWS, Figures
from kills.report import short, table
from kills.runner import Result

CELLS = [
    pytest.param(Figures(), "1 · 0 / 0 · success, 1 try · 0 / 0", id="as-wanted"),
    pytest.param(
        Figures(made=2, at_once=2, running=1, kept=1, tries=2, lost=3, doubled=4),
        "2 (2 at once) · 1 / 1 · success, 2 tries · 3 / 4",
        id="two-at-once",
    ),
    pytest.param(Figures(done=False), "1 · 0 / 0 · **false** success, 1 try · -", id="it-was-stopped"),
    pytest.param(Figures(state="failed"), "1 · 0 / 0 · failed, 1 try · -", id="failed"),
    pytest.param(None, "", id="not-played"),
]


@pytest.mark.parametrize(("figures", "cell"), CELLS)
def test_a_cell_says(figures, cell):
    assert short(figures) == cell


def test_every_row_stands_in_the_table_and_survives_a_file():
    result = Result("clear", "ours", Figures(made=2), 1.0)
    assert Result.from_dict(result.to_dict()) == result
    lines = table([result]).splitlines()
    assert len(lines) == len(ROWS) + 2
    assert any("cleared | 2 · " in line for line in lines)


def test_a_row_holds_only_with_exactly_what_is_wanted():
    assert Result("nothing", "ours", Figures(), 1.0).held
    assert not Result("nothing", "ours", Figures(doubled=1), 1.0).held
