"""Links from a task instance to the page and the logs of its ECS task."""

from __future__ import annotations

from ...aws.console import ConsoleLink, console_origin, log_stream_url
from ...core.text import last_part


def ecs_task_url(*, region_name: str, cluster: str, task_id: str) -> str:
    """URL of an ECS task's page.

    :param cluster: name or ARN.
    :param task_id: id or ARN.

    >>> ecs_task_url(region_name="eu-west-1", cluster="etl", task_id="0123abcd")
    'https://console.aws.amazon.com/ecs/v2/clusters/etl/tasks/0123abcd/configuration?region=eu-west-1'
    """
    path = f"clusters/{last_part(cluster)}/tasks/{last_part(task_id)}"
    return f"{console_origin(region_name)}/ecs/v2/{path}/configuration?region={region_name}"


class EcsTaskLink(ConsoleLink):
    """The ECS task's page."""

    name = "ECS task"
    key = "ecs_task"
    url = staticmethod(ecs_task_url)


class EcsTaskLogsLink(ConsoleLink):
    """The CloudWatch log stream of the ECS task."""

    name = "ECS task logs"
    key = "ecs_task_logs"
    url = staticmethod(log_stream_url)
