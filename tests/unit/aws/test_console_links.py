"""Links into the AWS console."""

import pytest

from airflow_resilient.aws.console import log_stream_url
from airflow_resilient.services.ecs.links import EcsTaskLink, EcsTaskLogsLink, ecs_task_url
from airflow_resilient.services.emr_steps.links import (
    EmrClusterLink,
    EmrStepLogsLink,
    emr_cluster_url,
    emr_step_logs_url,
)

LINKS = [EcsTaskLink, EcsTaskLogsLink, EmrClusterLink, EmrStepLogsLink]


@pytest.mark.parametrize(
    ("region", "start"),
    [
        pytest.param("eu-west-1", "https://console.aws.amazon.com/", id="commercial"),
        pytest.param("cn-north-1", "https://console.amazonaws.cn/", id="china"),
        pytest.param("us-gov-west-1", "https://console.amazonaws-us-gov.com/", id="us-government"),
    ],
)
def test_the_console_is_that_of_the_partition(region, start):
    urls = [
        ecs_task_url(region_name=region, cluster="etl", task_id="1"),
        log_stream_url(region_name=region, group="g", stream="s"),
        emr_cluster_url(region_name=region, job_flow_id="j-1"),
        emr_step_logs_url(region_name=region, job_flow_id="j-1", step_id="s-1", log_uri="s3://b/"),
    ]
    assert all(url.startswith(start) and f"region={region}" in url for url in urls)


def test_an_ecs_task_may_be_given_by_arns():
    url = ecs_task_url(
        region_name="eu-west-1",
        cluster="arn:aws:ecs:eu-west-1:123456789012:cluster/etl",
        task_id="arn:aws:ecs:eu-west-1:123456789012:task/etl/0123abcd",
    )
    assert url == ecs_task_url(region_name="eu-west-1", cluster="etl", task_id="0123abcd")


def test_names_of_a_log_stream_are_escaped_for_the_fragment():
    url = log_stream_url(region_name="eu-west-1", group="/ecs/my group", stream="ecs/main/01?")
    assert url.endswith("/log-group/$252Fecs$252Fmy$2520group/log-events/ecs$252Fmain$252F01$253F")


@pytest.mark.parametrize(
    ("log_uri", "end"),
    [
        pytest.param(
            "s3://logs", "s3/buckets/logs?region=eu-west-1&prefix=j-1/steps/s-2/", id="a-whole-bucket"
        ),
        pytest.param("s3://logs/a/b/", "&prefix=a/b/j-1/steps/s-2/", id="a-folder"),
        pytest.param(
            "s3n://logs/a", "buckets/logs?region=eu-west-1&prefix=a/j-1/steps/s-2/", id="the-scheme-s3n"
        ),
        pytest.param(None, "", id="no-logs-no-link"),
        pytest.param("", "", id="empty-no-link"),
    ],
)
def test_step_logs_stand_below_the_clusters_log_uri(log_uri, end):
    url = emr_step_logs_url(region_name="eu-west-1", job_flow_id="j-1", step_id="s-2", log_uri=log_uri)
    assert url.endswith(end) if end else url == ""


def test_no_stream_no_link():
    assert log_stream_url(region_name="eu-west-1", group="g", stream="") == ""


def test_names_and_keys_differ():
    assert len({link.name for link in LINKS}) == len({link.key for link in LINKS}) == len(LINKS)
    assert len({link().xcom_key for link in LINKS}) == len(LINKS)


def test_airflow_shows_what_the_provider_info_names():
    from airflow_resilient.provider_info import get_provider_info

    assert set(get_provider_info()["extra-links"]) == {
        f"{link.__module__}.{link.__qualname__}" for link in LINKS
    }


def test_persist_pushes_the_facts_that_make_the_url():
    pushed = {}

    class TaskInstance:
        def xcom_push(self, key, value):
            pushed[key] = value

    EmrClusterLink.persist({"ti": TaskInstance()}, region_name="eu-west-1", job_flow_id="j-1")
    facts = {"region_name": "eu-west-1", "job_flow_id": "j-1"}
    assert pushed == {"emr_cluster": {**facts, "aws_domain": "aws.amazon.com"}}
    assert EmrClusterLink.url(**facts).endswith("/clusterDetails/j-1")
