"""Every public name stands in the reference, in a guide that shows what it is for, and in the changelog."""

import re
from pathlib import Path

import pytest

import airflow_resilient
import airflow_resilient.testing
from airflow_resilient.registry import OPERATIONS, public_names

ROOT = Path(__file__).parents[2]
NAMES = sorted({*airflow_resilient.__all__, *public_names(), *airflow_resilient.testing.__all__})
COMMANDS = [f"airflow-resilient {name}" for name in OPERATIONS]
REFERENCE = ["docs/reference.md"]
CHANGELOG = ["CHANGELOG.md", "changelog.d/*.md"]
GUIDES = ["README.md", "docs/*.md", "docs/recipes/*.md", "docs/recipes/*.py"]
NOT_SHOWN = {"RemoteJobTrigger": "operators and sensors defer to it; nobody creates one"}
"""Names that no guide shows, and why."""
CODE = re.compile(r"^```.*?^```|(`+)[^`].*?\1", re.DOTALL | re.MULTILINE)


def texts(patterns):
    return {path: path.read_text() for each in patterns for path in sorted(ROOT.glob(each))}


def code_of(path, text):
    """A file of Python, or what a page writes as code: blocks, and words between backticks."""
    return text if path.suffix == ".py" else "\n".join(found.group() for found in CODE.finditer(text))


def pages_with(name, pages):
    word = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    return [path.name for path, text in pages.items() if word.search(code_of(path, text))]


@pytest.fixture(scope="module")
def guides():
    return {path: text for path, text in texts(GUIDES).items() if path.name != "reference.md"}


@pytest.mark.parametrize("name", [*NAMES, *COMMANDS])
def test_it_is_in_the_reference(name):
    assert pages_with(name, texts(REFERENCE)), f"docs/reference.md does not document {name}"


@pytest.mark.parametrize("name", [*NAMES, *COMMANDS])
def test_it_is_in_the_changelog(name):
    assert pages_with(name, texts(CHANGELOG)), f"no line of the changelog names `{name}`"


@pytest.mark.parametrize("name", [each for each in [*NAMES, *COMMANDS] if each not in NOT_SHOWN])
def test_a_guide_shows_it(name, guides):
    assert pages_with(name, guides), f"no recipe, no guide and not the README shows `{name}`"


@pytest.mark.parametrize("name", NOT_SHOWN)
def test_what_no_guide_shows_is_a_public_name_that_no_guide_shows(name, guides):
    assert name in NAMES
    assert pages_with(name, guides) == [], "a guide shows it: take it out of NOT_SHOWN"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("call `local(context)` there", True, id="between backticks"),
        pytest.param("```python\nfrom airflow_resilient import local\n```\n", True, id="in a block"),
        pytest.param("the local time", False, id="a word of a sentence"),
        pytest.param("the macro `local_ds` shows it", False, id="a part of another name"),
        pytest.param("`a` local `b`", False, id="between two spans"),
    ],
)
def test_a_name_is_shown_where_it_is_written_as_code(text, shown):
    assert bool(pages_with("local", {Path("page.md"): text})) is shown
