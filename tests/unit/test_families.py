"""What a claim tells by itself: which deployment made it, and for which task instance."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.jobs import NAMESPACE_LENGTH, Claim, family, same_namespace

IDENTITY = ("etl", "manual__2026-01-01T00:00:00+00:00", "sort", -1)
OURS = family("https://airflow.example.com", *IDENTITY)


def test_a_family_has_sixteen_characters_that_every_service_takes():
    assert Claim.read(f"af-{OURS}-1") == Claim(OURS, 1)


def test_the_first_characters_tell_the_namespace_whatever_the_task_instance():
    other = family("https://airflow.example.com", "reports", "scheduled__1", "send", 7)
    assert other[:NAMESPACE_LENGTH] == OURS[:NAMESPACE_LENGTH]
    assert other[NAMESPACE_LENGTH:] != OURS[NAMESPACE_LENGTH:]


def test_another_namespace_changes_both_parts():
    other = family("https://staging.example.com", *IDENTITY)
    assert other[:NAMESPACE_LENGTH] != OURS[:NAMESPACE_LENGTH]
    assert other[NAMESPACE_LENGTH:] != OURS[NAMESPACE_LENGTH:]


@pytest.mark.parametrize("place", range(4), ids=["DAG", "run", "task", "map-index"])
def test_every_part_of_the_identity_changes_the_second_part(place):
    other = [*IDENTITY]
    other[place] = 0 if place == 3 else other[place] + "x"
    assert family("https://airflow.example.com", *other)[NAMESPACE_LENGTH:] != OURS[NAMESPACE_LENGTH:]


def test_parts_of_the_identity_do_not_run_into_each_other():
    assert family("", "a", "bc", "d", -1) != family("", "ab", "c", "d", -1)


def test_a_claim_of_another_namespace_is_known_as_such():
    claim = Claim(OURS, 3)
    assert same_namespace(claim, "https://airflow.example.com")
    assert not same_namespace(claim, "https://airflow.example.com/")
    assert not same_namespace(Claim("a" * 16, 1), "https://airflow.example.com")


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=50), st.integers(-1, 1000))
def test_every_family_tells_its_own_namespace(namespace, dag_id, run_id, map_index):
    claim = Claim(family(namespace, dag_id, run_id, "task", map_index), 1)
    assert Claim.read(str(claim)) == claim
    assert same_namespace(claim, namespace)
