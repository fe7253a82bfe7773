"""A motor on a test rig, with an accelerometer at each of its two bearings.

The rig of Case Western Reserve University: a 2 hp motor, a torque transducer and a dynamometer,
with faults of known size set into the motor's bearings. Accelerations are recorded at 12 kHz in
g. The limits of velocity are those between zones B, C and D of ISO 10816-1 for small machines
(annex B, class I): they assume the frequencies from 10 Hz to 1 kHz, as `velocity_rms` has them.

References
----------
Case Western Reserve University Bearing Data Center, apparatus and bearing information: the
dimensions of SKF 6205-2RS JEM (drive end) and 6203-2RS JEM (fan end), in inches.
W. A. Smith, R. B. Randall, Rolling element bearing diagnostics using the Case Western Reserve
University data, Mechanical Systems and Signal Processing 64-65 (2015).
ISO 10816-1:1995, Evaluation of machine vibration by measurements on non-rotating parts.
"""

from domain.asset_model import (
    AssetType,
    Bearing,
    BearingGeometry,
    Direction,
    channel,
    health_limit,
)
from domain.units import si

SOURCE = "Case Western Reserve University Bearing Data Center, bearing information"

DRIVE_END_6205 = BearingGeometry(
    designation="SKF 6205-2RS JEM",
    element_count=9,
    element_diameter_m=si(0.3126, "in"),
    pitch_diameter_m=si(1.537, "in"),
    contact_angle_rad=0.0,
    source=SOURCE,
)
FAN_END_6203 = BearingGeometry(
    designation="SKF 6203-2RS JEM",
    element_count=8,
    element_diameter_m=si(0.2656, "in"),
    pitch_diameter_m=si(1.122, "in"),
    contact_angle_rad=0.0,
    source=SOURCE,
)

ASSET_TYPE = AssetType(
    name="bearing-test-rig",
    title="Bearing test rig (CWRU)",
    description="A 2 hp induction motor under load, with an accelerometer at each bearing.",
    channels=(
        channel(
            "vibration_drive_end",
            "Drive end",
            "acceleration",
            "g_n",
            (-100, 100),
            rate_hz=12_000.0,
        ),
        channel(
            "vibration_fan_end",
            "Fan end",
            "acceleration",
            "g_n",
            (-100, 100),
            rate_hz=12_000.0,
        ),
        channel("shaft_speed", "Shaft speed", "angular_velocity", "rpm", (0, 4_000)),
        channel("motor_load", "Motor load", "power", "hp", (-1, 10)),
    ),
    health_limits=(
        health_limit(
            "vibration_drive_end.velocity_rms",
            Direction.ABOVE,
            "mm/s",
            warning=1.8,
            critical=4.5,
        ),
        health_limit(
            "vibration_fan_end.velocity_rms",
            Direction.ABOVE,
            "mm/s",
            warning=1.8,
            critical=4.5,
        ),
    ),
    bearings=(
        Bearing(
            name="drive_end",
            channel="vibration_drive_end",
            speed_channel="shaft_speed",
            geometry=DRIVE_END_6205,
        ),
        Bearing(
            name="fan_end",
            channel="vibration_fan_end",
            speed_channel="shaft_speed",
            geometry=FAN_END_6203,
        ),
    ),
    stale_after_s=180.0,
)
