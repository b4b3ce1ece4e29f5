"""What a claim identifies by itself: which deployment made it, and for which task instance."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.core.job import NAMESPACE_LENGTH, Claim, call_key, same_namespace, task_key

IDENTITY = ("etl", "manual__2026-01-01T00:00:00+00:00", "sort", -1)
OURS = task_key("https://airflow.example.com", *IDENTITY)


def test_a_task_key_has_sixteen_characters_that_every_service_takes():
    assert Claim.read(f"af-{OURS}-1") == Claim(OURS, 1)


def test_the_first_characters_tell_the_namespace_whatever_the_task_instance():
    other = task_key("https://airflow.example.com", "reports", "scheduled__1", "send", 7)
    assert other[:NAMESPACE_LENGTH] == OURS[:NAMESPACE_LENGTH]
    assert other[NAMESPACE_LENGTH:] != OURS[NAMESPACE_LENGTH:]


def test_another_namespace_changes_both_parts():
    other = task_key("https://staging.example.com", *IDENTITY)
    assert other[:NAMESPACE_LENGTH] != OURS[:NAMESPACE_LENGTH]
    assert other[NAMESPACE_LENGTH:] != OURS[NAMESPACE_LENGTH:]


@pytest.mark.parametrize("place", range(4), ids=["DAG", "run", "task", "map-index"])
def test_every_part_of_the_identity_changes_the_second_part(place):
    other = [*IDENTITY]
    other[place] = 0 if place == 3 else other[place] + "x"
    assert task_key("https://airflow.example.com", *other)[NAMESPACE_LENGTH:] != OURS[NAMESPACE_LENGTH:]


def test_parts_of_the_identity_do_not_run_into_each_other():
    assert task_key("", "a", "bc", "d", -1) != task_key("", "ab", "c", "d", -1)


def test_a_claim_of_another_namespace_is_known_as_such():
    claim = Claim(OURS, 3)
    assert same_namespace(claim, "https://airflow.example.com")
    assert not same_namespace(claim, "https://airflow.example.com/")
    assert not same_namespace(Claim("a" * 16, 1), "https://airflow.example.com")


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50), st.integers(-1, 1000))
def test_every_task_key_shows_its_own_namespace(namespace, dag_id, run_id, map_index):
    claim = Claim(task_key(namespace, dag_id, run_id, "task", map_index), 1)
    assert Claim.read(str(claim)) == claim
    assert same_namespace(claim, namespace)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("af-{}-999999999", 999_999_999, id="nine-digits"),
        pytest.param("af-{}-1234567890", None, id="ten-digits"),
        pytest.param("af-{}-" + "9" * 5000, None, id="more-digits-than-python-reads"),
        pytest.param("sort [af-{}-" + "9" * 5000 + " 1/2]", None, id="in-a-name"),
        pytest.param("af-{}-\u0661\u0662", None, id="arabic-digits"),
        pytest.param("af-{}-12x", 12, id="a-number-and-more"),
        pytest.param("af-{}-", None, id="no-number"),
    ],
)
def test_a_number_has_at_most_nine_digits(text, number):
    expected = None if number is None else Claim(OURS, number)
    assert Claim.read(text.format(OURS)) == expected


@given(st.text() | st.from_regex(r"af-[a-z2-7]{16}(_[a-z2-7]{8})?-\d+"))
def test_whatever_is_written_on_a_job_reading_it_raises_nothing(text):
    found = Claim.read(text)
    assert found is None or str(found).startswith("af-")


LOAD = call_key(OURS, "load", 1)


def test_the_claim_of_a_call_names_its_task_instance_and_the_call():
    claim = Claim(LOAD, 3, resubmission=2, generation="4.3")
    assert Claim.read(claim.full_name) == claim
    assert Claim.read(claim.full_name).generation == "4.3"
    assert (claim.instance_key, f"{claim.instance_key}_{claim.call}") == (OURS, LOAD)
    assert same_namespace(claim, "https://airflow.example.com")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(call_key(OURS, "load", 2), id="the-next-call"),
        pytest.param(call_key(OURS, "sort", 1), id="another-operator"),
        pytest.param(call_key(task_key("x", *IDENTITY), "load", 1), id="another-task-instance"),
        pytest.param(call_key(OURS, "load1", 1), id="a-name-that-runs-into-the-number"),
        pytest.param(OURS, id="the-task-itself"),
    ],
)
def test_no_other_call_has_its_claim_or_its_token(other):
    assert Claim(LOAD, 1) != Claim(other, 1)
    assert Claim(LOAD, 1).token != Claim(other, 1).token


def test_every_service_takes_the_claim_of_a_call():
    """ECS: ``startedBy`` 128 and ``clientToken`` 64 characters; Docker: the name of a container."""
    token = Claim(LOAD, 999_999_999, resubmission=999_999_999).token
    assert len(token) <= 50
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_-]*", token)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("af-{}_-1", id="no-call"),
        pytest.param("af-{}_load-1", id="too-short"),
        pytest.param("af-{}_loadaaaaa-1", id="too-long"),
        pytest.param("af-{}_loadaaa1-1", id="a-character-that-no-hash-has"),
        pytest.param("af-{}_loadaaaa_loadaaaa-1", id="two-calls"),
        pytest.param("af-{}-loadaaaa-1", id="another-separator"),
        pytest.param("af-{}_loadaaaa", id="no-number"),
    ],
)
def test_nothing_else_is_the_claim_of_a_call(text):
    assert Claim.read(text.format(OURS)) is None
