"""The plugin that Airflow finds by itself: ``{{ macros.airflow_resilient.local_ds() }}`` in every template.

Every process of Airflow imports it, so it imports little.  Airflow 3.0.0 and 3.0.1 load no macros of plugins
in workers; there, and where another plugin took the name, `local_macros` works.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from .timezones import plugin_macros

__all__ = ["ResilientPlugin"]


class ResilientPlugin(AirflowPlugin):
    """Macros for local time, with the zone of ``[airflow_resilient] local_timezone``, else of the DAG."""

    name = "airflow_resilient"
    macros = plugin_macros()
