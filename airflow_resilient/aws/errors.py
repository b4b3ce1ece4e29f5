"""Classify errors of AWS: throttled, denied, transient. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..core.text import says

# Source: botocore's retry handlers (``botocore/retries/standard.py``, ``botocore/data/_retry.json``).
_THROTTLE_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)

# Source: the same, and the common errors in each API reference.
_TRANSIENT = _THROTTLE_CODES | {
    "InternalError",
    "InternalFailure",
    "InternalServerError",
    "InternalServerException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServerException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
}

EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
    }
)

_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "InvalidSignatureException",
        "NotAuthorized",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
    }
)

# ECS wraps a throttle of EC2 or of an agent into an error with an unspecific code that only the text
# identifies.
# Source: dagster-io/dagster issue 33439; dask/dask-cloudprovider issue 56.
_WRAPPERS = frozenset({"InvalidParameterException", "ClientException", "ServerException"})
_WRAPPED_THROTTLE = (
    r"(?:^|(?<=: )|(?<=\())Throttling(Exception)?\b|\bThrottling(Exception)?(?=[:)])"
    r"|(?i:\bRequest ?limit ?exceeded\b|\bRate exceeded\b)"
)

CONFLICT = "ConflictException"
"""RunTask was called with this token before, with other parameters. Source: RunTask reference, Errors."""

_CLIENT_ERROR = 400
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500  # and above: an error of AWS; whether the call was carried out is unknown

_PARAMETER_VALUE = re.compile(r"value: .*?, type: (?=<class)", re.DOTALL)


def error_code(error: BaseException) -> str:
    """AWS's code of a botocore ``ClientError``; ``""`` for any other error."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, Mapping) else ""


def is_denied(error: BaseException) -> bool:
    """Whether AWS denies access to the caller."""
    return error_code(error) in _DENIED


def is_throttle(error: BaseException, quoted: Iterable[str] = ()) -> bool:
    """Whether the call was throttled; see `is_throttled`."""
    return is_throttled(getattr(error, "response", None), quoted)


def is_throttled(answer: Any, quoted: Iterable[str] = ()) -> bool:
    """Whether an answer, ``{"Error": {...}, "ResponseMetadata": {...}}``, reports throttling.

    The only place that decides it: the budget of calls, the watch and `is_transient` call this.

    :param quoted: values of the request that the message may quote; see `says`.
    """
    if not isinstance(answer, Mapping):
        return False
    error = answer.get("Error") or {}
    code, message = error.get("Code"), str(error.get("Message"))
    return (
        code in _THROTTLE_CODES
        or (answer.get("ResponseMetadata") or {}).get("HTTPStatusCode") == _TOO_MANY_REQUESTS
        or (code in _WRAPPERS and says(message, _WRAPPED_THROTTLE, quoted))
    )


def is_transient(error: BaseException, quoted: Iterable[str] = ()) -> bool:
    """Whether the same call may succeed later. Such an error says nothing about a job.

    :param quoted: values of the request that the message may quote; see `says`.
    :return: ``True`` for throttling, lost connections, time-outs, 5xx answers and expired credentials (the
        next call uses a new client).
    """
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code = error_code(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return code in _TRANSIENT or code in EXPIRED or status >= _SERVER_ERROR or is_throttle(error, quoted)
    return isinstance(
        error,
        (
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.CredentialRetrievalError,
            ConnectionError,
        ),
    )


def was_never_sent(error: BaseException) -> bool:
    """Whether a request did not reach AWS: no connection, no credentials to sign it with."""
    from botocore import exceptions

    return isinstance(
        error,
        (
            exceptions.ConnectTimeoutError,
            exceptions.CredentialRetrievalError,
            exceptions.EndpointConnectionError,
            exceptions.NoCredentialsError,
            exceptions.ProxyConnectionError,
        ),
    ) or is_untrusted(error)


def was_refused(answer: Any) -> bool:
    """Whether an answer says that the call had no effect: 4xx, throttling included.

    Not a conflict of idempotency tokens: it says that an earlier call of this token had an effect.

    >>> was_refused({"Error": {"Code": "Throttling"}, "ResponseMetadata": {"HTTPStatusCode": 400}})
    True
    >>> was_refused({"Error": {"Code": "ConflictException"}, "ResponseMetadata": {"HTTPStatusCode": 409}})
    False
    """
    if not isinstance(answer, Mapping) or (answer.get("Error") or {}).get("Code") == CONFLICT:
        return False
    status = (answer.get("ResponseMetadata") or {}).get("HTTPStatusCode", 0)
    return _CLIENT_ERROR <= int(status) < _SERVER_ERROR


def is_untrusted(error: BaseException) -> bool:
    """Whether the certificate of the other side was not accepted; nothing was sent then."""
    from botocore.exceptions import SSLError

    return isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def lasting_advice(
    error: BaseException, attempts: int, connection: str, regions: Callable[[], tuple[str, Sequence[str]]]
) -> str:
    """What to correct, where a transient error will not pass by itself; empty where it may pass.

    :param attempts: consecutive errors. AWS may need a while until it knows a new access key, and a client
        may have an old one, so such a refusal is believed at the third attempt, each with a new client.
    :param connection: name of the Airflow connection.
    :param regions: returns the region, and all regions that botocore knows.
    """
    from botocore.exceptions import EndpointConnectionError

    if is_untrusted(error):
        return (
            "The certificate is not signed by a known authority. If a proxy signs it, set verify (or "
            f"AWS_CA_BUNDLE, or verify in the extra of {connection}) to the file of its CA"
        )
    if error_code(error) in _UNKNOWN_KEY and attempts > _FRESH_CLIENTS:
        return f"AWS does not know the access key: correct the credentials of {connection}, or of its role"
    if isinstance(error, EndpointConnectionError):
        region, known = regions()
        if region in str(error) and region not in known:
            return f"There is no region {region!r} for botocore{_nearest(region, known)}: correct region_name"
    return ""


def _nearest(region: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    nearest = get_close_matches(region, known, n=2)
    return f", but there is {' and '.join(map(repr, nearest))}" if nearest else ""


_UNKNOWN_KEY = frozenset({"UnrecognizedClientException", "InvalidClientTokenId"})
_FRESH_CLIENTS = 2


def redacted_text(error: BaseException) -> str:
    """The text of a botocore error without values of parameters, which may be secrets."""
    return _PARAMETER_VALUE.sub("value: (hidden), type: ", str(error))
