"""Orphans, made as they are made in life, and what the command line and the maintenance DAG do about them.

The maintenance DAG is the recipe, ``find-and-cancel-orphans.py``, and one that sweeps the clusters of this
test only.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import boto3
import pytest
from command_line import Ran, run

from airflow_resilient.compat import airflow_version
from airflow_resilient.core.job import Claim, task_key
from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_resilient.testing import FakeAws
    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

DAGS = Path(__file__).parent.parent / "dags" / "every_version"
DOCS = Path(__file__).parents[3] / "docs"
RECIPE = DOCS / "recipes" / "find-and-cancel-orphans.py"
CLUSTER = "orphans"
NAMES = {
    "deleted": "orphans_ecs",
    "marked": "orphans_ecs",
    "live": "orphans_ecs",
    "reattached": "orphans_ecs_reattach",
    "left": "orphans_ecs_left",
    "left_late": "orphans_ecs_late_90",
    "marked_step": "orphans_emr",
    "live_step": "orphans_emr",
    "left_step": "orphans_emr_left",
    "cleared": "orphans_paused",
}
DEFERRED = ("deleted", "marked", "live", "reattached", "marked_step", "live_step")


@dataclass
class Story:
    """Everything that happened, in order; the tests only read it."""

    aws: FakeAws
    airflow: LocalAirflow
    emr_cluster: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    foreign: str = ""
    seen: dict[str, Any] = field(default_factory=dict)

    def start(self, name: str) -> None:
        if name.endswith("_step"):
            self.aws.emr.plan(step_name_contains=f"{name} ", seconds=None)
        else:
            self.aws.make_task_definition(name)
            self.aws.ecs.plan(name, seconds=None)
        self.runs[name] = self.airflow.trigger(NAMES[name], conf={"job": name})

    def task(self, name: str):
        return self.airflow.task_instance(NAMES[name], self.runs[name], "job")

    def until(self, name: str, state: str) -> None:
        # Until a triggerer has taken it, a new one would take it, too, although the old one is killed.
        self.airflow.wait_until(
            lambda: (
                self.task(name).state == state and (state != "deferred" or self.task(name).in_a_triggerer)
            ),
            what=f"{name} is {state}",
            tell=lambda: self.airflow.task_log(NAMES[name], self.runs[name], "job"),
        )

    def jobs(self, name: str) -> list[Any]:
        if name.endswith("_step"):
            return [step for step in self.aws.emr.steps() if step.name.startswith(f"{name} ")]
        tasks = self.aws.ecs.tasks()
        return [task for task in tasks if task.task_definition.rpartition("/")[2].startswith(f"{name}:")]

    def live(self) -> set[str]:
        return {name for name in (*self.runs, "foreign") if any(job.live for job in self.jobs(name))}

    def run(self, *arguments: str, **environment: str) -> Ran:
        return run(self.airflow, *arguments, **environment)

    def orphans(self, *arguments: str, **environment: str) -> Ran:
        where = ("--ecs-cluster", CLUSTER, "--emr-cluster", self.emr_cluster)
        return self.run("orphans", "--grace", "0", *where, *arguments, **environment)

    def explain(self, name: str, *arguments: str) -> Ran:
        return self.run("explain", NAMES[name], self.runs[name], "job", *arguments)

    def unpause(self, dag_id: str, *, paused: bool = False) -> None:
        self.airflow.request("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": paused})

    def sweep(self, dag_id: str, **params: Any) -> tuple[str, list[dict[str, Any]], str]:
        """Run the maintenance DAG: how its task ended, what it returned, and its log."""
        run_id = self.airflow.trigger(dag_id, conf=params)
        self.airflow.wait_until(
            lambda: self.airflow.task_instance(dag_id, run_id, "sweep").state in ("success", "failed"),
            what=f"{dag_id} has ended",
        )
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/sweep/xcomEntries/return_value"
        value = self.airflow.request("GET", path).get("value")
        log = self.airflow.task_log(dag_id, run_id, "sweep")
        state = self.airflow.task_instance(dag_id, run_id, "sweep").state
        if isinstance(value, str):
            value = json.loads(value) if airflow_version() >= (3, 0) else ast.literal_eval(value)
        return state, value, log

    def name_of(self, job: str) -> str:
        names = (*self.runs, "foreign")
        return next(
            name
            for name in names
            if job in {getattr(real, "arn", None) or real.id for real in self.jobs(name)}
        )

    def verdicts(self, findings: list[dict[str, Any]]) -> dict[str, str]:
        """Of the jobs of this story; other tests may have some, too."""
        ours = [row for row in findings if row["scope"].rpartition("/")[2] in (CLUSTER, self.emr_cluster)]
        return {self.name_of(row["job"]): row["verdict"] for row in ours}


@pytest.fixture(scope="module")
def airflow(make_airflow) -> Iterator[LocalAirflow]:
    """An Airflow whose new triggerer takes nothing over from the one that was killed.

    Otherwise, by the time that its start takes, it may run a trigger of a task instance that was marked
    meanwhile, notice, and cancel the job, which is no orphan then.
    """
    patient = {("triggerer", "triggerer_health_check_threshold"): int(6 * HANG)}
    with make_airflow(DAGS, config=patient) as running:
        yield running


@pytest.fixture(scope="module")
def story(aws, airflow) -> Story:  # noqa: PLR0915 - steps that follow each other
    """Make the orphans, list them, and end them."""
    story = Story(aws, airflow)
    aws.make_ecs_cluster(CLUSTER)
    story.emr_cluster = aws.make_emr_cluster(CLUSTER, concurrency=10)
    connection = {"connection_id": "this_airflow", "conn_type": "http", "host": airflow.url}
    airflow.request("POST", "/connections", connection, accept=(409,))
    for name in NAMES:
        story.start(name)
    aws.make_task_definition("foreign")
    aws.ecs.plan("foreign", seconds=None)
    for name in DEFERRED:
        story.until(name, "deferred")
    other = Claim(task_key("https://another-airflow", NAMES["live"], story.runs["live"], "job", -1), 1)
    story.foreign = str(other)
    access = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": aws.region}
    boto3.client("ecs", endpoint_url=aws.endpoint_url, **access).run_task(
        cluster=CLUSTER, taskDefinition="foreign", startedBy=str(other)
    )
    story.until("left", "success")
    story.until("left_step", "success")
    story.until("left_late", "failed")
    if not story.jobs("left_late"):  # a busy machine takes longer than that to load the DAG
        NAMES["left_late"] = "orphans_ecs_late_400"
        story.start("left_late")
        story.until("left_late", "failed")

    story.until("cleared", "deferred")
    aws.ecs.finish(story.jobs("cleared")[0].arn)
    story.until("cleared", "success")
    story.unpause("orphans_paused", paused=True)
    airflow.clear("orphans_paused", story.runs["cleared"], ["job"])

    seen = story.seen
    for name in ("live", "live_step"):  # while the triggerer lives that watches them
        seen[f"explain {name} json"] = story.explain(name, "--json")
    seen["explain live"] = story.explain("live")

    airflow.kill("triggerer", signal.SIGKILL)
    for name in ("marked", "marked_step", "reattached"):
        airflow.mark(NAMES[name], story.runs[name], "job", "failed")
    airflow.mark_run(NAMES["deleted"], story.runs["deleted"], "failed")
    airflow.request("DELETE", f"/dags/{NAMES['deleted']}/dagRuns/{quote(story.runs['deleted'], safe='')}")
    airflow.start("triggerer")

    seen["made"] = story.live()
    seen["young"] = story.run("orphans", "--json", "--ecs-cluster", CLUSTER)
    seen["everywhere"] = story.run("orphans", "--json", "--grace", "0")
    seen["dry"] = story.orphans("--json", "--all")
    seen["table"] = story.orphans()
    seen["after dry"] = story.live()
    for name in ("marked", "left", "left_step", "cleared"):
        seen[f"explain {name} json"] = story.explain(name, "--json")
    for name in ("marked", "cleared"):
        seen[f"explain {name}"] = story.explain(name)
    story.unpause("find_orphans")
    seen["found"] = story.sweep("find_orphans", grace=0)
    seen["after found"] = story.live()

    airflow.clear(NAMES["reattached"], story.runs["reattached"], ["job"])
    story.until("reattached", "deferred")
    seen["wet"] = story.orphans("--json", "--service", "ecs", "--cancel", "--wait", f"{HANG:.0f}")
    seen["after wet"] = story.live()
    seen["cancelled"] = story.sweep("sweep_one_cluster", emr=[story.emr_cluster], cancel=True)
    seen["after cancelled"] = story.live()
    seen["again"] = story.orphans("--cancel")
    yield story
    for name in (*story.runs, "foreign"):
        for job in story.jobs(name):
            if job.live:
                (aws.emr.finish if name.endswith("_step") else aws.ecs.finish)(
                    getattr(job, "arn", None) or job.id
                )


ALL = {*NAMES, "foreign"} - {"cleared"}
ORPHANS = {"deleted", "marked", "marked_step", "reattached"}  # the last one until it is cleared


def test_every_job_of_the_story_lives_before_the_first_sweep(story):
    logs = [
        story.airflow.task_log(NAMES[name], story.runs[name], "job")
        for name in ALL - story.seen["made"] - {"deleted", "foreign"}
    ]
    assert story.seen["made"] == ALL, "\n\n".join(logs)


def test_a_dry_run_tells_orphans_from_all_others_and_cancels_nothing(story):
    dry = story.seen["dry"]
    assert dry.code == 1, dry
    assert story.verdicts(dry.json["findings"]) == {
        "deleted": "deleted",
        "marked": "ended",
        "marked_step": "ended",
        "reattached": "ended",
        "live": "wanted",
        "live_step": "wanted",
        "left": "left_running",
        "left_step": "left_running",
        "left_late": "left_running",
    }
    assert (dry.json["foreign"], dry.json["errors"]) == (1, [])
    assert story.seen["after dry"] == ALL


def test_within_the_grace_period_nothing_is_an_orphan(story):
    young = story.seen["young"]
    assert young.code == 0, young
    assert {row["verdict"] for row in young.json["findings"]} == {"young", "wanted", "left_running"}


def test_every_cluster_is_found(story):
    everywhere = story.seen["everywhere"]
    clusters = {row["scope"].rpartition("/")[2] for row in everywhere.json["findings"]}
    assert {CLUSTER, story.emr_cluster} <= clusters, everywhere


def test_the_table_names_orphans_and_their_task_instances(story):
    table = story.seen["table"]
    assert table.code == 1, table
    assert re.search(
        rf"^ended .* orphans_ecs / {re.escape(story.runs['marked'])} / job +its task", table.out, re.MULTILINE
    )
    assert re.search(r"^deleted .* - +its task instance does not exist", table.out, re.MULTILINE)
    assert "This was a dry run: pass --cancel to cancel the orphans." in table.out
    assert "Claims of other namespaces: 1." in table.out
    assert story.jobs("live")[0].arn.rpartition("/")[2] not in table.out


def test_cancel_ends_the_orphans_and_spares_what_was_cleared_in_between(story):
    wet = story.seen["wet"]
    assert wet.code == 0, wet
    assert story.seen["after wet"] == ALL - {"deleted", "marked"}
    outcomes = {story.name_of(row["job"]): row["outcome"] for row in wet.json["findings"]}
    assert {name for name, outcome in outcomes.items() if outcome} == {"deleted", "marked"}
    assert "has ended: cancelled" in outcomes["marked"]
    assert story.verdicts(wet.json["findings"])["reattached"] == "wanted"


def test_a_stopped_task_says_whose_orphan_it_was(story):
    (job,) = story.jobs("marked")
    assert job.reason == f"airflow_resilient: orphan of orphans_ecs / {story.runs['marked']} / job: ended"
    (job,) = story.jobs("deleted")
    assert job.reason == "airflow_resilient: orphan of a deleted task instance: deleted"


def test_the_maintenance_dag_fails_when_orphans_are_found_and_returns_them_all_the_same(story):
    state, rows, log = story.seen["found"]
    assert state == "failed", log
    assert {
        name for name, verdict in story.verdicts(rows).items() if verdict in ("ended", "deleted")
    } == ORPHANS
    assert "orphans are left" in log
    assert story.seen["after found"] == ALL


def test_the_maintenance_dag_cancels_where_it_is_asked_to(story):
    state, rows, log = story.seen["cancelled"]
    assert state == "success", log
    assert "has ended" in next(row["outcome"] for row in rows if story.name_of(row["job"]) == "marked_step")
    assert story.seen["after cancelled"] == ALL - {"deleted", "marked", "marked_step"}


def test_the_next_sweep_has_nothing_to_do(story):
    again = story.seen["again"]
    assert again.code == 0, again
    assert "3 left_running" in again.out


def test_who_is_wanted_is_still_watched(story):
    for name in ("live", "live_step", "reattached"):
        assert story.task(name).state == "deferred"


def test_explain_a_deferred_task_instance(story):
    ran = story.seen["explain live"]
    assert ran.code == 0, ran
    found = story.seen["explain live json"].json
    (job,) = found["jobs"]
    assert (job["job"], job["phase"], job["is"]) == (story.jobs("live")[0].arn, "running", "mine")
    assert found["claims"] == [job["claim"]]
    assert (found["action"], found["held_by"][:24]) == ("watch", "try 1, deferred: trigger")
    assert f"wait for {job['job'].rpartition('/')[2]}" in ran.out
    assert "Wait: no action is needed." in ran.out
    assert f"aws ecs stop-task --cluster {CLUSTER} --task {job['job'].rpartition('/')[2]}" in ran.out


def test_explain_a_step(story):
    found = story.seen["explain live_step json"].json
    (job,) = found["jobs"]
    assert (job["job"], job["scope"], job["is"]) == (
        story.jobs("live_step")[0].id,
        story.emr_cluster,
        "mine",
    )
    assert found["action"] == "watch"


def test_explain_a_job_that_is_an_orphan_soon(story):
    ran = story.seen["explain marked"]
    assert ran.code == 0, ran
    assert (
        "Its job is still alive. Run this command again in a few minutes, or end the job by hand:" in ran.out
    )
    found = story.seen["explain marked json"].json
    assert [(job["is"], job["orphan"]) for job in found["jobs"]] == [("young", False)]
    assert found["action"] == "cancel"
    assert f"If it were cleared, try {story.task('marked').try_number + 1} would:" in ran.out


def test_explain_a_job_that_was_left(story):
    for name in ("left", "left_step"):
        found = story.seen[f"explain {name} json"].json
        assert [job["is"] for job in found["jobs"]] == ["left_running"]
        assert "The job was left running on purpose. To end it anyway:" in found["advice"]


def test_explain_a_cleared_task_instance(story):
    ran = story.seen["explain cleared"]
    assert ran.code == 0, ran
    found = story.seen["explain cleared json"].json
    assert found["task_instance"]["state"] is None
    tries = found["task_instance"]["try_number"]  # two, if the scheduler has failed the first one by itself
    assert (found["cleared_after_try"], len(found["claims"])) == (tries, tries + 1)
    assert {job["is"] for job in found["jobs"]} == {"history"}
    assert found["action"] == "submit"
    assert f"submit a job under {found['claims'][-1]}" in ran.out


# What is another one in each run: ids, claims, moments, and lengths of time.
VARIABLE = (
    r"\b[0-9a-f]{32}\b",
    r"\b[js]-[0-9A-Z]{13}\b",
    r"\baf-[a-z2-7]{16}\b",
    r"(?<!\d)\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+\+00:00|Z)",
    r"\b\d+ (?:s|min|h)(?: \d+ (?:s|min))?\b",
    r"http://127\.0\.0\.1:\d+",
    r"trigger \d+ in the triggerer on \S+",
    r" +",
)


def without_what_varies(text):
    for number, kind in enumerate(VARIABLE):
        text = re.sub(kind, f"<{number}>", text)
    return {line for line in text.splitlines() if line}


@pytest.mark.skipif(airflow_version() < (3, 3), reason="the pages show what is printed on Airflow 3.3")
def test_the_pages_show_what_is_printed(story):
    printed = without_what_varies(
        "\n".join(story.seen[name].out for name in ("table", "explain live", "explain marked"))
    )
    shown = [
        block
        for page in (RECIPE.with_suffix(".md"), DOCS / "operating.md")
        for block in re.findall(r"```(?:text|console)\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    assert len(shown) >= 3
    lines = without_what_varies("\n".join(shown))
    missing = {line for line in lines - printed if not line.startswith("$<")}
    assert missing == set(), printed


def test_no_output_shows_what_was_handed_to_a_job(story):
    outputs = [str(seen) for seen in story.seen.values()]
    assert not [output for output in outputs if "s3cr3t" in output]


@pytest.mark.skipif(airflow_version() < (3, 0), reason="Airflow 2 gives no tokens")
def test_a_token_from_the_environment_is_used_and_never_shown(story):
    token = _token(story)
    good = story.orphans("--json", AIRFLOW_API_TOKEN=token)
    bad = story.orphans("--json", AIRFLOW_API_TOKEN="not-a-token-at-all")
    assert good.code == 0, good
    assert bad.code == 2
    assert "401" in str(bad) or "403" in str(bad)
    assert "not-a-token-at-all" not in str(bad)
    assert token not in str(good)


def _token(story) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{story.airflow.url}/auth/token", timeout=HANG) as answer:
        return json.load(answer)["access_token"]


def test_an_airflow_that_does_not_answer_is_no_reason_to_cancel(story):
    nowhere = story.orphans(
        "--cancel", "--airflow-url", "http://127.0.0.1:9", "--namespace", story.airflow.url
    )
    assert nowhere.code == 2
    assert "127.0.0.1:9 does not respond" in str(nowhere)


def test_a_task_instance_that_does_not_exist_is_reported(story):
    ran = story.run("explain", "orphans_ecs", "no-such-run", "job")
    assert ran.code == 2
    assert "has no task instance orphans_ecs / no-such-run / job" in ran.err


def test_it_is_a_console_script(story):
    script = os.path.join(os.path.dirname(sys.executable), "airflow-resilient")  # noqa: PTH118, PTH120
    if not os.path.exists(script):  # noqa: PTH110
        pytest.skip("the package is not installed here, only on the path")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=HANG, check=True)
    assert done.stdout.startswith("airflow-resilient ")
