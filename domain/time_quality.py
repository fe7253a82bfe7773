"""How far the times of a frame can be trusted: which clock told them, and what is known of it.

Part of a frame's header, and so of its hash; `docs/frame-format.md` is the reference. What a
reading's own quality says of its time (UNCERTAIN where it is doubtful) stays with the reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from domain.errors import MalformedFrame

DEVICE: Final = "device"
SERVER: Final = "server"
AGENT: Final = "agent"
RECORDING: Final = "recording"
MIXED: Final = "mixed"
TIME_SOURCES: Final = (DEVICE, SERVER, AGENT, RECORDING, MIXED)
"""The device itself; the server, gateway or broker in between; the agent, when it asked or a
message arrived; a recording or a simulation, however old; several of these in one frame.
"""

OFFSET_NS_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TimeQuality:
    """Where the times of a frame come from.

    Parameters
    ----------
    source : one of `TIME_SOURCES`
    synchronized : whether the agent's operating system kept its clock on a reference; None where
        it cannot tell
    offset_ns : how far the clock of a device or a server was from the agent's at most, ns, the
        time on the way included; None where it cannot be told
    stepped : whether the agent's clock was set while the frame's window was open
    """

    source: str
    synchronized: bool | None = None
    offset_ns: int | None = None
    stepped: bool = False

    def members(self) -> dict[str, Any]:
        """Return it as the member ``time`` of a header, which leaves out what is not known."""
        members: dict[str, Any] = {"source": self.source}
        if self.offset_ns is not None:
            members["offset_ns"] = self.offset_ns
        if self.stepped:
            members["stepped"] = self.stepped
        if self.synchronized is not None:
            members["synchronized"] = self.synchronized
        return members


def time_quality_of(members: Mapping[str, Any]) -> TimeQuality:
    """Return what `members` of a header say, unchecked; a header that says more is not canonical.

    Raises
    ------
    KeyError, TypeError, AttributeError
        when it is no object with a source
    """
    return TimeQuality(
        source=members["source"],
        synchronized=members.get("synchronized"),
        offset_ns=members.get("offset_ns"),
        stepped=members.get("stepped", False),
    )


def check_time_quality(time: TimeQuality) -> None:
    """Raise ``frame.time_quality`` unless `time` is sound in itself."""
    if not isinstance(time.source, str) or time.source not in TIME_SOURCES:
        raise _unsound(
            f"the times come from the unknown source {time.source!r:.80}",
            f"one of: {', '.join(TIME_SOURCES)}",
            value=str(time.source)[:80],
        )
    if type(time.stepped) is not bool or not (
        time.synchronized is None or type(time.synchronized) is bool
    ):
        raise _unsound("stepped and synchronized are true or false")
    offset_ns = time.offset_ns
    if offset_ns is None:
        pass
    elif type(offset_ns) is not int or not 0 <= offset_ns <= OFFSET_NS_MAX:
        raise _unsound(
            f"the offset {offset_ns!r:.80} is no whole number of ns from 0 to {OFFSET_NS_MAX}",
            limit=OFFSET_NS_MAX,
        )
    elif time.source == AGENT:
        raise _unsound("the agent's clock has no offset to itself", value=offset_ns)
    if time.source == RECORDING and time != TimeQuality(RECORDING):
        raise _unsound("a recording's times say nothing of the agent's clock")


def _unsound(told: str, hint: str = "", **found: Any) -> MalformedFrame:
    return MalformedFrame("frame.time_quality", told, hint=hint, **found)
