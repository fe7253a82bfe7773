"""A machine of a production line, watched at the bearing of its main drive.

The vibration is the root mean square of each second on two axes, as PRONOSTIA measured bearings
until they failed. Half of the seconds of its bearings lie below 0.3 to 0.9 g, and before the last
tenth of a life hardly one lies above 1.5 g, where the rules warn; all but one bearing passed that
before they failed. The limits of temperature are those of common greases: an assumption.

References
----------
P. Nectoux et al., PRONOSTIA: An experimental platform for bearings accelerated degradation
tests, IEEE PHM 2012.
"""

from domain.asset_model import (
    AssetType,
    Direction,
    LimitRule,
    Severity,
    channel,
    health_limit,
    setpoint,
)
from domain.units import si

ABOVE = Direction.ABOVE


def _vibration_high(axis: str) -> LimitRule:
    return LimitRule(
        name=f"vibration_{axis}_high",
        channel=f"vibration_{axis}",
        severity=Severity.WARNING,
        direction=ABOVE,
        message="the main drive's bearing vibrates as healthy ones do not",
        limit=si(1.5, "g_n"),
        clear=si(1.2, "g_n"),
        hold_s=30,
    )


ASSET_TYPE = AssetType(
    name="production-machine",
    title="Production machine",
    description="A machine of a production line with a driven spindle, fan or pump.",
    channels=(
        channel("vibration_horizontal", "Vibration, horizontal", "acceleration", "g_n", (0, 50)),
        channel("vibration_vertical", "Vibration, vertical", "acceleration", "g_n", (0, 50)),
        channel("bearing_temperature", "Bearing", "temperature", "degC", (-20, 250)),
        channel("electric_power", "Electric power", "power", "kW", (0, 500)),
        channel("drive_speed", "Drive speed", "angular_velocity", "rpm", (0, 30_000)),
    ),
    alert_rules=(_vibration_high("horizontal"), _vibration_high("vertical")),
    health_limits=(
        health_limit("vibration_horizontal", ABOVE, "g_n", warning=1.5, critical=4),
        health_limit("vibration_vertical", ABOVE, "g_n", warning=1.5, critical=4),
        health_limit("bearing_temperature", ABOVE, "degC", warning=90, critical=120),
    ),
    setpoints=(setpoint("drive_speed", "Drive speed", "angular_velocity", "rpm", (200, 12_000)),),
    stale_after_s=180.0,
)
