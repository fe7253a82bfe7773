"""Whether a set-point may be set now: every reason why not, each with a stable code.

Pure. What is not known counts as unsafe: a channel that nobody has heard of lately holds its
interlock open.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from domain.directives import SetpointDirective
from edge_agent.setpoints.declaration import DeclaredSetpoint, Interlock
from edge_agent.setpoints.latest_values import LatestValues

CLOCK_AHEAD_MAX: Final = timedelta(seconds=60)
"""By so much the server's clock may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a directive is not carried out."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known when a directive is judged.

    Parameters
    ----------
    handled_position : of the last directive that was dealt with; none up to there is again
    since_write_s : since the set-point was last written; None: never
    """

    agent: str
    now: datetime
    handled_position: int
    since_write_s: float | None
    writing_stopped: bool
    values: LatestValues


def refusal(
    directive: SetpointDirective, declared: DeclaredSetpoint | None, situation: Situation
) -> Refusal | None:
    """Return why `directive` is not carried out, or None: it may be.

    Parameters
    ----------
    declared : the set-point that it names, None where this site declares none
    """
    return (
        _not_ours(directive, declared, situation)
        or _not_now(directive, situation)
        or (None if declared is None else _not_safe(directive, declared, situation))
    )


def _not_ours(
    directive: SetpointDirective, declared: DeclaredSetpoint | None, situation: Situation
) -> Refusal | None:
    if directive.agent != situation.agent:
        return Refusal(
            "directive.foreign_agent", f"it is for agent {directive.agent!r}, not for this one"
        )
    if directive.position <= situation.handled_position:
        return Refusal(
            "directive.replayed",
            f"position {directive.position} was dealt with; the last was "
            f"{situation.handled_position}",
        )
    if declared is None:
        return Refusal(
            "directive.foreign_asset",
            f"{directive.asset_id}/{directive.setpoint} is not declared here",
        )
    return None


def _not_now(directive: SetpointDirective, situation: Situation) -> Refusal | None:
    if directive.issued_at > situation.now + CLOCK_AHEAD_MAX:
        return Refusal(
            "directive.in_future",
            f"it was issued at {directive.issued_at.isoformat()}, and it is "
            f"{situation.now.isoformat()} here: a clock is wrong",
        )
    if situation.now >= directive.expires_at:
        return Refusal("directive.expired", f"it ended at {directive.expires_at.isoformat()}")
    return None


def _not_safe(
    directive: SetpointDirective, declared: DeclaredSetpoint, situation: Situation
) -> Refusal | None:
    age_s = (situation.now - directive.issued_at).total_seconds()
    if age_s > declared.age_s_max:
        return Refusal(
            "directive.stale",
            f"it was issued {age_s:.0f} s ago, more than {declared.age_s_max:g} s",
        )
    if not declared.least <= directive.value <= declared.most:  # so that NaN fails too
        return Refusal(
            "setpoint.out_of_bounds",
            f"{directive.value} is not between {declared.least} and {declared.most} "
            f"{declared.described.si_unit}",
        )
    if declared.two_person and (
        directive.proposed_by is None or directive.proposed_by == directive.approved_by
    ):
        return Refusal(
            "setpoint.one_person",
            f"it takes two persons, and {directive.approved_by} alone decided",
        )
    return (
        next((open_ for lock in declared.interlocks if (open_ := _open(lock, situation))), None)
        or _too_fast(directive.value, declared, situation)
        or _stopped(situation)
    )


def _open(lock: Interlock, situation: Situation) -> Refusal | None:
    value = situation.values.good_value(lock.asset, lock.channel, lock.age_s_max)
    if value is None:
        return Refusal(
            "interlock.unknown",
            f"no good value of {lock.asset}/{lock.channel} is younger than {lock.age_s_max:g} s",
        )
    if not lock.least <= value <= lock.most:
        return Refusal(
            "interlock.open",
            f"{lock.asset}/{lock.channel} is {value}, not between {lock.least} and {lock.most}",
        )
    return None


def _too_fast(value: float, declared: DeclaredSetpoint, situation: Situation) -> Refusal | None:
    rate = declared.rate
    if rate is None:
        return None
    if situation.since_write_s is not None and situation.since_write_s < rate.every_s:
        return Refusal(
            "setpoint.too_fast",
            f"it was set {situation.since_write_s:.1f} s ago, less than {rate.every_s:g} s",
        )
    stands = situation.values.good_value(declared.asset, rate.feedback, rate.age_s_max)
    if stands is None:
        return Refusal(
            "interlock.unknown",
            f"nobody knows where {declared.asset}/{rate.feedback} stands, so not how far it goes",
        )
    if abs(value - stands) > rate.change_max:
        return Refusal(
            "setpoint.too_fast",
            f"from {stands} to {value} is further than {rate.change_max} at once",
        )
    return None


def _stopped(situation: Situation) -> Refusal | None:
    if situation.writing_stopped:
        return Refusal("writing.stopped", "somebody on site has stopped all writing")
    return None
