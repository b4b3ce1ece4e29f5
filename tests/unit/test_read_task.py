"""What one look at an ECS task means."""

import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from airflow_resilient.ecs import read_task, trim_tasks
from airflow_resilient.jobs import Cause, Claim, Job, Phase

CLAIM = Claim("abcdefghijklmnop", 1)
CREATED = datetime(2026, 1, 1, tzinfo=timezone.utc)
STOPPED = datetime(2026, 1, 1, 0, 5, tzinfo=timezone.utc)
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/etl/0123456789abcdef0123456789abcdef"


def container(code=None, reason=None, name="main", **more):
    """A container as DescribeTasks shows it: what is not known is left out."""
    known = {"exitCode": code, "reason": reason}
    return {"name": name, **{key: value for key, value in known.items() if value is not None}, **more}


def stopped(
    *containers, code="EssentialContainerExited", reason="Essential container in task exited", **more
):
    task = {
        "taskArn": ARN,
        "clusterArn": "arn:aws:ecs:eu-west-1:123456789012:cluster/etl",
        "taskDefinitionArn": "arn:aws:ecs:eu-west-1:123456789012:task-definition/nightly:7",
        "createdAt": CREATED,
        "stoppedAt": STOPPED,
        "desiredStatus": "STOPPED",
        "lastStatus": "STOPPED",
        "stoppedReason": reason,
        "containers": list(containers),
        **more,
    }
    return {**task, "stopCode": code} if code else task


ENDS = [
    # --- success, and nothing less ---
    pytest.param(
        stopped(container(0)),
        Phase.SUCCEEDED,
        Cause.UNKNOWN,
        0,
        id="exit-code-0-of-the-only-container-is-success",
    ),
    pytest.param(
        stopped(container(0), container(0, name="sidecar")),
        Phase.SUCCEEDED,
        Cause.UNKNOWN,
        0,
        id="all-containers-with-exit-code-0-is-success",
    ),
    pytest.param(
        stopped(container(0), code=None, reason=None),
        Phase.SUCCEEDED,
        Cause.UNKNOWN,
        0,
        id="exit-code-0-without-a-stop-code-is-success",
    ),
    pytest.param(stopped(), Phase.FAILED, Cause.UNKNOWN, None, id="no-container-at-all-is-no-success"),
    pytest.param(
        stopped(container()),
        Phase.FAILED,
        Cause.UNKNOWN,
        None,
        id="a-container-without-exit-code-is-no-success",
    ),
    pytest.param(
        stopped(container(0), container(name="sidecar")),
        Phase.FAILED,
        Cause.UNKNOWN,
        None,
        id="one-exit-code-missing-is-no-success",
    ),
    # --- the application ---
    pytest.param(
        stopped(container(3)),
        Phase.FAILED,
        Cause.APPLICATION,
        3,
        id="another-exit-code-is-the-applications-failure",
    ),
    pytest.param(
        stopped(container(0), container(4, name="second"), container(5, name="third")),
        Phase.FAILED,
        Cause.APPLICATION,
        4,
        id="the-first-exit-code-that-is-not-0-counts",
    ),
    pytest.param(
        stopped(container(), container(4, name="second")),
        Phase.FAILED,
        Cause.APPLICATION,
        4,
        id="an-exit-code-tells-more-than-a-missing-one",
    ),
    pytest.param(
        stopped(container(137, "OutOfMemoryError: Container killed due to memory usage")),
        Phase.FAILED,
        Cause.APPLICATION,
        137,
        id="out-of-memory-is-the-applications-failure",
    ),
    pytest.param(
        stopped(container(1), code=None, reason=None),
        Phase.FAILED,
        Cause.APPLICATION,
        1,
        id="a-failure-without-a-stop-code-is-the-applications",
    ),
    pytest.param(
        stopped(container(1), code="TaskFailedToStart", reason="Essential container in task exited"),
        Phase.FAILED,
        Cause.APPLICATION,
        1,
        id="a-container-that-failed-before-the-others-started-is-the-applications-failure",
    ),
    # --- a person ---
    pytest.param(
        stopped(container(0), code="UserInitiated", reason="Task stopped by user"),
        Phase.CANCELLED,
        Cause.USER,
        None,
        id="a-graceful-stop-by-a-user-is-no-success",
    ),
    pytest.param(
        stopped(container(143), code="UserInitiated", reason="airflow_resilient: superseded"),
        Phase.CANCELLED,
        Cause.USER,
        143,
        id="a-stop-by-a-user-is-no-failure-of-the-application",
    ),
    pytest.param(
        stopped(container(), code="UserInitiated", reason="RESOURCE: we need the capacity, i/o timeout"),
        Phase.CANCELLED,
        Cause.USER,
        None,
        id="what-the-user-wrote-is-not-read-as-AWS-words",
    ),
    # --- the infrastructure ---
    pytest.param(
        stopped(container(0), code="SpotInterruption", reason="Your Spot Task was interrupted."),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        None,
        id="a-spot-interruption-with-exit-code-0-is-no-success",
    ),
    pytest.param(
        stopped(container(143), code="SpotInterruption", reason="Your Spot Task was interrupted."),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        143,
        id="a-spot-interruption-is-not-the-applications-failure",
    ),
    pytest.param(
        stopped(container(0), code="TerminationNotice", reason=None),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        None,
        id="a-termination-notice-is-the-infrastructures",
    ),
    pytest.param(
        stopped(container(137), code="InfrastructureHealth", reason=None),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        137,
        id="an-unhealthy-host-is-the-infrastructures",
    ),
    pytest.param(
        stopped(container(), code=None, reason="Host EC2 (instance i-0123456789abcdef0) terminated."),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        None,
        id="a-terminated-host-is-the-infrastructures",
    ),
    pytest.param(
        stopped(container(0), code=None, reason="Host EC2 (instance i-0123456789abcdef0) stopped."),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        None,
        id="a-stopped-host-is-no-success-whatever-the-exit-code",
    ),
    pytest.param(
        stopped(
            container(0),
            code="ServiceSchedulerInitiated",
            reason="ECS is performing maintenance on the underlying infrastructure hosting the task.",
        ),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        None,
        id="maintenance-is-the-infrastructures",
    ),
    *(
        pytest.param(
            stopped(container(), code="TaskFailedToStart", reason=reason),
            Phase.FAILED,
            Cause.INFRASTRUCTURE,
            None,
            id=f"failed-to-start-and-passes:{reason[:40]}",
        )
        for reason in (
            "Timeout waiting for network interface provisioning to complete.",
            "Timeout waiting for EphemeralStorage provisioning to complete.",
            "ResourceInitializationError: unable to pull secrets: dial tcp 10.0.0.1:443: i/o timeout",
            "ResourceInitializationError: failed to download env files: context deadline exceeded",
            "CannotPullContainerError: 429 - toomanyrequests: You have reached your pull rate limit.",
            "CannotPullContainerError: net/http: TLS handshake timeout",
            "CannotPullContainerError: unexpected status code 503 Service Unavailable",
            "ContainerRuntimeTimeoutError: Could not transition to running; timed out after waiting 1m",
            "DockerTimeoutError: Could not transition to created; timed out after waiting 4m0s",
            "Capacity is unavailable at this time. Please try again later",
            "Unexpected EC2 error: InsufficientFreeAddressesInSubnet",
        )
    ),
    pytest.param(
        stopped(
            container(reason="CannotPullContainerError: read: connection reset by peer"),
            code="TaskFailedToStart",
            reason="Task failed to start",
        ),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        None,
        id="the-reason-may-stand-at-the-container",
    ),
    pytest.param(
        stopped(
            container(
                reason="DockerTimeoutError: Could not transition to started; timed out after waiting 3m0s"
            )
        ),
        Phase.FAILED,
        Cause.INFRASTRUCTURE,
        None,
        id="no-exit-code-and-a-reason-that-passes",
    ),
    # --- nobody knows ---
    *(
        pytest.param(
            stopped(container(), code="TaskFailedToStart", reason=reason),
            Phase.FAILED,
            Cause.UNKNOWN,
            None,
            id=f"failed-to-start-for-good:{reason[:40]}",
        )
        for reason in (
            "CannotPullContainerError: pull image manifest has been retried 1 time(s): not found",
            "ResourceInitializationError: AccessDeniedException: secretsmanager:GetSecretValue",
            "ResourceInitializationError: invalid secret ARN",
            "",
        )
    ),
    pytest.param(
        stopped(container(0), code="ServiceSchedulerInitiated", reason="Scaling activity"),
        Phase.FAILED,
        Cause.UNKNOWN,
        None,
        id="a-stop-by-a-scheduler-is-no-success",
    ),
    pytest.param(
        stopped(container(0), code="StopCodeOfTheFuture", reason=None),
        Phase.FAILED,
        Cause.UNKNOWN,
        None,
        id="an-unknown-stop-code-is-no-success",
    ),
    pytest.param(
        stopped(container(9), code="StopCodeOfTheFuture", reason=None),
        Phase.FAILED,
        Cause.UNKNOWN,
        9,
        id="an-unknown-stop-code-may-not-be-the-applications",
    ),
    pytest.param(
        {"taskArn": ARN, "lastStatus": "STOPPED"},
        Phase.FAILED,
        Cause.UNKNOWN,
        None,
        id="nothing-said-is-no-success",
    ),
]


@pytest.mark.parametrize(("task", "phase", "cause", "exit_code"), ENDS)
def test_how_a_stopped_task_ended(task, phase, cause, exit_code):
    job = read_task(task, CLAIM)
    assert (job.phase, job.cause, job.exit_code) == (phase, cause, exit_code)


@pytest.mark.parametrize("task", [param.values[0] for param in ENDS], ids=[param.id for param in ENDS])
def test_what_is_trimmed_from_an_answer_is_not_read(task):
    moments = {name: task[name] for name in ("createdAt", "stoppedAt") if name in task}
    noise = {"attachments": [{"id": "1", "details": []}], "cpu": "256", "tags": []}
    containers = [{**each, "cpu": "0"} for each in task.get("containers") or ()]
    answer = {**task, **dict.fromkeys(moments, 1.0), **noise, "containers": containers}
    (left,) = json.loads(trim_tasks(json.dumps({"tasks": [answer], "failures": []}).encode()))["tasks"]
    assert not noise.keys() & left.keys()
    assert left.keys() >= moments.keys()
    assert read_task({**left, **moments}, CLAIM) == read_task(task, CLAIM)


@pytest.mark.parametrize("task", [param.values[0] for param in ENDS], ids=[param.id for param in ENDS])
def test_the_reason_is_short_and_a_success_needs_none(task):
    job = read_task(task, CLAIM)
    assert len(job.reason) <= 500
    assert bool(job.reason) == (job.phase is not Phase.SUCCEEDED)


@pytest.mark.parametrize(
    ("desired", "last", "phase"),
    [
        pytest.param("RUNNING", "PROVISIONING", Phase.QUEUED, id="provisioning-is-queued"),
        pytest.param("RUNNING", "PENDING", Phase.QUEUED, id="pending-is-queued"),
        pytest.param("RUNNING", "ACTIVATING", Phase.QUEUED, id="activating-is-queued"),
        pytest.param("RUNNING", "RUNNING", Phase.RUNNING, id="running-is-running"),
        pytest.param("STOPPED", "PENDING", Phase.STOPPING, id="to-be-stopped-before-it-ran"),
        pytest.param("STOPPED", "RUNNING", Phase.STOPPING, id="to-be-stopped-is-stopping"),
        pytest.param("STOPPED", "DEACTIVATING", Phase.STOPPING, id="deactivating-is-stopping"),
        pytest.param("STOPPED", "STOPPING", Phase.STOPPING, id="stopping-is-stopping"),
        pytest.param("STOPPED", "DEPROVISIONING", Phase.STOPPING, id="deprovisioning-is-stopping"),
        pytest.param("RUNNING", "STATUS_OF_THE_FUTURE", Phase.RUNNING, id="an-unknown-status-is-alive"),
        pytest.param("RUNNING", "", Phase.RUNNING, id="no-status-is-alive"),
    ],
)
def test_the_phase_of_a_live_task(desired, last, phase):
    job = read_task(
        {"taskArn": ARN, "desiredStatus": desired, "lastStatus": last, "createdAt": CREATED}, CLAIM
    )
    assert job.phase is phase
    assert job.live
    assert (job.exit_code, job.ended, job.reason) == (None, None, "")


ESSENTIAL = [
    pytest.param(
        [container(0), container(1, name="sidecar")],
        Phase.SUCCEEDED,
        0,
        id="a-sidecars-exit-code-does-not-count",
    ),
    pytest.param(
        [container(0), container(name="sidecar")],
        Phase.SUCCEEDED,
        0,
        id="a-sidecars-missing-code-does-not-count",
    ),
    pytest.param(
        [container(5, name="sidecar"), container(3)],
        Phase.FAILED,
        3,
        id="the-exit-code-is-the-essential-containers",
    ),
    pytest.param(
        [container(0, name="sidecar"), container()], Phase.FAILED, None, id="a-sidecars-success-is-no-success"
    ),
    pytest.param(
        [container(0, name="sidecar")], Phase.FAILED, None, id="no-essential-container-is-no-success"
    ),
]


@pytest.mark.parametrize(("containers", "phase", "exit_code"), ESSENTIAL)
def test_only_essential_containers_count_where_they_are_known(containers, phase, exit_code):
    job = read_task(stopped(*containers), CLAIM, frozenset({"main"}))
    assert (job.phase, job.exit_code) == (phase, exit_code)


def test_a_guarded_sidecar_does_not_make_an_interrupted_task_a_success():
    task = stopped(container(0), container(1, name="sidecar"), code="SpotInterruption")
    assert read_task(task, CLAIM, frozenset({"main"})).cause is Cause.INFRASTRUCTURE


def test_the_reason_names_container_exit_code_stop_code_and_stopped_reason():
    job = read_task(stopped(container(0, name="proxy"), container(137, "OutOfMemoryError: killed")), CLAIM)
    for words in (
        "container main: exit code 137 (SIGKILL)",
        "OutOfMemoryError",
        "stop code EssentialContainerExited",
        "Essential container in task exited",
        "more memory",
    ):
        assert words in job.reason


@pytest.mark.parametrize("code", [1, 128, 255, 400])
def test_an_exit_code_that_is_no_signal_is_only_named(code):
    assert f"exit code {code};" in read_task(stopped(container(code)), CLAIM).reason


def test_a_very_long_reason_is_cut():
    job = read_task(stopped(container(1, "x" * 9999, name="n" * 300), reason="y" * 9999), CLAIM)
    assert len(job.reason) == 500
    assert job.reason.endswith("…")


def test_a_look_tells_when_and_where():
    job = read_task(stopped(container(0)), CLAIM)
    assert (job.id, job.claim, job.scope) == (ARN, CLAIM, "arn:aws:ecs:eu-west-1:123456789012:cluster/etl")
    assert job.created == CREATED.timestamp()
    assert job.ended == STOPPED.timestamp()


def test_a_task_without_a_date_was_created_when_the_caller_says():
    task = stopped(container(0))
    del task["createdAt"]
    assert read_task(task, CLAIM, now=1234.5).created == 1234.5


def test_facts_are_small_and_survive_json():
    job = read_task(stopped(*(container(0, name=f"c{number}") for number in range(50))), CLAIM)
    assert len(job.facts["containers"]) == 20
    assert job.facts["containers"][0] == ["c0", 0]
    assert job.facts["last_status"] == "STOPPED"
    assert Job.unpack(job.pack()) == job


texts = some.none() | some.sampled_from(
    [
        "Host EC2 (instance i-1) terminated.",
        "i/o timeout",
        "OutOfMemoryError",
        "Task stopped by user",
        "",
        "?",
    ]
)
codes = some.none() | some.sampled_from([0, 0, 0, 1, 137])
stop_codes = some.none() | some.sampled_from(
    ["EssentialContainerExited", "UserInitiated", "SpotInterruption", "TaskFailedToStart", "New"]
)


@given(
    containers=some.lists(some.tuples(codes, texts), max_size=3),
    stop_code=stop_codes,
    reason=texts,
    status=some.sampled_from(["RUNNING", "STOPPED", "DEPROVISIONING", "?"]),
    essential=some.none() | some.sampled_from([frozenset({"c0"}), frozenset()]),
)
def test_success_is_nothing_less_than_all_exit_codes_0_and_no_stop_code_that_objects(
    containers, stop_code, reason, status, essential
):
    task = stopped(
        *(container(code, text, name=f"c{number}") for number, (code, text) in enumerate(containers)),
        code=stop_code,
        reason=reason,
        lastStatus=status,
    )
    if read_task(task, CLAIM, essential).phase is Phase.SUCCEEDED:
        judged = [
            code
            for number, (code, _) in enumerate(containers)
            if essential is None or f"c{number}" in essential
        ]
        assert status == "STOPPED"
        assert judged
        assert all(code == 0 for code in judged)
        assert stop_code in (None, "EssentialContainerExited")
