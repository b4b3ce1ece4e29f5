"""The request for an ECS task: the shapes of its parameters, and which of its values may be secrets.

Imports the standard library and `core` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...core.shapes import TEXT, TRUTH, WHOLE, Fields, ListOf, MapOf, Shape, optional, text
from ...core.text import values_of

_TAG = Fields({"key": TEXT, "value": TEXT}, "a dict: {'key': 'team', 'value': 'data'}")
_VARIABLE = Fields({"name": TEXT, "value": TEXT}, "a dict: {'name': 'STAGE', 'value': 'prod'}")
_ENVIRONMENT_FILE = Fields(
    {"value": TEXT, "type": TEXT},
    "a dict: {'value': 'arn:aws:s3:::bucket/a.env', 'type': 's3'}",
    ("value", "type"),
)
_NVIDIA_MPS = Fields({"memory": WHOLE, "maxComputePercent": WHOLE}, "a dict: {'memory': 1024}", ("memory",))
_RESOURCE = Fields(
    {
        "value": TEXT,
        "type": TEXT,
        "sharingStrategy": Fields({"nvidiaMps": _NVIDIA_MPS}, "a dict: {'nvidiaMps': {'memory': 1024}}"),
    },
    "a dict: {'type': 'GPU', 'value': '1'}",
    ("type",),
)
_CONTAINER = Fields(
    {
        "name": TEXT,
        "command": ListOf(TEXT, "a list of texts: ['python', 'run.py']"),
        "environment": ListOf(_VARIABLE, "a list of dicts: [{'name': 'STAGE', 'value': 'prod'}]"),
        "environmentFiles": ListOf(_ENVIRONMENT_FILE, f"a list, each {_ENVIRONMENT_FILE.wanted}"),
        "cpu": WHOLE,
        "memory": WHOLE,
        "memoryReservation": WHOLE,
        "resourceRequirements": ListOf(_RESOURCE, f"a list, each {_RESOURCE.wanted}"),
    },
    "a dict: {'name': 'main', 'command': ['python', 'run.py']}",
)
_ACCELERATOR = Fields({"deviceName": TEXT, "deviceType": TEXT}, "a dict: {'deviceName': …, 'deviceType': …}")
_OVERRIDES = Fields(
    {
        "containerOverrides": ListOf(
            _CONTAINER, "a list of dicts: [{'name': 'main', 'environment': [{'name': …, 'value': …}]}]"
        ),
        "cpu": text("1024"),
        "memory": text("2048"),
        "executionRoleArn": TEXT,
        "taskRoleArn": TEXT,
        "inferenceAcceleratorOverrides": ListOf(_ACCELERATOR, f"a list, each {_ACCELERATOR.wanted}"),
        "ephemeralStorage": Fields({"sizeInGiB": WHOLE}, "a dict: {'sizeInGiB': 30}", ("sizeInGiB",)),
    },
    "RunTask's overrides as a dict, {} for none",
)
_STRATEGY = Fields(
    {"capacityProvider": TEXT, "weight": WHOLE, "base": WHOLE},
    "a dict: {'capacityProvider': 'FARGATE_SPOT', 'weight': 1}",
    ("capacityProvider",),
)
_CONSTRAINT = Fields({"type": TEXT, "expression": TEXT}, "a dict: {'type': 'memberOf', 'expression': …}")
_PLACEMENT = Fields({"type": TEXT, "field": TEXT}, "a dict: {'type': 'spread', 'field': 'host'}")
_AWSVPC = Fields(
    {
        "subnets": ListOf(TEXT, "a list of texts: ['subnet-0123']"),
        "securityGroups": ListOf(TEXT, "a list of texts: ['sg-0123']"),
        "assignPublicIp": text("DISABLED"),
    },
    "a dict: {'subnets': ['subnet-0123'], 'securityGroups': ['sg-0123']}",
    ("subnets",),
)
_NETWORK = Fields({"awsvpcConfiguration": _AWSVPC}, "a dict: {'awsvpcConfiguration': {'subnets': […]}}")
_EBS_TAGS = Fields(
    {
        "resourceType": text("volume"),
        "tags": ListOf(_TAG, "a list of dicts: [{'key': 'team', 'value': 'data'}]"),
        "propagateTags": text("NONE"),
    },
    "a dict: {'resourceType': 'volume', 'tags': [{'key': 'team', 'value': 'data'}]}",
    ("resourceType",),
)
_EBS = Fields(
    {
        "encrypted": TRUTH,
        "kmsKeyId": TEXT,
        "volumeType": text("gp3"),
        "sizeInGiB": WHOLE,
        "snapshotId": TEXT,
        "volumeInitializationRate": WHOLE,
        "iops": WHOLE,
        "throughput": WHOLE,
        "tagSpecifications": ListOf(_EBS_TAGS, f"a list, each {_EBS_TAGS.wanted}"),
        "roleArn": TEXT,
        "terminationPolicy": Fields(
            {"deleteOnTermination": TRUTH}, "a dict: {'deleteOnTermination': True}", ("deleteOnTermination",)
        ),
        "filesystemType": text("ext4"),
    },
    "a dict: {'sizeInGiB': 100, 'roleArn': …}",
    ("roleArn",),
)
_VOLUME = Fields({"name": TEXT, "managedEBSVolume": _EBS}, "a dict: {'name': 'data', …}", ("name",))

SHAPES: Mapping[str, Shape] = {
    "task_definition": text("nightly:7"),
    "cluster": text("etl"),
    "overrides": _OVERRIDES,
    "launch_type": optional(text("FARGATE")),
    "capacity_provider_strategy": optional(ListOf(_STRATEGY, f"a list, each {_STRATEGY.wanted}")),
    "volume_configurations": optional(ListOf(_VOLUME, f"a list, each {_VOLUME.wanted}")),
    "group": optional(TEXT),
    "placement_constraints": optional(ListOf(_CONSTRAINT, f"a list, each {_CONSTRAINT.wanted}")),
    "placement_strategy": optional(ListOf(_PLACEMENT, f"a list, each {_PLACEMENT.wanted}")),
    "platform_version": optional(text("LATEST")),
    "network_configuration": optional(_NETWORK),
    "tags": optional(MapOf(TEXT, "a dict of texts: {'team': 'data'}")),
    "awslogs_group": optional(TEXT),
    "awslogs_region": optional(TEXT),
    "awslogs_stream_prefix": optional(TEXT),
    "container_name": optional(TEXT),
    "propagate_tags": optional(text("TASK_DEFINITION")),
    "run_task_kwargs": optional(
        Fields(
            {"enableECSManagedTags": TRUTH, "enableExecuteCommand": TRUTH, "referenceId": TEXT},
            "a dict of RunTask's parameters",
        )
    ),
}
"""Parameters of the operator. Source: RunTask reference; a test compares them with botocore's model."""

_SHOWN_ARGUMENTS = frozenset(
    {
        "taskDefinition",
        "launchType",
        "capacityProviderStrategy",
        "group",
        "placementConstraints",
        "placementStrategy",
        "platformVersion",
        "networkConfiguration",
        "propagateTags",
    }
)
"""Arguments of RunTask whose values no message can do without, and which hold names of AWS's own things."""

_SHOWN_FIELDS = frozenset(
    {
        "name",
        "key",
        "type",
        "cpu",
        "memory",
        "memoryReservation",
        "executionRoleArn",
        "taskRoleArn",
        "resourceType",
        "volumeType",
        "filesystemType",
        "roleArn",
        "sizeInGiB",
    }
)


def secrets_of(request: Mapping[str, Any]) -> Iterator[str]:
    """The values of a request that may be secrets: all but names of AWS's things.

    >>> list(secrets_of({"taskDefinition": "nightly", "tags": [{"key": "team", "value": "data"}]}))
    ['data']
    """
    for name, value in request.items():
        if name not in _SHOWN_ARGUMENTS:
            yield from values_of(value, _SHOWN_FIELDS)
