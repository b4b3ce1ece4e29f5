"""Local time in Airflow's own templates: its Jinja environments and operators, in this process."""

import os
from datetime import datetime, timedelta, timezone
from importlib.metadata import entry_points
from types import SimpleNamespace

import jinja2
import pytest
from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_resilient import InvalidParameter, LocalTime, local, local_filters, local_macros
from airflow_resilient.plugin import ResilientPlugin

UTC = timezone.utc
EVENING = datetime(2026, 11, 1, 0, 0, tzinfo=UTC)  # 31 October, 20:00, in New York
END = EVENING + timedelta(days=1)
PLUGIN = SimpleNamespace(**{macro.__name__: macro for macro in ResilientPlugin.macros})
MACROS = SimpleNamespace(airflow_resilient=PLUGIN)


class Job(BaseOperator):
    """Something with a template."""

    template_fields = ("text",)

    def __init__(self, *, text, **more):
        super().__init__(**more)
        self.text = text


def rendered(text, *, native=False, bound="America/New_York", **keys):
    """Render `text` as a task of a run of 31 October, 20:00, in New York; ``None`` removes a key."""
    with DAG(
        "evening",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        render_template_as_native_obj=native,
        user_defined_macros=local_macros(bound) if bound else None,
        user_defined_filters=local_filters(bound) if bound else None,
    ) as dag:
        job = Job(task_id="job", text=text)
    run = SimpleNamespace(logical_date=None, run_after=END)
    context = {
        "dag": dag,
        "dag_run": run,
        "macros": MACROS,
        "logical_date": EVENING,
        "data_interval_end": END,
    }
    context = {key: value for key, value in {**context, **keys}.items() if value is not None}
    return job.render_template(job.text, context, job.get_template_env())


RENDERED = [
    pytest.param("{{ local_ds() }}", "2026-10-31", id="without-argument"),
    pytest.param("{{ local_ds(data_interval_end) }}", "2026-11-01", id="with-argument"),
    pytest.param("{{ data_interval_end | local_ds }}", "2026-11-01", id="filter"),
    pytest.param("{{ data_interval_end | local_ds('Asia/Kolkata') }}", "2026-11-02", id="filter-with-a-zone"),
    pytest.param("{{ local_ts(zone='Asia/Kolkata') }}", "2026-11-01T05:30:00+05:30", id="macro-with-a-zone"),
    pytest.param("{{ macros.airflow_resilient.local_ds() }}", "2026-10-31", id="plugin-takes-the-dags-zone"),
    pytest.param(
        "{{ macros.airflow_resilient.local_ds(zone='UTC') }}", "2026-11-01", id="plugin-with-a-zone"
    ),
    pytest.param(
        "{{ local_ds_add(-1) }} {{ data_interval_end | local_ds_add(2) }}", "2026-10-30 2026-11-03", id="add"
    ),
    pytest.param(
        "{{ local_format('%A') }} {{ data_interval_end | local_format('%H %Z') }}",
        "Saturday 19 EST",
        id="format",
    ),
    pytest.param("{{ local_day_hours() }} {{ local_day_hours(data_interval_end) }}", "24 25", id="hours"),
    pytest.param(
        "ts >= '{{ utc_day_range().start }}' AND ts < '{{ utc_day_range().end }}'",
        "ts >= '2026-10-31 04:00:00+00:00' AND ts < '2026-11-01 04:00:00+00:00'",
        id="predicate",
    ),
    pytest.param(
        "{{ local_logical_date().hour }} {{ local_data_interval_end() }}",
        "20 2026-11-01 19:00:00-05:00",
        id="run",
    ),
    pytest.param(
        "{% for n in [0, 1] %}{{ local_ds_add(n) }} {% endfor %}", "2026-10-31 2026-11-01 ", id="loop"
    ),
    pytest.param(
        "{% macro path(x) %}{{ x }}/{{ local_ds() }}{% endmacro %}{{ path('s3:') }}",
        "s3:/2026-10-31",
        id="in-a-jinja-macro",
    ),
    pytest.param("{% set ds = local_ds() %}{{ ds }}", "2026-10-31", id="shadowing-airflows-ds"),
    pytest.param("{{ '2026-01-15T01:00Z' | local_ds }}", "2026-01-14", id="constant"),
]


@pytest.mark.parametrize(("text", "wanted"), RENDERED)
@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
def test_templates_show_local_time(text, wanted, native):
    assert str(rendered(text, native=native)) == wanted


def test_values_keep_their_types_in_native_rendering():
    assert rendered("{{ local_day_hours() }}", native=True) == 24
    assert (
        rendered("{{ local_day_start() }}", native=True) == LocalTime(EVENING, "America/New_York").day_start
    )
    assert (
        rendered("{{ utc_day_range() }}", native=True) == LocalTime(EVENING, "America/New_York").utc_day_range
    )
    assert rendered("{{ local_ds() }}", native=True) == "2026-10-31"


def test_text_that_looks_like_a_number_becomes_one_in_native_rendering_as_airflows_own_does():
    assert rendered("{{ local_ds_nodash() }}", native=True) == 20261031
    assert rendered("{{ ds_nodash }}", native=True, ds_nodash="20261031") == 20261031


def test_fields_nested_in_lists_and_mappings_are_rendered():
    assert rendered({"days": ["{{ local_ds() }}", "{{ local_tomorrow_ds() }}"]}) == {
        "days": ["2026-10-31", "2026-11-01"]
    }


WITHOUT_LOGICAL_DATE = {"logical_date": None, "data_interval_end": None}


def test_a_run_without_logical_date_is_taken_at_run_after():
    assert rendered("{{ local_ds() }} {{ local_run_after() }}", **WITHOUT_LOGICAL_DATE) == (
        "2026-11-01 2026-11-01 19:00:00-05:00"
    )


@pytest.mark.parametrize(
    "text",
    [
        "{{ local_ds(logical_date) }}",
        "{{ logical_date | local_ds }}",
        "{{ local_ds(dag_run.logical_date) }}",
        "{{ dag_run.logical_date | local_ts }}",
        "{{ macros.airflow_resilient.local_ds(data_interval_end) }}",
        "{{ local_logical_date() }}",
    ],
)
def test_a_moment_that_the_run_lacks_is_an_error_that_says_what_to_write(text):
    with pytest.raises((InvalidParameter, jinja2.UndefinedError), match=r"local_ds\(\)"):
        rendered(text, **WITHOUT_LOGICAL_DATE)


@pytest.mark.parametrize(
    "text", ["{{ local_ds(ds) }}", "{{ ds | local_ds }}", "{{ local_ds('2026-11-01T00:00:00') }}"]
)
def test_a_date_or_a_wall_clock_is_an_error(text):
    with pytest.raises(InvalidParameter, match="not an instant"):
        rendered(text, ds="2026-11-01")


def test_python_code_has_the_same_dates_as_templates():
    with DAG("evening", schedule=None, user_defined_macros=local_macros("America/New_York")) as dag:
        pass
    assert local({"dag": dag, "logical_date": EVENING}).ds == rendered("{{ local_ds() }}") == "2026-10-31"


def test_without_a_zone_of_its_own_the_dags_start_date_decides(monkeypatch):
    assert rendered("{{ macros.airflow_resilient.local_ds() }}", bound=None) == "2026-11-01"
    monkeypatch.setenv("AIRFLOW__AIRFLOW_RESILIENT__LOCAL_TIMEZONE", "America/Los_Angeles")
    assert rendered("{{ macros.airflow_resilient.local_ts() }}", bound=None) == "2026-10-31T17:00:00-07:00"


@pytest.mark.parametrize("name", ["ds", "ds_nodash", "ts", "ts_nodash", "ts_nodash_with_tz"])
def test_in_utc_our_filters_render_what_airflows_own_do(name):
    moment = EVENING.replace(microsecond=12)
    text = f"{{{{ data_interval_end | local_{name}('UTC') }}}} {{{{ data_interval_end | {name} }}}}"
    ours, theirs = rendered(text, data_interval_end=moment).split()
    assert ours == theirs


def test_macros_of_the_users_own_stand_beside_ours():
    with DAG(
        "mine", schedule=None, user_defined_macros={**local_macros("Asia/Tokyo"), "greet": "hello"}
    ) as dag:
        job = Job(task_id="job", text="{{ greet }} {{ local_ds() }}")
    context = {"dag": dag, "logical_date": EVENING}
    assert job.render_template(job.text, context, job.get_template_env()) == "hello 2026-11-01"


def test_templates_are_imported_with_context(tmp_path):
    (tmp_path / "paths.j2").write_text("{% macro path() %}s3://bucket/{{ local_ds() }}{% endmacro %}")
    with DAG(
        "imports",
        schedule=None,
        template_searchpath=str(tmp_path),
        user_defined_macros=local_macros("Asia/Tokyo"),
    ) as dag:
        job = Job(task_id="job", text="")
    context = {"dag": dag, "logical_date": EVENING}
    environment = job.get_template_env()
    text = "{% from 'paths.j2' import path with context %}{{ path() }}"
    assert job.render_template(text, context, environment) == "s3://bucket/2026-11-01"
    with pytest.raises(InvalidParameter, match="with context"):
        job.render_template(text.replace(" with context", ""), context, environment)


@pytest.mark.filterwarnings("default")  # Airflow's own, while it reads a DAG file
def test_a_dag_file_with_a_bad_zone_is_an_import_error_that_says_what_to_write(tmp_path):
    try:
        from airflow.dag_processing.dagbag import DagBag  # Airflow 3.2 and later
    except ImportError:
        from airflow.models.dagbag import DagBag
    (tmp_path / "bad.py").write_text(
        "from airflow.providers.common.compat.sdk import DAG\n"
        "from airflow_resilient import local_macros\n"
        "DAG('bad', schedule=None, user_defined_macros=local_macros('New York'))\n"
    )
    (message,) = DagBag(dag_folder=str(tmp_path)).import_errors.values()
    assert "InvalidParameter: time zone 'New York' is unknown; write 'America/New_York'" in message


# ----- as installed


def installed():
    return [
        entry
        for entry in entry_points(group="airflow.plugins")
        if entry.value.startswith("airflow_resilient.")
    ]


def test_tox_installs_the_plugin_with_its_entry_point():
    if "TOX_ENV_NAME" in os.environ:
        (entry,) = installed()
        assert entry.name == ResilientPlugin.name
        assert entry.load() is ResilientPlugin


@pytest.mark.skipif(
    not installed(),
    reason="no entry point: a checkout on PYTHONPATH is not installed (tox installs the wheel)",
)
def test_airflow_finds_the_plugin_and_puts_its_macros_where_templates_look():
    try:
        from airflow.sdk.plugins_manager import integrate_macros_plugins
    except ImportError:
        from airflow.plugins_manager import integrate_macros_plugins
    try:
        from airflow.sdk.execution_time import macros
    except ImportError:
        from airflow import macros  # Airflow 2
    integrate_macros_plugins()
    text = "{{ macros.airflow_resilient.local_ds() }}"
    assert rendered(text, macros=macros) == "2026-10-31"
