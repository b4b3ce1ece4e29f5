"""What an event means, and what becomes of it, as tables."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient import registry
from airflow_resilient.core.job import Claim
from airflow_resilient.core.service import JobEvent
from airflow_resilient.watching.events import (
    MAX_AGE_SECONDS,
    MAX_RECEIVES,
    UnreadableMessage,
    disposition_of,
    read_event,
    region_of,
)

CLAIM = Claim("abcdefghijklmnop", 2)
SOURCES = [registry.service(name).event_source for name in registry.SERVICES]
READERS = [registry.service(name).read_event for name in registry.SERVICES]
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/etl/0123456789abcdef"


def event(source, kind, **detail):
    return json.dumps({"version": "0", "source": source, "detail-type": kind, "detail": detail})


def task_event(**detail):
    return event("aws.ecs", "ECS Task State Change", **{"taskArn": ARN, "lastStatus": "STOPPED", **detail})


def step_event(**detail):
    return event(
        "aws.emr",
        "EMR Step Status Change",
        **{"stepId": "s-1", "clusterId": "j-1", "state": "COMPLETED", **detail},
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            task_event(startedBy=str(CLAIM)),
            JobEvent("ecs", ("0123456789abcdef",), CLAIM, ended=True),
            id="an-ecs-task-with-a-claim-has-stopped",
        ),
        pytest.param(
            task_event(startedBy="ecs-svc/1", lastStatus="RUNNING"),
            JobEvent("ecs", ("0123456789abcdef",), None, ended=False),
            id="an-ecs-task-of-a-service-runs",
        ),
        pytest.param(
            task_event(),
            JobEvent("ecs", ("0123456789abcdef",), None, ended=True),
            id="nobody-says-who-started-it",
        ),
        pytest.param(
            step_event(name=f"sort [{CLAIM} 1/2]"),
            JobEvent("emr_steps", ("s-1",), CLAIM, ended=True),
            id="an-emr-step-with-a-claim-has-completed",
        ),
        *(
            pytest.param(
                step_event(state=state),
                JobEvent("emr_steps", ("s-1",), None, ended=True),
                id=f"a-step-is-{state}",
            )
            for state in ("CANCELLED", "FAILED", "INTERRUPTED")
        ),
        *(
            pytest.param(
                step_event(state=state),
                JobEvent("emr_steps", ("s-1",), None, ended=False),
                id=f"a-step-is-{state}",
            )
            for state in ("PENDING", "RUNNING", "SOMETHING_NEW")
        ),
        pytest.param(
            event("aws.ecs", "ECS Container Instance State Change", taskArn=ARN), None, id="foreign"
        ),
        pytest.param(event("aws.emr", "EMR Cluster State Change", clusterId="j-1"), None, id="of-a-cluster"),
        pytest.param(event("my.app", "ECS Task State Change", taskArn=ARN), None, id="of-somebody-else"),
        pytest.param(task_event(taskArn=None), None, id="an-ecs-task-without-a-name"),
        pytest.param(step_event(stepId=""), None, id="a-step-without-a-name"),
        pytest.param(
            task_event(startedBy=f"af-{CLAIM.task_key}-{'9' * 5000}"),
            JobEvent("ecs", ("0123456789abcdef",), None, ended=True),
            id="a-claim-with-5000-digits-is-none",
        ),
        pytest.param(
            step_event(name=f"sort [af-{CLAIM.task_key}-{'9' * 5000}]"),
            JobEvent("emr_steps", ("s-1",), None, ended=True),
            id="a-marker-with-5000-digits-is-none",
        ),
        pytest.param(task_event(taskArn={"a": [1]}, startedBy=[7], lastStatus={}), ..., id="odd-values"),
    ],
)
def test_what_an_event_means(body, expected):
    found = read_event(body, READERS)
    assert expected is ... or found == expected


def from_sns(body, **more):
    """What SNS puts into a queue without raw message delivery."""
    arn = "arn:aws:sns:eu-west-1:123456789012:airflow-events"
    envelope = {"Type": "Notification", "MessageId": "1", "TopicArn": arn, "Message": body, **more}
    return json.dumps({**envelope, "Timestamp": "2026-01-01T00:00:00.000Z", "SignatureVersion": "1"})


@pytest.mark.parametrize("envelopes", [1, 2, 3])
@pytest.mark.parametrize("subject", [{}, {"Subject": "ECS"}], ids=["no-subject", "subject"])
def test_an_envelope_of_sns_is_unwrapped(envelopes, subject):
    body = task_event(startedBy=str(CLAIM))
    for _ in range(envelopes):
        body = from_sns(body, **subject)
    assert read_event(body, READERS) == JobEvent("ecs", ("0123456789abcdef",), CLAIM, ended=True)


def test_a_foreign_event_in_an_envelope_is_foreign():
    assert read_event(from_sns(event("aws.ec2", "Something")), READERS) is None


def detail_of(body):
    return json.dumps(json.loads(body)["detail"])


TASK = 'only the detail of an event "ECS Task State Change"'
STEP = 'only the detail of an event "EMR Step Status Change"'


@pytest.mark.parametrize(
    ("body", "what"),
    [
        pytest.param(detail_of(task_event(startedBy=str(CLAIM))), TASK, id="the-detail-of-a-task"),
        pytest.param(detail_of(step_event()), STEP, id="the-detail-of-a-step"),
        pytest.param(from_sns(detail_of(step_event())), STEP, id="the-detail-of-a-step-through-sns"),
        pytest.param(from_sns("ECS task 0123 has stopped"), "not JSON", id="an-input-transformer-and-sns"),
        pytest.param('"ECS task 0123 has stopped"', "no event of EventBridge", id="an-input-transformer"),
        pytest.param('{"task": "0123"}', "nothing of what an event", id="another-input-transformer"),
        pytest.param(
            '{"source": "aws.ecs", "detail-type": "ECS Task State Change"}',
            "source and detail-type of what an event",
            id="no-detail",
        ),
        pytest.param('{"detail": "text"}', "detail of what an event", id="detail-is-a-text"),
        pytest.param('{"source": 7, "detail-type": [], "detail": {}}', "of what an event", id="odd-names"),
        pytest.param(
            from_sns("", Type="SubscriptionConfirmation", Message={}), "Type of what", id="a-subscription"
        ),
        pytest.param("[]", "no event", id="a-list"),
        pytest.param("7", "no event", id="a-number"),
        pytest.param("9" * 5000, "not JSON", id="a-number-of-5000-digits"),
        pytest.param("", "not JSON", id="nothing"),
        pytest.param('{"source": "aws.ecs"', "not JSON", id="cut-off"),
        pytest.param("[" * 100_000, "not JSON", id="a-deep-one"),
    ],
)
def test_what_cannot_be_read_is_described(body, what):
    with pytest.raises(UnreadableMessage) as caught:
        read_event(body, READERS, SOURCES)
    assert what in str(caught.value)


def test_a_reader_that_fails_makes_a_message_unreadable():
    def failing(event):
        raise KeyError(event["detail"]["x"])

    with pytest.raises(UnreadableMessage, match="'ECS Task State Change' that the reader"):
        read_event(task_event(), [failing])


def test_a_job_is_known_by_its_keys_and_by_its_claim():
    assert JobEvent("ecs", ("0123",), CLAIM, ended=True).names == ("0123", str(CLAIM))
    assert JobEvent("ecs", ("0123",), None, ended=True).names == ("0123",)


def test_the_first_reader_that_can_read_an_event_counts():
    first, second = (JobEvent(name, ("1",), None, ended=True) for name in ("first", "second"))
    readers = [lambda _: None, lambda _: first, lambda _: second]
    assert read_event(task_event(), readers) is first


def detail_of_any(body):
    try:
        return json.dumps(json.loads(body)["detail"])
    except (ValueError, TypeError, KeyError):
        return body


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.text(max_size=50)
    | st.fixed_dictionaries(
        {
            "source": st.sampled_from(["aws.ecs", "aws.emr"]) | json_values,
            "detail-type": st.sampled_from(["ECS Task State Change", "EMR Step Status Change"]) | json_values,
            "detail": json_values
            | st.dictionaries(
                st.sampled_from(["taskArn", "startedBy", "lastStatus", "stepId", "name", "state"]),
                json_values,
            ),
        }
    ).map(json.dumps)
)
@pytest.mark.parametrize("wrap", [str, from_sns, detail_of_any], ids=["as-it-is", "through-sns", "detail"])
def test_no_message_does_any_harm(wrap, body):
    try:
        found = read_event(wrap(body), READERS, SOURCES)
    except UnreadableMessage:
        return
    if found is not None:
        assert found.service in {"ecs", "emr_steps"}
        assert all(isinstance(name, str) for name in found.names)


EVENT = JobEvent("ecs", ("0123",), CLAIM, ended=True)
USUAL = {"event": EVENT, "wanted": False, "ours": True, "received": 1, "age": 1.0}


@pytest.mark.parametrize(
    ("situation", "disposition"),
    [
        pytest.param({}, "give back", id="another-triggerer-may-wait-for-it"),
        pytest.param({"wanted": True}, "delete", id="it-has-done-its-work"),
        pytest.param({"ours": False}, "delete", id="it-is-about-nothing-of-ours"),
        pytest.param({"event": None, "ours": False}, "delete", id="it-is-about-something-else"),
        pytest.param({"event": None, "ours": False, "readable": False}, "set aside", id="it-cannot-be-read"),
        pytest.param(
            {"event": None, "ours": False, "readable": False, "age": 1e6, "received": MAX_RECEIVES - 1},
            "set aside",
            id="it-cannot-be-read-and-is-old",
        ),
        pytest.param(
            {"event": None, "ours": False, "readable": False, "received": MAX_RECEIVES},
            "delete",
            id="it-could-not-be-read-often-enough",
        ),
        pytest.param({"received": MAX_RECEIVES - 1}, "give back", id="it-has-gone-round-a-few-times"),
        pytest.param({"received": MAX_RECEIVES}, "delete", id="it-has-gone-round-often-enough"),
        pytest.param({"age": MAX_AGE_SECONDS}, "give back", id="it-is-not-that-old"),
        pytest.param({"age": MAX_AGE_SECONDS + 1}, "delete", id="it-is-old"),
        pytest.param(
            {"wanted": True, "received": 99, "age": 1e6}, "delete", id="it-is-late-and-wanted-all-the-same"
        ),
    ],
)
def test_what_becomes_of_an_event(situation, disposition):
    assert disposition_of(**{**USUAL, **situation}) == disposition


ACCOUNT = "123456789012/airflow-events"


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("sqs.eu-west-1.amazonaws.com", "eu-west-1"),
        ("SQS.EU-WEST-1.AMAZONAWS.COM", "eu-west-1"),
        ("sqs-fips.us-east-2.amazonaws.com", "us-east-2"),
        ("sqs.us-west-2.api.aws", "us-west-2"),
        ("sqs-fips.us-west-2.api.aws", "us-west-2"),
        ("vpce-0a1b2c-3d4e.sqs.ap-southeast-2.vpce.amazonaws.com", "ap-southeast-2"),
        ("vpce-0a1b2c-3d4e-us-east-1a.sqs.us-east-1.vpce.amazonaws.com", "us-east-1"),
        ("vpce-0a1b2c-3d4e.sqs-fips.us-gov-west-1.vpce.amazonaws.com", "us-gov-west-1"),
        ("sqs.us-gov-east-1.amazonaws.com", "us-gov-east-1"),
        ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("sqs.cn-northwest-1.api.amazonwebservices.com.cn", "cn-northwest-1"),
        ("sqs.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"),
        ("sqs.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1"),
        ("sqs.eu-isoe-west-1.cloud.adc-e.uk", "eu-isoe-west-1"),
        ("sqs.us-isof-south-1.csp.hci.ic.gov", "us-isof-south-1"),
        ("eu-central-1.queue.amazonaws.com", "eu-central-1"),
        ("queue.amazonaws.com", "us-east-1"),
        ("sqs.mx-central-1.amazonaws.com", "mx-central-1"),
        ("sqs.eu-west-1.localhost.localstack.cloud:4566", "eu-west-1"),
        ("sqs.us-east-1a.example.com", None),
        ("127.0.0.1:5005", None),
        ("localhost:4566", None),
        ("[::1", None),
        ("", None),
    ],
)
def test_the_region_of_a_queue_is_in_its_url(host, region):
    assert region_of(f"https://{host}/{ACCOUNT}") == region


def test_what_is_no_url_has_no_region():
    assert region_of("sqs.eu-west-1.amazonaws.com") is None
