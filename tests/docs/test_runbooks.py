"""Each alert has a page, which shows real output, and commands and options that exist."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from airflow import __version__
from airflow.cli.cli_parser import get_parser
from airflow.configuration import retrieve_configuration_description

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
import runbook_examples

from airflow_resilient.cli import _parser
from airflow_resilient.operations import limits, shipped_files
from airflow_resilient.operations.alerts import ALERTS, RUNBOOKS, rules
from airflow_resilient.operations.exported_metrics import METRICS
from airflow_resilient.operations.health import Kind
from airflow_resilient.operations.why_waiting import Why

DOCS = Path(__file__).parents[2] / "docs"
NAMES = sorted(alert.name for alert in ALERTS)
PAGES = {path.stem: path.read_text() for path in (DOCS / "runbooks").glob("*.md") if path.stem != "index"}
TEXT = sorted(PAGES.items())
SECTIONS = [
    "What you see",
    "Meaning",
    "Run this",
    "Next step, by what you find",
    "When it is a false alarm",
    "Seen in",
]

ON_2 = __version__.startswith("2.")
NOT_ON_3 = {
    "airflow webserver",
    "airflow dags list-runs --dag-id canary --state running",
    "airflow dags list-runs --dag-id hourly",
    "airflow dags list-runs --dag-id hourly --state queued",
    "airflow dags backfill --start-date FROM --end-date TO hourly",
}
NOT_ON_2 = {
    "airflow api-server",
    "airflow backfill create --dag-id hourly --from-date FROM --to-date TO",
    "airflow dags list-runs canary --state running",
    "airflow dags list-runs hourly",
    "airflow dags list-runs hourly --state queued",
    "airflow dags list-runs hourly --state running",
    "airflow triggerer --queues",
}
OF_A_PROVIDER = "airflow celery "
OPTIONS_NOT_ON_3 = {
    "[triggerer] default_capacity",
    "[api] auth_backends",
    "[core] dag_file_processor_timeout",
    "[scheduler] dag_stale_not_seen_duration",
    "[scheduler] parsing_processes",
    "[scheduler] stale_dag_threshold",
}
OPTIONS_NOT_ON_2 = {
    "[triggerer] capacity",
    "[api_auth] jwt_expiration_time",
    "[api_auth] jwt_secret",
    "[dag_processor] dag_file_processor_timeout",
    "[dag_processor] min_file_process_interval",
    "[dag_processor] parsing_processes",
    "[dag_processor] stale_dag_threshold",
    "[scheduler] task_instance_heartbeat_timeout",
}


def sections(page):
    return re.findall(r"^## (.+)$", page, re.MULTILINE)


def commands(page, name):
    """The command lines of this program in a page: in blocks of bash, and in sentences."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [re.split("   #| > ", line)[0] for block in blocks for line in block.splitlines()]
    sentences = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    lines += re.findall(r"`([^`\n]+)`", sentences)
    return [line for line in lines if line.startswith(f"{name} ")]


INDEX = (DOCS / "runbooks" / "index.md").read_text()
RECIPE = (DOCS / "recipes" / "alert-whoever-is-on-call.md").read_text()
EVERY = "\n".join([INDEX, RECIPE, *PAGES.values()])
OURS = sorted(set(commands(EVERY, "airflow-resilient")))
AIRFLOWS = sorted(set(commands(EVERY, "airflow")))
OPTIONS = sorted(set(re.findall(r"(?<![\w$])\[[a-z_]+\] [a-z_]+", EVERY)))


def test_each_alert_has_its_page_and_each_page_its_alert():
    assert sorted(PAGES) == NAMES


@pytest.mark.parametrize(("name", "page"), TEXT)
def test_a_page_has_its_sections_in_order(name, page):
    assert page.startswith(f"# {name}\n")
    found = sections(page)
    assert found in (SECTIONS, SECTIONS[:-1])
    assert all(part.strip() for part in re.split(r"^## .+$", page, flags=re.MULTILINE)[1:])


@pytest.mark.parametrize(("name", "part"), runbook_examples.examples().items())
def test_a_page_shows_what_the_code_prints(name, part):
    assert runbook_examples.replaced(PAGES[name], part) == PAGES[name], "run python docs/runbook_examples.py"


def test_there_is_an_example_for_each_alert():
    assert sorted(runbook_examples.examples()) == NAMES
    assert set(runbook_examples.found()[0]) == set(Kind)


@pytest.mark.parametrize(("name", "page"), TEXT)
def test_a_page_says_one_thing_to_run(name, page):
    run = page.partition("## Run this\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```bash\n(.*?)^```", run, re.MULTILINE | re.DOTALL)
    assert len(block.splitlines()) == 1


@pytest.mark.parametrize("line", OURS)
def test_our_commands_exist(line):
    arguments = shlex.split(line)[1:]
    assert _parser(arguments).parse_args(arguments).command.name == arguments[0]


@pytest.mark.parametrize("line", AIRFLOWS)
def test_commands_of_airflow_exist(line):
    if line.startswith(OF_A_PROVIDER) or line in (NOT_ON_2 if ON_2 else NOT_ON_3):
        pytest.skip("not in this Airflow")
    arguments = shlex.split(line)[1:]
    if arguments[-1] == "--queues":
        arguments.append("one")
    arguments = ["2026-11-02" if each in ("FROM", "TO") else each for each in arguments]
    assert get_parser().parse_args(arguments)


def test_lists_of_commands_and_options_name_what_the_pages_have():
    assert (NOT_ON_2 | NOT_ON_3) - set(AIRFLOWS) == set()
    assert (OPTIONS_NOT_ON_2 | OPTIONS_NOT_ON_3) - set(OPTIONS) == set()
    assert len(OURS) > 5
    assert len(AIRFLOWS) > 20


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_airflow_exist(option):
    if option in (OPTIONS_NOT_ON_2 if ON_2 else OPTIONS_NOT_ON_3):
        pytest.skip("not in this Airflow")
    section, name = re.fullmatch(r"\[(\w+)\] (\w+)", option).groups()
    known = retrieve_configuration_description(include_providers=False)
    assert name in known[section]["options"]


def test_limits_that_pages_name_are_taken():
    named = sorted(set(re.findall(r"--limit \w+=\w+(?:\.\w+)?", EVERY)))
    assert len(named) > 3
    for limit in named:
        assert _parser(["check"]).parse_args(["check", *limit.split()]).limit
    spoken = set(re.findall(r"the (?:limit|share) `(\w+)`", EVERY))
    assert spoken <= set(limits.NAMES)


def test_each_cause_of_a_wait_has_a_next_step():
    assert set(re.findall(r"`([a-z-]+)`", PAGES["AirflowWaiting"])) >= {why.value for why in Why}


def test_the_recipe_shows_files_and_metrics_that_exist():
    printed = {line.split("--print ")[1].split()[0] for line in OURS if "--print " in line}
    assert printed >= set(shipped_files.NAMES) - {"airflow-scheduler.service"}
    shown = set(re.findall(r"airflow_resilient_\w+", RECIPE))
    assert shown <= {metric.full_name for metric in METRICS}
    for kind in re.findall(r'kind="([a-z-]+)"', RECIPE):
        assert Kind(kind)
    (rule,) = re.findall(r"^```yaml\n(.*?)^```", RECIPE, re.MULTILINE | re.DOTALL)
    assert rule in rules("https://wiki.example.com/runbooks/")


def test_the_recipe_names_the_test_that_runs_it():
    (named,) = re.findall(r"`(tests/system/\w+\.py)`", RECIPE)
    assert (DOCS.parent / named).is_file()


def test_links_between_pages_lead_to_pages():
    linked = {name for _, page in TEXT for name in re.findall(r"\]\((\w+)\.md\)", page)}
    assert linked <= set(PAGES)


def test_the_index_lists_each_alert_with_its_meaning_and_severity():
    assert runbook_examples.table() in INDEX, "run python docs/runbook_examples.py"
    assert all(f"\n{name}\n" in INDEX for name in NAMES)


def test_the_url_in_the_rules_ends_with_the_name_of_the_page():
    made = rules("https://wiki.example.com/")
    assert RUNBOOKS not in made
    assert set(re.findall(r"runbook_url: \"https://wiki\.example\.com/(\w+)\"", made)) == set(PAGES)
