"""Imports of the package point one way, and importing it stays cheap."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_resilient

PACKAGE = Path(airflow_resilient.__file__).parent

SERVICES = {"docker", "ecs", "emr"}
# From the bottom up: a module may import from its own layer and from those above it in this table.
# A module that stands nowhere may import everything but `testing`, and nothing in the table may import it.
LAYERS = (
    ("the concept, with nothing but the standard library", {"jobs", "provider_info", "threads", "words"}),
    ("which jobs nobody wants, the same", {"sweep"}),
    ("what depends on the version of Airflow", {"compat"}),
    ("what is raised", {"errors"}),
    ("local time", {"timezones"}),
    ("how many calls may be made", {"budget"}),
    ("how waiting jobs are looked at together", {"watch"}),
    ("what the configuration says about it", {"settings"}),
    ("how AWS is reached", {"aws", "logs"}),
    ("what AWS tells by itself, and what is told of it all", {"events", "metrics"}),
    ("what is refused, and what parameters operators share", {"parameters"}),
    (
        "what defers: operators, sensors, triggers and the links they show",
        {"links", "operators", "sidecars", "triggers"},
    ),
    ("services, one file each", SERVICES),
    ("which runs of a DAG go on", {"latest_only"}),
    ("what Airflow answers to somebody outside", {"airflow_api"}),
    ("what a person on call asks", {"explain", "orphans"}),
    ("the command line", {"cli", "__main__"}),
    ("what Airflow finds by entry point", {"plugin"}),
    ("the public names", {"__init__"}),
    ("what users test with", {"testing"}),
)
RANK = {name: rank for rank, (_, names) in enumerate(LAYERS) for name in names}
SERVICE_RANK = RANK["ecs"]
STANDARD_LIBRARY_ONLY = {"budget", "jobs", "provider_info", "sweep", "threads", "watch", "words"}
# Half a second and more, each: imported where used, so that parsing a DAG file does not pay for them.
HEAVY = ("airflow.providers", "boto3", "botocore", "docker", "httpx", "moto", "matplotlib", "requests")
# Loads its names one by one when they are asked for, and exists to be imported on every version.
LIGHT = "airflow.providers.common.compat.sdk"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """`testing/aws.py` is `testing`: a folder has one place in the table."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(nodes: list[ast.stmt], *, at_import: bool) -> Iterator[ast.stmt]:
    """Every statement, or only those that run at import; never those for the type checker."""
    for node in nodes:
        if is_type_checking(node):
            yield from statements(node.orelse, at_import=at_import)
            continue
        yield node
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            for child in getattr(node, field, []):
                yield from statements(
                    child.body if not isinstance(child, ast.stmt) else [child], at_import=at_import
                )


def imported(source: str, *, package: tuple[str, ...] = (), at_import: bool) -> Iterator[str]:
    """Full names of what a module imports; `package` is where it lives below `airflow_resilient`."""
    for node in statements(ast.parse(source).body, at_import=at_import):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = ("airflow_resilient", *package)
            base = ".".join(here[: len(here) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            if module == "airflow_resilient":  # from . import jobs
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


def own(names: Iterator[str]) -> Iterator[str]:
    """Which of our own modules these are."""
    for name in names:
        parts = name.split(".")
        if parts[0] == "airflow_resilient" and len(parts) > 1:
            yield parts[1]


def imported_by(path: Path, *, at_import: bool) -> Iterator[str]:
    return imported(path.read_text(), package=path.relative_to(PACKAGE).parent.parts, at_import=at_import)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_one_way(path):
    name = name_of(path)
    if name == "__init__":  # loads public names on demand, from everywhere
        return
    rank = RANK.get(name, SERVICE_RANK)
    wrong = [
        other
        for other in own(imported_by(path, at_import=False))
        if RANK.get(other, SERVICE_RANK if rank >= SERVICE_RANK else len(LAYERS)) > rank
    ]
    assert not wrong, f"{name} stands below {wrong} in LAYERS"


@pytest.mark.parametrize("path", [path for path in modules() if name_of(path) in SERVICES], ids=name_of)
def test_a_service_is_one_file_and_knows_no_other_service(path):
    others = SERVICES - {name_of(path)}
    assert not others.intersection(own(imported_by(path, at_import=False)))


@pytest.mark.parametrize(
    "path", [path for path in modules() if name_of(path) in STANDARD_LIBRARY_ONLY], ids=name_of
)
def test_the_concept_needs_the_standard_library_only(path):
    foreign = {
        name
        for name in imported_by(path, at_import=False)
        if name.split(".")[0] not in {*sys.stdlib_module_names, "airflow_resilient"}
    }
    assert not foreign


@pytest.mark.parametrize("path", [path for path in modules() if name_of(path) != "testing"], ids=name_of)
def test_importing_a_module_imports_nothing_heavy(path):
    heavy = [
        name
        for name in imported_by(path, at_import=True)
        if name != LIGHT and any(name == root or name.startswith(f"{root}.") for root in HEAVY)
    ]
    assert not heavy, f"import {heavy} in the function that uses it, or under TYPE_CHECKING"


READER = [
    pytest.param("import boto3", ["boto3"], id="at-the-top"),
    pytest.param(
        "try:\n    import boto3\nexcept ImportError:\n    import moto", ["boto3", "moto"], id="in-a-try"
    ),
    pytest.param("class A:\n    import boto3", ["boto3"], id="in-a-class-body"),
    pytest.param("def f():\n    import boto3", [], id="in-a-function-costs-nothing"),
    pytest.param(
        "if TYPE_CHECKING:\n    import boto3\nelse:\n    import moto", ["moto"], id="for-the-type-checker"
    ),
    pytest.param("from . import jobs", ["airflow_resilient.jobs"], id="a-module-of-ours"),
    pytest.param("from .jobs import Claim", ["airflow_resilient.jobs"], id="a-name-of-ours"),
]


@pytest.mark.parametrize(("source", "names"), READER)
def test_the_reader_of_imports_sees_what_runs_at_import(source, names):
    assert list(imported(source, at_import=True)) == names


def test_the_reader_of_imports_knows_where_a_module_lives():
    found = imported("from ..jobs import Claim", package=("testing",), at_import=True)
    assert list(own(found)) == ["jobs"]


def test_every_module_stands_in_at_most_one_layer():
    assert sum(len(names) for _, names in LAYERS) == len(RANK)
