"""What all AWS operators and sensors check about the access to AWS when the DAG is parsed."""

import pytest

import airflow_resilient
from airflow_resilient import registry
from airflow_resilient.errors import InvalidParameter
from airflow_resilient.services._aws import AwsJobOperator, AwsJobSensor

KEYWORDS = {
    "EcsRunTaskOperator": {"cluster": "etl", "task_definition": "nightly", "overrides": {}},
    "EcsTaskStateSensor": {"cluster": "etl", "task": "0123abcd"},
    "EmrAddStepsOperator": {"job_flow_id": "j-1", "steps": []},
    "EmrStepSensor": {"job_flow_id": "j-1", "step_id": "s-1"},
}


def aws_classes():
    public = [name for info in registry.services().values() for name in info.public]
    classes = [getattr(airflow_resilient, name) for name in public]
    return [
        each for each in classes if isinstance(each, type) and issubclass(each, AwsJobOperator | AwsJobSensor)
    ]


def made(kind, **changes):
    steps = [{"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["true"]}}]
    keywords = {**KEYWORDS[kind.__name__]}
    if "steps" in keywords:
        keywords["steps"] = steps
    return kind(task_id="nightly", **keywords, **changes)


def test_every_public_class_for_aws_is_tested_here():
    assert {each.__name__ for each in aws_classes()} == set(KEYWORDS)


@pytest.mark.parametrize("kind", aws_classes(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("region", "advice"),
    [
        ("us-east-1a", "'us-east-1', the region of that availability zone"),
        ("eu-central-1c", "'eu-central-1', the region of that availability zone"),
        ("useast1", "the code of a region, such as 'eu-west-1'"),
        ("EU-WEST-1", "the code of a region"),
        ("eu_west_1", "the code of a region"),
        ("Ireland", "the code of a region"),
        ("https://ecs.eu-west-1.amazonaws.com", "the code of a region"),
    ],
)
def test_what_cannot_be_a_region_is_refused_when_the_dag_is_parsed(kind, region, advice):
    with pytest.raises(InvalidParameter, match=f"'nightly': region_name={region!r}") as error:
        made(kind, region_name=region)
    assert advice in str(error.value)


@pytest.mark.parametrize("kind", aws_classes(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "region",
    [
        None,
        "us-east-1",
        "us-gov-west-1",
        "us-isob-east-1",
        "cn-northwest-1",
        "eusc-de-east-1",
        "mx-central-1",
        "aws-global",
        "{{ var.value.region }}",
    ],
)
def test_what_can_be_a_region_is_taken(kind, region):
    assert made(kind, region_name=region).region_name == region
