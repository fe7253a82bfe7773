"""Carries out what set-point directives say, inside what this site declares, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from domain.directives import SetpointDirective
from domain.errors import HeddleError
from edge_agent.live import Connection, ConnectionLost
from edge_agent.outbox import Outbox
from edge_agent.setpoints import reports
from edge_agent.setpoints.declaration import DeclaredSetpoint
from edge_agent.setpoints.guards import Refusal, Situation, refusal
from edge_agent.setpoints.journal import (
    ADVISED,
    APPLIED,
    REFUSED,
    RETURNED,
    WRITING,
    Journal,
    JournalEntry,
)
from edge_agent.setpoints.latest_values import LatestValues

WRITE_S_MAX: Final = 10.0
UNVERIFIED_REPORT_EVERY_S: Final = 60.0
"""What nobody vouches for is told to the server so often at most, by code; all of it is counted."""
UNCHANGED_CODES: Final = frozenset(
    {"target.unknown", "target.refused", "target.wrong_type", "target.out_of_range"}
)
"""By which a device, or the way to it, says that it stands as it did."""
OUTCOME_UNKNOWN: Final = "setpoint.outcome_unknown"
READ_BACK_DIFFERS: Final = "setpoint.read_back_differs"

_log = logging.getLogger("heddle.edge.setpoints")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write.

    Parameters
    ----------
    value : SI, as the device reads it back; None: nothing was read
    refusal : why it is not what was wanted
    is_unchanged : it is certain that the device stands as it did
    """

    value: float | None
    refusal: Refusal | None
    is_unchanged: bool = False


class SetpointApplier:
    """Judges directives one after the other and writes those that may be carried out.

    Parameters
    ----------
    connections : returns the running connections by name; a reload exchanges them
    kill_switch : while this file is there nothing is written
    now_s, now_ns : the clock that nobody sets, and the wall clock
    """

    def __init__(
        self,
        agent: str,
        outbox: Outbox,
        values: LatestValues,
        connections: Callable[[], Mapping[str, Connection]],
        kill_switch: Path,
        *,
        now_s: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.journal = Journal(outbox)
        self.declared: dict[str, DeclaredSetpoint] = {}
        self._agent = agent
        self._values = values
        self._connections = connections
        self._kill_switch = kill_switch
        self._now_s = now_s
        self._now_ns = now_ns
        self._written_s: dict[str, float] = {}
        self._reported_s: dict[str, float] = {}
        self._turn = asyncio.Lock()

    def declare(self, declared: tuple[DeclaredSetpoint, ...]) -> None:
        """Let the set-points `declared`, and no others, be set from now on."""
        self.declared = {one.subject: one for one in declared}
        watched = frozenset[tuple[str, str]]().union(*(one.watched for one in declared))
        self._values.watch(watched)

    @property
    def writing_stopped(self) -> bool:
        """Whether somebody on site has stopped all writing."""
        return self._kill_switch.exists()

    @property
    def is_informed(self) -> bool:
        """Whether every channel was heard of on which a set-point depends."""
        return all(
            self._values.age_s(asset, channel) is not None
            for declared in self.declared.values()
            for asset, channel in declared.watched
        )

    def recover(self) -> None:
        """Tell of what was being written when the agent was killed; it is never written again."""
        for number, entry in self.journal.unsettled():
            told = Refusal(OUTCOME_UNKNOWN, "the agent ended while it was being written")
            _log.error("%s: what was being written at the end is not known", entry.subject)
            asset, _, setpoint = entry.subject.partition("/")
            settled = replace(
                entry, outcome=APPLIED, code=told.code, reason=told.reason, at_ns=self._now_ns()
            )
            directive = _remembered(self._agent, entry, asset, setpoint)
            self.journal.settle(number, settled, reports.declined(self._agent, directive, told))

    # --- directives -----------------------------------------------------------------------

    async def handle(self, directive: SetpointDirective) -> JournalEntry:
        """Carry `directive` out or refuse it; return what it came to, once that is on disk.

        Raises
        ------
        Unavailable
            ``outbox.disk_full``: nothing was written, because nothing could be remembered
        """
        async with self._turn:
            declared = self.declared.get(f"{directive.asset_id}/{directive.setpoint}")
            refused = refusal(directive, declared, self._situation(declared))
            if refused is not None:
                return self._refuse(directive, declared, refused)
            assert declared is not None, "what is not declared is refused"
            if not declared.closed_loop:
                return self._advise(directive, declared)
            return await self._apply(directive, declared)

    def refuse_unverified(self, claimed: SetpointDirective | None, refused: Refusal) -> None:
        """Note a message that nobody vouches for; `claimed` is what it says it is."""
        declared = None
        if claimed is not None:
            declared = self.declared.get(f"{claimed.asset_id}/{claimed.setpoint}")
        _log.error("a directive is refused: %s: %s", refused.code, refused.reason)
        entry = JournalEntry(
            None,
            "" if declared is None else declared.subject,
            REFUSED,
            refused.code,
            refused.reason,
            None,
            self._now_ns(),
        )
        reported_s = self._reported_s.get(refused.code)
        if (
            claimed is None
            or declared is None
            or (reported_s is not None and self._now_s() - reported_s < UNVERIFIED_REPORT_EVERY_S)
        ):
            self.journal.note(entry)
            return
        self._reported_s[refused.code] = self._now_s()
        # Its position and proposal are only claimed: the report speaks of the set-point alone.
        told = replace(claimed, position=self._now_ns(), proposal_id=None)
        self.journal.note(entry, reports.declined(self._agent, told, refused))

    def _situation(self, declared: DeclaredSetpoint | None) -> Situation:
        now_ns = self._now_ns()
        return Situation(
            agent=self._agent,
            now=datetime.fromtimestamp(now_ns / 1e9, UTC),
            handled_position=self.journal.handled_position,
            since_write_s=None if declared is None else self._since_write_s(declared.subject),
            writing_stopped=self.writing_stopped,
            values=self._values,
        )

    def _since_write_s(self, subject: str) -> float | None:
        """Return how long ago `subject` was written: by our own clock, or as the journal knows."""
        if subject in self._written_s:
            return self._now_s() - self._written_s[subject]
        last = self.journal.last_write(subject)
        return None if last is None else max(0.0, (self._now_ns() - last.at_ns) / 1e9)

    def _refuse(
        self, directive: SetpointDirective, declared: DeclaredSetpoint | None, refused: Refusal
    ) -> JournalEntry:
        _log.warning(
            "%s/%s at %s is refused: %s: %s",
            directive.asset_id,
            directive.setpoint,
            directive.value,
            refused.code,
            refused.reason,
        )
        entry = self._entry(directive, REFUSED, refused, directive.value)
        # Of a set-point that is not ours, or for another agent, ours is not to report.
        ours = declared is not None and directive.agent == self._agent
        told = reports.declined(self._agent, directive, refused) if ours else []
        self.journal.note(entry, told)
        return entry

    def _advise(self, directive: SetpointDirective, declared: DeclaredSetpoint) -> JournalEntry:
        advice = Refusal(
            reports.ADVISORY,
            f"{declared.unit.from_si(directive.value):g} {declared.unit.symbol} would be written "
            f"to {declared.target.address}; this set-point is declared advisory",
        )
        entry = self._entry(directive, ADVISED, advice, directive.value)
        self.journal.note(entry, reports.declined(self._agent, directive, advice))
        return entry

    async def _apply(
        self, directive: SetpointDirective, declared: DeclaredSetpoint
    ) -> JournalEntry:
        begun = self._entry(directive, WRITING, None, directive.value)
        number = self.journal.note(begun)
        written = await self._write(declared, directive.value)
        if written.refusal is None:
            assert written.value is not None, "a device that took it reads it back"
            entry = self._entry(directive, APPLIED, None, written.value)
            told = reports.applied(self._agent, directive, written.value)
            _log.info("%s is set: %s", declared.subject, written.value)
        else:
            # What may have been written counts as written: the watchdog has to look after it.
            outcome = REFUSED if written.is_unchanged else APPLIED
            entry = self._entry(directive, outcome, written.refusal, written.value)
            told = reports.declined(self._agent, directive, written.refusal)
            if written.value is not None:
                told += reports.applied(
                    self._agent, replace(directive, proposal_id=None), written.value
                )
            _log.error("%s is not set: %s", declared.subject, written.refusal.reason)
        self.journal.settle(number, entry, told)
        return entry

    def _entry(
        self,
        directive: SetpointDirective,
        outcome: str,
        told: Refusal | None,
        value: float | None,
    ) -> JournalEntry:
        ours = directive.agent == self._agent
        return JournalEntry(
            directive.position if ours else None,
            f"{directive.asset_id}/{directive.setpoint}",
            outcome,
            "" if told is None else told.code,
            "" if told is None else told.reason,
            value,
            self._now_ns(),
        )

    # --- the device -----------------------------------------------------------------------

    async def return_to_safety(self, declared: DeclaredSetpoint, why: Refusal) -> bool:
        """Write the safe value of `declared`, which has one; return whether the device has it."""
        assert declared.safe is not None, "only what has a safe value returns to it"
        async with self._turn:
            if self.writing_stopped:
                return False
            entry = JournalEntry(
                None,
                declared.subject,
                WRITING,
                why.code,
                why.reason,
                declared.safe.value,
                self._now_ns(),
            )
            number = self.journal.note(entry)
            written = await self._write(declared, declared.safe.value)
            held = written.refusal is None and written.value is not None
            if held:
                assert written.value is not None, "it was just asked"
                settled = replace(entry, outcome=RETURNED, value=written.value)
                told = reports.returned(self._agent, declared, written.value, why, entry.at_ns)
                _log.warning("%s is back at its safe value: %s", declared.subject, why.reason)
            else:
                told = []
                settled = replace(
                    entry,
                    outcome=REFUSED if written.is_unchanged else APPLIED,
                    value=written.value,
                )
            self.journal.settle(number, settled, told)
            return held

    async def _write(self, declared: DeclaredSetpoint, value: float) -> Written:
        """Write `value`, SI, and return what is read back, or why that is not it."""
        connection = self._connections().get(declared.connection)
        if connection is None:
            told = f"connection {declared.connection!r} does not run"
            return Written(None, Refusal("connection.down", told), is_unchanged=True)
        if self.writing_stopped:  # somebody may have done so since it was judged
            told = "somebody on site has stopped all writing"
            return Written(None, Refusal("writing.stopped", told), is_unchanged=True)
        self._written_s[declared.subject] = self._now_s()
        try:
            async with asyncio.timeout(WRITE_S_MAX):
                read = await connection.write(declared.target, declared.unit.from_si(value))
        except TimeoutError:
            told = f"no answer within {WRITE_S_MAX:g} s; what the device did is not known"
            return Written(None, Refusal(OUTCOME_UNKNOWN, told))
        except ConnectionLost as error:
            return Written(None, Refusal(error.code, error.message))
        except HeddleError as error:
            unchanged = error.code in UNCHANGED_CODES
            return Written(None, Refusal(error.code, error.message), is_unchanged=unchanged)
        read_si = declared.unit.to_si(read)
        if not abs(read_si - value) <= declared.tolerance:
            told = f"{value} was written and {read_si} is read back"
            return Written(read_si, Refusal(READ_BACK_DIFFERS, told))
        return Written(read_si, None)


def _remembered(agent: str, entry: JournalEntry, asset: str, setpoint: str) -> SetpointDirective:
    """Return what of a directive the journal remembers, for a report."""
    moment = datetime.fromtimestamp(entry.at_ns / 1e9, UTC)
    return SetpointDirective(
        ledger="",
        position=entry.at_ns if entry.position is None else entry.position,
        agent=agent,
        issued_at=moment,
        expires_at=moment,
        asset_id=asset,
        setpoint=setpoint,
        value=entry.value or 0.0,
        proposal_id=None,
        proposed_by=None,
        approved_by="",
    )
