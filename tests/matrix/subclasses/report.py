"""The table for the documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .cases import HOOKS, OURS, PROVIDER, ROWS, Row, Seen


def short(seen: Seen) -> str:
    """States, tries, jobs in short.

    >>> short(Seen(states=({"run": "success", "a": "success"},), tries=({"a": 1},), requests=("x",)))
    'success in 1 try · 1 job'
    """
    states = [state for run in seen.states for name, state in run.items() if name != "run"]
    counted = [
        f"{states.count(each)} {each}" if len(states) > 1 else each for each in dict.fromkeys(sorted(states))
    ]
    tries = sum(sum(run.values()) for run in seen.tries)
    tasks = sum(map(len, seen.tries))
    more = f" in {tries} {'try' if tries == 1 else 'tries'}" if tasks else ""
    jobs = len(seen.requests)
    left = f", {seen.left} left" if seen.left else ""
    return f"{', '.join(counted)}{more} · {jobs} job{'' if jobs == 1 else 's'}{left}"


def verdict(row: Row, provider: Seen, seen: Seen, implementation: str) -> str:
    """How it waits, and what differs from the provider's class."""
    if seen.error:
        return f"the DAG file is refused: `{last_line(seen.error)}`"
    different = provider.differences(seen)
    named = row.named(implementation)
    why = "; ".join(dict.fromkeys(named.get(name, f"{name}: NOT NAMED") for name in sorted(different)))
    return "<br>".join(
        filter(None, (short(seen), seen.where and f"waits {seen.where}", why and f"differs: {why}"))
    )


def held(row: Row, provider: Seen, seen: Seen, implementation: str) -> bool:
    """Whether nothing differs but what is named, and it waits where it should."""
    if row.refused and implementation == OURS:
        return row.refused in seen.error
    where = (row.where,) if implementation == OURS else ("without a slot", "")
    return provider.differences(seen) == set(row.named(implementation)) and seen.where in where


def last_line(error: str) -> str:
    """The last line of a traceback, without the names of classes that it begins with."""
    return re.sub(r"^\w+(\.\w+)*: ", "", error.strip().splitlines()[-1])


def table(results: Mapping[str, Mapping[str, Seen]]) -> str:
    """The rows, side by side."""
    lines = [
        "| what the DAG does | the provider's class | the import changed | with hooks |",
        "|---|---|---|---|",
    ]
    for row in ROWS:
        if found := results.get(row.id):
            provider = found[PROVIDER]
            cells = [
                f"{row.what} (`{row.id}`)",
                short(provider),
                verdict(row, provider, found[OURS], OURS),
                verdict(row, provider, found[HOOKS], HOOKS) if HOOKS in found else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
