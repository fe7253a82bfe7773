"""The electricity meter of a plant: what was used in each interval of a quarter of an hour.

Physical ranges are engineering assumptions: a feeder of no more than 40 MW, whose meter counts
no more than 10 MWh in an interval.
"""

from domain.asset_model import AssetType, channel

ASSET_TYPE = AssetType(
    name="electricity-meter",
    title="Electricity meter",
    description="The meter of a plant's electricity, read every quarter of an hour.",
    channels=(
        channel("energy_used", "Energy used in the interval", "energy", "kWh", (0, 10_000)),
        channel("lagging_power_factor", "Power factor, lagging current", "ratio", "%", (0, 100)),
        channel("leading_power_factor", "Power factor, leading current", "ratio", "%", (0, 100)),
    ),
    stale_after_s=2_700.0,
)
