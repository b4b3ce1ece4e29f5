"""A real Airflow that is broken on purpose, one fault after the other, and what a look from outside says.

Per fault: the findings that are wanted, and no others; after the next step was done, none. Limits are seconds
here instead of minutes.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from command_line import run

from airflow_resilient.compat import airflow_version
from airflow_resilient.operations.airflow_api import AirflowApi
from airflow_resilient.operations.check import format_findings
from airflow_resilient.operations.examine import examine
from airflow_resilient.operations.limits import Limits
from airflow_resilient.operations.snapshot import look
from airflow_resilient.testing.airflow.local_airflow import HANG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_resilient.operations.health import Finding
    from airflow_resilient.operations.snapshot import Component
    from airflow_resilient.testing.airflow.local_airflow import LocalAirflow

ON_3 = airflow_version() >= (3, 0)
LIMITS = Limits(
    heartbeat=20.0, scheduling=20.0, overdue=20.0, waiting=10.0, triggerer=20.0, parsed=600.0, clock=30.0
)
DAGS = Path(__file__).parent.parent / "dags_watched"
DOCS = Path(__file__).parents[3] / "docs"
RECIPE = DOCS / "recipes" / "is-airflow-well.py"


def name_of(finding: Finding) -> str:
    """Kind and subject; for what waits, its cause; nothing more where the subject is a path or a URL."""
    kind = finding.kind.value
    if kind == "waiting":
        return f"{kind}/{finding.key.split('/')[1]}"
    return kind if kind in ("import-error", "api-silent") else f"{kind}/{finding.subject}"


@dataclass
class Watched:
    """An Airflow, and what looks at it have found."""

    airflow: LocalAirflow
    dags: Path
    gates: Path
    memory: Path
    runs: dict[str, str] = field(default_factory=dict)
    last: Any = None
    slowest: float = 0.0
    most_requests: int = 0

    def look(self) -> dict[str, Finding]:
        """Findings by their names, see `name_of`."""
        with contextlib.closing(AirflowApi(self.airflow.url, timeout=20.0, attempts=1)) as api:
            examined = examine(api, LIMITS, self.memory)
        self.last = snapshot = examined.snapshot
        if not snapshot.silent:
            self.slowest = max(self.slowest, snapshot.seconds)
            self.most_requests = max(self.most_requests, snapshot.requests)
        return {name_of(each): each for each in examined.findings}

    def overall(self) -> tuple[Component, ...]:
        with contextlib.closing(AirflowApi(self.airflow.url)) as api:
            return look(api).overall or ()

    def until(self, wanted: set[str], looks: int = 1) -> tuple[dict[str, Finding], dict[str, str], float]:
        """Look until the findings are these: them, what was seen of others meanwhile, and the seconds.

        :param looks: so many times in a row.
        """
        began, others, seen, same, since = time.monotonic(), dict[str, str](), {}, 0, 0.0
        while time.monotonic() - began < HANG:
            seen = self.look()
            same = same + 1 if set(seen) == wanted else 0
            since = time.monotonic() - began if same == 1 else since
            if same == looks:
                return seen, others, since
            others |= {name: each.evidence for name, each in seen.items() if name not in wanted}
            time.sleep(0.5)
        raise AssertionError(f"wanted {wanted}, found {seen}")

    def trigger(self, dag_id: str) -> str:
        self.runs[dag_id] = self.airflow.trigger(dag_id)
        return self.runs[dag_id]

    def state(self, dag_id: str, task_id: str) -> str | None:
        return self.airflow.task_instance(dag_id, self.runs[dag_id], task_id).state

    def until_state(self, dag_id: str, task_id: str, *states: str | None) -> None:
        self.airflow.wait_until(
            lambda: self.state(dag_id, task_id) in states, what=f"{dag_id}.{task_id} is {states}"
        )

    def open(self, gate: str) -> None:
        (self.gates / gate).touch()

    def do(self, step: str) -> None:
        """Paste a next step into a shell."""
        ran = subprocess.run(
            ["bash", "-c", step],
            env=self.airflow.environment,
            cwd=self.airflow.home,
            capture_output=True,
            text=True,
            timeout=HANG,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def watched(make_airflow, tmp_path_factory) -> Iterator[Watched]:
    dags, gates = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("gates")
    for path in (*DAGS.glob("*.py"), RECIPE):
        (dags / path.name).write_text(path.read_text())
    airflow = make_airflow(dags, environment={"WATCHED_GATES": str(gates)})
    with airflow as running:
        made = Watched(running, dags, gates, tmp_path_factory.mktemp("memory") / "memory")
        running.wait_for_dag("deferred")
        running.wait_for("positions", made.trigger("positions"), until=["success"])
        made.until(set())
        yield made


def stop(component: str) -> Callable[[Watched], None]:
    def act(watched: Watched) -> None:
        watched.airflow.kill(component, signal.SIGSTOP)

    return act


def go_on(component: str) -> Callable[[Watched, dict[str, Finding]], None]:
    """Let it go on, and wait for a heartbeat of the time since: Airflow shows each one five seconds late."""

    def act(watched: Watched, findings: dict[str, Finding]) -> None:
        began = time.time()
        watched.airflow.kill(component, signal.SIGCONT)
        kind = component.replace("-", "_")
        watched.airflow.wait_until(
            lambda: any(each.kind == kind and each.heartbeat > began for each in watched.overall()),
            what=f"{component} beats again",
        )

    return act


def without_pool(watched: Watched) -> None:
    watched.trigger("without_pool")
    watched.until_state("without_pool", "work", "scheduled")


def in_a_full_pool(watched: Watched) -> None:
    watched.trigger("in_a_full_pool")
    watched.until_state("in_a_full_pool", "first", "running")


def pause(watched: Watched) -> None:
    watched.trigger("paused_in_the_middle")
    watched.until_state("paused_in_the_middle", "first", "running")
    path = "/dags/paused_in_the_middle?update_mask=is_paused"
    watched.airflow.request("PATCH", path, {"is_paused": True})
    watched.open("paused")
    watched.until_state("paused_in_the_middle", "first", "success")


def deferred_and_no_triggerer(watched: Watched) -> None:
    watched.trigger("deferred")
    watched.until_state("deferred", "wait", "deferred")
    stop("triggerer")(watched)


def not_scheduling(watched: Watched) -> None:
    """It beats, and makes nothing: [scheduler] use_job_schedule."""
    watched.open("every_minute")
    watched.airflow.stop("scheduler")
    watched.airflow.start("scheduler", config={("scheduler", "use_job_schedule"): False})


def schedule_again(watched: Watched, findings: dict[str, Finding]) -> None:
    watched.airflow.restart("scheduler")


def broken_file(watched: Watched) -> None:
    (watched.dags / "broken.py").write_text("from airflow.nowhere import DAG\n")


def mended_file(watched: Watched, findings: dict[str, Finding]) -> None:
    (watched.dags / "broken.py").unlink()


def needed_soon(watched: Watched) -> None:
    """Due each minute, failing, and needed by the next minute that leaves time for that."""
    by = datetime.now(timezone.utc) + timedelta(seconds=90)
    (watched.dags / "needed.py").write_text(
        "from datetime import datetime, timezone\n"
        "from airflow.providers.common.compat.sdk import DAG, BaseOperator\n"
        "from airflow_resilient import need_by\n"
        "class Fails(BaseOperator):\n"
        "    def execute(self, context):\n"
        "        raise ValueError('no')\n"
        f"with DAG('needed', schedule='* * * * *', start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), "
        f"catchup=False, tags=[need_by('{by:%H:%M}')]):\n"
        "    Fails(task_id='work')\n"
    )


def no_longer_needed(watched: Watched, findings: dict[str, Finding]) -> None:
    """Pause it, and end what is unfinished, which would stand still."""
    watched.airflow.request("PATCH", "/dags/needed?update_mask=is_paused", {"is_paused": True})
    for each in watched.airflow.request("GET", "/dags/needed/dagRuns?limit=100")["dag_runs"]:
        if each["state"] in ("queued", "running"):
            watched.airflow.mark_run("needed", each["dag_run_id"], "failed")


def silent(watched: Watched) -> None:
    watched.airflow.kill(watched.airflow.components[0])


def answer_again(watched: Watched, findings: dict[str, Finding]) -> None:
    watched.airflow.start(watched.airflow.components[0])


def paste(kind: str) -> Callable[[Watched, dict[str, Finding]], None]:
    """Do what the finding says."""

    def act(watched: Watched, findings: dict[str, Finding]) -> None:
        watched.do(findings[kind].next_step)

    return act


def make_room(watched: Watched, findings: dict[str, Finding]) -> None:
    watched.open("full")


def let_go(watched: Watched, findings: dict[str, Finding]) -> None:
    go_on("triggerer")(watched, findings)
    watched.airflow.mark_run("deferred", watched.runs["deferred"], "failed")


@dataclass(frozen=True)
class Fault:
    """One thing that is broken.

    :param wanted: the finding, see `Watched.look`.
    :param severity: of it.
    :param mend: given the findings.
    :param on_2: it exists on Airflow 2.
    :param lasts: seconds for which every further look must find it, too.
    """

    id: str
    do: Callable[[Watched], None]
    wanted: str
    severity: str
    mend: Callable[[Watched, dict[str, Any]], None]
    on_2: bool = True
    lasts: float = 0.0


FAULTS = (
    Fault("no-pool", without_pool, "waiting/pool-missing", "page", paste("waiting/pool-missing")),
    Fault("full-pool", in_a_full_pool, "waiting/pool-full", "page", make_room),
    Fault("paused", pause, "waiting/dag-paused", "ticket", paste("waiting/dag-paused")),
    Fault("scheduler-stopped", stop("scheduler"), "heartbeat-lost/scheduler", "page", go_on("scheduler")),
    # The DAG processor moves the next run on each minute, as if something were scheduled.
    Fault("not-scheduling", not_scheduling, "not-scheduling/scheduler", "page", schedule_again, lasts=75.0),
    Fault("triggerer-stopped", deferred_and_no_triggerer, "heartbeat-lost/triggerer", "page", let_go),
    Fault(
        "dag-processor-stopped",
        stop("dag-processor"),
        "heartbeat-lost/DAG processor",
        "page",
        go_on("dag-processor"),
        on_2=False,
    ),
    Fault("broken-file", broken_file, "import-error", "ticket", mended_file),
    Fault("needed", needed_soon, "need-by-missed/needed", "page", no_longer_needed),
    Fault("silent", silent, "api-silent", "page", answer_again),
)


@pytest.fixture(scope="module")
def story(watched) -> dict[str, Any]:
    """Break and mend, one after the other; the tests only read what was found."""
    story: dict[str, Any] = {"before": {}, "shown": []}
    for _ in range(20):
        story["before"] |= watched.look()
    story["needs"] = next(dag.needs for dag in watched.last.dags if dag.dag_id == "positions")
    memory = ["--memory", str(watched.memory)]
    story["command"] = run(watched.airflow, "check", "--airflow-url", watched.airflow.url, *memory)
    for fault in FAULTS:
        if ON_3 or fault.on_2:
            fault.do(watched)
            findings, others, seconds = watched.until({fault.wanted})
            story["shown"] += format_findings(watched.last, list(findings.values()), time.time())
            print(f"{fault.id}: seen after {seconds:.0f} s; meanwhile {others or 'nothing else'}")
            began, looks = time.monotonic(), []
            while time.monotonic() - began < fault.lasts:
                looks.append(watched.look())
                time.sleep(1.0)
            story["missed", fault.id] = [look for look in looks if set(look) != {fault.wanted}]
            if fault.id == "silent":
                while findings[fault.wanted].severity.value != fault.severity:
                    findings = watched.until({fault.wanted})[0]
            fault.mend(watched, findings)
            _, after, recovered = watched.until(set(), looks=6)
            print("\n".join(story["shown"][-7:]))
            print(f"{fault.id}: recovered after {recovered:.0f} s; meanwhile {after or 'nothing else'}")
            after.pop(fault.wanted, None)
            others.pop("api-silent", None)
            story[fault.id] = (findings[fault.wanted], others, after)
    return story


def test_a_healthy_airflow_has_no_findings_and_a_run_that_lasts_longer_than_its_interval_is_none(story):
    assert story["before"] == {}


def test_what_the_dag_of_the_recipe_needs_is_read_from_its_tags(story):
    needs = story["needs"]
    assert [str(need) for need in needs.by] == ["07:00 America/New_York"]
    assert (needs.start_within, needs.wait_at_most, needs.wrong) == (600.0, 1200.0, ())


def test_the_command_says_that_all_is_well(story):
    ran = story["command"]
    assert ran.code == 0, str(ran)
    assert "all is well" in ran.out


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_is_found_with_its_cause_and_nothing_else_is(story, fault):
    if not ON_3 and not fault.on_2:
        pytest.skip("Airflow 2 has no such process of its own")
    finding, others, after = story[fault.id]
    assert story["missed", fault.id] == []
    assert finding.severity.value == fault.severity
    assert others == {}
    assert after == {}
    assert re.search(r"\w", finding.cause)


def test_a_look_is_bounded(story, watched):
    more = "and a login, the list of paused DAGs, and two lists of runs that have started"
    assert watched.most_requests <= 12 + 4, more


@pytest.mark.skipif(airflow_version() < (3, 3), reason="the page shows what is printed on Airflow 3.3")
def test_the_page_shows_what_is_printed(story):
    def plain(line: str) -> str:
        line = re.sub(r"https?://[\w.:]+", "URL", line)
        return re.sub(r"\d+", "0", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", line)).strip()

    page = (DOCS / "recipes" / "is-airflow-well.md").read_text()
    printed = {plain(line) for line in (*story["command"].out.splitlines(), *story["shown"])}
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    for line in filter(None, "".join(blocks).splitlines()):
        assert plain(line) in printed
