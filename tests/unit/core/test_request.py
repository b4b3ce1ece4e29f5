"""What is kept of a request, and what counts as another one."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.core import request

KEY = "abcdefghijklmnop"


class Thing:
    """Something that is no JSON, and whose text has an address."""


def changed(core, before, now):
    return core.changed_fields(core.fingerprints(before, KEY), core.fingerprints(now, KEY))


# `test_rules` has these rows, too, with a core that may be broken.
CHANGED = {
    "the same": ({"a": 1}, {"a": 1}, ()),
    "another order of a dict": ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2, "x": 1}}, ()),
    "a set": ({"a": {"x", "y"}}, {"a": {"y", "x"}}, ()),
    "a tuple and a list": ({"a": (1, 2)}, {"a": [1, 2]}, ()),
    "nothing and none": ({"a": None, "b": 1}, {"b": 1}, ()),
    "what cannot be compared": ({"a": Thing()}, {"a": Thing()}, ()),
    "keys of several kinds": ({"a": {1: "x", "b": 2}}, {"a": {"b": 2, 1: "x"}}, ()),
    "another order of a list": ({"a": [1, 2]}, {"a": [2, 1]}, ("a",)),
    "a number and its text": ({"a": 1}, {"a": "1"}, ("a",)),
    "bytes and a text": ({"a": b"x"}, {"a": "x"}, ("a",)),
    "empty": ({"a": {"x": 1}}, {"a": {}}, ("a",)),
    "gone": ({"a": {"x": 1}, "b": 1}, {"b": 1}, ("a",)),
    "new": ({"b": 1}, {"a": 1, "b": 1}, ("a",)),
    "both": ({"a": 1, "b": 2}, {"a": 3, "b": 4}, ("a", "b")),
    "nothing is known of before": ({}, {"a": 1}, ()),
    "nothing is told now": ({"a": 1}, {}, ()),
}


@pytest.mark.parametrize("row", CHANGED)
def test_which_fields_have_changed(row):
    *given, fields = CHANGED[row]
    assert changed(request, *given) == fields


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists), max_size=5))
def test_a_request_is_never_another_one_than_itself(fields):
    assert changed(request, fields, dict(reversed(fields.items()))) == ()


def test_a_value_cannot_be_read_back_or_compared_between_tasks():
    (kept,) = request.fingerprints({"password": "hunter2"}, KEY).values()
    (other,) = request.fingerprints({"password": "hunter2"}, KEY[::-1]).values()
    assert (len(kept), kept == other) == (6, False)


def test_it_is_the_same_in_every_process():
    code = (
        "from airflow_resilient.core.request import fingerprints;"
        f"print(fingerprints({{'a': {{'x', 'y', 'z'}}}}, {KEY!r})['a'])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
        ).stdout
        for path in [":".join(filter(None, sys.path))]
        for _ in range(3)
    }
    assert found == {request.fingerprints({"a": {"x", "y", "z"}}, KEY)["a"] + "\n"}
