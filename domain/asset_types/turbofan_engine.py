"""A turbofan engine, told of once for each flight.

The sensors of NASA's C-MAPSS data sets by their published names: temperatures in degrees Rankine,
pressures in psia. Physical ranges are engineering assumptions around what was published.

References
----------
A. Saxena, K. Goebel, D. Simon, N. Eklund, Damage propagation modeling for aircraft engine
run-to-failure simulation, International Conference on Prognostics and Health Management (2008),
table 2.
"""

from domain.asset_model import AssetType, channel

RANKINE = (300, 2_700)

ASSET_TYPE = AssetType(
    name="turbofan-engine",
    title="Turbofan engine (C-MAPSS)",
    description="A turbofan engine with the temperatures, pressures and speeds of its stations.",
    channels=(
        channel("fan_inlet_temperature", "T2, fan inlet", "temperature", "degR", RANKINE),
        channel("lpc_outlet_temperature", "T24, LPC outlet", "temperature", "degR", RANKINE),
        channel("hpc_outlet_temperature", "T30, HPC outlet", "temperature", "degR", RANKINE),
        channel("lpt_outlet_temperature", "T50, LPT outlet", "temperature", "degR", RANKINE),
        channel("fan_inlet_pressure", "P2, fan inlet", "pressure", "psi", (0, 100)),
        channel("bypass_duct_pressure", "P15, bypass duct", "pressure", "psi", (0, 200)),
        channel("hpc_outlet_pressure", "P30, HPC outlet", "pressure", "psi", (0, 1_000)),
        channel("fan_speed", "Nf, fan", "angular_velocity", "rpm", (0, 5_000)),
        channel("core_speed", "Nc, core", "angular_velocity", "rpm", (0, 15_000)),
        channel("hpc_outlet_static_pressure", "Ps30, HPC outlet", "pressure", "psi", (0, 1_000)),
        channel("bypass_ratio", "Bypass ratio", "ratio", "1", (0, 20)),
    ),
    stale_after_s=48 * 3_600.0,
)
