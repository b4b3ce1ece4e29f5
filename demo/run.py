"""The demo: a real Airflow and a fake AWS on this machine, the same DAGs with two imports.

1. Airflow's components and the fake AWS start, on loopback, in a directory of their own.
2. DAGs whose EMR steps need each other's output run through a pool of two slots, with the amazon provider's
   operators and a poking sensor: they stand still.  Then the import is changed and the same DAGs run again.
3. Meanwhile a worker is killed right after it has submitted an ECS task, another task right after it has
   added an EMR step, and the triggerer while task instances are deferred.
4. A table, a picture and the figures show what happened; the exit code is 1 if a promise did not hold.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import airflow_resilient
from airflow_resilient.testing import FakeAws
from airflow_resilient.testing.airflow.local_airflow import HANG, LocalAirflow, LocalAirflowError
from demo.picture import Panel, draw
from demo.report import Kill, Report, Run, write_docs, write_results
from demo.slots import Sampler, spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_resilient.testing.airflow.local_airflow import TaskInstance

HERE = Path(__file__).parent
PIPELINES = HERE / "dags" / "pipelines.py"
POOL, SLOTS = "two_slots", 2
FIRST, SECOND = ("orders", "stock"), ("rates", "report", "invoices")
IMPORT = "from airflow_resilient import EcsRunTaskOperator, EmrAddStepsOperator, EmrStepSensor\n"
ECS_TASKS = ("invoice_north", "invoice_south")
STEPS = ("load_orders", "load_stock", "publish_rates", "check_rates", "build_report")
_BETWEEN_MARKERS = re.compile(r"(?<=# START operators\n).*?(?=\n# END operators\n)", re.DOTALL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    :return: 0 when all promises held, 1 otherwise.
    """
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--keep", action="store_true", help="keep Airflow running until Ctrl-C, to see its UI"
    )
    parser.add_argument(
        "--out", type=Path, help="where picture, table and results.json go (default: a new directory)"
    )
    parser.add_argument("--update-docs", action="store_true", help="write picture and table into docs/, too")
    parser.add_argument("--watch", type=float, default=25, help="seconds to watch the first run stand still")
    options = parser.parse_args(arguments)
    # A terminated demo stops what it started, like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out = options.out or Path(tempfile.mkdtemp(prefix="airflow-resilient-demo-"))
    out.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            return _run(stack, options, out)
    except LocalAirflowError as error:
        print(f"\nThe demo broke off: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe demo was interrupted.", file=sys.stderr)
        return 130


def _run(stack: ExitStack, options: argparse.Namespace, out: Path) -> int:
    demo = Demo(stack)
    report = demo.run(options.watch)
    picture = out / "slots.png"
    draw([_panel(report.before), _panel(report.after)], SLOTS, picture)
    write_results(report, out)
    demo.save_logs(report.after, out / "logs")
    print(report.text())
    print(f"Picture, table, figures and logs: {out}")
    if options.update_docs:
        written = write_docs(report, picture, HERE.parent / "docs")
        print(f"Written for the documentation: {', '.join(map(str, written))}")
    if options.keep:
        demo.keep()
    return 0 if report.held else 1


def source_with_changed_import() -> tuple[str, str]:
    """Give the DAG file as the provider's users have it, and with the import changed."""
    before = PIPELINES.read_text()
    return before, _BETWEEN_MARKERS.sub(IMPORT, before)


class Demo:
    """The fake AWS, Airflow, and the two runs on them.

    :param stack: what is started is closed with it.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._began = time.monotonic()
        self._old_ecs_tasks: set[str] = set()  # those of the first run
        self.aws = stack.enter_context(FakeAws().serve())
        self.say(f"the fake AWS answers on {self.aws.endpoint_url}")
        self._dags = Path(tempfile.mkdtemp(prefix="airflow-resilient-dags-"))
        stack.callback(shutil.rmtree, self._dags, ignore_errors=True)
        self.source_before, self.source_after = source_with_changed_import()
        self._dag_file.write_text(self.source_before)
        # Found by Airflow's processes also when the library is a checkout that is not installed.
        package = str(Path(airflow_resilient.__file__).parent.parent)
        python_path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self.airflow = stack.enter_context(
            LocalAirflow(
                self._dags,
                connections={"aws_default": self.aws.airflow_connection()},
                pools={POOL: SLOTS},
                environment={"PYTHONPATH": python_path},
                progress=self.say,
            )
        )
        self.aws.make_ecs_cluster("demo")
        for name in ECS_TASKS:
            self.aws.make_task_definition(name)
            self.aws.ecs.plan(name, seconds=15)
        self.aws.emr.plan("load_", seconds=3, needs=["publish_rates"])
        self.aws.emr.plan("publish_rates", seconds=20)
        self.aws.emr.plan("check_rates", seconds=6, needs=["load_orders", "load_stock"])
        self.aws.emr.plan("build_report", seconds=6, needs=["load_orders", "load_stock"])

    @property
    def _dag_file(self) -> Path:
        return self._dags / "pipelines.py"

    def say(self, text: str) -> None:
        """Print a line of progress."""
        print(f"[{time.monotonic() - self._began:5.1f} s] {text}", flush=True)

    def run(self, watch: float) -> Report:
        """Make both runs.

        :param watch: seconds to watch the provider's run.
        """
        before = self.run_with_provider(watch)
        self.change_import()
        after, kills = self.run_with_resilient()
        return Report(before, after, kills, seconds=time.monotonic() - self._began, watched=watch)

    def save_logs(self, run: Run, folder: Path) -> None:
        """Keep what the tries of a run and Airflow's components have logged."""
        folder.mkdir(exist_ok=True)
        for i in run.instances:
            for number in range(1, i.try_number + 1):
                log = self.airflow.task_log(i.dag_id, i.run_id, i.task_id, number, i.map_index)
                (folder / f"{i.dag_id}.{i.task_id}.{number}.log").write_text(log + "\n")
        for component in self.airflow.components:
            (folder / f"{component}.log").write_text(self.airflow.log(component, 100_000) + "\n")

    def keep(self) -> None:
        """Wait for Ctrl-C."""
        self.say(f"Airflow is still up: {self.airflow.url} (no password); Ctrl-C stops it")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()

    # ----- the two runs

    def run_with_provider(self, watch: float) -> Run:
        """Let the DAGs wait for a while, then stop them."""
        self.say(f"--- the amazon provider's operators, a pool of {SLOTS} slots")
        cluster = self.aws.make_emr_cluster("demo", concurrency=10)
        with Sampler(self.airflow, POOL, ["provider"]) as sampler:
            self._trigger("provider", FIRST)
            self.airflow.wait_until(
                lambda: all(self._state("provider", d, f"wait_for_load_{d}") == "running" for d in FIRST),
                what="both sensors poke, each in a slot",
            )
            self.say("both slots are held by sensors that wait for the steps of orders and stock")
            self._trigger("provider", SECOND)
            wanting = [("rates", "publish_rates"), ("report", "build_report"), ("invoices", "invoice_north")]
            self.airflow.wait_until(
                lambda: all(self._state("provider", *task) == "scheduled" for task in wanting),
                what="the other DAGs want a slot",
            )
            self.say(f"publish_rates, which they wait for, gets no slot; watching that for {watch:.0f} s")
            since = time.time()
            self.airflow.wait_until(
                lambda: time.time() > since + watch, watch + HANG, "the provider's run was watched", every=0.5
            )
        run = self._gather("With the amazon provider's operators", "provider", sampler, cluster, since)
        self.say(
            f"in use all the time: {run.least_held} of {SLOTS} slots; finished: {run.finished} task instances"
        )
        for dag in (*SECOND, *FIRST):  # those that hold no slot first, or they would get one now
            self.airflow.mark_run(dag, "provider", "failed")
        self.aws.emr.end_cluster(cluster, "USER_REQUEST")
        self.airflow.wait_until(
            lambda: self.airflow.pool_slots(POOL).open == SLOTS,
            what="the sensors have given their slots back",
        )
        return run

    def change_import(self) -> None:
        """Change the import in the DAG file, show how, and wait until Airflow has read it."""
        self.say("--- the import is changed, nothing else:")
        difference = difflib.unified_diff(
            self.source_before.splitlines(),
            self.source_after.splitlines(),
            "pipelines.py",
            "pipelines.py",
            n=0,
        )
        print("\n".join(f"          {line}" for line in list(difference)[2:]))
        self._dag_file.write_text(self.source_after)
        for dag in (*FIRST, *SECOND):
            self.airflow.wait_for_dag(dag, holds=lambda source: source == self.source_after)

    def run_with_resilient(self) -> tuple[Run, list[Kill]]:
        """Let the same DAGs finish, although workers and the triggerer are killed."""
        self.say(f"--- airflow_resilient's operators, the same pool of {SLOTS} slots")
        cluster = self.aws.make_emr_cluster("demo", concurrency=10)
        self._old_ecs_tasks = {task.arn for task in self.aws.ecs.tasks("demo")}
        everything = (*FIRST, *SECOND)
        kills = []
        started = time.monotonic()
        with Sampler(self.airflow, POOL, ["resilient"]) as sampler:
            self._trigger("resilient", FIRST)
            self.airflow.wait_until(
                lambda: all(self._state("resilient", d, f"wait_for_load_{d}") == "deferred" for d in FIRST),
                what="both sensors are deferred",
                tell=lambda: self._describe("resilient"),
            )
            self.say("both sensors wait without a slot")
            killers = [
                Killer(
                    self, "invoices", "invoice_north", lambda: bool(self._ecs_tasks("invoice_north")), True
                ),
                Killer(
                    self, "rates", "publish_rates", lambda: bool(self._steps("publish_rates", cluster)), False
                ),
            ]
            self._trigger("resilient", SECOND)
            for killer in killers:
                killer.start()
            kills += [killer.join() for killer in killers]
            self.airflow.wait_until(
                lambda: self._state("resilient", "invoices", "invoice_south") == "deferred",
                what="invoice_south is deferred",
                tell=lambda: self._describe("resilient"),
            )
            deferred = self.airflow.task_instances(states=["deferred"])
            names = tuple(f"{i.dag_id}.{i.task_id}" for i in deferred)
            kills.append(Kill("triggerer killed", time.time(), names))
            self.airflow.restart("triggerer", signal.SIGKILL)
            self.say(
                f"the triggerer is back; it was killed while {len(deferred)} task instances were deferred"
            )
            for dag in everything:
                state = self.airflow.wait_for(dag, "resilient")
                self.say(f"DAG {dag}: {state}")
        run = self._gather("With airflow_resilient's operators", "resilient", sampler, cluster, 0)
        self.say(f"all five DAGs have ended after {time.monotonic() - started:.0f} s")
        return run, sorted(kills, key=lambda kill: kill.at)

    # ----- observations

    def _trigger(self, run_id: str, dags: Sequence[str]) -> None:
        for dag in dags:
            self.airflow.trigger(dag, run_id)
        self.say(f"triggered {', '.join(dags)}")

    def _state(self, run_id: str, dag: str, task: str) -> str | None:
        return self.airflow.task_instance(dag, run_id, task).state

    def _describe(self, run_id: str) -> str:
        found = self.airflow.task_instances(None, run_id)
        return "\n".join(f"  {i.dag_id}.{i.task_id}: {i.state}, try {i.try_number}" for i in found)

    def _steps(self, name: str, cluster: str) -> list[str]:
        return [step.id for step in self.aws.emr.steps(cluster) if name in step.name]

    def _ecs_tasks(self, family: str) -> list[str]:
        tasks = self.aws.ecs.tasks("demo")
        return [t.arn for t in tasks if family in t.task_definition and t.arn not in self._old_ecs_tasks]

    def _gather(self, title: str, run_id: str, sampler: Sampler, cluster: str, since: float) -> Run:
        """Gather the result of a run, from Airflow, the fake AWS and the samples.

        :param since: the samples after that moment show whether it stood still.
        """
        found = [i for dag in (*FIRST, *SECOND) for i in self.airflow.task_instances(dag, run_id)]
        failed_by_airflow = Counter(
            f"{line['dag_id']}.{line['task_id']}"
            for line in self.airflow.events("state mismatch", run_id=run_id)
        )
        jobs = {name: self._steps(name, cluster) for name in STEPS}
        jobs |= {name: self._ecs_tasks(name) for name in ECS_TASKS}
        live = [s.name for s in self.aws.emr.steps(cluster) if s.live]
        live += [t.task_definition for t in self.aws.ecs.tasks("demo") if t.live]
        return Run(
            title=title,
            instances=tuple(sorted(found, key=_by_story)),
            jobs={f"{i.dag_id}.{i.task_id}": tuple(jobs.get(i.task_id, ())) for i in found},
            live=tuple(live),
            spans=tuple(spans(sampler.samples)),
            samples=tuple(sampler.samples),
            since=since,
            failed_by_airflow=failed_by_airflow,
        )


class Killer:
    """Kills what executes a task instance, as soon as AWS has taken its job and before it defers.

    :param submitted: says whether AWS has taken the job.
    :param worker: the worker's process too, so that Airflow learns of it by the missing heartbeat only.
    """

    def __init__(self, demo: Demo, dag: str, task: str, submitted: Callable[[], bool], worker: bool) -> None:
        self._demo, self._submitted, self._worker = demo, submitted, worker
        self._name = f"{dag}.{task}"
        self._key = (dag, task)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._kill: Kill | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        """Watch for the process, in a thread."""
        self._thread.start()

    def join(self) -> Kill:
        """Wait until it is done."""
        self._thread.join(2 * HANG)  # its own waits are over before
        if self._error:
            raise self._error
        if self._kill is None:
            raise LocalAirflowError(f"{self._name} submitted nothing, so it was not killed")
        return self._kill

    def _run(self) -> None:
        airflow = self._demo.airflow
        try:
            dag, task = self._key
            instance = airflow.task_instance(dag, "resilient", task)
            hit = airflow.kill_task_when(instance, self._submitted, worker=self._worker)
            what = "worker and task killed" if self._worker else "task process killed"
            self._kill = Kill(f"{what} after submit", time.time(), (self._name,), fatal=True)
            pids = ", ".join(map(str, hit))
            self._demo.say(f"{self._name}: SIGKILL right after its submit (process {pids})")
        except BaseException as error:  # noqa: BLE001 - raised again by join()
            self._error = error


def _by_story(instance: TaskInstance) -> tuple[int, str]:
    number = (*FIRST, *SECOND).index(instance.dag_id)
    return number, instance.raw.get("start_date") or "9", instance.task_id  # type: ignore[return-value]


def _panel(run: Run) -> Panel:
    zero = run.samples[0].at
    events = {at - zero: text for at, text in run.events.items()}
    return Panel(run.title, run.spans, events)


if __name__ == "__main__":
    sys.exit(main())
