"""One folder and one line make a service; everything general follows from them."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_resilient
from airflow_resilient import registry
from airflow_resilient.core.service import RemoteService
from airflow_resilient.provider_info import get_provider_info

PACKAGE = Path(airflow_resilient.__file__).parent

SERVICE = '''
"""What made-up jobs say of themselves."""

from ...core.job import Claim
from ...core.service import Budget, JobEvent, ServiceInfo


def read_event(event):
    if event["source"] != "made.up":
        return None
    return JobEvent("made_up", (event["detail"]["id"],), Claim.read(event["detail"]["name"]), ended=True)


SERVICE = ServiceInfo(
    name="made_up",
    title="Made-up jobs",
    client="client:MadeUpJobs",
    scope_noun="queue",
    public={"MadeUpOperator": "operator"},
    links=("links:MadeUpLink",),
    lookup=("queue",),
    scope_parameter="queue",
    budget=Budget("made_up:List", per_second=3.0, burst=9.0, operations=("made_up:List",)),
    poll_interval=11.0,
    read_event=read_event,
    event_source=("made.up", "Made-up State Change"),
    stop_command=lambda job: f"made-up stop {job.id}",
    iam={"operator": ({"Effect": "Allow", "Action": "made_up:List", "Resource": "*"},)},
)
'''
CLIENT = '''
"""Made-up jobs: one lives, in the queue that is asked."""

from ...core.job import Claim, Job, Phase
from .._aws import AwsService


class MadeUpJobs(AwsService):
    name = "made_up"
    aws_service = "made_up"

    def __init__(self, *, queue=None, **access):
        super().__init__(**access)
        self.queue = queue

    def find(self, claims):
        return [Job("job-1", claim, Phase.RUNNING, 0.0, scope=self.queue) for claim in claims]

    def submit(self, claim):
        return Job("job-1", claim, Phase.QUEUED, 0.0, scope=self.queue)

    def observe(self, jobs):
        return list(jobs)

    def cancel(self, job, reason):
        return job

    def lookup(self):
        return {"queue": self.queue}

    def list_scopes(self):
        return ["q1", "q2"]

    def list_jobs(self, scope):
        return [Job("job-1", Claim("a" * 16, 1), Phase.RUNNING, 0.0, scope=scope)]
'''
OPERATOR = '''
"""The operator for made-up jobs."""

from ...operators import RemoteJobOperator
from .client import MadeUpJobs


class MadeUpOperator(RemoteJobOperator):
    def remote_jobs(self, context):
        return MadeUpJobs(queue="q1")
'''
LINKS = '''
"""A link to a made-up job."""

from ...aws.console import ConsoleLink


class MadeUpLink(ConsoleLink):
    name = "made-up job"
'''
QUESTIONS = """
import contextlib, io, json
import airflow_resilient
from airflow_resilient import cli, registry
from airflow_resilient.core.job import Claim, Job, Phase
from airflow_resilient.deployment import load_service, service_name
from airflow_resilient.operations.explain import locate
from airflow_resilient.operations.orphans import sweep_targets
from airflow_resilient.operations.task_instances import Instance
from airflow_resilient.provider_info import get_provider_info
from airflow_resilient.watching.events import read_event

help_text = {}
for command in ("orphans", "explain"):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        cli.main([command, "--help"])
    help_text[command] = " ".join(out.getvalue().split())
(target,) = sweep_targets({"aws_conn_id": None}, ["made_up"], {})
(narrow,) = sweep_targets({"aws_conn_id": None}, None, {"made_up": ["q2"]})
job = Job("job-1", Claim("a" * 16, 1), Phase.RUNNING, 0.0, scope="q1")
shown = Instance("d", "r", "t", raw={"operator_name": "MadeUpOperator", "rendered_fields": {"queue": "q2"}})
location = locate(shown, {})
event = read_event(
    json.dumps({"source": "made.up", "detail-type": "x", "detail": {"id": "job-1", "name": str(job.claim)}}),
    [info.read_event for info in registry.services().values()],
)
operator = airflow_resilient.MadeUpOperator(task_id="t")
info = get_provider_info()
options = info["config"]["airflow_resilient"]["options"]
print(json.dumps({
    "help": help_text,
    "public": "MadeUpOperator" in airflow_resilient.__all__ and "MadeUpOperator" in dir(airflow_resilient),
    "links": info["extra-links"],
    "description": info["description"],
    "options": {name: options[name]["description"] for name in options},
    "swept": [job.id for scope in target.service.list_scopes() for job in target.service.list_jobs(scope)],
    "narrow": [narrow.name, narrow.scopes],
    "location": [location.service, dict(location.keywords), location.stop_command(job)],
    "found": [found.scope for found in location.client().find([job.claim])],
    "event": [event.service, event.names],
    "stored": service_name(operator, operator.remote_jobs({})),
    "loaded": type(load_service("made_up", {"queue": "q1", "aws_conn_id": None})).__name__,
}))
"""


def answers(folder: Path, script: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,  # python -c looks for modules there first
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
    """What a copy of the package says that has one folder and one line more."""
    top = tmp_path_factory.mktemp("copy")
    copy = top / "airflow_resilient"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    folder = copy / "services" / "made_up"
    folder.mkdir()
    for name, text in {
        "__init__": '"""Made-up jobs."""\n',
        "service": SERVICE,
        "client": CLIENT,
        "operator": OPERATOR,
        "links": LINKS,
    }.items():
        (folder / f"{name}.py").write_text(text)
    lines = (copy / "registry.py").read_text().replace('    "ecs",\n', '    "ecs",\n    "made_up",\n')
    (copy / "registry.py").write_text(lines)
    return answers(top, QUESTIONS)


def test_a_made_up_service_is_a_choice_of_every_command(made_up):
    for text in made_up["help"].values():
        assert "made_up" in text
        assert "made_up=QUEUE" in text


def test_a_made_up_service_is_swept_by_default_or_in_the_given_scopes(made_up):
    assert made_up["swept"] == ["job-1", "job-1"]
    assert made_up["narrow"] == ["made_up", ["q2"]]


def test_explain_finds_the_jobs_of_a_made_up_service(made_up):
    assert made_up["location"] == ["made_up", {"queue": "q2"}, "made-up stop job-1"]
    assert made_up["found"] == ["q2"]


def test_events_of_a_made_up_service_are_routed(made_up):
    assert made_up["event"] == ["made_up", ["job-1", f"af-{'a' * 16}-1"]]


def test_airflow_learns_of_a_made_up_service(made_up):
    assert "airflow_resilient.services.made_up.links.MadeUpLink" in made_up["links"]
    assert "Made-up jobs" in made_up["description"]
    assert "made_up:List=3/9" in made_up["options"]["api_budgets"]
    assert "11 for Made-up jobs" in made_up["options"]["poll_interval"]
    assert "Made-up State Change" in made_up["options"]["events_queue_url"]


def test_a_made_up_service_has_public_names_and_is_stored_by_its_own(made_up):
    assert made_up["public"]
    assert made_up["stored"] == "made_up"
    assert made_up["loaded"] == "MadeUpJobs"


OUTSIDE = '''
"""A service of somebody else's."""

from airflow_resilient import RemoteService, ServiceInfo

SERVICE = ServiceInfo("theirs", "Their jobs", "their_jobs:TheirJobs", "place", access=())


class TheirJobs(RemoteService):
    name = "theirs"

    def find(self, claims):
        return []

    submit = observe = cancel = find

    def is_transient(self, error):
        return False

    def address(self):
        return {}

    def list_scopes(self):
        return ["here"]
'''
ASK_OUTSIDE = """
import json
from airflow_resilient import registry
from airflow_resilient.operations.explain import locate
from airflow_resilient.operations.task_instances import Instance
from airflow_resilient.operations.orphans import sweep_targets
(target,) = sweep_targets({"aws_conn_id": "x"}, ["theirs"], {})
stored = {"service": "their_jobs:TheirJobs", "address": {}, "lookup": {}}
location = locate(Instance("d", "r", "t"), stored)
print(json.dumps([
    list(registry.services()), type(target.service).__name__, target.service.list_scopes(), location.service
]))
"""


def distribution(folder: Path, name: str) -> None:
    (folder / "their_jobs.py").write_text(OUTSIDE)
    info = folder / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{name} = their_jobs:SERVICE\n")


def test_a_service_of_another_distribution_takes_part_by_an_entry_point(tmp_path):
    distribution(tmp_path, "theirs")
    path = os.pathsep.join((str(tmp_path), str(PACKAGE.parent)))
    known, kind, scopes, located = answers(tmp_path, ASK_OUTSIDE, PYTHONPATH=path)
    assert known == [*registry.SERVICES, "theirs"]
    assert (kind, scopes) == ("TheirJobs", ["here"])
    assert located == "theirs", "a try has stored it by its class"


def test_a_service_of_another_distribution_takes_no_name_of_ours(tmp_path):
    distribution(tmp_path, "ecs")
    script = "import json\nfrom airflow_resilient import registry\ntry:\n    registry.services()\n"
    script += "except LookupError as error:\n    print(json.dumps([str(error)]))"
    path = os.pathsep.join((str(tmp_path), str(PACKAGE.parent)))
    (error,) = answers(tmp_path, script, PYTHONPATH=path)
    assert "'ecs'" in error
    assert "already" in error


@pytest.mark.parametrize("name", registry.SERVICES)
def test_what_a_service_says_of_itself_is_true(name):
    info = registry.service(name)
    client = registry.client_class(info)
    assert info.name == client.name == name
    assert issubclass(client, RemoteService)
    assert client.scope_noun == info.scope_noun
    assert (client.budget, client.more_budgets) == (info.budget, info.more_budgets)
    for public in info.public:
        assert getattr(airflow_resilient, public).__module__.startswith(f"{info.package}.")
    for link in get_provider_info()["extra-links"]:
        module, _, attribute = link.rpartition(".")
        assert hasattr(__import__(module, fromlist=[attribute]), attribute)


def test_a_name_that_no_service_has_is_an_error_that_lists_those_there_are():
    with pytest.raises(LookupError, match="no service 'batches'; the services are ecs, emr_steps, docker"):
        registry.service("batches")


def test_the_type_checker_imports_every_public_name_from_where_it_is_defined():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: f"airflow_resilient.{statement.module}"
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    homes = {name: getattr(airflow_resilient, name) for name in airflow_resilient.__all__}
    assert declared.keys() == homes.keys()
    for name, value in homes.items():
        assert getattr(value, "__module__", declared[name]) == declared[name], name
