"""What the recipe about events shows is installed, on moto, as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import boto3
import pytest

from airflow_resilient.core.job import Claim
from airflow_resilient.registry import services
from airflow_resilient.settings import read
from airflow_resilient.testing import FakeAws
from airflow_resilient.watching.events import read_event

PAGE = (Path(__file__).parents[2] / "docs" / "recipes" / "notice-the-end-within-seconds.md").read_text()
READERS = [info.read_event for info in services().values()]
CLAIM = Claim("abcdefghijklmnop", 2)
TASK = {"taskArn": "arn:aws:ecs:us-east-1:1:task/etl/0123", "startedBy": str(CLAIM), "lastStatus": "STOPPED"}


def blocks(language):
    """The page's blocks of that language, for an account and a region that exist."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return [text.replace("REGION", "us-east-1").replace("ACCOUNT", "123456789012") for text in found]


POLICY, ECS, EMR, ROLE = map(json.loads, blocks("json"))


@pytest.fixture
def installed():
    """A queue and the rules, as the page's commands make them."""
    with FakeAws():
        sqs, events = boto3.client("sqs"), boto3.client("events")
        attributes = {"MessageRetentionPeriod": "300", "Policy": json.dumps(POLICY)}
        url = sqs.create_queue(QueueName="airflow-events", Attributes=attributes)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        for name, pattern in (("airflow-ecs-tasks", ECS), ("airflow-emr-steps", EMR)):
            events.put_rule(Name=name, EventPattern=json.dumps(pattern))
            events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])
        yield sqs, events, url, arn


def sent(installed, source, kind, detail):
    """What comes out of the queue when this goes into EventBridge."""
    sqs, events, url, _ = installed
    events.put_events(Entries=[{"Source": source, "DetailType": kind, "Detail": json.dumps(detail)}])
    return [message["Body"] for message in sqs.receive_message(QueueUrl=url).get("Messages", ())]


def test_the_end_of_a_claimed_task_comes_out_of_the_queue_and_is_understood(installed):
    (body,) = sent(installed, "aws.ecs", "ECS Task State Change", TASK)
    event = read_event(body, READERS)
    assert (event.service, event.names, event.ended) == ("ecs", ("0123", str(CLAIM)), True)


@pytest.mark.parametrize(
    ("source", "kind", "detail"),
    [
        pytest.param(
            "aws.ecs", "ECS Task State Change", {**TASK, "startedBy": "ecs-svc/1"}, id="a-task-of-a-service"
        ),
        pytest.param(
            "aws.ecs",
            "ECS Task State Change",
            {**TASK, "lastStatus": "RUNNING"},
            id="a-task-that-has-not-ended",
        ),
        pytest.param("aws.ecs", "ECS Deployment State Change", TASK, id="something-else"),
    ],
)
def test_what_concerns_nobody_does_not_even_come_in(installed, source, kind, detail):
    assert sent(installed, source, kind, detail) == []


def test_the_rule_for_steps_names_the_ends_and_the_claim():
    """moto does not know wildcards, so its EventBridge cannot show this one."""
    assert (EMR["source"], EMR["detail-type"]) == (["aws.emr"], ["EMR Step Status Change"])
    for state in EMR["detail"]["state"]:
        detail = {"stepId": "s-1", "state": state, "name": f"sort [{CLAIM}]"}
        event = {"source": "aws.emr", "detail-type": "EMR Step Status Change", "detail": detail}
        assert read_event(json.dumps(event), READERS).ended
    ((condition,),) = [EMR["detail"]["name"]]
    before, after = condition["wildcard"].split("*")[1:]
    assert before in f"sort [{CLAIM}]"
    assert after == ""


def test_the_policy_names_the_queue_and_both_rules(installed):
    _, events, _, arn = installed
    (statement,) = POLICY["Statement"]
    rules = {rule["Arn"] for rule in events.list_rules()["Rules"]}
    assert statement["Resource"] == arn == ROLE["Statement"][0]["Resource"]
    assert set(statement["Condition"]["ArnEquals"]["aws:SourceArn"]) == rules


def test_the_option_is_valid():
    (config,) = blocks("ini")
    name, _, value = config.splitlines()[1].partition(" = ")
    settings, wrong = read({name: value}.get)
    assert (getattr(settings, name), wrong) == (value, ())
