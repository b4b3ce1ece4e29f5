"""What an event means, and what becomes of it, as tables."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.events import MOST_RECEIVED, OLD, Wake, judge, read_event
from airflow_resilient.jobs import Claim

CLAIM = Claim("abcdefghijklmnop", 2)
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
            Wake("ecs", ("0123456789abcdef", str(CLAIM)), CLAIM, ended=True),
            id="an-ecs-task-with-a-claim-has-stopped",
        ),
        pytest.param(
            task_event(startedBy="ecs-svc/1", lastStatus="RUNNING"),
            Wake("ecs", ("0123456789abcdef",), None, ended=False),
            id="an-ecs-task-of-a-service-runs",
        ),
        pytest.param(
            task_event(),
            Wake("ecs", ("0123456789abcdef",), None, ended=True),
            id="nobody-says-who-started-it",
        ),
        pytest.param(
            step_event(name=f"sort [{CLAIM} 1/2]"),
            Wake("emr", ("s-1", str(CLAIM)), CLAIM, ended=True),
            id="an-emr-step-with-a-claim-has-completed",
        ),
        *(
            pytest.param(
                step_event(state=state), Wake("emr", ("s-1",), None, ended=True), id=f"a-step-is-{state}"
            )
            for state in ("CANCELLED", "FAILED", "INTERRUPTED")
        ),
        *(
            pytest.param(
                step_event(state=state), Wake("emr", ("s-1",), None, ended=False), id=f"a-step-is-{state}"
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
        pytest.param('{"source": "aws.ecs", "detail-type": "ECS Task State Change"}', None, id="no-detail"),
        pytest.param('{"detail": "text"}', None, id="detail-is-a-text"),
        pytest.param("[]", None, id="a-list"),
        pytest.param("7", None, id="a-number"),
        pytest.param("", None, id="nothing"),
        pytest.param('{"source": "aws.ecs"', None, id="cut-off"),
        pytest.param("[" * 100_000, None, id="a-deep-one"),
    ],
)
def test_what_an_event_means(body, expected):
    assert read_event(body) == expected


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
def test_no_message_does_any_harm(body):
    wake = read_event(body)
    assert wake is None or (wake.kind in {"ecs", "emr"} and all(isinstance(key, str) for key in wake.keys))


WAKE = Wake("ecs", ("0123",), CLAIM, ended=True)
USUAL = {"wake": WAKE, "wanted": False, "ours": True, "received": 1, "age": 1.0}


@pytest.mark.parametrize(
    ("situation", "verdict"),
    [
        pytest.param({}, "give back", id="another-triggerer-may-wait-for-it"),
        pytest.param({"wanted": True}, "delete", id="it-has-done-its-work"),
        pytest.param({"ours": False}, "delete", id="it-is-about-nothing-of-ours"),
        pytest.param({"wake": None, "ours": False}, "delete", id="it-is-malformed"),
        pytest.param({"received": MOST_RECEIVED - 1}, "give back", id="it-has-gone-round-a-few-times"),
        pytest.param({"received": MOST_RECEIVED}, "delete", id="it-has-gone-round-often-enough"),
        pytest.param({"age": OLD}, "give back", id="it-is-not-that-old"),
        pytest.param({"age": OLD + 1}, "delete", id="it-is-old"),
        pytest.param(
            {"wanted": True, "received": 99, "age": 1e6}, "delete", id="it-is-late-and-wanted-all-the-same"
        ),
    ],
)
def test_what_becomes_of_an_event(situation, verdict):
    assert judge(**{**USUAL, **situation}) == verdict
