"""How logs are copied while jobs run: several at a time, never in the way of an end, whatever goes wrong."""

from __future__ import annotations

import asyncio
import json
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_resilient.aws.cloudwatch_logs import Cursor
from airflow_resilient.core.job import Claim, Job, Phase
from airflow_resilient.core.logs import LogPosition, copy_rest, read_position
from airflow_resilient.core.retry import Runtime
from airflow_resilient.services.docker.log import TimeCursor
from airflow_resilient.testing import InMemoryJobs
from airflow_resilient.testing.virtual_time import VirtualTimeLoop
from airflow_resilient.watching.log_forwarder import MAX_DELAY_SECONDS, MAX_DRAIN_SECONDS, LogForwarder
from airflow_resilient.watching.shared_watch import SharedWatch

JOB = Job("job-1", Claim("a" * 16, 1), Phase.RUNNING, created=0.0)


class Written:
    """A log of Airflow."""

    def __init__(self):
        self.lines, self.warnings = [], []

    def info(self, text, *values):
        self.lines.append(text % values)

    def warning(self, text, *values):
        self.warnings.append(text % values)

    def debug(self, text, *values):
        pass


class Logged(InMemoryJobs):
    """A service whose jobs have logs: the cursor is the number of lines read."""

    def __init__(self, lines=(), *, portion=100, drain=0.0, error=None, **kwargs):
        super().__init__(**kwargs)
        self.lines, self.portion, self.log_drain, self.error = list(lines), portion, drain, error
        self.reads = 0

    def read_log(self, job, where, cursor):
        self.reads += 1
        if self.error is not None:
            raise self.error
        start = 0 if cursor is None else cursor
        lines = self.lines[start : start + self.portion]
        return [(0.0, line) for line in lines], start + len(lines)


def calls_that_take(seconds):
    """What replaces threads in virtual time: each call takes so long; ``None``: for ever."""

    async def call(function, *args):
        await asyncio.sleep(1e9 if seconds is None else seconds)
        return function(*args)

    return call


def forwarder(service, *, written=None, in_thread=None, turns=None, stored=None, kept=None, interval=10.0):
    reading = in_thread or calls_that_take(0.05)

    async def call(function, *args):
        if function == service.read_log:
            return await reading(function, *args)
        return function(*args)

    return LogForwarder(
        service,
        lambda: JOB,
        {},
        keep=1,
        write=written or Written(),
        in_thread=call,
        recall=lambda: stored,
        remember=(kept if kept is not None else []).append,
        turns=turns or asyncio.Semaphore(4),
        interval=interval,
    )


def in_virtual_time(story):
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(story(loop))
    finally:
        loop.close()


async def late(loop, forwarders, *, drain=False, running=60.0):
    """By how many seconds the logs hold up the ends of their jobs, all of which end at the same moment."""
    tasks = [asyncio.ensure_future(each.run()) for each in forwarders]
    await asyncio.sleep(running)
    ended = loop.time()
    for each in forwarders:
        each.end(drain=drain)
    await asyncio.gather(*tasks)
    return loop.time() - ended


@pytest.mark.parametrize(("count", "seconds"), [(80, 0.05), (500, 0.2)])
def test_ends_do_not_wait_for_logs(count, seconds):
    """However many there are, and however slow each read is."""

    async def story(loop):
        turns, reading = SharedWatch(InMemoryJobs()).log_turns, calls_that_take(seconds)
        logs = [Logged(map(str, range(9)), drain=6.0) for _ in range(count)]
        return await late(loop, [forwarder(each, turns=turns, in_thread=reading) for each in logs])

    assert in_virtual_time(story) == 0


def test_the_end_of_a_log_that_is_wanted_delays_the_end_by_a_read_and_by_no_more_than_its_limit():
    async def story(loop):
        turns = SharedWatch(InMemoryJobs()).log_turns
        logs = [forwarder(Logged("abc"), turns=turns) for _ in range(80)]
        seconds = await late(loop, logs, drain=True)
        assert all(each.position.complete and list(each.tail) == ["c"] for each in logs)
        return seconds

    assert in_virtual_time(story) == pytest.approx(80 * 0.05 / 4)


def test_the_end_of_a_log_that_is_wanted_is_left_to_the_worker_to_write():
    """Airflow's triggerer closes the log of a trigger that ends: what is written last may get lost."""
    log, written = Logged(map(str, range(50)), portion=7), Written()

    async def story(loop):
        one = forwarder(log, written=written)
        await late(loop, [one], drain=True, running=25.0)
        assert (one.whole, list(one.tail), one.position.complete) == (True, ["49"], False)
        return one.position

    position = in_virtual_time(story)
    assert len(written.lines) == position.lines == 21
    assert copy_rest(log, JOB, {}, position, runtime(written), drained=0.0, keep=1) == (("49",), True)
    assert written.lines == log.lines


@pytest.mark.parametrize(
    ("seconds", "delay"),
    [
        pytest.param(0.2, 0.2, id="in-time"),
        pytest.param(9.0, MAX_DELAY_SECONDS, id="late"),
        pytest.param(None, MAX_DELAY_SECONDS, id="never"),
    ],
)
def test_an_end_waits_a_little_until_airflow_has_taken_in_what_was_written_last(seconds, delay):
    async def story(loop):
        one = forwarder(Logged("abc"), in_thread=calls_that_take(0.0))
        call, storing = one._in_thread, calls_that_take(seconds)

        async def in_thread(function, *args):
            return await (storing if function == one._remember else call)(function, *args)

        one._in_thread = in_thread
        late_by = await late(loop, [one], running=0.0001)
        assert one.position.lines == 3
        return late_by

    assert in_virtual_time(story) == pytest.approx(delay, abs=0.001)


@pytest.mark.parametrize(
    ("drain", "seconds"),
    [
        pytest.param(False, 0, id="nobody-wants-the-end-of-the-log"),
        pytest.param(True, MAX_DRAIN_SECONDS, id="somebody-wants-it"),
    ],
)
def test_a_read_that_hangs_holds_up_an_end_for_a_limited_time(drain, seconds):
    async def story(loop):
        one = forwarder(Logged("abc"), in_thread=calls_that_take(None))
        assert await late(loop, [one], drain=drain) == pytest.approx(seconds)
        return one.position

    assert in_virtual_time(story) == LogPosition("job-1")


def test_logs_that_hang_do_not_keep_others_from_being_read():
    async def story(loop):
        turns, written = asyncio.Semaphore(4), Written()
        hanging = [forwarder(Logged("x"), in_thread=calls_that_take(None), turns=turns) for _ in range(9)]
        other = forwarder(Logged("abc"), turns=turns, written=written)
        assert await late(loop, [*hanging, other]) == 0
        return written.lines

    assert in_virtual_time(story) == ["a", "b", "c"]


def test_several_logs_are_read_at_the_same_time_and_not_all():
    now, most = [0], [0]

    async def reading(function, *args):
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.05)
        now[0] -= 1
        return function(*args)

    async def story(loop):
        turns = SharedWatch(InMemoryJobs()).log_turns
        await late(loop, [forwarder(Logged("abc"), in_thread=reading, turns=turns) for _ in range(80)])

    in_virtual_time(story)
    assert most == [4]


def test_after_a_restart_several_stored_positions_are_asked_for_at_the_same_time_and_not_all():
    now, most, asked = [0], [0], [0]

    async def call(function, *args):
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.05)
        now[0] -= 1
        return function(*args)

    async def story(loop):
        turns = SharedWatch(InMemoryJobs()).log_turns

        def recall():
            asked[0] += 1

        logs = [forwarder(Logged("abc"), turns=turns) for _ in range(80)]
        for each in logs:
            each._in_thread, each._recall = call, recall
        await late(loop, logs)

    in_virtual_time(story)
    assert (most, asked) == ([4], [80])


def test_a_log_that_grows_fast_is_read_without_a_pause():
    async def story(loop):
        written = Written()
        log = Logged(map(str, range(100_000)), portion=5000)
        await late(loop, [forwarder(log, written=written)], running=5.0)
        return len(written.lines)

    assert in_virtual_time(story) == 100_000


def test_an_end_in_the_middle_of_a_log_leaves_the_rest_to_the_worker_without_gap_or_doubles():
    log, written, kept = Logged(map(str, range(50)), portion=7), Written(), []

    async def story(loop):
        one = forwarder(log, written=written, kept=kept)
        await late(loop, [one], running=25.0)
        return one.position

    position = in_virtual_time(story)
    assert (position.lines, position.complete) == (21, False)
    assert kept[-1] == position.to_dict()
    stored = read_position(json.loads(json.dumps(position.to_dict())), "job-1")
    tail, whole = copy_rest(log, JOB, {}, stored, runtime(written), drained=0.0, keep=2)
    assert written.lines == log.lines
    assert (tail, whole) == (("48", "49"), True)


def runtime(written, seconds=0.0):
    """A clock that moves by so much whenever it is read, and by each sleep."""
    clock = [0.0]

    def now():
        clock[0] += seconds
        return clock[0]

    def sleep(length):
        clock[0] += length

    return Runtime(now, sleep, lambda: 0.5, written)


def test_a_worker_waits_for_late_lines_for_a_limited_time():
    log, written, clock = Logged("ab", drain=6.0), Written(), runtime(Written())

    def sleep(seconds):
        clock.sleep(seconds)
        log.lines += ["late"] if clock.now() > 3 and "late" not in log.lines else []

    late = Runtime(clock.now, sleep, lambda: 0.5, written)
    assert copy_rest(log, JOB, {}, LogPosition("job-1"), late, drained=6.0, keep=1) == (("late",), True)
    assert clock.now() == 6.0
    assert written.lines == ["a", "b", "late"]


def test_a_log_without_an_end_is_not_copied_for_ever():
    class Endless(Logged):
        def read_log(self, job, where, cursor):
            return [(0.0, "again")], 1

    written = Written()
    _, whole = copy_rest(Endless(), JOB, {}, LogPosition("job-1"), runtime(written, 0.5), drained=0.0, keep=1)
    assert not whole
    assert "the rest is not copied" in written.warnings[0]


@pytest.mark.parametrize("drain", [True, False])
def test_an_end_before_the_stored_position_is_known_copies_nothing(drain):
    """The triggerer has restarted, and Airflow answers late: what was copied before would be doubled."""

    async def story(loop):
        log, written = Logged("abc"), Written()
        one = forwarder(log, written=written, in_thread=calls_that_take(0.0))
        one._in_thread = calls_that_take(None)
        assert await late(loop, [one], drain=drain) == pytest.approx(MAX_DRAIN_SECONDS if drain else 0)
        return one.continued, written.lines

    assert in_virtual_time(story) == (False, [])


# --- failures -------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
odd_positions = json_values | st.fixed_dictionaries(
    {"job": st.just("job-1") | json_values},
    optional={"cursor": json_values, "lines": json_values, "complete": json_values, "tail": json_values},
)


@given(odd_positions)
def test_whatever_is_stored_as_a_position_the_log_is_copied_and_the_end_is_reported(stored):
    class Strict(Logged):
        def read_log(self, job, where, cursor):
            if cursor is not None and not (type(cursor) is int and 0 <= cursor <= 3):
                raise TypeError(f"no cursor: {cursor!r}")
            return super().read_log(job, where, cursor)

    async def story(loop):
        one = forwarder(Strict("abc"), stored=stored, written=(written := Written()))
        assert await late(loop, [one]) == 0
        json.dumps(one.position.to_dict())
        return written.lines

    assert "".join(in_virtual_time(story)) in ("abc", "bc", "c", "")


@given(
    json_values
    | st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("since", "count", "last", "token", "start", "time", "skip"), json_values),
    )
)
def test_an_odd_cursor_is_the_beginning(stored):
    for kind in (Cursor, TimeCursor):
        cursor = kind.read(stored)
        assert kind.read(json.loads(json.dumps(vars(cursor)))) == cursor


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="nothing"),
        pytest.param(([("no time",)], 1), id="lines-without-text"),
        pytest.param(([(0.0, "a")], {1, 2}), id="a-cursor-that-is-no-json"),
        pytest.param((7, 1), id="no-lines"),
    ],
)
def test_an_answer_that_a_service_must_not_give_ends_the_copying_alone(answer):
    class Odd(Logged):
        def read_log(self, job, where, cursor):
            return answer

    async def story(loop):
        one = forwarder(Odd(), written=(written := Written()))
        assert await late(loop, [one], drain=True) == 0
        json.dumps(one.position.to_dict())
        return written.warnings

    (warning,) = in_virtual_time(story)
    assert "cannot be read" in warning


def test_a_service_that_cannot_sort_its_errors_ends_the_copying_alone():
    class Odd(Logged):
        def is_transient(self, error):
            raise KeyError("code")

    async def story(loop):
        return await late(loop, [forwarder(Odd(error=ValueError("boom")))], drain=True)

    assert in_virtual_time(story) == 0


def test_a_denied_log_is_said_once_and_not_asked_for_again():
    async def story(loop):
        log, written = Logged(error=PermissionError("denied")), Written()
        await late(loop, [forwarder(log, written=written)], running=600.0)
        return log.reads, written.warnings

    reads, warnings = in_virtual_time(story)
    assert reads == 1
    assert warnings == ["the job's log cannot be read: PermissionError: denied"]


def test_transient_trouble_delays_lines_and_loses_none():
    async def story(loop):
        log, written = Logged("abc"), Written()
        numbers = count()

        async def reading(function, *args):
            if next(numbers) < 3:
                raise TimeoutError
            return function(*args)

        await late(loop, [forwarder(log, written=written, in_thread=reading)])
        return written.lines, written.warnings

    assert in_virtual_time(story) == (["a", "b", "c"], [])


def test_an_interval_of_zero_is_one_second():
    async def story(loop):
        log = Logged("abc")
        one = forwarder(log, interval=0.0)
        await late(loop, [one], running=10.0)
        return log.reads

    assert in_virtual_time(story) <= 11
