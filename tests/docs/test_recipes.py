"""Every recipe is a DAG file that Airflow can import, with a page that shows it."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
PAGES = sorted(page for page in RECIPES.glob("*.md") if page.stem != "index")
FILES = sorted(path for path in RECIPES.glob("*.py") if "_" not in path.stem)
MODULES = sorted(path for path in RECIPES.glob("*.py") if "_" in path.stem)  # what DAG files import
# Pages about a command, without a DAG; their tests are in tests/unit and test_runbooks.py.
ALONE = {"alert-whoever-is-on-call", "watch-amazon-mwaa"}
PARTS = ["Situation", "Code", "What you will see", "Why it is safe", "What it does not cover"]


def stem(path: Path) -> str:
    return path.stem


def load(path: Path):
    try:
        from airflow.dag_processing.dagbag import DagBag  # Airflow 3.2 and later
    except ImportError:
        from airflow.models.dagbag import DagBag
    return DagBag(dag_folder=str(path))  # AIRFLOW__CORE__LOAD_EXAMPLES is off, see tox.ini


@pytest.mark.filterwarnings("default")  # a DAG file may use what a later Airflow deprecates
@pytest.mark.parametrize("path", FILES, ids=stem)
def test_recipe_is_a_dag_file_without_import_errors(path, monkeypatch):
    monkeypatch.syspath_prepend(str(RECIPES))  # as Airflow does with the folder of DAGs
    bag = load(path)
    assert not bag.import_errors
    assert bag.dags, "no DAG in it"
    assert all(dag.tasks for dag in bag.dags.values())


@pytest.mark.parametrize("page", PAGES, ids=stem)
def test_recipe_has_the_five_parts_in_order(page):
    assert re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE) == PARTS


@pytest.mark.parametrize("page", PAGES, ids=stem)
def test_recipe_has_a_page_and_a_file(page):
    assert (page.stem in ALONE) is not page.with_suffix(".py").is_file()


@pytest.mark.parametrize("path", [*FILES, *MODULES], ids=stem)
def test_every_region_of_a_file_is_shown(path):
    source = path.read_text()
    page = "".join(page.read_text() for page in PAGES if f"literalinclude}} {path.name}" in page.read_text())
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


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in ALONE], ids=stem)
def test_every_recipe_runs_in_a_system_test(page):
    """By a fixture of the page's name, see test_recipes_on_a_real_airflow.py, or by its file."""
    tests = "".join(path.read_text() for path in (Path(__file__).parents[1] / "system").rglob("test_*.py"))
    name = page.stem.replace("-", "_")
    assert re.search(rf"^def {name}\(|fixture\(.*name=\"{name}\"|\b{page.stem}\.py\b", tests, re.MULTILINE)


PROVIDER = "airflow.providers.amazon.aws"
DOCKER = "airflow.providers.docker"
REPLACED = [
    pytest.param(f"{PROVIDER}.operators.ecs", "EcsRunTaskOperator", id="EcsRunTaskOperator"),
    pytest.param(f"{PROVIDER}.sensors.ecs", "EcsTaskStateSensor", id="EcsTaskStateSensor"),
    pytest.param(f"{PROVIDER}.operators.emr", "EmrAddStepsOperator", id="EmrAddStepsOperator"),
    pytest.param(f"{PROVIDER}.sensors.emr", "EmrStepSensor", id="EmrStepSensor"),
    pytest.param(f"{DOCKER}.operators.docker", "DockerOperator", id="DockerOperator"),
]


@pytest.mark.filterwarnings("default")  # the provider's modules warn about themselves
@pytest.mark.parametrize(("module", "name"), REPLACED)
def test_the_table_of_parameters_has_all_of_the_providers(module, name):
    page = (RECIPES / "move-from-the-providers-operators.md").read_text()
    everywhere, own = (
        page.partition(f"### {title}\n")[2].partition("\n##")[0]
        for title in ("Every operator and sensor", name)
    )
    rows = "".join(
        line for line in f"{everywhere}\n{own}".splitlines(keepends=True) if line.startswith("| `")
    )
    listed = set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in rows.splitlines())))
    operator = getattr(import_module(module), name)
    wanted = {
        parameter
        for cls in operator.__mro__
        if cls.__module__.startswith((PROVIDER, DOCKER)) and "__init__" in vars(cls)
        for parameter, what in inspect.signature(vars(cls)["__init__"]).parameters.items()
        if parameter != "self" and what.kind is not what.VAR_KEYWORD and what.kind is not what.VAR_POSITIONAL
    }
    assert wanted - listed == set()


def test_the_recipe_about_tests_passes_its_own_tests(tmp_path):
    dags = tmp_path / "dags"
    dags.mkdir()
    recipe = Path(shutil.copy(RECIPES / "test-your-dag-without-aws.py", dags))
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    airflow = [sys.executable, "-m", "airflow"]
    subprocess.run([*airflow, "db", "migrate"], check=True, env=environment, capture_output=True, timeout=300)
    tests = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:randomly"]
    ran = subprocess.run(
        [*tests, str(recipe)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert "3 passed" in ran.stdout
