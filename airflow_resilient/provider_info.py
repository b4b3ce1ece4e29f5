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
            "api_budget_share": {
                "description": (
                    "How much of the budget of calls that AWS gives to the account the looks of one\n"
                    "triggerer may use, from 0 to 1. Divide it by the number of triggerers.\n"
                ),
                "version_added": "0.1.0",
                "type": "float",
                "example": "0.25",
                "default": "0.5",
            },
            "api_budgets": {
                "description": (
                    "Budgets that AWS has raised for the account: API, calls per second, calls at once.\n"
                    "Empty: what AWS publishes, which is emr:ListSteps=0.5/10, ecs:DescribeTasks=20/100.\n"
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "emr:ListSteps=2/40, ecs:DescribeTasks=50/200",
                "default": "",
            },
            "poll_interval": {
                "description": (
                    "Longest time between two looks at a job, in seconds, where neither waiter_delay,\n"
                    "poke_interval nor patience of the operator says it.\n"
                    "Empty: the operator's default, 6 for ECS tasks and 30 for EMR steps.\n"
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "15",
                "default": "",
            },
            "first_look": {
                "description": (
                    "Shortest time between two looks at a remote job, and until the first one, in seconds.\n"
                ),
                "version_added": "0.1.0",
                "type": "float",
                "example": "5",
                "default": "2",
            },
            "longest_backoff": {
                "description": (
                    "Longest time, in seconds, until a cluster that gives no answer is asked again.\n"
                ),
                "version_added": "0.1.0",
                "type": "float",
                "example": "120",
                "default": "300",
            },
            "looks_at_once": {
                "description": (
                    "How many looks of one service and connection may be under way at the same time in a\n"
                    "triggerer. Each holds a thread until AWS answers.\n"
                ),
                "version_added": "0.1.0",
                "type": "integer",
                "example": "16",
                "default": "8",
            },
            "events_queue_url": {
                "description": (
                    "URL of an SQS queue that EventBridge fills with the events ECS Task State Change and\n"
                    "EMR Step Status Change. An event makes the triggerer look at once. Empty: no queue.\n"
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "https://sqs.eu-west-1.amazonaws.com/123456789012/airflow-events",
                "default": "",
            },
            "events_aws_conn_id": {
                "description": "The Airflow connection with which that queue is read.\n",
                "version_added": "0.1.0",
                "type": "string",
                "example": "aws_events",
                "default": "aws_default",
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
