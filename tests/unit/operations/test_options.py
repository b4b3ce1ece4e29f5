"""Options that the commands share: what they mean, and what is refused."""

from __future__ import annotations

import argparse

import pytest

from airflow_resilient import cli, registry
from airflow_resilient.operations.options import (
    access_for,
    access_of,
    api_of,
    duration,
    namespace_of,
    scope,
    scopes_of,
)
from airflow_resilient.operations.task_instances import AirflowApiError

EXPLAIN = ("explain", "a", "b", "c")
COMMANDS = pytest.mark.parametrize("command", [("orphans",), EXPLAIN], ids=["orphans", "explain"])


def parsed(*arguments):
    return cli._parser(arguments).parse_args(arguments)


# --- lengths of time ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "length"),
    [("0", 0), ("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("1d", 86_400), (" 7 ", 7)],
)
def test_lengths_of_time(text, length):
    assert duration(text) == length
    assert parsed("orphans", "--grace", text, "--wait", text).grace == length


@pytest.mark.parametrize("text", ["", "soon", "-5", "10 minutes", "1e3", "m", "1h30m", "٣x"])
def test_what_is_no_length_of_time_is_refused_with_what_to_write(text):
    with pytest.raises(argparse.ArgumentTypeError, match="write one such as 600, 10m or 2h"):
        duration(text)


# --- scopes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "service", "name"),
    [
        ("ecs=etl", "ecs", "etl"),
        ("ecs=arn:aws:ecs:eu-west-1:1:cluster/etl", "ecs", "arn:aws:ecs:eu-west-1:1:cluster/etl"),
        ("emr_steps=j-1", "emr_steps", "j-1"),
        ("docker=tcp://build:2375", "docker", "tcp://build:2375"),
        ("docker=tcp://build:2375?a=b", "docker", "tcp://build:2375?a=b"),
    ],
)
def test_a_scope_names_its_service(text, service, name):
    assert scope(text) == (service, name)


@pytest.mark.parametrize(
    "text", ["", "etl", "ecs", "ecs=", "=etl", "glue=etl", "ECS=etl", "emr=j-1", "ecs =etl"]
)
def test_what_names_no_scope_is_refused_with_the_services_that_there_are(text):
    with pytest.raises(argparse.ArgumentTypeError) as refusal:
        scope(text)
    assert str(refusal.value) == (
        f"{text!r} is not a scope; write SERVICE=NAME, where SERVICE is one of ecs, emr_steps, docker"
    )


@COMMANDS
@pytest.mark.parametrize(
    ("arguments", "scopes"),
    [
        pytest.param([], {}, id="none"),
        pytest.param(["--scope", "ecs=etl"], {"ecs": ["etl"]}, id="one"),
        pytest.param(["--scope=ecs=etl", "--scope", "ecs=b"], {"ecs": ["etl", "b"]}, id="two-of-one-service"),
        pytest.param(["--ecs-cluster", "etl"], {"ecs": ["etl"]}, id="an-ecs-cluster"),
        pytest.param(["--emr-cluster", "j-1"], {"emr_steps": ["j-1"]}, id="an-emr-cluster"),
        pytest.param(["--docker-url", "tcp://a:1"], {"docker": ["tcp://a:1"]}, id="an-engine"),
        pytest.param(
            ["--ecs-cluster", "ecs=etl"], {"ecs": ["ecs=etl"]}, id="an-alias-takes-the-name-as-it-is"
        ),
        pytest.param(
            ["--ecs-cluster", "a", "--scope", "emr_steps=j-1", "--scope", "ecs=b", "--docker-url", "x"],
            {"ecs": ["a", "b"], "emr_steps": ["j-1"], "docker": ["x"]},
            id="aliases-beside-scopes",
        ),
    ],
)
def test_scopes_by_service(command, arguments, scopes):
    assert scopes_of(parsed(*command, *arguments)) == scopes


@COMMANDS
def test_scopes_of_one_command_line_are_not_those_of_the_next(command):
    parser = cli._parser([])
    parser.parse_args([*command, "--ecs-cluster", "etl", "--scope", "ecs=b"])
    assert scopes_of(parser.parse_args(command)) == {}


@COMMANDS
def test_a_scope_that_is_none_is_refused_on_the_command_line(command, capsys):
    with pytest.raises(SystemExit) as refusal:
        parsed(*command, "--scope", "etl")
    assert refusal.value.code == 2
    assert "'etl' is not a scope; write SERVICE=NAME" in capsys.readouterr().err


@COMMANDS
def test_the_help_names_every_service_with_what_its_scopes_are(command, capsys):
    with pytest.raises(SystemExit):
        parsed(*command, "--help")
    shown = " ".join(capsys.readouterr().out.split())
    for info in registry.services().values():
        assert f"{info.name}={info.scope_noun.upper()}" in shown
        assert not info.scope_option or f"{info.scope_option} NAME" in shown
        assert not info.scope_option or f"the same as --scope {info.name}=NAME" in shown


@COMMANDS
@pytest.mark.parametrize("name", registry.SERVICES)
def test_every_service_can_be_named(command, name):
    assert parsed(*command, "--service", name).service == [name]


# --- how services are reached ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "access"),
    [
        (["orphans"], {"aws_conn_id": "aws_default"}),
        (
            ["orphans", "--aws-conn-id", "none", "--region", "eu-west-1"],
            {"aws_conn_id": None, "region_name": "eu-west-1"},
        ),
        (["orphans", "--aws-conn-id", ""], {"aws_conn_id": None}),
        (EXPLAIN, {}),
        ([*EXPLAIN, "--aws-conn-id", "aws_eu"], {"aws_conn_id": "aws_eu"}),
    ],
)
def test_how_aws_is_reached(arguments, access):
    assert access_of(parsed(*arguments)) == access


@pytest.mark.parametrize(
    ("arguments", "environment", "folder"),
    [
        pytest.param([], {}, None, id="without-tls"),
        pytest.param(["--docker-tls", "/certs"], {}, "/certs", id="by-the-option"),
        pytest.param([], {"TLS_VERIFY": "1", "CERT_PATH": "/env"}, "/env", id="by-the-environment"),
        pytest.param([], {"CERT_PATH": "/env"}, None, id="not-where-the-environment-does-not-ask-for-it"),
        pytest.param(
            ["--docker-tls", "/certs"],
            {"TLS_VERIFY": "1", "CERT_PATH": "/env"},
            "/certs",
            id="the-option-goes-before-the-environment",
        ),
    ],
)
def test_docker_engines_are_reached_with_tls_as_dockers_own_command_line_does(
    arguments, environment, folder, monkeypatch
):
    for name, value in environment.items():
        monkeypatch.setenv(f"DOCKER_{name}", value)
    names = {"ca_cert": "ca.pem", "client_cert": "cert.pem", "client_key": "key.pem"}
    tls = {"tls": {name: f"{folder}/{file}" for name, file in names.items()}} if folder else {}
    assert access_of(parsed(*EXPLAIN, *arguments)) == tls


def test_a_service_is_given_the_access_that_it_takes():
    access = {"aws_conn_id": None, "region_name": "eu-west-1", "tls": {"ca_cert": "ca.pem"}}
    taken = {name: access_for(info.access, access) for name, info in registry.services().items()}
    aws = {"aws_conn_id": None, "region_name": "eu-west-1"}
    assert taken == {"ecs": aws, "emr_steps": aws, "docker": {"tls": {"ca_cert": "ca.pem"}}}


# --- how Airflow is reached -----------------------------------------------------------------------


def test_the_environment_says_what_the_command_line_does_not(monkeypatch):
    monkeypatch.setenv("AIRFLOW_API_URL", "https://airflow.example.com/")
    monkeypatch.setenv("AIRFLOW_API_USER", "me")
    monkeypatch.setenv("AIRFLOW_API_PASSWORD", "hunter2")
    api = api_of(parsed("orphans"))
    assert (api.url, api._login, api._token) == ("https://airflow.example.com", ("me", "hunter2"), None)
    api = api_of(parsed("orphans", "--airflow-url", "http://other", "--user", "you", "--token", "t"))
    assert (api.url, api._login[0], api._token) == ("http://other", "you", "t")


@pytest.mark.parametrize(
    ("arguments", "environment", "login", "token"),
    [
        pytest.param([], {"TOKEN": "t", "USER": "me", "PASSWORD": "p"}, ("me", "p"), "t", id="environment"),
        pytest.param(["--user", "you"], {"TOKEN": "t", "PASSWORD": "p"}, ("you", "p"), None, id="a-user"),
        pytest.param(["--password", "q"], {"TOKEN": "t", "USER": "me"}, ("me", "q"), None, id="a-password"),
        pytest.param(
            ["--user", "you", "--password", "q"],
            {"TOKEN": "t", "USER": "me"},
            ("you", "q"),
            None,
            id="a-login",
        ),
        pytest.param(["--token", "u"], {"TOKEN": "t"}, (None, ""), "u", id="a-token"),
        pytest.param(["--token", "u", "--user", "you"], {}, ("you", ""), "u", id="a-token-and-a-user"),
        pytest.param(
            ["--airflow-url", "https://you:q%40@a"],
            {"TOKEN": "t", "USER": "me", "PASSWORD": "p"},
            ("you", "q@"),
            None,
            id="a-login-in-the-url",
        ),
        pytest.param(
            ["--airflow-url", "https://you:q@a", "--user", "she"],
            {"TOKEN": "t", "PASSWORD": "p"},
            ("she", "p"),
            None,
            id="a-login-in-the-url-and-another-user",
        ),
        pytest.param(
            [],
            {"TOKEN": "t", "URL": "https://you:q@a"},
            ("you", "q"),
            "t",
            id="a-login-in-the-url-of-the-environment",
        ),
    ],
)
def test_a_login_on_the_command_line_goes_before_one_in_the_environment(
    arguments, environment, login, token, monkeypatch, configured
):
    configured("https://here")
    for name, value in environment.items():
        monkeypatch.setenv(f"AIRFLOW_API_{name}", value)
    api = api_of(parsed("orphans", *arguments))
    assert (api._login, api._token) == (login, token)


@COMMANDS
def test_the_help_warns_of_secrets_on_the_command_line(command, capsys):
    with pytest.raises(SystemExit):
        parsed(*command, "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("other users of this machine can see it here") == len(["--token", "--password"])


def test_without_a_url_there_is_nobody_to_ask(configured):
    configured()
    with pytest.raises(
        AirflowApiError, match="Airflow URL not set: pass --airflow-url or set AIRFLOW_API_URL"
    ):
        api_of(parsed("orphans"))


@pytest.mark.parametrize(
    ("base_url", "name", "arguments", "namespace"),
    [
        ("https://here", "prod", [], "prod"),
        ("https://here", "", [], "https://here"),
        ("https://here", "", ["--airflow-url", "http://api-server:8080"], "https://here"),
        ("https://here", "prod", ["--namespace", "staging"], "staging"),
        ("", "", ["--airflow-url", "https://other/"], "https://other"),
        ("http://localhost:8080", "", ["--airflow-url", "https://other"], "https://other"),
        ("http://localhost:8080", "", [], "http://localhost:8080"),
        ("", "", ["--airflow-url", "https://me:hunter2@other/"], "https://other"),
    ],
)
def test_whose_claims_are_ours(base_url, name, arguments, namespace, configured):
    configured(base_url, name)
    assert namespace_of(parsed("orphans", *arguments)) == namespace
