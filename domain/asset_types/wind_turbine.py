"""A wind turbine as its supervisory system tells of it, a value every ten minutes.

Physical ranges are engineering assumptions: the anemometers of turbines are certified up to
60 m/s, and a turbine that stands still draws some of its own power from the grid.

References
----------
IEC 61400-12-1:2017, power performance measurements: the ten-minute means of power and wind speed.
"""

from domain.asset_model import AssetType, channel

ASSET_TYPE = AssetType(
    name="wind-turbine",
    title="Wind turbine",
    description="A grid-connected wind turbine, told of by its supervisory system.",
    channels=(
        channel("active_power", "Active power", "power", "kW", (-500, 20_000)),
        channel("wind_speed", "Wind speed at the nacelle", "velocity", "m/s", (0, 60)),
        channel("reference_power", "Power by the maker's curve", "power", "kW", (0, 20_000)),
    ),
    stale_after_s=1_800.0,
)
