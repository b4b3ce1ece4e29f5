"""Links from a task instance to its EMR cluster and to the logs of its step."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from ...aws.console import ConsoleLink, console_origin

if TYPE_CHECKING:
    from airflow.sdk import Context

    from .client import EmrSteps


def emr_cluster_url(*, region_name: str, job_flow_id: str) -> str:
    """URL of an EMR cluster's page.

    >>> emr_cluster_url(region_name="eu-west-1", job_flow_id="j-1")
    'https://console.aws.amazon.com/emr/home?region=eu-west-1#/clusterDetails/j-1'
    """
    return f"{console_origin(region_name)}/emr/home?region={region_name}#/clusterDetails/{job_flow_id}"


def emr_step_logs_url(*, region_name: str, job_flow_id: str, step_id: str, log_uri: str | None) -> str:
    """URL of the S3 folder with a step's logs; ``""`` for a cluster without logs in S3.

    :param log_uri: the cluster's ``LogUri``, ``s3://bucket/prefix/`` (EMR also writes ``s3n://``).

    Source: EMR management guide, "View log files": ``LogUri/CLUSTER/steps/STEP/``.

    >>> emr_step_logs_url(region_name="eu-west-1", job_flow_id="j-1", step_id="s-2", log_uri="s3n://logs/emr/")
    'https://console.aws.amazon.com/s3/buckets/logs?region=eu-west-1&prefix=emr/j-1/steps/s-2/'
    """
    bucket, _, prefix = (log_uri or "").partition("://")[2].partition("/")
    if not bucket:
        return ""
    folder = "/".join(part for part in (prefix.strip("/"), job_flow_id, "steps", step_id) if part)
    return f"{console_origin(region_name)}/s3/buckets/{bucket}?region={region_name}&prefix={quote(folder)}/"


class EmrClusterLink(ConsoleLink):
    """The EMR cluster's page."""

    name = "EMR cluster"
    key = "emr_cluster"
    url = staticmethod(emr_cluster_url)


class EmrStepLogsLink(ConsoleLink):
    """The S3 folder with the logs of the EMR step, or of the first of several."""

    name = "EMR step logs"
    key = "emr_step_logs"
    url = staticmethod(emr_step_logs_url)


class _ProvidersLogsLink(ConsoleLink):
    """Where the amazon provider's ``EmrLogsLink`` reads, for subclasses that have it."""

    key = "emr_logs"


def persist_links(context: Context, service: EmrSteps, cluster_id: str, step_id: str) -> None:
    """Push the parameters of both links, and those of the provider's link to logs.

    :raises LookupError: EMR knows no such cluster.
    """
    cluster = {"region_name": service.region(), "job_flow_id": cluster_id}
    EmrClusterLink.persist(context, **cluster)
    log_uri = service.log_uri(cluster_id)  # a call of EMR, which throttles them
    EmrStepLogsLink.persist(context, **cluster, step_id=step_id, log_uri=log_uri)
    bucket_and_prefix = (log_uri or "").partition("://")[2] or None
    _ProvidersLogsLink.persist(context, **cluster, log_uri=bucket_and_prefix)
