"""What users of the library test their own DAGs with; each name is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_resilient.testing.fake_aws import FakeAws

__all__ = ["FakeAws"]

_HOMES = {"FakeAws": "airflow_resilient.testing.fake_aws"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
