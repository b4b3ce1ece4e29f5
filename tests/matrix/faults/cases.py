"""The matrix as data: what is done, to which fates of the job, and what is wanted.

Every row should come to *one* job, none left, none wronged, the truth reported, and no retry used up,
unless it says otherwise, with a reason.  A row that cannot be perfect on this version of Airflow says what
comes instead, why, and what heals it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import steps as s
from .environment import AWS_SERVICES, SERVICES

if TYPE_CHECKING:
    from .judge import Figures, Reported

FATES = ("runs on", "well", "badly", "forgotten", "badly forgotten")
"""What the state of the job is when it is polled: it runs on and ends well later, has ended well, has failed
(the one after it ends well), has ended well or failed and is forgotten by AWS (ECS only: EMR does not forget
steps)."""


@dataclass(frozen=True)
class Wanted:
    """What a case should come to.

    :param at_once: how many jobs may live at the same time, beside those that are left.
    :param or_fewer: fewer retries are as good.
    """

    made: int = 1
    left: int = 0
    wronged: int = 0
    reported: Reported = "equal"
    retries: int = 0
    at_once: int = 1
    or_fewer: bool = False

    def held(self, figures: Figures) -> bool:
        """Whether it came to that, and nowhere two jobs lived at once but where one is left anyway.

        A try that the scheduler fails by itself is counted apart.  It may take the place of a retry that is
        wanted here; all else must hold.
        """
        come = (figures.made, figures.left, figures.wronged, figures.reported)
        return (
            come == (self.made, self.left, self.wronged, self.reported)
            and (self.or_fewer or self.retries - figures.by_scheduler <= figures.retries)
            and figures.retries <= self.retries
            and figures.at_once <= self.at_once + self.left
        )


@dataclass(frozen=True)
class Impossible:
    """Why a row cannot be perfect.

    :param comes: what our operators come to instead, by fate, or by service and fate; several where Airflow
        leaves it to chance.
    :param why: one sentence.
    :param heals: one sentence.
    """

    why: str
    heals: str
    comes: Mapping[Any, Sequence[Wanted]]


@dataclass(frozen=True)
class Row:
    """One fault.

    :param id: short; part of the jobs' names.
    :param what: what happens, as part of a sentence.
    :param do: steps, from the trigger of the run to its end.
    :param wanted: by fate, where it is not ``Wanted()``.
    :param note: why more than one job or a retry is wanted.
    :param phase: name of the phase that breaks a component for all its rows; ``""`` hits single tasks only.
    :param variant: of the DAG, see fault_dags.py.
    :param own_cluster: AWS's fault is about this case alone.
    :param plan: more of the jobs' plans, by service.
    :param services: all of them, for faults that hit the submission, a pause or a cancel of the operator.
    :param hardest: the service for which the row is hardest, for the part that every check runs.
    """

    id: str
    group: str
    what: str
    do: tuple[s.Step, ...]
    fates: tuple[str, ...] = ("runs on",)
    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    note: str = ""
    services: tuple[str, ...] = AWS_SERVICES
    impossible: tuple[Impossible, ...] = ()
    phase: str = ""
    variant: str = "plain"
    own_cluster: bool = False
    plan: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hardest: str = ""

    def applies(self, service: str, fate: str) -> bool:
        """Whether there is such a case."""
        forgets = service == "ecs" or "forgotten" not in fate
        return service in self.services and fate in self.fates and forgets

    def ideal(self, fate: str) -> Wanted:
        """What anybody would want."""
        return self.wanted.get(fate, Wanted())

    def limit(self, service: str, fate: str) -> Impossible | None:
        """Why that is impossible, if it is."""
        for each in self.impossible:
            if (service, fate) in each.comes or fate in each.comes:
                return each
        return None

    def expected(self, service: str, fate: str, *, swept: bool = False) -> Sequence[Wanted]:
        """What our operators must come to: one of these.

        :param swept: the orphan sweep runs by itself: then no job is left.
        """
        if (limit := self.limit(service, fate)) is None:
            return [self.ideal(fate)]
        possible = limit.comes.get((service, fate)) or limit.comes[fate]
        if swept:
            possible = [replace(each, left=0, at_once=each.at_once + each.left) for each in possible]
        return [self.ideal(fate), *possible]

    def leaves_a_job(self, service: str, fate: str) -> bool:
        """Whether such a case may leave a job running, which the orphan sweep then ends."""
        return any(each.left for each in self.expected(service, fate))


# --- shared by rows ----------------------------------------------------------------------------------------

ONE_RETRY = Wanted(retries=1)
ONE_RETRY_OR_NONE = Wanted(retries=1, or_fewer=True)
FAILED_ONCE = Wanted(made=2, retries=1)
TWO = Wanted(made=2)

COUNTED = "Airflow itself counts a try whose process dies"
OWN = "a job that has failed is retried"
ASKED = "a clear asks for a new job"
NEW_RUN = "a new run asks for a new job"

FORGOTTEN = Impossible(
    "AWS has forgotten the task, so a try that finds nothing cannot know that it ran.",
    "An archive of AWS's events; retries within the hour for which ECS remembers; a job that may run twice.",
    {"forgotten": [FAILED_ONCE]},
)
NEVER_SEEN = Impossible(
    "No poll saw the end, and AWS has forgotten the task: the try fails with JobLost and does not guess.",
    "An archive of AWS's events; a triggerer that is back within an hour; a check of the job's output "
    "before a clear.",
    {"forgotten": [Wanted(made=2, retries=1)]},
)

KILL = "The task's process is killed (SIGKILL)"
WORKER = "The worker stops"
TRIGGERER = "The triggerer stops"
CLEAR = "A person clears the task instance"
END = "A person, or a limit, ends the task instance while it is deferred"
DOWN = "The same while no triggerer runs; one starts later"
API = "The API server is away"
AWS = "AWS fails or throttles"

KILLED = {
    "runs on": ONE_RETRY,
    "well": ONE_RETRY,
    "badly": FAILED_ONCE,
    "forgotten": ONE_RETRY,
    "badly forgotten": FAILED_ONCE,
}
WATCHED = {"badly": FAILED_ONCE, "badly forgotten": FAILED_ONCE}


UNCONFIRMED: tuple[s.Step, ...] = (
    s.fail("polls", code="ThrottlingException"),
    s.fail("submits", times=1, carried_out=True),
    s.start,
    s.submitted,
    s.trigger_started,
)
"""The answer to the submit is lost, and a trigger waits for the next search."""


def _ended_row(row_id: str, group: str, what: str, act: s.Step, *, down: bool = False, **more: Any) -> Row:
    """A person, or a limit, ends a deferred task instance."""
    begin: tuple[s.Step, ...] = (s.start, s.watched)
    if more.get("variant") == "limited" and down:
        begin = (s.others_first, *begin)
    do = (*begin, s.breaks, act, s.recovers, s.has_ended) if down else (*begin, act, s.has_ended)
    return Row(row_id, group, what, do, phase="triggerer down" if down else "", **more)


MISSED = Impossible(
    "Airflow does not keep this event for a triggerer that starts later.",
    "The orphan sweep, a clear of the task instance, or a stop by hand; otherwise the job runs to its end.",
    {"runs on": [Wanted(left=1)]},
)

SAME_MINUTE = Impossible(
    "Clocks may differ by a minute, so the job that the token shows may be the new run's own.",
    "Clear it: that starts the job again.",
    {("ecs", "runs on"): [Wanted(made=1, reported="stale")]},
)
TOO_FAST = Impossible(
    "The new run exists before the triggerer asks Airflow, so it gets the new run's state and cancels "
    "nothing.",
    MISSED.heals,
    # The second, if Airflow's scheduler fails the first try of the new run: the next one searches.
    {("emr", "runs on"): [Wanted(made=2, left=1), Wanted(made=2, reported="stale", at_once=2)]},
)

IN_WORKER = "The task waits in the worker (`deferrable=False`, or `execute` called in a Python task)"


def _in_worker(row_id: str, what: str, *do: s.Step, wanted: Wanted = ONE_RETRY, **more: Any) -> Row:
    """A fault that hits a task while it polls its job in the worker."""
    more = {"variant": "in_worker", **more}
    return Row(row_id, IN_WORKER, what, (s.start, *do), wanted={"runs on": wanted}, **more)


ROWS: Sequence[Row] = (
    # --- the task's process
    Row(
        "kill-before",
        KILL,
        "before it submits",
        (s.gate("execute"), s.start, s.held, s.kill_task, s.end),
        wanted={"runs on": ONE_RETRY},
        note=COUNTED,
    ),
    Row(
        "kill-unread",
        KILL,
        "after AWS has accepted the job, before the answer is read",
        (s.hold_answer, s.start, s.held, s.fate, s.kill_task, s.end),
        FATES,
        wanted=KILLED,
        note=COUNTED,
        impossible=(FORGOTTEN,),
        hardest="emr",
    ),
    Row(
        "kill-answered",
        KILL,
        "after the answer, before the deferral",
        (s.gate("defer"), s.start, s.held, s.fate, s.kill_task, s.end),
        FATES,
        wanted=KILLED,
        note=COUNTED,
        impossible=(FORGOTTEN,),
    ),
    Row(
        "kill-deferred",
        KILL,
        "after the deferral is stored",
        (s.gate("deferred"), s.start, s.held, s.fate, s.kill_task, s.end),
        FATES,
        wanted=WATCHED,
        note=OWN,
        impossible=(NEVER_SEEN,),
    ),
    Row(
        "kill-resumed",
        KILL,
        "on resume, before the result is stored",
        (s.gate("resumed"), s.start, s.watched, s.end_and_show, s.held, s.forget, s.kill_task, s.end),
        ("well", "badly", "forgotten", "badly forgotten"),
        wanted=KILLED,
        note=COUNTED,
        impossible=(FORGOTTEN,),
    ),
    Row(
        "kill-archived",
        KILL,
        "after AWS has accepted the job, before the answer is read; AWS's events are archived",
        (s.archived, s.hold_answer, s.start, s.held, s.fate, s.kill_task, s.end),
        ("forgotten", "badly forgotten"),
        wanted={fate: KILLED[fate] for fate in ("forgotten", "badly forgotten")},
        note=COUNTED,
        services=("ecs",),
        own_cluster=True,
    ),
    Row(
        "watch-archived",
        KILL,
        "after the deferral is stored; AWS's events are archived",
        (s.archived, s.gate("deferred"), s.start, s.held, s.fate, s.kill_task, s.end),
        ("forgotten", "badly forgotten"),
        wanted={"badly forgotten": FAILED_ONCE},
        note=OWN,
        services=("ecs",),
        own_cluster=True,
    ),
    # --- the worker
    Row(
        "worker-unread",
        WORKER,
        "SIGKILL of worker and task, after AWS has accepted the job",
        (s.hold_answer, s.start, s.held, s.fate, s.kill_worker, s.end),
        FATES,
        wanted=KILLED,
        note=COUNTED,
        impossible=(FORGOTTEN,),
        hardest="emr",
    ),
    Row(
        "worker-resumed",
        WORKER,
        "SIGKILL of worker and task, on resume",
        (s.gate("resumed"), s.start, s.watched, s.fate, s.held, s.kill_worker, s.end),
        ("well", "badly"),
        wanted=KILLED,
        note=COUNTED,
    ),
    Row(
        "deploy",
        WORKER,
        "SIGTERM of the worker before the deferral; the task may go on",
        (s.gate("defer"), s.start, s.held, s.stop_worker, s.fate, s.go_on, s.end),
        ("runs on", "well", "badly"),
        wanted=WATCHED,
        note=OWN,
    ),
    Row(
        "deploy-early",
        WORKER,
        "SIGTERM of the worker before it submits; the task may go on",
        (s.gate("execute"), s.start, s.held, s.stop_worker, s.go_on, s.end),
        services=SERVICES,
    ),
    Row(
        "deploy-unread",
        WORKER,
        "SIGTERM of the worker while the submit is under way; the task may go on",
        (s.hold_answer, s.start, s.held, s.stop_worker, s.fate, s.go_on, s.end),
        ("runs on", "well", "badly"),
        wanted=WATCHED,
        note=OWN,
        services=SERVICES,
    ),
    Row(
        "deploy-hard",
        WORKER,
        "SIGTERM of the worker before the deferral, SIGKILL when its grace is over",
        (s.gate("defer"), s.start, s.held, s.stop_worker, s.fate, s.kill_worker, s.end),
        ("runs on", "well"),
        wanted=KILLED,
        note=COUNTED,
    ),
    Row(
        "machine-unread",
        WORKER,
        "the machine of scheduler and workers is lost after AWS has accepted the job",
        (s.hold_answer, s.start, s.held, s.breaks, s.fate, s.go_on, s.recovers, s.end),
        ("runs on", "well"),
        wanted=KILLED,
        note=COUNTED,
        phase="scheduler lost",
    ),
    Row(
        "machine-deferred",
        WORKER,
        "the machine of scheduler and workers is lost while the task is deferred",
        (s.start, s.watched, s.breaks, s.fate, s.recovers, s.end),
        ("runs on", "well", "badly"),
        wanted=WATCHED,
        note=OWN,
        phase="scheduler lost",
    ),
    Row(
        "begun-again",
        WORKER,
        "it cannot load the DAG file on resume, and Airflow begins the try again",
        (s.start, s.watched, s.unloadable, s.fate, s.loaded, s.end),
        ("well", "badly"),
        wanted=WATCHED,
        note=OWN,
    ),
    # --- the triggerer
    Row(
        "triggerer-killed",
        TRIGGERER,
        "SIGKILL, and started again later",
        (s.start, s.watched, s.breaks, s.fate, s.recovers, s.end),
        FATES,
        wanted=WATCHED,
        note=OWN,
        phase="triggerer down",
        impossible=(NEVER_SEEN,),
    ),
    Row(
        "takeover",
        TRIGGERER,
        "stopped (SIGSTOP) beyond its heartbeat, another one takes over, and it wakes up",
        (s.start, s.watched, s.breaks, s.fate, s.taken_over, s.recovers, s.woken, s.end),
        FATES,
        wanted=WATCHED,
        note=OWN,
        phase="takeover",
        impossible=(NEVER_SEEN,),
    ),
    Row(
        "trigger-crash",
        TRIGGERER,
        "the trigger crashes",
        (s.crash_trigger, s.start, s.crashed, s.fate, s.end),
        ("runs on", "well", "badly"),
        wanted=WATCHED,
        note=OWN,
    ),
    # --- clear
    Row(
        "clear-deferred",
        CLEAR,
        "while it is deferred",
        (s.start, s.watched, s.clear, s.next_job, s.end),
        wanted={"runs on": TWO},
        note=ASKED,
    ),
    Row(
        "clear-running",
        CLEAR,
        "while it is on the worker, after it has submitted",
        (s.gate("defer"), s.start, s.held, s.clear_running, s.go_on, s.end),
        wanted={"runs on": TWO},
        note=ASKED,
        impossible=(
            Impossible(
                "A clear of a task instance that is on a worker reaches the next try only sometimes; "
                "otherwise the next try is a retry and takes over the job that runs.",
                "Clear it again when it is deferred.",
                {"runs on": [TWO, Wanted(made=1, reported="stale", retries=1)]},
            ),
        ),
    ),
    Row(
        "clear-success",
        CLEAR,
        "after it has succeeded",
        (s.start, s.succeeded, s.clear, s.next_job, s.end),
        ("well",),
        wanted={"well": TWO},
        note=ASKED,
    ),
    Row(
        "clear-failure",
        CLEAR,
        "after it has failed",
        (s.start, s.failed, s.clear, s.next_job, s.end),
        ("badly",),
        wanted={"badly": TWO},
        note=ASKED,
        variant="once",
    ),
    Row(
        "clear-twice",
        CLEAR,
        "twice at once, while it is deferred",
        (s.start, s.watched, s.clear, s.clear, s.next_job, s.end),
        wanted={"runs on": TWO},
        note=ASKED,
    ),
    Row(
        "clear-then",
        CLEAR,
        "and again, when the next try is deferred",
        (s.start, s.watched, s.clear, s.next_job, s.clear, s.next_job, s.end),
        wanted={"runs on": Wanted(made=3)},
        note=ASKED,
    ),
    Row(
        "clear-down",
        CLEAR,
        "while no triggerer runs",
        (s.start, s.watched, s.breaks, s.fate, s.clear, s.recovers, s.next_job, s.end),
        ("runs on", "well", "badly"),
        wanted={"runs on": TWO, "well": TWO, "badly": TWO},
        note=ASKED,
        phase="triggerer down",
    ),
    # --- ends
    _ended_row("mark-failed", END, "marked as failed", s.mark_failed),
    _ended_row("mark-success", END, "marked as success", s.mark_success),
    _ended_row("fail-run", END, "its run is marked as failed", s.fail_run),
    _ended_row("delete-run", END, "its run is deleted", s.delete_run),
    _ended_row("run-timeout", END, "`dagrun_timeout` passes", s.run_limit_passes, variant="brief_run"),
    _ended_row("deadline", END, "`execution_timeout` passes", s.limit_passes, variant="limited"),
    Row(
        "deadline-unread",
        END,
        "`execution_timeout` passes while the submit is under way",
        (
            s.hold_answer,
            s.start,
            s.held,
            s.limit_passes,
            # Airflow counts from the start of the visit, which is some seconds after that of the try.
            s.for_a_while(30, 30, met=False),
            s.go_on,
            s.has_ended,
        ),
        variant="limited",
        hardest="emr",
        services=SERVICES,
    ),
    Row(
        "mark-unconfirmed",
        END,
        "marked as failed in a pause, after the answer to the submit was lost and searches are throttled",
        (
            *UNCONFIRMED,
            s.mark_failed,
            s.has_ended,
            s.heal,
        ),
        own_cluster=True,
        variant="throttled",
        hardest="emr",
        services=SERVICES,
    ),
    Row(
        "mark-paused",
        END,
        "cleared, and marked as failed in the pause in which the cancel of the first job is throttled",
        (
            s.start,
            s.watched,
            s.fail("cancels", code="ThrottlingException"),
            s.clear,
            s.next_deferred,
            s.trigger_started,
            s.mark_failed,
            s.has_ended,
            s.heal,
        ),
        own_cluster=True,
        variant="throttled",
        services=SERVICES,
    ),
    Row(
        "clear-paused",
        CLEAR,
        "in a pause, after the answer to the submit was lost and searches are throttled",
        (
            *UNCONFIRMED,
            s.clear,
            s.heal,
            s.next_job,
            s.end,
        ),
        wanted={"runs on": TWO},
        note=ASKED,
        own_cluster=True,
        variant="throttled",
        services=SERVICES,
    ),
    Row(
        "again",
        END,
        "its run is deleted and created again under the same id",
        (s.start, s.watched, s.delete_run, s.make_again, s.next_job, s.end),
        wanted={"runs on": TWO},
        note=NEW_RUN,
        impossible=(SAME_MINUTE, TOO_FAST),
        hardest="ecs",
    ),
    # --- the same without a triggerer
    _ended_row("mark-failed-down", DOWN, "marked as failed", s.mark_failed, down=True, impossible=(MISSED,)),
    _ended_row(
        "mark-success-down", DOWN, "marked as success", s.mark_success, down=True, impossible=(MISSED,)
    ),
    _ended_row(
        "fail-run-down", DOWN, "its run is marked as failed", s.fail_run, down=True, impossible=(MISSED,)
    ),
    _ended_row("delete-run-down", DOWN, "its run is deleted", s.delete_run, down=True, impossible=(MISSED,)),
    _ended_row(
        "run-timeout-down",
        DOWN,
        "`dagrun_timeout` passes",
        s.run_limit_passes,
        down=True,
        variant="brief_run",
        impossible=(MISSED,),
    ),
    _ended_row(
        "deadline-down", DOWN, "`execution_timeout` passes", s.limit_passes, down=True, variant="limited"
    ),
    Row(
        "deadline-late",
        DOWN,
        "`execution_timeout` passes, but the job had ended well before",
        (s.others_first, s.start, s.watched, s.breaks, s.fate, s.limit_passes, s.recovers, s.end),
        ("well",),
        phase="triggerer down",
        variant="limited",
    ),
    Row(
        "again-down",
        DOWN,
        "its run is deleted and created again under the same id, hours after the job was made",
        (
            s.start,
            s.watched,
            s.breaks,
            s.hours_pass,
            s.delete_run,
            s.make_again,
            s.next_deferred,
            s.recovers,
            s.end,
        ),
        wanted={"runs on": TWO},
        note=NEW_RUN,
        phase="triggerer down",
        impossible=(
            Impossible(
                "Airflow gives the new run no hint of the deleted one, and EMR has no token: a first try "
                "does not search for jobs.",
                MISSED.heals,
                {("emr", "runs on"): [Wanted(made=2, left=1)]},
            ),
        ),
        hardest="ecs",
    ),
    Row(
        "again-soon-down",
        DOWN,
        "the same within a minute of the job's submission",
        (s.start, s.watched, s.breaks, s.delete_run, s.make_again, s.next_deferred, s.recovers, s.end),
        wanted={"runs on": TWO},
        note=NEW_RUN,
        phase="triggerer down",
        services=("ecs",),
        impossible=(SAME_MINUTE,),
    ),
    # --- the API server
    Row(
        "api-deferred",
        API,
        "for a minute, while the task is deferred; workers retry for two",
        (s.start, s.watched, s.breaks, s.fate, s.recovers, s.end),
        ("runs on", "well", "badly"),
        wanted=WATCHED,
        note=OWN,
        phase="API server away",
    ),
    Row(
        "api-submitted",
        API,
        "for a minute, after the submit and before the deferral; workers retry for two",
        (s.gate("defer"), s.start, s.held, s.breaks, s.fate, s.go_on, s.recovers, s.end),
        ("runs on", "well"),
        phase="API server away",
    ),
    # --- AWS
    Row(
        "throttled",
        AWS,
        "polls and submits are throttled for two minutes while the task is deferred",
        (
            s.start,
            s.watched,
            s.fail("calls", code="ThrottlingException"),
            s.call_failed,
            s.fate,
            s.for_a_while(120, 30),
            s.heal,
            s.end,
        ),
        ("runs on", "well"),
        own_cluster=True,
        variant="throttled",
    ),
    Row(
        "throttled-submit",
        AWS,
        "the submit is throttled for half a minute",
        (s.fail("submits", code="ThrottlingException"), s.start, s.for_a_while(30, 15), s.heal, s.end),
        own_cluster=True,
        variant="throttled",
    ),
    Row(
        "lost-answer",
        AWS,
        "the submit is carried out, its answer is an error 500",
        (s.fail("submits", times=1, carried_out=True), s.start, s.call_failed, s.fate, s.end),
        ("runs on", "well", "badly"),
        wanted=WATCHED,
        note=OWN,
        own_cluster=True,
        hardest="emr",
    ),
    Row(
        "dropped-answer",
        AWS,
        "the submit is carried out, the connection breaks without an answer",
        (
            s.fail("submits", times=1, carried_out=True, answer="drop"),
            s.start,
            s.call_failed,
            s.fate,
            s.end,
        ),
        ("runs on", "well"),
        own_cluster=True,
        hardest="emr",
    ),
    Row(
        "submit-500",
        AWS,
        "submits get errors 500 for a while and are not carried out",
        (s.fail("submits"), s.start, s.for_a_while(15, 8), s.heal, s.end),
        own_cluster=True,
        variant="broken",
    ),
    Row(
        "polls-500",
        AWS,
        "polls get errors 500 for a minute",
        (s.start, s.watched, s.fail("polls"), s.call_failed, s.fate, s.for_a_while(60, 15), s.heal, s.end),
        ("runs on", "well"),
        own_cluster=True,
        variant="broken",
    ),
    Row(
        "mark-throttled",
        AWS,
        "cancels are throttled for a minute, in which the task instance is marked as failed",
        (
            s.start,
            s.watched,
            s.fail("cancels", code="ThrottlingException"),
            s.mark_failed,
            s.has_ended,
            s.for_a_while(60, 20, met=False),
            s.heal,
        ),
        own_cluster=True,
        variant="throttled",
    ),
    Row(
        "missing",
        AWS,
        "the new task is MISSING for ten seconds",
        (s.start, s.deferred, s.fate, s.known, s.end),
        ("runs on", "well"),
        services=("ecs",),
        plan={"ecs": {"visible_after_seconds": 10.0}},
    ),
    Row(
        "denied",
        AWS,
        "polls are denied for twenty seconds",
        (
            s.start,
            s.watched,
            s.fail("polls", code="AccessDeniedException"),
            s.call_failed,
            s.fate,
            s.for_a_while(20, 10),
            s.heal,
            s.end,
        ),
        ("runs on", "well"),
        own_cluster=True,
        variant="denied",
    ),
    Row(
        "lost-host",
        AWS,
        "the host of the ECS task, or the cluster of the step, is lost; there is another one",
        (s.start, s.watched, s.lose_infrastructure, s.second_job, s.end),
        wanted={"runs on": TWO},
        note="the first job is lost, and nobody's retry should pay for that",
        own_cluster=True,
    ),
    Row(
        "terminated",
        AWS,
        "a person terminates the cluster of the step",
        (s.start, s.watched, s.terminate_cluster, s.has_ended),
        services=("emr",),
        own_cluster=True,
    ),
    Row(
        "by-hand",
        AWS,
        "a person stops the job in AWS; it stops gracefully, with exit code 0",
        (s.start, s.watched, s.stopped_by_hand, s.has_ended),
    ),
    Row(
        "spot",
        AWS,
        "Spot capacity is taken away; the container stops gracefully, with exit code 0",
        (s.start, s.watched, s.interrupt_spot, s.second_job, s.end),
        services=("ecs",),
        wanted={"runs on": TWO},
        note="the first job is lost, and nobody's retry should pay for that",
    ),
    Row(
        "late-listing",
        AWS,
        "the task is killed after AWS has accepted the job, which is listed when the next try has begun",
        (
            s.hold_answer,
            s.start,
            s.held,
            s.gate("execute"),
            s.kill_task,
            s.held,
            s.listed_late(4),
            s.go_on,
            s.end,
        ),
        wanted={"runs on": ONE_RETRY},
        note=COUNTED,
        own_cluster=True,
        hardest="emr",
    ),
    # --- in the worker
    _in_worker(
        "here-kill", "its process is killed (SIGKILL)", s.waits_here, s.kill_task, s.end, note=COUNTED
    ),
    _in_worker("here-worker", "SIGKILL of worker and task", s.waits_here, s.kill_worker, s.end, note=COUNTED),
    _in_worker(
        "here-deploy",
        "SIGTERM of the worker",
        s.waits_here,
        s.stop_worker,
        s.end,
        wanted=ONE_RETRY_OR_NONE,
        note="the try ends with its process, and the next one takes the job over",
    ),
    _in_worker(
        "here-term",
        "SIGTERM of the task's process alone",
        s.waits_here,
        s.terminate_task,
        s.end,
        wanted=ONE_RETRY_OR_NONE,
        note="the same; the worker can still tell that nobody has ended the task instance",
    ),
    _in_worker("here-mark", "marked as failed", s.waits_here, s.mark_failed, s.has_ended, wanted=Wanted()),
    _in_worker(
        "here-clear",
        "cleared",
        s.waits_here,
        s.clear_running,
        s.next_here,
        s.end,
        wanted=TWO,
        note=ASKED,
    ),
    _in_worker(
        "here-deadline",
        "`execution_timeout` passes",
        s.waits_here,
        s.limit_passes,
        s.has_ended,
        wanted=Wanted(),
        variant="limited_in_worker",
    ),
    _in_worker(
        "loop-kill",
        "its process is killed (SIGKILL) in the second of three calls",
        s.parts(1),
        s.kill_task,
        s.end,
        wanted=Wanted(made=3, retries=1),
        note=f"three calls are three jobs; {COUNTED[0].lower()}{COUNTED[1:]}",
        variant="loop",
    ),
    _in_worker(
        "loop-mark",
        "marked as failed in the second of three calls",
        s.parts(1),
        s.mark_failed,
        s.has_ended,
        wanted=TWO,
        note="the first call's job has ended by then",
        variant="loop",
    ),
)

BY_ID = {row.id: row for row in ROWS}
assert len(BY_ID) == len(ROWS), "ids are unique"
