"""What the page about Amazon MWAA tells its readers to paste is what AWS and Python accept."""

import json
import re
from pathlib import Path

import botocore.session
import pytest
from botocore.validate import ParamValidator

PAGE = (Path(__file__).parents[2] / "docs" / "recipes" / "watch-amazon-mwaa.md").read_text()
BLOCKS = [json.loads(found) for found in re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]
ALARMS = [each for each in BLOCKS if "AlarmName" in each]


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm["MetricName"])
def test_cloudwatch_takes_the_alarm(alarm):
    model = botocore.session.get_session().get_service_model("cloudwatch")
    shape = model.operation_model("PutMetricAlarm").input_shape
    assert not ParamValidator().validate(alarm, shape).has_errors()
    for name in ("Statistic", "ComparisonOperator"):
        assert alarm[name] in shape.members[name].enum


def test_there_are_two_alarms_and_one_policy():
    assert len(ALARMS) == 2
    (policy,) = [each for each in BLOCKS if "Statement" in each]
    actions = {each["Action"]: each["Resource"].split(":", 5)[5] for each in policy["Statement"]}
    assert actions == {
        "airflow:InvokeRestApi": "role/prod/Viewer",
        "airflow:GetEnvironment": "environment/prod",
    }


def test_the_handler_is_python():
    (handler,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    compile(handler, "handler.py", "exec")
