"""`heddle trace`: a stream's events, asked of a server through its GraphQL API."""

from __future__ import annotations

import sys
from typing import Any, Final

import httpx
import orjson

from domain.asset import asset_stream, telemetry_stream
from domain.errors import HeddleError, NotFound, Unavailable

PAGE: Final = 200
TIMEOUT_S: Final = 30.0

QUERY: Final = """
query Trace($first: Int!, $after: Cursor, $streams: [String!]) {
  events(first: $first, after: $after, filter: {streams: $streams}) {
    nodes {
      position stream version type occurredAt recordedAt actor eventId payloadSha256 leafHash
      fact frame { agent sequence windowStart windowEnd readingCount channels }
    }
    pageInfo { endCursor hasNextPage }
  }
}
"""


def trace_stream(server: str, stream: str, *, first: int, as_json: bool) -> None:
    """Print at most `first` events of `stream`, or of both streams of an asset so named."""
    streams = [stream] if ":" in stream else [asset_stream(stream), telemetry_stream(stream)]
    events = _fetch(server, streams, first)
    if not events:
        raise NotFound(
            "stream.unknown",
            f"no event is recorded on {' or '.join(streams)}",
            hint="`assets` in GraphQL lists what is known",
            value=stream,
        )
    if as_json:
        for event in events:
            sys.stdout.write(orjson.dumps(event).decode() + "\n")
        return
    for event in events:
        sys.stdout.write(
            f"{event['position']:>8}  {event['occurredAt']}  {event['type']:<24} "
            f"{_summary(event)}  by {event['actor']}, leaf {event['leafHash'][:12]}\n"
        )


def query(server: str, document: str, variables: dict[str, Any]) -> dict[str, Any]:
    """Return the data that `server` answers `document` with.

    Raises
    ------
    Unavailable
        ``server.unreachable``
    HeddleError
        ``graphql.failed`` with the first error's message
    """
    try:
        response = httpx.post(
            f"{server.rstrip('/')}/graphql",
            json={"query": document, "variables": variables},
            timeout=TIMEOUT_S,
        )
        answer = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(
            "server.unreachable",
            f"{server} does not answer: {error or type(error).__name__}",
            hint="is `heddle serve` running? --server names another one",
            value=server,
        ) from error
    if "errors" in answer:
        first = answer["errors"][0]
        code = first.get("extensions", {}).get("code", "graphql.failed")
        raise HeddleError(code, first["message"], hint=first.get("extensions", {}).get("hint", ""))
    data: dict[str, Any] = answer["data"]
    return data


def _fetch(server: str, streams: list[str], first: int) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    after = None
    while len(events) < first:
        page = query(
            server,
            QUERY,
            {"first": min(PAGE, first - len(events)), "after": after, "streams": streams},
        )["events"]
        events += page["nodes"]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    return events


def _summary(event: dict[str, Any]) -> str:
    frame = event["frame"]
    if frame is not None:
        return (
            f"{frame['readingCount']} readings, {frame['windowStart']} to {frame['windowEnd']}, "
            f"sequence {frame['sequence']}"
        )
    return ", ".join(
        f"{name} {value}" for name, value in event["fact"].items() if not name.endswith("_id")
    )
