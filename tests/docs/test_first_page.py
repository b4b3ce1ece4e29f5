"""The first page shows the fault matrix in short as docs/faults_in_short.py takes it from the whole table."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

import faults_in_short  # noqa: E402

PAGE = faults_in_short.TABLE.read_text()


def test_the_short_table_is_taken_from_the_whole_one():
    written = faults_in_short.SHORT.read_text()
    assert written == faults_in_short.markdown(PAGE), "run: python docs/faults_in_short.py"


def test_the_first_page_includes_it():
    assert f"{{include}} _generated/{faults_in_short.SHORT.name}" in (DOCS / "index.md").read_text()


def test_it_counts_what_the_whole_table_counts():
    (theirs, ours) = (
        [cell.strip() for cell in line.split("|")[2:6]]
        for name in (faults_in_short.THEIRS, faults_in_short.OURS)
        for line in PAGE.splitlines()
        if line.startswith(f"| {name} | ")
    )
    cases, right, limits, wrong = ours
    assert wrong == "0"
    assert f"| **all** | {cases} | {theirs[1]} | {right} | {limits} |" in faults_in_short.markdown(PAGE)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("✓ 1 / 0 / 0 / = / 1 (+1)", "✓ 1 job, none left running"),
        ("✗ 2 / 1 / 0 / = / 1, 2 at once", "✗ 2 jobs at the same time, 1 job left running"),
        (
            "✗ 2 / 0 / 1 / = / 2",
            "✗ 2 jobs instead of 1, a job that is still wanted is cancelled, 1 retry too many",
        ),
        ("✗ 1 / 0 / 0 / false ✓ / 1", "✗ reported as success, though the job was stopped"),
    ],
)
def test_a_cell_in_words(cell, words):
    wanted = faults_in_short.Figures.read("1 / 0 / 0 / = / 1")
    assert faults_in_short.Figures.read(cell).against(wanted) == words


def test_what_is_no_cell_is_refused():
    with pytest.raises(ValueError, match="not a cell"):
        faults_in_short.Figures.read("1 / 0")
