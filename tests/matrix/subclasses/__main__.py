"""``python -m subclasses``: run the DAGs with both, and write the table."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .cases import BY_ID, PROVIDER, ROWS
from .report import held, table
from .runner import harness, play

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).parents[3] / "docs" / "_generated" / "subclasses.md"
COMMAND = "tox run -e subclasses"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when nothing differs but what is named."""
    parser = argparse.ArgumentParser(prog="python -m subclasses", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(BY_ID)}")
    parser.add_argument("--docs", action="store_true", help=f"write {DOCS.name} into docs/, if all is well")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    began = time.monotonic()
    rows = [BY_ID[name] for name in options.rows] or ROWS
    with harness(lambda text: print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True), rows) as made:
        results = play(made, rows)
    print(table(results))
    wrong = [
        (row, name)
        for row in rows
        for name in row.implementations[1:]
        if not held(row, results[row.id][PROVIDER], results[row.id][name], name)
    ]
    for row, name in wrong:
        print(f"BAD {row.id}, {name}:\n  {results[row.id][PROVIDER]}\n  {results[row.id][name]}")
    if options.docs and not wrong:
        DOCS.write_text(
            f"<!-- made by `{COMMAND}`, not by hand -->\n\n{table(results)}\n\n"
            f"Airflow {version('apache-airflow')}, amazon provider "
            f"{version('apache-airflow-providers-amazon')}, docker provider "
            f"{version('apache-airflow-providers-docker')}; a fake AWS, a real Docker engine.\n"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
