"""Errors can be copied and pickled, and let nothing out that may be a secret."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback

import pytest
from airflow.providers.amazon.aws.exceptions import EcsOperatorError, EcsTaskFailToStart
from airflow.providers.docker.exceptions import (
    DockerContainerFailedException,
    DockerContainerFailedSkipException,
)

from airflow_resilient import errors
from airflow_resilient.compat import AirflowFailException, AirflowSkipException
from airflow_resilient.core.job import Claim, Job, LogTail, Phase
from airflow_resilient.errors import (
    InvalidParameter,
    JobFailed,
    NoCapacity,
    ResilientError,
    SubmitRefused,
    also,
    hiding,
)

JOB = Job(
    "job-1", Claim("a" * 16, 1), Phase.FAILED, 0.0, reason="exit code 1", facts={"containers": [["main", 1]]}
)
ATTRIBUTES = {"job": JOB, "response": {"Error": {"Code": "X", "Message": "no"}}}
"""By parameter of a constructor; an error with another one needs a row here."""

CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, ResilientError) and each.__module__ == errors.__name__
]


def made(kind):
    written = inspect.isfunction(kind.__init__)  # not that of Exception
    parameters = inspect.signature(kind.__init__).parameters if written else {}
    parameters = [name for name in parameters if name not in ("self", "message")]
    return kind("what happened", *(ATTRIBUTES[name] for name in parameters))


def pickled(error):
    return pickle.loads(pickle.dumps(error))


def theirs():
    """Errors that an ``except`` for the provider's catches, too."""
    failed = JobFailed("what happened", JOB)
    return [
        also(failed, "airflow.providers.amazon.aws.exceptions:EcsTaskFailToStart", message="what happened"),
        also(
            NoCapacity("what happened", {"failures": []}),
            "airflow.providers.amazon.aws.exceptions:EcsOperatorError",
            failures=[],
            message="what happened",
        ),
        also(failed, "airflow.providers.docker.exceptions:DockerContainerFailedException", logs=["a"]),
        also(
            AirflowSkipException("what happened"),
            "airflow.providers.docker.exceptions:DockerContainerFailedSkipException",
            logs=["a"],
        ),
    ]


class OfUsers(JobFailed):
    """An error of a user's, with a constructor of its own."""

    def __init__(self, job, *, table):
        super().__init__(f"{table} is empty", job)
        self.table = table


@pytest.mark.parametrize("again", [pickled, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "error",
    [*map(made, CLASSES), *theirs(), OfUsers(JOB, table="sales")],
    ids=lambda error: "-".join(dict.fromkeys(each.__name__ for each in type(error).__mro__[:3])),
)
def test_an_error_survives_being_copied(again, error):
    there = again(error)
    assert there is not error
    assert type(there) is type(error)
    assert (str(there), there.args, vars(there)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_is_made_of_its_message_alone_too(kind):
    """Airflow makes errors again from ``serialize()``, which has the message only."""
    error = made(kind)
    _, args, kwargs = error.serialize()
    assert str(kind(*args, **kwargs)) == str(error)


def test_an_error_is_also_the_providers_where_that_can_be_imported():
    started, refused, failed, skipped = theirs()
    assert (type(started).__name__, started.job, started.message) == ("JobFailed", JOB, "what happened")
    assert isinstance(started, EcsTaskFailToStart)
    assert isinstance(refused, NoCapacity)
    assert isinstance(refused, EcsOperatorError)
    assert (refused.failures, refused.response) == ([], {"failures": []})
    assert isinstance(failed, DockerContainerFailedException)
    assert isinstance(failed, JobFailed)
    assert (failed.logs, failed.job, str(failed)) == (["a"], JOB, "what happened")
    assert type(skipped) is DockerContainerFailedSkipException
    plain = JobFailed("what happened", JOB)
    assert also(plain, "no.such.module:Error", logs=[]) is plain
    assert not hasattr(plain, "logs")


def test_nothing_that_may_be_a_secret_is_shown_by_an_error_that_is_also_the_providers():
    def fail():
        try:
            raise KeyError(SECRET)
        except KeyError:
            raise theirs()[2] from None

    with pytest.raises(DockerContainerFailedException) as caught, hiding(hide):
        fail()
    assert (caught.value.__context__, caught.value.logs) == (None, ["a"])


def test_what_a_parameter_has_wrong_costs_no_retry():
    assert issubclass(InvalidParameter, AirflowFailException)
    assert issubclass(InvalidParameter, ValueError)


# --- what is hidden -------------------------------------------------------------------------------

SECRET = "hunter2"


def hide(text):
    return text.replace(SECRET, "(hidden)")


def from_context():
    try:
        raise KeyError(SECRET)
    except KeyError:
        raise SubmitRefused("no", {"a": 1}) from None


def from_cause():
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise JobFailed("no", JOB) from error


def from_deeper_down():
    try:
        from_cause()
    except JobFailed as error:
        raise RuntimeError("no") from error


def from_an_attribute():
    error = RuntimeError("no")
    error.response = {"Message": SECRET}
    raise error


def by_itself():
    raise RuntimeError(f"{SECRET} is bad")


@pytest.mark.parametrize("fail", [from_context, from_cause, from_deeper_down, from_an_attribute, by_itself])
def test_nothing_in_the_chain_of_an_error_shows_a_secret(fail):
    with pytest.raises(ResilientError) as caught, hiding(hide):
        fail()
    error = caught.value
    assert (error.__cause__, error.__context__) == (None, None)
    text = "".join(traceback.format_exception(type(error), error, None))
    assert SECRET not in text + repr(error) + repr(vars(error))


@pytest.mark.parametrize(("fail", "kind"), [(from_context, SubmitRefused), (from_cause, JobFailed)])
def test_an_error_of_ours_keeps_its_class_and_attributes(fail, kind):
    with pytest.raises(kind, match="no") as caught, hiding(hide):
        fail()
    assert vars(caught.value) in ({"response": {"a": 1}}, {"job": JOB})


@pytest.mark.parametrize(
    "error", [RuntimeError("plain"), JobFailed("plain", JOB), KeyboardInterrupt(SECRET)], ids=repr
)
def test_any_other_error_passes_unchanged(error):
    with pytest.raises(type(error)) as caught, hiding(hide):
        raise error
    assert caught.value is error


def test_a_circle_of_errors_ends():
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(RuntimeError), hiding(hide):
        raise first


def test_the_lines_of_a_job_s_log_stay_as_they_are():
    assert str(errors.error_of(JOB, LogTail(("one",)))).endswith("one")
