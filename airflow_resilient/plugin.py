"""The plugin for Airflow: ``{{ macros.airflow_resilient.local_ds() }}`` in every template.

Every process of Airflow imports it, so it imports little. Airflow 3.0.0 and 3.0.1 load no macros of plugins
in workers; use `local_macros` there, and where another plugin has the same name.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from .scheduling.timezones import plugin_macros

__all__ = ["ResilientPlugin"]


class ResilientPlugin(AirflowPlugin):
    """Macros for local time, in the zone of ``[airflow_resilient] local_timezone``, else of the DAG."""

    name = "airflow_resilient"
    macros = plugin_macros()
