"""What is installed says the same everywhere: metadata, provider info, documentation and changelog."""

import doctest
import json
import logging
import os
import pkgutil
import re
import subprocess
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest

import airflow_resilient
import airflow_resilient.testing
from airflow_resilient.provider_info import DISTRIBUTION, get_provider_info

ROOT = Path(__file__).parents[2]
INSTALLED = Path(airflow_resilient.__file__).parent


def text_of(*patterns: str) -> str:
    return "\n".join(path.read_text() for pattern in patterns for path in sorted(ROOT.glob(pattern)))


def mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text) is not None


MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(INSTALLED)], prefix="airflow_resilient.")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_right(name):
    logging.disable()  # Airflow 2 sends log lines to standard output, which an example shows
    try:
        assert doctest.testmod(import_module(name)).failed == 0
    finally:
        logging.disable(logging.NOTSET)


def test_the_version_is_the_same_everywhere():
    declared = re.search(r"^version = (.+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE).group(1)
    assert metadata.version(DISTRIBUTION) == declared
    assert airflow_resilient.__version__ == declared
    assert get_provider_info()["versions"] == [declared]


def test_tox_tests_the_wheel_and_not_the_checkout():
    if "TOX_ENV_NAME" in os.environ:
        assert ROOT not in INSTALLED.parents or ROOT / ".tox" in INSTALLED.parents


def test_type_checkers_see_that_the_package_is_typed():
    assert (INSTALLED / "py.typed").is_file()


def test_the_entry_point_is_what_airflow_looks_for():
    (entry,) = (
        entry
        for entry in metadata.entry_points(group="apache_airflow_provider")
        if entry.dist is not None and entry.dist.name == DISTRIBUTION
    )
    assert entry.load() is get_provider_info


def test_provider_info_is_valid_for_airflow():
    (airflow,) = find_spec("airflow").submodule_search_locations
    schema = json.loads((Path(airflow) / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)


def test_provider_info_can_be_sent_as_json():
    assert json.loads(json.dumps(get_provider_info())) == get_provider_info()


def test_every_option_is_explained():
    for section, content in get_provider_info()["config"].items():
        assert section == airflow_resilient.__name__
        for name, option in content["options"].items():
            assert option["description"].strip(), name
            assert option["version_added"], name
            assert mentions(text_of("docs/*.md"), name), f"docs/ never mention the option {name}"


def test_links_of_provider_info_exist():
    """In a process of its own: Airflow's base classes take their time, and other tests need not wait."""
    names = get_provider_info()["extra-links"]
    script = "\n".join(f"from {name.rpartition('.')[0]} import {name.rpartition('.')[2]}" for name in names)
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


@pytest.mark.parametrize("name", airflow_resilient.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(airflow_resilient, name) is not None


@pytest.mark.parametrize("name", airflow_resilient.testing.__all__)
def test_every_public_name_for_tests_can_be_imported(name):
    assert getattr(airflow_resilient.testing, name) is not None


def test_public_names_are_what_dir_shows():
    assert set(airflow_resilient.__all__) <= set(dir(airflow_resilient))


def test_readme_and_ci_run_the_same_command():
    (command,) = re.findall(r"^(python3 -m venv .*/tox run)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text()
