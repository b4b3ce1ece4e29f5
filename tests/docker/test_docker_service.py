"""Docker containers against a fake engine: submitting, names, errors, ends, logs, secrets."""

import json
import threading
import time
from dataclasses import replace

import engines
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_resilient import NoCapacity, SubmitRefused
from airflow_resilient.core.decide import Policy, Watch
from airflow_resilient.core.job import NO_CLAIM, Cause, Claim, Owner, Phase
from airflow_resilient.core.reconcile import Memory, reconcile
from airflow_resilient.core.retry import Runtime
from airflow_resilient.services.docker import client as ours
from airflow_resilient.services.docker.client import DockerContainers
from airflow_resilient.services.docker.engine import EngineMismatch, EngineUnreachable, StateChanged
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


def observe(engine, job):
    (seen,) = service(engine).observe([job])
    return seen


def visit(made, *, number=1, since=0, memory=None):
    """What a worker does."""
    naps = []
    runtime = Runtime(lambda: 1e9, naps.append, lambda: 0.5)
    found, verdict = reconcile(
        made,
        Owner(CLAIM.task_key, number, since),
        memory or Memory(1e9),
        Policy(),
        runtime,
        first_visit=memory is None,
    )
    return found, verdict, naps


# --- errors that no wait heals, and how long others are believed to pass -----------------------------


@pytest.mark.parametrize(
    ("operation", "message", "advice"),
    [
        (
            "create",
            "Get https://reg.example/v2/etl/manifests/7: no basic auth credentials",
            "docker_conn_id",
        ),
        ("pull", "Get https://reg.example/v2/: unauthorized: authentication required", "docker_conn_id"),
        (
            "create",
            'Get "https://reg.example/v2/": x509: certificate signed by unknown authority',
            "does not trust the certificate of the registry",
        ),
    ],
)
def test_what_the_registry_refuses_fails_at_once_and_says_what_to_set(engine, operation, message, advice):
    engine.fail_next(operation, status=500, message=message, times=None)
    made = service(engine, force_pull=operation == "pull")
    _, verdict, naps = visit(made)
    assert type(verdict).__name__ == "GaveUp"
    assert advice in verdict.why
    assert naps == []


@pytest.mark.parametrize("image", ["unauthorized:7", "x509:7", "reg.example/unauthorized/x509:7"])
def test_an_image_with_such_a_name_is_no_refusal(engine, image):
    made = service(engine, image=image)
    error = docker_error(f"server error while it made {image}")
    assert made.lasting(error, 1) == ""


def docker_error(message):
    from docker.errors import APIError

    return APIError("500 Server Error", explanation=message)


def test_a_socket_that_is_not_there_has_started_nothing_and_is_given_up_after_ten_minutes(tmp_path):
    made = DockerContainers(docker_url=f"unix://{tmp_path}/none.sock", request=engines.request("etl:7"))
    verdict, seconds = until_it_ends(made)
    assert type(verdict).__name__ == "GaveUp"
    assert seconds == pytest.approx(600, abs=1)
    assert "does not answer" in verdict.why


def until_it_ends(made, hours=3.0):
    """The verdict of a first try that visits again after each pause, and the seconds that have passed."""
    clock, memory, first = [1e9], Memory(1e9), True

    def sleep(seconds):
        clock[0] += seconds

    runtime = Runtime(lambda: clock[0], sleep, lambda: 0.5)
    while True:
        memory, verdict = reconcile(
            made, Owner(CLAIM.task_key, 1), memory, Policy(), runtime, first_visit=first
        )
        if type(verdict).__name__ != "Pause" or clock[0] > 1e9 + hours * 3600:
            return verdict, clock[0] - 1e9
        clock[0] += verdict.seconds
        first = False


# --- the name -------------------------------------------------------------------------------------


def test_the_claim_is_the_name_and_stands_on_labels(engine):
    service(engine).submit(Claim(CLAIM.task_key, 2, resubmission=1))
    (made,) = engine.made
    assert made.name == f"af-{CLAIM.task_key}-2-1"
    assert made.labels == {
        "airflow_resilient.claim": f"af-{CLAIM.task_key}-2",
        "airflow_resilient.token": f"af-{CLAIM.task_key}-2-1",
        "airflow_resilient.task_key": CLAIM.task_key,
        "airflow_resilient.try_number": "1",
        "airflow_resilient.auto_remove": "never",
        "airflow_resilient.stop_timeout": "5",
        "airflow_resilient.dag_id": "etl",
    }
    (found,) = service(engine).find([SECOND])
    assert found.claim.resubmission == 1, "the token that is used up is known from the labels"


def test_the_engine_is_never_asked_to_remove_a_container_by_itself(engine):
    service(engine, auto_remove="force").submit(CLAIM)
    assert engine.made[0].body["HostConfig"].get("AutoRemove") in (None, False)
    (job,) = service(engine).find([CLAIM])
    assert "remove" not in job.facts, "not while it runs"
    engine.finish(job.id)
    assert observe(engine, job).facts["remove"] is True


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


def test_podman_refuses_a_taken_name_with_500_and_the_container_is_adopted(podman):
    podman.fail_next("create", carried_out=True, drop=True)
    _, verdict, _ = visit(service(podman))
    assert isinstance(verdict, Watch)
    assert [one.status for one in podman.made] == ["running"]
    assert service(podman).submit(CLAIM).id == podman.made[0].id


def test_a_container_that_a_dead_try_made_and_did_not_start_is_made_again(engine):
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
    client = service(engine).engines.client(engine.url)
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


def test_a_container_is_searched_for_on_the_engine_that_took_it(engine, spare):
    engine.close()
    job = service(engine, spare).submit(CLAIM)
    assert job.scope == spare.url
    engine.open()
    both = service(engine, spare)
    assert [each.id for each in both.observe([job])] == [job.id]
    assert [each.id for each in both.find([CLAIM])] == [job.id]
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
    with pytest.raises(EngineUnreachable):
        service(engine, spare).find([CLAIM])
    service(spare).submit(CLAIM)
    assert len(service(engine, spare).find([CLAIM])) == 1


def test_an_engine_that_hangs_holds_up_no_other(engine, spare):
    both = service(engine, spare)
    engine.fail_next("version", slow=5.0)
    hanging = threading.Thread(target=both.engines.client, args=(engine.url,))
    hanging.start()
    engines.wait_until(lambda: "version" in engine.calls)
    began = time.monotonic()
    both.engines.client(spare.url)
    assert time.monotonic() - began < 4
    hanging.join()


def test_another_engine_at_the_same_url_does_not_make_a_container_lost(engine):
    job = service(engine).submit(CLAIM)
    assert service(engine).observe([job]) == [job]
    engine.containers.clear()
    assert service(engine).observe([job]) == [], "this engine had it, and does not have it any more"
    engine.engine_id = "ANOTHER"
    for do in (lambda: service(engine).observe([job]), lambda: service(engine).cancel(job, "test")):
        with pytest.raises(EngineMismatch, match="same engine from every worker and triggerer"):
            do()


# --- errors ---------------------------------------------------------------------------------------


def test_an_error_of_an_engine_that_is_away_is_transient(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.close()
    for one in (made, service(engine)):
        with pytest.raises(Exception) as error:  # noqa: PT011 - which, is the SDK's affair
            one.observe([job])
        assert one.is_transient(error.value)
    engine.open()
    assert made.observe([job]) == [job]


def test_a_socket_that_may_not_be_opened_is_no_transient_error():
    made = DockerContainers(docker_url="unix:///x")
    error = ConnectionError("aborted")
    error.__cause__ = PermissionError(13, "Permission denied")
    assert not made.is_transient(error)
    assert made.refuses_scope(error)


def test_a_url_that_makes_no_sense_is_an_error_at_once(engine):
    with pytest.raises(Exception, match="nonsense") as error:
        DockerContainers(docker_url="nonsense://x").submit(CLAIM)
    assert not service(engine).is_transient(error.value)


@pytest.mark.parametrize("operation", ["list", "inspect", "events"])
def test_a_poll_is_complete_or_an_error(engine, operation):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.finish(job.id, 0)
    for fault in ({"drop": True}, {"status": 500}, {"cut": True}):
        engine.fail_next(operation, **fault)
        with pytest.raises(Exception) as error:  # noqa: PT011 - see above
            made.observe([job])
        assert made.is_transient(error.value), fault
    assert observe(engine, job).phase is Phase.SUCCEEDED


def test_an_engine_that_does_not_answer_in_time_is_a_transient_error(engine, monkeypatch):
    monkeypatch.setattr("airflow_resilient.services.docker.engine.ANSWER_TIMEOUT", 0.1)
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


@pytest.mark.parametrize(
    "value",
    ["no", "left", "on", "space", "device", "no space left on device", "write /var: no space left on device"],
)
def test_a_full_engine_is_no_capacity_whatever_the_values_of_the_user_are(engine, value):
    engine.fail_next("create", status=500, message="write /var: no space left on device")
    with pytest.raises(NoCapacity) as error:
        service(engine, environment={"A": value}, secrets=[value]).submit(CLAIM)
    assert len(value) < 3 or value not in str(error.value)


@pytest.mark.parametrize(
    "message",
    [
        "bad variable A=no space left on device",
        'invalid label "no space left"',
        "invalid mount path: '/srv/no space left' must be absolute",
        "invalid command [no space left on device]",
    ],
)
def test_a_value_that_the_engine_quotes_is_no_want_of_capacity(engine, message):
    engine.fail_next("create", status=400, message=message)
    with pytest.raises(SubmitRefused) as error:
        service(engine, command=["no space left on device"]).submit(CLAIM)
    assert not isinstance(error.value, NoCapacity)


def test_a_long_error_is_understood_to_its_end(engine):
    engine.fail_next("create", status=500, message=f"{500 * 'x'}: no space left on device")
    with pytest.raises(NoCapacity):
        service(engine).submit(CLAIM)


def test_another_name_that_is_in_use_is_not_that_of_the_container(engine):
    engine.fail_next("create", status=409, message="volume nightly is in use")
    with pytest.raises(SubmitRefused, match="volume nightly is in use"):
        service(engine).submit(CLAIM)


def test_an_engine_or_a_container_named_certificate_may_be_away_for_a_while():
    import requests

    for text in (
        "HTTPSConnectionPool(host='certificate.example', port=2376): Read timed out.",
        "Max retries exceeded with url: /v1.44/containers/certificate/json (Caused by: refused)",
    ):
        assert DockerContainers(docker_url="unix:///x").is_transient(requests.ConnectionError(text))
    refused = requests.ConnectionError("host='x': certificate verify failed: unable to get local issuer")
    assert not DockerContainers(docker_url="unix:///x").is_transient(refused)


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


TAGS = ["503", "500", "timeout", "i-o-timeout", "toomanyrequests", "rate-limit", "http.503"]


@pytest.mark.parametrize("tag", ["7", *TAGS])
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    "answered",
    [
        "manifest for {image} not found: manifest unknown: manifest unknown",
        "pull access denied for {image}, repository does not exist or may require 'docker login'",
        "failed to resolve reference {image}: {image}: not found",
    ],
)
def test_an_image_is_refused_whatever_its_tag_looks_like(engine, tag, streamed, answered):
    for image in (f"reg.example/etl:{tag}", f"new:{tag}", f"reg.example/{tag}:7", f"reg-{tag}.example/etl:7"):
        if streamed:
            engine.registry_error = answered.format(image=image)
        else:
            engine.fail_next("pull", status=404, message=answered.format(image=image))
        with pytest.raises(SubmitRefused):
            service(engine, image=image).submit(CLAIM)


@pytest.mark.parametrize("tag", ["7", *TAGS])
@pytest.mark.parametrize(
    "answered",
    [
        'Get "https://reg.example/v2/": dial tcp 10.0.0.1:443: i/o timeout',
        'Get "https://reg.example/v2/": net/http: TLS handshake timeout',
        'Get "https://reg.example/v2/": net/http: canceled (Client.Timeout exceeded while awaiting headers)',
        "toomanyrequests: You have reached your pull rate limit.",
        "received unexpected HTTP status: 503 Service Unavailable",
        "unexpected status code 502 Bad Gateway",
        "error parsing HTTP 429 response body: invalid character 'T': \"Too Many Requests (HAP429).\"",
        "dial tcp: lookup reg.example on 10.0.0.2:53: no such host",
        "context deadline exceeded",
    ],
)
def test_a_registry_that_is_away_is_waited_for_whatever_the_tag_looks_like(engine, tag, answered):
    engine.registry_error = answered
    with pytest.raises(EngineUnreachable):
        service(engine, image=f"reg.example/etl:{tag}", environment={"A": tag}).submit(CLAIM)


def test_a_registry_that_is_away_is_waited_for(engine):
    made = service(engine, image="new:1")
    engine.registry_error = "Get https://registry/v2/: net/http: TLS handshake timeout"
    with pytest.raises(EngineUnreachable, match="could not be pulled"):
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
    assert observe(engine, job).phase is Phase.CANCELLED


def test_a_signal_that_ends_nothing_does_not_count(engine):
    job = service(engine).submit(CLAIM)
    engine.signal(job.id, 1, exit_code=0)
    assert observe(engine, job).phase is Phase.SUCCEEDED


def test_what_we_have_stopped_is_known_when_the_engine_has_forgotten(engine):
    job = service(engine).submit(CLAIM)
    service(engine).cancel(job, "the test asks for it")
    engine.close()
    engine.open()
    assert observe(engine, job).phase is Phase.CANCELLED
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
        assert observe(engine, job).phase is Phase.SUCCEEDED, "the engine knows that nobody ended it"
        engine.close()
        engine.open()
        assert observe(engine, job).phase is phase


def test_exit_code_0_that_a_busy_engine_has_forgotten_is_a_success(engine):
    first, second = service(engine).submit(CLAIM), service(engine).submit(OTHER)
    engine.finish(first.id, 0)
    for _ in range(300):
        engine.signal(second.id, 10, 0)
    assert observe(engine, first).phase is Phase.SUCCEEDED


def test_what_ended_by_itself_does_not_become_cancelled(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.finish(job.id, 0)
    assert made.cancel(job, "too late").phase is Phase.SUCCEEDED
    assert observe(engine, job).phase is Phase.SUCCEEDED


def test_what_ends_as_it_is_to_be_stopped_does_not_become_cancelled(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    seen = made._inspect(made.engines.client(engine.url), job.id)
    engine.finish(job.id, 0)
    made._stop(made.engines.client(engine.url), seen)
    assert observe(engine, job).phase is Phase.SUCCEEDED


def test_a_container_gets_the_grace_that_it_was_started_with_no_matter_who_stops_it(engine):
    job = service(engine, stop_timeout=7).submit(CLAIM)
    service(engine, stop_timeout=3).cancel(job, "a later try, or the sweep, asks for it")
    assert engine.containers[job.id].grace == 7


def test_a_container_without_the_claim_is_neither_stopped_nor_observed(engine, caplog):
    theirs = service(engine).submit(OTHER)
    named = replace(theirs, claim=CLAIM)
    assert service(engine).cancel(named, "an XCom says that it is ours").phase is Phase.LOST
    assert service(engine).observe([named]) == []
    assert service(engine).cancel(replace(theirs, claim=NO_CLAIM), "mistaken").phase is Phase.LOST
    assert observe(engine, theirs).phase is Phase.RUNNING
    assert f"its labels do not have the claim {CLAIM}" in caplog.text
    engine.finish(theirs.id, 0)
    assert service(engine).observe([named]) == []


def test_a_container_tells_its_generation(engine):
    made = service(engine)
    job = made.submit(replace(CLAIM, generation="1.1"))
    again = made.submit(replace(CLAIM, generation="2.3"))
    (found,) = made.find([CLAIM])
    assert (again.id, again.claim.generation, found.claim.generation) == (job.id, "1.1", "1.1")
    assert observe(engine, replace(job, claim=CLAIM)).claim.generation == "1.1"
    engine.finish(job.id, 0)
    assert observe(engine, replace(job, claim=CLAIM)).claim.generation == "1.1"


def test_a_cancel_does_not_wait_forever(engine, monkeypatch):
    monkeypatch.setattr(ours, "_MAX_STOP_SECONDS", 0.05)
    job = service(engine).submit(CLAIM)
    engine.fail_next("stop", slow=0.5)
    assert service(engine).cancel(job, "the test asks for it").phase is Phase.STOPPING
    engines.wait_until(lambda: engine.containers[job.id].name.endswith(".cancelled"))
    assert observe(engine, job).phase is Phase.CANCELLED


def test_a_cancel_that_the_engine_refuses_is_reported(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.fail_next("stop", status=500)
    with pytest.raises(Exception, match="500") as error:
        made.cancel(job, "the test asks for it")
    assert made.is_transient(error.value)


def test_a_container_that_runs_is_not_removed(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    with pytest.raises(StateChanged, match="is running and was not removed"):
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
    monkeypatch.setattr(ours, "_MAX_LINES_PER_READ", 30)
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


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        pytest.param("a" + "\u00f6" * 20_000, id="pieces-end-within-a-character"),
        pytest.param("begin " + "x" * 340_000 + " end", id="340-kb"),
        pytest.param("begin " + "\u2603" * 1_000_000 + " end", id="three-megabytes"),
        pytest.param("x" * 16 * 1024, id="one-piece-exactly"),
    ],
)
def test_a_long_line_is_one_line_and_is_whole(engine, line, tty):
    made = service(engine)
    made.request["config"]["tty"] = tty
    job = made.submit(CLAIM)
    engine.write(job.id, "first", line)
    engine.finish(job.id)
    job = observe(engine, job)
    # Not as they are: pytest takes minutes to compare texts of megabytes that differ.
    whole, read = hash(line), [text for _, text in made.read_log(job, {}, None)[0]]
    assert list(map(hash, read)) == [hash("first"), whole]
    assert list(map(hash, made.last_lines(job, {}, 1))) == [whole]
    assert list(map(hash, made.last_lines(job, {}, 2))) == [hash("first"), whole]


def test_only_a_long_line_at_the_end_costs_more_than_one_call(engine):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.write(job.id, "the only one")
    assert made.last_lines(job, {}, 1) == ("the only one",)
    assert engine.calls.count("logs") == 1


def test_an_event_with_an_odd_label_is_read_all_the_same(engine):
    """A text is split at more characters than JSON lines are, some of which Go does not escape."""
    made = service(engine, labels={"note": "one\x85two"})
    job = made.submit(CLAIM)
    engine.signal(job.id, 15, exit_code=0)
    assert observe(engine, job).phase is Phase.CANCELLED


@pytest.mark.parametrize("odd", ["soon", "9" * 5000, "-1", "\u0663"], ids=["word", "long", "minus", "arabic"])
def test_a_container_whose_label_says_no_number_is_stopped_all_the_same(engine, odd):
    made = service(engine)
    job = made.submit(CLAIM)
    engine.containers[job.id].labels["airflow_resilient.stop_timeout"] = odd
    assert made.cancel(job, "the test asks for it").phase is Phase.CANCELLED
    assert engine.containers[job.id].grace == ours.STOP_TIMEOUT


@given(
    st.none()
    | st.integers()
    | st.text(max_size=3)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(
        st.sampled_from(["since", "count", "last", "more"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_an_odd_cursor_ends_no_reading(engine, cursor):
    made = service(engine)
    job = made.submit(CLAIM)
    if not engine.containers[job.id].log:
        engine.write(job.id, "one")
    lines, after = made.read_log(job, {}, cursor)
    assert len(lines) <= 1
    json.dumps(after)


# --- secrets --------------------------------------------------------------------------------------


def test_the_address_has_no_request(engine):
    made = service(engine, environment={"PASSWORD": SECRET}, secrets=[SECRET], docker_conn_id="registry")
    job = made.submit(CLAIM)
    assert engine.made[0].environment == {"PASSWORD": SECRET}
    assert SECRET not in json.dumps([made.address(), job.to_dict()])
    assert "registry" not in json.dumps(made.address())
