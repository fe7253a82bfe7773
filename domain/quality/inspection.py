"""Inspections: what was measured and seen on a part, a lot or a run, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.events import event_type
from domain.thread import Link, LinkKind, NodeState, Standing, ThreadItem


def inspection_stream(inspection_id: str) -> str:
    """Return the stream of an inspection."""
    return f"inspection:{inspection_id}"


class Verdict(StrEnum):
    """What an inspection comes to."""

    GOOD = "GOOD"
    DEFECTIVE = "DEFECTIVE"
    CRITICAL = "CRITICAL"


class Judge(StrEnum):
    """Who gave a verdict."""

    PERSON = "PERSON"
    MODEL = "MODEL"


@dataclass(frozen=True)
class Characteristic:
    """One measured property against its tolerance, all in `unit`; a None limit is open."""

    name: str
    nominal: float | None
    lower_limit: float | None
    upper_limit: float | None
    measured: float
    unit: str
    instrument_id: str | None


@dataclass(frozen=True)
class Image:
    """A picture by the hex SHA-256 of its content."""

    sha256: str
    media_type: str


@event_type("inspection.recorded")
@dataclass(frozen=True)
class InspectionRecorded:
    """Somebody or something looked at `subject` (a stream: part, lot or process run).

    Parameters
    ----------
    plan : revision of the inspection plan's document, or None
    judge, model : who gave the verdict; ``model`` is ``MODEL-ID@VERSION`` for Judge.MODEL
    flags : what was not as it should be and recorded all the same, by its code, such as
        ``inspection.instrument_uncalibrated``
    """

    inspection_id: str
    subject: str
    run_id: str | None
    plan: str | None
    characteristics: tuple[Characteristic, ...]
    images: tuple[Image, ...]
    defect_codes: tuple[str, ...]
    verdict: Verdict
    judge: Judge
    model: str | None
    flags: tuple[str, ...]

    def thread(self) -> tuple[ThreadItem, ...]:
        """Return the inspection of its subject, and what it was made with."""
        node = inspection_stream(self.inspection_id)
        items: list[ThreadItem] = [
            Link(LinkKind.INSPECTED_BY, self.subject, node),
            Standing(node, NodeState[self.verdict.name]),
        ]
        if self.run_id is not None:
            items.append(Link(LinkKind.INSPECTED_BY, f"process-run:{self.run_id}", node))
        if self.plan is not None:
            items.append(Link(LinkKind.SPECIFIED, f"document:{self.plan}", node))
        if self.model is not None:
            items.append(Link(LinkKind.PREDICTED, f"model:{self.model}", node))
        instruments = {c.instrument_id for c in self.characteristics if c.instrument_id is not None}
        items += [
            Link(LinkKind.MEASURED_WITH, f"instrument:{name}", node) for name in sorted(instruments)
        ]
        return tuple(items)


InspectionEvent = InspectionRecorded
