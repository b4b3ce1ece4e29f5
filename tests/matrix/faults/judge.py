"""What was seen, and the figures that it comes to: a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["live", "succeeded", "failed", "cancelled"]
Reported = Literal["equal", "unknown", "stale", "false success", "false failure", "not as asked", "hangs"]

GIVES_UP = (
    "clear",
    "mark failed",
    "mark success",
    "fail the run",
    "delete the run",
    "deadline",
    "run timeout",
)
"""Acts after which nobody wants the job that ran until then."""


@dataclass(frozen=True)
class RemoteJob:
    """One job as the fake AWS knows it, whatever its API shows.

    :param made: when AWS accepted it, in seconds since the epoch; so are all times here.
    :param ended: ``None`` while it lives.
    :param outcome: what really happened to it.
    :param cancelled: when its end was first asked for by a call of the API, no matter by whom.
    :param by_hand: the test itself stopped it, as a person with access to AWS may.
    :param forgotten: the API does not know it any more.
    """

    id: str
    made: float
    ended: float | None = None
    outcome: Outcome = "live"
    cancelled: float | None = None
    by_hand: bool = False
    forgotten: bool = False


@dataclass(frozen=True)
class Act:
    """What a person or a limit did to the task instance.

    :param what: one of :data:`GIVES_UP`, or ``make the run again``.
    :param retries: automatic retries that Airflow had used up since the act before.
    """

    at: float
    what: str
    retries: int = 0


@dataclass(frozen=True)
class Seen:
    """All that was seen of one case until its end.

    :param state: the task instance's last state; ``None`` when it does not exist any more.
    :param retries: automatic retries that Airflow used up since the last act.
    :param by_scheduler: tries that the scheduler failed by itself ("state mismatch" in the audit log).
    :param at: when it was observed last.
    """

    jobs: tuple[RemoteJob, ...] = ()
    acts: tuple[Act, ...] = ()
    state: str | None = "success"
    retries: int = 0
    by_scheduler: int = 0
    at: float = 0.0


@dataclass(frozen=True)
class Figures:
    """What a case comes to.

    :param made: remote jobs.
    :param left: remote jobs that live although the task instance has ended.
    :param wronged: jobs that were cancelled although somebody still wanted them.
    :param reported: the task instance's state against what really happened to its job.
    :param retries: automatic retries that were used up, without those of ``by_scheduler``.
    :param at_once: the most jobs that lived at the same time.
    :param by_scheduler: see :class:`Seen`.
    """

    made: int
    left: int = 0
    wronged: int = 0
    reported: Reported = "equal"
    retries: int = 0
    at_once: int = 1
    by_scheduler: int = 0


def figures(seen: Seen) -> Figures:
    """Turn what was seen into figures.

    >>> figures(Seen(jobs=(RemoteJob("s-1", made=10, ended=20, outcome="succeeded"),)))
    Figures(made=1, left=0, wronged=0, reported='equal', retries=0, at_once=1, by_scheduler=0)
    """
    retries = seen.retries + sum(act.retries for act in seen.acts)
    return Figures(
        made=len(seen.jobs),
        left=sum(job.outcome == "live" for job in seen.jobs),
        wronged=sum(_wronged(job, seen) for job in seen.jobs),
        reported=_reported(seen),
        # A try that the scheduler fails by itself is a retry, too, unless it was the last one.
        retries=max(0, retries - seen.by_scheduler),
        at_once=_at_once(seen.jobs),
        by_scheduler=seen.by_scheduler,
    )


def _wronged(job: RemoteJob, seen: Seen) -> bool:
    """Whether somebody asked for a job's end while it was the only one and nobody had given it up.

    Also if it was fast enough to end well before that took effect.
    """
    if job.cancelled is None or job.by_hand or (job.ended is not None and job.ended <= job.cancelled):
        return False  # nobody cancelled it, or it had ended before that
    if any(act.what in GIVES_UP and job.made <= act.at <= job.cancelled for act in seen.acts):
        return False
    return not any(
        other.id != job.id
        and other.made <= job.cancelled
        and (other.ended is None or other.ended >= job.cancelled)
        and not (other.cancelled is not None and other.cancelled < job.cancelled)
        for other in seen.jobs
    )


def _reported(seen: Seen) -> Reported:
    last = seen.acts[-1] if seen.acts else None
    asked_for = {
        "mark failed": ("failed",),
        "mark success": ("success",),
        "fail the run": ("failed", "skipped"),
        "run timeout": ("failed", "skipped"),
        "delete the run": (None,),
    }
    if last and last.what in asked_for:
        return "equal" if seen.state in asked_for[last.what] else "not as asked"
    if seen.state not in ("success", "failed"):
        return "hangs"
    # What counts is what was made since the last time that somebody asked for a new job.
    asked = max((act.at for act in seen.acts if act.what in ("clear", "make the run again")), default=0.0)
    jobs = [job for job in seen.jobs if job.made >= asked]
    succeeded = [job for job in jobs if job.outcome == "succeeded"]
    if seen.state == "success":
        if succeeded:
            return "equal"
        # The result of a job from before the last clear is no success of what was asked for.
        return "stale" if any(job.outcome == "succeeded" for job in seen.jobs) else "false success"
    if any(not job.forgotten for job in succeeded):
        return "false failure"
    return "unknown" if any(job.forgotten for job in jobs) else "equal"


def _at_once(jobs: tuple[RemoteJob, ...]) -> int:
    """The most jobs that lived at the same time; one that ends when another begins does not count."""
    moments = sorted({job.made for job in jobs})
    return max(
        (
            sum(job.made <= moment and (job.ended is None or job.ended > moment) for job in jobs)
            for moment in moments
        ),
        default=0,
    )
