"""Airflow itself on many machines: Celery workers, two triggerers, and the loss of one of each."""

from __future__ import annotations

import importlib.util
import re
import shutil
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import servers

from airflow_resilient.compat import airflow_version
from airflow_resilient.core.job import task_key
from airflow_resilient.testing.airflow.local_airflow import LocalAirflow, LocalAirflowError, PoolSlots

HERE = Path(__file__).parent
RECIPE = HERE.parents[1] / "docs" / "recipes" / "when-one-machine-is-not-enough.py"
NIGHT = "when_one_machine_is_not_enough"
NAMESPACE = "distributed"
AT_A_TIME = 4  # slots of the pool that counts deferred task instances
CAPACITY = 7  # triggers that one triggerer takes
HEARTBEAT_TIMEOUT = 25  # seconds without a heartbeat until Airflow gives a task up
REDELIVERY = 17  # seconds until Redis gives the message of a dead worker to another one: before that
WORKERS = ("worker-1", "worker-2")

MISSING = [
    what
    for what, found in {
        "PostgreSQL (Debian: postgresql)": servers.postgresql_programs(),
        "Redis (Debian: redis-server)": servers.redis_program(),
        "the provider apache-airflow-providers-celery": importlib.util.find_spec("celery"),
    }.items()
    if not found
]
pytestmark = [
    pytest.mark.skipif(
        bool(MISSING) and not servers.required(),
        reason=f"a distributed Airflow needs {' and '.join(MISSING)}, not installed here",
    ),
    pytest.mark.skipif(airflow_version() < (3, 3), reason="it reads the logs and the API of Airflow 3.3"),
]


def worker(name):
    return f"celery worker --celery-hostname {name}@localhost --concurrency 2 --skip-serve-logs".split()


@pytest.fixture
def distributed(aws, python_path, tmp_path):
    """CeleryExecutor on Redis and PostgreSQL, two workers, two triggerers; the recipe's DAG and pools."""
    dags = tmp_path / "dags"
    dags.mkdir()
    aws.make_task_definition("export")
    shutil.copy(RECIPE, dags)
    shutil.copy(HERE / "dags_distributed" / "single_jobs.py", dags)
    config = {
        ("airflow_resilient", "namespace"): NAMESPACE,
        ("celery_broker_transport_options", "visibility_timeout"): REDELIVERY,
        ("celery_broker_transport_options", "unacked_restore_interval"): 1,
        ("celery_broker_transport_options", "unacked_restore_throttle"): 1,
        ("scheduler", "task_instance_heartbeat_timeout"): HEARTBEAT_TIMEOUT,
        ("triggerer", "capacity"): CAPACITY,
        ("workers", "missing_dag_retry_delay"): 10,
    }
    more = {name: worker(name) for name in WORKERS}
    with (
        servers.postgresql("airflow") as url,
        servers.redis() as broker,
        LocalAirflow(
            dags,
            executor="CeleryExecutor",
            database_url=url("airflow"),
            connections={"aws_default": aws.airflow_connection()},
            config={**config, ("celery", "broker_url"): broker},
            pools={"submits": 2},
            more_components={**more, "triggerer-2": ["triggerer", "--skip-serve-logs"]},
            environment={"PYTHONPATH": python_path},
            home=tmp_path / "airflow",  # stays, so that its logs can be read
            progress=print,
        ) as running,
    ):
        bounded = {"name": "fargate", "slots": AT_A_TIME, "include_deferred": True}
        running.request("POST", "/pools", bounded)
        for name in WORKERS:
            running.wait_until(lambda name=name: " ready." in log_of(running, name), what=f"{name} is ready")
        running.wait_until(lambda: len(triggerers(running)) == 2, what="both triggerers work")
        yield running


def test_a_worker_and_a_triggerer_are_lost_for_good_and_every_job_runs_once(aws, distributed):  # noqa: PLR0915 - steps that follow each other
    airflow, story = distributed, Story(aws, distributed)

    # Eight jobs run, four exports among them, and nothing but the triggerers waits for them.
    night = story.start(NIGHT)
    singles = [story.start(dag_id) for dag_id in ("single_step", "single_container") for _ in range(2)]
    story.until(lambda: len(story.in_state("deferred")) == 8, "eight task instances are deferred")
    assert all(executed(log_of(airflow, name)) for name in WORKERS), "both workers had work"
    story.until(lambda: story.watched_by(2), "two triggerers share them")
    full = PoolSlots(total=AT_A_TIME, running=0, queued=0, scheduled=4, deferred=AT_A_TIME, open=0)
    story.until(lambda: airflow.pool_slots("fargate") == full, "deferred ones hold the slots of that pool")
    waiting = airflow.pool_slots("default_pool")
    assert (waiting.deferred, waiting.open) == (len(singles), waiting.total), "deferred ones hold no slot"

    # One worker is lost right after EMR took a step, and one triggerer with all that it watches. Jobs end
    # while nobody polls them, and nothing is started in place of what was lost.
    bystander = story.start("single_container")  # on the same worker or on the other
    doomed, victim = story.freeze("single_step")
    airflow.kill(victim)
    airflow.kill("triggerer-2")
    story.finish(night, *singles[1:])
    (survivor,) = {*WORKERS} - {victim}
    assert doomed.id in executed(log_of(airflow, victim)) - ended(log_of(airflow, victim))
    story.until(lambda: story.waits_again(doomed), "the lost task instance waits again")
    assert "found job of claim" in story.log(doomed)
    story.until(lambda: story.succeeded(*singles[1:]), "what ended unseen is a success")
    story.until(lambda: len(story.in_state("deferred", night)) == AT_A_TIME, "the next exports are deferred")
    story.until(lambda: story.watched_by(1), "one triggerer watches all")

    # A deploy: the worker that is left is asked to stop while it executes a task, and finishes that first.
    drained, last = story.freeze("single_container")
    assert last == survivor
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(airflow.stop, survivor)
        story.until(lambda: "Warm shutdown" in log_of(airflow, survivor), "the worker is stopping")
        story.finish(night, singles[0], doomed.key[:2], bystander)  # and no worker can take the events
        story.thaw(drained)
        stopping.result()
    assert drained.id in ended(log_of(airflow, survivor))

    # The new worker comes before all files of the deploy are there: a try that is to go on must begin again.
    dag_file = airflow.dags / "single_jobs.py"
    whole = dag_file.read_text()
    dag_file.write_text("raise ImportError('half a deploy')")
    airflow.start(victim)
    story.until(lambda: story.in_state("up_for_reschedule", singles[0]), "Airflow sends a task instance back")
    dag_file.write_text(whole)
    story.until(lambda: len(story.in_state("deferred", night)) == 4, "all totals are deferred")
    free = PoolSlots(total=2, running=0, queued=0, scheduled=0, deferred=4, open=2)
    assert airflow.pool_slots("submits") == free, "many wait in a small pool"
    story.finish(night, drained.key[:2])
    story.until(lambda: story.succeeded(*story.runs), "all succeed")

    # Each task instance has had one job, and nobody has cancelled any.
    jobs = {instance.key: story.jobs(instance.key) for instance in story.instances()}
    assert len(jobs) >= 19
    assert {key: len(made) for key, made in jobs.items() if len(made) != 1} == {}
    assert len(story.named()) == len(jobs)
    ends = {getattr(job, "stop_code", None) or job.state for made in jobs.values() for job in made}
    assert ends == {"EssentialContainerExited", "COMPLETED"}

    # Tries were lost with the worker, none with the triggerer or in the deploy. Airflow notes what its
    # scheduler fails as a mismatch of states, whether a heartbeat was missing or the task was healthy.
    tries = {instance.key: instance.try_number for instance in story.instances()}
    assert doomed.key in story.events("heartbeat timeout")
    failed = story.events("state mismatch")
    assert {key: n - failed[key] for key, n in tries.items()} == dict.fromkeys(tries, 1)

    # Four exports at a time; a job whose try was lost goes on without the slot.
    exports = [key for key in jobs if key[2] == "export"]
    lost_tries = sum(tries[key] - 1 for key in exports)
    assert AT_A_TIME <= most_at_once([jobs[key][0] for key in exports]) <= AT_A_TIME + lost_tries

    # Redis gave the dead worker's message to the other worker, and Airflow did not run the try twice.
    message = message_of(doomed, log_of(airflow, victim))
    assert re.search(
        rf"\[{message}\] (Task already running elsewhere|raised unexpected: ServerResponseError)",
        log_of(airflow, survivor),
    )


@dataclass
class Story:
    """The DAG runs of one test and the remote jobs that they make."""

    aws: object
    airflow: object
    runs: list[tuple[str, str]] = field(default_factory=list)

    def start(self, dag_id):
        name = f"distributed-{len(self.runs)}"
        self.aws.make_task_definition(name)
        for each in (name, "export"):
            self.aws.ecs.plan(each, seconds=None)
        for each in (name, "total"):
            self.aws.emr.plan(step_name_contains=f"{each} ", seconds=None)
        run = (dag_id, self.airflow.trigger(dag_id, conf={"job": name}))
        self.runs.append(run)
        return run

    def until(self, predicate, what):
        began = time.monotonic()
        found = self.airflow.wait_until(predicate, what=what, tell=self.tell)
        print(f"after {time.monotonic() - began:.0f} s {what}")
        return found

    def tell(self):
        return "\n".join(
            f"{i.key} {i.state}, try {i.try_number}: {self.jobs(i.key)}" for i in self.instances()
        )

    def instances(self):
        return [instance for instance in self.airflow.task_instances() if instance.key[:2] in self.runs]

    def in_state(self, state, run=None):
        return [i for i in self.instances() if i.state == state and run in (None, i.key[:2])]

    def succeeded(self, *runs):
        return all(self.airflow.run_state(*run) == "success" for run in runs)

    def jobs(self, key):
        """Every job of a task instance, as the fake AWS knows it: by its claim."""
        claim = task_key(NAMESPACE, *key)
        return [*self.aws.ecs.tasks(started_by=claim), *(s for s in self.aws.emr.steps() if claim in s.name)]

    def named(self):
        """Every job of these runs, by the names that they give to their jobs."""
        ours = re.compile(r"(export|distributed-\d+):|(total [a-z]+|distributed-\d+) ")
        tasks = [t for t in self.aws.ecs.tasks() if ours.match(t.task_definition.rpartition("/")[2])]
        return [*tasks, *(step for step in self.aws.emr.steps() if ours.match(step.name))]

    def finish(self, *runs):
        """Let all jobs of these runs end well that live now."""
        for instance in self.instances():
            for job in self.jobs(instance.key) if instance.key[:2] in runs else ():
                if job.live and hasattr(job, "arn"):
                    self.aws.ecs.finish(job.arn)
                elif job.live:
                    self.aws.emr.finish(job.id)

    def watched_by(self, triggerers):
        """Say whether all that is deferred is watched, by that many triggerers."""
        by = [(i.raw["trigger"] or {}).get("triggerer_id") for i in self.in_state("deferred")]
        return None not in by and len(set(by)) == triggerers

    def freeze(self, dag_id):
        """Hold a task right after its service took the job; give the try and its worker.

        The next run has its turn if this one was too fast: the moment lasts some 0.05 s.
        """
        for _ in range(5):
            run = self.start(dag_id)
            instance = self.airflow.task_instance(*run, "job")
            try:
                self.airflow.kill_task_when(instance, lambda: self.jobs(instance.key), signal.SIGSTOP)  # noqa: B023
            except LocalAirflowError as error:
                if "before the moment came" not in str(error):
                    raise
            where = {process.component for process in self.airflow.task_processes(instance)}
            if where and self.airflow.task_instance(*run, "job").state == "running":
                return instance, where.pop()
            self.thaw(instance)
            self.finish(run)
        raise AssertionError("no task could be held in time")

    def thaw(self, instance):
        for process in self.airflow.task_processes(instance):
            process.kill(signal.SIGCONT)

    def waits_again(self, instance):
        now = self.airflow.task_instance(*instance.key[:3])
        return now.try_number > instance.try_number and now.state == "deferred"

    def log(self, instance):
        return self.airflow.task_log(*instance.key[:3])

    def events(self, event):
        """How often each task instance stands in Airflow's audit log with an event."""
        lines = [line for run in self.runs for line in self.airflow.events(event, *run)]
        return Counter((e["dag_id"], e["run_id"], e["task_id"], e["map_index"]) for e in lines)


def log_of(airflow, component):
    return airflow.log(component, 100_000)


def executed(log):
    """Ids of the tries that a worker began to execute."""
    return set(re.findall(r"Executing workload in Celery: .*?TaskInstanceDTO\(id=UUID\('([^']+)'", log))


def ended(log):
    """Ids of the tries whose task came to its end on a worker, a deferral for instance."""
    return set(re.findall(r"Workload finished .*workload_id=(\S+)", log))


def message_of(instance, log):
    """Celery's id of the message with which a worker began a try."""
    return re.search(rf"\[(\S+)\] Executing workload in Celery: .*?UUID\('{instance.id}'", log)[1]


def triggerers(airflow):
    return airflow.request("GET", "/jobs?job_type=TriggererJob&is_alive=true")["jobs"]


def most_at_once(tasks):
    """How many ECS tasks lived at the same time."""
    changes = sorted(change for task in tasks for change in ((task.created, 1), (task.stopped, -1)))
    alive = [0]
    for _, change in changes:
        alive.append(alive[-1] + change)
    return max(alive)
