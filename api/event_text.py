"""An event as text: one line for people, one JSON document for programs."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
import typer

from domain.errors import InvalidInput
from domain.events import format_time
from domain.frame_statistics import channel_names, time_quality
from domain.frames import time_from_ns
from eventlog.envelope import FrameWindow, PayloadTier, RecordedEvent

POSITION_WIDTH: Final = 8
TYPE_WIDTH: Final = 26
STREAM_WIDTH: Final = 28
CHANNELS_NAMED_MAX: Final = 4

COLOURS: Final[Mapping[str, str]] = {
    "position": typer.colors.YELLOW,
    "time": typer.colors.BRIGHT_BLACK,
    "type": typer.colors.CYAN,
    "stream": typer.colors.GREEN,
    "actor": typer.colors.BRIGHT_BLACK,
}


def document_of(event: RecordedEvent, *, with_payload: bool = False) -> dict[str, Any]:
    """Return `event` as a JSON document: its envelope, and its fact or a frame's outline.

    Parameters
    ----------
    with_payload : add the payload's bytes, base64
    """
    document = {
        "ledger": event.ledger,
        "position": event.position,
        "stream": event.stream,
        "version": event.version,
        "type": event.type,
        "schema_version": event.schema_version,
        "event_id": str(event.event_id),
        "occurred_at": format_time(event.occurred_at),
        "recorded_at": format_time(event.recorded_at),
        "actor": event.actor,
        "correlation_id": _text(event.correlation_id),
        "causation_id": _text(event.causation_id),
        "traceparent": event.traceparent,
        "source": event.source,
        "sequence": event.sequence,
        "payload_sha256": event.payload_sha256.hex(),
        "leaf_hash": event.leaf_hash.hex(),
        "payload_tier": PayloadTier(event.payload_tier).name.lower(),
        "fact": None,
        "frame": None,
    }
    if event.window is not None:
        document["frame"] = _outline(event.window)
    elif event.payload is not None:
        document["fact"] = orjson.loads(event.payload)
    if with_payload:
        payload = event.payload
        document["payload"] = None if payload is None else base64.b64encode(payload).decode()
    return document


def _outline(window: FrameWindow) -> dict[str, Any]:
    return {
        "window_start": format_time(time_from_ns(window.start_ns)),
        "window_end": format_time(time_from_ns(window.end_ns)),
        "reading_count": window.reading_count,
        "channels": _channels(window),
        "time": _time(window),
    }


def _channels(window: FrameWindow) -> list[str] | None:
    """Return the names of a frame's channels; None once they were erased, or are unreadable."""
    if not window.statistics:
        return None
    try:
        names = channel_names(window.statistics)
    except (InvalidInput, ValueError, struct.error):
        return None  # to show a damaged row is the purpose; `heddle verify` names the damage
    return list(names)


def _time(window: FrameWindow) -> dict[str, Any] | None:
    """Return how far a frame's times can be trusted; None where nobody can tell any more."""
    if not window.statistics:
        return None
    try:
        time = time_quality(window.statistics)
    except (InvalidInput, ValueError, struct.error):
        return None  # as of the channels
    return None if time is None else time.members()


def _text(identifier: object) -> str | None:
    return None if identifier is None else str(identifier)


# --- for people ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lines:
    """How lines for people are written.

    Parameters
    ----------
    coloured : with the colour codes of a terminal
    width : cut lines to so many characters; None does not cut
    """

    coloured: bool = False
    width: int | None = None

    def of(self, event: RecordedEvent) -> str:
        """Return the line that shows `event`."""
        head = (
            ("position", f"{event.position:>{POSITION_WIDTH}}"),
            ("time", _moment(event.recorded_at)),
            ("type", f"{event.type:<{TYPE_WIDTH}}"),
            ("stream", f"{f'{event.stream}@{event.version}':<{STREAM_WIDTH}}"),
        )
        said = _printable(f"{summary_of(event)}  by {event.actor}")
        if self.width is not None:
            room = self.width - sum(len(text) + 2 for _, text in head)
            said = said if len(said) <= room else said[: max(0, room - 1)] + "…"
        return "  ".join([*(self._coloured(what, text) for what, text in head), said])

    def _coloured(self, what: str, text: str) -> str:
        return typer.style(text, fg=COLOURS[what]) if self.coloured else text


def summary_of(event: RecordedEvent) -> str:
    """Return what `event` says, short: a fact's JSON, or a frame's window and counts."""
    window = event.window
    if window is None:
        return (
            f"({_tier(event)})" if event.payload is None else event.payload.decode(errors="replace")
        )
    names = _channels(window)
    if names is None:
        channels = "channels erased" if event.erased else "channels unreadable"
    else:
        more = ", …" if len(names) > CHANNELS_NAMED_MAX else ""
        noun = "channel" if len(names) == 1 else "channels"
        channels = f"{len(names)} {noun} ({', '.join(names[:CHANNELS_NAMED_MAX])}{more})"
    span_s = (window.end_ns - window.start_ns) / 1e9
    stored = "" if event.payload_tier == PayloadTier.ROW else f", {_tier(event)}"
    return (
        f"{window.reading_count} readings of {channels} over {span_s:g} s "
        f"from {_moment(time_from_ns(window.start_ns))}{stored}"
    )


def _tier(event: RecordedEvent) -> str:
    if event.payload_tier == PayloadTier.ROW:
        return "not read"
    return "archived" if event.payload_tier == PayloadTier.ARCHIVE else "erased"


def _moment(time: datetime) -> str:
    return format_time(time)[:-4].replace("T", " ") + "Z"  # to the millisecond


def _printable(text: str) -> str:
    """Return `text` without what could move a terminal's cursor or change its colours."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
