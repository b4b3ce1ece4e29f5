"""The cells of the table say what was seen, and what is named is what differs."""

import pytest

from airflow_resilient.core.waiting import why_in_worker
from subclasses.cases import BY_ID, HOOKS, OURS, RECIPE, ROWS, Seen
from subclasses.report import held, table, verdict

RAN = Seen(states=({"run": "success", "a": "success"},), tries=({"a": 2},), requests=("x", "x"))
ONE_TRY = Seen(**{**vars(RAN), "tries": ({"a": 1},), "where": "in the worker"})
REFUSED = Seen(error="Traceback ...\nTypeError: GpuOperator overrides _run_image_with_mounts, which")


@pytest.mark.parametrize(
    ("row", "seen", "name", "expected"),
    [
        pytest.param("own_request", ONE_TRY, OURS, True, id="as-named"),
        pytest.param("own_outcome", ONE_TRY, OURS, False, id="not-named"),
        pytest.param("own_request", RAN, OURS, False, id="named-and-not-there"),
        pytest.param("own_request", ONE_TRY, HOOKS, False, id="in-the-worker-though-it-has-hooks"),
        pytest.param("own_container", REFUSED, OURS, True, id="refused"),
        pytest.param("own_container", RAN, OURS, False, id="not-refused"),
        pytest.param("own_container", Seen(error="SyntaxError: x"), OURS, False, id="another-error"),
    ],
)
def test_a_case_holds(row, seen, name, expected):
    assert held(BY_ID[row], RAN, seen, name) is expected


def test_a_job_that_failed_may_be_followed_by_another_one_where_the_scheduler_has_failed_a_try():
    once = Seen(**{**vars(RAN), "requests": ("x",), "failed": ("x",)})
    twice = Seen(**{**vars(RAN), "requests": ("x", "x"), "failed": ("x", "x")})
    assert once.differences(twice) == {"requests"}
    assert once.differences(Seen(**{**vars(twice), "by_scheduler": 1})) == set()
    for others in ({"failed": ("x",)}, {"failed": ()}, {"requests": ("x", "y")}):
        assert once.differences(Seen(**{**vars(twice), "by_scheduler": 1, **others})) == {"requests"}


def test_a_cell_says_what_was_seen_and_what_differs():
    assert verdict(BY_ID["own_request"], RAN, ONE_TRY, OURS).split("<br>") == [
        "success in 1 try · 2 jobs",
        "waits in the worker",
        "differs: lost capacity uses up no retry: the same try submits the same request again",
    ]
    assert verdict(BY_ID["own_container"], RAN, REFUSED, OURS) == (
        "the DAG file is refused: `GpuOperator overrides _run_image_with_mounts, which`"
    )


def test_a_file_differs_from_the_provider_s_in_its_import_lines_alone():
    for row in ROWS:
        pairs = list(zip(row.source("provider").splitlines(), row.source(OURS).splitlines(), strict=True))
        changed = [(before, after) for before, after in pairs if before != after]
        assert changed, row.id
        assert all(
            before.startswith("from airflow.providers.")
            and after.startswith("from airflow_resilient import ")
            for before, after in changed
        )


def test_the_page_shows_every_row_and_names_what_differs():
    page = (RECIPE.parents[1] / "_generated" / "subclasses.md").read_text()
    assert "NOT NAMED" not in page
    for row in ROWS:
        assert f"| {row.what} (`{row.id}`) |" in page
        assert not row.refused or row.refused in page


def test_the_page_quotes_what_the_log_says():
    page = RECIPE.with_suffix(".md").read_text()
    assert f"```text\n{why_in_worker(overrides='ExportOperator')}\n```" in page


def test_every_row_that_was_played_stands_in_the_table():
    results = {row.id: dict.fromkeys(row.implementations, RAN) for row in ROWS}
    assert len(table(results).splitlines()) == len(ROWS) + 2
