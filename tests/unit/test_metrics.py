"""What is reported, and that Airflow's own StatsD client sends it to a real socket."""

import asyncio
import os
import socket
import subprocess
import sys
import textwrap
from collections import Counter
from types import SimpleNamespace

import pytest

from airflow_resilient.metrics import Measure, counted, measures, report

WATCH = "airflow_resilient.watch"


def watch(kind="ecs", bucket=None, gauges=(), **counts):
    return SimpleNamespace(kind=kind, bucket=bucket, counts=Counter(counts), gauges=lambda: dict(gauges))


def bucket(calls, throttles=0):
    return SimpleNamespace(calls=calls, throttles=throttles)


def test_counts_of_one_service_are_added_up():
    assert counted([watch(looks=3), watch(looks=4), watch("emr", looks=1)]) == {
        f"{WATCH}.ecs.looks": 7,
        f"{WATCH}.emr.looks": 1,
    }


def test_a_bucket_that_watches_share_counts_once():
    shared = bucket(5, 1)
    found = counted([watch(bucket=shared), watch(bucket=shared), watch(bucket=bucket(2))])
    assert found == {f"{WATCH}.ecs.calls": 7, f"{WATCH}.ecs.throttles": 1}


def test_what_has_happened_since_the_last_report_is_told_and_nothing_else():
    before, after = {"a": 3, "b": 1}, {"a": 5, "b": 1, "c": 2}
    assert measures(before, after, []) == [Measure("incr", "a", 2), Measure("incr", "c", 2)]


def test_of_several_watches_waits_are_added_up_and_of_times_the_worst_is_told():
    some = {"waits": 3.0, "freshness": 10.0, "oldest_look": 7.0, "calls_per_second": 0.5}
    more = {"waits": 4.0, "freshness": 2.0, "oldest_look": 9.0, "calls_per_second": 0.1}
    assert measures({}, {}, [watch(gauges=some.items()), watch(gauges=more.items())]) == [
        Measure("gauge", f"{WATCH}.ecs.calls_per_second", 0.1),
        Measure("gauge", f"{WATCH}.ecs.freshness", 10.0),
        Measure("gauge", f"{WATCH}.ecs.oldest_look", 9.0),
        Measure("gauge", f"{WATCH}.ecs.waits", 7.0),
    ]


def test_trouble_with_metrics_is_said_once_and_reports_go_on(caplog):
    told, watching = [], watch(looks=1)

    def emit(found):
        told.append(found)
        watching.counts["looks"] += 1
        if len(told) < 3:
            raise OSError("no such host")

    async def in_line(function, *args):
        return function(*args)

    async def main():
        task = asyncio.ensure_future(report(lambda: [watching], in_line, emit, every=0.01))
        while len(told) < 4:  # noqa: ASYNC110 - it counts what is told
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
    assert told[3] == [Measure("incr", f"{WATCH}.ecs.looks", 1)]
    assert caplog.text.count("metrics cannot be reported") == 1


SCRIPT = """
from airflow_resilient import compat
from airflow_resilient.metrics import Measure, emit
if compat.airflow_version() >= (3, 3):  # as the triggerer does
    from airflow.observability import stats
    from airflow.observability.metrics import stats_utils
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=True)
elif compat.airflow_version() >= (3, 2):
    from airflow.observability.stats import Stats
    from airflow.observability.metrics import stats_utils
    Stats.initialize(factory=stats_utils.get_stats_factory(Stats))
emit([
    Measure("incr", "airflow_resilient.watch.ecs.looks", 7),
    Measure("gauge", "airflow_resilient.watch.ecs.waits", 3.0),
])
"""


@pytest.mark.parametrize(
    ("influx", "expected"),
    [
        pytest.param("False", {"looks": "looks:7|c", "waits": "waits:3.0|g"}, id="plain"),
        pytest.param("True", {"looks": "looks,hostname=*:7|c", "waits": "waits,hostname=*:3.0|g"}, id="tags"),
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
