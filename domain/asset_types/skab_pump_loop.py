"""The water pump loop of the Skoltech Anomaly Benchmark: a pump, two valves, eight sensors.

The alert rules were chosen on the benchmark's labelled recordings: a valve that closes shows in
the flow and in no other channel. Health limits are engineering assumptions (the recordings hold
no damage); the supply's are EN 50160, 230 V +- 10 %.

References
----------
I. D. Katser, V. O. Kozitsin, Skoltech Anomaly Benchmark (SKAB), 2020. Channel names follow the
columns of its recordings; the pressure is a gauge pressure, accelerations and flow are RMS values.
"""

from domain.asset_model import (
    AssetType,
    DeviationRule,
    Direction,
    LimitRule,
    Severity,
    channel,
    health_limit,
    setpoint,
)
from domain.units import si

ABOVE, BELOW = Direction.ABOVE, Direction.BELOW

ASSET_TYPE = AssetType(
    name="skab-pump-loop",
    title="Water pump loop (SKAB)",
    description="Centrifugal pump circulating water through two motorised valves.",
    channels=(
        channel("accelerometer_1", "Vibration 1", "acceleration", "g_n", (0, 5)),
        channel("accelerometer_2", "Vibration 2", "acceleration", "g_n", (0, 5)),
        channel("motor_current", "Motor current", "electric_current", "A", (0, 10)),
        channel("pressure", "Loop pressure", "pressure", "bar", (-1.5, 6)),
        channel("housing_temperature", "Pump housing", "temperature", "degC", (-10, 150)),
        channel("fluid_temperature", "Circulating water", "temperature", "degC", (0, 100)),
        channel("supply_voltage", "Motor supply", "voltage", "V", (0, 300)),
        channel("flow", "Circulation flow", "volume_flow", "l/min", (0, 210)),
    ),
    alert_rules=(
        DeviationRule(
            name="flow_restricted",
            channel="flow",
            severity=Severity.WARNING,
            direction=BELOW,
            message="flow has fallen below its recent level: a valve may be closing",
            deviation_ratio=0.0175,
            clear_ratio=0.00875,
            window_s=30,
            baseline_s=300,
            lag_s=60,
            hold_s=10,
        ),
        LimitRule(
            name="flow_low",
            channel="flow",
            severity=Severity.CRITICAL,
            direction=BELOW,
            message="flow is below what the loop needs",
            limit=si(30.25, "l/min"),
            clear=si(30.75, "l/min"),
            hold_s=30,
        ),
    ),
    health_limits=(
        health_limit("accelerometer_1", ABOVE, "m/s2", warning=4, critical=8),
        health_limit("accelerometer_2", ABOVE, "m/s2", warning=4, critical=8),
        health_limit("motor_current", ABOVE, "A", warning=3, critical=4),
        health_limit("pressure", ABOVE, "bar", warning=1, critical=2),
        health_limit("housing_temperature", ABOVE, "degC", warning=95, critical=105),
        health_limit("fluid_temperature", ABOVE, "degC", warning=40, critical=60),
        health_limit("supply_voltage", BELOW, "V", warning=217, critical=207),
        health_limit("supply_voltage", ABOVE, "V", warning=243, critical=253),
    ),
    setpoints=(setpoint("flow", "Circulation flow", "volume_flow", "l/min", (10, 150)),),
    stale_after_s=180.0,
)
