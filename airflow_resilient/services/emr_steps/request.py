"""The request for EMR steps: validation, templates, secrets in messages. Pure functions."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core.shapes import TEXT, Fields, ListOf, OneOf, Plain, Shape, misfit, optional, text
from ...core.text import redact, shorten, values_of
from ...parameters import is_open, read_literal, reject

if TYPE_CHECKING:
    from .marker import Step

ACTIONS_ON_FAILURE = ("TERMINATE_JOB_FLOW", "TERMINATE_CLUSTER", "CANCEL_AND_WAIT", "CONTINUE")
"""Source: StepConfig reference, ActionOnFailure."""

MAX_ACTIVE_STEPS = 256
"""Steps that may be active on a cluster, and steps of one call. Source: management guide, "Submit work to a
cluster"; CancelSteps reference."""

EXAMPLE_STEPS = (
    "[{'Name': 'sort', 'HadoopJarStep': {'Jar': 'command-runner.jar', 'Args': ['spark-submit', 's3://…']}}]"
)

CLUSTER_ID, STEP_ID = r"j-[0-9A-Za-z]+", r"s-[0-9A-Za-z]+"
"""What EMR calls clusters and steps. Source: examples of AddJobFlowSteps in the API reference."""
_PROPERTY = Fields({"Key": TEXT, "Value": TEXT}, "a dict: {'Key': 'name', 'Value': 'value'}")

STEP = Fields(
    {
        "Name": TEXT,
        "ActionOnFailure": TEXT,
        "HadoopJarStep": Fields(
            {
                "Properties": ListOf(_PROPERTY, "a list of dicts: [{'Key': 'name', 'Value': 'value'}]"),
                "Jar": TEXT,
                "MainClass": TEXT,
                "Args": ListOf(TEXT, "a list of texts: ['spark-submit', 's3://…']"),
            },
            "a dict: {'Jar': 'command-runner.jar', 'Args': ['spark-submit', 's3://…']}",
        ),
        "StepMonitoringConfiguration": Fields(
            {
                "S3MonitoringConfiguration": Fields(
                    {"LogUri": TEXT, "EncryptionKeyArn": TEXT}, "a dict: {'LogUri': 's3://…'}"
                )
            },
            "a dict: {'S3MonitoringConfiguration': {'LogUri': 's3://…'}}",
        ),
    },
    "a dict",
)
"""One of boto3's ``Steps``. Source: StepConfig reference; a test compares it with botocore's model."""

_SHOWN_FIELDS = frozenset(
    {"Name", "ActionOnFailure", "Jar", "MainClass", "Key", "LogUri", "EncryptionKeyArn"}
)
"""Fields of a step that are no secrets."""

_AWS_VALUE = re.compile(r"Value '.*?' at '", re.DOTALL)


def invalid_steps(steps: Any, *, rendered: bool) -> str | None:
    """Why `steps` are invalid, in a text without arguments of steps; ``None`` if they are valid.

    :param rendered: templates have been rendered; before that, possible templates, empty values and the text
        of a list are accepted.
    """
    if not rendered:
        if _may_change(steps):
            return None
        with contextlib.suppress(ValueError):
            steps = read_literal(steps)
    if not isinstance(steps, (list, tuple)):
        return f"a {type(steps).__name__} is not a list of steps"
    if not steps:
        return "the list is empty"
    if len(steps) > MAX_ACTIVE_STEPS:
        return (
            f"the list has {len(steps)} steps; a cluster accepts {MAX_ACTIVE_STEPS} at a time: split it into "
            "several tasks"
        )
    for place, step in enumerate(steps, 1):
        if not rendered and _may_change(step):
            continue
        problem = _invalid_step(step, rendered=rendered)
        if problem:
            return f"step {place} {problem}"
    return None


def _invalid_step(step: Any, *, rendered: bool) -> str | None:
    """Why one step is invalid, as the end of a sentence; ``None`` if it is valid."""
    if not isinstance(step, Mapping):
        return f"is a {type(step).__name__}, not a dict"
    if "Name" not in step or (rendered and not step["Name"]):
        return "has no Name"
    found = misfit(STEP, step, "", (lambda _: False) if rendered else _may_change)
    if found:
        name = f"({shorten(step['Name'], 60)!r})" if isinstance(step["Name"], str) else ""
        kind = "has no value" if found.value is None else f"is a {type(found.value).__name__}"
        return f"{name}{found.place} {kind}; it must be {found.wanted}"
    jar = step.get("HadoopJarStep")
    open_jar = not rendered and "HadoopJarStep" in step and _may_change(jar)
    if not open_jar and not (isinstance(jar, Mapping) and "Jar" in jar and (jar["Jar"] or not rendered)):
        return f"({shorten(str(step['Name']), 60)!r}) has no HadoopJarStep with a Jar"
    action = step.get("ActionOnFailure", "CONTINUE")
    if not (not rendered and _may_change(action)) and action not in ACTIONS_ON_FAILURE:
        return (
            f"({shorten(str(step['Name']), 60)!r}) has ActionOnFailure={action!r}, which is none of "
            + ", ".join(ACTIONS_ON_FAILURE)
        )
    return None


def _may_change(value: Any) -> bool:
    """Whether `value` may still become another one: it is open, or the name of a template file."""
    return is_open(value, rendered=False) or (isinstance(value, str) and value.endswith(".json"))


def redact_arguments(message: str, steps: Any) -> str:
    """`message` without the steps' arguments and properties, which may be secrets and which AWS quotes.

    :param steps: of any shape: what is no step may be a secret, too.
    """
    message = _AWS_VALUE.sub("Value '(hidden)' at '", message)
    return redact(message, values_of(steps, _SHOWN_FIELDS))


def secret_words(args: Any) -> Iterator[str]:
    """Arguments that may be secrets: neither names of options nor paths, which an error needs.

    >>> list(secret_words(["spark-submit", "--conf", "a.key=k3y", "s3://etl/a.py", "hunter2"]))
    ['spark-submit', 'a.key=k3y', 'k3y', 'hunter2']
    """
    for word in values_of(args):
        if not re.fullmatch(r"-[\w-]*|(\w+:/)?/[^\s@?]*", word):
            yield word
            yield from filter(None, (word.partition("=")[2],))


def inject_openlineage_parent(steps: Sequence[Step], properties: Mapping[str, Any]) -> list[Step]:
    """Copies of `steps` in which ``spark-submit`` and ``run-example`` get `properties` as ``--conf``.

    Steps that already name a parent are not changed.

    >>> jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", "a.py"]}
    >>> parent = {"spark.openlineage.parentRunId": "7"}
    >>> inject_openlineage_parent([{"Name": "a", "HadoopJarStep": jar}], parent)[0]["HadoopJarStep"]["Args"]
    ['spark-submit', '--conf', 'spark.openlineage.parentRunId=7', 'a.py']
    """
    added = [word for name, value in properties.items() for word in ("--conf", f"{name}={value}")]
    result: list[Step] = []
    for step in steps:
        jar = step["HadoopJarStep"]
        args = [str(word) for word in jar.get("Args") or ()]
        runs_spark = (
            str(jar["Jar"]).endswith("command-runner.jar")
            and args
            and args[0].rpartition("/")[2] in ("spark-submit", "run-example")
        )
        if runs_spark and not any("spark.openlineage.parent" in word for word in args):
            result.append({**step, "HadoopJarStep": {**jar, "Args": [args[0], *added, *args[1:]]}})
        else:
            result.append(step)
    return result


def read_states(value: Any) -> list[str]:
    """The states in a parameter that may be a list, one state, or the text of a list.

    :raises ValueError: it is none of these.
    """
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [value]
    states = read_literal(value)
    if not isinstance(states, list | tuple | set | frozenset):
        raise ValueError("it is no list of states")  # noqa: TRY004 - like `read_literal`
    return [str(getattr(state, "value", state)) for state in states]


def states_of(task: Any, parameter: str) -> list[str]:
    """The states in a parameter of a task whose templates have been rendered.

    :raises InvalidParameter: it has none.
    """
    value = getattr(task, parameter)
    try:
        return read_states(value)
    except ValueError:
        reject(task, parameter, value, _STATES.wanted)


_STATES = OneOf(
    (ListOf(TEXT, "a list"), Plain((set, frozenset), "a set"), TEXT), "a list of states, or one state"
)

SHAPES: Mapping[str, Shape] = {
    "job_flow_id": optional(text("j-2AXXXXXXGAPLF")),
    "job_flow_name": optional(text("etl")),
    "cluster_states": _STATES,
    "execution_role_arn": optional(text("arn:aws:iam::123456789012:role/steps")),
}
"""Parameters of the operator; `invalid_steps` checks ``steps``."""

SENSOR_SHAPES: Mapping[str, Shape] = {
    "job_flow_id": text("j-2AXXXXXXGAPLF"),
    "step_id": text("s-2XXXXXXXXXXXX"),
    "target_states": _STATES,
    "failed_states": _STATES,
}
