"""What tests of Docker share."""

import time

ENDS_ON_SIGNALS = [
    "sh",
    "-c",
    "trap 'exit 0' USR1 TERM; trap 'exit 1' USR2; echo ready; while :; do sleep 0.05; done",
]


def request(image, *, command="work", environment=None, name=None, network="none", **further):
    """What `DockerContainers` makes containers of, as the operator writes it."""
    return {
        "config": {"image": image, "command": command, "environment": environment or {}, "labels": {}},
        "host": {"network_mode": network, "auto_remove": False},
        "name": name,
        "labels": {"airflow_resilient.dag_id": "etl"},
        "try_number": 1,
        "stop_timeout": 5,
        **further,
    }


def wait_until(fact, seconds=20.0):
    """Wait for a fact, and return it."""
    until = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.05)
    return found


def wait_for_line(client, container, line):
    """Wait until a container has written a line."""
    wait_until(lambda: line.encode() in client.logs(container))
