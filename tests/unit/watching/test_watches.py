"""`Watches`: one watch for each address, no matter who asks and when; and none that nobody uses."""

import asyncio
import contextvars
import gc
import weakref
from collections import Counter
from contextlib import aclosing

import pytest

from airflow_resilient.core.job import Claim
from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.testing.in_memory_jobs import InMemoryJobs
from airflow_resilient.testing.virtual_time import VirtualTimeLoop, in_line
from airflow_resilient.watching import watches as real
from airflow_resilient.watching.shared_watch import SharedWatch
from airflow_resilient.watching.watches import IDLE_SECONDS, MAX_CONCURRENT_MAKES, Watches

CLAIM = Claim("abcdefghijklmnop", 1)


class Refused(Exception):
    pass


class Harness:
    """Watches whose making takes a second of virtual time."""

    def __init__(self, core=real):
        self.loop = VirtualTimeLoop()
        self.watches = core.Watches(self.loop.time)
        self.made, self.errors, self.making, self.most = Counter(), [], 0, 0

    async def get(self, key="here"):
        async def make():
            self.made[key] += 1
            self.making += 1
            self.most = max(self.most, self.making)
            await asyncio.sleep(1)
            self.making -= 1
            if self.errors:
                raise self.errors.pop()
            jobs = InMemoryJobs(seconds=None, clock=self.loop.time)
            return SharedWatch(jobs, in_line, self.loop.time, wall=self.loop.time)

        return await self.watches.get(key, make)

    async def wait_on(self, watch, seconds):
        """Wait for a job for some time."""
        job = watch.service.submit(CLAIM)

        async def follow():
            async with aclosing(watch.follow(job, PollPolicy())) as observations:
                async for _ in observations:
                    pass

        wait = asyncio.ensure_future(follow())
        await asyncio.sleep(seconds)
        wait.cancel()
        await asyncio.wait([wait])

    def run(self, main):
        try:
            return self.loop.run_until_complete(main)
        finally:
            self.loop.close()


@pytest.fixture(scope="module")
def core():
    """What is tested; other tests pass a module in which a rule is broken."""
    return real


def test_a_thousand_who_ask_at_once_get_one_watch(core):
    harness = Harness(core)

    async def main():
        return await asyncio.gather(*(harness.get() for _ in range(1000)))

    assert len(set(map(id, harness.run(main())))) == 1
    assert harness.made == {"here": 1}


def test_who_asks_later_gets_the_same(core):
    harness = Harness(core)

    async def main():
        return await harness.get() is await harness.get()

    assert harness.run(main())


def test_each_address_has_its_own(core):
    harness = Harness(core)

    async def main():
        return await asyncio.gather(*(harness.get(key) for key in "abab"))

    first, second, *rest = harness.run(main())
    assert first is not second
    assert rest == [first, second]


def test_an_error_reaches_everybody_who_waits_and_the_next_one_asks_again(core):
    harness = Harness(core)
    harness.errors = [Refused("no such service")]

    async def main():
        results = await asyncio.gather(*(harness.get() for _ in range(10)), return_exceptions=True)
        return results, await harness.get()

    results, watch = harness.run(main())
    assert [type(result) for result in results] == [Refused] * 10
    assert isinstance(watch, SharedWatch)
    assert harness.made == {"here": 2}


def test_who_asks_again_the_moment_it_has_heard_of_the_error_does_not_get_the_same_error(core):
    harness = Harness(core)
    harness.errors = [Refused("once")]

    async def stubborn():
        try:
            return await harness.get()
        except Refused:
            return await harness.get()

    async def main():
        return await asyncio.gather(*(stubborn() for _ in range(10)))

    assert len(set(map(id, harness.run(main())))) == 1
    assert harness.made == {"here": 2}


@pytest.mark.parametrize("after", [0, 0.5], ids=["at-once", "while-it-is-made"])
def test_the_first_one_may_be_cancelled(core, after):
    harness = Harness(core)

    async def main():
        asking = [asyncio.ensure_future(harness.get()) for _ in range(10)]
        await asyncio.sleep(after)
        asking[0].cancel()
        return await asyncio.gather(*asking, return_exceptions=True)

    first, *rest = harness.run(main())
    assert isinstance(first, asyncio.CancelledError)
    assert len(set(map(id, rest))) == 1
    assert isinstance(rest[0], SharedWatch)
    assert harness.made == {"here": 1}


def test_when_all_who_asked_are_cancelled_the_watch_is_there_for_the_next_one(core):
    harness = Harness(core)

    async def main():
        asking = [asyncio.ensure_future(harness.get()) for _ in range(10)]
        await asyncio.sleep(0.5)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        return await harness.get()

    assert isinstance(harness.run(main()), SharedWatch)
    assert harness.made == {"here": 1}


def test_an_error_that_nobody_has_waited_for_is_not_kept(core):
    harness = Harness(core)
    harness.errors = [Refused("nobody hears it")]

    async def main():
        asking = asyncio.ensure_future(harness.get())
        await asyncio.sleep(0.5)
        asking.cancel()
        await asyncio.sleep(2)
        return await harness.get()

    assert isinstance(harness.run(main()), SharedWatch)


def test_two_hundred_addresses_are_made_a_few_at_a_time(core):
    harness = Harness(core)

    async def main():
        await asyncio.gather(*(harness.get(f"{number}") for number in range(200)))

    harness.run(main())
    assert harness.most == MAX_CONCURRENT_MAKES
    assert set(harness.made.values()) == {1}


def test_an_error_does_not_take_a_turn_from_the_others(core):
    harness = Harness(core)
    harness.errors = [Refused(f"{number}") for number in range(2 * MAX_CONCURRENT_MAKES)]

    async def main():
        asking = (harness.get(f"{number}") for number in range(3 * MAX_CONCURRENT_MAKES))
        return await asyncio.gather(*asking, return_exceptions=True)

    assert Counter(map(type, harness.run(main()))) == {
        Refused: 2 * MAX_CONCURRENT_MAKES,
        SharedWatch: MAX_CONCURRENT_MAKES,
    }


def test_what_is_logged_while_it_is_made_belongs_to_no_trigger(core):
    harness, trigger, seen = Harness(core), contextvars.ContextVar("trigger", default="none"), []

    async def make():
        seen.append(trigger.get())
        return SharedWatch(InMemoryJobs(clock=harness.loop.time), in_line, harness.loop.time)

    async def main():
        trigger.set("first")
        await harness.watches.get("here", make)

    harness.run(main())
    assert seen == ["none"]


def test_one_that_is_being_made_is_not_there_yet(core):
    harness = Harness(core)

    async def main():
        asking = asyncio.ensure_future(harness.get())
        await asyncio.sleep(0.5)
        before, watch = harness.watches.made(), await asking
        return before, harness.watches.made() == [watch]

    assert harness.run(main()) == ([], True)


# --- none that nobody uses ------------------------------------------------------------------------


def test_two_hundred_addresses_do_not_leave_two_hundred_watches(core):
    harness = Harness(core)

    async def main():
        gone = [weakref.ref(await harness.get(f"{number}")) for number in range(200)]
        await asyncio.sleep(IDLE_SECONDS - 60)
        await harness.get("kept")
        await asyncio.sleep(61)
        return harness.watches.drop_idle(), gone

    dropped, gone = harness.run(main())
    assert dropped >= 60, "made one after the other: the last ones are not old enough"
    assert len(harness.watches.made()) == 201 - dropped
    gc.collect()
    assert sum(each() is None for each in gone) == dropped, "and nothing else holds them"


def test_what_was_asked_for_a_moment_ago_stays_though_nobody_waits_yet(core):
    harness = Harness(core)

    async def main():
        first = await harness.get()
        await asyncio.sleep(IDLE_SECONDS + 1)
        again = await harness.get()  # has not begun to wait
        return first is again, harness.watches.drop_idle(), await harness.get() is again

    assert harness.run(main()) == (True, 0, True)


def test_it_stays_as_long_as_somebody_waits_and_for_a_while_after(core):
    harness = Harness(core)

    async def main():
        watch = await harness.get()
        dropped = []
        waiting = asyncio.ensure_future(harness.wait_on(watch, 3 * IDLE_SECONDS))
        for _ in range(3):
            await asyncio.sleep(IDLE_SECONDS - 1)
            dropped.append(harness.watches.drop_idle())
        await waiting
        dropped.append(harness.watches.drop_idle())
        await asyncio.sleep(IDLE_SECONDS)
        return dropped, harness.watches.drop_idle()

    assert harness.run(main()) == ([0, 0, 0, 0], 1)


def test_one_whose_making_takes_long_is_not_dropped_before_anybody_has_it(core):
    harness = Harness(core)

    async def make():
        await asyncio.sleep(10 * IDLE_SECONDS)
        return SharedWatch(InMemoryJobs(clock=harness.loop.time), in_line, harness.loop.time)

    async def main():
        asking = asyncio.ensure_future(harness.watches.get("here", make))
        dropped = 0
        while not asking.done():
            await asyncio.sleep(IDLE_SECONDS / 2)
            dropped += harness.watches.drop_idle()
        return dropped, await asking is await harness.get()

    assert harness.run(main()) == (0, True)


def test_one_whose_askers_have_all_gone_is_dropped_too(core):
    harness = Harness(core)

    async def main():
        asking = asyncio.ensure_future(harness.get())
        await asyncio.sleep(0.5)
        asking.cancel()
        await asyncio.sleep(IDLE_SECONDS + 1)
        return harness.watches.drop_idle()

    assert harness.run(main()) == 1


def test_after_it_was_dropped_the_next_one_makes_another(core):
    harness = Harness(core)

    async def main():
        first = await harness.get()
        await asyncio.sleep(IDLE_SECONDS)
        harness.watches.drop_idle()
        return first is await harness.get()

    assert not harness.run(main())
    assert harness.made == {"here": 2}


def test_the_limits_stand_where_the_documentation_says():
    assert (IDLE_SECONDS, MAX_CONCURRENT_MAKES) == (600.0, 4)
    assert Watches(lambda: 0.0).made() == []
