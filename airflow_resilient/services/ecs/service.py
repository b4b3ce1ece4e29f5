"""The description of Amazon ECS tasks for the registry, read before the client is loaded.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...core.job import Claim
from ...core.service import Budget, JobEvent, ServiceInfo
from ...core.text import last_part

if TYPE_CHECKING:
    from ...core.job import Job


def read_event(event: Mapping[str, Any]) -> JobEvent | None:
    """Read "ECS Task State Change"; ``None``: the event is about something else.

    Source: "Amazon ECS events" in the ECS developer guide.

    >>> read_event({"source": "aws.ec2", "detail-type": "Something", "detail": {}}) is None
    True
    """
    if (event.get("source"), event.get("detail-type")) != SERVICE.event_source:
        return None
    detail = event["detail"]
    task_id = last_part(str(detail.get("taskArn") or ""))
    if not task_id:
        return None
    claim = Claim.read(str(detail.get("startedBy") or ""))
    return JobEvent("ecs", (task_id,), claim, ended=detail.get("lastStatus") == "STOPPED")


def stop_command(job: Job) -> str:
    """The command that ends an ECS task by hand."""
    cluster, task = shlex.quote(last_part(job.scope)), shlex.quote(last_part(job.id))
    return f"aws ecs stop-task --cluster {cluster} --task {task}"


SERVICE = ServiceInfo(
    name="ecs",
    title="Amazon ECS tasks",
    client="client:EcsTasks",
    scope_noun="cluster",
    public={"EcsRunTaskOperator": "operator", "EcsTaskStateSensor": "sensor"},
    links=("links:EcsTaskLink", "links:EcsTaskLogsLink"),
    lookup=("cluster",),
    scope_parameter="cluster",
    scope_option="--ecs-cluster",
    # Source: ECS API reference, "Request throttling for the Amazon ECS API": cluster reads.
    budget=Budget(
        "ecs:DescribeTasks",
        per_second=20.0,
        burst=100.0,
        operations=("ecs:DescribeTasks", "ecs:ListTasks"),
    ),
    poll_interval=6.0,
    read_event=read_event,
    event_source=("aws.ecs", "ECS Task State Change"),
    archives_events=True,
    stop_command=stop_command,
    iam={
        "operator": (
            {
                "Sid": "Submit",
                "Effect": "Allow",
                "Action": "ecs:RunTask",
                "Resource": "arn:aws:ecs:REGION:ACCOUNT:task-definition/nightly:*",
            },
            {
                "Sid": "HandTheTaskItsRoles",
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": [
                    "arn:aws:iam::ACCOUNT:role/nightly-task",
                    "arn:aws:iam::ACCOUNT:role/nightly-execution",
                ],
                "Condition": {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
            },
            {
                "Sid": "FindPollAndCancel",
                "Effect": "Allow",
                "Action": ["ecs:ListTasks", "ecs:DescribeTasks", "ecs:StopTask"],
                "Resource": "*",
                "Condition": {"ArnEquals": {"ecs:cluster": "arn:aws:ecs:REGION:ACCOUNT:cluster/etl"}},
            },
            {
                "Sid": "OnlyWithoutOverridesOrWithSeveralContainers",
                "Effect": "Allow",
                "Action": "ecs:DescribeTaskDefinition",
                "Resource": "*",
            },
            {
                "Sid": "OnlyWithTags",
                "Effect": "Allow",
                "Action": "ecs:TagResource",
                "Resource": "arn:aws:ecs:REGION:ACCOUNT:task/etl/*",
                "Condition": {"StringEquals": {"ecs:CreateAction": "RunTask"}},
            },
            {
                "Sid": "OnlyWithLogs",
                "Effect": "Allow",
                "Action": "logs:GetLogEvents",
                "Resource": "arn:aws:logs:REGION:ACCOUNT:log-group:/ecs/nightly:log-stream:*",
            },
            {
                "Sid": "OnlyWithEventsLogGroup",
                "Effect": "Allow",
                "Action": "logs:FilterLogEvents",
                "Resource": "arn:aws:logs:REGION:ACCOUNT:log-group:/aws/events/airflow:*",
            },
        ),
        "sensor": (
            {
                "Sid": "Poll",
                "Effect": "Allow",
                "Action": "ecs:DescribeTasks",
                "Resource": "arn:aws:ecs:REGION:ACCOUNT:task/etl/*",
            },
            {
                "Sid": "OnlyWithEventsLogGroup",
                "Effect": "Allow",
                "Action": "logs:FilterLogEvents",
                "Resource": "arn:aws:logs:REGION:ACCOUNT:log-group:/aws/events/airflow:*",
            },
        ),
    },
)
