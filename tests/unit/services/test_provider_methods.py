"""A method of a provider's class that a subclass may override is one of ours, or its author is told."""

import re
import warnings
from functools import wraps
from importlib import import_module

import pytest

import airflow_resilient
from airflow_resilient.compat import BaseOperator, BaseSensorOperator, airflow_version

AMAZON = "airflow.providers.amazon.aws"
PROVIDERS = {
    "EcsRunTaskOperator": f"{AMAZON}.operators.ecs",
    "EcsTaskStateSensor": f"{AMAZON}.sensors.ecs",
    "EmrAddStepsOperator": f"{AMAZON}.operators.emr",
    "EmrStepSensor": f"{AMAZON}.sensors.emr",
    "DockerOperator": "airflow.providers.docker.operators.docker",
}
KINDS = pytest.mark.parametrize("name", PROVIDERS)
# Of our own classes, too, but never called by them as the provider's classes do.
NOT_LIKE_THE_PROVIDER = {
    "hook",
    "client",
    "cli",
    "get_emr_response",
    "state_from_response",
    "failure_message_from_response",
}


def methods(name):
    """What the provider's class of that name has beyond Airflow's base classes."""
    theirs = getattr(import_module(PROVIDERS[name]), name)
    known = {*BaseOperator.__mro__, *BaseSensorOperator.__mro__}
    found = {each for kind in theirs.__mro__ if kind not in known for each in vars(kind)}
    return {each for each in found if not each.startswith("__")} - {"_abc_impl", "_is_protocol"}


@KINDS
def test_a_method_of_the_provider_is_ours_or_is_mentioned(name):
    ours = getattr(airflow_resilient, name)
    left = {each for each in methods(name) if not hasattr(ours, each) or each in NOT_LIKE_THE_PROVIDER}
    assert left - {*ours.not_called} == set()


@KINDS
@pytest.mark.skipif(airflow_version() < (3, 3), reason="older providers have fewer methods")
def test_only_methods_of_the_provider_are_mentioned(name):
    ours = getattr(airflow_resilient, name)
    assert set(ours.not_called) - methods(name) == set()


ENTRIES = [
    pytest.param(name, method, id=f"{name}-{method}")
    for name in PROVIDERS
    for method in getattr(airflow_resilient, name).not_called
]


@pytest.mark.parametrize(("name", "method"), ENTRIES)
def test_a_subclass_that_overrides_it_is_told_what_to_write(name, method):
    ours = getattr(airflow_resilient, name)
    said = rf"Mine overrides {method}, .* does not\. \S.{{15,}}"
    if ours.not_called[method].refused:
        with pytest.raises(TypeError, match=said):
            type("Mine", (ours,), {method: None})
        return
    with pytest.warns(UserWarning, match=said) as caught:
        type("Mine", (ours,), {method: None})
    assert [each.filename for each in caught] == [__file__]


@KINDS
@pytest.mark.parametrize("method", ["execute", "on_kill", "execute_complete", "conclude", "arrived", "poke"])
def test_what_is_called_is_overridden_in_silence(name, method):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        type("Mine", (getattr(airflow_resilient, name),), {method: lambda self, context, event=None: None})


@KINDS
def test_every_text_is_a_sentence_without_its_end(name):
    for entry in getattr(airflow_resilient, name).not_called.values():
        assert re.match(r"[a-z].*[a-z_)]$", entry.instead)


@pytest.mark.parametrize("method", ["_stop", "_request", "_check", "_owner_of", "_visit_here"])
def test_a_private_name_of_ours_is_refused(method):
    with pytest.raises(TypeError, match=rf"Mine defines {method}, a private name"):

        class Mine(airflow_resilient.EcsRunTaskOperator):
            locals()[method] = lambda self: None


@KINDS
def test_a_private_name_of_the_users_own_is_not_mentioned(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Mine(getattr(airflow_resilient, name)):
            _of_my_own = None

            def _helper(self): ...


def loops(self, context):
    return [self._start_task() for _ in range(3)]


def asks_by_name(self, context):
    return getattr(self, "_start_task")()  # noqa: B009 - as people write it


def in_a_function_of_its_own(self, context):
    def start():
        return self._start_task()

    return start()


def of_the_module(self, context):
    return _start_task()


def _start_task(): ...


@pytest.mark.parametrize(
    ("execute", "called"),
    [
        (loops, True),
        (asks_by_name, True),
        (in_a_function_of_its_own, True),
        (wraps(of_the_module)(loops), True),
        (of_the_module, False),
    ],
)
def test_what_ones_own_code_calls_is_no_error(execute, called):
    content = {"execute": execute, "_start_task": lambda self: 1}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if called:
            type("Mine", (airflow_resilient.EcsRunTaskOperator,), content)
            return
        with pytest.raises(TypeError, match="Mine overrides _start_task"):
            type("Mine", (airflow_resilient.EcsRunTaskOperator,), content)


def test_two_methods_that_only_call_each_other_are_refused():
    with pytest.raises(TypeError, match="overrides"):

        class Mine(airflow_resilient.EmrStepSensor):
            def get_emr_response(self, context):
                return self.state_from_response({})

            def state_from_response(self, response):
                return self.get_emr_response(response)


def test_what_a_base_of_the_user_calls_may_be_overridden_again():
    class Company(airflow_resilient.DockerOperator):
        @staticmethod
        def format_command(command):
            return command

        def execute(self, context):
            self.command = self.format_command(self.command)
            return super().execute(context)

    class Team(Company):
        @staticmethod
        def format_command(command):
            return ["sh", "-c", command]
