"""Which registers are asked for together, and when.

Pure but for the clock it is given. Registers of one period that lie near each other are read by
one request, gaps included; a device that refuses such a request is asked for its parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.modbus.registers import Field, Table

REGISTERS_MAX: Final = 125
BITS_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A channel of a source: where it lies and how often it is asked for."""

    channel: int
    field: Field
    period_s: float


@dataclass(frozen=True)
class Group:
    """Neighbouring fields that one request reads.

    Parameters
    ----------
    start, count : the addresses of the request
    """

    device_id: int
    table: Table
    period_s: float
    start: int
    count: int
    members: tuple[Asked, ...]

    def halves(self) -> tuple[Group, ...]:
        """Return the group as two, each without what lies beyond it; a single one as itself."""
        if len(self.members) == 1:
            return (self,)
        middle = len(self.members) // 2
        return (
            _group(self.device_id, self.members[:middle]),
            _group(self.device_id, self.members[middle:]),
        )


def groups_of(device_id: int, asked: Sequence[Asked], gap_max: int) -> list[Group]:
    """Return the groups in which `asked` is read.

    Parameters
    ----------
    gap_max : addresses that nobody wants and that are read to save a request
    """
    found: list[Group] = []
    kinds = sorted({(one.field.table, one.period_s) for one in asked})
    for table, period_s in kinds:
        alike = [one for one in asked if (one.field.table, one.period_s) == (table, period_s)]
        alike.sort(key=lambda one: (one.field.address, one.field.size))
        most = BITS_MAX if table.has_bits else REGISTERS_MAX
        members: list[Asked] = []
        end = 0
        for one in alike:
            field = one.field
            next_end = max(end, field.address + field.size)
            if members and (
                field.address > end + gap_max or next_end - members[0].field.address > most
            ):
                found.append(_group(device_id, members))
                members, next_end = [], field.address + field.size
            members.append(one)
            end = next_end
        found.append(_group(device_id, members))
    return found


def _group(device_id: int, members: Sequence[Asked]) -> Group:
    start = members[0].field.address
    end = max(one.field.address + one.field.size for one in members)
    first = members[0]
    return Group(device_id, first.field.table, first.period_s, start, end - start, tuple(members))


@dataclass
class Schedule:
    """When something is due that is due again and again."""

    period_s: float
    due_s: float

    def done(self, now_s: float) -> int:
        """Move on to the next moment after `now_s`; return how many were missed."""
        missed = max(0, math.floor((now_s - self.due_s) / self.period_s))
        self.due_s += (missed + 1) * self.period_s
        return missed
