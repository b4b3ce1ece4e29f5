"""Write what the documentation takes from the code: options, IAM policies of the services, exported metrics.

``python docs/generate.py`` writes the files; ``tests/docs/test_generated.py`` fails where one of them is old.
"""

from __future__ import annotations

import json
from pathlib import Path

from airflow_resilient import registry
from airflow_resilient.operations.exported_metrics import MAX_SERIES, METRICS, OTHER
from airflow_resilient.provider_info import describe
from airflow_resilient.settings import OPTIONS

FOLDER = Path(__file__).parent / "_generated"


def options() -> str:
    """The options of ``[airflow_resilient]`` as a definition list."""
    parts = ["% Written by docs/generate.py.", ""]
    for name, option in OPTIONS.items():
        allowed = option.wanted.partition(", such as ")[0]
        facts = [
            *([f"Allowed: {allowed}."] if allowed else []),
            f"Default: `{option.default}`." if option.default else "Default: empty.",
            f"Example: `{describe(option.example)}`.",
        ]
        sentences = [*describe(option.description).replace(". ", ".\n").split("\n"), *facts]
        parts += [f"`{name}`", f": {sentences[0]}", *(f"  {sentence}" for sentence in sentences[1:]), ""]
    return "\n".join(parts)


def metrics() -> str:
    """The metrics of ``airflow-resilient export`` as a table."""
    parts = ["% Written by docs/generate.py.", "", "| metric | labels | meaning |", "|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        what = " Counter." if metric.is_counter else ""
        silent = " Known also while Airflow does not answer." if metric.always else ""
        parts.append(f"| `{metric.full_name}` | {labels} | {metric.about}{what}{silent} |")
    more = "".join(f" (of `{each.full_name}` {each.limit})" for each in METRICS if each.limit != MAX_SERIES)
    bounded = (
        f"Of one metric at most {MAX_SERIES} values are shown by themselves{more}, "
        f"the ones that matter most; `{OTHER}` stands for the rest."
    )
    return "\n".join([*parts, "", bounded, ""])


def policies() -> dict[str, str]:
    """Name of a file to the IAM policy in it."""
    return {
        f"iam-{name}-{what}.json": json.dumps(
            {"Version": "2012-10-17", "Statement": list(statements)}, indent=2
        )
        + "\n"
        for name in registry.SERVICES
        for what, statements in registry.service(name).iam.items()
    }


def files() -> dict[Path, str]:
    """Every file and its content."""
    return {
        FOLDER / name: text
        for name, text in {"options.md": options(), "metrics.md": metrics(), **policies()}.items()
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
