"""Instruments: what is measured with, and until when it may be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, assert_never, get_args

from domain.deciders import Decider
from domain.documents.document import check_revision_name
from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import event_type, format_time
from domain.identifiers import check_identifier
from domain.texts import TITLE_LENGTH_MAX, check_note, check_text
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def instrument_stream(instrument_id: str) -> str:
    """Return the stream of an instrument."""
    return f"instrument:{instrument_id}"


# --- events -------------------------------------------------------------------------------


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
    """An instrument was calibrated, and may be trusted until `valid_until`.

    `calibrated_at` is when, as its certificate says: the event's `occurred_at`.
    """

    instrument_id: str
    calibrated_at: datetime
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
    """An instrument is not used any more, from `retired_at` on: the event's `occurred_at`."""

    instrument_id: str
    retired_at: datetime
    reason: str

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return how it stands."""
        return (Standing(instrument_stream(self.instrument_id), NodeState.RETIRED),)


InstrumentEvent = InstrumentRegistered | InstrumentCalibrated | InstrumentRetired


# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class RegisterInstrument:
    """Make an instrument known."""

    instrument_id: str
    title: str


@dataclass(frozen=True)
class CalibrateInstrument:
    """Say that an instrument was calibrated; see `InstrumentCalibrated`."""

    instrument_id: str
    calibrated_at: datetime
    valid_until: datetime
    certificate: str | None = None


@dataclass(frozen=True)
class RetireInstrument:
    """Say that an instrument is not used any more from `retired_at` on."""

    instrument_id: str
    retired_at: datetime
    reason: str


InstrumentCommand = RegisterInstrument | CalibrateInstrument | RetireInstrument


# --- states -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unregistered:
    """Nobody has named this instrument yet."""


@dataclass(frozen=True)
class Registered:
    """Known, with what it was calibrated for, in the order of valid time."""

    instrument_id: str
    title: str
    calibrations: tuple[InstrumentCalibrated, ...] = ()
    retired_at: datetime | None = None


Instrument = Unregistered | Registered


def calibration_at(instrument: Instrument, at: datetime) -> InstrumentCalibrated | None:
    """Return the calibration that `instrument` had at `at`, or None: it could not be trusted.

    The last one before counts, whenever it became known: a shorter one ends a longer one.
    """
    if isinstance(instrument, Unregistered):
        return None
    if instrument.retired_at is not None and at >= instrument.retired_at:
        return None
    before = [c for c in instrument.calibrations if c.calibrated_at <= at]
    return before[-1] if before and at < before[-1].valid_until else None


# --- decisions ----------------------------------------------------------------------------


def decide(command: InstrumentCommand, instrument: Instrument) -> tuple[InstrumentEvent, ...]:
    """Return the events `command` causes on `instrument`; none when it already is so.

    Raises
    ------
    CommandRejected
        ``instrument.already_registered``, ``instrument.retired``
    NotFound
        ``instrument.unknown``
    InvalidInput
        ``instrument.malformed_name``, ``instrument.validity``, ``event.naive_time``,
        ``text.empty``, ``text.too_long``, and as `check_revision_name`
    """
    if isinstance(command, RegisterInstrument):
        return _register(command, instrument)
    if isinstance(instrument, Unregistered):
        raise unknown_instrument(command.instrument_id)
    match command:
        case CalibrateInstrument():
            return _calibrate(command, instrument)
        case RetireInstrument(retired_at=retired_at, reason=reason):
            format_time(retired_at)
            reason = check_text("reason", reason)
            if instrument.retired_at is not None:
                raise _retired(instrument.instrument_id, instrument.retired_at)
            return (InstrumentRetired(command.instrument_id, retired_at, reason),)
        case _:
            assert_never(command)


def unknown_instrument(instrument_id: str) -> NotFound:
    """Return the error for an instrument that nobody registered."""
    return NotFound(
        "instrument.unknown",
        f"instrument {instrument_id!r} is not registered",
        hint="register it first, or check the name",
        value=instrument_id,
    )


def _register(command: RegisterInstrument, instrument: Instrument) -> tuple[InstrumentEvent, ...]:
    check_identifier("instrument", command.instrument_id)
    title = check_note("title", command.title, TITLE_LENGTH_MAX).strip() or command.instrument_id
    if isinstance(instrument, Registered):
        raise CommandRejected(
            "instrument.already_registered",
            f"instrument {command.instrument_id!r} is registered as {instrument.title!r}",
            hint="choose another name; an instrument is registered once",
            value=command.instrument_id,
        )
    return (InstrumentRegistered(command.instrument_id, title),)


def _calibrate(command: CalibrateInstrument, instrument: Registered) -> tuple[InstrumentEvent, ...]:
    for moment in (command.calibrated_at, command.valid_until):
        format_time(moment)
    if command.valid_until <= command.calibrated_at:
        raise InvalidInput(
            "instrument.validity",
            f"calibrated until {command.valid_until.isoformat()}, which is not after "
            f"{command.calibrated_at.isoformat()}",
            value=command.valid_until.isoformat(),
            limit=command.calibrated_at.isoformat(),
        )
    if command.certificate is not None:
        check_revision_name(command.certificate)
    if instrument.retired_at is not None and command.calibrated_at >= instrument.retired_at:
        raise _retired(command.instrument_id, instrument.retired_at)
    calibrated = InstrumentCalibrated(**vars(command))
    return () if calibrated in instrument.calibrations else (calibrated,)


def _retired(instrument_id: str, retired_at: datetime) -> CommandRejected:
    return CommandRejected(
        "instrument.retired",
        f"instrument {instrument_id!r} is retired since {retired_at.isoformat()}",
        value=instrument_id,
        limit=retired_at.isoformat(),
    )


# --- fold ---------------------------------------------------------------------------------


def evolve(instrument: Instrument, event: InstrumentEvent) -> Instrument:
    """Return what `event` makes of `instrument`."""
    if isinstance(event, InstrumentRegistered):
        return Registered(event.instrument_id, event.title)
    if isinstance(instrument, Unregistered):
        # Its registration was corrected away: what followed has nothing to speak of.
        return instrument
    match event:
        case InstrumentCalibrated():
            calibrations = sorted(
                (*instrument.calibrations, event), key=lambda done: done.calibrated_at
            )
            return replace(instrument, calibrations=tuple(calibrations))
        case InstrumentRetired(retired_at=retired_at):
            return replace(instrument, retired_at=retired_at)
        case _:
            assert_never(event)


def _happened_at(command: InstrumentCommand) -> datetime | None:
    match command:
        case CalibrateInstrument(calibrated_at=calibrated_at):
            return calibrated_at
        case RetireInstrument(retired_at=retired_at):
            return retired_at
        case _:
            return None


DECIDER: Final[Decider[InstrumentCommand, Instrument, InstrumentEvent]] = Decider(
    category="instrument",
    command_types=get_args(InstrumentCommand),
    initial=Unregistered(),
    decide=lambda command, instrument, _others: decide(command, instrument),
    evolve=evolve,
    subject=lambda command: instrument_stream(command.instrument_id),
    stream_of=lambda event: instrument_stream(event.instrument_id),
    happened_at=_happened_at,
)
