"""A ball bearing worn out under radial load, with an accelerometer in each direction.

The platform PRONOSTIA of FEMTO-ST: a bearing is loaded beyond its rating until it fails within
hours. Every ten seconds a tenth of a second is recorded at 25.6 kHz. Physical ranges are those of
the accelerometers (DYTRAN 3035B, 50 g).

References
----------
P. Nectoux et al., PRONOSTIA: an experimental platform for bearings accelerated degradation tests,
IEEE International Conference on Prognostics and Health Management (2012): the bearing has 13
balls of 3.5 mm on a mean diameter of 25.6 mm; loads from 4.0 to 5.0 kN, speeds from 1,500 to
1,800 rpm.
"""

from domain.asset_model import AssetType, Bearing, BearingGeometry, channel
from domain.units import si

BEARING = BearingGeometry(
    designation="PRONOSTIA test bearing",
    element_count=13,
    element_diameter_m=si(3.5, "mm"),
    pitch_diameter_m=si(25.6, "mm"),
    contact_angle_rad=0.0,
    source="Nectoux et al. 2012, table 1",
)

ASSET_TYPE = AssetType(
    name="pronostia-bearing-rig",
    title="Bearing rig (PRONOSTIA)",
    description="A ball bearing that is run to failure under radial load.",
    channels=(
        channel(
            "vibration_horizontal",
            "Horizontal",
            "acceleration",
            "g_n",
            (-50, 50),
            rate_hz=25_600.0,
        ),
        channel(
            "vibration_vertical", "Vertical", "acceleration", "g_n", (-50, 50), rate_hz=25_600.0
        ),
        channel("shaft_speed", "Shaft speed", "angular_velocity", "rpm", (0, 3_000)),
        channel("radial_load", "Radial load", "force", "N", (0, 8_000)),
        channel("bearing_temperature", "Bearing temperature", "temperature", "degC", (-20, 250)),
    ),
    bearings=tuple(
        Bearing(
            name=direction,
            channel=f"vibration_{direction}",
            speed_channel="shaft_speed",
            geometry=BEARING,
        )
        for direction in ("horizontal", "vertical")
    ),
    stale_after_s=60.0,
)
