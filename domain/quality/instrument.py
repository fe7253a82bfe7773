"""Instruments: what is measured with, and until when it may be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def instrument_stream(instrument_id: str) -> str:
    """Return the stream of an instrument."""
    return f"instrument:{instrument_id}"


@event_type("instrument.registered")
@dataclass(frozen=True)
class InstrumentRegistered:
    """An instrument became known."""

    instrument_id: str
    title: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return that it exists."""
        return (Standing(instrument_stream(self.instrument_id), NodeState.ACTIVE),)


@event_type("instrument.calibrated")
@dataclass(frozen=True)
class InstrumentCalibrated:
    """An instrument was calibrated, at the event's `occurred_at`, and is good until then."""

    instrument_id: str
    valid_until: datetime
    certificate: str | None

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the certificate."""
        if self.certificate is None:
            return ()
        node = instrument_stream(self.instrument_id)
        return (Link(LinkKind.CERTIFIED, f"document:{self.certificate}", node),)


@event_type("instrument.retired")
@dataclass(frozen=True)
class InstrumentRetired:
    """An instrument is not used any more."""

    instrument_id: str
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(instrument_stream(self.instrument_id), NodeState.RETIRED),)


InstrumentEvent = InstrumentRegistered | InstrumentCalibrated | InstrumentRetired
