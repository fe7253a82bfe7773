"""Which predictions and alerts open a work order, how urgent it is, and when it is to be done.

Rules are data: a `MaintenancePolicy` an asset type, and one for all others. What follows from
them is decided here, without a clock; `projections.maintenance.policy` feeds it the log.

A work order is opened where the evidence goes beyond the opening limit. The same source opens no
other one for the same failure mode before its evidence has fallen back beyond the lower limit
(hysteresis), and nobody opens one while there is one for the same asset and failure mode. An
alert needs no lower limit: its own rule raises it again only after it cleared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import Final, assert_never

from domain.asset import AlertRaised
from domain.asset_model import Severity
from domain.maintenance.work_order import Finding, Priority, WorkOrderCompleted
from domain.opinions.prediction import FailurePredicted, Outcome, RemainingLifePredicted
from domain.texts import TITLE_LENGTH_MAX

HOUR_S: Final = 3600.0
DAY_S: Final = 24 * HOUR_S
CRITICAL_S: Final = 48 * HOUR_S
WARNING_S: Final = 168 * HOUR_S

LATE_S_MAX: Final = WARNING_S
"""What becomes known later than this after it was true is history: nothing follows from it."""

Evidence = FailurePredicted | RemainingLifePredicted | AlertRaised
"""What may open a work order."""

ALERTS: Final = "alerts"
"""The source of alerts; a prediction's source is its model, whatever the version."""


class Urgency(StrEnum):
    """How soon a failure is expected: in less than 48 h, in less than 168 h, or later."""

    CRITICAL = "CRITICAL"
    WARNING = "WARNING"
    NORMAL = "NORMAL"


PRIORITY_OF: Final[Mapping[Urgency, Priority]] = {
    Urgency.CRITICAL: Priority.EMERGENCY,
    Urgency.WARNING: Priority.HIGH,
    Urgency.NORMAL: Priority.NORMAL,
}


def urgency(within_s: float) -> Urgency:
    """Return how urgent a failure is that is expected within `within_s`."""
    if within_s < CRITICAL_S:
        return Urgency.CRITICAL
    return Urgency.WARNING if within_s < WARNING_S else Urgency.NORMAL


# --- what is declared ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceWindow:
    """A time of every week at which an asset may stand still.

    Parameters
    ----------
    weekday : 0 is Monday
    start : UTC
    """

    weekday: int
    start: time
    duration_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.weekday <= 6 or self.start.tzinfo is not None or self.duration_s <= 0:
            raise ValueError(f"{self} is no maintenance window")

    def next_start(self, not_before: datetime) -> datetime:
        """Return the first start at `not_before` (UTC) or later."""
        days = (self.weekday - not_before.weekday()) % 7
        day = not_before.date() + timedelta(days=days)
        start = datetime.combine(day, self.start, tzinfo=not_before.tzinfo)
        return start if start >= not_before else start + timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenancePolicy:
    """When work orders are opened for assets of a type.

    Parameters
    ----------
    open_probability, rearm_probability : of a failure within the prediction's horizon: from the
        first on it opens, below the second it may open again
    open_remaining_s, rearm_remaining_s : of the lower end of the remaining life's interval, s: up
        to the first it opens, beyond the second it may open again
    alert_within_s : within which time, s, a failure is expected after an alert of a severity;
        one that is not named opens nothing
    failure_modes : the failure mode of an alert rule; of others it bears the rule's name
    windows : when work is proposed; without any, it is left to people
    notice_s : how long work has to be prepared: no earlier window is proposed
    """

    open_probability: float = 0.8
    rearm_probability: float = 0.5
    open_remaining_s: float = WARNING_S
    rearm_remaining_s: float = 2 * WARNING_S
    alert_within_s: Mapping[Severity, float] = field(
        default_factory=lambda: MappingProxyType({Severity.CRITICAL: 0.0})
    )
    failure_modes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    windows: tuple[MaintenanceWindow, ...] = ()
    notice_s: float = 8 * HOUR_S

    def __post_init__(self) -> None:
        if not 0 <= self.rearm_probability < self.open_probability <= 1:
            raise ValueError("a probability re-arms below the one that opens")
        if not 0 <= self.open_remaining_s < self.rearm_remaining_s:
            raise ValueError("a remaining life re-arms beyond the one that opens")


DEFAULT: Final = MaintenancePolicy()
"""For asset types that declare none. Its limits are assumptions, and no result of a study."""

POLICIES: Final[Mapping[str, MaintenancePolicy]] = {
    "skab-pump-loop": MaintenancePolicy(
        # Both rules see the same: a valve that closes.
        failure_modes={"flow_low": "flow_blocked", "flow_restricted": "flow_blocked"},
        windows=(MaintenanceWindow(weekday=5, start=time(6), duration_s=6 * HOUR_S),),
    ),
}
"""By asset type."""


def policy_of(asset_type: str | None) -> MaintenancePolicy:
    """Return the policy for assets of a type."""
    return DEFAULT if asset_type is None else POLICIES.get(asset_type, DEFAULT)


# --- decisions ----------------------------------------------------------------------------


class _Level(Enum):
    """Where evidence lies between the two limits."""

    OPENS = auto()
    BETWEEN = auto()
    REARMS = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """`opens` a work order or not; `armed`: the source may open one next time."""

    opens: bool
    armed: bool


def is_history(occurred_at: datetime, recorded_at: datetime) -> bool:
    """Return whether something became known so late that whoever told it tells what followed."""
    return (recorded_at - occurred_at).total_seconds() > LATE_S_MAX


def source_of(evidence: Evidence) -> str:
    """Return who says so: `ALERTS`, or a model whatever its version."""
    match evidence:
        case AlertRaised():
            return ALERTS
        case FailurePredicted(model=model) | RemainingLifePredicted(model=model):
            return model.partition("@")[0]
        case _:
            assert_never(evidence)


def failure_mode_of(policy: MaintenancePolicy, evidence: Evidence) -> str:
    """Return the failure mode that `evidence` speaks of."""
    if isinstance(evidence, AlertRaised):
        return policy.failure_modes.get(evidence.rule, evidence.rule)
    return evidence.failure_mode


def judge(
    policy: MaintenancePolicy, evidence: Evidence, *, armed: bool, order_open: bool
) -> Verdict:
    """Return what follows from `evidence`.

    Parameters
    ----------
    armed : its source has not opened an order, or has fallen back since
    order_open : there is one for this asset and failure mode that has not ended
    """
    match _level(policy, evidence):
        case _Level.OPENS:
            # What an open order deals with is dealt with: its end is no reason for another one.
            is_alert = isinstance(evidence, AlertRaised)
            return Verdict(opens=armed and not order_open, armed=is_alert)
        case _Level.BETWEEN:
            return Verdict(opens=False, armed=armed)
        case _Level.REARMS:
            return Verdict(opens=False, armed=True)


def _level(policy: MaintenancePolicy, evidence: Evidence) -> _Level:
    match evidence:
        case AlertRaised(severity=severity):
            return _Level.OPENS if severity in policy.alert_within_s else _Level.BETWEEN
        case FailurePredicted(probability=probability):
            if probability >= policy.open_probability:
                return _Level.OPENS
            return _Level.REARMS if probability < policy.rearm_probability else _Level.BETWEEN
        case RemainingLifePredicted(lower_s=lower_s):
            if lower_s <= policy.open_remaining_s:
                return _Level.OPENS
            return _Level.REARMS if lower_s > policy.rearm_remaining_s else _Level.BETWEEN
        case _:
            assert_never(evidence)


def within_s(policy: MaintenancePolicy, evidence: Evidence) -> float:
    """Return within which time, s, the failure is expected."""
    match evidence:
        case AlertRaised(severity=severity):
            return policy.alert_within_s[severity]
        case FailurePredicted(horizon_s=horizon_s):
            return horizon_s
        case RemainingLifePredicted(lower_s=lower_s):
            return lower_s
        case _:
            assert_never(evidence)


def title_of(evidence: Evidence) -> str:
    """Return what the work order is called."""
    match evidence:
        case AlertRaised(rule=rule, message=message):
            title = f"{rule}: {message}"
        case FailurePredicted(failure_mode=mode, probability=probability, horizon_s=horizon_s):
            title = f"{mode}: {probability:.0%} within {horizon_s / HOUR_S:.0f} h"
        case RemainingLifePredicted(failure_mode=mode, lower_s=lower_s, upper_s=upper_s):
            title = f"{mode}: {lower_s / HOUR_S:.0f} to {upper_s / HOUR_S:.0f} h are left"
        case _:
            assert_never(evidence)
    return title[:TITLE_LENGTH_MAX]


def plan(
    policy: MaintenancePolicy, evidence: Evidence, now: datetime
) -> tuple[datetime, datetime] | None:
    """Return the next declared window before the failure is expected; None: people must decide.

    Parameters
    ----------
    now : UTC
    """
    not_before = now + timedelta(seconds=policy.notice_s)
    windows = [(window.next_start(not_before), window.duration_s) for window in policy.windows]
    if not windows:
        return None
    start, duration_s = min(windows)
    if (start - now).total_seconds() > within_s(policy, evidence):
        return None
    return start, start + timedelta(seconds=duration_s)


def outcome_of(failure_mode: str | None, completed: WorkOrderCompleted) -> Outcome | None:
    """Return how the prediction of `failure_mode` came out, which led to a completed order.

    None where the work does not tell: it was preventive. A prediction names a failure mode; when
    another one was found, this one did not come true.
    """
    match completed.finding:
        case Finding.FAILURE_CONFIRMED:
            confirmed = completed.failure_mode == failure_mode
            return Outcome.CONFIRMED if confirmed else Outcome.REFUTED
        case Finding.NO_FAULT_FOUND:
            return Outcome.REFUTED
        case Finding.NOT_APPLICABLE:
            return None
        case _:
            assert_never(completed.finding)
