"""What was measured as tables and pictures; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Result = Mapping[str, Any]
BUSY = 2.5
"""Load above which others take part of two cores: a case and its endpoint make less."""
OURS, PROVIDER = "#228833", "#bb5566"


@dataclass(frozen=True)
class Measure:
    """One line of a table.

    :param path: where it stands in a result: names with dots between them.
    :param digits: after the point.
    :param ratio: whether a ratio means something.
    """

    title: str
    path: str
    digits: int = 1
    ratio: bool = True

    def of(self, result: Result) -> float | None:
        """The figure; ``None`` where there is none."""
        value: Any = result
        for name in self.path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    def say(self, result: Result | None) -> str:
        """The figure as it stands in a table."""
        value = None if result is None else self.of(result)
        return "not measured" if value is None else grouped(value, self.digits)


MEASURES = (
    Measure("API calls per wait and minute", "calls_per_wait_and_minute", 3),
    Measure("calls above the published budget", "over_budget", 0, ratio=False),
    Measure("time until each job was polled once (s)", "all_looked_at_s"),
    Measure("between two polls of a job, median (s)", "between_looks_s.p50", ratio=False),
    Measure("between two polls of a job, longest (s)", "between_looks_s.max", ratio=False),
    Measure("CPU to start a wait (ms)", "cpu_ms_per_start", 2),
    Measure("CPU of all waits per minute (s)", "cpu_s_per_minute"),
    Measure("CPU per end (ms)", "cpu_ms_per_end", 2),
    Measure("memory per wait (kB)", "kb_per_wait"),
    Measure("largest stall of the event loop, start (ms)", "stall_ms.start", 0),
    Measure("of which one collection of garbage (ms)", "collecting_ms.start", 0, ratio=False),
    Measure("largest stall, steady (ms)", "stall_ms.steady", 0),
    Measure("of which one collection of garbage (ms)", "collecting_ms.steady", 0, ratio=False),
    Measure("largest stall, end (ms)", "stall_ms.end", 0),
    Measure("of which one collection of garbage (ms)", "collecting_ms.end", 0, ratio=False),
    Measure("from a job's end to the event, median (s)", "delay_s.p50"),
    Measure("from a job's end to the event, 95 % (s)", "delay_s.p95"),
    Measure("from a job's end to the event, longest (s)", "delay_s.max"),
    Measure("events lost", "lost", 0, ratio=False),
    Measure("waits failed", "failed", 0, ratio=False),
    Measure("events that were wrong or too early", "wrong", 0, ratio=False),
)
COLD = (
    Measure("time until each job was polled once (s)", "all_looked_at_s"),
    Measure("CPU per wait until then (ms)", "cpu_ms_per_start", 2),
    Measure("memory per wait (kB)", "kb_per_wait"),
    Measure("largest stall of the event loop (ms)", "stall_ms.start", 0),
    Measure("of which one collection of garbage (ms)", "collecting_ms.start", 0, ratio=False),
    Measure("connections to AWS", "connections", 0),
    Measure("from a job's end to the event, longest (s)", "delay_s.max"),
    Measure("events lost", "lost", 0, ratio=False),
    Measure("waits failed", "failed", 0, ratio=False),
    Measure("events that were wrong or too early", "wrong", 0, ratio=False),
)
"""Measures of a cold start."""

_CALM = (
    "calls_per_wait_and_minute",
    "over_budget",
    "all_looked_at_s",
    "between_looks_s.p50",
    "between_looks_s.max",
    "delay_s.p50",
    "delay_s.p95",
    "delay_s.max",
    "lost",
    "failed",
    "wrong",
)
"""Measures of cases that ran beside others."""


def grouped(value: float, digits: int = 0) -> str:
    """A number with spaces between its thousands.

    >>> grouped(12345.678, 1), grouped(0.05)
    ('12 345.7', '0')
    """
    return f"{value:,.{digits}f}".replace(",", " ")


def ratio(ours: float | None, theirs: float | None) -> str:
    """How ours compares with theirs: "1/98" when it is less, "1.3" when it is more; "" when one is missing.

    >>> ratio(1, 98), ratio(13, 10), ratio(9, 10), ratio(0, 5), ratio(1, None)
    ('1/98', '1.3', '0.90', '0', '')
    """
    if ours is None or not theirs:
        return ""
    if ours == 0:
        return "0"
    if ours > theirs:
        return f"{ours / theirs:.1f}"
    less = theirs / ours
    return f"{1 / less:.2f}" if less < 2 else f"1/{less:.1f}" if less < 9.95 else f"1/{less:.0f}"  # noqa: PLR2004


def brief(result: Result) -> str:
    """One line for the terminal."""
    if "error" in result:
        return f"not measured: {result['error']}"
    if result.get("cold"):
        return ", ".join(f"{measure.title} {measure.say(result)}" for measure in COLD[:4])
    return ", ".join(
        f"{name} {measure.say(result)}"
        for name, measure in (
            ("calls/wait/min", MEASURES[0]),
            ("CPU ms/start", MEASURES[5]),
            ("kB/wait", MEASURES[8]),
            ("stall ms", MEASURES[11]),
            ("delay s", MEASURES[15]),
            ("lost", MEASURES[18]),
            ("failed", MEASURES[19]),
        )
    )


def table(rows: Iterable[Sequence[str]], head: Sequence[str]) -> str:
    """A Markdown table.

    >>> print(table([("a", "1")], ("what", "how many")))
    | what | how many |
    | --- | --- |
    | a | 1 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pairs(results: Iterable[Result], group: str) -> dict[tuple[int, int], dict[str, Result]]:
    """Results of a group by number of waits and clusters, and by who."""
    found: dict[tuple[int, int], dict[str, Result]] = {}
    for result in results:
        if result["group"] == group:
            found.setdefault((result["jobs"], result["clusters"]), {})[result["who"]] = result
    return found


def side_by_side(results: Iterable[Result], group: str, measures: Sequence[Measure] = MEASURES) -> str:
    """Ours and the provider's, a table for each number of waits."""
    texts = []
    for (jobs, clusters), both in sorted(pairs(results, group).items()):
        ours, theirs = both.get("ours"), both.get("provider")
        rows = [
            (
                measure.title,
                measure.say(ours),
                measure.say(theirs),
                ratio(
                    measure.of(ours) if ours else None,
                    measure.of(theirs) if theirs else None,
                )
                if measure.ratio
                else "",
            )
            for measure in measures
        ]
        where = "one cluster" if clusters == 1 else f"{clusters} clusters"
        texts.append(
            f"### {grouped(jobs)} waits on {where}\n\n"
            + table(rows, ("measured", "ours", "the provider's", "ours : the provider's"))
        )
    return "\n\n".join(texts)


def columns(results: Iterable[Result], group: str, name: Any) -> str:
    """The cases of a group beside each other.

    :param name: gives a case its title.
    """
    found = [result for result in results if result["group"] == group]
    extra = (
        Measure("calls answered per second, steady", "answered_per_second", 2),
        Measure("calls throttled", "throttled", 0),
        Measure("events sent", "events_sent", 0),
        Measure("lies and foreign events sent", "lies_sent", 0),
    )
    rows = [
        (measure.title, *(measure.say(result) for result in found))
        for measure in (*(each for each in MEASURES if each.path in _CALM), *extra)
    ]
    return table(rows, ("measured", *map(name, found)))


def _budget_name(result: Result) -> str:
    share = "all of the budget" if result["set"] else "half of the budget (default)"
    return f"{grouped(result['jobs'])} waits, {share}"


def _throttled_name(result: Result) -> str:
    who = "ours" if result["who"] == "ours" else "the provider's"
    return f"{who}, {grouped(result['jobs'])} waits"


def _events_name(result: Result) -> str:
    played = result["endpoint"]
    return "no events" if not played else "events and lies" if played.get("lies") else "events"


def operators_table(measured: Mapping[str, Any]) -> str:
    """What an operator costs before anybody waits."""
    parse, execute = measured["parse"], measured["execute"]
    lines: list[tuple[str, Any]] = [
        ("DAG file: import the operator (ms)", lambda who: parse[who]["import_ms"]),
        ("DAG file: make 100 operators (ms)", lambda who: parse[who]["operators_ms"]),
        ("DAG file, both (ms)", lambda who: parse[who]["import_ms"] + parse[who]["operators_ms"]),
        ("`execute` up to `defer`, first in the process (ms)", lambda who: execute[who]["first_ms"]),
        (
            "import and first `execute`, as in a fresh worker (ms)",
            lambda who: parse[who]["import_ms"] + execute[who]["first_ms"],
        ),
        ("`execute` up to `defer`, further ones (ms)", lambda who: execute[who]["next_ms"]),
        ("of which the fake AWS (ms)", lambda who: execute[who]["next_aws_ms"]),
        ("calls of AWS in it", lambda who: execute[who]["calls"]),
    ]
    rows = [
        (title, grouped(of("ours"), 0), grouped(of("provider"), 0), ratio(of("ours"), of("provider")))
        for title, of in lines
    ]
    return table(rows, ("measured", "ours", "the provider's", "ours : the provider's"))


def triggerer_table(measured: Mapping[str, Any]) -> str:
    """A real triggerer."""
    lines = (
        Measure("waits", "jobs", 0, ratio=False),
        Measure("time until each job was polled once (s)", "all_looked_at_s"),
        Measure("API calls per wait and minute", "calls_per_wait_and_minute", 3),
        Measure("CPU of the triggerer until then (s)", "start_cpu_s"),
        Measure("CPU of the triggerer per minute, steady (s)", "cpu_s_per_minute"),
        Measure("CPU of it without waits, per minute (s)", "idle_cpu_s_per_minute", ratio=False),
        Measure("memory per wait (kB)", "kb_per_wait"),
        Measure("from a job's end to Airflow's knowing, median (s)", "delay_s.p50"),
        Measure("from a job's end to Airflow's knowing, 95 % (s)", "delay_s.p95"),
        Measure("from a job's end to Airflow's knowing, longest (s)", "delay_s.max"),
        Measure("lost", "lost", 0, ratio=False),
    )
    return _both(measured, lines)


def restart_table(measured: Mapping[str, Any]) -> str:
    """A real triggerer that restarts."""
    lines = (
        Measure("waits", "jobs", 0, ratio=False),
        Measure("from the start of the process until each job was polled once (s)", "all_looked_at_s"),
        Measure("the same of a triggerer without waits: until it works (s)", "idle_start_s", ratio=False),
        Measure("CPU of the triggerer until then (s)", "start_cpu_s"),
        Measure("CPU of one without waits (s)", "idle_start_cpu_s", ratio=False),
        Measure("memory per wait (kB)", "kb_per_wait"),
        Measure(
            "longest time for which Airflow finds the event loop blocked, from 0.2 on (s)", "blocked_s", 2
        ),
        Measure("from a job's end to Airflow's knowing, longest (s)", "delay_s.max"),
        Measure("lost", "lost", 0, ratio=False),
    )
    return _both(measured, lines)


def _both(measured: Mapping[str, Any], lines: Iterable[Measure]) -> str:
    ours, theirs = measured.get("ours"), measured.get("provider")
    rows = [
        (
            line.title,
            line.say(ours),
            line.say(theirs),
            ratio(line.of(ours) if ours else None, line.of(theirs) if theirs else None) if line.ratio else "",
        )
        for line in lines
    ]
    return table(rows, ("measured", "ours", "the provider's", "ours : the provider's"))


# --- pictures -------------------------------------------------------------------------------------


def bars(title: str, unit: str, groups: Sequence[tuple[str, Sequence[tuple[str, float | None, str]]]]) -> str:
    """A picture of bars on a logarithmic scale, as SVG.

    :param groups: a label, and its bars: whose it is, how much (``None``: not measured), in which colour.
    """
    values = [value for _, each in groups for _, value, _ in each if value]
    if not values:
        values = [1.0]
    low, high = math.floor(math.log10(min(values) * 0.7)), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    left, width, row = 190, 470, 20
    height = 62 + sum(row * len(each) + 12 for _, each in groups) + 26

    def x(value: float) -> float:
        return left + width * (math.log10(value) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {height}">',
        "<style>text { font: 12px sans-serif }</style>",
        f'<rect width="800" height="{height}" fill="white"/>',
        f'<text x="14" y="24" style="font-size: 15px">{escape(title)}</text>',
        f'<text x="14" y="42" fill="#555">{escape(unit)}, logarithmic scale</text>',
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at:.1f}" y1="54" x2="{at:.1f}" y2="{height - 24}" stroke="#ddd"/>')
        label = f"{10.0**power:g}"
        parts.append(f'<text x="{at:.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{label}</text>')
    y = 62.0
    for label, each in groups:
        middle = y + row * len(each) / 2 + 4
        parts.append(f'<text x="14" y="{middle:.0f}">{escape(label)}</text>')
        for whose, value, colour in each:
            if value:
                parts.append(
                    f'<rect x="{left}" y="{y:.0f}" width="{max(1.0, x(value) - left):.1f}" '
                    f'height="{row - 4}" fill="{colour}"/>'
                )
            shown = f"{value:.3g}" if value else "not measured"
            if value and "e" in shown:  # 2.66e+03 is nothing to read
                shown = grouped(value)
            caption = f"{whose}: {shown}"
            at = (x(value) if value else left) + 6
            parts.append(f'<text x="{at:.1f}" y="{y + 12:.0f}">{escape(caption)}</text>')
            y += row
        y += 12
    return "\n".join([*parts, "</svg>"]) + "\n"


def picture(results: Sequence[Result], group: str, title: str, unit: str, path: str) -> str:
    """One measure of a group for all numbers of waits."""
    measure = Measure(title, path)
    groups = []
    for (jobs, clusters), both in sorted(pairs(results, group).items()):
        where = "" if clusters == 1 else f", {clusters} clusters"
        groups.append(
            (
                f"{grouped(jobs)} waits{where}",
                [
                    (whose, measure.of(both[who]) if who in both else None, colour)
                    for who, whose, colour in (("ours", "ours", OURS), ("provider", "provider", PROVIDER))
                ],
            )
        )
    return bars(title, unit, groups)


PICTURES = {
    "calls": ("API calls per wait and minute, ECS", "calls", "calls_per_wait_and_minute"),
    "memory": ("Memory per wait, ECS", "kB", "kb_per_wait"),
    "start": ("CPU to start a wait, ECS", "milliseconds", "cpu_ms_per_start"),
    "stall": ("Largest stall of the event loop while all run, ECS", "milliseconds", "stall_ms.steady"),
}


def load_of(results: Iterable[Result]) -> str:
    """Whether anything else ran on the machine."""
    loads = [result["load_before"] for result in results if "load_before" in result]
    if not loads:
        return ""
    text = f"Load of the machine when a case began: {min(loads):.1f} to {max(loads):.1f}."
    if max(loads) > BUSY:
        text += (
            " So other programs ran beside some of them, and times and stalls there are longer than ours or "
            "the provider's doing; calls, CPU and memory are not touched by that."
        )
    return text


def files(measured: Mapping[str, Any]) -> dict[str, str]:
    """The files to write below the docs' folder, by name.

    :param measured: ``runs``, ``versions``, ``operators``, ``triggerer``, ``restart``, ``restart, EMR``; a
        ``note`` says what is wrong with them.
    """
    results = measured.get("runs", [])
    made = measured.get("versions", {})
    texts = [
        "# Benchmarks: calls, CPU, memory and delays of thousands of waits",
        "<!-- made by `tox run -e benchmarks-watch`, not by hand -->",
        "[How it is measured, and how to read it](../benchmarks.md).\n"
        + ", ".join(f"{name} {value}" for name, value in made.items())
        + ".\n"
        + (measured.get("note") or load_of(results)),
        "\n".join(
            f"![{title}](../_static/benchmarks/{name}.svg)" for name, (title, _, _) in PICTURES.items()
        ),
    ]
    groups: tuple[tuple[str, str, Callable[[str], str]], ...] = (
        (
            "cold",
            "Cold start: a fresh process, all waits at once (ECS)",
            lambda group: side_by_side(results, group, COLD),
        ),
        (
            "cold, EMR",
            "Cold start: a fresh process, all waits at once (EMR, the budget out of the way)",
            lambda group: side_by_side(results, group, COLD),
        ),
        ("ecs", "ECS", lambda group: side_by_side(results, group)),
        ("emr", "EMR, the budget out of the way", lambda group: side_by_side(results, group)),
        (
            "emr, published budget",
            "EMR, 20 clusters within the published budget",
            lambda group: columns(results, group, _budget_name),
        ),
        (
            "throttled",
            "An endpoint that allows 5 calls per second",
            lambda group: columns(results, group, _throttled_name),
        ),
        ("events", "Events", lambda group: columns(results, group, _events_name)),
    )
    for group, title, text in groups:
        if any(result["group"] == group for result in results):
            texts += [f"## {title}", text(group)]
    if "triggerer" in measured:
        texts += ["## A real triggerer", triggerer_table(measured["triggerer"])]
    for name, where in (("restart", "ECS, one cluster"), ("restart, EMR", "EMR, 20 clusters")):
        if name in measured:
            texts += [f"## A real triggerer restarts ({where})", restart_table(measured[name])]
    if "operators" in measured:
        texts += ["## Before anybody waits", operators_table(measured["operators"])]
    wrong = [
        f"* {result['group']}, {result['who']}, {grouped(result['jobs'])} waits: {result['error']}"
        for result in results
        if "error" in result
    ]
    if wrong:
        texts += ["## Not measured", "\n".join(wrong)]
    pictures = {
        f"_static/benchmarks/{name}.svg": picture(results, "ecs", title, unit, path)
        for name, (title, unit, path) in PICTURES.items()
    }
    return {"_generated/watch-benchmark.md": "\n\n".join(texts) + "\n", **pictures}
