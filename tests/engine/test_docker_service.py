"""Docker containers against a fake engine: submitting, names, trouble, ends, logs, secrets."""

import json
import threading
import time

import engines
import pytest

from airflow_resilient import NoCapacity, SubmitRefused
from airflow_resilient import docker as ours
from airflow_resilient.docker import DockerContainers, EngineAway, _AnotherEngine
from airflow_resilient.jobs import Cause, Claim, Memory, Owner, Phase, Policy, Senses, Watch, reconcile
from airflow_resilient.testing import FakeDocker

CLAIM = Claim("abcdefghijklmnop", 1)
SECOND = Claim("abcdefghijklmnop", 2)
OTHER = Claim("ponmlkjihgfedcba", 1)
SECRET = "hunter2"


@pytest.fixture
def engine():
    with FakeDocker() as fake:
        fake.plan("etl:7", stop_code=0)
        yield fake


@pytest.fixture
def podman():
    with FakeDocker(podman=True) as fake:
        fake.plan("etl:7")
        yield fake


def service(engine, *others, image="etl:7", **request):
    urls = [engine.url, *(other.url for other in others)]
    return DockerContainers(docker_url=urls, request=engines.request(image, **request))


def look(engine, job):
    (seen,) = service(engine).observe([job])
    return seen


def visit(made, *, number=1, since=0, memory=None):
    """What a worker does."""
    naps = []
    senses = Senses(lambda: 1e9, naps.append, lambda: 0.5)
    found, verdict = reconcile(
        made,
        Owner(CLAIM.family, number, since),
        memory or Memory(1e9),
        Policy(),
        senses,
        fresh=memory is None,
    )
    return found, verdict, naps


# --- the name -------------------------------------------------------------------------------------


def test_the_claim_is_the_name_and_stands_on_labels(engine):
    service(engine).submit(Claim(CLAIM.family, 2, again=1))
    (made,) = engine.made
    assert made.name == f"af-{CLAIM.family}-2-1"
    assert made.labels == {
        "airflow_resilient.claim": f"af-{CLAIM.family}-2",
        "airflow_resilient.token": f"af-{CLAIM.family}-2-1",
        "airflow_resilient.family": CLAIM.family,
        "airflow_resilient.try_number": "1",
        "airflow_resilient.auto_remove": "never",
        "airflow_resilient.stop_timeout": "5",
        "airflow_resilient.dag_id": "etl",
    }
    (found,) = service(engine).find([SECOND])
    assert found.claim.again == 1, "the token that is used up is known from the labels"


def test_the_engine_is_never_told_to_remove_a_container_by_itself(engine):
    service(engine, auto_remove="force").submit(CLAIM)
    assert engine.made[0].body["HostConfig"].get("AutoRemove") in (None, False)
    (job,) = service(engine).find([CLAIM])
    assert "remove" not in job.facts, "not while it runs"
    engine.finish(job.id)
    assert look(engine, job).facts["remove"] is True


def test_two_workers_at_the_same_moment_come_to_one_container(engine):
    gate, jobs = threading.Barrier(4), []

    def work():
        one = service(engine)
        gate.wait()
        jobs.append(one.submit(CLAIM))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.id for job in jobs}) == 1
    assert len(engine.made) == 1


@pytest.mark.parametrize("operation", ["create", "start"])
@pytest.mark.parametrize("how", [{"drop": True}, {"status": 500}, {"status": 500, "drop": True}])
def test_a_lost_answer_leads_to_one_container(engine, operation, how):
    engine.fail_next(operation, carried_out=True, **how)
    _, verdict, _ = visit(service(engine))
    assert isinstance(verdict, Watch)
    assert [one.status for one in engine.made] == ["running"]


def test_podman_tells_of_a_taken_name_with_500_and_the_container_is_adopted(podman):
    podman.fail_next("create", carried_out=True, drop=True)
    _, verdict, _ = visit(service(podman))
    assert isinstance(verdict, Watch)
    assert [one.status for one in podman.made] == ["running"]
    assert service(podman).submit(CLAIM).id == podman.made[0].id


def test_a_container_that_a_dead_try_made_and_did_not_start_is_made_anew(engine):
    engine.fail_next("start", status=500)
    with pytest.raises(Exception, match="500"):
        service(engine, command="old").submit(CLAIM)
    assert service(engine).find([CLAIM]) == [], "what never ran is no job"
    job = service(engine, command="new", try_number=2).submit(CLAIM)
    assert [one.body["Cmd"] for one in engine.made] == [["old"], ["new"]]
    assert set(engine.containers) == {job.id}


def test_a_chosen_name_is_the_containers_and_is_given_up_when_it_is_needed_again(engine):
    first = service(engine, name="nightly").submit(CLAIM)
    assert engine.made[0].name == "nightly"
    assert service(engine, name="nightly").submit(CLAIM).id == first.id, "the name is the token"
    engine.finish(first.id, 1)
    second = service(engine, name="nightly").submit(SECOND)
    assert engine.containers[second.id].name == "nightly"
    assert {job.id for job in service(engine).find([CLAIM, SECOND])} == {first.id, second.id}


def test_a_chosen_name_that_another_task_instance_uses_is_no_capacity(engine):
    service(engine, name="nightly").submit(OTHER)
    with pytest.raises(NoCapacity, match="container_name"):
        service(engine, name="nightly").submit(CLAIM)


def test_a_container_of_somebody_else_is_never_touched(engine):
    client = service(engine)._client(engine.url)
    foreign = client.create_container("etl:7", name=str(CLAIM))["Id"]
    with pytest.raises(SubmitRefused, match=f"in use by {foreign}, which Airflow did not make"):
        service(engine).submit(CLAIM)
    assert set(engine.containers) == {foreign}


# --- several engines ------------------------------------------------------------------------------


@pytest.fixture
def spare():
    with FakeDocker() as fake:
        fake.plan("etl:7")
        yield fake


def test_the_engine_that_took_the_container_is_where_it_is_looked_for(engine, spare):
    engine.close()
    job = service(engine, spare).submit(CLAIM)
    assert job.scope == spare.url
    engine.open()
    both = service(engine, spare)
    assert [look.id for look in both.observe([job])] == [job.id]
    assert [look.id for look in both.find([CLAIM])] == [job.id]
    both.cancel(job, "the test asks for it")
    assert not spare.live()


def test_an_engine_that_has_gone_since_is_passed_over(engine, spare):
    both = service(engine, spare)
    assert both.submit(CLAIM).scope == engine.url
    engine.close()
    assert both.submit(OTHER).scope == spare.url


def test_an_engine_that_is_away_may_have_the_container_unless_it_lives_elsewhere(engine, spare):
    service(engine).submit(CLAIM)
    engine.close()
    with pytest.raises(EngineAway):
        service(engine, spare).find([CLAIM])
    service(spare).submit(CLAIM)
    assert len(service(engine, spare).find([CLAIM])) == 1


def test_an_engine_that_hangs_holds_up_no_other(engine, spare):
    both = service(engine, spare)
    engine.fail_next("version", slow=5.0)
    hanging = threading.Thread(target=both._client, args=(engine.url,))
    hanging.start()
    engines.wait_until(lambda: "version" in engine.calls)
    began = time.monotonic()
    both._client(spare.url)
    assert time.monotonic() - began < 4
    hanging.join()


def test_another_engine_at_the_same_url_does_not_make_a_container_lost(engine):
    job = service(engine).submit(CLAIM)
    assert service(engine).observe([job]) == [job]
    engine.containers.clear()
    assert service(engine).observe([job]) == [], "this engine had it, and has it no more"
    engine.engine_id = "ANOTHER"
    for do in (lambda: service(engine).observe([job]), lambda: service(engine).cancel(job, "test")):
        with pytest.raises(_AnotherEngine, match="same engine from every worker and triggerer"):
            do()


# --- trouble --------------------------------------------------------------------------------------


def test_a_look_at_an_engine_that_is_away_passes(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.close()
    for one in (made, service(engine)):
        with pytest.raises(Exception) as error:  # noqa: PT011 - which, is the SDK's affair
            one.observe([job])
        assert one.is_transient(error.value)
    engine.open()
    assert made.observe([job]) == [job]


def test_a_socket_that_may_not_be_opened_does_not_pass():
    made = DockerContainers(docker_url="unix:///x")
    error = ConnectionError("aborted")
    error.__cause__ = PermissionError(13, "Permission denied")
    assert not made.is_transient(error)
    assert made.refuses_scope(error)


def test_a_url_that_makes_no_sense_is_told_at_once(engine):
    with pytest.raises(Exception, match="nonsense") as error:
        DockerContainers(docker_url="nonsense://x").submit(CLAIM)
    assert not service(engine).is_transient(error.value)


@pytest.mark.parametrize("operation", ["list", "inspect", "events"])
def test_a_look_is_whole_or_none(engine, operation):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.finish(job.id, 0)
    for fault in ({"drop": True}, {"status": 500}, {"cut": True}):
        engine.fail_next(operation, **fault)
        with pytest.raises(Exception) as error:  # noqa: PT011 - see above
            made.observe([job])
        assert made.is_transient(error.value), fault
    assert look(engine, job).phase is Phase.SUCCEEDED


def test_an_engine_that_does_not_answer_in_time_passes(engine, monkeypatch):
    monkeypatch.setattr(ours, "_ANSWER", 0.1)
    made = service(engine)
    job = made.submit(CLAIM)
    engine.finish(job.id)
    engine.fail_next("events", slow=0.5)
    with pytest.raises(Exception, match="timed out") as error:
        made.observe([job])
    assert made.is_transient(error.value)


def test_a_full_engine_is_no_capacity(engine):
    engine.fail_next("create", status=500, message="write /var: no space left on device")
    with pytest.raises(NoCapacity, match="no space left"):
        service(engine).submit(CLAIM)


def test_a_refusal_hides_what_may_be_secret(engine):
    engine.fail_next("create", status=400, message=f"bad variable PASSWORD={SECRET}")
    with pytest.raises(SubmitRefused, match=r"PASSWORD=\(hidden\) \(400\)") as error:
        service(engine, secrets=[SECRET]).submit(CLAIM)
    assert SECRET not in repr(error.value.response)


# --- images ---------------------------------------------------------------------------------------


def test_an_image_is_pulled_when_the_engine_does_not_have_it(engine):
    engine.registry.add("new:1")
    service(engine, image="new:1").submit(CLAIM)
    assert engine.calls.count("pull") == 1
    service(engine, image="new:1").submit(OTHER)
    assert engine.calls.count("pull") == 1
    service(engine, image="new:1", force_pull=True).submit(SECOND)
    assert engine.calls.count("pull") == 2


def test_an_image_that_nobody_has_is_refused(engine):
    with pytest.raises(SubmitRefused, match="manifest unknown"):
        service(engine, image="nosuch:1").submit(CLAIM)


def test_an_image_is_pulled_once_for_a_submit_also_when_the_engine_misses_it_still(engine):
    engine.fail_next("create", status=404, message="No such image: etl:7", times=None)
    engine.registry.add("etl:7")
    with pytest.raises(SubmitRefused, match="No such image"):
        service(engine).submit(CLAIM)
    assert engine.calls.count("pull") == 1


def test_a_registry_that_is_away_is_waited_for(engine):
    made = service(engine, image="new:1")
    engine.registry_error = "Get https://registry/v2/: net/http: TLS handshake timeout"
    with pytest.raises(EngineAway, match="could not be pulled"):
        made.submit(CLAIM)
    engine.registry_error = "denied: requested access to the resource is denied"
    with pytest.raises(SubmitRefused, match="docker_conn_id"):
        made.submit(CLAIM)


# --- ends -----------------------------------------------------------------------------------------


def test_a_container_that_cannot_be_started_has_failed_and_is_not_asked_again(engine):
    engine.plan("etl:7", start_error='exec: "nosuch": executable file not found in $PATH', exit_code=127)
    job = service(engine).submit(CLAIM)
    assert (job.phase, job.cause, job.exit_code) == (Phase.FAILED, Cause.APPLICATION, 127)
    assert [found.phase for found in service(engine).find([CLAIM])] == [Phase.FAILED]


def test_exit_code_0_after_a_signal_from_somebody_is_no_success(engine):
    job = service(engine).submit(CLAIM)
    engine.signal(job.id, 15, exit_code=0)
    assert look(engine, job).phase is Phase.CANCELLED


def test_a_signal_that_ends_nothing_does_not_count(engine):
    job = service(engine).submit(CLAIM)
    engine.signal(job.id, 1, exit_code=0)
    assert look(engine, job).phase is Phase.SUCCEEDED


def test_what_we_have_stopped_is_known_when_the_engine_has_forgotten(engine):
    job = service(engine).submit(CLAIM)
    service(engine).cancel(job, "the test asks for it")
    engine.close()
    engine.open()
    assert look(engine, job).phase is Phase.CANCELLED
    assert engine.containers[job.id].name == f"{CLAIM}.cancelled"


@pytest.mark.parametrize(
    ("engine_is", "phase"),
    [
        ({}, Phase.FAILED),
        ({"bridge": False}, Phase.FAILED),
        ({"live_restore": True}, Phase.SUCCEEDED),
        ({"podman": True}, Phase.SUCCEEDED),
    ],
)
def test_exit_code_0_from_before_a_restart_of_the_engine_is_unknown_if_it_ends_containers(engine_is, phase):
    with FakeDocker(**engine_is) as engine:
        engine.plan("etl:7")
        job = service(engine).submit(CLAIM)
        engine.finish(job.id, 0)
        assert look(engine, job).phase is Phase.SUCCEEDED, "the engine knows that nobody ended it"
        engine.close()
        engine.open()
        assert look(engine, job).phase is phase


def test_exit_code_0_that_a_busy_engine_has_forgotten_is_a_success(engine):
    first, second = service(engine).submit(CLAIM), service(engine).submit(OTHER)
    engine.finish(first.id, 0)
    for _ in range(300):
        engine.signal(second.id, 10, 0)
    assert look(engine, first).phase is Phase.SUCCEEDED


def test_what_ended_by_itself_does_not_become_cancelled(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.finish(job.id, 0)
    assert made.cancel(job, "too late").phase is Phase.SUCCEEDED
    assert look(engine, job).phase is Phase.SUCCEEDED


def test_what_ends_as_it_is_to_be_stopped_does_not_become_cancelled(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    seen = made._inspect(made._client(engine.url), job.id)
    engine.finish(job.id, 0)
    made._stop(made._client(engine.url), seen)
    assert look(engine, job).phase is Phase.SUCCEEDED


def test_a_container_gets_the_grace_that_it_was_started_with_whoever_stops_it(engine):
    job = service(engine, stop_timeout=7).submit(CLAIM)
    service(engine, stop_timeout=3).cancel(job, "a later try, or the sweep, asks for it")
    assert engine.containers[job.id].grace == 7


def test_a_cancel_does_not_wait_for_ever(engine, monkeypatch):
    monkeypatch.setattr(ours, "_LONGEST_STOP", 0.05)
    job = service(engine).submit(CLAIM)
    engine.fail_next("stop", slow=0.5)
    assert service(engine).cancel(job, "the test asks for it").phase is Phase.STOPPING
    engines.wait_until(lambda: engine.containers[job.id].name.endswith(".cancelled"))
    assert look(engine, job).phase is Phase.CANCELLED


def test_a_cancel_that_the_engine_refuses_is_told(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.fail_next("stop", status=500)
    with pytest.raises(Exception, match="500") as error:
        made.cancel(job, "the test asks for it")
    assert made.is_transient(error.value)


def test_a_container_that_runs_is_not_removed(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    with pytest.raises(ours._LookAgain, match="runs, and is not removed"):
        made.remove(job)
    assert made.observe([job]) == [job]


def test_a_container_that_was_removed_is_gone(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.remove(job.id)
    assert made.observe([job]) == []
    assert made.cancel(job, "the test asks for it").phase is Phase.LOST


# --- logs -----------------------------------------------------------------------------------------


def test_a_log_is_read_on_from_where_it_was_left(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.write(job.id, "one", "two")
    lines, cursor = made.read_log(job, {}, None)
    assert [text for _, text in lines] == ["one", "two"]
    assert made.read_log(job, {}, cursor)[0] == []
    engine.write(job.id, "three")
    lines, cursor = service(engine).read_log(job, {}, json.loads(json.dumps(cursor)))
    assert [text for _, text in lines] == ["three"]


def test_lines_of_the_same_second_are_not_doubled_on_podman(podman):
    made = service(podman)
    job = made.submit(CLAIM)
    read, cursor = [], None
    for number in range(5):
        podman.write(job.id, str(number))
        lines, cursor = made.read_log(job, {}, cursor)
        read += [text for _, text in lines]
    assert read == list("01234")


def test_a_stream_that_is_dropped_is_read_again_from_the_same_place(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.write(job.id, *(str(number) for number in range(100)))
    engine.fail_next("logs", cut=True)
    with pytest.raises(Exception) as error:  # noqa: PT011 - see above
        made.read_log(job, {}, None)
    assert made.is_transient(error.value)
    assert len(made.read_log(job, {}, None)[0]) == 100


def test_a_long_log_comes_in_portions(engine, monkeypatch):
    monkeypatch.setattr(ours, "_LINES_AT_ONCE", 30)
    made = service(engine)
    job = made.submit(CLAIM)
    engine.write(job.id, *(str(number) for number in range(100)))
    read, cursor = [], None
    for _ in range(4):
        lines, cursor = made.read_log(job, {}, cursor)
        read += [text for _, text in lines]
    assert read == [str(number) for number in range(100)]


def test_the_last_lines_are_asked_for_without_the_rest(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.write(job.id, *(str(number) for number in range(100)))
    assert made.last_lines(job, {}, 1) == ("99",)
    assert len(made.last_lines(job, {}, 0)) == 100


# --- secrets --------------------------------------------------------------------------------------


def test_the_address_has_no_request(engine):
    made = service(engine, environment={"PASSWORD": SECRET}, secrets=[SECRET], docker_conn_id="registry")
    job = made.submit(CLAIM)
    assert engine.made[0].environment == {"PASSWORD": SECRET}
    assert SECRET not in json.dumps([made.address(), job.pack()])
    assert "registry" not in json.dumps(made.address())
