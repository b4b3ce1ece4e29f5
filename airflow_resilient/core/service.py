"""The interface of a service, with which its jobs are run, watched, listed and explained.

`RemoteService` is the base class of every service. `ServiceInfo` describes a service before its client is
loaded: the registry, the command line, the sweep and the documentation are made from it.

Imports the standard library only; a test enforces it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from .job import Claim, Job

LogLine: TypeAlias = tuple[float, str]
"""Time in seconds since 1970, and text."""

AWS_ACCESS = ("aws_conn_id", "region_name", "verify", "botocore_config")
"""The parameters for the access to AWS, named as in the amazon provider."""


UNATTENDED = "unattended"
"""Key in the facts of a job that may rightly run on without its task instance; see `RemoteService`."""


class NoCapacityMarker(Exception):
    """Marks an error as lack of capacity; `errors.NoCapacity` is the public class."""


@dataclass(frozen=True)
class Budget:
    """The published limits of one API of a service.

    :param name: of the API, such as ``emr:ListSteps``; also names it in ``[airflow_resilient] api_budgets``.
    :param per_second: calls by which AWS refills the account's bucket each second.
    :param burst: calls that the full bucket holds.
    :param operations: the operations that take from it, ``emr:*`` for every operation of a service; no others
        are counted.
    """

    name: str
    per_second: float
    burst: float
    operations: tuple[str, ...] = ()

    def counts(self, operation: str) -> bool:
        """Whether a call of `operation` takes from it.

        >>> [Budget("emr", 5.0, 25.0, ("emr:*",)).counts(each) for each in ("emr:ListSteps", "ecs:RunTask")]
        [True, False]
        """
        whole_service = f"{operation.partition(':')[0]}:*"
        return operation == self.name or operation in self.operations or whole_service in self.operations

    @property
    def whole_service(self) -> bool:
        """Whether it counts every operation of a service, so that its calls are counted elsewhere, too."""
        return any(operation.endswith(":*") for operation in self.operations)


DEFAULT_BUDGET = Budget("a service without a budget", per_second=20.0, burst=100.0)
"""For services that do not define a budget."""


@dataclass(frozen=True)
class Way:
    """One way to poll some jobs.

    :param operation: the operation that it calls, which says what budgets it takes from.
    :param calls: how often it is called, as far as that is known before.
    :param size: the largest batch to poll in this way; by default that of the service. 1 where a call is
        about one job: a batch of several would bring nothing, and would wait for calls for all of them.
    """

    operation: str
    calls: float
    size: int | None = None


class RemoteService(ABC):
    """A service that runs jobs, at one address. Six methods are abstract; all others have defaults.

    Every method may raise errors that `is_transient` recognises: they say nothing about any job, and the call
    is repeated.
    """

    name: str = ""
    """Its name in metrics, events and on the command line; by default the class's name in lower case."""
    scope_noun: ClassVar[str] = "scope"
    """The kind of a job's ``scope``, for people: a cluster, an engine, a job queue."""
    listing_lag: float = 5.0
    """Seconds after which `find` sees what the service has accepted."""
    batch_size: int = 100
    """The maximum number of jobs, all of one scope, that `observe` is called with."""
    log_drain: float = 6.0
    """Seconds after a job's end within which its last lines arrive: CloudWatch delivers them late; 0: the log
    is complete when the job has ended."""
    budget: Budget = DEFAULT_BUDGET
    """The calls that the service allows, for the API that polling uses."""
    more_budgets: ClassVar[tuple[Budget, ...]] = ()
    """Budgets of the other operations in `ways`, and budgets that several operations share."""
    keeps_ended_jobs: ClassVar[bool] = False
    """Whether ended jobs stay until they are removed, so that the sweep calls `list_removable`."""

    unattended: bool = False
    """Whether jobs are submitted that may rightly run on without their task instance.

    The operator sets it (``wait_for_completion=False`` or ``on_timeout="leave"``). A service writes it on the
    job where it can, and `list_jobs` returns it in ``facts["unattended"]``: when the DAG run is deleted,
    nothing else says that the job was left running on purpose.
    """

    # --- required ---

    @abstractmethod
    def find(self, claims: Sequence[Claim]) -> list[Job]:
        """Jobs that bear one of these claims, including ended ones that the service still lists."""

    @abstractmethod
    def submit(self, claim: Claim) -> Job:
        """Start the job under `claim`, or return the one that ``claim.token`` has started already.

        :raises NoCapacity: the service took no job because it has no capacity now.
        :raises SubmitRefused: the service will never take this request.
        """

    @abstractmethod
    def observe(self, jobs: Sequence[Job]) -> list[Job]:
        """Observe each of `jobs`, in any order; jobs that the service does not know are left out.

        A remote job that does not bear ``job.claim`` is not that job: the id alone proves nothing, because it
        may come from an XCom. So it is left out, too, unless ``job.claim`` is `NO_CLAIM` (a sensor's job).
        """

    @abstractmethod
    def cancel(self, job: Job, reason: str) -> Job:
        """Cancel the job and return the new observation; no error when it has ended already.

        Look first: a remote job that does not bear ``job.claim`` is not that job and is not touched. Then,
        and when the service does not know the job, return it in phase LOST, with a reason.
        """

    @abstractmethod
    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may succeed later (throttling, lost answers)."""

    @abstractmethod
    def address(self) -> dict[str, Any]:
        """Constructor keywords to observe and cancel from elsewhere: JSON, no secrets, not the request."""

    def may_have_submitted(self, error: Exception) -> bool:
        """Whether a submission with this transient error may have taken effect; default ``True``.

        ``False`` only where it is certain that nothing was submitted, such as a connection that was never
        made: then the try may end with an error while the service cannot be reached.
        """
        return True

    def lasting(self, error: Exception, attempts: int) -> str:
        """What to correct, where a transient error will not pass by itself; default ``""``: it may pass.

        It is called only while no job is at stake; a try that has no job fails with this advice.

        :param attempts: the number of consecutive transient errors.
        """
        return ""

    def request_fields(self) -> Mapping[str, Any]:
        """What the user has asked for, by name; default ``{}``: nothing is compared.

        A try that submits again (Spot, no capacity, a lost answer) submits what it has submitted first, or
        nothing: it fails with the names of the fields that differ. The values are neither logged nor stored,
        only `fingerprints` of them. Leave out what the service adds by itself, such as claim and token.
        """
        return {}

    # --- for memories that others can write ---

    def doubted(self, job: Job) -> Job:
        """`job` without anything that `observe` would believe instead of asking the service; default `job`.

        It is asked before `observe` proves a job that an XCom has named. Override it where `observe` takes a
        part of the answer from ``job.facts``.
        """
        return job

    def hide(self, text: str) -> str:
        """`text` without the request's values that may be secrets; default `text`.

        A service may quote the request in its answers. Each text of an error of `submit` passes through here
        before it is logged, stored or raised; errors with a message of their own call it for the part that
        they quote. `values_of` and `redact` in ``core.text`` do the work.
        """
        return text

    def __deepcopy__(self, memo: Any) -> RemoteService:
        """The service itself: an operator that has run can be copied, although clients and locks cannot."""
        return self

    # --- for jobs that the service has forgotten ---

    def find_forgotten(self, claims: Sequence[Claim], since: float) -> list[Job]:
        """The ends of jobs with these claims that the service has forgotten, from an archive.

        It is asked after `find`, for claims under which `find` shows no job. The default knows none.

        :param since: jobs that were created before, in seconds since 1970, are of no interest.
        :return: ended jobs only, with ``facts[FROM_ARCHIVE]``. A job that the archive does not know is left
            out, and so is one that it knows without its end: nothing is known about them.
        :raises: an error that `is_transient` recognises if the archive does not answer now, which is not the
            same as an archive that knows nothing. It is repeated for a limited time.
        """
        return []

    def recover(self, jobs: Sequence[Job]) -> list[Job]:
        """The ends of those of `jobs` whose end an archive knows; by default none.

        It is asked before a watched job counts as LOST. Every job has its claim and its id; that of a sensor
        has `NO_CLAIM`, as in `observe`. What is returned and raised is as in `find_forgotten`.
        """
        return []

    # --- for `explain` ---

    def lookup(self) -> dict[str, Any]:
        """Constructor keywords that `find` needs in addition to `address`: JSON, no secrets; default none."""
        return {}

    # --- for the shared watch ---

    def account(self) -> str | None:
        """The account whose budget of calls is used; default ``None``: the address has its own budget."""
        return None

    def cost(self, jobs: Sequence[Job]) -> float:
        """The number of calls that `observe` makes for these jobs of one scope; default 1."""
        return 1.0

    def ways(self, jobs: Sequence[Job]) -> Sequence[Way]:
        """The ways to poll these jobs of one scope, the preferred one first.

        The others are used when there are not enough calls for the preferred one; see `watching.plan.divide`.
        Default: `cost` calls of `budget`.
        """
        return (Way(self.budget.name, self.cost(jobs)),)

    def observe_by(self, operation: str, jobs: Sequence[Job]) -> list[Job]:
        """`observe`, in the way of `ways` that calls `operation`; default `observe`."""
        return self.observe(jobs)

    def count_calls(self, bucket: Any) -> bool:
        """Count every call in `bucket`, a `SharedBucket`, with its ``record``; called once for each budget.

        :return: whether calls are counted; default ``False``: then `Way.calls` are.
        """
        return False

    def is_throttle(self, error: Exception) -> bool:
        """Whether a call was throttled; default ``False``."""
        return False

    def refuses_scope(self, error: Exception) -> bool:
        """Whether every job of the scope would be refused with this error; default ``False``."""
        return False

    def event_keys(self, job: Job) -> tuple[str, ...]:
        """The names of the job in events; default its id."""
        return (job.id,)

    # --- the job's log ---

    def read_log(self, job: Job, where: Mapping[str, Any], cursor: Any) -> tuple[Sequence[LogLine], Any]:
        """Read new lines of the log of `job`; default none.

        An error delays or ends the copying of lines, and changes nothing else.

        :param where: the value that the operator's ``job_log`` returned.
        :param cursor: the cursor that the previous call returned, JSON values; ``None`` at first.
        :return: new lines, oldest first, and the next cursor.
        """
        return (), cursor

    def last_lines(self, job: Job, where: Mapping[str, Any], count: int) -> Sequence[str]:
        """The last `count` lines of the log of `job`; by default everything is read for them."""
        tail: deque[str] = deque(maxlen=count)
        lines, cursor = self.read_log(job, where, None)
        while lines:
            tail.extend(text for _, text in lines)
            lines, cursor = self.read_log(job, where, cursor)
        return tuple(tail)

    # --- for the orphan sweep ---

    @classmethod
    def connect(cls, access: Mapping[str, Any], scopes: Sequence[str] = ()) -> RemoteService:  # noqa: ARG003
        """The service without a request, as the sweep needs it; default from `access` alone.

        :param access: those parameters of `ServiceInfo.access` that were given.
        :param scopes: the scopes to sweep; empty when none are given.
        """
        return cls(**access)

    def list_scopes(self) -> list[str]:
        """All scopes that can have live jobs, such as every cluster of the account and region.

        :raises NotImplementedError: the service cannot be swept (the default).
        """
        raise NotImplementedError(f"{type(self).__name__} does not list its scopes")

    def list_jobs(self, scope: str) -> list[Job]:
        """The live jobs of a scope that bear a claim, of any owner, with the same ids as in `find`.

        Jobs that are being stopped may be left out.

        :raises NotImplementedError: the service cannot be swept (the default).
        """
        raise NotImplementedError(f"{type(self).__name__} does not list its jobs")

    def why_copied(self, job: Job) -> str:
        """Why `job` may be a copy of the job that was submitted under its claim; default empty: it is none.

        People and tools copy names and labels together with what they copy, so a job may bear a claim under
        which another one was submitted. The sweep asks before it cancels or removes a job.

        :param job: a job that `list_jobs` or `list_removable` has returned.
        :return: a part of a sentence, such as ``"its name was made for another cluster"``.
        """
        return ""

    def list_removable(self, scope: str) -> list[Job]:
        """The ended jobs of a scope that the service keeps and that may be removed."""
        return []

    def remove(self, job: Job) -> None:
        """Remove an ended job that `list_removable` has returned."""
        raise NotImplementedError(f"{type(self).__name__} keeps no ended jobs")


def name_of(service: RemoteService) -> str:
    """The name of a service in metrics and events."""
    return service.name or type(service).__name__.lower()


@dataclass(frozen=True)
class JobEvent:
    """An event about a job: the job has changed and should be polled soon.

    :param service: name of the service.
    :param keys: names of the job, as returned by ``event_keys`` of the service.
    :param claim: the claim that it bears, if it bears one.
    :param ended: the job, or one part of it, has ended.
    """

    service: str
    keys: tuple[str, ...]
    claim: Claim | None
    ended: bool

    @property
    def names(self) -> tuple[str, ...]:
        """All names of the job: its keys, and its claim."""
        return (*self.keys, str(self.claim)) if self.claim else self.keys


@dataclass(frozen=True)
class AccessOption:
    """An option of the command line for the access to a service.

    :param parameter: the keyword of the client that it sets.
    :param option: as it is written on the command line.
    :param read: converts the option's text (``None`` when it is not given) to the value of `parameter`;
        returns ``None`` for the client's default.
    """

    parameter: str
    option: str
    metavar: str
    help: str
    read: Callable[[str | None], Any]


def _no_event(event: Mapping[str, Any]) -> JobEvent | None:  # noqa: ARG001 - some services need it
    return None


def _no_command(job: Job) -> str:
    return f"(stop {quote(job.id)} with the tools of its service)"


@dataclass(frozen=True)
class ServiceInfo:
    """The description of a service, from which all modules that know no service by name read.

    Names of modules are relative to the service's folder, ``module:Class``; a service outside of this package
    writes them in full.

    :param name: its name in the registry, on the command line, in metrics and in stored triggers.
    :param title: the jobs that it runs, for people, such as ``"Amazon ECS tasks"``.
    :param client: the subclass of `RemoteService`.
    :param scope_noun: the kind of a job's ``scope``, in the singular.
    :param public: public names and the modules that define them.
    :param links: classes of links that a task instance can show.
    :param access: parameters for the access to the service: keywords of the client.
    :param access_options: further options of the command line, for those of `access` that are not AWS's.
    :param lookup: rendered fields of its operators that are keywords of the client and that `find` needs;
        used where no try has stored them.
    :param scope_parameter: the keyword of the client for a scope to search.
    :param scopes_listable: all scopes of an account can be listed, so a sweep without scopes finds them.
    :param scope_option: an alias of ``--scope NAME=...`` on the command line.
    :param budget: the calls that it allows for polling.
    :param more_budgets: those of other operations by which it can be polled, and those that operations share.
    :param poll_interval: its operators' default of the longest time between two polls, in seconds.
    :param read_event: reads an event of EventBridge, ``{"source": str, "detail-type": str, "detail":
        {...}}``; returns ``None`` when the event is not about a job.
    :param event_source: ``source`` and ``detail-type`` of its events, for documentation; empty for none.
    :param archives_events: ``[airflow_resilient] events_log_group`` says how its forgotten jobs have ended.
    :param stop_command: returns the shell command that ends a job by hand, with the ids in it quoted by
        ``shlex.quote``: people copy it into a terminal.
    :param iam: ``"operator"`` and ``"sensor"``, and the policy statements that each needs.
    """

    name: str
    title: str
    client: str
    scope_noun: str
    public: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    access: tuple[str, ...] = AWS_ACCESS
    access_options: tuple[AccessOption, ...] = ()
    lookup: tuple[str, ...] = ()
    scope_parameter: str = ""
    scopes_listable: bool = True
    scope_option: str = ""
    budget: Budget = DEFAULT_BUDGET
    more_budgets: tuple[Budget, ...] = ()
    poll_interval: float = 30.0
    read_event: Callable[[Mapping[str, Any]], JobEvent | None] = _no_event
    event_source: tuple[str, ...] = ()
    archives_events: bool = False
    stop_command: Callable[[Job], str] = _no_command
    iam: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    package: str = ""
    """The package of the modules; the registry fills it in for services of this package."""

    def path_of(self, relative: str) -> str:
        """The full path of a module, or of ``module:Class``.

        >>> info = ServiceInfo("made_up", "Made-up jobs", "client:Jobs", "place", package="our.made_up")
        >>> info.path_of(info.client)
        'our.made_up.client:Jobs'
        """
        return f"{self.package}.{relative}" if self.package else relative
