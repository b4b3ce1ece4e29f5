"""Docker containers keep the promises of every service: on fake engines and on a real one."""

import contextlib
import time

import engines
import pytest

from airflow_resilient.services.docker.client import DockerContainers
from airflow_resilient.testing import FakeDocker, RemoteJobsContract


class TestFakeEngine(RemoteJobsContract):
    podman = False

    @pytest.fixture(autouse=True)
    def _engine(self):
        with FakeDocker(podman=self.podman) as self.engine:
            self.engine.plan("etl:7", stop_code=0)
            yield

    def service(self):
        return DockerContainers(docker_url=self.engine.url, request=engines.request("etl:7"))

    def now(self):
        return self.engine.now()

    def let_time_pass(self, seconds):
        self.engine.advance(seconds)

    def finish(self, job, succeeded=True):
        self.engine.finish(job.id, 0 if succeeded else 1)

    def lose_answer_of_next_submit(self):
        self.engine.fail_next("create", carried_out=True, drop=True)

    def throttle_next_call(self):
        self.engine.fail_next("*", status=503)


class TestFakePodman(TestFakeEngine):
    podman = True


class TestLostAnswerOfStart(TestFakeEngine):
    """What starts a container is the second call; its answer may be lost, too."""

    def lose_answer_of_next_submit(self):
        self.engine.fail_next("start", carried_out=True, drop=True)


class TestRealEngine(RemoteJobsContract):
    """The same with containers that end as a signal asks, and that stop gracefully, with code 0."""

    @pytest.fixture(autouse=True)
    def _engine(self, real_engine):
        self.engine = real_engine
        yield
        with contextlib.closing(real_engine.client()) as client:
            for container in client.containers(all=True):
                client.remove_container(container["Id"], force=True)

    def service(self):
        request = engines.request(self.engine.image, command=engines.ENDS_ON_SIGNALS)
        return DockerContainers(docker_url=self.engine.url, request=request)

    def let_time_pass(self, seconds):
        time.sleep(min(seconds, 0.1))  # its own clock: poll again soon

    def finish(self, job, succeeded=True):
        with contextlib.closing(self.engine.client()) as client:
            engines.wait_for_line(client, job.id, "ready")
            client.kill(job.id, signal="USR1" if succeeded else "USR2")
