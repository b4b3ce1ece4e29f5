"""The first place at which a value has a wrong shape, and what to write there."""

from __future__ import annotations

import pytest

from airflow_resilient.core.shapes import (
    ANYTHING,
    NUMBER,
    TEXT,
    TRUTH,
    WHOLE,
    Fields,
    ListOf,
    MapOf,
    OneOf,
    misfit,
    optional,
)

VARIABLE = Fields({"name": TEXT, "value": TEXT}, "a variable", ("name",))
VARIABLES = ListOf(VARIABLE, "a list of variables")
TAGS = MapOf(TEXT, "a dict of texts")
WORDS = OneOf((TEXT, ListOf(TEXT, "a list of texts")), "a text or a list")


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        pytest.param(TEXT, "", id="an-empty-text"),
        pytest.param(WHOLE, -1, id="a-whole-number"),
        pytest.param(NUMBER, 0.5, id="a-number"),
        pytest.param(TRUTH, False, id="a-truth"),
        pytest.param(ANYTHING, True, id="anything"),
        pytest.param(optional(TEXT), None, id="nothing"),
        pytest.param(VARIABLES, [], id="an-empty-list"),
        pytest.param(VARIABLES, ({"name": "A"},), id="a-tuple"),
        pytest.param(VARIABLES, [{"name": "A", "new": [1]}], id="a-field-that-is-not-known-here"),
        pytest.param(TAGS, {}, id="an-empty-dict"),
        pytest.param(WORDS, ["a"], id="the-second-of-two-shapes"),
    ],
)
def test_a_value_of_the_right_shape_fits(shape, value):
    assert misfit(shape, value, "p") is None


@pytest.mark.parametrize(
    ("shape", "value", "place", "wanted"),
    [
        pytest.param(TEXT, 5, "p", "a text", id="a-number-for-a-text"),
        pytest.param(TEXT, b"a", "p", "a text", id="bytes-for-a-text"),
        pytest.param(WHOLE, True, "p", "a whole number", id="a-truth-for-a-number"),
        pytest.param(NUMBER, float("nan"), "p", "a number", id="a-number-that-is-none"),
        pytest.param(TRUTH, 1, "p", "True or False", id="a-number-for-a-truth"),
        pytest.param(VARIABLES, {"A": "1"}, "p", "a list of variables", id="a-map-for-a-list"),
        pytest.param(VARIABLES, "A=1", "p", "a list of variables", id="a-text-for-a-list"),
        pytest.param(VARIABLES, None, "p", "a list of variables", id="nothing-for-a-list"),
        pytest.param(VARIABLES, ["A"], "p[0]", "a variable", id="a-text-in-a-list"),
        pytest.param(VARIABLES, [[VARIABLE]], "p[0]", "a variable", id="nested-too-deep"),
        pytest.param(
            VARIABLES, [{"name": "A"}, {"name": "B", "value": 1}], "p[1]['value']", "a text", id="a-field"
        ),
        pytest.param(VARIABLES, [{"value": "1"}], "p[0]['name']", "a text", id="a-field-that-is-missing"),
        pytest.param(TAGS, {1: "a"}, "p", "texts as its keys: a dict of texts", id="a-number-as-key"),
        pytest.param(TAGS, {"a": None}, "p['a']", "a text", id="nothing-in-a-dict"),
        pytest.param(WORDS, [1], "p[0]", "a text", id="wrong-inside-of-one-of-two-shapes"),
        pytest.param(WORDS, {"a": 1}, "p", "a text or a list", id="none-of-two-shapes"),
        pytest.param(optional(TAGS), [], "p", "a dict of texts", id="wrong-for-an-optional-one"),
    ],
)
def test_a_wrong_value_is_found_where_it_stands(shape, value, place, wanted):
    found = misfit(shape, value, "p")
    assert (found.place, found.wanted) == (place, wanted)


@pytest.mark.parametrize("value", ["?", ["?"], [{"name": "?", "value": "?"}]])
def test_what_is_not_known_yet_fits_anywhere(value):
    assert misfit(VARIABLES, value, "p", lambda each: each == "?") is None
