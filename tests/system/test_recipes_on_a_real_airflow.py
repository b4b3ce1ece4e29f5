"""Every recipe is a DAG that runs: a real Airflow whose DAG folder is ``docs/recipes``.

All runs are started together, because they wait most of their time.  Each page of the recipes has a fixture
of its name that gives its runs when all of them have ended; the last tests ask every page for it, so that a
recipe which nobody runs fails.  Recipes that another system test runs need none.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import signal
import subprocess
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import quote

import boto3
import pytest
from moto.moto_api import state_manager

from airflow_resilient import registry
from airflow_resilient.core.job import Claim, task_key
from airflow_resilient.services.emr_steps.marker import read_marker
from airflow_resilient.testing.airflow.local_airflow import HANG, LocalAirflow
from airflow_resilient.testing.aws.wire import AwsError, reply_with_error

HERE = Path(__file__).parent
RECIPES = HERE.parents[1] / "docs" / "recipes"
PAGES = sorted(page for page in RECIPES.glob("*.md") if page.with_suffix(".py").exists())
OTHERS = [path.read_text() for path in HERE.rglob("test_*.py") if path.name != Path(__file__).name]
ELSEWHERE = {page.stem for page in PAGES if any(f"{page.stem}.py" in test for test in OTHERS)}
NAMESPACE = "recipes"
UTC = timezone.utc
CLUSTER = "j-0123456789ABC"  # stands in two recipes
GLUE_JOB = "compact-events"
LONG = 4  # seconds: a job that ends at once has its task back before the scheduler knows that it waits
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)  # as on the page about one pass per hour


def five_minutes(moment):
    """When a schedule of every five minutes was due last."""
    return moment.replace(minute=moment.minute // 5 * 5, second=0, microsecond=0)


# ----- AWS behind a door


class Door:
    """Stands before the fake AWS: notes who calls what, and lets nobody do what his policy does not allow.

    Who calls is known by the access key, which here is the id of the connection.  A policy is a set of
    actions; who has none may do everything.  Resources and conditions are ignored.
    """

    def __init__(self, behind):
        self.behind = behind
        self.policies = {}
        self.called = defaultdict(Counter)

    def __call__(self, environ, start_response):
        signed = re.search(
            r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/aws4_request", environ.get("HTTP_AUTHORIZATION", "")
        )
        who, service = signed.groups() if signed else ("nobody", "unsigned")
        action = f"{service}:{environ.get('HTTP_X_AMZ_TARGET', '').rpartition('.')[2]}"
        self.called[who][action] += 1
        if action in self.policies.get(who, {action}):
            return self.behind(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        denied = f"User: arn:aws:iam::123456789012:user/{who} is not authorized to perform: {action}"
        reply = reply_with_error(AwsError("AccessDeniedException", f"{denied} on resource: *"))
        start_response("400 Bad Request", [*reply.headers.items(), ("Content-Length", str(len(reply.body)))])
        return [reply.body]


POLICIES = {
    "ECS tasks": ("ecs", "operator"),
    "ECS sensor": ("ecs", "sensor"),
    "EMR steps": ("emr_steps", "operator"),
    "EMR sensor": ("emr_steps", "sensor"),
}
"""Title on the page on IAM to the service and to what is built with it."""


def policies_of_the_page():
    """The actions that each policy of the page on IAM allows, by the title of its section."""
    found = {}
    for title, (service, what) in POLICIES.items():
        actions = [statement["Action"] for statement in registry.service(service).iam[what]]
        found[title] = {each for some in actions for each in ([some] if isinstance(some, str) else some)}
    return found


@dataclass(frozen=True)
class RemoteJob:
    """What a task instance has made somewhere else: an ECS task, the steps of one submission, a Glue run."""

    id: str
    claim: Claim
    succeeded: bool
    live: bool


# ----- an Airflow and its runs


@dataclass
class Harness:
    """A real Airflow with the recipes' DAGs, and the fake AWS behind its door."""

    airflow: LocalAirflow
    aws: object
    door: Door
    glue: object
    runs: list[Run] = field(default_factory=list)

    def run(self, dag_id, run_id="by-hand"):
        """A run that is to be: what its jobs will be called is known already."""
        self.runs.append(Run(self, dag_id, run_id))
        return self.runs[-1]

    def jobs(self):
        """All remote jobs that bear a claim."""
        found = [(t.arn, t.started_by or "", t.exit_code == 0, t.live) for t in self.aws.ecs.tasks()]
        for run in self.glue.get_job_runs(JobName=GLUE_JOB)["JobRuns"]:
            done = run["JobRunState"] == "SUCCEEDED"
            found.append((run["Id"], run["Arguments"]["--claim"], done, not done))
        jobs = [RemoteJob(id_, claim, *how) for id_, text, *how in found if (claim := Claim.read(text))]
        for step in self.aws.emr.steps():
            marker = read_marker(step.name)
            if marker and marker.place == 1:
                rest = [s for s in self.aws.emr.steps() if marker.claim.token in s.name]
                done, live = all(s.state == "COMPLETED" for s in rest), any(s.live for s in rest)
                jobs.append(RemoteJob(step.id, marker.claim, done, live))
        return jobs


@dataclass
class Run:
    """One run of a recipe's DAG."""

    harness: Harness
    dag_id: str
    run_id: str

    def start(self):
        """Start it by hand, without a logical date, as ``airflow dags trigger`` does."""
        self.harness.airflow.trigger(self.dag_id, self.run_id)
        self.pause(paused=False)
        return self

    def pause(self, *, paused=True):
        """Pause its DAG, or let it run."""
        self.harness.airflow.request("PATCH", f"/dags/{self.dag_id}", {"is_paused": paused})

    @property
    def state(self):
        return self.harness.airflow.run_state(self.dag_id, self.run_id)

    @property
    def states(self):
        return {i.task_id: i.state for i in self.harness.airflow.task_instances(self.dag_id, self.run_id)}

    def task(self, task_id):
        return self.harness.airflow.task_instance(self.dag_id, self.run_id, task_id)

    @property
    def mismatches(self):
        """The tries that Airflow's scheduler has failed by itself, although the tasks were healthy."""
        return [
            line["task_id"]
            for line in self.harness.airflow.events("state mismatch", self.dag_id, self.run_id)
        ]

    def tries(self, task_id):
        """How many tries it took, but for those."""
        return self.task(task_id).try_number - self.mismatches.count(task_id)

    def until(self, predicate, what):
        tell = lambda: f"{self.dag_id} {self.run_id}: {self.states}\n{self.log()}"  # noqa: E731
        return self.harness.airflow.wait_until(predicate, what=what, tell=tell, every=0.5)

    def deferred(self, task_id):
        self.until(lambda: self.task(task_id).state == "deferred", f"{task_id} is deferred")

    def at_rest(self, task_id):
        """Wait until it is deferred, and until the scheduler knows: what ends now fails no healthy try."""

        def known():
            instance = self.task(task_id)
            return instance.state == "deferred" and self.harness.airflow.deferrals_processed(instance) > 0

        self.until(known, f"the scheduler has registered that {task_id} is deferred")

    def ended(self, *states):
        self.harness.airflow.wait_for(self.dag_id, self.run_id, states or ["success"])
        return self

    def log(self, *task_ids):
        """The logs of all tries of these task instances, or of all; an error as Airflow's UI shows it.

        With those lines of triggers that Airflow writes beside them when it has much to do.
        """
        airflow, logs = self.harness.airflow, [self.harness.airflow.stray_log(self.dag_id, self.run_id)]
        for instance in airflow.task_instances(self.dag_id, self.run_id):
            if task_ids and instance.task_id not in task_ids:
                continue
            for number in range(1, (instance.try_number or 0) + 1):
                logs.append(airflow.task_log(self.dag_id, self.run_id, instance.task_id, number))
                if '{"timestamp"' in logs[-1]:  # the file of a try that the scheduler has failed by itself
                    run = airflow.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"
                    parts = (run / f"task_id={instance.task_id}").glob(f"attempt={number}.log.trigger.*")
                    logs += [part.read_text() for part in sorted(parts)]
        return "\n".join(as_shown(line) for log in logs for line in log.splitlines())

    def xcom(self, task_id, key="return_value"):
        return self.harness.airflow.xcom(self.dag_id, self.run_id, task_id, key)

    def links(self, task_id):
        path = f"/dags/{self.dag_id}/dagRuns/{quote(self.run_id, safe='')}/taskInstances/{task_id}/links"
        return self.harness.airflow.request("GET", path)["extra_links"]

    def task_key(self, task_id):
        """What the claims of a task instance have in common."""
        return task_key(NAMESPACE, self.dag_id, self.run_id, task_id, -1)

    def ecs_task(self, task_id):
        """The ECS task of a task instance that has made one."""
        (task,) = self.harness.aws.ecs.tasks(started_by=self.task_key(task_id))
        return task

    def finish(self, task_id, exit_code=0):
        """Let the ECS task of a task instance end that is at rest."""
        self.at_rest(task_id)
        tasks = self.harness.aws.ecs.tasks(started_by=self.task_key(task_id))
        (arn,) = [task.arn for task in tasks if task.live]
        self.harness.aws.ecs.finish(arn, exit_code)

    def jobs(self, task_id):
        """The remote jobs of a task instance."""
        return [job for job in self.harness.jobs() if job.claim.task_key == self.task_key(task_id)]

    def made(self):
        """How many remote jobs each task instance has made that made one; none of them lives."""
        families = {self.task_key(task_id): task_id for task_id in self.states}
        jobs = [job for job in self.harness.jobs() if job.claim.task_key in families]
        assert [job for job in jobs if job.live] == []
        return dict(Counter(families[job.claim.task_key] for job in jobs))


def as_shown(line):
    """A line of a log without its JSON: the message, or the details of errors as ``Type: message``."""
    if not line.strip().startswith(('[{"exc_type', '{"timestamp')):
        return line
    found = json.loads(line)
    message = [f"{found['level']} {found['event']}"] if isinstance(found, dict) else []
    errors = (found.get("error_detail") or []) if message else found
    return "\n".join([*message, *(f"{error['exc_type']}: {error['exc_value']}" for error in errors)])


SCHEDULE = """
import json, sys
import pendulum
from airflow.models.serialized_dag import SerializedDagModel
from airflow.timetables.base import TimeRestriction
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType

for dag_id, run_id, due in json.load(sys.stdin):
    with create_session() as session:
        dag = SerializedDagModel.get_dag(dag_id, session=session)
        info = dag.timetable.next_dagrun_info(
            last_automated_data_interval=None,
            restriction=TimeRestriction(pendulum.parse(due), None, catchup=True),
        )
        dag.create_dagrun(
            run_id=run_id,
            logical_date=info.logical_date,
            data_interval=info.data_interval,
            run_after=info.run_after,
            run_type=DagRunType.SCHEDULED,
            triggered_by=DagRunTriggeredByType.TIMETABLE,
            state=DagRunState.QUEUED,
            session=session,
        )
"""


def schedule(harness, runs):
    """Make scheduled runs by the call with which Airflow's scheduler makes them, for moments of our choice.

    :param runs: (DAG id, when the run is due).
    """
    made = [harness.run(dag_id, f"scheduled__{due.isoformat()}") for dag_id, due in runs]
    asked = [(run.dag_id, run.run_id, due.isoformat()) for run, (_, due) in zip(made, runs, strict=True)]
    for run in made:
        harness.airflow.wait_for_dag(run.dag_id)
    done = subprocess.run(
        [harness.airflow.python, "-c", SCHEDULE],
        input=json.dumps(asked),
        env=harness.airflow.environment,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return made


# ----- what is there before anything runs


@pytest.fixture(scope="module")
def harness(aws, make_database, python_path, tmp_path_factory):
    """An Airflow whose DAGs are paused until somebody wants them."""
    plugins = tmp_path_factory.mktemp("plugins")
    shutil.copy(RECIPES / "glue_runs.py", plugins)  # as its page says: triggerers import no DAG files
    door = Door(aws._server.app)
    aws._server.app = door
    connection = json.loads(aws.airflow_connection())
    connections = ("aws_default", "aws_ecs", "aws_emr", "aws_watch")
    with LocalAirflow(
        RECIPES,
        database_url=make_database(),
        connections={name: {**connection, "login": name} for name in connections},
        pools={"emr": 2},
        config={
            ("airflow_resilient", "namespace"): NAMESPACE,
            ("core", "dagbag_import_timeout"): 120,  # a busy machine is no reason to fail
            ("core", "dags_are_paused_at_creation"): True,
            ("core", "default_task_retries"): 8,  # where a recipe leaves them out; see Run.tries
            ("core", "default_task_retry_delay"): 1,
            ("core", "plugins_folder"): plugins,
            ("dag_processor", "min_file_process_interval"): 3600,
        },
        environment={"PYTHONPATH": python_path},
        home=tmp_path_factory.mktemp("airflow"),  # stays, so that its logs can be read
        progress=print,
    ) as airflow:
        yield Harness(airflow, aws, door, boto3.client("glue"))
    aws._server.app = door.behind


@pytest.fixture(scope="module")
def account(harness):
    """What the recipes name in AWS."""
    aws = harness.aws
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moto.emr.models.random_cluster_id", lambda: CLUSTER)
        aws.make_emr_cluster("of the recipes", concurrency=10)
    definitions = {"nightly-export:7": "export", "nightly-load:3": "load", "report:12": "main"}
    for definition, container in {**definitions, "publish:1": "main", "nightly:1": "main"}.items():
        name, _, revision = definition.partition(":")
        for _ in range(int(revision)):
            aws.make_task_definition(name, [container])
        # No retries there: a scheduler that is busy has more time.
        aws.ecs.plan(name, seconds=3 * LONG if name in {"report", "publish"} else LONG)
    aws.put_log_lines("/ecs/nightly", "ecs/main/of-another-task", ["there is a log group"])
    state_manager.set_transition("glue::job_run", {"progression": "time", "seconds": 2})
    harness.glue.create_job(
        Name=GLUE_JOB, Role="r", Command={"Name": "glueetl"}, ExecutionProperty={"MaxConcurrentRuns": 9}
    )
    policies = policies_of_the_page()
    glue = {"glue:StartJobRun", "glue:GetJobRun", "glue:GetJobRuns", "glue:BatchStopJobRun"}
    harness.door.policies = {
        "aws_default": {*glue}.union(*policies.values()),
        "aws_ecs": policies["ECS tasks"],
        "aws_emr": policies["EMR steps"],
        "aws_watch": policies["ECS sensor"] | policies["EMR sensor"],
    }
    yield aws
    state_manager.unset_transition("glue::job_run")


@pytest.fixture(scope="module")
def started(harness, account):
    """All runs, on their way."""
    # A worker is lost right after ECS took its task; until Airflow misses its heartbeat the others begin.
    deploy = harness.run("ecs_tasks_that_survive_a_deploy", "deploy")
    account.ecs.plan("nightly-export", started_by=deploy.task_key("export"), seconds=None)
    deploy.start()
    harness.airflow.kill_task_when(
        deploy.task("export"), lambda: account.ecs.tasks(started_by=deploy.task_key("export"))
    )

    quiet = harness.run("ecs_tasks_that_survive_a_deploy", "quiet")
    account.ecs.plan("nightly-load", started_by=quiet.task_key("load"), seconds=None)
    codes = harness.run("ecs_tasks_that_survive_a_deploy", "exit-codes")
    # What fails is finished by hand: a try that the scheduler fails by itself, because the task was back
    # before it had registered that it waits, never comes to report what became of the job.
    account.ecs.plan("nightly-export", started_by=codes.task_key("export"), seconds=None)
    account.ecs.plan("nightly-load", started_by=codes.task_key("load"), seconds=None)
    steps = [harness.run("emr_steps_without_the_deadlock", f"run-{number}") for number in range(3)]
    for run in steps:
        account.emr.plan(run.task_key("clean"), seconds=None)
        account.emr.plan(run.task_key("join"), seconds=2 * LONG)  # the sensor comes later
    simple = [
        harness.run("move_from_the_providers_operators"),
        harness.run("your_own_service_in_forty_lines"),
        harness.run("iam_policies"),
        harness.run("test_your_dag_without_aws"),
        harness.run("one_pass_per_hour"),
    ]
    account.emr.plan(simple[0].task_key("steps"), seconds=2 * LONG)
    account.emr.plan(simple[2].task_key("emr"), seconds=LONG)
    for run in (quiet, codes, *steps, *simple):
        run.start()

    evening = datetime(2026, 10, 31, 1, tzinfo=UTC)  # in New York it is still Friday, the 30th
    scheduled = schedule(
        harness,
        [
            *(("business_days_in_local_time", evening + timedelta(days=days)) for days in range(3)),
            ("move_from_local_time_to_utc", evening + timedelta(days=1)),
            *(("one_pass_per_hour", NOON + timedelta(minutes=late)) for late in (0, 5)),
            *(("one_pass_per_hour_with_taskflow", NOON + timedelta(minutes=late)) for late in (0, 5)),
        ],
    )
    for run in scheduled:
        run.pause(paused=False)
    found = defaultdict(list)
    for run in harness.runs:
        found[run.dag_id].append(run)
    return found


# ----- EMR steps without the deadlock


@pytest.fixture(scope="module")
def slots_while_all_wait(started, account):
    """The pool ``emr`` while three runs wait for their first steps."""
    runs = started["emr_steps_without_the_deadlock"]
    for run in runs:
        run.deferred("clean")
        run.until(lambda run=run: ": running, " in run.log("clean"), "the triggerer has seen them running")
    slots = runs[0].harness.airflow.pool_slots("emr")
    for step in account.emr.steps():
        if step.live and any(run.task_key("clean") in step.name for run in runs):
            account.emr.finish(step.id)
    return slots


@pytest.fixture(scope="module")
def emr_steps_without_the_deadlock(started, slots_while_all_wait):
    return [run.ended() for run in started["emr_steps_without_the_deadlock"]]


def test_any_number_of_steps_is_awaited_through_a_pool_of_two_slots(
    emr_steps_without_the_deadlock, slots_while_all_wait
):
    assert (slots_while_all_wait.total, slots_while_all_wait.open) == (2, 2)
    assert slots_while_all_wait.deferred == 3
    for run in emr_steps_without_the_deadlock:
        assert run.states == dict.fromkeys(["clean", "join", "joined"], "success")


def test_steps_of_one_operator_are_one_job_and_bear_its_claim(emr_steps_without_the_deadlock, account):
    for run in emr_steps_without_the_deadlock:
        assert run.made() == {"clean": 1, "join": 1}
        names = [step.name for step in account.emr.steps() if run.task_key("clean") in step.name]
        claim = rf"\[af-{run.task_key('clean')}-1 [12]/2 \d+\.\d+ [a-z2-7]{{8}}\+?\]"
        assert [re.fullmatch(rf"\w+ {claim}", name) is not None for name in names] == [True, True]


def test_emr_tasks_return_step_ids_and_push_their_cluster(emr_steps_without_the_deadlock, account):
    run = emr_steps_without_the_deadlock[0]
    for task_id, number in (("clean", 2), ("join", 1)):
        made = [step for step in account.emr.steps() if run.task_key(task_id) in step.name]
        assert len(made) == number
        assert run.xcom(task_id) == [step.id for step in made]
        assert {run.xcom(task_id, "job_flow_id")} == {step.cluster_id for step in made}


# ----- ECS tasks that survive a deploy


@pytest.fixture(scope="module")
def ecs_tasks_that_survive_a_deploy(started, account):
    deploy, quiet, codes = started["ecs_tasks_that_survive_a_deploy"]

    quiet.until(lambda: ": running, " in quiet.log("load"), "the triggerer has seen it running")
    arn = quiet.ecs_task("load").arn
    lines = ["4711 rows to load", "done"]
    account.put_log_lines("/ecs/nightly-load", f"ecs/load/{arn.rpartition('/')[2]}", lines)
    account.ecs.finish(arn)

    codes.finish("export", exit_code=1)
    codes.until(lambda: len(codes.jobs("export")) == 2, "the second container was started")
    codes.finish("export")
    codes.finish("load", exit_code=99)

    # The next worker waits for the ECS task of the lost one; then the triggerer is replaced, too.
    deploy.until(lambda: deploy.task("export").try_number > 1, "the try of the lost worker has failed")
    deploy.deferred("export")
    airflow = deploy.harness.airflow
    airflow.restart("triggerer", signal.SIGTERM)
    account.ecs.finish(deploy.ecs_task("export").arn)
    # And the worker of the next task is asked to stop.
    ours = {"started_by": deploy.task_key("load")}
    airflow.kill_task_when(
        deploy.task("load"), lambda: account.ecs.tasks(**ours), signal.SIGTERM, worker=False
    )
    return [run.ended() for run in (deploy, quiet, codes)]


def test_a_deploy_costs_a_try_and_no_second_container(ecs_tasks_that_survive_a_deploy):
    deploy, *_ = ecs_tasks_that_survive_a_deploy
    assert deploy.states == {"export": "success", "load": "success"}
    assert deploy.made() == {"export": 1, "load": 1}
    assert deploy.task("export").try_number > 1
    assert "found job of claim" in deploy.log("export")
    ends = {deploy.ecs_task(task_id).stop_code for task_id in ("export", "load")}
    assert ends == {"EssentialContainerExited"}, "nobody has stopped one"


def test_a_worker_that_is_asked_to_stop_leaves_the_ecs_task_running(ecs_tasks_that_survive_a_deploy):
    deploy, *_ = ecs_tasks_that_survive_a_deploy
    assert "the job is left running for the next try" in deploy.log("load")


def test_an_ecs_task_shows_its_log_and_pushes_its_arn(ecs_tasks_that_survive_a_deploy):
    _, quiet, _ = ecs_tasks_that_survive_a_deploy
    assert quiet.made() == {"export": 1, "load": 1}
    for task_id in ("export", "load"):
        assert quiet.xcom(task_id, "ecs_task_arn") == quiet.ecs_task(task_id).arn
    log = quiet.log("load")
    assert [log.count(line) for line in ("info 4711 rows to load", "info done")] == [1, 1]
    assert quiet.ecs_task("export").command == ("export", quiet.run_id)


def test_an_exit_code_fails_a_try_or_skips_the_task_instance(ecs_tasks_that_survive_a_deploy):
    *_, codes = ecs_tasks_that_survive_a_deploy
    assert codes.states == {"export": "success", "load": "skipped"}
    assert codes.made() == {"export": 2, "load": 1}
    assert codes.tries("export") == 2
    assert "container load: exit code 99" in codes.log("load")


# ----- move from the provider's operators


@pytest.fixture(scope="module")
def move_from_the_providers_operators(started):
    return [run.ended() for run in started["move_from_the_providers_operators"]]


def test_the_provider_s_dag_runs_with_its_imports_changed(move_from_the_providers_operators, account):
    (run,) = move_from_the_providers_operators
    assert run.states == dict.fromkeys(["report", "stopped", "steps", "sorted"], "success")
    assert run.made() == {"report": 1, "steps": 1}
    (step,) = [step for step in account.emr.steps() if run.task_key("steps") in step.name]
    assert re.fullmatch(rf"sort \[af-{run.task_key('steps')}-1 \d+\.\d+ [a-z2-7]{{8}}\+?\]", step.name)
    assert run.xcom("steps") == [step.id]
    assert run.xcom("steps", "job_flow_id") == CLUSTER
    assert run.xcom("report", "ecs_task_arn") == run.ecs_task("report").arn


def test_links_lead_to_the_remote_jobs(move_from_the_providers_operators, emr_steps_without_the_deadlock):
    (run,) = move_from_the_providers_operators
    assert run.ecs_task("report").arn.rpartition("/")[2] in run.links("report")["ECS task"]
    assert CLUSTER in run.links("steps")["EMR cluster"]
    by_name = emr_steps_without_the_deadlock[0]
    assert by_name.xcom("clean", "job_flow_id") in by_name.links("clean")["EMR cluster"]


# ----- your own service in forty lines


@pytest.fixture(scope="module")
def your_own_service_in_forty_lines(started):
    return [run.ended() for run in started["your_own_service_in_forty_lines"]]


def test_a_service_of_one_s_own_runs_once_and_is_awaited_by_the_triggerer(your_own_service_in_forty_lines):
    (run,) = your_own_service_in_forty_lines
    assert run.states == {"compact": "success"}
    assert run.made() == {"compact": 1}
    (job,) = run.jobs("compact")
    assert job.succeeded
    assert run.xcom("compact") == job.id
    glue = run.harness.glue.get_job_run(JobName=GLUE_JOB, RunId=job.id)["JobRun"]
    assert glue["Arguments"]["--run"] == run.run_id
    assert Claim.read(glue["Arguments"]["--claim"]) == job.claim
    assert "Pausing task as DEFERRED" in run.log()


# ----- IAM policies


@pytest.fixture(scope="module")
def iam_policies(started):
    (run,) = started["iam_policies"]
    run.ended()
    allowed, door = run.harness.door.policies, run.harness.door
    door.policies = {
        **allowed,
        "aws_ecs": allowed["aws_ecs"] - {"logs:GetLogEvents"},
        "aws_emr": allowed["aws_emr"] - {"elasticmapreduce:AddJobFlowSteps"},
    }
    try:
        denied = run.harness.run(run.dag_id, "denied").start().ended("failed")
    finally:
        door.policies = allowed
    return [run, denied]


def test_each_policy_allows_what_its_task_does(iam_policies):
    run, _ = iam_policies
    assert run.states == dict.fromkeys(["ecs", "ecs_state", "emr", "emr_state"], "success")
    assert run.made() == {"ecs": 1, "emr": 1}
    assert "not authorized" not in run.log()
    called = run.harness.door.called
    assert {"ecs:RunTask", "ecs:DescribeTasks", "logs:GetLogEvents"} <= set(called["aws_ecs"])
    assert {"elasticmapreduce:AddJobFlowSteps", "elasticmapreduce:ListSteps"} <= set(called["aws_emr"])
    assert {"ecs:DescribeTasks", "elasticmapreduce:ListSteps"} <= set(called["aws_watch"])


def test_a_denied_submit_fails_at_once_and_a_denied_log_only_warns(iam_policies):
    _, denied = iam_policies
    assert denied.states == {
        "ecs": "success",
        "ecs_state": "success",
        "emr": "failed",
        "emr_state": "upstream_failed",
    }
    assert denied.made() == {"ecs": 1}
    assert denied.tries("emr") == 1
    assert "the job's log cannot be read" in denied.log("ecs")


def test_the_policies_allow_all_that_the_recipes_ask_of_aws(harness, request):
    for page in PAGES:
        if page.stem not in ELSEWHERE:
            request.getfixturevalue(page.stem.replace("-", "_"))
    allowed = set().union(*policies_of_the_page().values())
    called = {action for who in harness.door.policies for action in harness.door.called[who]}
    assert len(called) > 8
    assert {action for action in called if not action.startswith("glue:")} - allowed == set()


# ----- test your DAG without AWS


@pytest.fixture(scope="module", name="test_your_dag_without_aws")
def dag_with_tests(started):
    (run,) = started["test_your_dag_without_aws"]
    for number in range(3):  # it has no retries
        if run.ended("success", "failed").state == "success" or not run.mismatches:
            break
        run = run.harness.run(run.dag_id, f"again-{number}").start()
    return [run.ended()]


def test_the_dag_of_the_recipe_about_tests_runs_beyond_its_tests_too(test_your_dag_without_aws):
    (run,) = test_your_dag_without_aws
    assert run.states == {"report": "success", "publish": "success"}
    assert run.made() == {"report": 1, "publish": 1}


# ----- one pass per hour


@pytest.fixture(scope="module")
def one_pass_per_hour(started):
    """One run by hand, two of an hour in March, the one that the scheduler made itself; the two again."""
    gates, taskflow = started["one_pass_per_hour"], started["one_pass_per_hour_with_taskflow"]
    harness, dag_id = gates[0].harness, gates[0].dag_id
    path = f"/dags/{dag_id}/dagRuns?run_type=scheduled&order_by=logical_date&limit=3"
    harness.airflow.wait_until(
        lambda: harness.airflow.request("GET", path)["total_entries"] > 2, what="the scheduler makes a run"
    )
    made = harness.airflow.request("GET", path)["dag_runs"]
    runs = [*gates, harness.run(dag_id, made[2]["dag_run_id"]), *taskflow]
    for run in runs:
        run.ended()
    for run in (gates[0], taskflow[0]):
        run.pause()
    return runs


def test_one_run_of_an_hour_and_of_a_day_passes(one_pass_per_hour):
    by_hand, first, second, of_now, taskflow_first, taskflow_second = one_pass_per_hour
    for run in (by_hand, first, of_now):
        assert set(run.states.values()) == {"success"}
    assert second.states == {
        "load": "success",
        "hourly": "skipped",
        "rebuild_cube": "skipped",
        "daily": "skipped",
        "send_report": "skipped",
    }
    assert taskflow_first.states == dict.fromkeys(["hourly_only", "rebuild", "report"], "success")
    assert taskflow_second.states == {"hourly_only": "success", "rebuild": "skipped", "report": "skipped"}


def test_a_gate_counts_days_in_its_own_zone(one_pass_per_hour):
    _, first, second, *_ = one_pass_per_hour
    assert "passed: run 2026-03-02 07:00 EST is the first run in the day that begins at 00:00" in first.log(
        "daily"
    )
    assert "07:05 EST is in the day that begins at 00:00, in which run 07:00 came first" in second.log(
        "daily"
    )


# ----- a five-minute DAG that must not pile up


@pytest.fixture(scope="module")
def a_five_minute_dag_that_must_not_pile_up(started, harness):
    """One run in time, one that is late, two with which the scheduler catches up since January, a report."""
    report = harness.run("report_of_the_latest_run").start()
    dag_id, now = "a_five_minute_dag_that_must_not_pile_up", five_minutes(datetime.now(UTC))
    made = schedule(harness, [(dag_id, now), (dag_id, now - timedelta(minutes=40))])
    made[0].pause(paused=False)
    for number in range(2):
        due = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=5 * number)
        made.append(harness.run(dag_id, f"scheduled__{due.isoformat()}"))
    for run in made:
        path = f"/dags/{dag_id}/dagRuns/{quote(run.run_id, safe='')}"
        harness.airflow.wait_until(
            lambda path=path: harness.airflow.request("GET", path, accept=(404,)).get("state") == "success",
            what=f"{run.run_id} is there and has ended",
        )
    made[0].pause()  # or it goes on until today
    return [*made, report.ended()]


def test_runs_in_time_do_their_work_and_late_ones_only_what_comes_after_none_failed(
    a_five_minute_dag_that_must_not_pile_up,
):
    in_time, *late, report = a_five_minute_dag_that_must_not_pile_up
    assert report.states == {"latest_only": "success", "report": "success"}
    names = ["in_time", "fetch_prices", "publish", "count_runs"]
    assert in_time.states == dict.fromkeys(names, "success")
    assert len(late) == 3
    for run in late:
        assert run.states == {**dict.fromkeys(names, "skipped"), "count_runs": "success"}
        assert re.search(r"skipped: run .+ late \(max_lateness 10 min\)", run.log("in_time"))


# ----- local time


@pytest.fixture(scope="module")
def business_days_in_local_time(started):
    return [run.ended() for run in started["business_days_in_local_time"]]


def test_the_gate_passes_on_friday_evening_and_skips_the_weekend(business_days_in_local_time):
    friday, saturday, sunday = business_days_in_local_time
    assert friday.states == {"only_on_business_days": "success", "settle": "success"}
    assert friday.xcom("settle") == "2026-10-30 is settled on 2026-11-02"
    for run, day in ((saturday, "Saturday, 31 October"), (sunday, "Sunday, 01 November")):
        assert run.states == {"only_on_business_days": "success", "settle": "skipped"}
        assert f"{day} 2026 in America/New_York" in run.log()


@pytest.fixture(scope="module")
def move_from_local_time_to_utc(started):
    return [run.ended() for run in started["move_from_local_time_to_utc"]]


def test_what_is_sent_is_what_the_page_shows(move_from_local_time_to_utc):
    (run,) = move_from_local_time_to_utc
    page = (RECIPES / "move-from-local-time-to-utc.md").read_text()
    (block,) = lines_shown(page)
    sent = run.xcom("send")
    assert sent == ast.literal_eval(block)
    (row,) = re.findall(r"^\| after, 01:00 in UTC \| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    end = datetime.fromisoformat(sent["run"])
    assert row == (str(end), f"{end:%Y-%m-%d}", sent["billing_date"])


# ----- every page


# What is another one in each run: ids, claims, lengths of time, and the moments of runs of today.
VARIABLE = (
    r"\b[0-9a-f]{32}\b",
    r"\bjr_[0-9a-f]{64}\b",
    r"\b[js]-[0-9A-Z]{13}\b",
    r"\baf-[a-z2-7]{16}-\d+\b",
    r"\b\d+ (?:s|min|h|d)(?: \d+ (?:s|min|h))? (?:late|after it was submitted)",
    r"\d{4}-\d\d-\d\d \d\d:\d\d UTC started at (?:\d{4}-\d\d-\d\d )?\d\d:\d\d(?::\d\d)?(?: UTC)?",
)
OURS = [pytest.param(page, id=page.stem) for page in PAGES if page.stem not in ELSEWHERE]


def lines_shown(page):
    """The lines of logs in the page's part about what one will see."""
    part = page.partition("\n## What you will see\n")[2].partition("\n## ")[0]
    return [line for text in re.findall(r"```text\n(.*?)```", part, re.DOTALL) for line in text.splitlines()]


def pattern(line):
    """A line of a page with its ids and times left open."""
    parts = re.split(f"({'|'.join(VARIABLE)})", line)
    parts[::2] = map(re.escape, parts[::2])
    parts[1::2] = [next(kind for kind in VARIABLE if re.fullmatch(kind, part)) for part in parts[1::2]]
    return "".join(parts)


@pytest.mark.parametrize("page", OURS)
def test_every_line_that_a_page_shows_stands_in_a_log_of_its_runs(page, request):
    log = "\n".join(run.log() for run in request.getfixturevalue(page.stem.replace("-", "_")))
    missing = [line for line in lines_shown(page.read_text()) if not re.search(pattern(line), log)]
    assert missing == [], log


@pytest.mark.parametrize("page", OURS)
def test_every_dag_of_a_recipe_has_run(page, request, harness):
    runs = request.getfixturevalue(page.stem.replace("-", "_"))
    dags = harness.airflow.request("GET", "/dags?limit=100")["dags"]
    made = {dag["dag_id"] for dag in dags if Path(dag["fileloc"]).stem == page.stem}
    assert made
    assert {run.dag_id for run in runs if run.state == "success"} == made
