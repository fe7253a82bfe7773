"""Four roller bearings on one shaft, run to failure at constant speed and load.

The rig of the Center for Intelligent Maintenance Systems, University of Cincinnati: a shaft at
2,000 rpm under 6,000 lb of radial load; every ten minutes one second of each bearing is recorded
at 20 kHz (20,480 samples). Physical ranges are those of the accelerometers (PCB 353B33, 50 g).

References
----------
H. Qiu, J. Lee, J. Lin, G. Yu, Wavelet filter-based weak signature detection method and its
application on rolling element bearing prognostics, Journal of Sound and Vibration 289 (2006):
Rexnord ZA-2115, 16 rollers a row of 0.331 in on 2.815 in at 15.17 degrees, which strike the
outer ring at 236.4 Hz.
"""

import math

from domain.asset_model import AssetType, Bearing, BearingGeometry, channel
from domain.units import si

ZA_2115 = BearingGeometry(
    designation="Rexnord ZA-2115",
    element_count=16,
    element_diameter_m=si(0.331, "in"),
    pitch_diameter_m=si(2.815, "in"),
    contact_angle_rad=math.radians(15.17),
    source="Qiu et al. 2006",
)
BEARINGS = (1, 2, 3, 4)

ASSET_TYPE = AssetType(
    name="ims-bearing-rig",
    title="Bearing rig (IMS)",
    description="Four loaded roller bearings on one shaft, with an accelerometer at each.",
    channels=(
        *(
            channel(
                f"vibration_{number}",
                f"Bearing {number}",
                "acceleration",
                "g_n",
                (-50, 50),
                rate_hz=20_480.0,
            )
            for number in BEARINGS
        ),
        channel("shaft_speed", "Shaft speed", "angular_velocity", "rpm", (0, 4_000)),
    ),
    bearings=tuple(
        Bearing(
            name=f"bearing_{number}",
            channel=f"vibration_{number}",
            speed_channel="shaft_speed",
            geometry=ZA_2115,
        )
        for number in BEARINGS
    ),
    stale_after_s=3_600.0,
)
