"""How often to poll a job, what an observation changes, and when to give up.

The shared watch of a triggerer and a worker that waits by itself follow the same rules.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import TypeAlias

from .decide import believed_for
from .job import FROM_ARCHIVE, Job, Phase
from .retry import Log, doubling, jitter

MAX_CONCURRENT_POLLS = 8
"""Concurrent polls of one watch; botocore's pool holds 10 connections."""


@dataclass(frozen=True)
class PollPolicy:
    """How often to poll, and when to give up. Durations are seconds.

    :param interval: longest time between two polls of a healthy job.
    :param first_interval: shortest time between two polls; a young job is polled more often than an old one.
    :param max_backoff: ceiling of the back-off after transient errors.
    :param lost_after_polls: consecutive polls at which the service does not know the job before it counts as
        lost ...
    :param lost_after_seconds: ... and the time that they must span: a new ECS task may be unknown for
        seconds to minutes. Source: "eventual consistency" in the RunTask reference advises back-off of up to
        five minutes.
    :param give_up_after_denials: consecutive polls that the service refuses for a permanent reason (access
        denied) before the wait ends with an error.
    :param unanswered_timeout: seconds without an answer (time-outs, throttling, 5xx) after which the wait
        ends with an error, at most 600 if no poll has ever been answered; ``None``: never, as for a job whose
        end must not be missed. Sensors set it to ``[airflow_resilient] transient_error_timeout``.

    Polls become less frequent where the budget of calls does not allow these intervals.
    """

    interval: float = 30.0
    first_interval: float = 2.0
    max_backoff: float = 300.0
    lost_after_polls: int = 5
    lost_after_seconds: float = 120.0
    give_up_after_denials: int = 10
    unanswered_timeout: float | None = None

    def interval_at(self, age: float) -> float:
        """Seconds between two polls of a job that has been watched for `age` seconds.

        >>> [PollPolicy(interval=30).interval_at(age) for age in (0, 30, 100, 3600)]
        [2.0, 3.75, 12.5, 30.0]
        """
        return float(min(self.interval, max(self.first_interval, age / 8)))


@dataclass(frozen=True)
class Refused:
    """A poll that the service refused with an error that is not transient."""

    error: Exception


Observation: TypeAlias = Job | Refused | None


@dataclass(frozen=True)
class Wait:
    """The wait for one job.

    :param job: its latest observation.
    :param since: when the wait began.
    :param due: when the next poll is due.
    :param missing: polls in a row in which the service did not know it, the first of them at `missing_since`.
    :param refused: polls in a row that were refused.
    :param batch_limit: the largest batch that may include it; 0: no limit. A larger batch with it was
        refused, and it may be the reason.
    :param age: how old the job was when the wait began, in seconds: after a restart of the triggerer, an old
        job is not polled at the pace of a new one.
    :param fast_polls_left: remaining fast polls, after an event reported an end that no poll has shown yet.
    :param polled: when it was last polled; ``-inf`` for never.
    """

    job: Job
    policy: PollPolicy
    since: float
    due: float
    missing: int = 0
    missing_since: float = 0.0
    refused: int = 0
    batch_limit: int = 0
    age: float = 0.0
    fast_polls_left: int = 0
    polled: float = -inf

    @classmethod
    def begin(cls, job: Job, policy: PollPolicy, now: float, wall: float) -> Wait:
        """The wait for `job` from now on.

        :param now: by the clock of the waits; `wall`: in seconds since 1970.
        """
        # A job that is being stopped may end at any moment, whatever its age.
        age = 0.0 if job.phase is Phase.STOPPING else max(0.0, wall - job.created)
        return cls(job, policy, since=now, due=now + policy.first_interval, age=age)

    def interval(self, now: float) -> float:
        """Seconds between a poll at `now` and the next one."""
        return self.policy.interval_at(now - self.since + self.age)

    def silent_for(self, now: float) -> float:
        """Seconds since the last answer about its job, or since it began."""
        return now - max(self.polled, self.since)

    def join_early_by(self, now: float) -> float:
        """Seconds before its due time from which this wait may join a call for others: half its interval.

        Not before its first poll is due; `SharedWatch._join` says why.
        """
        return 0.0 if now - self.since < self.policy.first_interval else self.interval(now) / 2


def after_poll(waiting: Wait, observation: Observation, now: float, batch: int = 1) -> Wait:
    """Apply an observation to a wait. The wait is over when its job has ended or `refused` is at its limit.

    :param observation: the service's answer: a job, ``None`` when it does not know the job, or a refusal. A
        transient error must not be passed in: it observes nothing.
    :param batch: size of the refused batch; 1 for a refusal that applies to each job.
    :return: the wait with the observation applied and the next poll scheduled.
    """
    policy = waiting.policy
    due, fast_polls_left = now + waiting.interval(now), waiting.fast_polls_left
    changed = isinstance(observation, Job) and (
        (observation.phase, observation.facts) != (waiting.job.phase, waiting.job.facts)
    )
    if changed:
        fast_polls_left = 0  # the poll shows what the event reported
    elif fast_polls_left:
        due, fast_polls_left = min(due, now + policy.first_interval), fast_polls_left - 1
    if isinstance(observation, Refused):
        if batch > 1:  # one bad id or one denied cluster must not affect the other jobs
            return replace(waiting, polled=now, due=now, batch_limit=batch // 2)
        refused = waiting.refused + 1
        pause = doubling(policy.first_interval, refused, min(policy.max_backoff, 2 * policy.interval))
        return replace(waiting, polled=now, due=now + pause, refused=refused)
    if observation is None:
        missing, since = waiting.missing + 1, waiting.missing_since if waiting.missing else now
        job = waiting.job
        if missing >= policy.lost_after_polls and now - since >= policy.lost_after_seconds:
            reason = f"the service has not known it for {now - since:.0f} s; it may have ended either way"
            job = replace(job, phase=Phase.LOST, reason=reason)
    else:
        missing, since = 0, waiting.missing_since
        # Another wait may watch the same job without a claim, in the same call.
        job = replace(waiting.job.merge(observation), claim=waiting.job.claim)
        # Garbage collection of new long-lived objects blocks the event loop.
        if job == waiting.job:
            job = waiting.job
    return replace(
        waiting,
        job=job,
        due=due,
        missing=missing,
        missing_since=since,
        refused=0,
        batch_limit=0,
        fast_polls_left=fast_polls_left,
        polled=now,
    )


def archive_warning(names: str, error: str, again_for: float) -> str:
    """What is logged when an archive that is asked how jobs have ended does not answer.

    :param again_for: seconds for which it is asked again; 0: it is not.
    """
    ahead = (
        f"It is asked again, for {again_for / 60:.0f} min" if again_for else "How they ended stays unknown"
    )
    return (
        f"the archive cannot be asked how {names} ended, which the service has forgotten ({error}). {ahead}"
    )


def after_archive(
    waiting: Wait, lost: Wait, answer: Job | Exception | None, now: float, patience: float
) -> Wait:
    """Apply the answer of an archive that was asked about a job before it counts as lost.

    :param waiting: the wait before the poll in which the service did not know the job once more.
    :param lost: the wait after that poll, with the job as LOST.
    :param answer: how the job has ended; ``None``: the archive does not know it, or not its end. An error:
        the archive did not answer, so it is asked again at the next poll.
    :param patience: seconds after the job would first have counted as lost, for which an archive that does
        not answer is asked again; then it counts as one that knows nothing.
    """
    if isinstance(answer, Exception):
        if now - lost.missing_since - lost.policy.lost_after_seconds < patience:
            return replace(lost, job=waiting.job)
    elif answer is not None and not answer.live and answer.phase is not Phase.LOST:
        return replace(lost, job=replace(waiting.job.merge(answer), claim=waiting.job.claim))
    return lost


_MAX_EARLY_PART = 0.2


def early_part(random: Callable[[], float]) -> float:
    """The part of its interval after which a poll is made, so that polls spread over time: 0.8 to 1."""
    return 1 - _MAX_EARLY_PART * random()


def backoff_after(errors: int, first: float, longest: float, random: Callable[[], float]) -> float:
    """Seconds without a poll after that many transient errors in a row.

    :param first: after the first error; doubled by each further one, up to `longest`.
    """
    return min(jitter(doubling(first, errors, longest), random), longest)


def is_logged(errors: int) -> bool:
    """Whether it is logged that so many polls in a row had no answer.

    >>> [errors for errors in range(1, 45) if is_logged(errors)]
    [1, 5, 20, 40]
    """
    return errors in (1, 5) or errors % 20 == 0


FIRST_WARNING_SECONDS = 300.0
"""Seconds without an answer after which a wait says so in its log; again after twice the time, and so on."""


class Unanswered(Exception):
    """The service has not answered for longer than a wait believes that it will."""


@dataclass(frozen=True)
class Silence:
    """A service does not answer about a job.

    :param seconds: since the last answer, or since the wait began.
    :param error: the last error; ``None``: it answers again.
    """

    seconds: float
    error: str | None

    def tell(self, name: str, log: Log) -> None:
        """Log it, for the job with that name."""
        minutes = self.seconds / 60
        if self.error is None:
            log.info("%s: the service answers again, after %.0f min", name, minutes)
        else:
            log.warning(
                "%s: no answer from the service for %.0f min (%s). The job may still run; polling goes on",
                name,
                minutes,
                self.error,
            )


def after_silence(
    silent: float, error: str, limit: float | None, warn_after: float, *, answered: bool
) -> tuple[float, Silence | Unanswered | None]:
    """What a wait is notified of after a poll without an answer.

    :param silent: seconds since the last answer about its job, or since it began.
    :param error: the last error.
    :param limit: `PollPolicy.unanswered_timeout`.
    :param warn_after: seconds without an answer after which it is notified next; `FIRST_WARNING_SECONDS` at
        first, and again after an answer.
    :param answered: the service has answered somebody.
    :return: the new `warn_after`, and the notice, if there is one; `Unanswered` ends the wait.

    >>> after_silence(299, "Timeout", None, FIRST_WARNING_SECONDS, answered=True)
    (300.0, None)
    >>> after_silence(700, "Timeout", None, FIRST_WARNING_SECONDS, answered=True)
    (1200.0, Silence(seconds=700, error='Timeout'))
    >>> after_silence(700, "Timeout", 3600, FIRST_WARNING_SECONDS, answered=False)
    (300.0, Unanswered('no answer for 12 min, the last error: Timeout'))
    """
    if limit is not None and silent >= believed_for(limit, answered=answered):
        return warn_after, Unanswered(f"no answer for {silent / 60:.0f} min, the last error: {error}")
    if silent < warn_after:
        return warn_after, None
    while warn_after <= silent:
        warn_after *= 2
    return warn_after, Silence(silent, error)


def tell_change(before: Job, seen: Job, now: float, log: Log) -> None:
    """Log that a job is in another phase than `before`.

    :param now: in seconds since 1970.
    """
    if seen.phase is not before.phase:
        age = max(0.0, (seen.ended or now) - seen.created)
        why = f" ({seen.reason})" if seen.reason else ""
        if archive := seen.facts.get(FROM_ARCHIVE):
            why += f". The service has forgotten it; {archive} says how it ended"
        log.info("%s: %s, %.0f s after it was submitted%s", seen.id, seen.phase.value, age, why)
