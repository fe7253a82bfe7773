"""In which media type an answer goes out: what a client accepts, weighed as it says.

References
----------
RFC 9110 (2022), section 12.5.1: an explicit type says more than ``type/*``, and that more than
``*/*``. GraphQL over HTTP, stage 2 draft.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

JSON: Final = "application/json"
GRAPHQL_RESPONSE: Final = "application/graphql-response+json"

ACCEPT_LENGTH_MAX: Final = 1_000
RANGES_MAX: Final = 50


def negotiate(accept: str | None) -> str | None:
    """Return the media type to answer in; None where nothing that we speak is accepted.

    Parameters
    ----------
    accept : the request's header; without one plain JSON is assumed
    """
    if not accept:
        return JSON
    return _chosen(accept[:ACCEPT_LENGTH_MAX])


@lru_cache(maxsize=256)
def _chosen(accept: str) -> str | None:
    weights = _weights(accept)
    given_json, given_graphql = _weight(weights, JSON), _weight(weights, GRAPHQL_RESPONSE)
    explicit = weights.get(GRAPHQL_RESPONSE, 0.0)
    # A wildcard alone is no wish for the newer type, whose statuses an old client may not know.
    if explicit > 0 and explicit >= given_json:
        return GRAPHQL_RESPONSE
    if given_json > 0:
        return JSON
    return GRAPHQL_RESPONSE if given_graphql > 0 else None


def _weights(accept: str) -> dict[str, float]:
    """Return the weight of each media range in `accept`; what cannot be read has none."""
    weights: dict[str, float] = {}
    for part in accept.split(",")[:RANGES_MAX]:
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = _quality(value.strip())
            elif name.strip() == "charset" and value.strip(' "') not in ("utf-8", "utf8"):
                weight = 0.0
        if media_range:
            weights[media_range] = max(weight, weights.get(media_range, 0.0))
    return weights


def _weight(weights: dict[str, float], media_type: str) -> float:
    group = media_type.partition("/")[0]
    for media_range in (media_type, f"{group}/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0
