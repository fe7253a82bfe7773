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
