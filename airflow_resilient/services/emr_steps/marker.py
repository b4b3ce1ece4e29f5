"""The marker in the names of EMR steps: write it, read it, group steps by it. Pure functions."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...core.job import TASK_KEY, Claim

Step: TypeAlias = Mapping[str, Any]


NAME_CHARS = 256
"""Characters of a step's name. Source: StepConfig reference, Name (``XmlStringMaxLen256``)."""

_NUMBER = "([0-9]{1,9})"  # longer ones are somebody else's
MARKER = re.compile(
    rf"\[af-({TASK_KEY})-{_NUMBER}(?:-{_NUMBER})?(?: {_NUMBER}/{_NUMBER})?"
    r"(?: ([0-9]{1,9}\.[0-9]{1,9}))?(?: ([a-z2-7]{8})(\+)?)?\]$"
)


@dataclass(frozen=True)
class Marker:
    """The marker at the end of a step's name: step `place` of `of` in the submission of `claim`.

    :param seal: see `seal_of`; empty: the name has none.
    :param unattended: it may run on without its task instance, see `RemoteService.unattended`.
    """

    claim: Claim
    place: int = 1
    of: int = 1
    seal: str = ""
    unattended: bool = False


def mark(
    steps: Sequence[Step], claim: Claim, cluster_id: str, *, unattended: bool = False
) -> list[dict[str, Any]]:
    """Copies of `steps` with a marker of `claim` in their names, which are shortened to AWS's limit.

    >>> step = {"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["true"]}}
    >>> [step["Name"] for step in mark([step], Claim("abcdefghijklmnop", 1), "j-1")]
    ['sort [af-abcdefghijklmnop-1 2u2ulyft]']
    >>> claim = Claim("abcdefghijklmnop", 1, resubmission=2, generation="4.3")
    >>> [step["Name"] for step in mark([step, step], claim, "j-1")]
    ['sort [af-abcdefghijklmnop-1-2 1/2 4.3 53sfbk75]', 'sort [af-abcdefghijklmnop-1-2 2/2 4.3 j5eqg5el]']

    :param unattended: see `RemoteService.unattended`; the marker ends with a plus then.
    """
    marked = []
    for place, step in enumerate(steps, 1):
        where = Marker(claim, place, len(steps), unattended=unattended)
        words = [claim.token]
        if len(steps) > 1:
            words.append(f"{place}/{len(steps)}")
        if claim.generation:
            words.append(claim.generation)
        words.append(seal_of(where, cluster_id, step["HadoopJarStep"]) + ("+" if unattended else ""))
        marker = f" [{' '.join(words)}]"
        name, most = str(step["Name"]), NAME_CHARS - len(marker)
        marked.append({**step, "Name": (name if len(name) <= most else name[: most - 1] + "…") + marker})
    return marked


def seal_of(marker: Marker, cluster_id: str, config: Mapping[str, Any]) -> str:
    """What binds a marker to its step: 40 bits of a hash over marker, cluster, and what the step runs.

    People clone steps and clusters, and the clones have the same names. A seal shows that a step runs on the
    cluster, and with the jar, the arguments and the properties, for which its marker was made.

    :param config: ``HadoopJarStep`` of AddJobFlowSteps, or ``Config`` of ListSteps, which has the same
        values. Source: HadoopJarStepConfig and HadoopStepConfig in the API reference: ``Properties`` is a
        list of keys and values in one and a map in the other.
    """
    properties = config.get("Properties") or {}
    if not isinstance(properties, Mapping):
        properties = {each.get("Key"): each.get("Value") for each in properties}
    facts = (
        [marker.claim.token, marker.claim.generation, marker.place, marker.of, marker.unattended, cluster_id],
        [str(config.get("Jar") or ""), str(config.get("MainClass") or "")],
        [str(word) for word in config.get("Args") or ()],
        sorted((str(name), str(value or "")) for name, value in properties.items()),
    )
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=5).digest()
    return base64.b32encode(digest).decode().lower()


def read_marker(name: str) -> Marker | None:
    """Read the marker at the end of a step's name; ``None``: it has none. It proves nothing; see `proved`.

    >>> read_marker("b [af-abcdefghijklmnop-1-2 2/3 4.3 k3v7ahq2]")  # doctest: +ELLIPSIS
    Marker(claim=Claim(..., generation='4.3'), place=2, of=3, seal='k3v7ahq2', unattended=False)
    """
    found = MARKER.search(name)
    if not found:
        return None
    key, number, resubmission, place, of, generation, seal, unattended = found.groups()
    claim = Claim(key, int(number), int(resubmission or 0), generation or "")
    return Marker(claim, int(place or 1), int(of or 1), seal or "", unattended is not None)


def proved(step: Step, cluster_id: str) -> Marker | None:
    """The marker of a step, if it was made for this very step on this cluster; ``None`` for a copy.

    :param step: an element of ListSteps' ``Steps``.
    """
    marker = read_marker(str(step.get("Name") or ""))
    if marker is None or marker.seal != seal_of(marker, cluster_id, step.get("Config") or {}):
        return None
    return marker


def group_submissions(steps: Iterable[Step], claims: Iterable[Claim]) -> list[tuple[Marker, list[Step]]]:
    """Group the steps that bear one of `claims` by submission.

    A lost answer can lead to a second, equal submission, hence to two sets of steps with equal names: the
    k-th step of each place, in the order of creation, belongs to the k-th set. A set may lack steps that are
    not listed (yet).

    :param steps: elements of ListSteps' ``Steps``; steps that were created at the same moment in the order of
        their creation.
    :return: the marker of one step of each set, and the set in the order of its places.
    """
    wanted = set(claims)
    seen: Counter[tuple[str, int, int]] = Counter()
    sets: dict[tuple[str, int, int], list[tuple[Marker, Step]]] = defaultdict(list)
    for step in sorted(steps, key=created_at):
        marker = read_marker(step["Name"])
        if marker is None or marker.claim not in wanted:
            continue
        name = (marker.claim.token, marker.of, marker.place)
        sets[marker.claim.token, marker.of, seen[name]].append((marker, step))
        seen[name] += 1
    ordered = [sorted(members, key=lambda member: member[0].place) for members in sets.values()]
    return [(members[0][0], [step for _, step in members]) for members in ordered]


def why_copied(ids: Collection[str], submissions: Sequence[tuple[Marker, Sequence[Step]]]) -> str:
    """Why the steps with these ids may be copies of those that were submitted; empty: they are none.

    :param submissions: of their claim, see `group_submissions`, from all steps of their cluster that are
        `proved`.
    """
    own = [marker for marker, steps in submissions if set(ids) <= {step["Id"] for step in steps}]
    if not own:
        return "the cluster does not list them any more, or their names were made for other steps: copies"
    first = next(steps for marker, steps in submissions if marker.claim.token == own[0].claim.token)
    if not set(ids) <= {step["Id"] for step in first}:
        return (
            f"{first[0]['Id']} on the same cluster is older and has the same marker in its name: it may be a "
            "copy that somebody has made"
        )
    return ""


def timeline(step: Step) -> Mapping[str, Any]:
    """The timeline of a step; empty if it has none."""
    return step["Status"].get("Timeline") or {}


def created_at(step: Step) -> float:
    """When a step was created, in seconds since 1970; 0 if unknown."""
    created = timeline(step).get("CreationDateTime")
    return float(created.timestamp()) if created else 0.0
