"""A milling machine, told of once for each process.

Physical ranges are engineering assumptions around the published data, which are synthetic.

References
----------
S. Matzka, Explainable artificial intelligence for predictive maintenance applications, Third
International Conference on Artificial Intelligence for Industries (2020); UCI Machine Learning
Repository, 601.
"""

from domain.asset_model import AssetType, channel

ASSET_TYPE = AssetType(
    name="milling-machine",
    title="Milling machine",
    description="A milling machine with its temperatures, its spindle and the wear of its tool.",
    channels=(
        channel("air_temperature", "Air temperature", "temperature", "K", (250, 330)),
        channel("process_temperature", "Process temperature", "temperature", "K", (250, 400)),
        channel("spindle_speed", "Spindle speed", "angular_velocity", "rpm", (0, 6_000)),
        channel("spindle_torque", "Spindle torque", "torque", "N.m", (0, 200)),
        channel("tool_wear", "Time the tool has cut", "time", "min", (0, 600)),
    ),
    stale_after_s=3_600.0,
)
