"""A gas turbine of a combined cycle plant, told of by hourly means.

Physical ranges are engineering assumptions around what was recorded.

References
----------
H. Kaya, P. Tüfekci, E. Uzun, Predicting CO and NOx emissions from gas turbines, Turkish Journal of
Electrical Engineering and Computer Sciences 27 (2019); UCI Machine Learning Repository, 551.
"""

from domain.asset_model import AssetType, channel

ASSET_TYPE = AssetType(
    name="gas-turbine",
    title="Gas turbine",
    description="A gas turbine with its ambient conditions, temperatures and pressures.",
    channels=(
        channel("ambient_temperature", "Ambient temperature", "temperature", "degC", (-60, 60)),
        channel("ambient_pressure", "Ambient pressure", "pressure", "mbar", (800, 1_100)),
        channel("ambient_humidity", "Ambient relative humidity", "ratio", "%", (0, 105)),
        channel("filter_pressure_drop", "Pressure over the filter", "pressure", "mbar", (0, 50)),
        channel(
            "exhaust_pressure", "Exhaust pressure of the turbine", "pressure", "mbar", (0, 200)
        ),
        channel("inlet_temperature", "Inlet temperature", "temperature", "degC", (0, 1_700)),
        channel("outlet_temperature", "Outlet temperature", "temperature", "degC", (0, 900)),
        channel("energy_yield", "Energy yield of the hour", "energy", "MWh", (0, 1_000)),
        channel("discharge_pressure", "Compressor discharge pressure", "pressure", "bar", (0, 60)),
    ),
    stale_after_s=3 * 3_600.0,
)
