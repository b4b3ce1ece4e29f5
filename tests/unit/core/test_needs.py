"""What tags say about needs, and when a time of the day has come: clocks that are set, zones, odd tags."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.core.needs import LONGEST_TAG, NeedBy, read_length, read_needs, write_length


def utc(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("need", "now", "last"),
    [
        pytest.param(NeedBy(7, 0, "UTC"), "2026-11-02T07:00", "2026-11-02T07:00", id="it-has-just-come"),
        pytest.param(NeedBy(7, 0, "UTC"), "2026-11-02T06:59", "2026-11-01T07:00", id="not-yet-today"),
        pytest.param(
            NeedBy(7, 0, "America/New_York"), "2026-11-02T12:30", "2026-11-02T12:00", id="in-winter-time"
        ),
        pytest.param(
            NeedBy(7, 0, "America/New_York"), "2026-10-31T12:30", "2026-10-31T11:00", id="in-summer-time"
        ),
        pytest.param(
            NeedBy(1, 30, "America/New_York"), "2026-11-01T06:29", "2026-10-31T05:30", id="shown-twice-first"
        ),
        pytest.param(
            NeedBy(1, 30, "America/New_York"), "2026-11-01T06:30", "2026-11-01T06:30", id="shown-twice-second"
        ),
        pytest.param(
            NeedBy(2, 30, "America/New_York"), "2026-03-08T07:30", "2026-03-08T07:30", id="never-shown"
        ),
        pytest.param(
            NeedBy(0, 30, "Pacific/Auckland"), "2026-11-02T12:00", "2026-11-02T11:30", id="a-day-ahead"
        ),
        pytest.param(
            NeedBy(12, 0, "Pacific/Apia"), "2011-12-31T00:00", "2011-12-30T22:00", id="a-day-that-was-skipped"
        ),
    ],
)
def test_the_last_deadline_is_the_latest_one_that_has_come(need, now, last):
    assert need.deadlines(utc(now))[1] == utc(last)


@given(
    st.integers(0, 23),
    st.integers(0, 59),
    st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]),
    st.integers(int(utc("2011-01-01T00:00")), int(utc("2030-01-01T00:00"))),
)
def test_deadlines_follow_each_other_about_a_day_apart(hour, minute, zone, now):
    before, last, following = NeedBy(hour, minute, zone).deadlines(now)
    assert last <= now < following
    assert (
        0 <= last - before <= 49 * 3600
    )  # a zone that skips a day shows the same moment twice, or two days apart
    assert 0 < following - last <= 49 * 3600


@pytest.mark.parametrize(
    ("tags", "by", "start_within", "wait_at_most", "wrong"),
    [
        ([], 0, None, None, 0),
        (["etl", "team=a", "need_by", "need_by:07:00"], 0, None, None, 0),
        (["need_by=07:00 UTC", "need_by=17:00 Asia/Kolkata"], 2, None, None, 0),
        (["wait_at_most=20m", "wait_at_most=5m"], 0, None, 300.0, 0),
        (["start_within=90s"], 0, 90.0, None, 0),
        (
            ["need_by=7:00 UTC", "need_by=24:00 UTC", "need_by=07:00", "need_by=07:00 Nowhere/At_All"],
            0,
            None,
            None,
            4,
        ),
        (["need_by=07:00 ../../etc/passwd", "need_by=07:00 America", "need_by="], 0, None, None, 3),
        (["wait_at_most=0m", "wait_at_most=-5m", "wait_at_most=5 m", "start_within=soon"], 0, None, None, 4),
    ],
)
def test_tags_are_read_or_said_to_be_wrong(tags, by, start_within, wait_at_most, wrong):
    needs = read_needs(tags)
    assert (len(needs.by), len(needs.wrong)) == (by, wrong)
    assert (needs.start_within, needs.wait_at_most) == (start_within, wait_at_most)


@given(st.lists(st.text(max_size=LONGEST_TAG) | st.text(max_size=80).map("need_by={}".format), max_size=5))
def test_whatever_the_tags_are_they_are_read(tags):
    read_needs(tags)


@given(st.integers(1, 10**7))
def test_a_duration_is_read_as_it_was_written(seconds):
    assert read_length(write_length(seconds)) == seconds
