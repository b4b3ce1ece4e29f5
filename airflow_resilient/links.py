"""Links from a task instance in Airflow's UI to the AWS console.

URLs are made by pure functions. An operator calls ``persist`` with the facts as soon as it knows them;
Airflow 3 asks ``get_link`` at the end of every visit to a worker, deferral included, and keeps the answer for
the UI; 2.11 asks it in the webserver, whenever somebody looks.

Source: ``finalize`` in ``airflow/sdk/execution_time/task_runner.py`` (3.x).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from .aws import partition_of
from .compat import BaseOperatorLink, recall

if TYPE_CHECKING:
    from airflow.sdk import Context

_DOMAINS = {"aws": "aws.amazon.com", "aws-cn": "amazonaws.cn", "aws-us-gov": "amazonaws-us-gov.com"}


def _console(region_name: str) -> str:
    """Begin the URL of the console that `region_name` belongs to."""
    return f"https://console.{_DOMAINS[partition_of(region_name)]}"


def ecs_task_url(*, region_name: str, cluster: str, task_id: str) -> str:
    """Address of an ECS task's page.

    :param cluster: name or ARN.
    :param task_id: id or ARN.

    >>> ecs_task_url(region_name="eu-west-1", cluster="etl", task_id="0123abcd")
    'https://console.aws.amazon.com/ecs/v2/clusters/etl/tasks/0123abcd/configuration?region=eu-west-1'
    """
    path = f"clusters/{_last(cluster)}/tasks/{_last(task_id)}"
    return f"{_console(region_name)}/ecs/v2/{path}/configuration?region={region_name}"


def log_stream_url(*, region_name: str, group: str, stream: str) -> str:
    """Address of a CloudWatch log stream; ``""`` when group or stream are not known.

    The console wants names escaped twice, with ``$`` instead of ``%``.

    >>> url = log_stream_url(region_name="cn-north-1", group="/ecs/etl", stream="ecs/main/01")
    >>> url.partition("#")[2]
    'logsV2:log-groups/log-group/$252Fecs$252Fetl/log-events/ecs$252Fmain$252F01'
    """
    if not group or not stream:
        return ""
    names = [quote(quote(name, safe=""), safe="").replace("%", "$") for name in (group, stream)]
    page = "#logsV2:log-groups/log-group/{}/log-events/{}".format(*names)
    return f"{_console(region_name)}/cloudwatch/home?region={region_name}{page}"


def emr_cluster_url(*, region_name: str, job_flow_id: str) -> str:
    """Address of an EMR cluster's page.

    >>> emr_cluster_url(region_name="eu-west-1", job_flow_id="j-1")
    'https://console.aws.amazon.com/emr/home?region=eu-west-1#/clusterDetails/j-1'
    """
    return f"{_console(region_name)}/emr/home?region={region_name}#/clusterDetails/{job_flow_id}"


def emr_step_logs_url(*, region_name: str, job_flow_id: str, step_id: str, log_uri: str | None) -> str:
    """Address of the S3 folder with a step's logs; ``""`` for a cluster that keeps none.

    :param log_uri: the cluster's ``LogUri``, ``s3://bucket/prefix/`` (EMR also writes ``s3n://``).

    Source: EMR management guide, "View log files": ``LogUri/CLUSTER/steps/STEP/``.

    >>> emr_step_logs_url(region_name="eu-west-1", job_flow_id="j-1", step_id="s-2", log_uri="s3n://logs/emr/")
    'https://console.aws.amazon.com/s3/buckets/logs?region=eu-west-1&prefix=emr/j-1/steps/s-2/'
    """
    bucket, _, prefix = (log_uri or "").partition("://")[2].partition("/")
    if not bucket:
        return ""
    folder = "/".join(part for part in (prefix.strip("/"), job_flow_id, "steps", step_id) if part)
    return f"{_console(region_name)}/s3/buckets/{bucket}?region={region_name}&prefix={quote(folder)}/"


def _last(name: str) -> str:
    """The last part of an ARN, or the name itself."""
    return name.rpartition("/")[2]


class ConsoleLink(BaseOperatorLink):
    """A link whose facts the operator pushes as XCom."""

    name: ClassVar[str] = ""
    key: ClassVar[str] = ""
    url: ClassVar[Callable[..., str]]

    @property
    def xcom_key(self) -> str:
        """Where Airflow 3 keeps the finished URL; 2.11 does not know this property."""
        return f"_link_{type(self).__name__}"

    @classmethod
    def persist(cls, context: Context, **facts: Any) -> None:
        """Push what the URL is made of: the keywords of the class's `url`, JSON values."""
        context["ti"].xcom_push(key=cls.key, value=facts)

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Make the URL from what `persist` pushed; ``""`` before that.

        :param ti_key: task instance, or its key.
        """
        facts = recall(ti_key, self.key)
        return type(self).url(**facts) if facts else ""


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


class EmrClusterLink(ConsoleLink):
    """The EMR cluster's page."""

    name = "EMR cluster"
    key = "emr_cluster"
    url = staticmethod(emr_cluster_url)


class EmrStepLogsLink(ConsoleLink):
    """The S3 folder with the logs of the EMR step; of the first one where there are several."""

    name = "EMR step logs"
    key = "emr_step_logs"
    url = staticmethod(emr_step_logs_url)
