"""What EMR's answers mean, as tables: values in, values out."""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from airflow_resilient.core.job import Cause, Claim, Phase
from airflow_resilient.parameters import read_literal
from airflow_resilient.services.emr_steps.marker import (
    NAME_CHARS,
    Marker,
    group_submissions,
    mark,
    proved,
    read_marker,
    why_copied,
)
from airflow_resilient.services.emr_steps.read import is_part_of_a_copy, read_steps
from airflow_resilient.services.emr_steps.request import (
    inject_openlineage_parent,
    invalid_steps,
    redact_arguments,
)

TASK_KEY = "abcdefghijklmnop"
CLAIM = Claim(TASK_KEY, 1)
CLUSTER = "j-2AXXXXXXGAPLF"
T0 = datetime(2026, 1, 1, tzinfo=timezone.utc)


def step(number, state, *, name=None, created=0, ended=None, **status):
    timeline = {"CreationDateTime": T0 + timedelta(seconds=created)}
    if ended is not None:
        timeline["EndDateTime"] = T0 + timedelta(seconds=ended)
    return {
        "Id": f"s-{number}",
        "Name": name or f"step {number} [{CLAIM}]",
        "Status": {"State": state, "Timeline": timeline, **status},
    }


def cluster(code, state="TERMINATED_WITH_ERRORS", ended=None, message=None):
    timeline = {"EndDateTime": T0 + timedelta(seconds=ended)} if ended is not None else {}
    return {"State": state, "StateChangeReason": {"Code": code, "Message": message}, "Timeline": timeline}


def job_of(*states, of=None, **kwargs):
    return read_steps([step(n, state, ended=9) for n, state in enumerate(states)], CLAIM, "j-1", of, **kwargs)


@pytest.mark.parametrize(
    ("states", "phase"),
    [
        pytest.param(["PENDING"], Phase.QUEUED, id="a-pending-step-is-queued"),
        pytest.param(["RUNNING"], Phase.RUNNING, id="a-running-step-runs"),
        pytest.param(["CANCEL_PENDING"], Phase.STOPPING, id="a-step-asked-to-stop-is-stopping"),
        pytest.param(["COMPLETED"], Phase.SUCCEEDED, id="a-completed-step-succeeded"),
        pytest.param(["FAILED"], Phase.FAILED, id="a-failed-step-failed"),
        pytest.param(["INTERRUPTED"], Phase.FAILED, id="an-interrupted-step-failed"),
        pytest.param(["CANCELLED"], Phase.CANCELLED, id="a-cancelled-step-was-cancelled"),
        pytest.param(["PENDING", "PENDING"], Phase.QUEUED, id="none-has-started"),
        pytest.param(["COMPLETED", "PENDING"], Phase.RUNNING, id="between-two-steps-the-job-runs"),
        pytest.param(["COMPLETED", "COMPLETED"], Phase.SUCCEEDED, id="all-completed-succeeded"),
        pytest.param(["COMPLETED", "FAILED"], Phase.FAILED, id="one-failed-fails-all"),
        pytest.param(["COMPLETED", "CANCELLED"], Phase.CANCELLED, id="one-cancelled-is-no-success"),
        pytest.param(["FAILED", "CANCELLED"], Phase.FAILED, id="a-failure-explains-the-cancelled-rest"),
        pytest.param(["FAILED", "RUNNING"], Phase.RUNNING, id="live-while-any-step-is-live"),
        pytest.param(["FAILED", "PENDING"], Phase.RUNNING, id="live-while-any-step-waits"),
        pytest.param(["CANCEL_PENDING", "PENDING"], Phase.RUNNING, id="not-stopping-while-a-step-waits"),
        pytest.param(["COMPLETED", "CANCEL_PENDING"], Phase.STOPPING, id="the-last-one-is-being-stopped"),
        pytest.param(["A_STATE_OF_2031"], Phase.RUNNING, id="an-unknown-state-is-no-end"),
        pytest.param(["COMPLETED", "A_STATE_OF_2031"], Phase.RUNNING, id="an-unknown-state-is-no-success"),
    ],
)
def test_phase_of_a_job(states, phase):
    assert job_of(*states).phase is phase


@pytest.mark.parametrize(
    ("states", "phase"),
    [
        pytest.param(["COMPLETED"], Phase.QUEUED, id="completed-steps-beside-unlisted-ones-are-no-success"),
        pytest.param(["FAILED"], Phase.QUEUED, id="unlisted-steps-may-live"),
        pytest.param(["RUNNING"], Phase.RUNNING, id="what-is-listed-runs"),
    ],
)
def test_a_set_with_steps_that_are_not_listed_is_live(states, phase):
    job = job_of(*states, of=2)
    assert job.phase is phase
    assert job.live
    assert job.facts["of"] == 2


def test_no_step_at_all_is_no_success():
    assert read_steps([], CLAIM, "j-1", 2).phase is Phase.QUEUED
    assert read_steps([], CLAIM, "j-1").phase is Phase.QUEUED


def test_an_observation_carries_ids_states_and_times():
    job = read_steps(
        [step(1, "COMPLETED", created=5, ended=10), step(2, "COMPLETED", created=4, ended=20)], CLAIM, "j-1"
    )
    assert job.id == "s-1,s-2"
    assert job.scope == "j-1"
    assert job.claim == CLAIM
    assert job.created == T0.timestamp() + 4
    assert job.ended == T0.timestamp() + 20
    assert job.facts == {"steps": [["s-1", "COMPLETED"], ["s-2", "COMPLETED"]]}


@pytest.mark.parametrize(
    ("states", "status", "phase", "cause"),
    [
        pytest.param(
            ["FAILED"],
            cluster("INSTANCE_FAILURE"),
            Phase.FAILED,
            Cause.INFRASTRUCTURE,
            id="lost-its-instances",
        ),
        pytest.param(
            ["CANCELLED"], cluster("INTERNAL_ERROR"), Phase.FAILED, Cause.INFRASTRUCTURE, id="emr-broke"
        ),
        pytest.param(
            ["CANCELLED"],
            cluster("BOOTSTRAP_FAILURE", "TERMINATING"),
            Phase.FAILED,
            Cause.INFRASTRUCTURE,
            id="never-came-up",
        ),
        pytest.param(
            ["CANCELLED"],
            cluster("INSTANCE_FLEET_TIMEOUT"),
            Phase.FAILED,
            Cause.INFRASTRUCTURE,
            id="no-instances-to-be-had",
        ),
        pytest.param(
            ["CANCELLED"], cluster("USER_REQUEST", "TERMINATED"), Phase.CANCELLED, Cause.USER, id="terminated"
        ),
        pytest.param(
            ["INTERRUPTED"],
            cluster("USER_REQUEST", "TERMINATED"),
            Phase.CANCELLED,
            Cause.USER,
            id="terminated-while-it-ran",
        ),
        pytest.param(
            ["FAILED"], cluster("STEP_FAILURE"), Phase.FAILED, Cause.APPLICATION, id="its-own-failure"
        ),
        pytest.param(
            ["CANCELLED"], cluster("STEP_FAILURE"), Phase.FAILED, Cause.UNKNOWN, id="a-neighbours-failure"
        ),
        pytest.param(
            ["CANCELLED"], cluster("VALIDATION_ERROR"), Phase.FAILED, Cause.UNKNOWN, id="not-a-valid-cluster"
        ),
        pytest.param(
            ["FAILED"],
            cluster("INSTANCE_FAILURE", "RUNNING"),
            Phase.FAILED,
            Cause.APPLICATION,
            id="the-cluster-lives",
        ),
        pytest.param(
            ["FAILED"],
            cluster("INSTANCE_FAILURE", ended=4000),
            Phase.FAILED,
            Cause.APPLICATION,
            id="ended-long-before-its-cluster",
        ),
        pytest.param(["FAILED"], None, Phase.FAILED, Cause.APPLICATION, id="nobody-tells-of-the-cluster"),
        pytest.param(["CANCELLED"], None, Phase.CANCELLED, Cause.USER, id="cancelled-alone"),
        pytest.param(
            ["COMPLETED"], cluster("USER_REQUEST"), Phase.SUCCEEDED, Cause.UNKNOWN, id="done-before"
        ),
    ],
)
def test_why_steps_ended_with_their_cluster(states, status, phase, cause):
    job = job_of(*states, cluster=status)
    assert (job.phase, job.cause) == (phase, cause)


@pytest.mark.parametrize(
    ("code", "states", "advice"),
    [
        ("VALIDATION_ERROR", ["CANCELLED"], "No step caused this: the cluster never came up"),
        ("VALIDATION_ERROR", ["INTERRUPTED", "CANCELLED"], "No step caused this"),
        ("ALL_STEPS_COMPLETED", ["CANCELLED"], "no steps left"),
        ("STEP_FAILURE", ["CANCELLED"], "Find out which step ended the cluster"),
        ("STEP_FAILURE", ["FAILED", "CANCELLED"], "fix the step"),
        ("CODE_OF_THE_FUTURE", ["CANCELLED"], "Find out why the cluster ended"),
        ("BOOTSTRAP_FAILURE", ["CANCELLED"], "The steps did not cause this"),
    ],
)
def test_the_advice_is_about_what_ended_the_steps(code, states, advice):
    message = "The number of vCPUs for instance type m5.xlarge exceeds your limit of 32 for this account"
    reason = job_of(*states, cluster=cluster(code, message=message)).reason
    assert advice in reason
    assert "exceeds your limit" in reason


def test_a_step_with_failure_details_failed_before_a_person_ended_the_cluster():
    failed = step(1, "FAILED", FailureDetails={"Reason": "Main class not found"})
    job = read_steps([failed], CLAIM, "j-1", cluster=cluster("USER_REQUEST", "TERMINATED"))
    assert (job.phase, job.cause) == (Phase.FAILED, Cause.APPLICATION)


def test_the_reason_names_step_failure_log_cluster_and_what_to_do():
    details = {"Reason": "Unknown Error", "Message": "disk full", "LogFile": "s3://logs/stderr.gz"}
    steps = [step(1, "COMPLETED"), step(2, "FAILED", FailureDetails=details), step(3, "CANCELLED")]
    reason = read_steps(steps, CLAIM, "j-1", cluster=cluster("STEP_FAILURE", message="Shut down")).reason
    assert reason == (
        "step s-2 'step 2' FAILED: Unknown Error: disk full (log file: s3://logs/stderr.gz). "
        "Its cluster j-1 ended with STEP_FAILURE (Shut down). (1 more of 3 steps did not complete.) "
        "Read the step's log (stderr, controller), fix the step, run it again."
    )


def test_a_reason_stays_short_whatever_emr_tells():
    details = {"Reason": "r" * 3000, "Message": "m" * 3000, "LogFile": "l" * 3000}
    failed = step(1, "FAILED", name="n" * 250, FailureDetails=details)
    job = read_steps([failed], CLAIM, "j-1", cluster=cluster("INSTANCE_FAILURE", message="x" * 3000))
    assert len(job.reason) <= 700


JAR = {"Jar": "a.jar", "Args": ["a b", "c"], "Properties": [{"Key": "x", "Value": "1"}]}
STEP = {"Name": "sort", "HadoopJarStep": JAR}


@pytest.mark.parametrize(
    ("name", "marker"),
    [
        pytest.param(f"sort [af-{TASK_KEY}-1]", Marker(CLAIM), id="one-step"),
        pytest.param(f"sort [af-{TASK_KEY}-12 2/3]", Marker(Claim(TASK_KEY, 12), 2, 3), id="one-of-three"),
        pytest.param(f"sort [af-{TASK_KEY}-1-4]", Marker(Claim(TASK_KEY, 1)), id="a-resubmission"),
        pytest.param(
            f"sort [af-{TASK_KEY}-1 1/2 4.3 k3v7ahq2]",
            Marker(CLAIM, 1, 2, "k3v7ahq2"),
            id="with-generation-and-seal",
        ),
        pytest.param(f"sort [af-{TASK_KEY}-{'9' * 5000}]", None, id="a-number-without-end"),
        pytest.param(f"[af-{TASK_KEY}-1] sort", None, id="somewhere-else-in-the-name"),
        pytest.param(f"sort [af-{TASK_KEY}-1] copy", None, id="a-copy-made-by-a-person"),
        pytest.param(f"sort [af-{TASK_KEY}-1 k3v7ahq2]", Marker(CLAIM, seal="k3v7ahq2"), id="with-its-seal"),
        pytest.param(
            f"sort [af-{TASK_KEY}-1-4 2/3 4.3 k3v7ahq2]",
            Marker(CLAIM, 2, 3, "k3v7ahq2"),
            id="all-that-a-marker-has",
        ),
        pytest.param(
            f"sort [af-{TASK_KEY}-1 k3v7ahq2+]",
            Marker(CLAIM, seal="k3v7ahq2", unattended=True),
            id="nobody-waits-for-it",
        ),
        pytest.param(f"sort [af-{TASK_KEY}-1 k3v7ahq2-]", None, id="an-unknown-sign"),
        pytest.param(f"sort [af-{TASK_KEY}-1+]", None, id="a-sign-without-a-seal"),
        pytest.param(f"sort [af-{TASK_KEY}-1 k3v7ahq]", None, id="a-seal-that-is-cut-short"),
        pytest.param("sort", None, id="no-marker"),
        pytest.param(f"sort af-{TASK_KEY}-1", None, id="without-brackets"),
        pytest.param(f"sort [af-{TASK_KEY}-{'9' * 5000}]", None, id="a-number-of-5000-digits"),
        pytest.param(f"sort [af-{TASK_KEY}-1-{'9' * 5000}]", None, id="a-resubmission-of-5000-digits"),
        pytest.param(f"sort [af-{TASK_KEY}-1 1/{'9' * 5000}]", None, id="of-5000-digits-steps"),
        pytest.param(f"sort [af-{TASK_KEY}-1 {'9' * 5000}/2]", None, id="a-place-of-5000-digits"),
        pytest.param(f"sort [af-{TASK_KEY}-\u0661]", None, id="an-arabic-digit"),
    ],
)
def test_markers_are_read_at_the_end_of_names_only(name, marker):
    assert read_marker(name) == marker


def test_the_marker_tells_resubmissions_apart():
    assert read_marker(f"sort [af-{TASK_KEY}-1-4]").claim.token == f"af-{TASK_KEY}-1-4"


@pytest.mark.parametrize("length", [1, 200, 256, 400])
@pytest.mark.parametrize("count", [1, 3, 256])
def test_names_keep_their_marker_and_the_limit(length, count):
    claim = Claim(TASK_KEY, 1234, resubmission=2)
    marked = mark([{**STEP, "Name": "x" * length}] * count, claim, "j-1")
    assert all(len(each["Name"]) <= NAME_CHARS for each in marked)
    markers = [read_marker(each["Name"]) for each in marked]
    assert [(each.claim.token, each.place, each.of) for each in markers] == [
        (claim.token, place, count) for place in range(1, count + 1)
    ]
    assert marked[0]["Name"].startswith("x")


@pytest.mark.parametrize("unattended", [True, False])
def test_a_marker_says_whether_anybody_waits(unattended):
    marked = mark([STEP, STEP], CLAIM, CLUSTER, unattended=unattended)
    assert [read_marker(each["Name"]).unattended for each in marked] == [unattended, unattended]


def test_marking_leaves_the_request_alone():
    steps = [STEP]
    (marked,) = mark(steps, CLAIM, "j-1")
    assert marked["Name"].startswith(f"sort [{CLAIM} ")
    assert {**marked, "Name": "sort"} == STEP == {"Name": "sort", "HadoopJarStep": JAR}


def listed(marked, **changes):
    """A step as ListSteps shows it."""
    config = dict(marked["HadoopJarStep"])
    config["Properties"] = {each["Key"]: each["Value"] for each in config.get("Properties", ())}
    return {"Id": "s-1", "Name": marked["Name"], "Config": {**config, **changes}}


@pytest.mark.parametrize(
    ("jar", "shown"),
    [
        pytest.param(JAR, {}, id="as-it-was-added"),
        pytest.param({"Jar": "a.jar"}, {"Args": [], "MainClass": "", "Properties": {}}, id="with-defaults"),
        pytest.param({"Jar": "a.jar"}, {"MainClass": None}, id="without-a-class"),
    ],
)
def test_a_marker_proves_the_step_that_it_was_made_for(jar, shown):
    claim = Claim(TASK_KEY, 3, 2, "4.3")
    for place, marked in enumerate(mark([{**STEP, "HadoopJarStep": jar}] * 2, claim, "j-1"), 1):
        marker = proved(listed(marked, **shown), "j-1")
        assert (marker.claim.token, marker.claim.generation) == (claim.token, "4.3")
        assert (marker.place, marker.of) == (place, 2)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"Args": ["true"]}, id="other-arguments"),
        pytest.param({"Args": ["a", "b", "c"]}, id="arguments-that-are-split-otherwise"),
        pytest.param({"Args": []}, id="no-arguments"),
        pytest.param({"Jar": "b.jar"}, id="another-jar"),
        pytest.param({"MainClass": "Other"}, id="another-class"),
        pytest.param({"Properties": {"x": "2"}}, id="another-property"),
        pytest.param({"Properties": {}}, id="no-property"),
    ],
)
def test_a_copy_that_runs_something_else_proves_nothing(changes):
    (marked,) = mark([STEP], CLAIM, "j-1")
    assert proved(listed(marked), "j-1")
    assert proved(listed(marked, **changes), "j-1") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(f"{CLAIM} ", f"af-{TASK_KEY}-2 ", id="another-number"),
        pytest.param(f"{CLAIM} ", f"{CLAIM}-1 ", id="a-resubmission"),
        pytest.param(f"{CLAIM} ", f"af-{'a' * 16}-1 ", id="another-task-instance"),
        pytest.param(" 4.3 ", " 5.3 ", id="another-generation"),
        pytest.param(" 1/2 ", " 2/2 ", id="another-place"),
        pytest.param(" 1/2 ", " 1/3 ", id="another-size"),
        pytest.param(" 1/2 ", " ", id="no-place"),
        pytest.param("]", "+]", id="that-nobody-waits"),
    ],
)
def test_a_marker_that_somebody_has_changed_proves_nothing(old, new):
    marked = mark([STEP, STEP], replace(CLAIM, generation="4.3"), "j-1")[0]
    assert old in marked["Name"]
    assert proved(listed({**marked, "Name": marked["Name"].replace(old, new)}), "j-1") is None


def test_a_copy_on_another_cluster_or_without_a_seal_proves_nothing():
    (marked,) = mark([STEP], CLAIM, "j-1")
    assert proved(listed(marked), "j-2") is None
    assert proved(listed({**marked, "Name": f"sort [{CLAIM}]"}), "j-1") is None
    assert proved({"Id": "s-1", "Name": marked["Name"]}, "j-1") is None


def named(number, place, of, token=str(CLAIM), created=0):
    name = f"a [{token} {place}/{of}]" if of > 1 else f"a [{token}]"
    return step(number, "PENDING", name=name, created=created)


@pytest.mark.parametrize(
    ("steps", "sets"),
    [
        pytest.param([named(1, 1, 2), named(2, 2, 2)], [["s-1", "s-2"]], id="one-submission"),
        pytest.param(
            [named(2, 2, 2, created=1), named(1, 1, 2, created=2)],
            [["s-1", "s-2"]],
            id="in-the-order-of-places",
        ),
        pytest.param([named(1, 1, 1), named(2, 1, 1, created=1)], [["s-1"], ["s-2"]], id="a-duplicate"),
        pytest.param(
            [named(1, 1, 2), named(2, 2, 2), named(3, 1, 2, created=9), named(4, 2, 2, created=9)],
            [["s-1", "s-2"], ["s-3", "s-4"]],
            id="a-duplicate-of-two-steps",
        ),
        pytest.param(
            [named(1, 1, 2), named(2, 2, 2), named(3, 1, 2, created=9)],
            [["s-1", "s-2"], ["s-3"]],
            id="a-duplicate-that-is-listed-in-part",
        ),
        pytest.param(
            [named(1, 1, 1), named(2, 1, 1, token=f"{CLAIM}-1")], [["s-1"], ["s-2"]], id="a-resubmission"
        ),
        pytest.param([named(1, 1, 1, token=f"af-{TASK_KEY}-2")], [], id="another-claim"),
        pytest.param([step(1, "RUNNING", name="sort")], [], id="not-ours"),
    ],
)
def test_steps_are_sorted_into_submissions(steps, sets):
    assert [[each["Id"] for each in members] for _, members in group_submissions(steps, [CLAIM])] == sets


@pytest.mark.parametrize(
    ("states", "of", "later", "copy"),
    [
        pytest.param(["COMPLETED"], 2, 121, True, id="one-of-two-that-has-ended"),
        pytest.param(["COMPLETED"], 2, 119, False, id="the-other-may-not-be-listed-yet"),
        pytest.param(["RUNNING"], 2, 121, False, id="one-that-runs-is-awaited"),
        pytest.param(["PENDING", "FAILED"], 3, 121, False, id="one-that-waits-is-awaited"),
        pytest.param(["COMPLETED", "FAILED"], 2, 121, False, id="all-of-two"),
        pytest.param(["COMPLETED"], 1, 121, False, id="all-of-one"),
    ],
)
def test_a_part_of_a_submission_that_never_becomes_whole_is_a_copy(states, of, later, copy):
    steps = [step(number, state, created=0) for number, state in enumerate(states)]
    assert is_part_of_a_copy(Marker(CLAIM, 1, of), steps, T0.timestamp() + later) is copy


GOOD = {"Name": "sort", "HadoopJarStep": {"Jar": "command-runner.jar"}}


@pytest.mark.parametrize(
    ("steps", "wrong"),
    [
        pytest.param([GOOD], None, id="a-good-one"),
        pytest.param([GOOD] * 256, None, id="as-many-as-fit"),
        pytest.param([{**GOOD, "ActionOnFailure": "CONTINUE"}], None, id="with-an-action"),
        pytest.param([GOOD] * 257, "257 steps", id="too-many"),
        pytest.param(GOOD, "a dict is not a list", id="a-step-instead-of-a-list"),
        pytest.param("sort", "a str is not a list", id="a-text"),
        pytest.param(["sort"], "step 1 is a str", id="a-list-of-texts"),
        pytest.param([GOOD, {"HadoopJarStep": {"Jar": "a"}}], "step 2 has no Name", id="without-name"),
        pytest.param([{"Name": "sort"}], "no HadoopJarStep", id="without-jar-step"),
        pytest.param([{"Name": "sort", "HadoopJarStep": {"Args": ["a"]}}], "with a Jar", id="without-jar"),
        pytest.param([{**GOOD, "ActionOnFailure": "EXPLODE"}], "'EXPLODE'", id="an-unknown-action"),
    ],
)
@pytest.mark.parametrize("rendered", [True, False])
def test_what_is_wrong_with_steps(steps, wrong, rendered):
    message = invalid_steps(steps, rendered=rendered)
    assert (message is None) if wrong is None else (wrong in message)


@pytest.mark.parametrize(
    "steps",
    [
        "{{ ti.xcom_pull('make_steps') }}",
        "steps.json",
        ["{{ ti.xcom_pull('make_step') }}"],
        [{"Name": "sort", "HadoopJarStep": "{{ var.json.jar_step }}"}],
        [{**GOOD, "ActionOnFailure": "{{ params.action }}"}],
        None,
        [],
        [None],
        [{**GOOD, "Name": None}],
        [{"Name": "sort", "HadoopJarStep": None}],
        [{"Name": "sort", "HadoopJarStep": {"Jar": ""}}],
    ],
)
def test_templates_and_empty_values_are_checked_when_they_are_rendered(steps):
    assert invalid_steps(steps, rendered=False) is None
    assert invalid_steps(steps, rendered=True) is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('[{"Name": "a", "b": null}]', [{"Name": "a", "b": None}], id="json"),
        pytest.param("[{'Name': 'a', 'b': None}]", [{"Name": "a", "b": None}], id="a-python-literal"),
        pytest.param(" ['WAITING']\n", ["WAITING"], id="with-blanks"),
        pytest.param([1], [1], id="a-list-already"),
    ],
)
def test_lists_are_read_from_rendered_text(text, value):
    assert read_literal(text) == value


@pytest.mark.parametrize(
    "text", ["__import__('os').getpid()", "[open('/etc/passwd')]", "secret=hunter2", "[" * 9999]
)
def test_nothing_is_evaluated_and_nothing_of_bad_text_is_shown(text):
    with pytest.raises(ValueError, match="neither JSON nor a Python literal") as error:
        read_literal(text)
    assert text not in str(error.value)


def test_arguments_that_aws_quotes_back_are_hidden():
    steps = [
        {
            "Name": "a",
            "HadoopJarStep": {
                "Jar": "a.jar",
                "Args": ["--password", "hunter2", "-x"],
                "Properties": [{"Key": "k", "Value": "s3cr3t"}],
            },
        }
    ]
    text = "Value '[--password, hunter2]' at 'steps' failed: hunter2 and s3cr3t are too long; -x is not"
    assert (
        redact_arguments(text, steps)
        == "Value '(hidden)' at 'steps' failed: (hidden) and (hidden) are too long; -x is not"
    )


PARENT = {"spark.openlineage.parentJobName": "dag.task"}


@pytest.mark.parametrize(
    ("jar", "args", "injected"),
    [
        pytest.param("command-runner.jar", ["spark-submit", "a.py"], True, id="spark-submit"),
        pytest.param("/usr/share/aws/command-runner.jar", ["/usr/bin/spark-submit"], True, id="by-its-path"),
        pytest.param("command-runner.jar", ["run-example", "SparkPi"], True, id="run-example"),
        pytest.param("command-runner.jar", ["hadoop-streaming"], False, id="not-spark"),
        pytest.param("command-runner.jar", [], False, id="no-arguments"),
        pytest.param("my.jar", ["spark-submit"], False, id="another-jar"),
        pytest.param(
            "command-runner.jar",
            ["spark-submit", "--conf", "spark.openlineage.parentRunId=1"],
            False,
            id="named-by-the-user",
        ),
    ],
)
def test_openlineage_parents_are_added_to_spark_steps_only(jar, args, injected):
    steps = [{"Name": "a", "HadoopJarStep": {"Jar": jar, "Args": args}}]
    result = inject_openlineage_parent(steps, PARENT)[0]["HadoopJarStep"]["Args"]
    extra = ["--conf", "spark.openlineage.parentJobName=dag.task"]
    assert result == ([args[0], *extra, *args[1:]] if injected else args)
    assert steps[0]["HadoopJarStep"]["Args"] == args


def submitted(*numbers, claim=CLAIM, created=0):
    """Steps that were submitted together, as a cluster lists them."""
    names = [each["Name"] for each in mark([STEP] * len(numbers), claim, CLUSTER)]
    return [
        step(number, "RUNNING", name=name, created=created)
        for number, name in zip(numbers, names, strict=True)
    ]


@pytest.mark.parametrize(
    ("listed", "asked", "words"),
    [
        pytest.param(submitted(1), [1], "", id="what-was-submitted"),
        pytest.param(submitted(1, 2), [1, 2], "", id="several-that-were-submitted"),
        pytest.param(submitted(1, 2), [2], "", id="one-of-several-has-ended"),
        pytest.param(
            [*submitted(1), *submitted(2, created=60)],
            [2],
            "s-1 on the same cluster is older",
            id="a-cloned-step",
        ),
        pytest.param([*submitted(1), *submitted(2, created=60)], [1], "", id="the-original-of-a-cloned-step"),
        pytest.param(
            [*submitted(1, 2), submitted(3, 4, created=60)[1]],
            [4],
            "s-1 on the same cluster is older",
            id="a-clone-of-one-of-several",
        ),
        pytest.param(
            [*submitted(1), *submitted(2, claim=replace(CLAIM, resubmission=1), created=60)],
            [2],
            "",
            id="a-resubmission",
        ),
        pytest.param(submitted(1), [7], "does not list them any more", id="not-listed"),
    ],
)
def test_a_copy_is_told_from_what_was_submitted(listed, asked, words):
    ids = [step(number, "RUNNING")["Id"] for number in asked]
    why = why_copied(ids, group_submissions(listed, [CLAIM]))
    assert bool(why) is bool(words)
    assert words in why


def test_the_text_of_a_list_is_checked_as_the_list_is():
    assert invalid_steps(json.dumps([GOOD]), rendered=False) is None
    assert "no HadoopJarStep" in invalid_steps(json.dumps([{"Name": "sort"}]), rendered=False)
    assert "257 steps" in invalid_steps(json.dumps([GOOD] * 257), rendered=False)
