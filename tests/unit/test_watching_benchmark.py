"""The benchmark of watching: its figures, its tables and pictures, and a run of a few seconds."""

import asyncio
import doctest
import json
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from watching import cases, endpoint, figures, names, report
from watching.__main__ import run_one
from watching.one import Case, measure, over_budgets

RESULT = {
    "group": "ecs",
    "who": "ours",
    "jobs": 1000,
    "clusters": 1,
    "calls_per_wait_and_minute": 0.0625,
    "stall_ms": {"steady": 12.4},
    "kb_per_wait": 15.0,
}
THEIRS = {**RESULT, "who": "provider", "calls_per_wait_and_minute": 6.0, "kb_per_wait": 1500.0}


@pytest.mark.parametrize("module", [figures, names, report])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("times", "over"),
    [
        pytest.param([], 0, id="no-call"),
        pytest.param([0.0] * 10, 0, id="a-burst"),
        pytest.param([0.0] * 12, 2, id="more-than-a-burst"),
        pytest.param([float(second) for second in range(100)], 0, id="at-the-rate"),
        pytest.param([second / 2 for second in range(100)], 41, id="at-twice-the-rate"),
        pytest.param([5.0, *[0.0] * 11], 1, id="in-any-order"),
    ],
)
def test_calls_that_aws_would_have_refused(times, over):
    assert figures.over_budget(times, rate=1.0, burst=10.0) == over


def test_each_operation_has_a_budget_of_its_own():
    calls = [(0.0, "ListSteps")] * 10 + [(0.0, "DescribeStep")] * 12
    assert over_budgets(calls) == 2


def test_both_stand_side_by_side_with_their_ratio():
    text = report.side_by_side([RESULT, THEIRS], "ecs")
    assert "### 1 000 waits on one cluster" in text
    assert "| API calls per wait and minute | 0.062 | 6.000 | 1/96 |" in text
    assert "| memory per wait (kB) | 15.0 | 1 500.0 | 1/100 |" in text


def test_what_was_not_measured_is_not_claimed():
    text = report.side_by_side([RESULT], "ecs")
    assert "| memory per wait (kB) | 15.0 | not measured |  |" in text
    failed = {**THEIRS, "error": "not done within 600 s"}
    written = report.files({"runs": [RESULT, failed]})["_generated/watch-benchmark.md"]
    assert "* ecs, provider, 1 000 waits: not done within 600 s" in written


@pytest.mark.parametrize(("load", "reported"), [(1.2, False), (9.0, True)])
def test_it_is_reported_when_others_used_the_machine(load, reported):
    text = report.load_of([{**RESULT, "load_before": 1.0}, {**THEIRS, "load_before": load}])
    assert f"1.0 to {load}" in text
    assert ("other programs" in text) is reported


def test_a_picture_has_a_bar_for_each_figure_and_says_what_is_missing():
    picture = report.bars("calls <&>", "calls", [("10", [("ours", 0.06, "red"), ("theirs", None, "blue")])])
    root = ET.fromstring(picture)
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"calls <&>", "ours: 0.06", "theirs: not measured"} <= set(texts)
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 2, "the ground, and one bar"


def test_a_longer_bar_is_more():
    picture = report.bars("t", "u", [("10", [("a", 1.0, "red"), ("b", 100.0, "blue")])])
    widths = [
        float(each.get("width")) for each in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}rect")
    ]
    assert widths[2] > widths[1]


def test_the_endpoint_ends_jobs_and_throttles():
    played = endpoint.Endpoint(endpoint.Settings("ecs", jobs=2, clusters=1, allowed=0.001, burst=2.0))
    request = {"tasks": [names.task(0, 1), names.task(1, 1)]}
    played.ends[1] = 0.0
    status, text = played.answer("DescribeTasks", request)
    first, second = json.loads(text)["tasks"]
    assert (status, first["lastStatus"], second["lastStatus"]) == (200, "RUNNING", "STOPPED")
    assert (first["containers"][0].get("exitCode"), second["containers"][0]["exitCode"]) == (None, 0)
    assert played.answer("DescribeTasks", request)[0] == 200
    assert played.answer("DescribeTasks", request)[0] == 400
    assert [answer for _, _, answer in played.calls] == ["ok", "ok", "throttled"]


def test_the_endpoint_lists_active_steps_by_pages():
    played = endpoint.Endpoint(endpoint.Settings("emr", jobs=120, clusters=2))
    played.ends[0] = 0.0
    request = {"ClusterId": names.emr_cluster(0, 2), "StepStates": ["RUNNING"]}
    page = json.loads(played.answer("ListSteps", request)[1])
    rest = json.loads(played.answer("ListSteps", {**request, "Marker": page["Marker"]})[1])
    found = [names.number(step["Id"]) for step in page["Steps"] + rest["Steps"]]
    assert found == list(range(2, 120, 2))
    assert "Marker" not in rest


def test_the_endpoint_describes_a_step():
    played = endpoint.Endpoint(endpoint.Settings("emr", jobs=4, clusters=2))
    played.ends[3] = 0.0
    request = {"ClusterId": names.emr_cluster(3, 2), "StepId": names.step(3)}
    step = json.loads(played.answer("DescribeStep", request)[1])["Step"]
    assert (step["Id"], step["Status"]["State"]) == (names.step(3), "COMPLETED")


def test_every_case_is_a_case():
    for run in cases.all_runs():
        Case(**run.case)
        endpoint.Settings(
            **{name: run.case[name] for name in ("service", "jobs", "clusters")}, **run.endpoint
        )


def test_twenty_waits_are_measured(monkeypatch):
    case = {"who": "ours", "service": "ecs", "jobs": 20, "clusters": 2}
    played = {name: case[name] for name in ("service", "jobs", "clusters")}
    process = subprocess.Popen(
        [sys.executable, "-m", "watching.endpoint", json.dumps(played)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": names.__file__.rpartition("/watching/")[0]},
    )
    try:
        port = int(process.stdout.readline())
        extra = {"region_name": "us-east-1", "endpoint_url": f"http://127.0.0.1:{port}"}
        connection = {"conn_type": "aws", "login": "AKIAFAKE", "password": "not-a-secret", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        short = {"poll": 2.0, "idle": 0.1, "settle": 0.1, "steady": 1.0, "ends_over": 0.5, "most_wait": 10.0}
        found = asyncio.run(measure(Case(**case, **short), port))
    finally:
        process.kill()
        process.communicate()
    assert (found["looked_at"], found["lost"], found["failed"], found["wrong"]) == (20, 0, 0, 0)
    assert 0 < found["delay_s"]["max"] < 10
    assert found["calls"] < 20


def test_the_cold_start_is_measured_first_and_in_a_process_of_its_own():
    first = cases.quick_runs()[0]
    assert first.case["cold"]
    assert {run.group for run in cases.all_runs()[:3]} == {"cold"}
    found = run_one(first)
    assert "error" not in found
    assert (found["looked_at"], found["lost"], found["failed"], found["wrong"]) == (20, 0, 0, 0)
    assert 1 <= found["connections"] <= 8, "of one client, not of one for each wait"
    assert min(found["cpu_ms_per_start"], found["kb_per_wait"], found["stall_ms"]["start"]) > 0


def test_a_cold_start_has_a_table_of_its_own():
    cold = {**RESULT, "group": "cold", "cold": True, "stall_ms": {"start": 35.0}, "connections": 1}
    theirs = {**cold, "who": "provider", "stall_ms": {"start": 9000.0}, "connections": 1000}
    restart = {"ours": {"jobs": 1000, "blocked_s": 0.0}, "provider": {"jobs": 1000, "blocked_s": 7.25}}
    written = report.files({"runs": [cold, theirs], "restart": restart})["_generated/watch-benchmark.md"]
    assert "| largest stall of the event loop (ms) | 35 | 9 000 | 1/257 |" in written
    assert "| connections to AWS | 1 | 1 000 | 1/1000 |" in written
    assert "## A real triggerer restarts" in written
    assert "0.2 on (s) | 0.00 | 7.25 | 0 |" in written
    assert report.brief(cold).endswith("largest stall of the event loop (ms) 35")
