"""The description of Docker containers for the registry, read before the client is loaded.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from ...core.service import AccessOption, Budget, ServiceInfo

if TYPE_CHECKING:
    from ...core.job import Job


def stop_command(job: Job) -> str:
    """The command that ends a container by hand."""
    engine = re.sub("^https://", "tcp://", job.scope)
    verify = "--tlsverify " if engine != job.scope else ""
    return f"docker {verify}-H {shlex.quote(engine)} stop {shlex.quote(job.id[:12])}"


def read_tls(folder: str | None) -> dict[str, str] | None:
    """Paths of the certificates in a folder, found as the docker command line does."""
    if folder is None and os.environ.get("DOCKER_TLS_VERIFY"):
        folder = os.environ.get("DOCKER_CERT_PATH")
    if not folder:
        return None
    names = {"ca_cert": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}
    return {name: os.path.join(folder, file) for name, file in names.items()}  # noqa: PTH118 - the user's text


SERVICE = ServiceInfo(
    name="docker",
    title="Docker containers",
    client="client:DockerContainers",
    scope_noun="engine",
    public={"DockerOperator": "operator"},
    access=("tls",),
    access_options=(
        AccessOption(
            "tls",
            "--docker-tls",
            "FOLDER",
            "with ca.pem, cert.pem and key.pem for Docker engines with TLS (default DOCKER_CERT_PATH, if "
            "DOCKER_TLS_VERIFY is set)",
            read_tls,
        ),
    ),
    scopes_listable=False,
    scope_parameter="docker_url",
    scope_option="--docker-url",
    # An engine has no limit; this one protects it from overload.
    budget=Budget("docker:containers", per_second=20.0, burst=100.0),
    stop_command=stop_command,
)
