"""``python -m faults``: play the matrix, write the table and the picture, and say whether it held."""

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

from . import mutants, report
from .cases import BY_ID, FATES, ROWS
from .environment import ALL_IMPLEMENTATIONS, SERVICES, SWEPT, database, harness
from .picture import draw
from .runner import Result, all_cases, play, representative

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .runner import CaseOf

DOCS = Path(__file__).parents[3] / "docs"
COMMAND = "tox run -e faults"
OURS = ("ours", SWEPT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when our operators came to what is wanted everywhere (and every broken rule was noticed)."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    def show(result: Result) -> None:
        word = "ok  " if result.held else "BAD " if result.implementation in OURS else "bad "
        case = f"{result.row.id} / {result.fate} / {result.service} / {result.implementation}"
        say(f"{word}{case}: {result.figures} ({result.seconds:.0f} s)")
        if options.story or not result.held:
            say(f"      {result.note}\n      {result.history}")

    if options.results.exists() and options.render:
        results = [Result.from_dict(each) for each in json.loads(options.results.read_text())]
    else:
        cases = _cases(options)
        with database() as url:
            settings = {"say": say, "brief": options.brief, "home": options.home}
            with harness(url, implementations=sorted({case[3] for case in cases}), **settings) as made:
                results = play(made, cases, show)
        options.results.write_text(json.dumps([result.to_dict() for result in results], indent=1) + "\n")
    if options.broken:
        return _summarize_broken(results)
    if options.docs:
        _write_docs(results)
    return _summarize(results)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these rows: {', '.join(BY_ID)}")
    parser.add_argument(
        "--only",
        choices=ALL_IMPLEMENTATIONS,
        help="only our operators, the provider's, or ours beside the sweep",
    )
    parser.add_argument("--service", choices=SERVICES, help="only this service")
    parser.add_argument("--fate", choices=FATES, help="only this fate of the job")
    parser.add_argument("--brief", action="store_true", help="the part that every check runs")
    parser.add_argument("--broken", action="store_true", help="break rules of the library; see mutants.py")
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write table and picture into docs/; what was not played keeps its cells",
    )
    parser.add_argument("--rule", action="append", choices=mutants.BY_ID, help="only this one, with --broken")
    parser.add_argument("--results", type=Path, default=Path("faults.json"), help="where results are written")
    parser.add_argument("--render", action="store_true", help="play nothing: take the results from there")
    parser.add_argument("--story", action="store_true", help="show what was seen of each case")
    parser.add_argument("--home", type=Path, help="Airflow's home, which is left there with all logs")
    return parser.parse_args(arguments)


def _cases(options: argparse.Namespace) -> list[CaseOf]:
    rows = [BY_ID[name] for name in options.rows] or ROWS
    if options.brief:
        cases = representative(rows)
    elif options.broken:
        cases = [
            (BY_ID[row], fate, service, rule.id)
            for rule in mutants.RULES
            if not options.rule or rule.id in options.rule
            for row, fate, service in rule.rows
            if BY_ID[row] in rows
        ]
    else:
        cases = all_cases(rows, [options.only] if options.only else ALL_IMPLEMENTATIONS)
    return [case for case in cases if options.service in (None, case[2]) and options.fate in (None, case[1])]


def _summarize(results: Sequence[Result]) -> int:
    wrong = [result for result in results if result.implementation in OURS and not result.held]
    print(f"\n{len(results)} cases, {len(wrong)} of ours did not come to what is wanted")
    for result in wrong:
        print(f"  {result.row.id} / {result.fate} / {result.service}: {report.short(result.figures)}")
    return 1 if wrong else 0


def _summarize_broken(results: Sequence[Result]) -> int:
    unnoticed = 0
    for rule in mutants.RULES:
        mine = [result for result in results if result.implementation == rule.id]
        if not mine:
            continue
        noticed = [r for r in mine if not r.held]
        unnoticed += not noticed
        names = ", ".join(f"{r.row.id} ({r.fate}, {r.service}: {report.short(r.figures)})" for r in noticed)
        print(f"{'noticed' if noticed else 'MISSED '}  not: {rule.rule}: {names}")
    return 1 if unnoticed else 0


def _write_docs(results: Sequence[Result]) -> None:
    versions = {
        "Airflow": version("apache-airflow"),
        "the amazon provider": version("apache-airflow-providers-amazon"),
        "Python": platform.python_version(),
    }
    page = DOCS / "_generated" / "faults.md"
    played = report.cells(results)
    cells = {**report.cells(report.read_page(page.read_text())), **played}
    order = [(row.id, *rest) for row, *rest in all_cases()]
    results = [cells[case] for case in sorted(cells, key=order.index)]
    page.write_text(report.markdown(results, versions, COMMAND))
    draw(results, DOCS / "_static" / "faults.svg")


if __name__ == "__main__":
    sys.exit(main())
