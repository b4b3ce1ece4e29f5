"""Requests to REST services, whose headers name no operation, are distinguished by their paths."""

import boto3
import pytest
from botocore.exceptions import ClientError

from airflow_resilient.testing import FakeAws
from airflow_resilient.testing.aws.rest import read_rest_request


@pytest.mark.parametrize(
    ("service", "method", "path", "query", "body", "expected"),
    [
        pytest.param(
            "batch",
            "POST",
            "/v1/submitjob",
            "",
            b'{"jobName": "sort"}',
            ("SubmitJob", {"jobName": "sort"}),
            id="a-path-of-its-own-and-a-body",
        ),
        pytest.param(
            "emr-serverless",
            "POST",
            "/applications/00f/jobruns",
            "",
            b"{}",
            ("StartJobRun", {"applicationId": "00f"}),
            id="an-id-in-the-path",
        ),
        pytest.param(
            "emr-serverless",
            "GET",
            "/applications/00f/jobruns",
            "states=RUNNING",
            b"",
            ("ListJobRuns", {"applicationId": "00f", "states": "RUNNING"}),
            id="the-same-path-with-another-method-and-a-query",
        ),
        pytest.param(
            "emr-containers",
            "DELETE",
            "/virtualclusters/vc/jobruns/jr",
            "",
            b"",
            ("CancelJobRun", {"virtualClusterId": "vc", "jobRunId": "jr"}),
            id="two-ids-in-the-path",
        ),
        pytest.param(
            "batch",
            "GET",
            "/v1/tags/arn%3Aaws%3Abatch",
            "",
            b"",
            ("ListTagsForResource", {"resourceArn": "arn:aws:batch"}),
            id="an-escaped-id",
        ),
        pytest.param("batch", "GET", "/v1/submitjob", "", b"", None, id="no-such-method"),
        pytest.param("batch", "POST", "/v2/submitjob", "", b"", None, id="no-such-path"),
        pytest.param("ecs", "POST", "/", "", b"", None, id="a-service-that-is-not-rest"),
        pytest.param("no-such-service", "POST", "/", "", b"", None, id="a-service-that-is-not-known"),
        pytest.param(
            "batch", "POST", "/v1/submitjob", "", b"not json", ("SubmitJob", {}), id="a-body-that-is-no-json"
        ),
    ],
)
def test_the_path_identifies_the_operation(service, method, path, query, body, expected):
    assert read_rest_request(service, method, path, query, body) == expected


@pytest.fixture(params=["in this process", "over HTTP"])
def aws_and_batch(request):
    """The fake AWS, and a client of AWS Batch that reaches it."""
    with FakeAws() as aws:
        if request.param == "in this process":
            yield aws, boto3.client("batch", region_name="us-east-1")
            return
    with FakeAws().serve() as aws:
        url = aws.environment()["AWS_ENDPOINT_URL"]
        yield aws, boto3.client("batch", region_name="us-east-1", endpoint_url=url)


def test_calls_of_a_rest_service_can_be_failed_and_are_counted_by_their_names(aws_and_batch):
    aws, batch = aws_and_batch
    aws.fail_next("batch:SubmitJob", "TooManyRequestsException", times=10)
    with pytest.raises(ClientError) as caught:
        batch.submit_job(jobName="sort", jobQueue="etl", jobDefinition="nightly")
    assert caught.value.response["Error"]["Code"] == "TooManyRequestsException"
    assert aws.calls["batch:SubmitJob"] >= 1
