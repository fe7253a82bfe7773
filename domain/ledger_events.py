"""What happens to a ledger itself, recorded in its own log."""

from __future__ import annotations

from dataclasses import dataclass

from domain.events import event_type


def ledger_stream(ledger: str) -> str:
    """Return the stream of a ledger's own facts."""
    return f"ledger:{ledger}"


@event_type("ledger.signing_key_rotated")
@dataclass(frozen=True)
class SigningKeyRotated:
    """Checkpoints of `origin` are signed by another key from here on.

    Parameters
    ----------
    previous_vkey, vkey : verifier key strings (C2SP signed-note)
    endorsement : signed note in which the previous key names the new one; None where the
        previous key was lost, so that whoever trusted it has to be told by other means
    reason : why, in words
    """

    ledger: str
    origin: str
    previous_vkey: str
    vkey: str
    endorsement: str | None
    reason: str


@event_type("ledger.history_lost")
@dataclass(frozen=True)
class HistoryLost:
    """Events that were signed under `previous_origin` are gone, and somebody answers for it.

    What is signed from here on is signed as another log, called `origin`: the old one has ended,
    and its last checkpoint is kept here as the evidence of what is missing.

    Parameters
    ----------
    previous_vkey, vkey : verifier key strings (C2SP signed-note)
    endorsement : signed note in which the previous key names its successor
    lost_checkpoint : the last checkpoint of `previous_origin`, verbatim, which this log contradicts
    kept_size : so many events, from the first on, are shown to be those that were signed
    reason : why, in words
    """

    ledger: str
    previous_origin: str
    origin: str
    previous_vkey: str
    vkey: str
    endorsement: str | None
    lost_checkpoint: str
    kept_size: int
    reason: str


@event_type("ledger.payloads_erased")
@dataclass(frozen=True)
class PayloadsErased:
    """The payloads of the events at `positions` are erased: the law, or somebody by it, said so.

    The events themselves, their leaves and every proof stay.

    Parameters
    ----------
    positions : ascending, of this ledger, all before this event's own
    reason : why, in words, without what is being erased
    legal_basis : the provision or decision that demands it, in words; may be empty
    """

    ledger: str
    positions: tuple[int, ...]
    reason: str
    legal_basis: str
