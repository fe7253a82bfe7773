"""A machine of a production line, watched at the bearing of its main drive.

The vibration is the root mean square of each second on two axes, as PRONOSTIA measured bearings
until they failed. Half of the seconds of its bearings lie below 0.3 to 0.9 g, and before the last
tenth of a life hardly one lies above 1.5 g, where the rules warn; all but one bearing passed that
before they failed. The limits of temperature are those of common greases: an assumption.

What its control tells of itself are a flag, a code of its manufacturer's (0 is none) and a name,
as in the items Execution, Condition and Program of MTConnect.

References
----------
P. Nectoux et al., PRONOSTIA: An experimental platform for bearings accelerated degradation
tests, IEEE PHM 2012.
ANSI/MTC1.4-2018, MTConnect Part 2: Devices information model.
"""

from domain.asset_model import (
    AssetType,
    Direction,
    LimitRule,
    Severity,
    channel,
    code_channel,
    flag_channel,
    health_limit,
    setpoint,
    text_channel,
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
        flag_channel("running", "Running"),
        code_channel("alarm_code", "Alarm of its control", (0, 2**31 - 1)),
        text_channel("program", "Program of its control"),
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
