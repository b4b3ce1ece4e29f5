"""Write the fault matrix in short, from ``_generated/faults.md``: ``python docs/faults_in_short.py``.

The first page includes it; ``tests/docs/test_first_page.py`` compares both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).parent / "_generated" / "faults.md"
SHORT = TABLE.with_name("faults-in-short.md")
OURS, THEIRS = "airflow-resilient", "amazon provider"
OURS_ALONE = ("With an orphan sweep that runs by itself", "The same with Docker containers")
SIGNS = "✓○✗"
# One case of each kind, by the id of its fault and the service; in all of them the job runs on.
SHOWN = [
    ("kill-unread", "EMR", "The task's process is killed after AWS has accepted the job"),
    ("deploy-hard", "ECS", "A deploy stops the worker before the task defers"),
    ("trigger-crash", "EMR", "The trigger crashes while the task is deferred"),
    ("clear-deferred", "ECS", "A person clears the deferred task"),
    ("mark-failed", "ECS", "A person marks the deferred task as failed"),
    ("deadline", "ECS", "`execution_timeout` passes while the task is deferred"),
    ("throttled", "ECS", "AWS throttles for two minutes"),
    ("by-hand", "ECS", "A person stops the job in AWS, and its container exits with 0"),
    ("delete-run-down", "ECS", "A person deletes the run while no triggerer runs"),
]
REPORTED = {
    "old": "the result is that of the old job",
    "false ✓": "reported as success, though the job was stopped",
    "false ✗": "reported as failure, though the job succeeded",
    "hangs": "the task never ends",
    "?": "reported as failure, because the outcome is unknown",
    "≠": "not in the state that the person chose",
}


@dataclass(frozen=True)
class Figures:
    """What a cell says, such as ``✗ 2 / 1 / 0 / = / 1, 2 at once``."""

    sign: str
    made: int
    left: int
    wronged: int
    reported: str
    retries: int
    at_once: int

    @classmethod
    def read(cls, cell: str) -> Figures:
        """Read the figures of a cell; cells of the column "wanted" have no sign."""
        found = re.fullmatch(
            rf"(?:([{SIGNS}]) )?(\d+) / (\d+) / (\d+) / (.+?) / (\d+)(?:, (\d+) at once)?(?: \(\+\d+\))?",
            cell,
        )
        if not found:
            raise ValueError(f"not a cell of the matrix: {cell!r}")
        sign, made, left, wronged, reported, retries, at_once = found.groups()
        return cls(sign or "", int(made), int(left), int(wronged), reported, int(retries), int(at_once or 1))

    def against(self, wanted: Figures) -> str:
        """Describe in words what differs from `wanted`."""
        differences = []
        if self.at_once > 1:
            differences.append(f"{self.at_once} jobs at the same time")
        elif self.made > wanted.made:
            differences.append(f"{self.made} jobs instead of {wanted.made}")
        elif self.made < wanted.made:
            differences.append("no new job")
        if self.wronged:
            differences.append("a job that is still wanted is cancelled")
        if self.left:
            differences.append(f"{self.left} job{'' if self.left == 1 else 's'} left running")
        if self.reported != wanted.reported:
            differences.append(REPORTED[self.reported])
        if (more := self.retries - wanted.retries) > 0:
            differences.append(f"{more} {'retry' if more == 1 else 'retries'} too many")
        right = "1 job" if self.made == 1 else f"{self.made} jobs, one after the other"
        return f"{self.sign} {', '.join(differences) or f'{right}, none left running'}"


@dataclass(frozen=True)
class Case:
    """A fault and the state of the job, with the cells of both implementations by service."""

    group: str
    fault: str
    job: str
    wanted: Figures
    cells: dict[tuple[str, str], Figures]


def read(page: str) -> list[Case]:
    """Read the cases that both implementations have from the page; sections of ours alone come after them."""
    cases = []
    group, head = "", []
    for line in page.splitlines():
        if line.startswith("## "):
            group = line.removeprefix("## ")
            if group in OURS_ALONE:
                break
        if not line.startswith("| "):
            continue
        what, job, wanted, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if what == "what happens":
            head = [tuple(name.split(", ")) for name in cells]
        elif named := re.search(r"\(`([a-z0-9-]+)`\)$", what):
            found = {key: Figures.read(cell) for key, cell in zip(head, cells, strict=True) if cell}
            cases.append(Case(group, named[1], job, Figures.read(wanted), found))
    return cases


def markdown(page: str) -> str:
    """The short version: some cases in words, and all of them in numbers."""
    cases = read(page)
    lines = [
        "<!-- made by `python docs/faults_in_short.py` from faults.md, not by hand -->",
        "",
        *_row("what happens while a job runs", f"with the {THEIRS}", f"with {OURS}"),
    ]
    by_id = {
        (case.fault, service): case for case in cases if case.job == "runs on" for service in ("ECS", "EMR")
    }
    for fault, service, text in SHOWN:
        case = by_id[fault, service]
        in_words = (case.cells[who, service].against(case.wanted) for who in (THEIRS, OURS))
        lines += _row(f"{text} ({service})", *in_words, head=False)
    lines += ["", "All cases, by the kind of fault:", ""]
    lines += _row(
        "kind of fault", "cases", f"{THEIRS}, as wanted", f"{OURS}, as wanted", f"{OURS}, known limit"
    )
    groups = list(dict.fromkeys(case.group for case in cases))
    for group in [*groups, ""]:
        of = [case for case in cases if group in ("", case.group)]
        ours, theirs = (
            [cell.sign for case in of for (who, _), cell in case.cells.items() if who == name]
            for name in (OURS, THEIRS)
        )
        total, right, limits = len(ours), ours.count("✓"), ours.count("○")
        if right + limits != total or len(theirs) != total:
            raise ValueError(f"{group}: the short version has no column for ✗ in our own cells")
        figures = map(str, (total, theirs.count("✓"), right, limits))
        lines += _row(group or "**all**", *figures, head=False)
    return "\n".join([*lines, ""])


def _row(*cells: str, head: bool = True) -> list[str]:
    row = f"| {' | '.join(cells)} |"
    return [row, "|" + "---|" * len(cells)] if head else [row]


if __name__ == "__main__":
    SHORT.write_text(markdown(TABLE.read_text()))
