"""Health: what an asset's latest values and open alerts say of it, with reasons.

A pure judgement after the limits its type declares. The index is 1.0 without a finding; each
channel's finding lowers it by how far the value has gone from the warning towards the critical
limit, and the worst finding counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from domain.asset_model import AssetType, Direction, HealthLimit, Severity


class HealthStatus(StrEnum):
    """The worst finding, or UNKNOWN where nothing was measured."""

    GOOD = "GOOD"
    WARNING = "WARNING"
    CRITICAL = "CRITICAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class HealthReason:
    """One finding: `value` against `limit` (SI) of a channel, and what it means."""

    severity: Severity
    channel: str
    value: float
    limit: float
    message: str


@dataclass(frozen=True, slots=True)
class Health:
    """`index` runs from 0 (beyond a critical limit) to 1 (no finding); None when unknown."""

    status: HealthStatus
    index: float | None
    reasons: tuple[HealthReason, ...]


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that has not cleared, as far as health is concerned."""

    severity: Severity
    channel: str
    value: float
    limit: float
    message: str


def assess_health(
    asset_type: AssetType, means: Mapping[str, float], alerts: Iterable[OpenAlert]
) -> Health:
    """Return the health of an asset.

    Parameters
    ----------
    means : per channel, the mean of GOOD readings over its latest window (SI)
    """
    reasons: list[HealthReason] = []
    index = 1.0
    for limit in asset_type.health_limits:
        if limit.channel in means:
            value = means[limit.channel]
            severity = _severity(limit, value)
            if severity is not None:
                reasons.append(_finding(asset_type, limit, value, severity))
                index = min(index, _margin(limit, value))
    for alert in alerts:
        reasons.append(
            HealthReason(alert.severity, alert.channel, alert.value, alert.limit, alert.message)
        )
        index = min(index, 0.0 if alert.severity is Severity.CRITICAL else 0.5)
    if not means and not reasons:
        return Health(HealthStatus.UNKNOWN, None, ())
    reasons.sort(key=lambda reason: reason.severity is not Severity.CRITICAL)
    status = HealthStatus(reasons[0].severity.value) if reasons else HealthStatus.GOOD
    return Health(status, index, tuple(reasons))


def _severity(limit: HealthLimit, value: float) -> Severity | None:
    sign = 1.0 if limit.direction is Direction.ABOVE else -1.0
    if sign * (value - limit.critical) > 0:
        return Severity.CRITICAL
    if sign * (value - limit.warning) > 0:
        return Severity.WARNING
    return None


def _margin(limit: HealthLimit, value: float) -> float:
    """Return 1 at the warning limit, 0 at the critical one and beyond."""
    return max(0.0, (limit.critical - value) / (limit.critical - limit.warning))


def _finding(
    asset_type: AssetType, limit: HealthLimit, value: float, severity: Severity
) -> HealthReason:
    channel = asset_type.channel(limit.channel)
    crossed = limit.critical if severity is Severity.CRITICAL else limit.warning
    return HealthReason(
        severity,
        limit.channel,
        value,
        crossed,
        f"{channel.title} at {value:.6g} {channel.si_unit} is {limit.direction.value.lower()} "
        f"its {severity.value.lower()} limit of {crossed:.6g} {channel.si_unit}",
    )
