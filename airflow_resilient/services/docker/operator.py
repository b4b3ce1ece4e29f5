"""The operator that runs a container."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from ...compat import AirflowSkipException
from ...core.job import Cause, LogTail, Phase
from ...core.overrides import NotCalled
from ...core.retry import Runtime, retry_transient
from ...core.shapes import wanted_of
from ...core.text import error_text
from ...errors import JobUnreachable, also, error_of, hiding
from ...operators import RemoteJobOperator
from ...parameters import (
    NOT_GIVEN,
    codes_of,
    is_open,
    is_templated,
    listed_codes,
    read_literal,
    read_structures,
    reject,
    reject_hidden,
    require_choice,
    require_codes,
    require_match,
    require_shapes,
)
from .client import OPEN_TO_ALL, STOP_TIMEOUT, DockerContainers
from .engine import default_url
from .read import LABEL_PREFIX
from .request import SHAPES, has_login, secrets_of, unfit_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from ...core.job import Job
    from .client import T


_MAX_ATTEMPTS = 6  # half a minute, to read the result of an ended container

_CONTAINER_NAME = r"(?!None$)/?[a-zA-Z0-9][a-zA-Z0-9_.-]+|"
"""What engines take for a name; ``None`` is a template without a value, and an empty name is none.

Source: ``RestrictedNameChars`` in ``daemon/names/names.go`` of moby.
"""

_EXCEPTIONS = "airflow.providers.docker.exceptions"

_TLS = ("ca_cert", "client_cert", "client_key", "verify", "assert_hostname", "ssl_version")


_REQUEST = (
    "set the parameters of the container, such as device_requests, mounts and environment, in execute() "
    "before super().execute(context)"
)
_NOT_THE_ENGINE = "this class calls the engine with docker_url, docker_conn_id and tls_*; set those"


class DockerOperator(RemoteJobOperator):
    """Run a container once per try, and wait for it without a worker slot.

    A drop-in for the docker provider's operator of this name: it takes the same parameters, with the same
    meaning unless noted here, and returns the same values. See also `RemoteJobOperator`.

    :param image: the image; pulled where the engine does not have it (templated).
    :param api_version: of the engine's API; by default, or with ``auto``, the engine's own.
    :param command: a string, a list, or the text of a list (templated). A text such as
        ``[ -f /in.csv ] && cat /in.csv`` is no list; to run it, use ``["sh", "-c", "..."]``. Prefer the list:
        in the text of one, a rendered value with quotation marks may add arguments.
    :param container_name: by default the claim (templated). Letters, digits, ``_``, ``.`` and ``-``: a run id
        contains others. A container that has ended is renamed when its name is needed again.
    :param cpus: share of the processor, times 1024.
    :param docker_url: URL of the engine, or of several: the first that answers takes the container. It must
        lead to the same engine from every worker and triggerer. Default ``DOCKER_HOST``, or the socket.
    :param environment: variables for the container, a dict, or the text of one that a template renders
        (templated); never logged.
    :param private_environment: the same, neither templated nor shown.
    :param env_file: the content of an ``.env`` file (templated).
    :param force_pull: pull the image before each submission.
    :param mem_limit: bytes, or a text such as ``"1g"``.
    :param mount_tmp_dir: mount a directory for temporary files at `tmp_dir`, set as ``AIRFLOW_TMP_DIR``: a
        volume that is removed with the container, or a directory below `host_tmp_dir`. Every user may write
        to it, as to ``/tmp`` (mode 1777), because many images do not run as root.
    :param host_tmp_dir: a directory of the engine's host to which this worker can write, too.
    :param mounts: ``docker.types.Mount``, or its keywords as dicts (templated).
    :param network_mode: this and `user`, `entrypoint`, `working_dir`, `dns`, `dns_search`, `shm_size`, `tty`,
        `hostname`, `privileged`, `cap_add`, `extra_hosts`, `device_requests`, `ipc_mode`, `port_bindings`,
        `ulimits` and `labels` are Docker's own.
    :param tls_ca_cert: path of a certificate; together with `tls_client_cert` and `tls_client_key`, connect
        to the engine with TLS, configured by `tls_verify`, `tls_hostname` and `tls_ssl_version`. The
        triggerer reads the same paths.
    :param xcom_all: return all lines of the log, not just the last one.
    :param docker_conn_id: connection with the login to the image's registry, for pulling (templated).
    :param auto_remove: ``"never"``; ``"success"``: when it has succeeded; ``"force"``: after any end.
    :param retrieve_output: return the object pickled in the file `retrieve_output_path` of the container.
    :param timeout: seconds for calls of the engine's API.
    :param log_opts_max_size: size at which the engine rotates the log; it keeps `log_opts_max_file` files.
        Lines that are rotated away before they are read are lost.
    :param skip_on_exit_code: exit code, or a container of them, for which the task instance is skipped.
    :param stop_timeout: seconds between the signal that stops the container and the kill, when it is
        cancelled.
    :return: the last line of the log or all of them, if ``do_xcom_push`` is on, or the object of
        `retrieve_output`.
    :raises InvalidParameter: a parameter is wrong.
    """

    ui_color = "#e5f2fa"
    template_fields: Sequence[str] = (
        "image",
        "command",
        "environment",
        "env_file",
        "container_name",
        "mounts",
        "docker_conn_id",
    )
    template_fields_renderers = {"env_file": "yaml"}  # noqa: RUF012 - Airflow's own spelling
    template_ext: Sequence[str] = (".sh", ".bash", ".env")
    log_interval = 5.0
    not_called: ClassVar[Mapping[str, NotCalled]] = {
        "hook": NotCalled(_NOT_THE_ENGINE, refused=True, even_if_used=True),
        "cli": NotCalled(_NOT_THE_ENGINE, refused=True, even_if_used=True),
        "_run_image": NotCalled(_REQUEST, refused=True),
        "_run_image_with_mounts": NotCalled(_REQUEST, refused=True),
        "_normalize_mounts": NotCalled("set mounts", refused=True),
        "format_command": NotCalled("set command, which may be a list or the text of one", refused=True),
        "unpack_environment_variables": NotCalled("set env_file or environment", refused=True),
        "_attempt_to_retrieve_result": NotCalled("set retrieve_output_path, or override conclude()"),
        "_copy_from_docker": NotCalled("set retrieve_output_path, or override conclude()"),
    }

    def __init__(  # noqa: PLR0913, PLR0915 - the provider's parameters
        self,
        *,
        image: str = NOT_GIVEN,
        api_version: str | None = None,
        command: str | list[str] | None = None,
        container_name: str | None = None,
        cpus: float = 1.0,
        docker_url: str | list[str] | None = None,
        environment: dict[str, Any] | None = None,
        private_environment: dict[str, Any] | None = None,
        env_file: str | None = None,
        force_pull: bool = False,
        mem_limit: float | str | None = None,
        host_tmp_dir: str | None = None,
        network_mode: str | None = None,
        tls_ca_cert: str | None = None,
        tls_client_cert: str | None = None,
        tls_client_key: str | None = None,
        tls_verify: bool = True,
        tls_hostname: str | bool | None = None,
        tls_ssl_version: str | None = None,
        mount_tmp_dir: bool = True,
        tmp_dir: str = "/tmp/airflow",  # noqa: S108 - in the container
        user: str | int | None = None,
        mounts: list[Any] | None = None,
        entrypoint: str | list[str] | None = None,
        working_dir: str | None = None,
        xcom_all: bool = False,
        docker_conn_id: str | None = None,
        dns: list[str] | None = None,
        dns_search: list[str] | None = None,
        auto_remove: Literal["never", "success", "force"] = "never",
        shm_size: int | None = None,
        tty: bool = False,
        hostname: str | None = None,
        privileged: bool = False,
        cap_add: Iterable[str] | None = None,
        extra_hosts: dict[str, str] | None = None,
        retrieve_output: bool = False,
        retrieve_output_path: str | None = None,
        timeout: int = 60,
        device_requests: list[Any] | None = None,
        log_opts_max_size: str | None = None,
        log_opts_max_file: str | None = None,
        ipc_mode: str | None = None,
        skip_on_exit_code: int | Container[int] | None = None,
        port_bindings: dict[Any, Any] | None = None,
        ulimits: list[Any] | None = None,
        labels: dict[str, str] | list[str] | None = None,
        stop_timeout: int = STOP_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if kwargs.get("poll_policy") is None:
            # The listing of an engine has no lag: a container that is not listed does not exist.
            self.poll_policy = replace(self.poll_policy, lost_after_polls=2, lost_after_seconds=0.0)
        self.image = image
        self.api_version = api_version
        self.command = command
        self.container_name = container_name
        self.cpus = cpus
        self.docker_url = docker_url or default_url()
        self.environment = environment or {}
        self._private_environment = private_environment or {}
        self.env_file = env_file
        self.force_pull = force_pull
        self.mem_limit = mem_limit
        self.host_tmp_dir = host_tmp_dir
        self.network_mode = network_mode
        self.tls_ca_cert = tls_ca_cert
        self.tls_client_cert = tls_client_cert
        self.tls_client_key = tls_client_key
        self.tls_verify = tls_verify
        self.tls_hostname = tls_hostname
        self.tls_ssl_version = tls_ssl_version
        self.mount_tmp_dir = mount_tmp_dir
        self.tmp_dir = tmp_dir
        self.user = user
        self.mounts = mounts or []
        self.entrypoint = entrypoint
        self.working_dir = working_dir
        self.xcom_all = xcom_all
        self.docker_conn_id = docker_conn_id
        self.dns = dns
        self.dns_search = dns_search
        self.auto_remove = auto_remove
        self.shm_size = shm_size
        self.tty = tty
        self.hostname = hostname
        self.privileged = privileged
        self.cap_add = cap_add
        self.extra_hosts = extra_hosts
        self.retrieve_output = retrieve_output
        self.retrieve_output_path = retrieve_output_path
        self.timeout = timeout
        self.device_requests = device_requests
        self.log_opts_max_size = log_opts_max_size
        self.log_opts_max_file = log_opts_max_file
        self.ipc_mode = ipc_mode
        self.skip_on_exit_code = listed_codes(skip_on_exit_code)
        self.port_bindings = port_bindings or {}
        self.ulimits = ulimits or []
        self.labels = labels
        self.stop_timeout = stop_timeout
        self._check(rendered=False)

    @cached_property
    def hook(self) -> Any:
        """The docker provider's hook with this task's parameters, made when first used.

        This operator calls the engine by itself: what is assigned here changes nothing else. Needs the docker
        provider.
        """
        from airflow.providers.docker.hooks.docker import DockerHook

        tls = DockerHook.construct_tls_config(
            ca_cert=self.tls_ca_cert,
            client_cert=self.tls_client_cert,
            client_key=self.tls_client_key,
            verify=self.tls_verify,
            assert_hostname=self.tls_hostname,
            ssl_version=self.tls_ssl_version,
        )
        return DockerHook(
            docker_conn_id=self.docker_conn_id,
            base_url=self.docker_url,
            version=self.api_version,
            tls=tls,
            timeout=self.timeout,
        )

    @property
    def cli(self) -> Any:
        """The docker SDK's ``APIClient`` of that hook."""
        return self.hook.api_client

    @property
    def container(self) -> dict[str, Any] | None:
        """The engine's ``{"Id": …}`` of this try's container; ``None`` while there is none."""
        if self._container is not None:
            return self._container
        job = self.current_job()
        return None if job is None else {"Id": job.id}

    @container.setter
    def container(self, container: dict[str, Any] | None) -> None:
        """Show another value to code that reads it."""
        self._container = container

    _container: dict[str, Any] | None = None

    # --- for the base class ---

    def remote_jobs(self, context: Context) -> DockerContainers:
        """The engines, with the request."""
        # Again: templates are values now. What `execute` has filled in on another object is not here.
        self._check(rendered=self._first_visit)
        request = self._request(context)
        unfit = unfit_option(request)
        if unfit:
            option, problem = unfit
            given = {**request["config"], **request["host"]}[option]
            reject_hidden(self, option, given, f"what the docker SDK takes; it raises {problem}")
        return DockerContainers(**self._engine_access(), request=request, log=self.log)

    def conclude(self, context: Context, job: Job, log: LogTail) -> Any:
        """Return the result of the container, and remove it if `auto_remove` asks for it."""
        service = self._containers(context)
        if 0 in codes_of(self.skip_on_exit_code):
            self._remove_ended(service, job)
            skip = AirflowSkipException("skip_on_exit_code names exit code 0, with which the container ended")
            raise also(skip, f"{_EXCEPTIONS}:DockerContainerFailedSkipException", logs=list(log.lines))
        with hiding(service.hide):
            value = self._read_result(service, job, log)
        self._remove_ended(service, job)
        return value

    def failure(self, context: Context, job: Job, log: LogTail) -> Exception:
        """The error with the end of the log, or a skip for one of the codes of `skip_on_exit_code`."""
        service = self._containers(context)
        lines = list(log.lines)
        error = error_of(job, log)
        if job.phase is not Phase.LOST:
            self._remove_ended(service, job)
            error = also(error, f"{_EXCEPTIONS}:DockerContainerFailedException", logs=lines)
        by_itself = job.phase is Phase.FAILED and job.cause is Cause.APPLICATION
        if by_itself and job.exit_code is not None and job.exit_code in codes_of(self.skip_on_exit_code):
            skip = AirflowSkipException(f"skip_on_exit_code names exit code {job.exit_code}. {error}")
            return also(skip, f"{_EXCEPTIONS}:DockerContainerFailedSkipException", logs=lines)
        return error

    def timed_out(self, context: Context, job: Job) -> None:
        """Remove the container that was stopped at the deadline, if `auto_remove` asks for it."""
        self._remove_ended(self._containers(context), job)

    def job_log(self) -> dict[str, Any]:
        """The container itself has the log."""
        return {"stream": "both"}

    # --- internal: the result ---

    def _containers(self, context: Context) -> DockerContainers:
        return cast("DockerContainers", self._jobs(context))

    def lines_of_log_needed(self, job: Job) -> int:
        """None where the container has succeeded: its result is read on its own."""
        return 0 if job.phase is Phase.SUCCEEDED else self.log_lines

    def _read_result(self, service: DockerContainers, job: Job, log: LogTail) -> Any:
        """The return value of the task.

        :raises JobUnreachable: it cannot be read; the container is kept, with its result.
        """
        try:
            if self.retrieve_output:
                return self._read_object(service, job)
            if not self.do_xcom_push:
                return None
            lines = self._retry(service, lambda: service.last_lines(job, {}, 0 if self.xcom_all else 1))
        except Exception as error:
            transient = service.is_transient(error)
            if self.retrieve_output and not transient:
                raise
            if not self.retrieve_output and (not transient or (log.lines and not self.xcom_all)):
                self.log.warning("the container's log cannot be read: %s", service.hide(str(error)))
                return log.last_line  # the trigger has read the log to its end
            raise JobUnreachable(
                f"{job.id} has succeeded, but its result cannot be read now: {service.hide(str(error))}. "
                "It was not removed: the next try reads its result",
                job,
            ) from error
        if not lines:
            return None
        return list(lines) if self.xcom_all else lines[-1]

    def _read_object(self, service: DockerContainers, job: Job) -> Any:
        import io
        import pickle

        content = self._retry(service, lambda: service.file(job, str(self.retrieve_output_path)))
        if content is None:
            return None
        # The provider's parameter, with its meaning: the image is as trusted as the DAG.
        return getattr(self, "pickling_library", pickle).load(io.BytesIO(content))

    def _retry(self, service: DockerContainers, call: Callable[[], T]) -> T:
        import random

        return retry_transient(
            call,
            service.is_transient,
            Runtime(time.time, time.sleep, random.random, self.log),
            _MAX_ATTEMPTS,
            lambda error: service.hide(error_text(error)),
        )

    def _remove_ended(self, service: DockerContainers, job: Job) -> None:
        """Remove the containers of this task instance that have ended and that `auto_remove` asks to remove.

        The end of this one has been reported by now. The orphan sweep removes what cannot be removed here.
        """
        if self.host_tmp_dir and self.mount_tmp_dir:
            import shutil

            shutil.rmtree(self._tmp_dir(job.claim.task_key), ignore_errors=True)
        if self.auto_remove == "never":
            return
        try:
            ended = service.list_ended(job.claim.task_key)
            for each in ended:
                service.remove(each)
        except Exception as error:  # noqa: BLE001 - the result stands
            self.log.warning(
                "a container was not removed; the orphan sweep can remove it: %s", service.hide(str(error))
            )

    # --- internal: the request ---

    def _engine_access(self) -> dict[str, Any]:
        """How to reach the engines: keywords of `DockerContainers`."""
        tls = None
        if self.tls_ca_cert and self.tls_client_cert and self.tls_client_key:
            tls = {name: getattr(self, f"tls_{name}", None) for name in _TLS}
            tls["assert_hostname"] = self.tls_hostname
        version = None if str(self.api_version).lower() in ("auto", "none", "") else self.api_version
        return {
            "docker_url": self.docker_url,
            "api_version": version,
            "tls": tls,
            "timeout": self.timeout,
        }

    def _request(self, context: Context) -> dict[str, Any]:
        """The request for the container."""
        from docker.types import LogConfig

        ti: Any = context["ti"]
        mounts = [self._mount(place, each) for place, each in enumerate(self.mounts)]
        from_file = self._read_env_file()
        environment = {**from_file, **self.environment, **self._private_environment}
        environment.pop("AIRFLOW_TMP_DIR", None)
        secrets = tuple(
            secrets_of(
                environment=[from_file, self.environment, self._private_environment],
                command=_words(self, "command", self.command),
                entrypoint=_words(self, "entrypoint", self.entrypoint),
                labels=self.labels,
                mounts=mounts,
            )
        )
        if self.mount_tmp_dir:
            mounts.append(self._tmp_mount(context))
            environment["AIRFLOW_TMP_DIR"] = self.tmp_dir
        options = {"max-size": self.log_opts_max_size, "max-file": self.log_opts_max_file}
        given = self.labels if isinstance(self.labels, Mapping) else dict.fromkeys(self.labels or (), "")
        ours = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
        return {
            "config": {
                "image": self.image,
                "command": _words(self, "command", self.command),
                "environment": environment,
                "ports": list(self.port_bindings),
                "user": self.user,
                "entrypoint": _words(self, "entrypoint", self.entrypoint),
                "working_dir": self.working_dir,
                "tty": self.tty,
                "hostname": self.hostname,
                "labels": dict(given),
            },
            "host": {
                "auto_remove": False,
                "mounts": mounts,
                "network_mode": self.network_mode,
                "shm_size": self.shm_size,
                "dns": self.dns,
                "dns_search": self.dns_search,
                "cpu_shares": round(self.cpus * 1024),
                "port_bindings": self.port_bindings,
                "mem_limit": self.mem_limit,
                "cap_add": sorted(self.cap_add) if self.cap_add is not None else None,
                "extra_hosts": self.extra_hosts,
                "privileged": self.privileged,
                "device_requests": self.device_requests,
                "log_config": LogConfig(
                    config={name: value for name, value in options.items() if value is not None}
                ),
                "ipc_mode": self.ipc_mode,
                "ulimits": self.ulimits,
            },
            "name": self.container_name,
            "labels": {f"{LABEL_PREFIX}.{name}": str(value) for name, value in ours.items()},
            "secrets": secrets,
            "tmp_dir": self.tmp_dir if self.mount_tmp_dir and not self.host_tmp_dir else None,
            "auto_remove": self.auto_remove,
            "stop_timeout": self.stop_timeout,
            "try_number": ti.try_number,
            "force_pull": self.force_pull,
            "docker_conn_id": self.docker_conn_id,
        }

    def _check_tls(self) -> None:
        """All three certificates or none: with fewer, the connection would not be encrypted."""
        files = ("tls_ca_cert", "tls_client_cert", "tls_client_key")
        given = [name for name in files if getattr(self, name)]
        others = [name for name in ("tls_hostname", "tls_ssl_version") if getattr(self, name)]
        if len(given) == len(files) or not (given or others):
            return
        missing = " and ".join(name for name in files if name not in given)
        first = (given or others)[0]
        reject(self, first, getattr(self, first), f"{missing}, too: TLS needs all of {', '.join(files)}")

    def _mount(self, place: int, given: Any) -> Any:
        """A ``docker.types.Mount``, from its keywords.

        :raises InvalidParameter: they are none.
        """
        from docker.types import Mount

        if isinstance(given, Mount) or "Target" in given:
            return given
        made, problem = None, ""
        try:
            made = Mount(**{"source": None, **given})
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises; its text may quote a secret
            problem = type(error).__name__
        if problem:
            wanted = f"keywords that docker.types.Mount takes: target, source, type, read_only … ({problem})"
            reject_hidden(self, f"mounts[{place}]", given, wanted)
        return made

    def _read_env_file(self) -> dict[str, Any]:
        if self.env_file is None:
            return {}
        from io import StringIO

        from dotenv import dotenv_values

        return dict(dotenv_values(stream=StringIO(self.env_file)))

    def _tmp_mount(self, context: Context) -> Any:
        """The mount for temporary files: it must outlive this process, and this worker."""
        from docker.types import Mount

        if not self.host_tmp_dir:
            return Mount(self.tmp_dir, None, type="volume")
        path = self._tmp_dir(self._owner(context).task_key)
        os.makedirs(path, exist_ok=True)  # noqa: PTH103 - the user's text, unchanged
        with contextlib.suppress(PermissionError):  # another worker made it, as another user
            os.chmod(path, OPEN_TO_ALL)  # noqa: PTH101 - see above
        return Mount(self.tmp_dir, path, type="bind")

    def _tmp_dir(self, task_key: str) -> str:
        return os.path.join(str(self.host_tmp_dir), f"airflowtmp-{task_key}")  # noqa: PTH118 - the user's text

    def _check(self, *, rendered: bool) -> None:
        """Check the parameters; templates and empty values are checked after rendering.

        :raises InvalidParameter: with the task, the parameter and what to write.
        """
        read_structures(self, SHAPES, {"environment": {}, "mounts": []}, rendered=rendered)
        require_shapes(self, SHAPES, rendered=rendered)
        for name in ("command", "entrypoint"):
            _words(self, name, getattr(self, name))
        for url in [self.docker_url] if isinstance(self.docker_url, str) else self.docker_url:
            if has_login(url):
                wanted = "a URL without a password, which the docker SDK drops; use TLS or ssh"
                reject_hidden(self, "docker_url", url, wanted)
        named = isinstance(self.image, str) and self.image.strip()
        if not named and not is_open(self.image, rendered=rendered):
            reject(self, "image", self.image, "the name of an image, such as image='etl:7'")
        require_choice(self, "auto_remove", self.auto_remove, ("never", "success", "force"))
        require_codes(self, "skip_on_exit_code", self.skip_on_exit_code)
        if not isinstance(self.stop_timeout, int) or self.stop_timeout < 0:
            reject(self, "stop_timeout", self.stop_timeout, "a whole number of seconds, 0 or more")
        if self.container_name is not None:
            wanted = (
                "letters, digits, _, . and -, such as 'etl_{{ ts_nodash }}' ({{ run_id }} contains : and +), "
                "or leave it out: the default is unique"
            )
            require_match(self, "container_name", self.container_name, _CONTAINER_NAME, wanted)
        private: Any = self._private_environment
        if not isinstance(private, Mapping):  # it is no template field
            reject_hidden(self, "private_environment", private, wanted_of(SHAPES["_private_environment"]))
        self._check_tls()
        if self.retrieve_output and not self.retrieve_output_path:
            reject(self, "retrieve_output_path", self.retrieve_output_path, "a path in the container")
        if self.port_bindings and self.network_mode == "host":
            reject(
                self,
                "port_bindings",
                self.port_bindings,
                "none with network_mode='host', which publishes all ports",
            )


def _words(task: Any, parameter: str, command: Any) -> Any:
    """Parse a command: the text of a list is a list, any other text is one; ``[`` is a program, too.

    :raises InvalidParameter: the text begins like a list of texts and is none.

    >>> _words(None, "command", "[ 'echo', 'hello' ]"), _words(None, "command", "[ -f /a ] && cat /a")
    (['echo', 'hello'], '[ -f /a ] && cat /a')
    """
    if not isinstance(command, str) or not command.lstrip().startswith("[") or is_templated(command):
        return command
    try:
        found = read_literal(command)
    except ValueError:
        found = None
    if isinstance(found, list):
        return found
    if re.match(r"""\s*\[\s*(".*?"|'.*?')\s*,""", command, re.DOTALL):
        reject_hidden(
            task, parameter, command, "a list, or its text with every quotation mark and bracket closed"
        )
    return command
