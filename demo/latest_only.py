"""``python -m demo.latest_only``: Airflow's LatestOnlyOperator beside LatestOnlyIntervalOperator.

A real Airflow runs two DAGs every twenty seconds.  In the first, work that takes 22 seconds comes before the
gates.  In the second the scheduler is stopped for a while, so that a backlog builds up.  Both have the same
three gates side by side; tables and a picture show which runs passed them, and the exit code is 1 if one of
the promises did not hold.  It takes about seven minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow_resilient
from airflow_resilient.scheduling.latest_only import bucket_of
from airflow_resilient.testing.airflow.local_airflow import HANG, LocalAirflow, LocalAirflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
BETWEEN, MINUTE = timedelta(seconds=20), timedelta(minutes=1)
GATES = {
    "theirs": "LatestOnlyOperator",
    "in_time": "max_lateness=20 s",
    "each_minute": "every=1 min",
}
ENDED = {"success", "failed"}


@dataclass(frozen=True)
class Row:
    """A run and its result.

    :param gates: when the first of its gates ran.
    :param passed: by gate.
    """

    due: datetime
    started: datetime
    gates: datetime
    passed: dict[str, bool]


@dataclass(frozen=True)
class Story:
    """The runs of a DAG.

    :param outage: from when to when there was no scheduler.
    """

    title: str
    rows: list[Row]
    outage: tuple[datetime, datetime] | None = None

    def number(self, gate: str) -> int:
        """Count the runs that passed a gate."""
        return sum(row.passed[gate] for row in self.rows)

    @property
    def minutes(self) -> int:
        """Count the minutes in which a run was due."""
        return len({_minute(row) for row in self.rows})

    @property
    def one_each_minute(self) -> bool:
        """Whether one run of each minute passed, and no other."""
        passed = [_minute(row) for row in self.rows if row.passed["each_minute"]]
        return len(passed) == len(set(passed)) == self.minutes


def _minute(row: Row) -> object:
    return bucket_of(row.due, MINUTE, timezone.utc)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both stories.

    :return: 0 when all promises held, 1 otherwise.
    """
    parser = argparse.ArgumentParser(
        prog="python -m demo.latest_only", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--runs", type=int, default=9, help="runs behind slow work (9)")
    parser.add_argument("--outage", type=float, default=120, help="seconds without a scheduler (120)")
    parser.add_argument("--out", type=Path, help="where picture and tables go (default: a new directory)")
    parser.add_argument("--update-docs", action="store_true", help="write them into docs/ instead")
    options = parser.parse_args(arguments)
    folder = options.out or Path(tempfile.mkdtemp(prefix="airflow-resilient-latest-only-"))
    page, picture = folder / "latest-only.md", folder / "latest-only.png"
    if options.update_docs:
        page, picture = DOCS / "_generated/latest-only.md", DOCS / "_static/latest-only/runs.png"
    with tempfile.TemporaryDirectory() as dags:
        stories = list(_play(Path(dags), options.runs, options.outage))
    promises = promised(stories)
    print("\n".join(f"{'held  ' if held else 'BROKEN'}  {text}" for text, held in promises))
    if options.update_docs and not all(held for _, held in promises):
        print("The documentation is left as it is.")
        return 1
    for path in (page, picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    draw(stories, picture)
    page.write_text(markdown(stories, os.path.relpath(picture, page.parent)))
    print(f"{page}\n{picture}")
    return 0 if all(held for _, held in promises) else 1


# ----- on a real Airflow


def _play(dags: Path, runs: int, outage: float) -> Iterator[Story]:
    """Play one story after the other."""
    package = str(Path(airflow_resilient.__file__).parent.parent)
    python_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    with LocalAirflow(dags, environment={"PYTHONPATH": python_path}, progress=print) as airflow:
        print(f"slow work before the gates: {runs} runs, one every 20 s")
        _start(airflow, dags, "slow")
        rows = _wait(airflow, "slow", lambda found: len(found) >= runs)
        _pause(airflow, "slow", True)
        yield Story("22 s of work before the gates", rows)

        print("nothing before the gates, then an outage")
        start = _start(airflow, dags, "outage")
        _wait(airflow, "outage", lambda found: len(found) >= 3)  # noqa: PLR2004
        airflow.stop("scheduler")
        down = datetime.now(timezone.utc)
        until = down + timedelta(seconds=outage)
        airflow.wait_until(
            lambda: datetime.now(timezone.utc) > until, outage + HANG, "the outage is over", every=1
        )
        airflow.start("scheduler")
        back = datetime.now(timezone.utc)
        enough = (back - start) // BETWEEN + 2  # all that were due meanwhile, and two in time
        rows = _wait(airflow, "outage", lambda found: len(found) >= enough)
        yield Story(f"{(back - down).total_seconds():.0f} s without a scheduler", rows, (down, back))


def _start(airflow: LocalAirflow, dags: Path, dag_id: str) -> datetime:
    """Let a DAG begin in a few seconds; its first run is due twenty seconds later."""
    start = datetime.fromtimestamp((time.time() // 20 + 1) * 20, timezone.utc)
    source = (HERE / "dags/latest_only.py").read_text()
    filled = source.replace("2026-01-01T00:00:00+00:00", start.isoformat())
    (dags / "latest_only.py").write_text(filled)
    airflow.wait_for_dag(dag_id, holds=lambda read: read == filled)
    _pause(airflow, dag_id, False)
    return start


def _pause(airflow: LocalAirflow, dag_id: str, paused: bool) -> None:
    airflow.request("PATCH", f"/dags/{dag_id}", {"is_paused": paused})


def _wait(airflow: LocalAirflow, dag_id: str, enough: Callable[[list[dict[str, Any]]], bool]) -> list[Row]:
    """Wait until enough runs have ended.

    :return: what became of them, in the order in which they were due.
    """

    def ended() -> list[dict[str, Any]] | None:
        answer = airflow.request("GET", f"/dags/{dag_id}/dagRuns?limit=100&order_by=logical_date")
        # Up to the first that has not ended: what is later may have overtaken it.
        found = list(takewhile(lambda raw: raw["state"] in ENDED, answer["dag_runs"]))
        return found if enough(found) else None

    return [_row(airflow, raw) for raw in airflow.wait_until(ended, what=f"runs of {dag_id} have ended")]


def _row(airflow: LocalAirflow, raw: dict[str, Any]) -> Row:
    found = {i.task_id: i for i in airflow.task_instances(raw["dag_id"], raw["dag_run_id"])}
    if raw["state"] != "success":
        raise LocalAirflowError(f"run {raw['dag_run_id']} is {raw['state']}")
    return Row(
        due=_moment(raw["data_interval_end"]),
        started=_moment(raw["start_date"]),
        gates=min(start for name in GATES if (start := found[name].start)),
        passed={name: found[f"after_{name}"].state == "success" for name in GATES},
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


# ----- what it says


def promised(stories: Sequence[Story]) -> list[tuple[str, bool]]:
    """The promises, with the figures, and whether they held."""
    slow, outage = stories
    all_runs = len(slow.rows)
    thinned = outage.number("in_time")
    in_time = [row.started - row.due <= BETWEEN for row in outage.rows]
    return [
        (
            f"behind slow work LatestOnlyOperator passes {slow.number('theirs')} of {all_runs} runs",
            slow.number("theirs") == 0,
        ),
        (
            f"behind slow work max_lateness passes {slow.number('in_time')} of {all_runs} runs",
            slow.number("in_time") == all_runs,
        ),
        (
            f"around the outage max_lateness passes {thinned} of {len(in_time)} runs, those in time",
            [row.passed["in_time"] for row in outage.rows] == in_time and thinned < len(in_time),
        ),
        *(
            (
                f"{story.title}: every=1 min passes one run in each of {story.minutes} minutes",
                story.one_each_minute,
            )
            for story in stories
        ),
    ]


def markdown(stories: Sequence[Story], picture: str) -> str:
    """Give the page with picture and tables."""
    lines = [
        "# LatestOnly gates: which runs pass",
        "",
        "<!-- made by `python -m demo.latest_only --update-docs`, not by hand -->",
        "",
        "A real Airflow runs two DAGs every 20 seconds; each has three gates beside each other.",
        "",
        f"![Which runs passed which gate]({picture})",
        "",
        *_table(
            ("runs that passed", *GATES.values()),
            [
                (story.title, *(f"{story.number(gate)} of {len(story.rows)}" for gate in GATES))
                for story in stories
            ],
        ),
    ]
    for story in stories:
        rows = [
            (
                f"{row.due:%H:%M:%S}",
                f"{(row.started - row.due).total_seconds():.1f} s late",
                f"{(row.gates - row.due).total_seconds():.1f} s late",
                *("passed" if row.passed[gate] else "skipped" for gate in GATES),
            )
            for row in story.rows
        ]
        lines += ["", f"## {story.title}", ""]
        if story.outage:
            down, back = story.outage
            lines += [f"There was no scheduler from {down:%H:%M:%S} to {back:%H:%M:%S}.", ""]
        lines += _table(("run due", "started", "gates ran", *GATES.values()), rows)
    lines += ["", "## What was promised", ""]
    lines += _table(
        ("promise", "held"), [(text, "yes" if held else "**no**") for text, held in promised(stories)]
    )
    return "\n".join([*lines, ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def draw(stories: Sequence[Story], path: Path) -> None:
    """Draw which runs passed which gate, one panel for each story."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    figure, axes = plt.subplots(len(stories), 1, figsize=(10, 2.9 * len(stories)))
    for story, ax in zip(stories, axes, strict=True):
        _panel(ax, story)
    marks = [
        Line2D([], [], marker="o", linestyle="", color="#228833", label="passed"),
        Line2D([], [], marker="o", linestyle="", color="#999999", markerfacecolor="white", label="skipped"),
        Line2D([], [], color="#4477aa", linewidth=3, label="from due to the gates"),
    ]
    figure.legend(handles=marks, loc="lower center", ncols=3, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def _panel(ax: Axes, story: Story) -> None:
    zero = story.rows[0].due - BETWEEN

    def seconds(moment: datetime) -> float:
        return (moment - zero).total_seconds()

    last = max(max(seconds(row.gates), seconds(row.due)) for row in story.rows) + 5
    minute = zero.replace(second=0, microsecond=0)
    while seconds(minute) < last:
        ax.axvspan(
            seconds(minute), seconds(minute + MINUTE), color="#f2f2f2" if minute.minute % 2 else "white"
        )
        minute += MINUTE
    if story.outage:
        down, back = map(seconds, story.outage)
        ax.axvspan(down, back, color="#cc3311", alpha=0.15)
        ax.text((down + back) / 2, 4.05, "no scheduler", color="#cc3311", ha="center", va="top", fontsize=8)
    for number, row in enumerate(story.rows):
        y = 2.8 + 0.1 * (number % 8)
        ax.plot([seconds(row.due), seconds(row.gates)], [y, y], color="#4477aa", linewidth=2)
        for place, gate in enumerate(GATES):
            passed = row.passed[gate]
            colour = "#228833" if passed else "#999999"
            ax.plot(
                seconds(row.due),
                2 - place,
                marker="o",
                markersize=9,
                color=colour,
                markerfacecolor=colour if passed else "white",
            )
    ax.set_yticks([3.15, 2, 1, 0], ["runs", *GATES.values()], fontsize=8)
    ax.set_ylim(-0.6, 4.1)
    ax.set_xlim(0, last)
    ax.set_title(story.title, fontsize=10, loc="left")
    ax.set_xlabel("seconds; each stripe is a minute of the clock", fontsize=8)
    ax.tick_params(axis="x", labelsize=7)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)


if __name__ == "__main__":
    sys.exit(main())
