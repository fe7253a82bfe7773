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
    NotFound,
    Unavailable,
)

RETRY_AFTER_S: Final = 2

_STATUS: Final[Mapping[type[HeddleError], int]] = {
    InvalidInput: 400,
    NotFound: 404,
    CommandRejected: 409,
    Conflict: 409,
    Unavailable: 503,
}
_STATUS_BY_CODE: Final[Mapping[str, int]] = {
    "body.too_large": 413,
    "body.content_type": 415,
    "method.not_allowed": 405,
}


def status_of(error: HeddleError) -> int:
    """Return the HTTP status that tells of `error`."""
    by_code = _STATUS_BY_CODE.get(error.code)
    if by_code is not None:
        return by_code
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


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
    extra = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    return Response(
        orjson.dumps(body, default=str),
        status,
        {**extra, **(headers or {})},
        "application/problem+json",
    )
