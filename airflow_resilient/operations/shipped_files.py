"""The files that come with the watch: rules and dashboard, made from tables, and examples beside them."""

from __future__ import annotations

from pathlib import Path

from .alerts import RUNBOOKS, dashboard, rules

FOLDER = Path(__file__).parent / "shipped"
MADE = ("airflow-resilient.rules.yml", "grafana-dashboard.json")
NAMES = (*MADE, *sorted(path.name for path in FOLDER.iterdir()))
"""Every file, by its name."""


def text_of(name: str, runbooks: str = RUNBOOKS) -> str:
    """The content of a file.

    :param name: one of `NAMES`.
    :param runbooks: what begins the URL of each runbook, in the rules.
    """
    if name == MADE[0]:
        return rules(runbooks)
    if name == MADE[1]:
        return dashboard()
    return (FOLDER / name).read_text("utf-8")
