"""Random histories of a task instance, judged by the eight invariants; see `simulator`.

``play(worlds()["..."], random.Random(seed))`` repeats a history that failed here; its ``story`` records what
happened. ``HYPOTHESIS_PROFILE=deep`` plays more of them, and other ones each time.
"""

import os
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import Rules, play, worlds

pytestmark = pytest.mark.pure

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
SEEDS = range(5000) if DEEP else range(120)
FIRST_SEED = random.SystemRandom().randrange(10**9) if DEEP else 0
WORLDS = worlds()


def judge(world, where="") -> None:
    story = "\n".join(" ".join(map(str, line)) for line in world.story)
    assert not world.violations, f"{where}{world.violations}\n{story}"


@pytest.mark.parametrize("name", WORLDS)
def test_the_invariants_hold_in(name):
    for seed in SEEDS:
        world = play(WORLDS[name], random.Random(FIRST_SEED + seed))
        judge(world, f"seed {FIRST_SEED + seed}: ")


@settings(max_examples=2000 if DEEP else 60)
@given(
    chance=st.randoms(use_true_random=False),
    rules=st.builds(
        Rules,
        tokens=st.booleans(),
        lag=st.sampled_from([0.0, 5.0, 30.0]),
        unknown_for=st.sampled_from([0.0, 20.0]),
        forget_after=st.sampled_from([None, 200.0, 3600.0]),
        on_kill=st.booleans(),
        retries=st.integers(0, 3),
        timeout=st.sampled_from([None, 60.0, 400.0]),
        on_timeout=st.sampled_from(["cancel", "leave"]),
        reattach=st.booleans(),
        infrastructure_retries=st.integers(0, 2),
        no_capacity=st.sampled_from([0.0, 0.3]),
        goes_stale=st.sampled_from([0.0, 0.1]),
        marks=st.integers(0, 1),
        deletions=st.integers(0, 1),
        user_stops=st.sampled_from([0.0, 0.2]),
        broken_deploys=st.sampled_from([0.0, 0.2]),
        steps=st.just(25),
    ),
)
def test_the_invariants_hold_in_any_mixture_of_faults(chance, rules):
    judge(play(rules, chance))


def test_histories_reach_what_they_are_about():
    """Guards against a model in which nothing happens."""
    words = set()
    for rules in WORLDS.values():
        for seed in range(15):
            world = play(rules, random.Random(seed))
            words |= {str(word) for line in world.story for word in line[2:]}
    wanted = {
        "crash",
        "throttled",
        "answer lost",
        "no capacity",
        "zombie",
        "on_kill",
        "fail",
        "restart",
        "down",
    }
    wanted |= {
        "stopped by a person",
        "run deleted when",
        "Pause",
        "TimedOut",
        "OutOfCapacity",
        "lost",
        "marked",
    }
    wanted |= {"restarted"}
    assert wanted <= words, wanted - words


def test_a_world_without_faults_makes_one_job():
    quiet = replace(
        Rules(clears=0, crash=0.0, throttle=0.0, lose=0.0, infrastructure=0.0, application=0.0),
        triggerer_failures=0.0,
    )
    for seed in range(20):
        world = play(quiet, random.Random(seed))
        judge(world)
        assert (world.state, world.try_number, len(world.service.history)) == ("success", 1, 1)
