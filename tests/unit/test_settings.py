"""The section of the configuration: what is read, what is wrong, and what goes before what."""

import logging
from dataclasses import fields

import pytest

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator, EmrStepSensor, Patience
from airflow_resilient.budget import Budget
from airflow_resilient.provider_info import CONFIG
from airflow_resilient.settings import SECTION, Settings, Usual, read, reread

OPTIONS = CONFIG[SECTION]["options"]
LIST_STEPS = Budget("emr:ListSteps", per_second=0.5, burst=10.0)


def read_one(name, text):
    settings, wrong = read({name: text}.get)
    assert wrong == ()
    return getattr(settings, name)


@pytest.fixture
def configured(monkeypatch):
    def configure(**options):
        for name, text in options.items():
            monkeypatch.setenv(f"AIRFLOW__AIRFLOW_RESILIENT__{name.upper()}", text)
        return reread()

    yield configure
    monkeypatch.undo()
    reread()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("api_budget_share", "1", 1.0),
        ("api_budget_share", " 0.25 ", 0.25),
        ("api_budgets", "emr:ListSteps=2/40", {"emr:ListSteps": (2.0, 40.0)}),
        ("api_budgets", "a:B=1, c:D = 2 / 3,", {"a:B": (1.0, None), "c:D": (2.0, 3.0)}),
        ("poll_interval", "90", 90.0),
        ("first_look", "5.5", 5.5),
        ("longest_backoff", "60", 60.0),
        ("looks_at_once", "16", 16),
        ("events_queue_url", "https://sqs.eu-west-1.amazonaws.com/123456789012/airflow-events", None),
        ("events_queue_url", "http://127.0.0.1:5005/123456789012/events.fifo", None),
        ("events_aws_conn_id", "aws_events", "aws_events"),
    ],
)
def test_what_is_written_is_read(name, text, value):
    assert read_one(name, text) == (text if value is None else value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("api_budget_share", "0"),
        ("api_budget_share", "1.5"),
        ("api_budget_share", "50%"),
        ("api_budget_share", "nan"),
        ("api_budgets", "emr:ListSteps"),
        ("api_budgets", "emr:ListSteps=0"),
        ("api_budgets", "emr:ListSteps=fast"),
        ("api_budgets", "emr:ListSteps=1.2.3"),
        ("poll_interval", "30s"),
        ("poll_interval", "0.5"),
        ("poll_interval", "inf"),
        ("first_look", "0"),
        ("first_look", "-2"),
        ("longest_backoff", "1"),
        ("looks_at_once", "0"),
        ("looks_at_once", "8.5"),
        ("looks_at_once", "1000"),
        ("events_queue_url", "airflow-events"),
        ("events_queue_url", "arn:aws:sqs:eu-west-1:123456789012:airflow-events"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_write_and_has_its_default(name, text):
    settings, (complaint,) = read({name: text}.get)
    assert settings == Settings()
    assert complaint.startswith(f"[airflow_resilient] {name} = {text!r}: write ")
    assert "such as" in complaint


def test_one_wrong_value_does_not_spoil_the_others():
    settings, wrong = read({"first_look": "x", "poll_interval": "y", "longest_backoff": "99"}.get)
    assert settings.longest_backoff == 99.0
    assert len(wrong) == 2


def test_every_setting_is_an_option_that_airflow_knows_with_the_same_default():
    for setting in fields(Settings):
        option = OPTIONS[setting.name]
        assert read({setting.name: option["default"]}.get) == (Settings(), ())
        assert read({setting.name: option["example"]}.get)[1] == (), "the example is valid"


def test_airflow_hands_over_what_its_configuration_says(configured):
    settings = configured(api_budget_share="0.25", poll_interval="45")
    assert (settings.api_budget_share, settings.poll_interval) == (0.25, 45.0)


def test_a_wrong_value_is_an_error_in_the_log_and_jobs_are_watched_all_the_same(configured, caplog):
    with caplog.at_level(logging.ERROR, "airflow_resilient.settings"):
        assert configured(poll_interval="30s") == Settings()
    (record,) = caplog.records
    assert "[airflow_resilient] poll_interval = '30s': write a number of seconds" in record.getMessage()


# --- what goes before what ------------------------------------------------------------------------


def steps(**kwargs):
    step = {"Name": "a", "HadoopJarStep": {"Jar": "b"}}
    return EmrAddStepsOperator(task_id="a", job_flow_id="j-1", steps=[step], **kwargs)


def task(**kwargs):
    return EcsRunTaskOperator(task_id="a", cluster="etl", task_definition="b", overrides={}, **kwargs)


@pytest.mark.parametrize(
    ("make", "usual"), [pytest.param(task, 6.0, id="ecs"), pytest.param(steps, 30.0, id="emr")]
)
def test_what_the_operator_says_goes_before_the_setting_and_that_before_the_default(configured, make, usual):
    assert make().patience.poll == usual
    configured(poll_interval="45", first_look="4", longest_backoff="99")
    assert make().patience == Patience(poll=45.0, first=4.0, longest=99.0)
    assert make(waiter_delay=int(usual)).patience.poll == usual, "who writes the default asks for it"
    assert make(waiter_delay=3).patience == Patience(poll=3.0, first=3.0, longest=99.0)
    assert make(patience=Patience(poll=7.0)).patience == Patience(poll=7.0)


def test_a_sensor_has_its_poke_interval(configured):
    configured(poll_interval="45")
    sensor = EmrStepSensor(task_id="a", job_flow_id="j-1", step_id="s-1", poke_interval=20)
    assert reread().patience(float(sensor.poke_interval)).poll == 20.0


def test_a_usual_number_is_a_number():
    assert Usual(6) == 6
    assert Settings().patience(Usual(6)).poll == 6.0
    assert Settings().patience().poll == Patience.poll


# --- budgets --------------------------------------------------------------------------------------


def test_a_budget_is_the_published_one_unless_it_was_raised():
    assert Settings().budget_of(LIST_STEPS) == LIST_STEPS
    raised = Settings(api_budgets={"emr:ListSteps": (2.0, None), "ecs:DescribeTasks": (1.0, 1.0)})
    assert (raised.budget_of(LIST_STEPS).per_second, raised.budget_of(LIST_STEPS).burst) == (2.0, 40.0)
    raised = Settings(api_budgets={"emr:ListSteps": (2.0, 15.0)})
    assert raised.budget_of(LIST_STEPS).burst == 15.0
