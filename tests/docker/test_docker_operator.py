"""The Docker operator takes what the provider's takes, and goes its whole way on a fake engine."""

from __future__ import annotations

import inspect
import json
import logging
import pickle
import traceback
from dataclasses import replace
from datetime import timedelta
from itertools import count

import pytest
from airflow.providers.docker.exceptions import (
    DockerContainerFailedException,
    DockerContainerFailedSkipException,
)
from airflow.providers.docker.operators.docker import DockerOperator as ProvidersOperator
from docker.types import Mount, Ulimit

from airflow_resilient import (
    DockerOperator,
    InvalidParameter,
    JobCancelled,
    JobFailed,
    JobLost,
    JobTimeout,
    PollPolicy,
    SubmitRefused,
    triggers,
)
from airflow_resilient.compat import AirflowFailException
from airflow_resilient.testing import FakeDocker, TaskTries
from airflow_resilient.testing.task_tries import Deferred
from airflow_resilient.watching import log_forwarder

QUICK = PollPolicy(
    interval=0.05,
    first_interval=0.01,
    max_backoff=0.1,
    lost_after_polls=2,
    lost_after_seconds=0.0,
    give_up_after_denials=2,
)
SECRET = "hunter2"


def parameters(each):
    found = inspect.signature(each.__init__).parameters
    return {name: one for name, one in found.items() if name not in ("self", "kwargs", "args")}


def test_every_parameter_of_the_providers_is_accepted_with_its_default():
    theirs, mine = parameters(ProvidersOperator), parameters(DockerOperator)
    assert not set(theirs) - set(mine)
    different = {name for name, each in theirs.items() if mine[name].default != each.default}
    assert different == {"image"}, "a missing one gets a message that names the task, too"
    assert set(mine) - set(theirs) == {"stop_timeout"}


def test_templated_is_what_the_provider_templates():
    assert DockerOperator.template_fields == ProvidersOperator.template_fields
    assert DockerOperator.template_ext == ProvidersOperator.template_ext
    assert DockerOperator.template_fields_renderers == ProvidersOperator.template_fields_renderers
    made = DockerOperator(task_id="x", image="etl:7")
    assert all(hasattr(made, name) for name in made.template_fields)


@pytest.fixture
def engine():
    with FakeDocker() as fake:
        fake.plan("etl:7", seconds=0, lines=["one", "two  "])  # it has ended before the first poll
        yield fake


@pytest.fixture
def tries(engine):
    runs = count(1)

    def make(**parameters):
        given = {"task_id": "nightly", "image": "etl:7", "docker_url": engine.url, "poll_policy": QUICK}
        return TaskTries(lambda: DockerOperator(**{**given, **parameters}), run_id=f"run-{next(runs)}")

    return make


@pytest.fixture
def logged(capsys, caplog):
    """How often the log has something: Airflow 3 writes to standard output, Airflow 2 does not."""
    texts = []

    def often(text):
        texts.append(capsys.readouterr().out)
        return max("".join(texts).count(text), caplog.text.count(text))

    with caplog.at_level(logging.DEBUG):
        yield often


# --- what is returned -----------------------------------------------------------------------------


def test_the_last_line_is_returned(tries):
    assert tries().run() == "two"


def test_all_lines_are_returned(tries):
    assert tries(xcom_all=True).run() == ["one", "two"]


def test_nothing_is_returned_where_nothing_is_pushed_or_nothing_was_written(tries, engine):
    assert tries(do_xcom_push=False).run() is None
    engine.plan("etl:7", seconds=0)
    assert tries().run() is None


def test_the_object_in_a_file_is_returned(tries, engine):
    engine.plan("etl:7", seconds=0, files=(("/out", pickle.dumps({"rows": 3})),))
    wanted = {"retrieve_output": True, "retrieve_output_path": "/out"}
    assert tries(**wanted).run() == {"rows": 3}
    engine.plan("etl:7", seconds=0)
    assert tries(**wanted).run() is None, "as the provider's, for a file that is not there"


def test_a_result_that_cannot_be_read_now_is_read_by_the_next_try(tries, engine, monkeypatch):
    monkeypatch.setattr("airflow_resilient.services.docker.operator._MAX_ATTEMPTS", 1)
    one = tries(retries=1, xcom_all=True, auto_remove="force")
    engine.plan("etl:7", lines=["one", "two"])
    deferred = one.start()
    engine.finish(engine.made[0].id)
    payload = one.watch(deferred)
    engine.fail_next("logs", status=503)
    with pytest.raises(Exception, match="the next try reads its result"):
        one.resume(deferred, payload)
    assert one.run() == ["one", "two"]
    assert len(engine.made) == 1


def test_the_last_line_that_was_forwarded_is_returned_when_the_engine_is_away(tries, engine, monkeypatch):
    monkeypatch.setattr("airflow_resilient.services.docker.operator._MAX_ATTEMPTS", 1)
    engine.plan("etl:7", lines=["one", "two"])
    one = tries()
    deferred = one.start()
    engine.finish(engine.made[0].id)
    payload = one.watch(deferred)
    engine.close()
    assert one.resume(deferred, payload) == "two"


# --- what becomes of the container ----------------------------------------------------------------

WELL, BADLY = 0, 1


@pytest.mark.parametrize(
    ("auto_remove", "code", "left"),
    [
        ("never", WELL, 1),
        ("never", BADLY, 1),
        ("success", WELL, 0),
        ("success", BADLY, 1),
        ("force", WELL, 0),
        ("force", BADLY, 0),
    ],
)
def test_auto_remove_says_what_is_left(tries, engine, auto_remove, code, left):
    engine.plan("etl:7", seconds=0, exit_code=code)
    one = tries(auto_remove=auto_remove)
    if code:
        with pytest.raises(JobFailed, match="exit code 1"):
            one.run()
    else:
        one.run()
    assert len(engine.containers) == left
    assert engine.calls.index("inspect") < len(engine.calls) - engine.calls[::-1].index("logs")


def test_the_engine_removes_nothing_by_itself_whatever_is_asked_for(tries, engine):
    tries(auto_remove="force").run()
    assert not engine.made[0].body["HostConfig"].get("AutoRemove")


def test_what_is_stopped_at_the_deadline_is_removed_if_that_is_asked_for(tries, engine):
    engine.plan("etl:7")
    for auto_remove, left in (("force", 0), ("success", 1)):
        one = tries(auto_remove=auto_remove, execution_timeout=timedelta(seconds=0.5))
        with pytest.raises(JobTimeout):
            one.run()
        assert not engine.live()
        assert len(engine.containers) == left


def test_what_could_not_be_removed_costs_no_result_and_is_removed_by_the_next_try(tries, engine):
    one = tries(auto_remove="force", retries=1)
    engine.fail_next("remove", status=500)
    assert one.run() == "two"
    assert len(engine.containers) == 1
    one.clear()
    assert one.run() == "two"
    assert not engine.containers


def test_a_failure_shows_the_end_of_the_log(tries, engine):
    engine.plan("etl:7", seconds=0, exit_code=3, lines=["begin", "Traceback: boom"])
    with pytest.raises(JobFailed, match=r"exit code 3(?s:.)*Traceback: boom") as error:
        tries().run()
    assert error.value.job.exit_code == 3
    assert isinstance(error.value, DockerContainerFailedException)
    assert error.value.logs == ["begin", "Traceback: boom"]


@pytest.mark.parametrize("codes", [3, [3, 4], range(2, 5)])
def test_a_code_may_mean_skipped(tries, engine, codes):
    engine.plan("etl:7", seconds=0, exit_code=3)
    with pytest.raises(DockerContainerFailedSkipException):
        tries(skip_on_exit_code=codes, auto_remove="force").run()
    assert not engine.containers


def test_exit_code_0_may_mean_skipped_as_with_the_providers(tries):
    with pytest.raises(DockerContainerFailedSkipException):
        tries(skip_on_exit_code=[0]).run()


def test_a_container_that_somebody_stopped_is_not_run_again(tries, engine):
    engine.plan("etl:7")
    one = tries(retries=2)
    deferred = one.start()
    engine.signal(engine.made[0].id, 15, exit_code=0)
    with pytest.raises(JobCancelled, match="signal 15"):
        one.finish(deferred)


def test_a_container_that_somebody_removed_is_lost(tries, engine):
    engine.plan("etl:7")
    one = tries()
    deferred = one.start()
    engine.remove(engine.made[0].id)
    with pytest.raises(JobLost):
        one.finish(deferred)


# --- tries ----------------------------------------------------------------------------------------


def test_a_retry_takes_the_container_of_the_try_before(tries, engine):
    engine.plan("etl:7", lines=["one"])
    one = tries(retries=1)
    one.start()
    deferred = one.start()
    assert isinstance(deferred, Deferred)
    engine.finish(engine.made[0].id)
    assert one.finish(deferred) == "one"
    assert len(engine.made) == 1


def test_the_log_of_a_container_that_nobody_watched_is_shown_by_the_next_try(tries, engine, logged):
    engine.plan("etl:7", lines=["first-line", "second-line"])
    one = tries(retries=1)
    one.start()
    engine.finish(engine.made[0].id)
    assert one.run() == "second-line"
    assert (logged("first-line"), logged("second-line")) == (1, 1)


def test_a_clear_stops_the_container_and_starts_another(tries, engine):
    engine.plan("etl:7")
    one = tries()
    one.start()
    one.clear()
    one.start()
    first, second = engine.made
    assert (first.status, first.name) == ("exited", f"{first.labels['airflow_resilient.token']}.cancelled")
    assert (second.status, second.labels["airflow_resilient.try_number"]) == ("running", "2")


def test_labels_show_airflows_identity(tries, engine):
    tries(labels={"team": "data"}).run()
    labels = engine.made[0].labels
    assert labels["team"] == "data"
    assert labels["airflow_resilient.dag_id"] == "dag"
    assert labels["airflow_resilient.run_id"] == "run-1"
    assert labels["airflow_resilient.task_id"] == "nightly"
    assert labels["airflow_resilient.map_index"] == "-1"
    tries(labels=["plain"]).run()
    assert engine.made[-1].labels["plain"] == ""


# --- the log while it is deferred -------------------------------------------------------------------


def test_the_log_goes_on_where_it_was_when_the_triggerer_died(tries, engine, monkeypatch, logged):
    kept = {}
    monkeypatch.setattr(triggers.compat, "recall", lambda ti, key: kept.get(key))
    monkeypatch.setattr(triggers.compat, "remember", lambda ti, key, value: kept.update({key: value}))
    monkeypatch.setattr(triggers.RemoteJobTrigger, "task_instance", None, raising=False)
    engine.plan("etl:7", lines=["first-line"])
    one = tries()
    deferred = one.start()
    deferred = replace(deferred, kwargs={**deferred.kwargs, "log_interval": 0.05})
    with pytest.raises(TimeoutError):
        one.watch(deferred, timeout=1.0)
    engine.write(engine.made[0].id, "second-line")
    engine.finish(engine.made[0].id)
    payload = one.watch(deferred)
    assert payload["log"] == ["second-line"], "what is pushed, and no more"
    assert "-line" not in json.dumps(kept), "nothing but the position"
    assert one.resume(deferred, payload) == "second-line"
    assert (logged("first-line"), logged("second-line")) == (1, 1)


def test_the_log_is_whole_when_the_engine_is_away_at_the_end(tries, engine, monkeypatch, logged):
    monkeypatch.setattr(log_forwarder, "_PAUSE_AFTER_ERROR", 0.025)
    engine.plan("etl:7", lines=["first-line"])
    one = tries()
    deferred = one.start()
    engine.finish(engine.made[0].id)
    engine.fail_next("logs", drop=True, times=5)
    one.finish(deferred)
    assert logged("first-line") == 1


def test_an_error_of_the_log_never_changes_the_result(tries, engine, monkeypatch):
    monkeypatch.setattr("airflow_resilient.services.docker.operator._MAX_ATTEMPTS", 1)
    monkeypatch.setattr(log_forwarder, "MAX_DRAIN_SECONDS", 0.1)
    for module in ("operators", "core.logs"):
        monkeypatch.setattr(f"airflow_resilient.{module}.LOG_END_ATTEMPTS", 1)
    engine.fail_next("logs", status=501, times=None)
    assert tries().run() is None
    engine.heal()
    one = tries(do_xcom_push=False)
    engine.fail_next("logs", cut=True, times=None)
    assert one.run() is None


@pytest.mark.parametrize("code", [0, 1], ids=["well", "badly"])
def test_no_line_is_stored_where_nothing_is_pushed_and_each_is_shown_once(
    tries, engine, monkeypatch, logged, code
):
    engine.plan("etl:7", lines=["first-line", "second-line"])
    one = tries(do_xcom_push=False)
    monkeypatch.setattr(triggers.compat, "recall", lambda ti, key: one.xcoms.get(key))
    monkeypatch.setattr(triggers.compat, "remember", lambda ti, key, value: one.xcoms.update({key: value}))
    monkeypatch.setattr(triggers.RemoteJobTrigger, "task_instance", None, raising=False)
    deferred = one.start()
    while "remote_job_log" not in one.xcoms:
        with pytest.raises(TimeoutError):
            one.watch(deferred, timeout=1.0)
    engine.write(engine.made[0].id, "third-line")
    engine.finish(engine.made[0].id, code)
    payload = one.watch(deferred)
    assert one.xcoms["remote_job_log"]["lines"] >= 2
    assert "-line" not in json.dumps([payload, one.xcoms])
    if code:
        with pytest.raises(JobFailed, match=r"first-line\nsecond-line\nthird-line$"):
            one.resume(deferred, payload)
    else:
        assert one.resume(deferred, payload) is None
    assert "-line" not in json.dumps(one.xcoms)
    assert [logged(f"{each}-line") for each in ("first", "second", "third")] == [1, 1, 1]


def test_the_end_of_a_log_is_shown_although_the_job_ends_at_the_deadline(tries, engine, logged):
    engine.plan("etl:7", lines=["first-line"])
    one = tries(execution_timeout=timedelta(seconds=0.5), do_xcom_push=False)
    deferred = one.start()
    payload = one.watch(deferred)
    assert payload["time"]
    engine.write(engine.made[0].id, "last-line")
    with pytest.raises(JobTimeout):
        one.finish(one.resume(deferred, payload))
    assert (logged("first-line"), logged("last-line")) == (1, 1)


@pytest.mark.parametrize(
    ("lines", "last", "all_lines"),
    [
        pytest.param(["42", ""], "", ["42", ""], id="an-empty-last-line-is-the-last-line"),
        pytest.param(["42", "  "], "", ["42", ""], id="blanks-at-the-end-are-left-out"),
        pytest.param([], None, None, id="no-output-at-all"),
    ],
)
def test_the_last_line_is_the_last_line_as_with_the_providers(tries, engine, lines, last, all_lines):
    engine.plan("etl:7", seconds=0, lines=lines)
    assert tries().run() == last
    assert tries(xcom_all=True).run() == all_lines


def test_standard_error_is_output_as_with_the_providers(tries, engine):
    engine.plan("etl:7")
    one = tries()
    deferred = one.start()
    engine.write(engine.made[0].id, "42")
    engine.write(engine.made[0].id, "a-warning", stderr=True)
    engine.finish(engine.made[0].id)
    assert one.finish(deferred) == "a-warning"


# --- secrets ----------------------------------------------------------------------------------------


def test_secrets_reach_the_container_and_nothing_else(tries, engine, logged):
    engine.plan("etl:7")
    one = tries(private_environment={"PASSWORD": SECRET}, environment={"A": "1"}, env_file="B=2\nA=0\n")
    deferred = one.start()
    (made,) = engine.made
    engine.finish(made.id, 1)
    with pytest.raises(JobFailed) as error:
        one.finish(deferred)
    assert made.environment == {"PASSWORD": SECRET, "A": "1", "B": "2", "AIRFLOW_TMP_DIR": "/tmp/airflow"}
    assert SECRET not in json.dumps([deferred.kwargs, one.xcoms, made.labels, str(error.value)])
    assert not logged(SECRET)
    assert not [name for name in vars(one.make_operator()) if name == "private_environment"]


@pytest.mark.parametrize(
    "given",
    [
        {"private_environment": {"PASSWORD": SECRET}},
        {"environment": {"PASSWORD": SECRET}},
        {"env_file": f"PASSWORD={SECRET}"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_refusal_that_quotes_a_value_of_the_environment_is_shown_without_it(tries, engine, given):
    engine.fail_next("create", status=400, message=f"bad variable PASSWORD={SECRET}")
    with pytest.raises(SubmitRefused, match=r"PASSWORD=\(hidden\)"):
        tries(**given).run()


def test_a_command_that_podman_cannot_start_is_refused_and_not_asked_for_again(tries, engine):
    """Docker notes it as the end of the container; podman answers, and leaves it as it was made."""
    engine.fail_next(
        "start",
        status=500,
        message=f'runc: exec: "nosuch {SECRET}": {"x" * 400}: OCI runtime attempted to invoke '
        "a command that was not found",
    )
    with pytest.raises(SubmitRefused, match="Check image, command and entrypoint") as refused:
        tries(command=["nosuch"], environment={"PASSWORD": SECRET}).run()
    assert engine.containers == {}
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_the_registry_is_logged_in_to_for_pulling_alone(tries, engine, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_REGISTRY",
        json.dumps({"conn_type": "docker", "host": "registry:5000", "login": "me", "password": SECRET}),
    )
    one = tries(docker_conn_id="registry", image="registry:5000/etl:8", retries=1)
    with pytest.raises(SubmitRefused, match="manifest unknown"):
        one.run()
    assert [login["username"] for login in engine.logins] == ["me"]
    engine.plan("registry:5000/etl:8")
    deferred = one.start()
    assert len(engine.logins) == 1, "the engine has the image, and a poll needs no registry"
    engine.finish(engine.made[0].id)
    one.finish(deferred)
    assert SECRET not in json.dumps(deferred.kwargs)
    assert len(engine.logins) == 1


# --- the request ------------------------------------------------------------------------------------


def body(tries, engine, **parameters):
    tries(**parameters).run()
    return engine.made[-1].body


def test_what_the_container_is_made_of_is_what_the_provider_makes_it_of(engine):
    """Both operators make one, and every word to the engine is compared."""
    given = {
        "image": "etl:7",
        "command": "['echo', 'hello world']",
        "entrypoint": "sh -c",
        "cpus": 0.5,
        "environment": {"A": "1"},
        "private_environment": {"B": "2"},
        "env_file": "C=3",
        "mem_limit": "64m",
        "network_mode": "host",
        "user": 1000,
        "mounts": [Mount("/data", "vol", type="volume"), {"target": "/logs", "source": "/x", "type": "bind"}],
        "working_dir": "/data",
        "dns": ["1.1.1.1"],
        "dns_search": ["example.com"],
        "shm_size": 1 << 20,
        "tty": True,
        "hostname": "me",
        "privileged": True,
        "cap_add": ["SYS_ADMIN"],
        "extra_hosts": {"db": "10.0.0.1"},
        "log_opts_max_size": "1m",
        "log_opts_max_file": "2",
        "ipc_mode": "host",
        "ulimits": [Ulimit(name="nofile", soft=10, hard=20)],
        "mount_tmp_dir": False,
        "container_name": "chosen",
        "labels": {"team": "data"},
    }

    class Theirs(ProvidersOperator):
        def _run(self):
            self._normalize_mounts()
            client = self.cli
            monkey = client.attach
            client.attach = lambda **_: iter(())
            client.wait = lambda _: {"StatusCode": 0}
            try:
                self._run_image()
            finally:
                client.attach = monkey

    Theirs(task_id="x", docker_url=engine.url, **given)._run()
    engine.containers.clear()
    TaskTries(lambda: DockerOperator(task_id="x", docker_url=engine.url, poll_policy=QUICK, **given)).run()
    theirs, mine = (dict(one.body) for one in engine.made)
    assert {name: mine["Labels"][name] for name in theirs["Labels"]} == theirs.pop("Labels")
    assert sorted(mine.pop("Env")) == sorted(theirs.pop("Env"))
    mine.pop("Labels")
    assert mine == theirs
    assert [one.name for one in engine.made] == ["chosen", "chosen"]


def test_ports_are_published(tries, engine):
    asked = body(tries, engine, port_bindings={8080: 80}, mount_tmp_dir=False)
    assert asked["HostConfig"]["PortBindings"] == {"8080/tcp": [{"HostIp": "", "HostPort": "80"}]}
    assert list(asked["ExposedPorts"]) == ["8080/tcp"]


def test_temporary_files_lie_in_a_volume_that_goes_with_the_container(tries, engine):
    asked = body(tries, engine)
    (mount,) = asked["HostConfig"]["Mounts"]
    assert (mount["Target"], mount["Type"], mount["Source"]) == ("/tmp/airflow", "volume", None)
    assert "AIRFLOW_TMP_DIR=/tmp/airflow" in asked["Env"]
    body(tries, engine, mount_tmp_dir=False)
    assert not engine.made[-1].environment


def test_temporary_files_lie_where_the_user_says(tries, engine, tmp_path):
    engine.plan("etl:7")
    one = tries(host_tmp_dir=str(tmp_path))
    deferred = one.start()
    (folder,) = tmp_path.iterdir()
    assert engine.made[-1].body["HostConfig"]["Mounts"][0]["Source"] == str(folder)
    (folder / "work").write_text("data")
    engine.finish(engine.made[0].id)
    one.finish(deferred)
    assert not folder.exists(), "it is gone when the container has ended"


def test_tls_is_handed_to_the_triggerer_as_paths():
    made = DockerOperator(
        task_id="x",
        image="etl:7",
        docker_url="tcp://engine:2376",
        tls_ca_cert="/ca.pem",
        tls_client_cert="/cert.pem",
        tls_client_key="/key.pem",
        tls_hostname="engine",
    )
    engines = made._engine_access()
    assert engines["tls"] == {
        "ca_cert": "/ca.pem",
        "client_cert": "/cert.pem",
        "client_key": "/key.pem",
        "verify": True,
        "assert_hostname": "engine",
        "ssl_version": None,
    }
    from airflow_resilient.services.docker.client import DockerContainers

    assert DockerContainers(**engines).address()["docker_url"] == ["https://engine:2376"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"image": " "}, "image=' '"),
        ({"auto_remove": True}, "auto_remove=True"),
        ({"skip_on_exit_code": "3"}, "skip_on_exit_code='3'"),
        ({"stop_timeout": -1}, "stop_timeout=-1"),
        ({"retrieve_output": True}, "retrieve_output_path=None"),
        ({"port_bindings": {1: 2}, "network_mode": "host"}, "port_bindings"),
        ({"environment": [f"A={SECRET}"]}, "environment is not valid"),
        ({"private_environment": [f"A={SECRET}"]}, "private_environment is not valid"),
        ({"environment": f'{{"A": "{SECRET}"'}, "environment is not valid (str)"),
        ({"mounts": "everything"}, "mounts is not valid (str)"),
        ({"container_name": "etl:7"}, "container_name='etl:7'"),
        ({"container_name": "etl_manual__2026-01-01T00:00:00+00:00"}, "{{ ts_nodash }}"),
        ({"container_name": "{ ts_nodash }"}, "container_name='{ ts_nodash }'"),
        ({"container_name": "e"}, "container_name='e'"),
        ({"command": f"['echo', '{SECRET}'"}, "command is not valid (str)"),
        ({"entrypoint": f'["sh", "-c", "{SECRET}]'}, "entrypoint is not valid (str)"),
        ({"tls_ca_cert": "/ca.pem"}, "tls_client_cert and tls_client_key, too"),
        ({"tls_ca_cert": "/ca.pem", "tls_client_cert": "/c.pem"}, "tls_client_key, too"),
        ({"tls_client_key": "/key.pem"}, "tls_ca_cert and tls_client_cert, too"),
        ({"tls_hostname": "engine"}, "tls_hostname='engine'"),
        ({"poll_policy": PollPolicy(interval=0)}, "poll_policy is not valid"),
    ],
)
def test_what_cannot_work_is_refused_when_the_dag_is_parsed(parameters, message):
    with pytest.raises(InvalidParameter, match="'nightly'") as error:
        DockerOperator(**{"task_id": "nightly", "image": "etl:7", **parameters})
    assert message in str(error.value)
    assert SECRET not in str(error.value)


def rendered(parameters, **context):
    """Makes the operator as a worker has it: with its templates rendered."""

    def make():
        task = DockerOperator(**parameters)
        task.render_template_fields({"ts_nodash": "20260101T000000", **context})
        return task

    return make


RENDERED = [
    pytest.param({"container_name": "etl_{{ run_id }}"}, "container_name='etl_", id="a-run-id-in-a-name"),
    pytest.param({"container_name": "{{ None }}"}, "container_name='None'", id="a-name-that-was-not-found"),
    pytest.param({"command": "{{ \"['a', 'b\" }}"}, "command is not valid", id="a-list-that-is-not-closed"),
    pytest.param({"environment": "{{ 'A=1' }}"}, "render_template_as_native_obj=True", id="no-dict"),
    pytest.param({"mounts": "{{ run_id }}"}, "mounts is not valid", id="no-mounts"),
]


@pytest.mark.parametrize(("parameters", "message"), RENDERED)
def test_what_a_template_has_rendered_is_refused_without_a_retry(engine, parameters, message):
    given = {"task_id": "nightly", "image": "etl:7", "docker_url": engine.url, "retries": 2, **parameters}
    one = TaskTries(rendered(given, run_id="manual__2026-01-01T00:00:00+00:00"))
    with pytest.raises(InvalidParameter, match="'nightly'") as error:
        one.run()
    assert message in str(error.value)
    assert isinstance(error.value, AirflowFailException)
    assert not engine.made


@pytest.mark.parametrize(
    ("command", "words"),
    [
        pytest.param(
            "[ -f /in.csv ] && cat /in.csv", ["[", "-f", "/in.csv", "]", "&&", "cat", "/in.csv"], id="a-test"
        ),
        pytest.param("[ 'a' = 'b' ]", ["[", "a", "=", "b", "]"], id="a-test-of-texts"),
        pytest.param("[[ $x ]]", ["[[", "$x", "]]"], id="a-test-of-bash"),
        pytest.param("{{ '[ -f /in ]' }}", ["[", "-f", "/in", "]"], id="a-rendered-test"),
        pytest.param("[ 'echo', \"it's\" ]", ["echo", "it's"], id="a-list"),
        pytest.param('["echo", "a"]', ["echo", "a"], id="a-list-of-json"),
        pytest.param("{{ ['echo', run_id] }}", ["echo", "run"], id="a-rendered-list"),
        pytest.param("echo [a]", ["echo", "[a]"], id="a-bracket-behind"),
    ],
)
def test_a_command_is_a_list_only_if_it_is_one(engine, command, words):
    given = {"task_id": "x", "image": "etl:7", "docker_url": engine.url, "poll_policy": QUICK}
    TaskTries(rendered({**given, "command": command}, run_id="run")).run()
    assert engine.made[-1].body["Cmd"] == words


def test_what_a_template_renders_for_a_dict_or_a_list_may_be_its_text(engine):
    given = {
        "environment": '{{ {"A": run_id} | tojson }}',
        "mounts": "{{ [{'target': '/logs', 'source': '/x', 'type': 'bind'}] }}",
        "mount_tmp_dir": False,
        "container_name": "etl_{{ ts_nodash }}",
        "poll_policy": QUICK,
    }
    TaskTries(
        rendered({"task_id": "x", "image": "etl:7", "docker_url": engine.url, **given}, run_id="a")
    ).run()
    (made,) = engine.made
    assert made.environment == {"A": "a"}
    assert [mount["Target"] for mount in made.body["HostConfig"]["Mounts"]] == ["/logs"]
    assert made.name == "etl_20260101T000000"


@pytest.mark.parametrize(
    ("parameters", "modes"),
    [
        pytest.param({"user": 1000}, {"/tmp/airflow": 0o1777}, id="another-user"),
        pytest.param({"user": "app:app", "tmp_dir": "/work"}, {"/work": 0o1777}, id="another-place"),
        pytest.param({"user": "root"}, {}, id="root"),
        pytest.param({"user": "0:0"}, {}, id="root-by-number"),
        pytest.param({}, {}, id="the-images-user-which-is-root"),
        pytest.param({"user": 1000, "mount_tmp_dir": False}, {}, id="no-volume"),
    ],
)
def test_every_user_can_write_temporary_files(tries, engine, parameters, modes):
    tries(**parameters).run()
    assert engine.made[-1].modes == modes


def test_an_engine_that_does_not_open_the_volume_runs_the_container_all_the_same(tries, engine, logged):
    engine.fail_next("extract", status=500)
    assert tries(user=1000).run() == "two"
    assert logged("may be unable to write to /tmp/airflow") == 1


def test_every_user_can_write_to_the_directory_of_the_host(tries, engine, tmp_path):
    engine.plan("etl:7")
    tries(host_tmp_dir=str(tmp_path), user=1000).start()
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o7777 == 0o1777
    assert engine.made[-1].modes == {}
