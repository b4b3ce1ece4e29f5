"""What the tests of the command line share."""

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
