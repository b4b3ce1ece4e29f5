"""How far a log stream has been read."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as some

from airflow_resilient.aws.cloudwatch_logs import Cursor, rewind, take
from airflow_resilient.services.ecs.read import stream_name


def events(*stamped):
    return [{"timestamp": stamp, "message": text} for stamp, text in stamped]


def texts(lines):
    return [text for _, text in lines]


def test_a_first_page_is_new_as_a_whole():
    cursor, lines = take(Cursor(), events((1000, "a"), (2000, "b"), (2000, "c")), "f/3")
    assert lines == [(1.0, "a"), (2.0, "b"), (2.0, "c")]
    assert cursor == Cursor(token="f/3", time=2000, seen=2)


def test_a_page_that_a_token_asked_for_is_new_as_a_whole():
    cursor, lines = take(Cursor("f/1", time=2000, seen=1), events((2000, "twin"), (3000, "next")), "f/2")
    assert texts(lines) == ["twin", "next"]
    assert (cursor.time, cursor.seen) == (3000, 1)


def test_events_of_one_millisecond_are_counted_across_pages():
    cursor, _ = take(Cursor("f/1", time=2000, seen=1), events((2000, "twin")), "f/2")
    assert cursor.seen == 2


def test_an_event_that_comes_late_is_new_and_does_not_move_the_position_back():
    cursor, lines = take(Cursor("f/1", time=2000, seen=1), events((1500, "late")), "f/2")
    assert texts(lines) == ["late"]
    assert (cursor.time, cursor.seen) == (2000, 1)


def test_without_the_token_nothing_is_read_twice():
    cursor = rewind(Cursor("f/9", time=2000, seen=2))
    assert cursor.start == 2000
    cursor, lines = take(cursor, events((2000, "a"), (2000, "b"), (2000, "c"), (2500, "d")), "g/1")
    assert texts(lines) == ["c", "d"]
    assert cursor == Cursor("g/1", start=2000, time=2500, seen=1)


def test_what_is_to_be_passed_over_may_span_pages():
    cursor, lines = take(rewind(Cursor("f/9", time=2000, seen=2)), events((2000, "a")), "g/1")
    assert lines == []
    _, lines = take(cursor, events((2000, "b"), (2000, "c")), "g/2")
    assert texts(lines) == ["c"]


def test_only_events_of_the_last_millisecond_are_passed_over():
    _, lines = take(rewind(Cursor("f/9", time=2000, seen=2)), events((2000, "a"), (2001, "b")), "g/1")
    assert texts(lines) == ["b"]


def test_an_empty_page_moves_nothing_but_the_token():
    cursor = Cursor("f/1", time=2000, seen=1)
    assert take(cursor, [], "f/1") == (cursor, [])


@given(
    stamps=some.lists(some.integers(1, 5), max_size=30),
    cuts=some.lists(some.tuples(some.integers(1, 7), some.booleans()), max_size=30),
)
def test_however_pages_are_cut_and_tokens_lost_every_line_is_read_once(stamps, cuts):
    stream = events(*((stamp, str(number)) for number, stamp in enumerate(sorted(stamps))))
    cursor, read = Cursor(), []
    for size, token_expires in [*cuts, *[(7, False)] * 10]:
        if token_expires and cursor.token is not None:
            cursor = rewind(cursor)
        query = [event for event in stream if event["timestamp"] >= cursor.start]
        index = int(cursor.token or 0)
        page = query[index : index + size]
        cursor, lines = take(cursor, page, str(index + len(page)))
        cursor = Cursor(**json.loads(json.dumps(asdict(cursor))))
        read += texts(lines)
    assert read == [event["message"] for event in stream]


@pytest.mark.parametrize(
    ("prefix", "container", "name"),
    [
        pytest.param("ecs", "main", "ecs/main/01", id="prefix-container-task"),
        pytest.param("ecs/main", "main", "ecs/main/01", id="the-prefix-names-the-container-already"),
        pytest.param("a/b", "main", "a/b/main/01", id="a-prefix-with-a-slash"),
        pytest.param("main", "main", "main/main/01", id="a-prefix-that-is-called-like-the-container"),
    ],
)
def test_the_streams_name_is_the_drivers(prefix, container, name):
    assert stream_name(prefix, container, "01") == name
