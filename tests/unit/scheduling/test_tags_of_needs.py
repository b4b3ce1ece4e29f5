"""What a DAG file says it needs becomes a tag, or an error with what to write."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_resilient import InvalidParameter, need_by, start_within, wait_at_most
from airflow_resilient.core.needs import LONGEST_TAG, NeedBy, read_needs


def test_what_a_dag_says_is_read_back_from_its_tags():
    tags = [need_by("07:00", "America/New_York"), start_within("10m"), wait_at_most(timedelta(minutes=20))]
    with DAG("positions", tags=["desk", *tags], schedule=None) as dag:
        pass
    needs = read_needs(dag.tags)
    assert needs.by == (NeedBy(7, 0, "America/New_York"),)
    assert (needs.start_within, needs.wait_at_most, needs.wrong) == (600.0, 1200.0, ())
    assert max(map(len, tags)) <= LONGEST_TAG


def test_without_a_zone_it_is_utc():
    assert need_by("23:59") == "need_by=23:59 UTC"


@pytest.mark.parametrize(
    ("time", "zone", "words"),
    [
        ("7:00", "UTC", "'7:00' is no time of the day; write one such as 07:00"),
        ("24:00", "UTC", "no time of the day"),
        ("07:00:00", "UTC", "no time of the day"),
        ("07:00", "EST5EDT4", "no time zone 'EST5EDT4'; write one such as America/New_York"),
        ("07:00", "", "no time zone ''"),
        (None, "UTC", "no time of the day"),
        (7, "UTC", "no time of the day"),
    ],
)
def test_a_time_that_is_none_is_refused_when_the_dag_is_parsed(time, zone, words):
    with pytest.raises(InvalidParameter, match=words):
        need_by(time, zone)


@pytest.mark.parametrize("make", [start_within, wait_at_most])
@pytest.mark.parametrize(
    "length",
    ["soon", "", "0m", "-5m", 600, None, timedelta(0), timedelta(seconds=-1), timedelta(seconds=0.5)],
)
def test_a_duration_that_is_none_is_refused_when_the_dag_is_parsed(make, length):
    with pytest.raises(
        InvalidParameter, match=rf"{make.__name__}\(.*write a timedelta of whole seconds, or a text"
    ):
        make(length)
