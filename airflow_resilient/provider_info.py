"""What Airflow's list of providers shows about this package, and its section of Airflow's configuration."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

DISTRIBUTION = "airflow-resilient"

# Airflow imports these when it draws a page of the UI, so they are named and not imported here.
EXTRA_LINKS = (
    "airflow_resilient.links.EcsTaskLink",
    "airflow_resilient.links.EcsTaskLogsLink",
    "airflow_resilient.links.EmrClusterLink",
    "airflow_resilient.links.EmrStepLogsLink",
)

CONFIG = {
    "airflow_resilient": {
        "description": "Options of the airflow-resilient package.",
        "options": {
            "namespace": {
                "description": (
                    "What tells this deployment's remote jobs from those of other deployments in the same\n"
                    "AWS account. Empty: the base URL, which is right where every deployment has its own.\n"
                    "Two deployments with the same value regard jobs of equal DAG runs as the same jobs;\n"
                    "that is how a DAG moves from one to the other while its job runs.\n"
                    "A change while jobs are in flight makes their task instances start new ones.\n"
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "production",
                "default": "",
            },
            "local_timezone": {
                "description": (
                    "The time zone of the macros for local time (local_ds and the like) where neither the\n"
                    "call nor the DAG names one, such as Europe/Paris.\n"
                    "Empty: the time zone of the DAG, which is that of its start_date.\n"
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "America/New_York",
                "default": "",
            },
        },
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return what Airflow's entry point ``apache_airflow_provider`` asks for.

    :return: ``{"package-name": str, "name": str, "description": str, "versions": [str], "extra-links": [str],
        "config": {section: {"description": str, "options": {...}}}}``.

    Source: ``provider_info.schema.json``, which every release of Airflow contains.
    Verified: ``test_provider_info_is_valid_for_airflow``.
    """
    return {
        "package-name": DISTRIBUTION,
        "name": "Resilient",
        "description": "Crash-safe, always-deferring operators: ECS tasks and EMR steps that run once.",
        "versions": [version(DISTRIBUTION)],
        "extra-links": list(EXTRA_LINKS),
        "config": CONFIG,
    }
