"""Docker operators with their own `execute`, and calls of them inside of tasks, on a fake engine."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest

from airflow_resilient import DockerOperator, JobFailed, NotSubmitted, Phase, PollPolicy, compat
from airflow_resilient.compat import AirflowException, AirflowFailException, BaseOperator
from airflow_resilient.core.job import Claim
from airflow_resilient.testing import FakeDocker, TaskTries
from airflow_resilient.testing.in_memory_jobs import Crash
from airflow_resilient.testing.task_tries import Deferred

QUICK = PollPolicy(
    interval=0.05, first_interval=0.01, max_backoff=0.1, lost_after_polls=2, lost_after_seconds=0.0
)
SECRET = "hunter2"


class Quick(DockerOperator):
    made = 0

    def remote_jobs(self, context):
        type(self).made += 1
        return super().remote_jobs(context)

    def _policy(self):
        return replace(super()._policy(), first_backoff=0.05, first_pause=0.01, max_backoff=0.1)


class Builds(Quick):
    """Builds the command in `execute`, and maps an exit code."""

    def execute(self, context):
        self.command = ["day", SECRET]
        try:
            return super().execute(context)
        except JobFailed as error:
            raise AirflowFailException(f"exit code {error.job.exit_code}") from error


class Dies(Builds):
    died = False

    def submitted(self, context, job):
        if not type(self).died:
            type(self).died = True
            raise Crash("after the submission")


class Drifts(Quick):
    def remote_jobs(self, context):
        self.environment = {"PASSWORD": f"{SECRET}-{self.made}"}
        return super().remote_jobs(context)


@pytest.fixture
def engine():
    with FakeDocker() as fake:
        fake.plan("etl:7", seconds=0.2, lines=["one", "two"])
        yield fake


@pytest.fixture
def tries(engine):
    runs = count(1)

    def make(kind=Quick, **parameters):
        given = {"task_id": "nightly", "image": "etl:7", "docker_url": engine.url, "poll_policy": QUICK}
        return TaskTries(lambda: kind(**{**given, **parameters}), run_id=f"run-{next(runs)}")

    return make


def claims(engine):
    return [Claim.read(one.name) for one in engine.containers.values()]


def test_super_execute_returns_the_result_of_a_container_that_is_what_it_has_built(tries, engine):
    assert tries(Builds).start() == "two"
    (one,) = engine.containers.values()
    assert one.status == "exited"
    assert SECRET in f"{vars(one)}"


def test_the_service_is_made_once_also_for_the_result(tries, monkeypatch):
    monkeypatch.setattr(Builds, "made", 0)
    tries(Builds, auto_remove="force").start()
    assert Builds.made == 1


@pytest.mark.parametrize(("auto_remove", "left"), [("never", 1), ("success", 0), ("force", 0)])
def test_an_ended_container_is_removed_where_that_is_asked_for(tries, engine, auto_remove, left):
    assert tries(Builds, auto_remove=auto_remove).start() == "two"
    assert len(engine.containers) == left


def test_an_exit_code_is_mapped_where_the_error_comes_out(tries, engine):
    engine.plan("etl:7", seconds=0.1, exit_code=3)
    with pytest.raises(AirflowFailException, match="exit code 3"):
        tries(Builds).start()


@pytest.mark.parametrize("call", ["create", "start"])
def test_a_lost_answer_makes_no_second_container(tries, engine, call):
    engine.fail_next(call, carried_out=True, drop=True)
    assert tries(Builds).start() == "two"
    assert len(engine.containers) == 1


def test_a_retry_adopts_the_container_of_a_worker_that_died(tries, engine):
    task = tries(Dies, retries=1)
    with pytest.raises(Crash):
        task.start()
    assert task.start() == "two"
    assert len(engine.containers) == 1


@pytest.mark.parametrize(("given", "here"), [({}, False), ({"deferrable": False}, True)])
def test_what_deferrable_says(tries, given, here):
    outcome = tries(**given).start()
    assert outcome == "two" if here else isinstance(outcome, Deferred)


def test_another_request_in_the_same_try_is_refused_and_names_its_fields(tries, engine):
    engine.plan("etl:7", start_error="port is already allocated", exit_code=128)
    with pytest.raises(NotSubmitted, match="differs in environment from") as no:
        tries(Drifts).run()
    assert SECRET not in str(no.value)


class UsesInsides(Quick):
    """Looks at its container with the provider's client, as many do in `execute` and `on_kill`."""

    def execute(self, context):
        before = self.container
        super().execute(context)
        state = self.cli.inspect_container(self.container["Id"])["State"]["Status"]
        return [before, self.container["Id"], state, self.hook.api_client is self.cli]


def test_a_subclass_uses_hook_cli_and_container_as_with_the_provider(tries, engine):
    found = tries(UsesInsides, auto_remove="never").start()
    (one,) = engine.containers.values()
    assert found == [None, one.id, "exited", True]


class Assigns(Quick):
    def conclude(self, context, job, log):
        self.container = {"Id": "another"}
        return self.container, super().conclude(context, job, log)


def test_container_may_be_assigned_and_changes_nothing_else(tries):
    assert tries(Assigns).run() == ({"Id": "another"}, "two")


class Tolerant(Quick):
    def execute(self, context):
        try:
            return super().execute(context)
        except AirflowException:
            return "tolerated"


def test_an_except_clause_that_tolerates_a_failure_does_not_tolerate_the_deadline(tries, engine):
    engine.plan("etl:7", seconds=0.1, exit_code=3)
    assert tries(Tolerant).start() == "tolerated"
    engine.plan("etl:7", seconds=None)
    with pytest.raises(compat.interrupts()[0], match="execution_timeout") as timeout:
        tries(Tolerant, execution_timeout=timedelta(seconds=0.5)).start()
    assert timeout.value.job.phase is Phase.CANCELLED
    assert engine.live() == []


def test_a_result_is_read_by_a_library_that_reads_files(tries, engine):
    class Reader:
        def load(self, file):
            return json.load(file)

    class Reads(Quick):
        pickling_library = Reader()

    engine.plan("etl:7", seconds=0.1, files=(("/out", b'{"rows": 3}'),))
    given = {"retrieve_output": True, "retrieve_output_path": "/out", "auto_remove": "never"}
    assert tries(Reads, **given).run() == {"rows": 3}


@pytest.mark.parametrize(("given", "kept"), [(None, []), (99, [99]), ([98, 99], [98, 99])])
def test_exit_codes_are_kept_as_the_provider_keeps_them(given, kept):
    assert DockerOperator(task_id="a", image="etl:7", skip_on_exit_code=given).skip_on_exit_code == kept


class Python(BaseOperator):
    def __init__(self, *, code, **kwargs):
        super().__init__(**kwargs)
        self.code = code

    def execute(self, context):
        return self.code(context)


def test_a_loop_of_three_in_a_task_makes_three_containers_and_a_retry_adopts_them(tries, engine):
    make = tries().make_operator

    def code(context):
        return [make().execute(context) for _ in range(3)]

    task = TaskTries(lambda: Python(task_id="python", code=code, retries=1))
    assert task.start() == ["two"] * 3
    assert len({claim.task_key for claim in claims(engine)}) == 3
    assert len({claim.instance_key for claim in claims(engine)}) == 1
    assert task.start() == ["two"] * 3
    assert len(engine.containers) == 3


def test_temporary_directories_of_calls_are_told_apart(tries, engine, tmp_path):
    make = tries(host_tmp_dir=str(tmp_path)).make_operator
    seen = []

    class Keeps(Quick):
        pass

    def code(context):
        for _ in range(2):
            operator = make()
            operator.execute(context)
            seen.append(operator._tmp_dir(operator._owner(context).task_key))

    TaskTries(lambda: Python(task_id="python", code=code)).start()
    assert len(set(seen)) == 2
