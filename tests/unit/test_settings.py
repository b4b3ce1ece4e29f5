"""The section of the configuration: what is read, what is wrong, and what goes before what."""

import logging
from dataclasses import fields

import pytest

from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator, EmrStepSensor, PollPolicy
from airflow_resilient.core.service import Budget
from airflow_resilient.provider_info import options
from airflow_resilient.settings import OPTIONS, ProviderDefault, Settings, read, reread

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
        ("first_poll_interval", "5.5", 5.5),
        ("max_backoff", "60", 60.0),
        ("max_concurrent_polls", "16", 16),
        ("events_queue_url", "https://sqs.eu-west-1.amazonaws.com/123456789012/airflow-events", None),
        ("events_queue_url", "http://127.0.0.1:5005/123456789012/events.fifo", None),
        ("events_aws_conn_id", "aws_events", "aws_events"),
        ("events_log_group", "/aws/events/airflow", "/aws/events/airflow"),
        ("events_log_group", " my.group_1#2-3 ", "my.group_1#2-3"),
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
        ("first_poll_interval", "0"),
        ("first_poll_interval", "-2"),
        ("max_backoff", "1"),
        ("max_concurrent_polls", "0"),
        ("max_concurrent_polls", "8.5"),
        ("max_concurrent_polls", "1000"),
        ("events_queue_url", "airflow-events"),
        ("events_queue_url", "arn:aws:sqs:eu-west-1:123456789012:airflow-events"),
        ("events_log_group", "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/events/airflow"),
        ("events_log_group", "/aws/events/airflow:*"),
        ("events_log_group", "/aws/events/größe"),
        ("events_log_group", "a" * 513),
    ],
)
def test_what_is_wrong_is_reported_with_what_to_write_and_has_its_default(name, text):
    settings, (complaint,) = read({name: text}.get)
    assert settings == Settings()
    assert complaint.startswith(f"[airflow_resilient] {name} = {text!r}: write ")
    assert "such as" in complaint


def test_one_wrong_value_does_not_spoil_the_others():
    settings, wrong = read({"first_poll_interval": "x", "poll_interval": "y", "max_backoff": "99"}.get)
    assert settings.max_backoff == 99.0
    assert len(wrong) == 2


def test_every_setting_is_an_option_that_airflow_knows_with_the_same_default():
    shown = options()
    assert [setting.name for setting in fields(Settings)] == list(OPTIONS) == list(shown)
    for name, option in shown.items():
        assert read({name: option["default"]}.get) == (Settings(), ())
        assert read({name: option["example"]}.get)[1] == (), "the example is valid"
        assert read({name: option["example"]}.get)[0] != Settings(), "the example is read"


def test_what_to_write_instead_of_a_wrong_value_is_valid_itself():
    for name, option in OPTIONS.items():
        _, such_as, example = option.wanted.partition(", such as ")
        assert not such_as or read({name: example.partition("; separate several")[0]}.get)[1] == (), name


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
    assert make().poll_policy.interval == usual
    configured(poll_interval="45", first_poll_interval="4", max_backoff="99")
    assert make().poll_policy == PollPolicy(interval=45.0, first_interval=4.0, max_backoff=99.0)
    assert make(waiter_delay=int(usual)).poll_policy.interval == usual, "who writes the default asks for it"
    assert make(waiter_delay=3).poll_policy == PollPolicy(interval=3.0, first_interval=3.0, max_backoff=99.0)
    assert make(poll_policy=PollPolicy(interval=7.0)).poll_policy == PollPolicy(interval=7.0)


def test_a_sensor_has_its_poke_interval(configured):
    configured(poll_interval="45")
    sensor = EmrStepSensor(task_id="a", job_flow_id="j-1", step_id="s-1", poke_interval=20)
    assert reread().poll_policy(float(sensor.poke_interval)).interval == 20.0


@pytest.mark.parametrize("interval", [0, 0.001, 0.5, 1])
def test_polls_are_at_least_a_second_apart(configured, interval):
    configured(first_poll_interval="4")
    assert reread().poll_policy(interval) == PollPolicy(interval=1.0, first_interval=1.0)
    if interval:
        assert task(waiter_delay=interval).poll_policy == PollPolicy(interval=1.0, first_interval=1.0)


def test_a_default_of_the_provider_is_a_number():
    assert ProviderDefault(6) == 6
    assert Settings().poll_policy(ProviderDefault(6)).interval == 6.0
    assert Settings().poll_policy().interval == PollPolicy.interval


# --- budgets --------------------------------------------------------------------------------------


def test_a_budget_is_the_published_one_unless_it_was_raised():
    assert Settings().budget_of(LIST_STEPS) == LIST_STEPS
    raised = Settings(api_budgets={"emr:ListSteps": (2.0, None), "ecs:DescribeTasks": (1.0, 1.0)})
    assert (raised.budget_of(LIST_STEPS).per_second, raised.budget_of(LIST_STEPS).burst) == (2.0, 40.0)
    raised = Settings(api_budgets={"emr:ListSteps": (2.0, 15.0)})
    assert raised.budget_of(LIST_STEPS).burst == 15.0
