"""docs/faults.md says of the matrix what the matrix says of itself."""

from pathlib import Path

import pytest

from faults.cases import BY_ID, COUNTED, ROWS
from faults.judge import Figures
from faults.mutants import NOT_OURS, RULES
from faults.report import (
    BROKEN,
    DOCKER_TITLE,
    NAMED,
    NOT_ENDED,
    PERFECT,
    REPORTED,
    SWEEP_TITLE,
    cells,
    lines,
    markdown,
    read_page,
    rules_table,
    sign,
)
from faults.runner import Result, all_cases, representative

PAGE = (Path(__file__).parents[3] / "docs" / "faults.md").read_text()


def test_everything_impossible_is_on_the_page_with_what_heals_it():
    assert COUNTED.removeprefix("Airflow itself ") in PAGE
    for row in ROWS:
        for limit in row.impossible:
            assert limit.why in PAGE, row.id
            assert limit.heals in PAGE, row.id


def test_every_sign_of_the_table_is_on_the_page():
    for shown in REPORTED.values():
        assert f"`{shown}`" in PAGE


def test_every_rule_that_is_broken_is_on_the_page_with_its_rows():
    assert "\n".join(rules_table(RULES)) in PAGE


def test_every_row_without_a_rule_is_on_the_page():
    for row, why in NOT_OURS.items():
        assert f"`{row}`" in PAGE
        assert why in PAGE


def result(row, figures, implementation="ours", note=""):
    return Result(BY_ID[row], "runs on", "ecs", implementation, figures, note)


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        pytest.param(result("mark-failed", Figures(1)), PERFECT, id="as wanted"),
        pytest.param(result("mark-failed", Figures(1, left=1)), BROKEN, id="not as wanted"),
        pytest.param(result("mark-failed", Figures(1), note="it broke off"), BROKEN, id="it did not end"),
        pytest.param(result("mark-failed-down", Figures(1, left=1)), NAMED, id="as it is named"),
        pytest.param(result("mark-failed-down", Figures(1)), PERFECT, id="better than it is named"),
        pytest.param(result("mark-failed-down", Figures(2, left=1)), BROKEN, id="worse than it is named"),
        pytest.param(
            result("mark-failed-down", Figures(1, left=1), "provider"), NAMED, id="named for everybody"
        ),
        pytest.param(
            result("mark-failed-down", Figures(1), "swept"), PERFECT, id="the sweep ends what is left"
        ),
        pytest.param(
            result("mark-failed-down", Figures(1, left=1), "swept"), BROKEN, id="the sweep leaves a job"
        ),
        pytest.param(None, "", id="no such case"),
    ],
)
def test_a_case_has_a_sign(of, expected):
    assert sign(of) == expected


def test_the_table_has_a_line_for_each_fault_and_fate():
    page = markdown([result("mark-failed", Figures(1))], {"Airflow": "3.3.2"}, "tox run -e faults")
    table, _, swept = page.partition(f"\n## {SWEEP_TITLE}\n")
    heads = table.count("\n| what happens") + table.count("\n| airflow-resilient") + 1
    assert table.count("\n| ") - heads == len(lines())
    swept, _, docker = swept.partition(f"\n## {DOCKER_TITLE}\n")
    assert (
        docker.count("\n| ") - 1 == sum(row.applies("docker", fate) for row in ROWS for fate in row.fates) > 5
    )
    left = {(row.id, fate) for row, fate, service, _ in all_cases() if row.leaves_a_job(service, fate)}
    assert swept.count("\n| ") - 1 == len(left) > 5
    assert "| marked as failed (`mark-failed`) | runs on | 1 / 0 / 0 / = / 0 | ✓ 1 / 0 / 0 / = / 0 |" in page


def test_a_page_is_read_as_it_was_written():
    results = [
        result("mark-failed", Figures(2, 1, 1, "false success", 3, 2, 1)),
        result("mark-failed", Figures(1), "provider"),
        result("mark-failed-down", Figures(1, left=1)),
        result("mark-failed-down", Figures(1), "swept"),
        result("spot", Figures(1, reported="not as asked"), "provider"),
        result("here-mark", Figures(1), note=NOT_ENDED),
        Result(BY_ID["mark-paused"], "runs on", "docker", "ours", Figures(1, by_scheduler=2)),
    ]
    page = markdown(results, {"Airflow": "3.3.2"}, "tox run -e faults")
    assert cells(read_page(page)) == cells(results)


def test_results_survive_json():
    before = result("spot", Figures(2, by_scheduler=1), note="why")
    assert Result.from_dict(before.to_dict()) == before


def test_the_part_for_every_check_has_every_row_once_with_aws_and_once_with_docker_where_it_applies():
    chosen = representative()
    assert [row.id for row, _, service, _ in chosen if service != "docker"] == [row.id for row in ROWS]
    on_docker = [row for row, _, service, _ in chosen if service == "docker"]
    assert on_docker == [row for row in ROWS if "docker" in row.services]
    assert {implementation for *_, implementation in chosen} == {"ours"}
    assert all(case in all_cases() for case in chosen)
    assert {service for _, _, service, _ in chosen} == {"ecs", "emr", "docker"}
