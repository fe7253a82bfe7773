"""Headers: a request's, read once; and those that every response carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.types import Scope

Headers = Mapping[str, str]

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-site"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Of every response that does not say otherwise: it is data, nobody's script, frame or cache."""


SEVERAL: Final = ",\n"
"""Between the values of several headers of one name: no value holds a line's end."""


def read_headers(scope: Scope) -> dict[str, str]:
    """Return the headers of `scope`, names in lower case; several of one name with `SEVERAL`.

    Lists such as ``Accept`` read on over it; whoever wants one value sees that there are more.
    """
    given = scope["headers"]
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in given}
    if len(headers) == len(given):
        return headers
    several: dict[str, list[str]] = {}
    for name, value in given:
        several.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return {name: SEVERAL.join(values) for name, values in several.items()}
