"""The report at the end of the demo: table, figures, promises."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from airflow_resilient.testing.airflow.local_airflow import TaskInstance
    from demo.slots import Sample, Span

_COLUMNS = (
    "DAG",
    "task",
    "tries",
    "remote jobs",
    "times in a slot",
    "slot seconds",
    "deferred seconds",
    "outcome",
    "what happened to it",
)
_ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass(frozen=True)
class Kill:
    """A process that the demo killed.

    :param at: seconds since the epoch.
    :param names: task instances ("DAG.task") that it worked on.
    :param fatal: it cost them their try.
    """

    what: str
    at: float
    names: tuple[str, ...]
    fatal: bool = False


@dataclass(frozen=True)
class Run:
    """The result of one run of the five DAGs.

    :param jobs: remote jobs made, by name of the task instance.
    :param live: remote jobs that were still alive at the end.
    :param since: the samples from then on show whether nothing moved.
    :param failed_by_airflow: how often the scheduler failed a healthy task instance by itself ("state
        mismatch": it was queued to resume before the scheduler had registered its deferral).
    """

    title: str
    instances: tuple[TaskInstance, ...]
    jobs: Mapping[str, tuple[str, ...]]
    live: tuple[str, ...]
    spans: tuple[Span, ...]
    samples: tuple[Sample, ...]
    since: float
    failed_by_airflow: Mapping[str, int]
    events: dict[float, str] = field(default_factory=dict)

    @property
    def watched(self) -> list[Sample]:
        """Samples since the moment from which it was watched."""
        return [sample for sample in self.samples if sample.at >= self.since]

    @property
    def stood_still(self) -> bool:
        """Whether nothing changed its state while it was watched."""
        return len(self.watched) > 1 and all(s.states == self.watched[0].states for s in self.watched)

    @property
    def least_held(self) -> int:
        """The smallest number of slots in use while it was watched."""
        return min((sample.held for sample in self.watched), default=0)

    @property
    def finished(self) -> int:
        """How many of the task instances that wait or need a job have ended well."""
        return sum(instance.state == "success" for instance in self.instances)

    def seconds(self, name: str | None, kind: str) -> float:
        """Add up the spans of one kind, of one task instance or of all."""
        return sum(s.seconds for s in self.spans if s.kind == kind and name in (None, s.name))

    def rows(self, kills: Iterable[Kill]) -> list[tuple[str, ...]]:
        """Give the table, one row per task instance."""
        found = []
        for instance in self.instances:
            name = f"{instance.dag_id}.{instance.task_id}"
            happened = [kill.what for kill in kills if name in kill.names]
            if self.failed_by_airflow.get(name) and not any(
                kill.fatal for kill in kills if name in kill.names
            ):
                happened.append("failed by Airflow's scheduler (state mismatch)")
            found.append(
                (
                    instance.dag_id,
                    instance.task_id,
                    str(instance.try_number if instance.start else 0),
                    str(len(self.jobs[name])),
                    str(sum(s.kind == "slot" and s.name == name for s in self.spans)),
                    f"{self.seconds(name, 'slot'):.1f}",
                    f"{self.seconds(name, 'deferred'):.1f}",
                    instance.state or "not started",
                    ", ".join(happened),
                )
            )
        return found


@dataclass(frozen=True)
class Promise:
    """Something that must hold."""

    text: str
    held: bool
    evidence: str


@dataclass(frozen=True)
class Report:
    """Both runs and what follows from them.

    :param before: with the amazon provider's operators.
    :param after: with airflow_resilient's.
    :param seconds: of the whole demo.
    :param watched: how long the first run was watched standing still, in seconds.
    """

    before: Run
    after: Run
    kills: Sequence[Kill]
    seconds: float
    watched: float

    def __post_init__(self) -> None:
        self.after.events.update({kill.at: kill.what for kill in self.kills})

    @property
    def promises(self) -> list[Promise]:
        """The promises, and whether they held."""
        after = self.after
        killed = {name for kill in self.kills if kill.fatal for name in kill.names}
        tries = {f"{i.dag_id}.{i.task_id}": i.try_number for i in after.instances}
        wrong = {
            name: len(jobs)
            for name, jobs in after.jobs.items()
            if len(jobs) != (0 if ".wait_for_" in name else 1)
        }
        not_well = {f"{i.dag_id}.{i.task_id}": i.state for i in after.instances if i.state != "success"}
        wasted = {
            name: number
            for name, number in tries.items()
            if (name in killed and number < 2)  # noqa: PLR2004
            or number > 1 + (name in killed) + after.failed_by_airflow.get(name, 0)
        }
        by_airflow = sum(n for name, n in after.failed_by_airflow.items() if name not in killed)
        most = max(sample.held for sample in after.samples)
        return [
            Promise(
                "with the provider's operators nothing moves: both slots are held by waits",
                self.before.stood_still and self.before.least_held == 2,  # noqa: PLR2004
                f"watched for {self.watched:.0f} s: {self.before.least_held} slots in use, "
                f"{self.before.finished} of {len(self.before.instances)} task instances finished before",
            ),
            Promise(
                "with the import changed all task instances succeed",
                bool(after.instances) and not not_well,
                f"{after.finished} of {len(after.instances)} succeeded" + _listed(not_well),
            ),
            Promise(
                "one remote job for each task instance that starts one, none for a sensor",
                not wrong,
                f"{sum(map(len, after.jobs.values()))} jobs" + _listed(wrong),
            ),
            Promise("no job is left running", not after.live, f"{len(after.live)} alive at the end"),
            Promise(
                "a try is spent only where its process was killed or Airflow failed it by itself",
                bool(killed) and not wasted,
                f"{len(killed)} killed right after their submit, {by_airflow} failed by Airflow"
                + _listed(wasted),
            ),
            Promise(
                "the pool is never overdrawn",
                most <= 2,  # noqa: PLR2004
                f"at most {most} slots in use",
            ),
        ]

    @property
    def held(self) -> bool:
        """Whether all promises held."""
        return all(promise.held for promise in self.promises)

    @property
    def figures(self) -> dict[str, float]:
        """What was measured: short names with units, and numbers."""
        makes_span = max((s.end for s in self.after.spans), default=0.0)
        return {
            "demo_seconds": round(self.seconds, 1),
            "provider_slot_seconds": round(self.before.seconds(None, "slot"), 1),
            "provider_finished_task_instances": self.before.finished,
            "resilient_seconds_until_all_ended": round(makes_span, 1),
            "resilient_finished_task_instances": self.after.finished,
            "resilient_slot_seconds": round(self.after.seconds(None, "slot"), 1),
            "resilient_deferred_seconds": round(self.after.seconds(None, "deferred"), 1),
            "resilient_remote_jobs": sum(map(len, self.after.jobs.values())),
            "processes_killed": len(self.kills),
        }

    def text(self) -> str:
        """Give everything for a terminal."""
        parts = []
        for run, kills in ((self.before, ()), (self.after, self.kills)):
            parts += [f"\n{run.title}", _plain_table(run.rows(kills)), ""]
        parts += [f"{name.replace('_', ' ')}: {value}" for name, value in self.figures.items()]
        parts.append("")
        parts += [f"{'held  ' if p.held else 'BROKEN'}  {p.text} ({p.evidence})" for p in self.promises]
        return "\n".join([*parts, ""])

    def markdown(self) -> str:
        """Give tables and figures as Markdown."""
        lines: list[str] = []
        for run, kills in ((self.before, ()), (self.after, self.kills)):
            lines += [
                f"## {run.title}",
                "",
                *_markdown(_COLUMNS, run.rows(kills)),
                "",
            ]
        figures = [(name.replace("_", " "), f"{value:g}") for name, value in self.figures.items()]
        lines += ["## What was measured", "", *_markdown(("figure", "value"), figures), ""]
        promises = [(p.text, "yes" if p.held else "**no**", p.evidence) for p in self.promises]
        lines += ["## What was promised", "", *_markdown(("promise", "held", "evidence"), promises)]
        return "\n".join([*lines, ""])

    def as_json(self) -> dict[str, Any]:
        """Give everything for a program."""
        return {
            "held": self.held,
            "promises": [{"text": p.text, "held": p.held, "evidence": p.evidence} for p in self.promises],
            "figures": self.figures,
            "kills": [{"what": k.what, "at": k.at, "task_instances": k.names} for k in self.kills],
            "before": _run_as_json(self.before),
            "after": _run_as_json(self.after),
        }


def write_results(report: Report, out: Path) -> None:
    """Write ``results.json`` and ``table.md``."""
    (out / "results.json").write_text(json.dumps(report.as_json(), indent=1) + "\n")
    (out / "table.md").write_text(report.markdown())


def write_docs(report: Report, picture: Path, docs: Path) -> list[Path]:
    """Write picture and table where the documentation has them.

    :raises ValueError: when a promise did not hold; the documentation shows runs that went well.
    """
    if not report.held:
        raise ValueError("a promise did not hold: the documentation is left as it is")
    static = docs / "_static" / "demo"
    static.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(picture, static / "slots.png")
    page = docs / "_generated" / "demo.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(
        "# Demo: slots, jobs and outcomes of one run\n\n"
        "<!-- made by `python -m demo --update-docs`, not by hand -->\n\n"
        "Five DAGs share a pool of two slots, and the EMR steps of some read what others write.\n"
        "A real Airflow runs them twice: with the amazon provider's operators, and with the import changed.\n"
        "Both runs happened on one machine, with a fake AWS.\n\n"
        "![The pool's slots over time](../_static/demo/slots.png)\n\n" + report.markdown()
    )
    return [static / "slots.png", page]


def _run_as_json(run: Run) -> dict[str, Any]:
    return {
        "title": run.title,
        "live_jobs": run.live,
        "task_instances": [
            {
                "dag_id": instance.dag_id,
                "task_id": instance.task_id,
                "state": instance.state,
                "tries": instance.try_number,
                "failed_by_airflow": run.failed_by_airflow.get(name, 0),
                "remote_jobs": run.jobs[name],
                "slot_seconds": round(run.seconds(name, "slot"), 2),
                "deferred_seconds": round(run.seconds(name, "deferred"), 2),
            }
            for instance in run.instances
            for name in [f"{instance.dag_id}.{instance.task_id}"]
        ],
        "slots_in_use": [[round(s.at - run.samples[0].at, 2), s.held] for s in run.samples],
    }


def _listed(exceptions: Mapping[str, object]) -> str:
    return "".join(f"; {name}: {value}" for name, value in exceptions.items())


def _plain_table(rows: Sequence[tuple[str, ...]]) -> str:
    table = [_COLUMNS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
