"""Which errors of a connection to an engine may pass: every class that its libraries can raise is decided."""

import docker
import pytest
import requests
import urllib3
from docker import errors as docker_errors
from requests import exceptions as raised
from urllib3 import exceptions as below

from airflow_resilient.services.docker.engine import is_transient

PASSES, LASTS = True, False

REQUESTS = {
    raised.RequestException: LASTS,
    raised.InvalidJSONError: LASTS,
    raised.JSONDecodeError: LASTS,
    raised.HTTPError: LASTS,
    raised.ConnectionError: PASSES,
    raised.ProxyError: PASSES,
    raised.SSLError: PASSES,  # but for certificates: see below
    raised.Timeout: PASSES,
    raised.ConnectTimeout: PASSES,
    raised.ReadTimeout: PASSES,
    raised.URLRequired: LASTS,
    raised.TooManyRedirects: LASTS,
    raised.MissingSchema: LASTS,
    raised.InvalidSchema: LASTS,
    raised.InvalidURL: LASTS,
    raised.InvalidHeader: LASTS,
    raised.InvalidProxyURL: LASTS,
    raised.ChunkedEncodingError: PASSES,
    raised.ContentDecodingError: PASSES,  # the answer came garbled
    raised.StreamConsumedError: LASTS,
    raised.RetryError: LASTS,
    raised.UnrewindableBodyError: LASTS,
}


def all_of(base, package):
    """A class and all classes below it that this package defines."""
    found = {base}.union(*(all_of(each, package) for each in base.__subclasses__()))
    return {each for each in found if each.__module__.split(".")[0] == package.__name__}


def made(kind):
    """An error of a class, without what its constructor wants."""
    error = kind.__new__(kind)
    error.args = ("it broke",)
    if issubclass(kind, below.IncompleteRead | below.InvalidChunkLength):  # their texts need them
        error.partial = error.expected = error.length = 0
    return error


def test_every_error_of_requests_is_decided():
    """A class that a later version adds is noticed here: decide whether it passes, and add it."""
    assert all_of(raised.RequestException, requests) - set(REQUESTS) == set()


@pytest.mark.parametrize("kind", REQUESTS, ids=lambda kind: kind.__name__)
def test_an_error_of_requests_is_sorted_by_its_class(kind):
    assert is_transient(made(kind)) is REQUESTS[kind]


@pytest.mark.parametrize(
    "kind", sorted(all_of(below.HTTPError, urllib3), key=lambda each: each.__name__), ids=lambda k: k.__name__
)
def test_every_error_below_requests_is_one_of_a_connection_that_may_come_back(kind):
    assert is_transient(made(kind))


def answer(status):
    response = requests.Response()
    response.status_code = status
    return response


STATUSES = {400: LASTS, 401: LASTS, 403: LASTS, 404: LASTS, 408: PASSES, 409: LASTS, 429: PASSES}
STATUSES |= {500: PASSES, 501: LASTS, 502: PASSES, 503: PASSES, 504: PASSES}
SDK = {docker_errors.APIError, docker_errors.NotFound, docker_errors.ImageNotFound}


@pytest.mark.parametrize(("status", "passes"), STATUSES.items())
def test_an_answer_of_the_engine_is_sorted_by_its_status(status, passes):
    assert is_transient(docker_errors.APIError("x", response=answer(status))) is passes


def test_every_other_error_of_the_sdk_lasts():
    """They are about parameters, contexts, image builds and containers that have ended."""
    others = all_of(docker_errors.DockerException, docker) - SDK
    assert others
    assert [each.__name__ for each in others if is_transient(made(each))] == []


@pytest.mark.parametrize(
    "text",
    [
        "certificate verify failed: self-signed certificate",
        "[Errno 13] Permission denied",
        "PermissionError(13)",
    ],
)
def test_a_certificate_or_a_permission_does_not_pass(text):
    assert not is_transient(raised.ConnectionError(text))
    assert not is_transient(raised.SSLError(text))
