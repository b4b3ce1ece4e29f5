"""The recipes about local time pass the tests that they show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"


@pytest.mark.parametrize(
    ("recipe", "output"),
    [("move-from-local-time-to-utc", "5 passed"), ("business-days-in-local-time", "3 passed")],
)
def test_a_recipe_about_local_time_passes_its_own_tests(recipe, output, tmp_path):
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "default",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
    ]
    ran = subprocess.run(
        [*tests, str(RECIPES / f"{recipe}.py")],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    assert output in ran.stdout
