"""What the recipe about forgotten tasks shows is installed, on the fake AWS, as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import boto3
import pytest

from airflow_resilient import settings
from airflow_resilient.core.job import Claim, Phase
from airflow_resilient.services.ecs.client import EcsTasks
from airflow_resilient.services.ecs.service import SERVICE
from airflow_resilient.testing import FakeAws

PAGE = "know-the-end-of-a-task-that-ecs-has-forgotten.md"
TEXT = (Path(__file__).parents[2] / "docs" / "recipes" / PAGE).read_text()
CLAIM = Claim("abcdefghijklmnop", 2)
ACCOUNT = "123456789012"


def blocks(language):
    """The page's blocks of that language, for an account and a region that exist."""
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return [text.replace("REGION", "us-east-1").replace("ACCOUNT", ACCOUNT) for text in found]


POLICY, ENDS, ROLE = map(json.loads, blocks("json"))
(CONFIG,) = blocks("ini")
GROUP = "/aws/events/airflow"


@pytest.fixture
def installed(monkeypatch):
    """The log group, the rule and the setting, as the page's commands make them."""
    name, _, value = CONFIG.splitlines()[1].partition(" = ")
    monkeypatch.setenv(f"AIRFLOW__AIRFLOW_RESILIENT__{name.upper()}", value)
    settings.reread()
    with FakeAws() as aws:
        logs, events = boto3.client("logs"), boto3.client("events")
        logs.create_log_group(logGroupName=GROUP)
        logs.put_retention_policy(logGroupName=GROUP, retentionInDays=7)
        logs.put_resource_policy(policyName="airflow-events", policyDocument=json.dumps(POLICY))
        events.put_rule(Name="airflow-ends", EventPattern=json.dumps(ENDS))
        arn = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{GROUP}"
        events.put_targets(Rule="airflow-ends", Targets=[{"Id": "group", "Arn": arn}])
        aws.make_ecs_cluster("etl")
        aws.make_task_definition("nightly")
        aws.ecs.plan("nightly", seconds=None)
        yield aws
    monkeypatch.undo()
    settings.reread()


def run(aws, started_by):
    """A task that has ended and is forgotten."""
    request = {"cluster": "etl", "taskDefinition": "nightly", "launchType": "FARGATE"}
    arn = boto3.client("ecs").run_task(**request, startedBy=started_by)["tasks"][0]["taskArn"]
    aws.ecs.finish(arn)
    aws.ecs.forget(arn)
    return arn


def test_the_end_of_a_claimed_task_is_archived_and_understood(installed):
    arn = run(installed, str(CLAIM))
    run(installed, "ecs-svc/1")
    (job,) = EcsTasks(aws_conn_id=None, cluster="etl").find_forgotten([CLAIM], since=0)
    assert (job.id, job.phase, job.claim) == (arn, Phase.SUCCEEDED, CLAIM)
    lines = boto3.client("logs").filter_log_events(logGroupName=GROUP)["events"]
    assert len(lines) == 1, "ends of tasks without a claim are not archived"


def test_the_pattern_with_which_a_person_checks_it_finds_the_event(installed):
    run(installed, str(CLAIM))
    (pattern,) = re.findall(r"--filter-pattern '(.*?)'", TEXT)
    assert boto3.client("logs").filter_log_events(logGroupName=GROUP, filterPattern=pattern)["events"]


def test_the_policies_name_the_rule_and_the_group(installed):
    rules = {rule["Arn"] for rule in boto3.client("events").list_rules()["Rules"]}
    everything = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{GROUP}:*"
    (read,) = ROLE["Statement"]
    assert {statement["Resource"] for statement in (*POLICY["Statement"], read)} == {everything}
    conditions = [each["Condition"] for each in POLICY["Statement"] if "Condition" in each]
    assert [{each["ArnEquals"]["aws:SourceArn"]} for each in conditions] == [rules]


@pytest.mark.parametrize("what", ["operator", "sensor"])
def test_the_page_of_policies_allows_the_same(what):
    (read,) = ROLE["Statement"]
    actions = {
        each["Action"]: each["Resource"] for each in SERVICE.iam[what] if isinstance(each["Action"], str)
    }
    assert read["Resource"] == actions[read["Action"]].replace("REGION", "us-east-1").replace(
        "ACCOUNT", ACCOUNT
    )
