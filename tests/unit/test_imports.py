"""Imports of the package point one way, and importing it stays cheap."""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_resilient
from airflow_resilient.registry import SERVICES

PACKAGE = Path(airflow_resilient.__file__).parent

# What may import what, imports inside functions included; those for the type checker are not counted. A name
# is a file at the top, a folder, or a file in a folder. A folder may import from itself, and everything
# may import from a package's own docstring-only `__init__`.
MAY_IMPORT: dict[str, set[str]] = {
    "core": set(),
    "watching": {"core"},
    "aws": {"core", "compat", "watching.budget"},
    "compat": {"core.threads"},
    "settings": {"core", "compat"},
    "errors": {"core", "compat"},
    "registry": {"core"},
    "deployment": {"core", "compat", "errors", "registry"},
    "parameters": {"core", "settings", "errors"},
    "background": {"core", "compat", "settings", "registry", "deployment", "aws", "watching"},
    "triggers": {"core", "compat", "background", "deployment", "watching"},
    "operators": {"core", "compat", "settings", "errors", "parameters", "deployment", "triggers"},
    "sensors": {"core", "compat", "settings", "errors", "parameters", "deployment", "triggers"},
    "services": {
        "core",
        "aws",
        "watching.budget",
        "compat",
        "settings",
        "errors",
        "parameters",
        "operators",
        "sensors",
    },
    # aws: what an error of AWS means, and an Airflow connection's credentials, for Amazon MWAA.
    "operations": {"core", "compat", "errors", "parameters", "deployment", "registry", "aws"},
    "scheduling": {"core.needs", "core.beat", "compat", "settings", "errors", "parameters"},
    "plugin": {"scheduling"},
    "provider_info": {"registry", "settings"},
    "cli": {"registry", "operations"},
    "__main__": {"cli"},
    "__init__": {"registry"},
}
# Half a second and more, each: imported where used, so that parsing a DAG file does not pay for them.
HEAVY = ("airflow.providers", "boto3", "botocore", "docker", "httpx", "moto", "matplotlib", "requests")
# Loads its names one by one when they are asked for, and exists to be imported on every version.
LIGHT = "airflow.providers.common.compat.sdk"


def modules(folder: str = "") -> list[Path]:
    return sorted(path for path in (PACKAGE / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    """`aws/access.py` is `aws.access`, `aws/__init__.py` is `aws`, and the package itself `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in modules()}
OURS = [name for name in NAMES if name.split(".")[0] != "testing"]


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
    """Full names of what a module imports, names that it takes included; `package` is where it lives."""
    for node in statements(ast.parse(source).body, at_import=at_import):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = ("airflow_resilient", *package)
            base = ".".join(here[: len(here) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own(names: Iterator[str]) -> set[str]:
    """Which of our own modules these are."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != "airflow_resilient":
            continue
        # The longest name that is a module; what is left is a name in it.
        for end in range(len(parts), 0, -1):
            if (module := ".".join(parts[1:end]) or "__init__") in NAMES:
                found.add(module)
                break
    return found


def imported_by(name: str, *, at_import: bool) -> Iterator[str]:
    path = NAMES[name]
    package = path.relative_to(PACKAGE).parent.parts
    return imported(path.read_text(), package=package, at_import=at_import)


def is_within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


@pytest.mark.parametrize("name", OURS)
def test_a_module_imports_only_what_its_folder_may(name):
    place = name.split(".")[0]
    allowed = {place, *MAY_IMPORT[place]}
    wrong = {
        other
        for other in own(imported_by(name, at_import=False))
        if not any(is_within(other, each) for each in allowed)
    }
    assert not wrong, f"{place} may not import {sorted(wrong)}"


def test_no_file_is_in_a_circle_of_imports():
    arrows = {name: own(imported_by(name, at_import=False)) - {name} for name in NAMES}
    left = dict(arrows)
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, "these import each other, or what imports each other"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_knows_no_other_service(service):
    others = tuple(f"services.{other}" for other in SERVICES if other != service)
    for name in NAMES:
        if is_within(name, f"services.{service}"):
            assert not [
                each for each in own(imported_by(name, at_import=False)) if each.startswith(others)
            ], name


def test_the_registry_names_every_folder_of_a_service():
    folders = {path.parent.name for path in (PACKAGE / "services").glob("*/service.py")}
    assert folders == set(SERVICES)
    assert {path.name for path in (PACKAGE / "services").iterdir() if path.is_dir()} - {
        "__pycache__"
    } == folders


def words_of_code(source: str) -> Iterator[tuple[int, str]]:
    """Names and texts of a module with their lines, without comments and docstrings."""
    docstrings = {
        node.value.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NAME, tokenize.STRING) and token.start[0] not in docstrings:
            yield token.start[0], token.string


SERVICE_WORDS = re.compile(r"(?i)(?<![a-z])(ecs|emr|docker)(?![a-z])")


@pytest.mark.parametrize(
    "name", [name for name in OURS if name.split(".")[0] not in ("services", "registry", "__init__")]
)
def test_code_outside_of_its_folder_names_no_service(name):
    found = [
        (line, word) for line, word in words_of_code(NAMES[name].read_text()) if SERVICE_WORDS.search(word)
    ]
    assert not found


@pytest.mark.parametrize(
    "name",
    [name for name in OURS if is_within(name, "core") or re.fullmatch(r"services\.\w+\.service", name)],
)
def test_the_core_and_what_services_say_of_themselves_need_the_standard_library_only(name):
    foreign = {
        other
        for other in imported_by(name, at_import=False)
        if other.split(".")[0] not in {*sys.stdlib_module_names, "airflow_resilient"}
    }
    assert not foreign
    assert all(is_within(other, "core") for other in own(imported_by(name, at_import=False)))


@pytest.mark.parametrize("name", OURS)
def test_importing_a_module_imports_nothing_heavy(name):
    heavy = [
        other
        for other in imported_by(name, at_import=True)
        if not is_within(other, LIGHT) and any(is_within(other, root) for root in HEAVY)
    ]
    assert not heavy, f"import {heavy} in the function that uses it, or under TYPE_CHECKING"


def test_nothing_but_itself_imports_what_users_test_with():
    assert not [
        name
        for name in OURS
        if any(is_within(each, "testing") for each in own(imported_by(name, at_import=False)))
    ]


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
    pytest.param("from . import compat", ["airflow_resilient.compat"], id="a-module-of-ours"),
    pytest.param("from .core.job import Claim", ["airflow_resilient.core.job.Claim"], id="a-name-of-ours"),
]


@pytest.mark.parametrize(("source", "names"), READER)
def test_the_reader_of_imports_sees_what_runs_at_import(source, names):
    assert list(imported(source, at_import=True)) == names


@pytest.mark.parametrize(
    ("source", "package", "module"),
    [
        pytest.param("from ..core.job import Claim", ("watching",), "core.job", id="a-name-in-a-module"),
        pytest.param("from ..core import job", ("watching",), "core.job", id="a-module-in-a-folder"),
        pytest.param("from ...settings import current", ("services", "ecs"), "settings", id="at-the-top"),
        pytest.param("from . import metrics", ("watching",), "watching.metrics", id="a-neighbour"),
    ],
)
def test_the_reader_of_imports_knows_where_a_module_lives(source, package, module):
    assert own(imported(source, package=package, at_import=True)) == {module}


def test_the_reader_of_words_passes_over_comments_and_docstrings():
    source = '"""ecs"""\n# ecs\ndef f():\n    """Say ecs."""\n    return "ecs"\n'
    assert [line for line, word in words_of_code(source) if SERVICE_WORDS.search(word)] == [5]
