"""Names of the made-up jobs, so that endpoint and waits need not exchange them."""

from __future__ import annotations

import base64
import hashlib

REGION = "us-east-1"
ACCOUNT = "123456789012"


def token(job: int) -> str:
    """What stands in ``startedBy`` of an ECS task, or in the name of an EMR step: a claim of ours.

    >>> token(7)
    'af-pebgtg7efsfi4rx3-1'
    """
    family = base64.b32encode(hashlib.sha256(str(job).encode()).digest())[:16].decode().lower()
    return f"af-{family}-1"


def ecs_cluster(job: int, clusters: int) -> str:
    """ARN of the cluster that an ECS task runs in."""
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/c{job % clusters}"


def task(job: int, clusters: int) -> str:
    """ARN of an ECS task; its last part is its number."""
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/c{job % clusters}/{job:032x}"


def task_number(arn: str) -> int:
    """Which job that is.

    >>> task_number(task(77, 4))
    77
    """
    return int(arn.rpartition("/")[2], 16)


def emr_cluster(job: int, clusters: int) -> str:
    """Id of the cluster that an EMR step runs on."""
    return f"j-{job % clusters:013d}"


def step(job: int) -> str:
    """Id of an EMR step."""
    return f"s-{job:013d}"


def number(name: str) -> int:
    """Which step, or cluster, that is.

    >>> number(step(77)), number(emr_cluster(77, 4))
    (77, 1)
    """
    return int(name[2:])
