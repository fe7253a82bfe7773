"""`heddle trace` through a server: a stream's events, and what the thread knows of it."""

from __future__ import annotations

import sys
from collections import Counter
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


THREAD: Final = """
query Thread($roots: [String!]!) {
  trace(roots: $roots, direction: BACK, first: 2000) { nodeColumns { kinds } cut }
  recall(roots: $roots) { total position cut counts { kind state count } }
}
"""


def trace_stream(server: str, stream: str, *, first: int, as_json: bool) -> None:
    """Print at most `first` events of `stream`, or of both streams of an asset so named.

    And, for people, what it came from and what it reached, where the thread knows of it.
    """
    # Revisions of a document share its stream, and are things of their own in the thread.
    own = stream.partition("@")[0]
    streams = [own] if ":" in stream else [asset_stream(stream), telemetry_stream(stream)]
    events = _fetch(server, streams, first)
    if as_json and events:
        for event in events:
            sys.stdout.write(orjson.dumps(event).decode() + "\n")
        return
    for event in events:
        sys.stdout.write(
            f"{event['position']:>8}  {event['occurredAt']}  {event['type']:<24} "
            f"{_summary(event)}  by {event['actor']}, leaf {event['leafHash'][:12]}\n"
        )
    thread = _thread(server, stream if ":" in stream else asset_stream(stream))
    if not events and (as_json or not thread):
        raise NotFound(
            "stream.unknown",
            f"no event is recorded on {' or '.join(streams)}",
            hint="`assets` in GraphQL lists what is known",
            value=stream,
        )
    for line in thread:
        sys.stdout.write(line + "\n")


def _thread(server: str, key: str) -> list[str]:
    """Return what the thread knows of `key`, as lines; none where it knows nothing."""
    try:
        known = query(server, THREAD, {"roots": [key]})
    except HeddleError as error:
        if error.code == "thread.unknown_node":
            return []
        raise
    back, recall = known["trace"], known["recall"]
    causes = Counter(back["nodeColumns"]["kinds"])
    more = " and more" if back["cut"] else ""
    came_from = ", ".join(f"{count:,} {_words(kind)}" for kind, count in sorted(causes.items()))
    reached: dict[str, list[str]] = {}
    for each in recall["counts"]:
        told = f"{each['count']:,} {_words(each['state'])}"
        reached.setdefault(each["kind"], []).append(told)
    return [
        "",
        f"{key} as the thread knows it at position {recall['position']:,}, itself counted:",
        f"  came from  {came_from}{more}",
        f"  reached    {recall['total']:,} things" + (" and more" if recall["cut"] else ""),
        *(
            f"             {_words(kind)}: {', '.join(states)}"
            for kind, states in sorted(reached.items())
        ),
    ]


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


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
        f"{name} {value}"
        for name, value in event["fact"].items()
        if not name.endswith("_id") and value not in (None, [])
    )
