"""Write what the documentation takes from the code: the options, and the IAM policies of the services.

``python docs/generate.py`` writes the files; ``tests/docs/test_generated.py`` fails where one of them is old.
"""

from __future__ import annotations

import json
from pathlib import Path

from airflow_resilient import registry
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
    return {FOLDER / name: text for name, text in {"options.md": options(), **policies()}.items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
