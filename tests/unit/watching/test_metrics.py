"""What is reported, and that Airflow's own StatsD client sends it to a real socket."""

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
from collections import Counter

import pytest

from airflow_resilient.core.service import Budget
from airflow_resilient.watching.metrics import Measure, counted, growth, measures, report

WATCH = "airflow_resilient.watch"


class Source:
    """A watch, a queue or a bucket, as far as metrics read it."""

    def __init__(self, **fields):
        vars(self).update(fields)


def watch(name="ecs", buckets=(), gauges=(), **counts):
    return Source(name=name, buckets=buckets, counts=Counter(counts), gauges=lambda: dict(gauges))


def bucket(calls, throttles=0, operation="ecs:DescribeTasks"):
    return Source(calls=calls, throttles=throttles, budget=Budget(operation, 1.0, 1.0, (operation,)))


def grown(*watches):
    return growth({}, counted(watches))


def test_counts_of_one_service_are_added_up():
    assert grown(watch(polls=3), watch(polls=4), watch("emr", polls=1)) == {
        f"{WATCH}.ecs.polls": 7,
        f"{WATCH}.emr.polls": 1,
    }


def test_a_bucket_that_watches_share_counts_once():
    shared = bucket(5, 1)
    found = grown(watch(buckets=[shared]), watch(buckets=[shared]), watch(buckets=[bucket(2)]))
    assert found == {f"{WATCH}.ecs.calls": 7, f"{WATCH}.ecs.throttles": 1}


def test_a_call_that_counts_in_the_bucket_of_the_whole_service_too_is_reported_once():
    buckets = [bucket(5, 0, "emr:ListSteps"), bucket(2, 0, "emr:DescribeStep"), bucket(9, 1, "emr:*")]
    assert grown(watch("emr", buckets)) == {f"{WATCH}.emr.calls": 7}


def test_what_has_happened_since_the_last_report_is_reported_and_nothing_else():
    one, other = watch(a=3, b=1), watch(a=10)
    before = counted([one])
    one.counts.update(a=2)
    assert growth(before, counted([one, other])) == {f"{WATCH}.ecs.a": 12}
    assert measures({"a": 2, "b": 0}, []) == [Measure("incr", "a", 2)]


def test_a_watch_that_was_dropped_takes_nothing_away():
    one, other, their_bucket = watch(polls=3), watch(polls=10), bucket(70)
    dropped = watch(buckets=[their_bucket], polls=50)
    before = counted([one, dropped])
    one.counts.update(polls=1)
    assert growth(before, counted([one, other])) == {f"{WATCH}.ecs.polls": 11}


def test_of_several_watches_waits_are_added_up_and_the_worst_time_is_reported():
    some = {"waits": 3.0, "freshness": 10.0, "oldest_poll": 7.0, "calls_per_second": 0.5}
    more = {"waits": 4.0, "freshness": 2.0, "oldest_poll": 9.0, "calls_per_second": 0.1}
    assert measures({}, [watch(gauges=some.items()), watch(gauges=more.items())]) == [
        Measure("gauge", f"{WATCH}.ecs.calls_per_second", 0.1),
        Measure("gauge", f"{WATCH}.ecs.freshness", 10.0),
        Measure("gauge", f"{WATCH}.ecs.oldest_poll", 9.0),
        Measure("gauge", f"{WATCH}.ecs.waits", 7.0),
    ]


def test_an_error_of_metrics_is_logged_once_and_reports_go_on(caplog):
    reports, watching = [], watch(polls=1)

    def emit(found):
        reports.append(found)
        watching.counts["polls"] += 1
        if len(reports) < 3:
            raise OSError("no such host")

    async def in_line(function, *args):
        return function(*args)

    async def main():
        task = asyncio.ensure_future(report(lambda: [watching], in_line, emit, every=0.01))
        while len(reports) < 4:  # noqa: ASYNC110 - it counts reports
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
    assert reports[3] == [Measure("incr", f"{WATCH}.ecs.polls", 1)]
    assert caplog.text.count("metrics cannot be reported") == 1


SCRIPT = """
from airflow_resilient import compat
from airflow_resilient.background import emit
from airflow_resilient.watching.metrics import Measure
if compat.airflow_version() >= (3, 3):  # as the triggerer does
    from airflow.observability import stats
    from airflow.observability.metrics import stats_utils
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
elif compat.airflow_version() >= (3, 2):
    from airflow.observability.stats import Stats
    from airflow.observability.metrics import stats_utils
    Stats.initialize(factory=stats_utils.get_stats_factory(Stats))
emit([
    Measure("incr", "airflow_resilient.watch.ecs.polls", 7),
    Measure("gauge", "airflow_resilient.watch.ecs.waits", 3.0),
])
"""


@pytest.mark.parametrize(
    ("influx", "expected"),
    [
        pytest.param("False", {"polls": "polls:7|c", "waits": "waits:3.0|g"}, id="plain"),
        pytest.param("True", {"polls": "polls,hostname=*:7|c", "waits": "waits,hostname=*:3.0|g"}, id="tags"),
    ],
)
def test_airflows_statsd_client_sends_them_to_a_real_socket(influx, expected, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(30)
        metrics = {
            "STATSD_ON": "True",
            "STATSD_HOST": "127.0.0.1",
            "STATSD_PORT": str(listener.getsockname()[1]),
            "STATSD_INFLUXDB_ENABLED": influx,
            "METRICS_USE_PATTERN_MATCH": "True",
        }
        environment = {
            **os.environ,
            **{f"AIRFLOW__METRICS__{name}": value for name, value in metrics.items()},
        }
        environment |= {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        }
        script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT)]
        subprocess.run(script, check=True, env=environment, timeout=120)
        prefix, got = "airflow.airflow_resilient.watch.ecs.", []
        while len(got) < len(expected):  # Airflow reports something, too
            got += [text for text in [listener.recv(1000).decode()] if text.startswith(prefix)]
    host = socket.gethostname()
    assert sorted(got) == [prefix + text.replace("*", host) for _, text in sorted(expected.items())]
