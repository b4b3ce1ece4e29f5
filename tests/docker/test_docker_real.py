"""What a real engine says of real containers, and what it forgets."""

from __future__ import annotations

import contextlib
import os
import subprocess

import engines
import pytest

from airflow_resilient import DockerOperator
from airflow_resilient.core.job import Cause, Claim, Phase, task_key
from airflow_resilient.core.polling import PollPolicy
from airflow_resilient.operations.explain import locate
from airflow_resilient.operations.task_instances import Instance
from airflow_resilient.services.docker.client import DockerContainers
from airflow_resilient.services.docker.read import read_container
from airflow_resilient.testing import LocalDocker, TaskTries
from airflow_resilient.testing.docker.local_docker import NoEngine, make_certificates

QUICK = PollPolicy(
    interval=0.2, first_interval=0.05, max_backoff=0.2, lost_after_polls=2, lost_after_seconds=0.0
)


@pytest.fixture
def engine(real_engine):
    yield real_engine
    with contextlib.closing(real_engine.client()) as client:
        for container in client.containers(all=True):
            client.remove_container(container["Id"], force=True)


@pytest.fixture
def client(engine):
    with contextlib.closing(engine.client()) as made:
        yield made


def claim():
    return Claim(task_key("real", os.urandom(4).hex(), "run", "task", -1), 1)


def service(engine, script, *, host=None, **more):
    command = ["sh", "-c", script] if isinstance(script, str) else script
    request = engines.request(engine.image, command=command, **more)
    request["host"].update(host or {})
    return DockerContainers(docker_url=engine.url, request=request)


def ended(made, job):
    """The end of a container, as the watch sees it."""
    return engines.wait_until(lambda: next((each for each in made.observe([job]) if not each.live), None))


def run(engine, script, **more):
    made = service(engine, script, **more)
    return ended(made, made.submit(claim()))


ENDS = [
    pytest.param("exit 0", Phase.SUCCEEDED, Cause.UNKNOWN, "", id="ok"),
    pytest.param("exit 3", Phase.FAILED, Cause.APPLICATION, "exit code 3", id="badly"),
    pytest.param("nosuch", Phase.FAILED, Cause.APPLICATION, "127", id="a-shell-finds-no-command"),
    pytest.param(["nosuch"], Phase.FAILED, Cause.APPLICATION, "no such command", id="no-such-command"),
    pytest.param(["/tmp"], Phase.FAILED, Cause.APPLICATION, "cannot be executed", id="no-program"),
    pytest.param(
        "sh -c 'kill -SEGV $$'; exit $?", Phase.FAILED, Cause.APPLICATION, "SIGSEGV", id="a-crash-within"
    ),
]


@pytest.mark.parametrize(("script", "phase", "cause", "reason"), ENDS)
def test_an_end_means(engine, script, phase, cause, reason):
    job = run(engine, script)
    assert (job.phase, job.cause) == (phase, cause)
    assert reason.lower() in job.reason.lower()


def test_out_of_memory_is_reported(engine, client):
    job = run(engine, "x=$(head -c 50000000 /dev/zero | tr '\\0' x); sleep 5", host={"mem_limit": "8m"})
    assert (job.phase, job.exit_code) == (Phase.FAILED, 137)
    assert "mem_limit" in job.reason
    # With cgroups v2 an engine does not always notice it: see issue 13119 of hashicorp/nomad.
    seen = client.inspect_container(job.id)
    cause = Cause.APPLICATION if seen["State"]["OOMKilled"] else Cause.UNKNOWN
    assert read_container(seen, job.claim).cause is cause


def test_a_container_that_ends_gracefully_when_somebody_stops_it_is_no_success(engine, client):
    made = service(engine, engines.ENDS_ON_SIGNALS)
    job = made.submit(claim())
    engines.wait_for_line(client, job.id, "ready")
    client.stop(job.id)
    observed = ended(made, job)
    assert (observed.phase, observed.cause, observed.exit_code) == (Phase.CANCELLED, Cause.USER, 0)


def test_a_kill_from_outside_docker_is_reported_as_such(engine, client):
    made = service(engine, "sleep 100")
    job = made.submit(claim())
    os.kill(client.inspect_container(job.id)["State"]["Pid"], 9)
    observed = ended(made, job)
    assert (observed.phase, observed.cause, observed.exit_code) == (Phase.FAILED, Cause.UNKNOWN, 137)
    assert "nobody is known" in observed.reason


def test_one_that_does_not_listen_is_killed_after_its_grace_period(engine):
    made = service(engine, "sleep 100", stop_timeout=1)
    job = made.submit(claim())
    observed = made.cancel(job, "the test asks for it")
    assert (observed.phase, observed.exit_code) == (Phase.CANCELLED, 137)


def test_an_image_that_does_not_run_as_root_can_write_temporary_files(engine):
    def make():
        return DockerOperator(
            task_id="not_root",
            image=engine.image,
            command=[
                "sh",
                "-c",
                "touch $AIRFLOW_TMP_DIR/file && ls -ldn $AIRFLOW_TMP_DIR $AIRFLOW_TMP_DIR/file",
            ],
            user="1000:1000",
            docker_url=engine.url,
            network_mode="none",
            poll_policy=QUICK,
            xcom_all=True,
            auto_remove="force",
        )

    folder, file = TaskTries(make, dag_id=os.urandom(4).hex()).run()
    assert folder.split()[0] == "drwxrwxrwt"
    assert file.split()[2:4] == ["1000", "1000"]


def test_an_image_that_is_nowhere_is_not_a_job(engine):
    request = engines.request("localhost:1/nosuch:1")
    made = DockerContainers(docker_url=engine.url, request=request)
    with pytest.raises(Exception, match="connection refused") as error:
        made.submit(claim())
    assert made.is_transient(error.value), "a registry that refuses connections may come back"


def test_containers_outlive_their_engine_and_are_watched_on(engine, client):
    """kill -9 of dockerd, with live-restore."""
    made = service(engine, "i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.05; done")
    job = made.submit(claim())
    engines.wait_for_line(client, job.id, "3")
    lines, cursor = made.read_log(job, {}, None)
    engine.kill()
    with pytest.raises(Exception) as error:  # noqa: PT011 - which, is the SDK's affair
        made.observe([job])
    assert made.is_transient(error.value)
    engine.start()
    assert made.observe([job]) == [job]
    observed = ended(made, job)
    assert observed.phase is Phase.SUCCEEDED
    more, _ = made.read_log(observed, {}, cursor)
    assert [text for _, text in (*lines, *more)] == [str(number) for number in range(60)]


def test_a_log_is_read_without_gap_and_without_doubles_while_it_is_written(engine):
    """Standard output and standard error, with a long line between them."""
    script = (
        "i=0; while [ $i -lt 2000 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done; "
        "head -c 40000 /dev/zero | tr '\\0' y; echo; printf last"
    )
    made = service(engine, script)
    job = made.submit(claim())
    read, cursor = [], None
    while True:
        observed = next(iter(made.observe([job])))
        lines, cursor = made.read_log(observed, {}, cursor)
        read += [text for _, text in lines]
        if not observed.live and not lines:
            break
    assert [text for text in read if text[0] == "o"] == [f"o{number}" for number in range(2000)]
    assert [text for text in read if text[0] == "e"] == [f"e{number}" for number in range(2000)]
    assert sorted(len(text) for text in read if text[0] == "y") == [40000]
    assert read[-1] == "last"


def test_a_pseudo_tty_changes_nothing(engine):
    request = engines.request(engine.image, command=["sh", "-c", "echo one; echo two"])
    request["config"]["tty"] = True
    made = DockerContainers(docker_url=engine.url, request=request)
    observed = ended(made, made.submit(claim()))
    assert [text for _, text in made.read_log(observed, {}, None)[0]] == ["one", "two"]


@pytest.mark.parametrize("provider", [False, True], ids=["ours", "the-providers"])
def test_a_whole_task_gives_what_the_providers_gives(engine, provider):
    from airflow.providers.docker.operators.docker import DockerOperator as ProvidersOperator

    given = {
        "task_id": "x",
        "image": engine.image,
        "docker_url": engine.url,
        "network_mode": "none",
        "command": """sh -c 'echo "$A $B"; touch $AIRFLOW_TMP_DIR/work; echo done'""",
        "environment": {"A": "a"},
        "private_environment": {"B": "b"},
        "xcom_all": True,
        "auto_remove": "success",
    }
    if provider:
        result = ProvidersOperator(**given).execute.__wrapped__(ProvidersOperator(**given), {})
    else:
        result = TaskTries(
            lambda: DockerOperator(poll_policy=QUICK, **given), dag_id=os.urandom(4).hex()
        ).run()
    assert result == ["a b", "done"]
    with contextlib.closing(engine.client()) as client:
        assert client.containers(all=True) == []
        assert not client.volumes()["Volumes"], "and nothing else is left"


def test_an_engine_that_takes_its_containers_along_does_not_make_them_a_success():
    """Without live-restore an upgrade of the engine stops them; one that ends gracefully ends with code 0."""
    if missing := LocalDocker.missing():
        if os.environ.get("CI"):
            raise AssertionError(missing)
        pytest.skip(missing)
    with LocalDocker(live_restore=False) as engine, contextlib.closing(engine.client()) as client:
        made = service(engine, engines.ENDS_ON_SIGNALS)
        job = made.submit(claim())
        engines.wait_for_line(client, job.id, "ready")
        engine.stop()
        engine.start()
        observed = ended(made, job)
        assert observed.exit_code == 0
        assert observed.phase is not Phase.SUCCEEDED


def test_nothing_of_an_engine_is_left(tmp_path):
    if missing := LocalDocker.missing():
        if os.environ.get("CI"):
            raise AssertionError(missing)
        pytest.skip(missing)
    with LocalDocker() as engine, contextlib.closing(engine.client()) as client:
        made = service(engine, "sleep 100")
        pid = client.inspect_container(made.submit(claim()).id)["State"]["Pid"]
        folder, dockerd = engine.folder, engine.pid
    assert not folder.exists()
    mounts = subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in mounts
    for process in (pid, dockerd):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.fixture(scope="module")
def tls_engine():
    """An engine that accepts clients with a certificate."""
    try:
        with LocalDocker(tls=True) as engine:
            yield engine
    except NoEngine as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no Docker engine here: {error}")


def certificates(engine, folder=None):
    """The operator's parameters."""
    folder = folder or engine.certificates
    files = {"tls_ca_cert": "ca.pem", "tls_client_cert": "cert.pem", "tls_client_key": "key.pem"}
    return {name: str(folder / file) for name, file in files.items()}


@pytest.fixture
def no_other_authorities(monkeypatch):
    """``requests`` lets these override the authority that it is given."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_other_authorities")
def test_a_whole_task_by_tls(tls_engine):
    def make():
        return DockerOperator(
            task_id="by_tls",
            image=tls_engine.image,
            command=["echo", "hello"],
            docker_url=tls_engine.tls_url,
            network_mode="none",
            mount_tmp_dir=False,
            poll_policy=QUICK,
            **certificates(tls_engine),
        )

    assert TaskTries(make, dag_id=os.urandom(4).hex()).run() == "hello"


@pytest.mark.usefixtures("no_other_authorities")
def test_who_has_no_certificate_of_the_engines_authority_gets_an_error_at_once(tls_engine, tmp_path):
    make_certificates(tmp_path / "others")
    for tls in (None, certificates(tls_engine, tmp_path / "others")):
        paths = tls and {name.removeprefix("tls_"): path for name, path in tls.items()}
        made = DockerContainers(docker_url=tls_engine.tls_url, tls=paths)
        with pytest.raises(Exception) as refused:  # noqa: PT011 - which, is the SDK's affair
            made.find([claim()])
        assert not made.is_transient(refused.value)


def test_a_setting_of_requests_that_overrides_the_authority_is_named(tls_engine, monkeypatch, tmp_path):
    make_certificates(tmp_path / "others")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "others" / "ca.pem"))
    paths = {name.removeprefix("tls_"): path for name, path in certificates(tls_engine).items()}
    with pytest.raises(Exception, match=r"REQUESTS_CA_BUNDLE .*overrides tls_ca_cert"):
        DockerContainers(docker_url=tls_engine.tls_url, tls=paths).find([claim()])


@pytest.mark.usefixtures("no_other_authorities")
def test_explain_finds_a_job_by_tls_and_names_the_command_that_ends_it(tls_engine):
    wanted = claim()
    job = service(tls_engine, "sleep 600").submit(wanted)
    paths = {name.removeprefix("tls_"): path for name, path in certificates(tls_engine).items()}
    location = locate(
        Instance("etl", "r", "t"), {}, scopes={"docker": [tls_engine.tls_url]}, access={"tls": paths}
    )
    asked = location.client()
    (found,) = asked.find([wanted])
    assert (found.id, found.live) == (job.id, True)
    command = location.stop_command(found).split()
    environment = {**os.environ, "DOCKER_CERT_PATH": str(tls_engine.certificates)}
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=60)
    assert ended(asked, found).phase is not Phase.SUCCEEDED
