"""What the documentation takes from the code is what the code says."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
import generate

from airflow_resilient import registry
from airflow_resilient.operations.exported_metrics import METRICS
from airflow_resilient.settings import OPTIONS

PAGES = "\n".join(path.read_text() for path in (Path(__file__).parents[2] / "docs").rglob("*.md"))


@pytest.mark.parametrize(
    ("path", "text"), generate.files().items(), ids=lambda value: getattr(value, "name", "")
)
def test_a_generated_file_is_up_to_date_and_shown_on_a_page(path, text):
    assert path.read_text() == text, "run python docs/generate.py"
    assert path.name in PAGES


def test_every_option_every_metric_and_every_service_is_there():
    written = generate.options()
    assert all(f"`{name}`\n: " in written for name in OPTIONS)
    table = generate.metrics()
    assert [metric.full_name for metric in METRICS] == re.findall(r"^\| `(\w+)`", table, re.MULTILINE)
    own = [registry.service(name) for name in registry.SERVICES]
    assert {f"iam-{info.name}-{what}.json" for info in own for what in info.iam} <= generate.policies().keys()
