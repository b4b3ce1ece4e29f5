"""`Bucket` as a table and as properties; `SharedBucket` between threads and between watches."""

import random
import threading
from contextlib import ExitStack
from itertools import accumulate
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.core.service import Budget
from airflow_resilient.watching import budget as real

HALF, FULL = 0.5, 10.0


def bucket(core: ModuleType = real, **changes):
    usual = {"rate": HALF, "burst": FULL, "ceiling": HALF, "tokens": FULL, "at": 100.0}
    return core.Bucket(**{**usual, **changes})


TABLE = {
    "it is refilled at its rate": (lambda b: b(tokens=2.0).refilled(104.0).tokens, 4.0),
    "it does not hold more than a burst": (lambda b: b(tokens=9.0).refilled(1000.0).tokens, FULL),
    "it knows when it was refilled": (lambda b: b().refilled(104.0).at, 104.0),
    "a clock that goes back takes nothing away": (lambda b: b(tokens=5.0).refilled(50.0).tokens, 5.0),
    "and is believed from then on": (lambda b: b(tokens=5.0).refilled(50.0).refilled(52.0).tokens, 6.0),
    "a poll may turn out more expensive than estimated": (lambda b: b(tokens=2.0).spent(5).tokens, -3.0),
    "what was not needed is given back": (lambda b: b(tokens=2.0).spent(-3).tokens, 5.0),
    "giving back does not overfill it": (lambda b: b(tokens=9.0).spent(-3).tokens, FULL),
    "throttled, the rate is halved": (lambda b: b().throttled(100.0).rate, HALF / 2),
    "throttled, no call is left": (lambda b: b().throttled(100.0).tokens, 0.0),
    "throttled, a debt stays": (lambda b: b(tokens=-4.0).throttled(100.0).tokens, -4.0),
    "throttled forever, it keeps a part of its rate": (
        lambda b: b(rate=HALF / 15).throttled(100.0).rate,
        HALF / 16,
    ),
    "what was sent before the rate was halved does not halve it again": (
        lambda b: b().throttled(100.0).throttled(101.0, sent=99.0).rate,
        HALF / 2,
    ),
    "but it empties it": (
        lambda b: b().throttled(100.0).refilled(108.0).throttled(108.0, sent=99.0).tokens,
        0.0,
    ),
    "what was sent since then halves it again": (
        lambda b: b().throttled(100.0).throttled(105.0, sent=101.0).rate,
        HALF / 4,
    ),
    "an answer makes it faster by a step": (lambda b: b(rate=0.25).went_well().rate, 0.26),
    "but not faster than its ceiling": (lambda b: b(rate=0.499).went_well().rate, HALF),
    "it affords what it holds": (lambda b: b(tokens=3.0).affords(3), True),
    "it does not afford more": (lambda b: b(tokens=2.9).affords(3), False),
    "what costs more than it can hold needs a full one": (lambda b: b(tokens=FULL).affords(25), True),
    "and nothing less": (lambda b: b(tokens=9.9).affords(25), False),
    "it says how long to wait": (lambda b: b(tokens=1.0).wait_for(4), 6.0),
    "it does not wait for what it has": (lambda b: b(tokens=5.0).wait_for(4), 0.0),
    "it waits until it is full, not longer": (lambda b: b(tokens=8.0).wait_for(25), 4.0),
    "a share is a part of the rate": (lambda b: b.full(20.0, 100.0, 0.25).rate, 5.0),
    "a share is a part of the burst": (lambda b: b.full(20.0, 100.0, 0.25).burst, 25.0),
    "a small share is one call at least": (lambda b: b.full(0.5, 10.0, 0.01).burst, 1.0),
    "it is full at first": (lambda b: b.full(20.0, 100.0, 0.25).tokens, 25.0),
}


class Making:
    """Makes buckets of one core; a call with fields that differ from the usual ones."""

    def __init__(self, core):
        self.core = core

    def __call__(self, **changes):
        return bucket(self.core, **changes)

    def full(self, per_second, burst, share):
        return self.core.Bucket.full(Budget("x", per_second, burst), share)


def wrong_rows(core: ModuleType = real) -> list[str]:
    """Rows of the table that `core` gets wrong."""
    rows = ((name, row(Making(core)), expected) for name, (row, expected) in TABLE.items())
    return [name for name, got, expected in rows if got != pytest.approx(expected)]


def test_every_row_of_the_table():
    assert wrong_rows() == []


@given(
    st.lists(
        st.tuples(st.floats(0.0, 60.0), st.integers(1, 14), st.sampled_from(["ok", "throttled", "error"])),
        max_size=60,
    ),
    st.sampled_from([0.1, 0.5, 20.0]),
)
def test_no_window_of_time_sees_more_calls_than_the_budget(happenings, rate):
    state, now, calls = bucket(rate=rate, ceiling=rate, at=0.0), 0.0, [(0.0, 0)]
    largest = 0
    for later, price, answer in happenings:
        now += later
        state = state.refilled(now)
        if state.affords(price):
            state, largest = state.spent(price), max(largest, price)
            calls.append((now, price))
        if answer == "ok":
            state = state.went_well()
        if answer == "throttled":
            state = state.throttled(now)
        assert rate / real.MAX_SLOWDOWN <= state.rate <= rate
    spent = [0, *accumulate(price for _, price in calls)]
    allowed = max(FULL, largest)  # a poll that costs more than a full bucket needs a full one
    for first, (begin, _) in enumerate(calls):
        for last in range(first, len(calls)):
            end = calls[last][0]
            assert spent[last + 1] - spent[first] <= allowed + rate * (end - begin) + 1e-6


@given(st.floats(-20.0, 10.0), st.integers(1, 20), st.floats(0.05, 20.0))
def test_after_the_wait_it_affords_what_was_waited_for_and_not_before(tokens, price, rate):
    state = bucket(tokens=tokens, rate=rate, at=0.0)
    wait = state.wait_for(price)
    assert state.refilled(wait + 1e-6).affords(price)
    if wait > 1e-3:
        assert not state.refilled(wait - 1e-3).affords(price) or wait * rate < 1e-2


@pytest.mark.parametrize("allowed", [0.1, 0.25, 0.4, 0.8])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_rate_settles_within_a_tenth_of_what_the_endpoint_allows(allowed, share):
    """The endpoint gives others what it does not give us: its bucket is refilled with a part of the rate."""
    state, now, answered, refused = real.Bucket.full(Budget("x", 1.0, 20.0), share), 0.0, 0, 0
    theirs = bucket(rate=allowed, ceiling=allowed, burst=20.0, tokens=20.0, at=0.0)
    end, settled = 40_000.0, 4_000.0
    while now < end:
        now += state.wait_for(1) + 1e-6
        state, theirs = state.refilled(now).spent(1), theirs.refilled(now)
        if theirs.affords(1):
            theirs, state = theirs.spent(1), state.went_well()
            answered += now > settled
        else:
            state = state.throttled(now)
            refused += now > settled
    throughput = answered / (end - settled)
    assert throughput == pytest.approx(min(allowed, share), rel=0.1)
    assert refused <= 0.2 * (answered + refused), "most calls are worth making"


# --- SharedBucket ---------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def shared(**changes):
    clock = Clock()
    made = real.SharedBucket(Budget("emr:ListSteps", HALF, FULL), now=clock)
    made.state = bucket(**changes)
    return made, clock


def test_a_poll_that_costs_what_was_estimated_leaves_no_difference():
    made, _ = shared()
    made.reserve(3)
    with made.spend(3):
        for _ in range(3):
            made.record("ok")
    assert (made.state.tokens, made.calls) == (7.0, 3)


def test_what_a_poll_did_not_need_is_given_back():
    made, _ = shared()
    made.reserve(3)
    with made.spend(3):
        made.record("ok")
    assert (made.state.tokens, made.calls) == (9.0, 1)


def test_what_a_poll_needed_beyond_its_reserve_is_a_debt():
    made, _ = shared(tokens=3.0)
    made.reserve(3)
    with made.spend(3):
        for _ in range(5):
            made.record("ok")
    assert made.state.tokens == -2.0


def test_a_poll_that_needs_more_calls_waits_for_each_of_them():
    made, clock = shared(tokens=2.5)
    slept = []
    made._sleep = lambda seconds: (slept.append(seconds), setattr(clock, "time", clock.time + seconds))
    made.reserve(2)
    with made.spend(2):
        for _ in range(4):
            made.acquire()
            made.record("ok")
    assert slept == pytest.approx([1.0, 2.0])
    assert made.state.tokens == pytest.approx(0.0)


def test_but_it_waits_for_no_call_longer_than_a_limit():
    made, _ = shared(tokens=0.0, rate=0.01)
    slept = []
    made._sleep = slept.append
    with made.spend(0):
        made.acquire()
        made.record("ok")
    assert slept == [real.MAX_ACQUIRE_SECONDS]
    assert made.state.tokens == -1.0


def test_a_call_outside_of_polls_does_not_wait():
    made, _ = shared(tokens=-5.0)
    made._sleep = pytest.fail
    made.acquire()
    made.record("ok")
    assert made.state.tokens == -6.0


def test_calls_outside_of_polls_count_too():
    made, _ = shared()
    made.record("error")
    assert (made.state.tokens, made.calls) == (9.0, 1)


def test_a_throttled_poll_gives_nothing_back():
    made, clock = shared()
    made.reserve(5)
    with made.spend(5):
        clock.time += 1
        made.record("throttled")
    assert (made.state.tokens, made.state.rate, made.throttles) == (0.0, HALF / 2, 1)


def test_polls_that_were_in_flight_together_halve_the_rate_once():
    made, clock = shared()
    polls = [threading.Thread(target=throttled_poll, args=(made, clock)) for _ in range(4)]
    made.reserve(4)
    clock.barrier = threading.Barrier(4)
    for poll in polls:
        poll.start()
    for poll in polls:
        poll.join()
    assert (made.throttles, made.state.rate) == (4, HALF / 2)


def throttled_poll(made, clock):
    with made.spend(1):
        clock.barrier.wait()
        clock.time = 101.0
        made.record("throttled")


def test_a_poll_that_fails_costs_its_calls_like_any_other():
    made, _ = shared()
    made.reserve(2)
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(ConnectionError))
        with made.spend(2):
            made.record("error")
            raise ConnectionError
    assert made.state.tokens == 9.0


def test_threads_do_not_lose_calls():
    made, _ = shared(burst=1e6, tokens=1e6)

    def many():
        for _ in range(2000):
            made.record("ok")

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made.calls, made.state.tokens) == (8000, 1e6 - 8000)


class Watch:
    """Stands in for a watch: who takes from the bucket."""


def test_a_watch_that_waits_for_an_expensive_poll_is_not_starved_by_cheap_ones():
    made, clock = shared(tokens=2.0)
    expensive, cheap = Watch(), Watch()
    made.mark_waiting(expensive, 6, clock())
    served, cheap_polls = None, 0
    while served is None and clock.time < 200:
        if made.available_to(cheap, clock()).affords(1):
            made.reserve(1)
            cheap_polls += 1
        if made.available_to(expensive, clock()).affords(6):
            served = clock.time
            made.reserve(6)
            made.mark_waiting(expensive, None, clock())
        clock.time += 1
    assert (served, cheap_polls) == (108.0, 0), "it has what it needs after 8 s, as if it were alone"
    assert made.available_to(cheap, clock() + 2).affords(1), "then it is the other's turn"


def test_who_has_waited_for_longer_is_first():
    made, clock = shared(tokens=0.0)
    first, second = Watch(), Watch()
    made.mark_waiting(first, 3, clock())
    clock.time += 1
    made.mark_waiting(second, 3, clock())
    clock.time += 5
    assert made.available_to(first, clock()).affords(3)
    assert not made.available_to(second, clock()).affords(3)
    made.mark_waiting(first, 3, clock())  # still short: it keeps its place
    assert not made.available_to(second, clock()).affords(3)


def test_a_watch_that_is_gone_keeps_nothing_back():
    made, clock = shared(tokens=5.0)
    gone, other = Watch(), Watch()
    made.mark_waiting(gone, 5, clock())
    assert not made.available_to(other, clock()).affords(1)
    del gone
    assert made.available_to(other, clock()).affords(1)


def test_all_who_use_one_api_of_one_account_share_a_bucket():
    one = Budget("test:Share", 1.0, 10.0)
    account = f"aws_default/{random.random()}"
    assert real.shared_bucket(one, account, 0.5) is real.shared_bucket(one, account, 0.5)
    assert real.shared_bucket(one, account, 0.5) is not real.shared_bucket(one, f"{account}-other", 0.5)
    other = Budget("test:Other", 1.0, 10.0)
    assert real.shared_bucket(one, account, 0.5) is not real.shared_bucket(other, account, 0.5)
