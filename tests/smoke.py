"""Say whether the wheel and the source distribution in a folder are whole, and the installed one works.

``tox -e wheel`` runs it with nothing installed but the package and what it depends on.
"""

import importlib.metadata
import sys
import tarfile
import zipfile
from pathlib import Path

WANTED_IN_WHEEL = {
    "airflow_resilient/__init__.py",
    "airflow_resilient/py.typed",
    "airflow_resilient/operations/page.html",
    "airflow_resilient/operations/shipped/alertmanager.yml",
}
WANTED_IN_SOURCE = {"README.md", "LICENSE", "setup.cfg", "pyproject.toml", *WANTED_IN_WHEEL}


def check_wheel(path: Path) -> None:
    names = set(zipfile.ZipFile(path).namelist())
    assert names >= WANTED_IN_WHEEL, WANTED_IN_WHEEL - names
    others = {name for name in names if not name.startswith(("airflow_resilient/", "airflow_resilient-"))}
    assert not others, f"the wheel would install {sorted(others)} beside the package"


def check_source(path: Path) -> None:
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= WANTED_IN_SOURCE, WANTED_IN_SOURCE - names


def use_installed() -> int:
    import airflow_resilient

    location = Path(airflow_resilient.__file__)
    assert location.is_relative_to(sys.prefix), f"{location} is not the installed package"
    assert importlib.metadata.version("airflow-resilient") == airflow_resilient.__version__
    for name in airflow_resilient.__all__:
        getattr(airflow_resilient, name)
    return len(airflow_resilient.__all__)


def main() -> None:
    folder = Path(sys.argv[1])
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    check_wheel(wheel)
    check_source(source)
    print(f"{wheel.name}, {source.name}: whole; {use_installed()} public names load from the installed wheel")


if __name__ == "__main__":
    main()
