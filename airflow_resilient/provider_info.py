"""The entry of this package in Airflow's list of providers, and its section of Airflow's configuration."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from . import registry
from .settings import OPTIONS, SECTION

DISTRIBUTION = "airflow-resilient"


def get_provider_info() -> dict[str, Any]:
    """Return the value for Airflow's entry point ``apache_airflow_provider``.

    :return: ``{"package-name": str, "name": str, "description": str, "versions": [str], "extra-links": [str],
        "config": {section: {"description": str, "options": {...}}}}``.

    Source: ``provider_info.schema.json``, which every release of Airflow contains.
    Verified: ``test_provider_info_is_valid_for_airflow``.
    """
    own = [registry.service(name) for name in registry.SERVICES]
    titles = ", ".join(info.title for info in own)
    return {
        "package-name": DISTRIBUTION,
        "name": "Resilient",
        "description": f"Crash-safe, always-deferring operators that run a remote job once: {titles}.",
        "versions": [version(DISTRIBUTION)],
        # Airflow imports these when it renders a page of the UI, so they are not imported here.
        "extra-links": [info.path_of(link).replace(":", ".") for info in own for link in info.links],
        "config": {
            SECTION: {"description": "Options of the airflow-resilient package.", "options": options()}
        },
    }


def options() -> dict[str, dict[str, str]]:
    """The options of the section, in the format of Airflow's schema."""
    return {
        name: {
            "description": f"{describe(option.description)}\n",
            "version_added": option.version_added,
            "type": option.type,
            "example": describe(option.example),
            "default": option.default,
        }
        for name, option in OPTIONS.items()
    }


def describe(text: str) -> str:
    """The description of an option, with the values of the services filled in."""
    own = [registry.service(name) for name in registry.SERVICES]
    published = [budget for info in own for budget in (info.budget, *info.more_budgets)]
    budgets = [budget for budget in published if budget.operations]
    return text.format(
        budgets=", ".join(f"{each.name}={each.per_second:g}/{each.burst:g}" for each in budgets),
        raised_budgets=", ".join(
            f"{each.name}={4 * each.per_second:g}/{4 * each.burst:g}" for each in budgets
        ),
        poll_intervals=", ".join(f"{info.poll_interval:g} for {info.title}" for info in own),
        events=", ".join(info.event_source[1] for info in own if info.event_source),
        archived_events=", ".join(info.event_source[1] for info in own if info.archives_events),
    )
