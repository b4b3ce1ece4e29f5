"""The harness itself: what a test can rely on when it starts, kills and asks a real Airflow."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from airflow_resilient.compat import airflow_version
from airflow_resilient.testing.airflow.local_airflow import LocalAirflow, LocalAirflowError, PoolSlots


def state_of(airflow, dag_id, run_id):
    return airflow.task_instance(dag_id, run_id, dag_id).state


def test_run_is_triggered_with_conf_and_its_log_can_be_read(airflow):
    run_id = airflow.trigger("greet", conf={"name": "world"})
    assert airflow.wait_for("greet", run_id) == "success"
    assert "hello" in airflow.task_log("greet", run_id, "greet")
    assert [i.task_id for i in airflow.task_instances("greet", run_id)] == ["greet"]


def test_clear_runs_a_task_again(airflow):
    run_id = airflow.trigger("greet")
    airflow.wait_for("greet", run_id)
    airflow.clear("greet", run_id, ["greet"])
    airflow.wait_until(lambda: airflow.task_instance("greet", run_id, "greet").try_number == 2)
    airflow.wait_for("greet", run_id)
    assert [i.state for i in airflow.tries("greet", run_id, "greet")] == ["success", "success"]


def test_failed_run_is_reported_with_the_log_of_the_task_that_failed(airflow):
    run_id = airflow.trigger("fail")
    with pytest.raises(LocalAirflowError, match=r"is failed, wanted success(.|\n)*as the test asked"):
        airflow.wait_for("fail", run_id, until=["success"])


def test_marking_ends_a_task(airflow):
    run_id = airflow.trigger("sleep_in_first_try")
    # Airflow 2 writes "running" a second time when the task begins, over a mark that came before.
    airflow.wait_until(
        lambda: "try 1" in airflow.task_log("sleep_in_first_try", run_id, "sleep_in_first_try")
    )
    airflow.mark("sleep_in_first_try", run_id, "sleep_in_first_try", "failed")
    assert airflow.wait_for("sleep_in_first_try", run_id) == "failed"


no_retry_of_a_task_alone = pytest.mark.skipif(
    airflow_version() == (3, 0), reason="Airflow 3.0 retries no task that dies while its worker lives on"
)


@pytest.mark.parametrize(
    "worker",
    [
        pytest.param(False, id="task-alone", marks=no_retry_of_a_task_alone),
        pytest.param(True, id="worker-and-task"),
    ],
)
def test_task_process_is_found_and_killed(airflow, worker):
    run_id = airflow.trigger("sleep_in_first_try")
    instance = airflow.task_instance("sleep_in_first_try", run_id, "sleep_in_first_try")
    airflow.wait_until(lambda: state_of(airflow, "sleep_in_first_try", run_id) == "running")
    workers = ["worker"] if airflow_version() >= (3, 0) else ["worker", "worker"]  # with a supervisor between
    airflow.wait_until(lambda: [p.role for p in airflow.task_processes(instance)] == [*workers, "task"])
    killed = airflow.kill_task(instance, worker=worker)
    assert len(killed) == (len(workers) + 1 if worker else 1)
    assert airflow.wait_for("sleep_in_first_try", run_id) == "success"
    assert airflow.task_instance("sleep_in_first_try", run_id, "sleep_in_first_try").try_number == 2


@no_retry_of_a_task_alone
def test_task_is_killed_at_the_moment_that_a_test_chooses(airflow):
    run_id = airflow.trigger("sleep_in_first_try")
    instance = airflow.task_instance("sleep_in_first_try", run_id, "sleep_in_first_try")
    moments = iter([False, False, True])
    assert len(airflow.kill_task_when(instance, lambda: next(moments), worker=False)) == 1
    assert airflow.wait_for("sleep_in_first_try", run_id) == "success"


def test_deferred_task_survives_a_killed_triggerer_and_holds_no_slot(airflow):
    run_id = airflow.trigger("defer")
    airflow.wait_until(lambda: state_of(airflow, "defer", run_id) == "deferred")
    before = airflow.pid("triggerer")
    airflow.kill("triggerer")
    # Without a triggerer it stays deferred for as long as all this takes.
    airflow.wait_until(
        lambda: airflow.deferrals_processed(airflow.task_instance("defer", run_id, "defer")) == 1
    )
    slots = airflow.pool_slots("two_slots")
    assert slots == PoolSlots(total=2, running=0, queued=0, scheduled=0, deferred=slots.deferred, open=2)
    airflow.start("triggerer")
    assert airflow.pid("triggerer") not in {None, before}
    assert airflow.wait_for("defer", run_id) == "success"
    assert airflow.task_instance("defer", run_id, "defer").try_number == 1


def test_condition_that_never_holds_is_reported_with_the_ends_of_all_logs(airflow):
    with pytest.raises(LocalAirflowError) as caught:
        airflow.wait_until(lambda: False, 1, "the sky is green")
    assert "until the sky is green" in str(caught.value)
    assert all(f"--- {name} (running)" in str(caught.value) for name in airflow.components)


def test_everything_listens_on_loopback_only(airflow):
    import psutil

    sessions = {airflow.pid(name) for name in airflow.components}
    addresses = set()
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):  # it has ended meanwhile
            if os.getsid(process.pid) in sessions:
                connections = process.net_connections("inet")
                addresses |= {c.laddr.ip for c in connections if c.status == "LISTEN"}
    assert addresses == {"127.0.0.1"}


def test_second_airflow_runs_beside_the_first_on_another_port_and_leaves_nothing_behind(
    airflow, tmp_path, monkeypatch
):
    (tmp_path / "empty.py").write_text("")
    second = LocalAirflow(tmp_path, progress=print)
    ports = iter([airflow.port])  # as if the first had taken it between choosing and listening
    choose = second._choose_port

    def choose_the_port_of_the_first_one_first():
        choose()
        second.port = next(ports, second.port)
        second._environment = second._make_environment()

    monkeypatch.setattr(second, "_choose_port", choose_the_port_of_the_first_one_first)
    with second:
        pids = [second.pid(name) for name in second.components]
        home = second.home
        assert second.port != airflow.port
        assert home.exists()
    assert not home.exists()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_dead_component_is_reported_at_once_with_its_last_log_lines(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(
        LocalAirflowError, match=r"died with exit code \d+; its last log lines:(.|\n)*NoSuchExecutor"
    ):
        LocalAirflow(tmp_path, executor="NoSuchExecutor", progress=print).open()


def test_python_without_airflow_is_refused(tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(LocalAirflowError, match="has no Airflow"):
        LocalAirflow(tmp_path, python=bare / "bin" / "python").open()
