"""The hydraulic test rig of ZeMA: a working circuit and a cooling and filtering circuit.

A cycle of constant loads repeats every 60 s, while the conditions of cooler, valve, pump and
accumulator are varied. Channels carry the names of the recordings in their descriptions; virtual
sensors of the recordings (cooling and efficiency) are channels like the others. The physical
ranges are engineering assumptions around what was recorded. The rig was recorded below limits of
damage, so there are no health limits.

References
----------
N. Helwig, E. Pignanelli, A. Schütze, Condition monitoring of a complex hydraulic system using
multivariate statistics, IEEE I2MTC 2015; UCI Machine Learning Repository, data set 447.
"""

from domain.asset_model import AssetType, channel

ASSET_TYPE = AssetType(
    name="hydraulic-test-rig",
    title="Hydraulic test rig (ZeMA)",
    description="A hydraulic power unit with a pump, a valve, accumulators, a cooler and a filter.",
    channels=(
        channel("pressure_1", "Pressure PS1", "pressure", "bar", (-1, 350)),
        channel("pressure_2", "Pressure PS2", "pressure", "bar", (-1, 350)),
        channel("pressure_3", "Pressure PS3", "pressure", "bar", (-1, 350)),
        channel("pressure_4", "Pressure PS4", "pressure", "bar", (-1, 350)),
        channel("pressure_5", "Pressure PS5", "pressure", "bar", (-1, 50)),
        channel("pressure_6", "Pressure PS6", "pressure", "bar", (-1, 50)),
        channel("motor_power", "Motor power EPS1", "power", "W", (0, 10_000)),
        channel("flow_1", "Flow FS1", "volume_flow", "l/min", (0, 60)),
        channel("flow_2", "Flow FS2", "volume_flow", "l/min", (0, 60)),
        channel("temperature_1", "Oil temperature TS1", "temperature", "degC", (-20, 120)),
        channel("temperature_2", "Oil temperature TS2", "temperature", "degC", (-20, 120)),
        channel("temperature_3", "Oil temperature TS3", "temperature", "degC", (-20, 120)),
        channel("temperature_4", "Oil temperature TS4", "temperature", "degC", (-20, 120)),
        channel("vibration", "Vibration VS1", "velocity", "mm/s", (0, 50)),
        channel("cooling_efficiency", "Cooling efficiency CE", "ratio", "%", (0, 100)),
        channel("cooling_power", "Cooling power CP", "power", "kW", (0, 20)),
        channel("efficiency_factor", "Efficiency factor SE", "ratio", "%", (0, 150)),
    ),
    stale_after_s=180.0,
)
