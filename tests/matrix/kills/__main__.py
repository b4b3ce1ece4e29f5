"""``python -m kills``: play the matrix, write the table, and say whether our operator held."""

from __future__ import annotations

import argparse
import json
import platform
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from . import report
from .cases import BY_ID, IMPLEMENTATIONS, ROWS
from .runner import Result, harness, play

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).parents[3] / "docs" / "_generated" / "kills.md"
COMMAND = "tox run -e kills"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when our operator came to what is wanted everywhere."""
    parser = argparse.ArgumentParser(prog="python -m kills", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(BY_ID)}")
    parser.add_argument("--only", choices=IMPLEMENTATIONS, action="append", help="only this implementation")
    parser.add_argument("--docs", action="store_true", help=f"write {DOCS.name} into docs/")
    parser.add_argument("--results", type=Path, help="keep the figures in this file")
    parser.add_argument("--render", action="store_true", help="play nothing: take the figures from there")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    if options.render:
        results = [Result.from_dict(each) for each in json.loads(options.results.read_text())]
    else:
        rows = [BY_ID[name] for name in options.rows] or ROWS
        names = options.only or IMPLEMENTATIONS
        with harness(names, say) as made:
            results = play(made, rows, names)
        if options.results:
            options.results.write_text(json.dumps([each.to_dict() for each in results], indent=1) + "\n")
    print(report.table(results))
    if options.docs:
        DOCS.write_text(page(results))
    ours = [each for each in results if each.implementation == "ours"]
    return 0 if ours and all(each.held for each in ours) else 1


def page(results: Sequence[Result]) -> str:
    """The page with the table."""
    versions = (
        f"Airflow {version('apache-airflow')}, docker provider {version('apache-airflow-providers-docker')}, "
        f"Python {platform.python_version()}"
    )
    return f"""# Docker containers: the result of each kill

<!-- made by `{COMMAND} -- --docs`, not by hand -->

Tested with {versions}, real containers on Debian's dockerd, PostgreSQL and the LocalExecutor.
Both operators have `auto_remove="success"` and one retry.
Each container writes five lines a second, and ends with exit code 0 when it receives SIGTERM.

Each cell contains, in this order:

* the number of containers that were created;
* how many of them run / are kept when the task instance has ended;
* the state of the task instance and its number of tries; a success is *false* if the container was stopped;
* how many lines of the container that counts are missing / repeated in the task's log.

{report.table(results)}"""


if __name__ == "__main__":
    sys.exit(main())
