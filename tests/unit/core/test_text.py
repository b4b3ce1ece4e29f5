"""What a service says, and what it only quotes; what is hidden where a text is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from airflow_resilient.core.text import redact, says, values_of

FULL = "write /var/lib: no space left on device"

SAYS = [
    pytest.param(FULL, "no space left", [], True, id="the-service-itself"),
    pytest.param(FULL, "no space left", ["no", "left", "on", "space", "device"], True, id="words-of-it"),
    pytest.param(FULL, "no space left", ["no space left on device"], True, id="all-of-it-as-a-value"),
    pytest.param(f"bad value '{FULL}'", "no space left", [], False, id="in-single-marks"),
    pytest.param(f'exec: "{FULL}": not found', "no space left", [], False, id="in-double-marks"),
    pytest.param(f"crun: `{FULL}` not found", "no space left", [], False, id="in-backticks"),
    pytest.param("it's no space left on 'x'", "no space left", [], True, id="an-apostrophe-is-no-mark"),
    pytest.param(
        "bad X=no space left, stop", "no space left", ["no space left"], False, id="a-value-after-="
    ),
    pytest.param("args [no space left]", "no space left", ["no space left"], False, id="a-value-in-brackets"),
    pytest.param("group a:no space left is bad", "no space left", ["a:no space left"], False, id="a-name"),
    pytest.param("dial: i/o timeout", "timeout", ["i/o timeout"], True, id="a-phrase-as-a-value"),
    pytest.param("see https://x/timeout now", "timeout", [], False, id="in-a-url"),
    pytest.param("open /srv/timeout: no such file", "timeout", [], False, id="in-a-path"),
    pytest.param("on arn:aws:ecs:eu:1:timeout now", "timeout", [], False, id="in-an-arn"),
    pytest.param("etl@sha256:503 not found", "503", [], False, id="in-a-digest"),
    pytest.param("dial tcp: i/o timeout", "i/o timeout|timeout", [], True, id="a-slash-in-a-match"),
    pytest.param("status 503 for etl:503", "status 503", ["etl:503"], True, id="said-and-quoted"),
    pytest.param(
        "tag 503 not found", r"\b503\b", ["etl:503", "503"], True, id="a-bare-number-is-the-services"
    ),
    pytest.param(
        "Value 'it's full, no space left' at 'steps' failed",
        "no space left",
        [],
        False,
        id="aws-values-may-contain-marks",
    ),
    pytest.param('a "b no space left', "no space left", [], True, id="a-mark-that-is-not-closed"),
    pytest.param("", "x", [""], False, id="nothing"),
]


@pytest.mark.parametrize(("text", "pattern", "quoted", "expected"), SAYS)
def test_what_a_service_says_counts_and_what_it_quotes_does_not(text, pattern, quoted, expected):
    assert says(text, pattern, quoted) is expected


@given(some.lists(some.text(max_size=40), max_size=5))
def test_values_that_are_not_in_the_text_change_nothing(values):
    others = [value for value in values if value not in FULL]
    assert says(FULL, "no space left", others)


@given(some.lists(some.sampled_from(FULL.split()), max_size=5))
def test_no_word_of_a_services_text_hides_it_from_being_understood(values):
    assert says(FULL, "no space left", values)


def test_a_very_long_text_is_understood_quickly():
    for part in ("x", '"', " '", "a=", "Value 'x ", "arn:", "Value '", "`", "x/ "):
        assert not says(part * 20_000, "no space left|Value \\d", ["xxx", part * 3])


@pytest.mark.parametrize(
    ("secrets", "shown"),
    [
        pytest.param(
            ["on", "a", "", None, 5], "reached the limit on the number", id="too-short-for-a-secret"
        ),
        pytest.param(["limit"], "reached the (hidden) on the number", id="a-word"),
        pytest.param(["the limit", "limit"], "reached (hidden) on the number", id="the-longest-first"),
    ],
)
def test_what_is_shown_hides_secrets(secrets, shown):
    assert redact("reached the limit on the number", secrets) == shown


def test_the_leaves_of_a_request_are_all_names_and_values():
    request = {
        "overrides": {"containerOverrides": [{"environment": [{"name": "A", "value": "b"}], "cpu": 1}]}
    }
    assert {"A", "b", "1", "environment"} <= set(values_of(request, keys=True))
