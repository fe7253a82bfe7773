"""Errors over HTTP: the one table from the error tree to status codes, as problem+json.

References
----------
RFC 9457 (2023), Problem Details for HTTP APIs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
from starlette.responses import Response

from domain.errors import (
    CommandRejected,
    Conflict,
    HeddleError,
    InvalidInput,
    NotAllowed,
    NotFound,
    Unavailable,
)

RETRY_AFTER_S: Final = 2

_STATUS: Final[Mapping[type[HeddleError], int]] = {
    InvalidInput: 400,
    NotFound: 404,
    CommandRejected: 409,
    Conflict: 409,
    NotAllowed: 403,
    Unavailable: 503,
}
_STATUS_BY_CODE: Final[Mapping[str, int]] = {
    "access.expired": 401,
    "access.unauthenticated": 401,
    "accept.not_acceptable": 406,
    "body.content_type": 415,
    "body.too_large": 413,
    "body.too_slow": 408,
    "client.throttled": 429,
    "host.misdirected": 421,
    "method.not_allowed": 405,
}


def status_of(error: HeddleError) -> int:
    """Return the HTTP status that tells of `error`."""
    by_code = _STATUS_BY_CODE.get(error.code)
    if by_code is not None:
        return by_code
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


def headers_of(error: HeddleError) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that belong to an answer that tells of `error`."""
    match status_of(error):
        case 401:
            return ((b"www-authenticate", b'Bearer realm="heddle"'),)
        case 429:
            return ((b"retry-after", str(error.value).encode()),)
        case 503:
            return ((b"retry-after", str(RETRY_AFTER_S).encode()),)
    return ()


def problem(error: HeddleError, headers: Mapping[str, str] | None = None) -> Response:
    """Return `error` as a problem+json response."""
    status = status_of(error)
    body = {
        "type": f"urn:heddle:error:{error.code}",
        "title": error.message,
        "status": status,
        "code": error.code,
        "hint": error.hint,
        "value": error.value,
        "limit": error.limit,
    }
    extra = {name.decode(): value.decode() for name, value in headers_of(error)}
    return Response(
        orjson.dumps(body, default=str),
        status,
        {**extra, **(headers or {})},
        "application/problem+json",
    )
