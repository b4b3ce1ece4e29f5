"""EMR steps against the fake AWS: the service first, then operator and sensor through their whole way."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from airflow_resilient import (
    EmrAddStepsOperator,
    EmrStepSensor,
    InvalidParameter,
    JobCancelled,
    JobFailed,
    JobLost,
    JobUnreachable,
    NoCapacity,
    PollPolicy,
    SubmitRefused,
)
from airflow_resilient.aws.access import AwsAccess
from airflow_resilient.compat import AirflowFailException
from airflow_resilient.core.job import Cause, Claim, Job, Phase
from airflow_resilient.services.emr_steps.client import EmrSteps
from airflow_resilient.testing import FakeAws, TaskTries
from airflow_resilient.testing.task_tries import Deferred

CLAIM = Claim("abcdefghijklmnop", 1)
OTHER = Claim("ponmlkjihgfedcba", 1)
ACCESS = AwsAccess(None)
QUICK = PollPolicy(
    interval=0.05,
    first_interval=0.01,
    max_backoff=0.1,
    lost_after_polls=2,
    lost_after_seconds=0.0,
    give_up_after_denials=2,
)


@pytest.fixture
def aws():
    with FakeAws(fake_time=True) as fake:
        fake.emr.plan(seconds=None)  # until the test ends it
        yield fake


@pytest.fixture
def cluster(aws):
    return aws.make_emr_cluster("etl", log_uri="s3://logs/emr/")


def steps(*names, action="CONTINUE", args=("spark-submit", "hunter2")):
    return [
        {
            "Name": name,
            "ActionOnFailure": action,
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": list(args)},
        }
        for name in names
    ]


def made(**kwargs):
    emr = EmrSteps(aws_conn_id=None, **kwargs)
    if "botocore_config" not in kwargs:
        emr.access = ACCESS  # a client takes long to make
    return emr


def service(cluster, *names, **kwargs):
    return made(job_flow_id=cluster, steps=steps(*(names or ["sort"])), **kwargs)


def watcher(emr):
    """The service as the triggerer has it: built from the address."""
    return EmrSteps(**json.loads(json.dumps(emr.address())))


def observe(emr, job):
    (seen,) = emr.observe([job])
    return seen


# --- submitting -----------------------------------------------------------------------------------


def test_steps_bear_the_claim_and_keep_their_request(aws, cluster):
    emr = service(cluster, "sort", "join", execution_role_arn="arn:aws:iam::123456789012:role/etl")
    job = emr.submit(CLAIM)
    made = aws.emr.steps()
    assert [step.name.rpartition(" ")[0] for step in made] == [f"sort [{CLAIM} 1/2", f"join [{CLAIM} 2/2"]
    assert {step.execution_role for step in made} == {"arn:aws:iam::123456789012:role/etl"}
    assert {step.action_on_failure for step in made} == {"CONTINUE"}
    assert job.id == ",".join(step.id for step in made)
    assert (job.scope, job.phase, job.claim) == (cluster, Phase.QUEUED, CLAIM)
    assert abs(job.created - aws.now()) < 30


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"answer": "500"}, id="a-500"),
        pytest.param({"answer": "drop"}, id="a-dropped-connection"),
        pytest.param({"code": "ThrottlingException"}, id="a-throttle"),
    ],
)
def test_one_lost_answer_makes_one_step(aws, cluster, fault):
    emr = service(cluster)
    aws.fail_next("emr:AddJobFlowSteps", carried_out=True, **fault)
    with pytest.raises(Exception) as error:  # noqa: PT011 - which one it is is what is_transient is asked
        emr.submit(CLAIM)
    assert emr.is_transient(error.value)
    assert aws.calls["emr:AddJobFlowSteps"] == 1
    assert [job.id for job in emr.find([CLAIM])] == [step.id for step in aws.emr.steps()]
    assert len(aws.emr.steps()) == 1


def test_a_job_of_more_than_ten_steps_is_one_job(aws, cluster):
    emr = service(cluster, *(f"part {n}" for n in range(23)))
    job = emr.submit(CLAIM)
    assert len(aws.emr.steps()) == 23
    other = watcher(emr)
    assert observe(other, job).phase is Phase.RUNNING
    for step in aws.emr.steps()[:-1]:
        aws.emr.finish(step.id)
        assert observe(other, job).live
    aws.emr.finish(aws.emr.steps()[-1].id)
    assert observe(emr, job).phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    ("request_of", "message"),
    [
        pytest.param(lambda c: service("j-UNKNOWN"), "Correct job_flow_id", id="an-unknown-cluster"),
        pytest.param(lambda c: service("None"), "the template found no value", id="an-empty-template"),
        pytest.param(lambda c: made(job_flow_id=c), "the list is empty", id="no-steps"),
        pytest.param(
            lambda c: made(job_flow_id=c, steps=[{**steps("a")[0], "Colour": "red", "Name": "a"}]),
            "Colour",
            id="a-field-that-boto3-does-not-know",
        ),
        pytest.param(
            lambda c: made(job_flow_id=c, steps=steps("a", args=["ok", 5])),
            "['Args'][1] is a int; it must be a text",
            id="an-argument-of-a-wrong-type",
        ),
    ],
)
def test_what_emr_will_never_take_is_refused_for_good(aws, cluster, request_of, message):
    with pytest.raises((SubmitRefused, InvalidParameter)) as error:
        request_of(cluster).submit(CLAIM)
    assert message in str(error.value)
    assert "hunter2" not in str(error.value)
    assert isinstance(error.value, AirflowFailException)
    assert aws.emr.steps() == []


def test_a_terminated_cluster_is_refused_with_its_reason(aws, cluster):
    aws.emr.end_cluster(cluster, "INSTANCE_FAILURE", "the master node died")
    with pytest.raises(SubmitRefused, match=r"INSTANCE_FAILURE \(the master node died\).*job_flow_name"):
        service(cluster).submit(CLAIM)


@pytest.mark.parametrize(
    "args", [["list", "steps"], ["active", "of"], ["Maximum number of active steps"], ["Maximum", "number"]]
)
def test_a_full_cluster_is_understood_whatever_the_arguments_are(aws, cluster, args):
    message = "Maximum number of active steps(State = 'Running', 'Pending') for cluster exceeded."
    aws.fail_next("emr:AddJobFlowSteps", "ValidationException", message=message)
    with pytest.raises(NoCapacity):
        made(job_flow_id=cluster, steps=steps("sort", args=args)).submit(CLAIM)


@pytest.mark.parametrize(
    "word", ["Maximum number of active steps", "terminated", "shutting down", "job flow ID"]
)
def test_arguments_that_emr_quotes_decide_nothing(aws, cluster, word):
    message = (
        f"1 validation error detected: Value '[spark-submit, {word}]' at 'steps' failed to satisfy constraint"
    )
    aws.fail_next("emr:AddJobFlowSteps", "ValidationException", message=message)
    with pytest.raises(SubmitRefused, match="Correct the steps, or the cluster"):
        made(job_flow_id=cluster, steps=steps("sort", args=["spark-submit", word])).submit(CLAIM)


def test_denied_access_is_refused_with_the_permission_that_lacks(aws, cluster):
    aws.deny("emr:AddJobFlowSteps")
    with pytest.raises(SubmitRefused, match=r"not authorized.*Allow elasticmapreduce:AddJobFlowSteps"):
        service(cluster).submit(CLAIM)


def test_step_arguments_that_emr_quotes_back_are_not_shown(aws, cluster, caplog):
    quoted = "1 validation error: Value '[spark-submit, hunter2]' at 'steps' failed; hunter2 is bad"
    aws.fail_next("emr:AddJobFlowSteps", "ValidationException", message=quoted)
    with pytest.raises(SubmitRefused) as error:
        service(cluster).submit(CLAIM)
    shown = f"{error.value} {error.value.response} {error.value.__cause__} {caplog.text}"
    assert "1 validation error" in shown
    assert "hunter2" not in shown
    assert error.value.__suppress_context__


def test_a_full_cluster_has_no_capacity(aws, cluster):
    emr = service(cluster, *(f"part {n}" for n in range(256)))
    emr.submit(OTHER)
    with pytest.raises(NoCapacity, match="256 active steps"):
        service(cluster).submit(CLAIM)
    for step in aws.emr.steps():
        aws.emr.finish(step.id)
    assert service(cluster).submit(CLAIM).live


# --- the cluster's name ---------------------------------------------------------------------------


def named(name="etl", **kwargs):
    return made(job_flow_name=name, steps=steps("sort"), **kwargs)


def test_a_cluster_is_found_by_its_name_among_many_pages(aws, cluster):
    for n in range(60):
        aws.make_emr_cluster(f"other {n}")
    assert named().submit(CLAIM).scope == cluster
    assert aws.calls["emr:ListClusters"] == 2


@pytest.mark.parametrize(
    ("name", "states", "message"),
    [
        pytest.param("nobody", [], "no EMR cluster named 'nobody' exists", id="none"),
        pytest.param("twin", [], "2 EMR clusters are named 'twin'", id="two"),
        pytest.param("etl", ["STARTING"], "in one of the states STARTING", id="none-in-these-states"),
        pytest.param("etl", ["DREAMING"], "cannot be looked up", id="a-state-that-does-not-exist"),
    ],
)
def test_exactly_one_cluster_must_bear_the_name(aws, cluster, name, states, message):
    aws.make_emr_cluster("twin")
    aws.make_emr_cluster("twin")
    with pytest.raises(SubmitRefused, match=message):
        named(name, cluster_states=states).submit(CLAIM)


def test_a_cluster_that_takes_steps_is_meant_rather_than_its_predecessors(aws, cluster):
    aws.emr.end_cluster(cluster)
    successor = aws.make_emr_cluster("etl")
    assert named().submit(CLAIM).scope == successor


def test_a_cluster_that_has_ended_is_found_when_there_is_no_other(aws, cluster):
    job = service(cluster).submit(CLAIM)
    aws.emr.finish(job.id)
    aws.emr.end_cluster(cluster, "USER_REQUEST")
    assert [found.phase for found in named().find([CLAIM])] == [Phase.SUCCEEDED]


def test_the_name_is_looked_up_when_it_is_needed_and_once(aws, cluster):
    emr = named()
    assert aws.calls["emr:ListClusters"] == 0
    job = emr.submit(CLAIM)
    emr.find([CLAIM])
    emr.observe([job])
    assert aws.calls["emr:ListClusters"] == 1


# --- finding --------------------------------------------------------------------------------------


def test_only_steps_with_the_claim_are_found_whatever_their_state(aws, cluster):
    mine = service(cluster).submit(CLAIM)
    aws.emr.finish(mine.id, "FAILED", reason="disk full")
    service(cluster).submit(OTHER)
    (found,) = service(cluster).find([CLAIM, Claim(CLAIM.task_key, 2)])
    assert (found.id, found.phase) == (mine.id, Phase.FAILED)
    assert found.claim == CLAIM


def test_a_duplicate_submission_makes_two_jobs(aws, cluster):
    emr = service(cluster, "sort", "join")
    first = emr.submit(CLAIM)
    aws.advance(1)
    second = emr.submit(CLAIM)
    found = emr.find([CLAIM])
    assert [job.id for job in sorted(found, key=lambda job: job.created)] == [first.id, second.id]


def test_resubmissions_are_jobs_of_the_same_claim(aws, cluster):
    emr = service(cluster)
    first = emr.submit(CLAIM)
    again = emr.submit(Claim(CLAIM.task_key, 1, resubmission=1))
    found = {job.id: job.claim for job in emr.find([CLAIM])}
    assert found == {first.id: CLAIM, again.id: CLAIM}
    assert found[again.id].token == f"{CLAIM}-1"


def test_steps_on_later_pages_are_found(aws, cluster):
    mine = service(cluster, "sort", "join").submit(CLAIM)
    aws.advance(1)
    service(cluster, *(f"part {n}" for n in range(130))).submit(OTHER)
    assert [job.id for job in service(cluster).find([CLAIM])] == [mine.id]
    assert aws.calls["emr:ListSteps"] == 3


def test_paging_ends_where_the_dag_run_began_but_active_steps_are_found_all_the_same(aws, cluster):
    done = service(cluster).submit(Claim(CLAIM.task_key, 1))
    aws.emr.finish(done.id)
    waiting = service(cluster).submit(Claim(CLAIM.task_key, 2))
    for step in service(cluster, *(f"part {n}" for n in range(200))).submit(OTHER).id.split(","):
        aws.emr.finish(step)
    aws.advance(3600)
    recent = service(cluster).submit(Claim(CLAIM.task_key, 3))
    aws.forget_calls()
    claims = [Claim(CLAIM.task_key, number) for number in (1, 2, 3)]
    found = service(cluster, not_before=aws.now() - 60).find(claims)
    assert {job.id for job in found} == {waiting.id, recent.id}
    assert aws.calls["emr:ListSteps"] == 2


def test_long_lists_are_asked_for_at_the_speed_that_emr_allows(aws, cluster):
    mine = service(cluster).submit(CLAIM)
    for _ in range(3):
        aws.advance(1)
        for step in service(cluster, *(f"part {n}" for n in range(250))).submit(OTHER).id.split(","):
            aws.emr.finish(step)
    aws.throttling = True
    emr = service(cluster, sleep=aws.advance)
    assert [job.id for job in emr.find([CLAIM])] == [mine.id]
    assert {call.answer for call in aws.journal if call.operation == "emr:ListSteps"} == {"ok"}


def test_an_unknown_cluster_has_no_steps(aws, cluster):
    assert service("j-UNKNOWN").find([CLAIM]) == []


def test_nothing_is_submitted_when_the_search_is_denied(aws, cluster):
    aws.deny("emr:ListSteps")
    with pytest.raises(SubmitRefused, match="Allow elasticmapreduce:ListSteps"):
        service(cluster).find([CLAIM])


# --- polling --------------------------------------------------------------------------------------


def test_a_step_goes_its_way(aws, cluster):
    emr = service(cluster)
    first = emr.submit(OTHER)
    job = emr.submit(CLAIM)
    assert observe(emr, job).phase is Phase.QUEUED
    aws.emr.finish(first.id)
    assert observe(emr, job).phase is Phase.RUNNING
    aws.emr.finish(job.id)
    seen = observe(emr, job)
    assert (seen.phase, seen.facts["state"], seen.ended) == (Phase.SUCCEEDED, "COMPLETED", aws.now())


def test_many_jobs_of_a_cluster_share_pages_and_others_are_asked_for_by_ids(aws, cluster):
    emr = service(cluster)
    jobs = []
    for n in range(120):
        emr.steps = steps(f"part {n}")
        jobs.append(emr.submit(CLAIM))
    for job in jobs[:5]:
        aws.emr.finish(job.id)
    aws.forget_calls()
    observed = emr.observe(jobs)
    assert {seen.id for seen in observed} == {job.id for job in jobs}
    assert sum(seen.phase is Phase.SUCCEEDED for seen in observed) == 5
    assert aws.calls["emr:ListSteps"] <= 4
    aws.forget_calls()
    emr.observe(jobs[:10])
    assert aws.calls["emr:ListSteps"] == 1, "ten ids are one call"


def test_what_has_completed_is_not_asked_for_again(aws, cluster):
    emr = service(cluster, *(f"part {n}" for n in range(40)))
    job = emr.submit(CLAIM)
    for step in job.id.split(",")[:35]:
        aws.emr.finish(step)
    job = observe(emr, job)
    aws.forget_calls()
    seen = observe(emr, job)
    assert aws.calls["emr:ListSteps"] == 1
    assert [state for _, state in seen.facts["steps"]] == ["COMPLETED"] * 35 + ["RUNNING"] + ["PENDING"] * 4
    assert seen.id == job.id


def test_jobs_of_several_clusters_are_polled_together(aws, cluster):
    other = aws.make_emr_cluster("other")
    jobs = [service(cluster).submit(CLAIM), service(other).submit(CLAIM)]
    assert {seen.scope for seen in service(cluster).observe(jobs)} == {cluster, other}


@pytest.mark.parametrize("answer", ["leave out", "refuse"])
def test_unknown_steps_are_left_out_and_harm_nobody(aws, cluster, answer):
    aws.emr.unknown_step_ids = answer
    emr = service(cluster)
    jobs = [emr.submit(CLAIM) for _ in range(3)]
    unknown = sensor_job(cluster, "s-UNKNOWN")
    assert {seen.id for seen in emr.observe([*jobs, unknown])} == {job.id for job in jobs}


def sensor_job(cluster, step_id):
    return Job(step_id, Claim("", 0), Phase.QUEUED, 0.0, scope=cluster)


def test_a_job_that_was_listed_in_part_is_polled_by_its_name(aws, cluster):
    emr = service(cluster, "sort", "join")
    emr.submit(CLAIM)
    (whole,) = emr.find([CLAIM])
    first, second = (step.id for step in aws.emr.steps())
    part = replace(whole, id=first, facts={"steps": [[first, "RUNNING"]], "of": 2})
    aws.emr.finish(first)
    seen = observe(watcher(emr), part)
    assert (seen.id, seen.phase) == (first, Phase.RUNNING)
    aws.emr.finish(second)
    seen = observe(watcher(emr), seen)
    assert (seen.id, seen.phase) == (first, Phase.SUCCEEDED)
    assert [step for step, _ in seen.facts["steps"]] == [first, second]


def test_an_unknown_cluster_refuses_the_poll(aws, cluster):
    emr = service(cluster)
    with pytest.raises(Exception, match="Cluster id") as error:
        emr.observe([sensor_job("j-UNKNOWN", "s-1")])
    assert not emr.is_transient(error.value)


def test_throttling_says_nothing_about_a_job(aws, cluster):
    emr = service(cluster)
    job = emr.submit(CLAIM)
    aws.fail_next("emr:ListSteps", "ThrottlingException", times=None)
    with pytest.raises(Exception, match="Rate exceeded") as error:
        service(cluster, botocore_config={"retries": {"total_max_attempts": 1}}).observe([job])
    assert emr.is_transient(error.value)


# --- bad ends -------------------------------------------------------------------------------------


def test_a_failure_tells_step_reason_message_and_log_file(aws, cluster):
    emr = service(cluster, "sort", "join")
    job = emr.submit(CLAIM)
    aws.emr.finish(job.id.split(",")[0])
    aws.emr.finish(job.id.split(",")[1], "FAILED", reason="Unknown Error", message="disk full")
    seen = observe(emr, job)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.APPLICATION)
    step = job.id.split(",")[1]
    assert f"step {step} 'join' FAILED: Unknown Error: disk full" in seen.reason
    assert f"s3://logs/emr/{cluster}/steps/{step}/stderr.gz" in seen.reason
    assert "hunter2" not in seen.reason


@pytest.mark.parametrize(
    ("code", "phase", "cause"),
    [
        ("INSTANCE_FAILURE", Phase.FAILED, Cause.INFRASTRUCTURE),
        ("INTERNAL_ERROR", Phase.FAILED, Cause.INFRASTRUCTURE),
        ("USER_REQUEST", Phase.CANCELLED, Cause.USER),
    ],
)
def test_steps_that_died_with_their_cluster_say_why(aws, cluster, code, phase, cause):
    emr = service(cluster, "sort", "join")
    job = emr.submit(CLAIM)
    aws.emr.end_cluster(cluster, code, "so it went")
    for seen in (observe(emr, job), emr.find([CLAIM])[0]):
        assert (seen.phase, seen.cause) == (phase, cause)
        assert f"Its cluster {cluster} ended with {code} (so it went)" in seen.reason
    assert aws.calls["emr:DescribeCluster"] == 1


def test_a_neighbours_failure_that_ends_the_cluster_is_not_taken_for_an_act_of_a_person(aws, cluster):
    neighbour = made(job_flow_id=cluster, steps=steps("n", action="TERMINATE_CLUSTER"))
    culprit = neighbour.submit(OTHER)
    job = service(cluster).submit(CLAIM)
    aws.emr.finish(culprit.id, "FAILED")
    assert observe(neighbour, culprit).cause is Cause.APPLICATION
    seen = observe(service(cluster), job)
    assert (seen.phase, seen.cause) == (Phase.FAILED, Cause.UNKNOWN)
    assert "STEP_FAILURE" in seen.reason


def test_a_denied_poll_of_the_cluster_leaves_the_steps_end(aws, cluster, caplog):
    emr = service(cluster)
    job = emr.submit(CLAIM)
    aws.emr.finish(job.id, "FAILED")
    aws.deny("emr:DescribeCluster")
    assert observe(emr, job).phase is Phase.FAILED
    assert "Allow elasticmapreduce:DescribeCluster" in caplog.text


def test_a_throttled_poll_of_the_cluster_says_nothing_about_the_job(aws, cluster):
    emr = service(cluster, botocore_config={"retries": {"total_max_attempts": 1}})
    job = emr.submit(CLAIM)
    aws.emr.finish(job.id, "FAILED")
    aws.fail_next("emr:DescribeCluster", "ThrottlingException")
    with pytest.raises(Exception, match="Rate exceeded"):
        emr.observe([job])
    assert observe(emr, job).phase is Phase.FAILED


# --- cancelling -----------------------------------------------------------------------------------


def test_running_and_pending_steps_are_cancelled(aws, cluster):
    emr = service(cluster, *(f"part {n}" for n in range(12)))
    job = emr.submit(CLAIM)
    neighbour = service(cluster).submit(OTHER)
    seen = watcher(emr).cancel(job, "cleared")
    assert seen.phase is Phase.STOPPING
    aws.advance(5)
    seen = observe(emr, seen)
    assert (seen.phase, seen.cause) == (Phase.CANCELLED, Cause.USER)
    assert aws.emr.step(neighbour.id).state == "RUNNING"


def test_cancelling_what_has_ended_is_no_error(aws, cluster):
    emr = service(cluster)
    job = emr.submit(CLAIM)
    aws.emr.finish(job.id)
    assert emr.cancel(job, "late").phase is Phase.SUCCEEDED
    assert aws.calls["emr:CancelSteps"] == 0


def test_a_release_that_cannot_cancel_says_so_in_the_log(aws, caplog):
    cluster = aws.make_emr_cluster("old", release="emr-5.20.0")
    emr = service(cluster)
    job = emr.submit(CLAIM)
    assert emr.cancel(job, "cleared").phase is Phase.RUNNING
    assert f"EMR did not cancel step {job.id}: Cannot cancel a running step" in caplog.text


def test_steps_without_the_claim_are_never_cancelled(aws, cluster, caplog):
    theirs = service(cluster).submit(OTHER)
    emr = service(cluster)
    emr.cancel(replace(theirs, claim=CLAIM), "mistaken")
    emr.cancel(sensor_job(cluster, theirs.id), "mistaken")
    assert aws.emr.step(theirs.id).state == "RUNNING"
    assert aws.calls["emr:CancelSteps"] == 0
    assert f"the name does not prove that it is a step of {CLAIM}" in caplog.text


# --- copies: people clone steps and clusters, with the names of the steps ---------------------------


def copied(job, cluster=None, place=0, args=("spark-submit", "hunter2")):
    """A copy of one step of `job`, as the console makes it; its id."""
    client = service(job.scope).client()
    ids = [step for step, _ in job.facts["steps"]]
    (original,) = client.list_steps(ClusterId=job.scope, StepIds=[ids[place]])["Steps"]
    step = {
        "Name": original["Name"],
        "ActionOnFailure": "CONTINUE",
        "HadoopJarStep": {"Jar": original["Config"]["Jar"], "Args": list(args)},
    }
    (made,) = client.add_job_flow_steps(JobFlowId=cluster or job.scope, Steps=[step])["StepIds"]
    return made


def test_the_success_of_a_copy_that_runs_something_else_is_not_adopted(aws, cluster, caplog):
    emr = service(cluster)
    job = emr.submit(CLAIM)
    aws.emr.finish(job.id, "FAILED")
    aws.emr.finish(copied(job, args=["true"]))
    assert [(found.id, found.phase) for found in emr.find([CLAIM])] == [(job.id, Phase.FAILED)]
    assert "it is a copy" in caplog.text


def test_a_copy_on_another_cluster_is_neither_found_nor_swept(aws, cluster):
    job = service(cluster).submit(CLAIM)
    clone = aws.make_emr_cluster("clone")
    copy = copied(job, clone)
    assert service(clone).find([CLAIM]) == service(clone).list_jobs(clone) == []
    assert [found.id for found in service(cluster).list_jobs(cluster)] == [job.id]
    named = service(clone).doubted(replace(job, id=copy, scope=clone, facts={}))
    assert service(clone).observe([named]) == []
    assert service(clone).cancel(named, "mistaken").phase is Phase.LOST
    assert aws.emr.step(copy).state == "RUNNING"


def test_a_step_whose_id_is_known_is_watched_and_cancelled_whatever_emr_lists_of_its_arguments(aws, cluster):
    """That ListSteps returns arguments as they were added is nowhere promised."""
    emr = service(cluster)
    job = emr.submit(CLAIM)
    inside = aws.emr._clusters[cluster].steps[job.id]
    inside.config["HadoopJarStep"]["Args"] = ["rewritten"]
    assert emr.find([CLAIM]) == [], "it cannot be distinguished from a copy"
    assert observe(emr, job).live
    assert emr.cancel(job, "no longer wanted").phase in (Phase.STOPPING, Phase.CANCELLED)


def test_a_copy_that_is_equal_in_cluster_and_arguments_is_as_good_as_ours(aws, cluster):
    emr = service(cluster)
    job = emr.submit(CLAIM)
    aws.emr.finish(job.id, "FAILED")
    aws.advance(1)
    copy = copied(job)
    aws.emr.finish(copy)
    assert {found.id: found.phase for found in emr.find([CLAIM])} == {
        job.id: Phase.FAILED,
        copy: Phase.SUCCEEDED,
    }


def test_a_copy_with_a_later_number_holds_up_nobody(aws, cluster):
    emr = service(cluster)
    job = emr.submit(CLAIM)
    step = {**steps("sort")[0], "Name": aws.emr.step(job.id).name.replace(str(CLAIM), f"{CLAIM}"[:-1] + "2")}
    emr.client().add_job_flow_steps(JobFlowId=cluster, Steps=[step])
    assert [found.id for found in emr.find([CLAIM, Claim(CLAIM.task_key, 2)])] == [job.id]


def test_the_states_of_steps_in_an_xcom_are_not_believed(aws, cluster):
    emr = service(cluster, "sort", "join")
    job = emr.submit(CLAIM)
    first, second = job.id.split(",")
    aws.emr.finish(second)
    said = replace(job, facts={"steps": [[first, "COMPLETED"], [second, "PENDING"]]})
    assert observe(emr, emr.doubted(said)).phase is Phase.RUNNING
    alone = replace(job, id=second, facts={})
    assert emr.observe([alone]) == [], "one step of two is no job"


def test_the_generation_is_read_from_the_steps(aws, cluster):
    emr = service(cluster)
    job = emr.submit(replace(CLAIM, generation="4.3"))
    assert [found.claim.generation for found in emr.find([CLAIM])] == ["4.3"]
    assert observe(emr, replace(job, claim=replace(CLAIM, generation="9.9"))).claim.generation == "4.3"


def test_a_denied_cancel_is_raised(aws, cluster):
    emr = service(cluster)
    job = emr.submit(CLAIM)
    aws.deny("emr:CancelSteps")
    with pytest.raises(Exception, match="not authorized"):
        emr.cancel(job, "cleared")


# --- operator and sensor --------------------------------------------------------------------------


@pytest.fixture
def live_aws():
    """A fake on real time, for triggers that wait."""
    with FakeAws() as fake:
        fake.emr.plan(seconds=0.2)
        yield fake


class QuickOperator(EmrAddStepsOperator):
    """The operator, with short waits."""

    def remote_jobs(self, context):
        emr = super().remote_jobs(context)
        emr.access, emr.listing_lag = ACCESS, 0.01
        return emr

    def _policy(self):
        return replace(super()._policy(), first_backoff=0.05, first_pause=0.01, max_backoff=0.1)


def operator(**kwargs):
    arguments = {
        "task_id": "sort",
        "aws_conn_id": None,
        "steps": steps("sort"),
        "poll_policy": QUICK,
        **kwargs,
    }
    return lambda: QuickOperator(**arguments)


def test_an_operator_that_does_not_wait_returns_the_step_ids(live_aws):
    cluster = live_aws.make_emr_cluster("etl", log_uri="s3://logs/emr/")
    tries = TaskTries(operator(job_flow_name="etl", steps=steps("sort", "join")))
    assert tries.start() == [step.id for step in live_aws.emr.steps()]
    assert tries.xcoms["job_flow_id"] == cluster
    shown = {"region_name": "us-east-1", "job_flow_id": cluster, "aws_domain": "aws.amazon.com"}
    assert tries.xcoms["emr_cluster"] == shown
    assert tries.xcoms["emr_logs"] == {**shown, "log_uri": "logs/emr/"}
    assert live_aws.calls["emr:DescribeCluster"] == 1, "for all links"
    logs = tries.xcoms["emr_step_logs"]
    assert (logs["job_flow_id"], logs["log_uri"]) == (cluster, "s3://logs/emr/")
    assert logs["step_id"] == live_aws.emr.steps()[0].id
    assert live_aws.calls["emr:ListSteps"] == 0, "a first try has nothing to search for"


def test_an_operator_that_waits_defers_and_returns_the_step_ids(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    names = [f"part {n}" for n in range(12)]
    live_aws.emr.plan(seconds=0.01)
    tries = TaskTries(operator(job_flow_id=cluster, steps=steps(*names), wait_for_completion=True))
    deferred = tries.start()
    assert isinstance(deferred, Deferred)
    assert "hunter2" not in json.dumps(deferred.kwargs)
    live_aws.forget_calls()
    assert tries.finish(deferred) == [step.id for step in live_aws.emr.steps()]
    assert live_aws.calls["emr:ListClusters"] == 0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(json.dumps(steps("sort")), id="json"),
        pytest.param(str(steps("sort")), id="a-list-as-xcom-renders-it"),
    ],
)
def test_steps_may_be_text(live_aws, text):
    cluster = live_aws.make_emr_cluster("etl")

    def rendered():
        task = operator(job_flow_id=cluster)()
        task.steps = text
        return task

    assert len(TaskTries(rendered).start()) == 1


def test_a_file_of_steps_is_taken(live_aws, tmp_path):
    from airflow.providers.common.compat.sdk import DAG

    (tmp_path / "steps.json").write_text(json.dumps(steps("{{ params.name }}")))
    cluster = live_aws.make_emr_cluster("etl")

    def rendered():
        with DAG("d", schedule=None, template_searchpath=str(tmp_path)):
            task = operator(job_flow_id=cluster, steps="steps.json")()
        task.resolve_template_files()
        task.render_template_fields({"params": {"name": "sort from a file"}})
        return task

    TaskTries(rendered).start()
    assert live_aws.emr.steps()[0].name.startswith("sort from a file [af-")


def test_a_lost_answer_is_one_step_for_the_whole_task(live_aws, caplog):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.fail_next("emr:AddJobFlowSteps", carried_out=True)

    tries = TaskTries(operator(job_flow_id=cluster, wait_for_completion=True))
    with caplog.at_level(logging.DEBUG, logger="airflow_resilient"):
        assert tries.run() == [step.id for step in live_aws.emr.steps()]
    assert len(live_aws.emr.steps()) == 1
    assert "hunter2" not in caplog.text


def test_a_failed_step_fails_the_task_and_a_retry_adds_the_next(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.emr.plan(
        seconds=0.05, outcome="FAILED", failure_message="disk full", then=[{"outcome": "COMPLETED"}]
    )
    tries = TaskTries(operator(job_flow_id=cluster, wait_for_completion=True, retries=1))
    with pytest.raises(JobFailed, match="disk full"):
        tries.run()
    assert tries.run() == [live_aws.emr.steps()[1].id]


def test_a_throttled_submission_waits_without_a_slot_and_spends_no_retry(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.fail_next("emr:AddJobFlowSteps", "ThrottlingException", times=4)
    tries = TaskTries(operator(job_flow_id=cluster, wait_for_completion=True))
    deferred = tries.start()
    assert live_aws.emr.steps() == []
    assert tries.finish(deferred) == [step.id for step in live_aws.emr.steps()]
    assert len(live_aws.emr.steps()) == 1


def test_steps_that_died_with_their_cluster_go_to_its_successor_within_the_try(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    tries = TaskTries(operator(job_flow_name="etl", wait_for_completion=True))
    deferred = tries.start()
    live_aws.emr.end_cluster(cluster, "INSTANCE_FAILURE")
    successor = live_aws.make_emr_cluster("etl")
    ids = tries.finish(deferred)
    assert ids == [step.id for step in live_aws.emr.steps(successor)]
    assert "-1-1 " in live_aws.emr.steps(successor)[0].name, "the second submission of claim 1"
    assert tries.xcoms["job_flow_id"] == successor
    assert tries.try_number == 1


def test_steps_that_died_with_a_cluster_named_by_its_id_say_why(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    tries = TaskTries(operator(job_flow_id=cluster, wait_for_completion=True))
    deferred = tries.start()
    live_aws.emr.end_cluster(cluster, "INSTANCE_FAILURE")
    with pytest.raises(SubmitRefused, match="INSTANCE_FAILURE"):
        tries.finish(deferred)


def test_a_step_that_a_person_cancelled_is_not_retried(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.emr.plan(seconds=0.05, outcome="CANCELLED")
    with pytest.raises(JobCancelled):
        TaskTries(operator(job_flow_id=cluster, wait_for_completion=True, retries=3)).run()


def test_a_clear_cancels_the_old_steps_before_new_ones_start(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.emr.plan(seconds=30.0, stop_seconds=0.1, then=[{"seconds": 0.1}])
    tries = TaskTries(operator(job_flow_id=cluster, wait_for_completion=True))
    tries.start()
    tries.clear()
    ids = tries.run()
    old, new = live_aws.emr.steps()
    assert [new.id] == ids
    assert (old.state, new.state) == ("CANCELLED", "COMPLETED")
    assert old.ended <= new.created


def sensor(cluster, step_id, **kwargs):
    arguments = {"task_id": "wait", "aws_conn_id": None, "poke_interval": 0.05, **kwargs}
    return lambda: EmrStepSensor(job_flow_id=cluster, step_id=step_id, **arguments)


def test_a_sensor_waits_for_the_end_of_a_step(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.emr.plan(seconds=None)
    (step,) = TaskTries(operator(job_flow_id=cluster)).start()
    tries = TaskTries(sensor(cluster, step))
    deferred = tries.start()
    assert isinstance(deferred, Deferred)
    live_aws.emr.finish(step)
    tries.finish(deferred)
    assert live_aws.emr.step(step).state == "COMPLETED"
    assert tries.xcoms["emr_step_logs"]["step_id"] == step


def test_a_sensor_may_wait_for_the_start_of_a_step(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.emr.plan(seconds=None, pending_seconds=0.3)
    (step,) = TaskTries(operator(job_flow_id=cluster)).start()
    TaskTries(sensor(cluster, step, target_states=["RUNNING"])).run()
    assert live_aws.emr.step(step).state == "RUNNING"


@pytest.mark.parametrize(
    ("outcome", "states", "message"),
    [
        pytest.param("FAILED", {}, "disk full.*FAILED is one of failed_states", id="a-failed-state"),
        pytest.param("CANCELLED", {}, "CANCELLED is one of failed_states", id="a-cancelled-step"),
        pytest.param(
            "COMPLETED", {"target_states": ["CANCELLED"]}, "can no longer become CANCELLED", id="too-late"
        ),
    ],
)
def test_a_sensor_fails_when_its_state_cannot_come_any_more(live_aws, outcome, states, message):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.emr.plan(seconds=0.05, outcome=outcome, failure_message="disk full")
    (step,) = TaskTries(operator(job_flow_id=cluster)).start()
    with pytest.raises(JobFailed, match=message):
        TaskTries(sensor(cluster, step, **states)).run()


def test_a_sensor_may_want_what_is_usually_a_failure(live_aws):
    cluster = live_aws.make_emr_cluster("etl")
    live_aws.emr.plan(seconds=0.05, outcome="FAILED")
    (step,) = TaskTries(operator(job_flow_id=cluster)).start()
    TaskTries(sensor(cluster, step, target_states=["FAILED"])).run()


def test_a_sensor_of_an_unknown_cluster_fails_at_once(aws):
    with pytest.raises(JobUnreachable, match="EMR has no cluster j-UNKNOWN"):
        TaskTries(sensor("j-UNKNOWN", "s-1")).start()


@pytest.mark.parametrize("fault", [{"code": "ThrottlingException"}, {"code": "AccessDeniedException"}, {}])
def test_errors_of_links_fail_nothing(aws, cluster, fault):
    aws.fail_next("emr:DescribeCluster", times=None, **fault)
    step = TaskTries(operator(job_flow_id=cluster)).start()[0]
    tries = TaskTries(sensor(cluster, step))
    assert isinstance(tries.start(), Deferred)
    assert tries.xcoms["emr_cluster"]["job_flow_id"] == cluster
    assert tries.xcoms["emr_step_logs"]["log_uri"] is None


def test_a_sensor_says_that_nobody_knows_the_step(aws, cluster):
    task = sensor(cluster, "s-UNKNOWN")()
    lost = sensor_job(cluster, "s-UNKNOWN")
    lost = replace(lost, phase=Phase.LOST, reason="the service has not known it for 130 s")
    with pytest.raises(JobLost, match="EMR has no step s-UNKNOWN on cluster"):
        task.arrived(lost)
