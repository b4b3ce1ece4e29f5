"""Every recipe is a DAG file that Airflow can import, with a page that shows it."""

import re
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
PAGES = sorted(page for page in RECIPES.glob("*.md") if page.stem != "index")
FILES = sorted(RECIPES.glob("*.py"))
PARTS = ["Situation", "Code", "What you will see", "Why it is safe", "What it does not cover"]


def stem(path: Path) -> str:
    return path.stem


def load(path: Path):
    try:
        from airflow.dag_processing.dagbag import DagBag  # Airflow 3.2 and later
    except ImportError:
        from airflow.models.dagbag import DagBag
    return DagBag(dag_folder=str(path), include_examples=False)


@pytest.mark.filterwarnings("default")  # a DAG file may use what a later Airflow deprecates
@pytest.mark.parametrize("path", FILES, ids=stem)
def test_recipe_is_a_dag_file_without_import_errors(path):
    bag = load(path)
    assert not bag.import_errors
    assert bag.dags, "no DAG in it"
    assert all(dag.tasks for dag in bag.dags.values())


@pytest.mark.parametrize("page", PAGES, ids=stem)
def test_recipe_has_the_five_parts_in_order(page):
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == PARTS


@pytest.mark.parametrize("page", PAGES, ids=stem)
def test_recipe_has_a_page_and_a_file(page):
    assert page.with_suffix(".py").is_file()


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_what_a_page_shows_is_between_markers_of_the_file(path):
    source, page = path.read_text(), path.with_suffix(".md").read_text()
    starts, ends = (re.findall(rf"^\s*# {mark} (.+)$", source, re.MULTILINE) for mark in ("START", "END"))
    assert starts, "the page has nothing to show"
    assert starts == ends
    for region in starts:
        assert f":start-after: START {region}" in page
        assert f":end-before: END {region}" in page


def test_every_recipe_stands_in_the_index():
    index = (RECIPES / "index.md").read_text()
    assert PAGES
    assert not [page.stem for page in PAGES if f"\n{page.stem}\n" not in index]
