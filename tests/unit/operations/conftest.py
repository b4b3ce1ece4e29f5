"""What the tests of the command line share."""

import ast
import subprocess
import sys

import pytest


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch):
    for name in ("URL", "TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"AIRFLOW_API_{name}", raising=False)
    for name in ("HOST", "TLS_VERIFY", "CERT_PATH"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)


@pytest.fixture
def configured(monkeypatch):
    """Set this Airflow's base URL and namespace."""

    def configured(base_url="", namespace=""):
        for section in ("API", "WEBSERVER"):
            monkeypatch.setenv(f"AIRFLOW__{section}__BASE_URL", base_url)
        monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__NAMESPACE", namespace)

    return configured


@pytest.fixture
def imported_by():
    """Run a script in a process of its own: which modules it has loaded of those that cost much."""

    def imported_by(script):
        heavy = {"airflow", "boto3", "docker", "httpx", "moto"}
        shown = f"\nimport sys\nprint(sorted({{name.split('.')[0] for name in sys.modules}} & {heavy}))\n"
        done = subprocess.run(
            [sys.executable, "-c", script + shown], capture_output=True, text=True, check=True
        )
        return set(ast.literal_eval(done.stdout.splitlines()[-1]))

    return imported_by
