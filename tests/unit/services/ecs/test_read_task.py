"""What the description of an ECS task means."""

import json
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as some

from airflow_resilient.core.job import Cause, Claim, Job, Phase
from airflow_resilient.services.ecs.read import (
    GENERATION,
    container_of,
    ended_task,
    latest_of_each,
    read_task,
    trim_tasks,
)

CLAIM = Claim("abcdefghijklmnop", 1)
CREATED = datetime(2026, 1, 1, tzinfo=timezone.utc)
STOPPED = datetime(2026, 1, 1, 0, 5, tzinfo=timezone.utc)
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/etl/0123456789abcdef0123456789abcdef"


def container(code=None, reason=None, name="main", **more):
    """A container as DescribeTasks shows it: unknown fields are left out."""
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
        id="an-exit-code-wins-over-a-missing-one",
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
            "Unexpected EC2 error while attempting to Create Network Interface: RequestLimitExceeded",
            "ResourceInitializationError: failed to validate logger args: ThrottlingException: Rate exceeded",
            "RESOURCE:ENI",
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
            *(
                "ResourceInitializationError: unable to pull secrets or registry auth: "
                "AccessDeniedException: User: arn:aws:sts::1:assumed-role/exec/0 is not authorized to "
                f"perform: secretsmanager:GetSecretValue on resource: {name} because no policy allows it"
                for name in (
                    "arn:aws:secretsmanager:eu-west-1:1:secret:db",
                    "arn:aws:secretsmanager:eu-west-1:1:secret:Throttling",
                    "Throttling",
                    "InternalServerError",
                )
            ),
            "ResourceInitializationError: secret did not contain json key Throttling",
            "ResourceInitializationError: secret did not contain json key RequestLimitExceeded",
            "ResourceInitializationError: Invalid ssm parameters: InternalServerError, Throttling",
            'CannotStartContainerError: exec: "connection timed out": executable file not found in $PATH',
            "CannotPullContainerError: manifest for docker.io/etl/status:503 not found",
            "CannotPullContainerError: manifest for reg.example/rate-exceeded:toomanyrequests: not found",
            "ECS was unable to assume the role 'arn:aws:iam::1:role/i/o timeout' that was provided",
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
        id="an-empty-answer-is-no-success",
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


def test_an_observation_shows_when_and_where():
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
    assert Job.from_dict(job.to_dict()) == job


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


# --- the event of its end -------------------------------------------------------------------------


def event(task, **changed):
    """The event about a task as EventBridge writes it into a log group."""
    times = {
        name: f"{moment:%Y-%m-%dT%H:%M:%S}Z" for name, moment in task.items() if isinstance(moment, datetime)
    }
    known = {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": {**task, **times}}
    return json.dumps({**known, **changed})


@pytest.mark.parametrize("task", [pytest.param(case.values[0], id=case.id) for case in ENDS])
def test_the_event_of_an_end_says_what_the_description_says(task):
    assert read_task(ended_task(event(task)), CLAIM) == read_task(task, CLAIM)


SPOT = {
    "code": "SpotInterruption",
    "reason": "Your Spot Task was interrupted.",
}


@pytest.mark.parametrize(
    ("task", "essential", "phase", "cause", "code"),
    [
        pytest.param(stopped(container(0)), None, Phase.SUCCEEDED, Cause.UNKNOWN, 0, id="well"),
        pytest.param(stopped(container(3)), None, Phase.FAILED, Cause.APPLICATION, 3, id="badly"),
        pytest.param(
            stopped(container(0), **SPOT), None, Phase.FAILED, Cause.INFRASTRUCTURE, None, id="spot-with-0"
        ),
        pytest.param(
            stopped(container(0), code="UserInitiated"),
            None,
            Phase.CANCELLED,
            Cause.USER,
            None,
            id="stopped-by-hand-with-0",
        ),
        pytest.param(
            stopped(container(0), container(1, name="sidecar")),
            frozenset({"main"}),
            Phase.SUCCEEDED,
            Cause.UNKNOWN,
            0,
            id="a-sidecar-that-is-not-essential-failed",
        ),
        pytest.param(stopped(container()), None, Phase.FAILED, Cause.UNKNOWN, None, id="no-exit-code"),
        pytest.param(stopped(), None, Phase.FAILED, Cause.UNKNOWN, None, id="no-container"),
        pytest.param(
            stopped(container(0), code="SomethingNew"),
            None,
            Phase.FAILED,
            Cause.UNKNOWN,
            None,
            id="an-unknown-stop-code",
        ),
    ],
)
def test_what_the_event_of_an_end_means(task, essential, phase, cause, code):
    job = read_task(ended_task(event(task)), CLAIM, essential)
    assert (job.phase, job.cause, job.exit_code) == (
        phase,
        cause,
        code,
    )


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(event(stopped(container(0), lastStatus="RUNNING")), id="it-runs"),
        pytest.param(
            event(stopped(container(0), lastStatus="DEPROVISIONING")), id="its-containers-have-ended"
        ),
        pytest.param(event({**stopped(container(0)), "lastStatus": None}), id="no-status"),
        pytest.param(event(stopped(container(0)), source="my.app"), id="from-another-source"),
        pytest.param(
            event(stopped(container(0)), **{"detail-type": "ECS Service Action"}), id="another-event"
        ),
    ],
)
def test_what_is_not_the_end_of_a_task_says_nothing(line):
    assert ended_task(line) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        pytest.param("", "it is not JSON", id="nothing"),
        pytest.param('{"source": "aws.ecs", "det', "it is not JSON", id="cut-off"),
        pytest.param("[" * 100_000, "it is not JSON", id="deeper-than-python-can-read"),
        pytest.param("[]", "it is not an event", id="a-list"),
        pytest.param("{}", "it is not an event", id="without-a-detail"),
        pytest.param('{"source": "aws.ecs", "detail": []}', "it is not an event", id="an-odd-detail"),
        pytest.param(
            json.dumps({"taskArn": ARN}), "it is only the detail of an event", id="the-detail-alone"
        ),
        pytest.param(event({**stopped(), "taskArn": 7}), "its detail is not an ECS task", id="an-odd-arn"),
        pytest.param(event(stopped("main")), "its detail is not an ECS task", id="an-odd-container"),
        pytest.param(
            event(stopped({"name": "main", "exitCode": "0"})),
            "its detail is not an ECS task",
            id="an-odd-code",
        ),
        pytest.param(
            event(stopped({"name": "main", "exitCode": False})),
            "its detail is not an ECS task",
            id="a-code-that-is-not-a-number",
        ),
        pytest.param(
            event(stopped(container(0), overrides="x")),
            "its detail is not an ECS task",
            id="odd-overrides",
        ),
        pytest.param(
            event(stopped(container(0), overrides={"containerOverrides": [{"environment": ["A=1"]}]})),
            "its detail is not an ECS task",
            id="an-odd-environment",
        ),
    ],
)
def test_a_line_that_is_no_event_cannot_be_read(line, why):
    with pytest.raises(ValueError, match=why):
        ended_task(line)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-01-01T00:05:00Z", 1767225900.0),
        ("2026-01-01T00:05:00.7Z", 1767225900.7),
        ("2026-01-01T00:05:00.71Z", 1767225900.71),
        ("2026-01-01T00:05:00.712Z", 1767225900.712),
        ("2026-13-01T00:05:00Z", None),
        ("2026-01-01 00:05:00", None),
        (1767225900, None),
        (None, None),
    ],
)
def test_times_of_events_have_any_number_of_digits(text, seconds):
    task = {**stopped(container(0)), "createdAt": None, "stoppedAt": None}
    line = event({**task, "stoppedAt": text, "createdAt": text})
    job = read_task(ended_task(line), CLAIM, now=0.0)
    assert (job.ended, job.created) == (pytest.approx(seconds), pytest.approx(seconds or 0.0))


def test_the_event_tells_the_generation_in_its_overrides():
    override = {"name": "main", "environment": [{"name": GENERATION, "value": "4.3"}]}
    task = stopped(container(0), overrides={"containerOverrides": [override]})
    assert read_task(ended_task(event(task)), CLAIM).claim.generation == "4.3"
    assert read_task(ended_task(event(stopped(container(0)))), CLAIM).claim.generation == ""


def test_a_reason_in_an_event_shows_no_value_of_the_overrides():
    override = {"name": "main", "environment": [{"name": "PASSWORD", "value": "hunter2"}]}
    task = stopped(container(1, reason="bad hunter2"), overrides={"containerOverrides": [override]})
    assert "hunter2" not in read_task(ended_task(event(task)), CLAIM).reason


def test_of_several_events_about_a_task_the_latest_counts():
    old, new, other = ({"taskArn": arn, "version": n} for arn, n in (("a", 3), ("a", 5), ("b", 1)))
    for tasks in ([old, new, other], [new, other, old], [new, old, other, new]):
        assert sorted(latest_of_each(tasks), key=str) == [new, other]
    assert latest_of_each([{"taskArn": "a", "version": "x"}, {"taskArn": "a"}]) == [{"taskArn": "a"}]


# --- the container whose log is wanted ------------------------------------------------------------


def defined(name, prefix=None, group="/ecs/nightly", driver="awslogs"):
    options = {"awslogs-group": group, "awslogs-stream-prefix": prefix}
    log = {"logConfiguration": {"logDriver": driver, "options": options}} if prefix else {}
    return {"name": name, **log}


MAIN, AGENT = "main", "aws-guardduty-agent-x2"
ENVOY, OTEL = defined("envoy", "mesh"), defined("otel", "ecs", driver="awsfirelens")


@pytest.mark.parametrize(
    ("names", "container", "prefix", "definitions", "wanted"),
    [
        pytest.param([MAIN], None, "ecs", None, MAIN, id="the-only-one"),
        pytest.param([MAIN, AGENT], "other", "ecs", None, "other", id="the-one-that-is-named"),
        pytest.param([AGENT, MAIN], None, "ecs/main", None, MAIN, id="the-prefix-names-it-behind-a-sidecar"),
        pytest.param([AGENT, MAIN], None, "a/ecs/main", None, MAIN, id="a-longer-prefix-names-it"),
        pytest.param([AGENT, MAIN], None, "ecs/nobody", None, None, id="the-prefix-names-nobody"),
        pytest.param([AGENT, MAIN], None, "main", None, None, id="the-prefix-is-called-like-a-container"),
        pytest.param([AGENT, MAIN], None, "ecs", None, None, id="several-and-nothing-says-which"),
        pytest.param([], None, "ecs", None, None, id="none-is-known"),
        pytest.param([AGENT, MAIN], None, "ecs", [defined(MAIN)], MAIN, id="the-only-one-of-the-definition"),
        pytest.param(
            [AGENT, "envoy", MAIN],
            None,
            "ecs",
            [ENVOY, defined(MAIN, "ecs")],
            MAIN,
            id="the-first-of-the-definition-that-writes-there",
        ),
        pytest.param(
            ["otel", MAIN],
            None,
            "ecs",
            [OTEL, defined(MAIN, "ecs")],
            MAIN,
            id="a-sidecar-with-another-driver",
        ),
        pytest.param(
            ["b", "a"], None, "other", [defined("a"), defined("b")], "a", id="the-first-of-the-definition"
        ),
    ],
)
def test_whose_log_is_wanted(names, container, prefix, definitions, wanted):
    job = Job(ARN, CLAIM, Phase.RUNNING, 0.0, facts={"containers": [[name, None] for name in names]})
    where = {"group": "/ecs/nightly", "prefix": prefix, "container": container, "region": None}
    assert container_of(job, where, definitions) == wanted
