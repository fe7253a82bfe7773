"""The site of the edge benchmark: its assets, what is declared of them, and what they measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from domain.asset_model import AssetType
from domain.asset_types import asset_type
from domain.units import unit

PUMP: Final = asset_type("skab-pump-loop")
BENCH: Final = asset_type("hydraulic-test-rig")
RIG: Final = asset_type("bearing-test-rig")
RIG_RATE_HZ: Final = 12_000.0
PERIOD_S: Final = 0.1
"""Of whatever is no waveform, and of the messages that carry one."""
PUMP_CHANNELS: Final = {
    "accelerometer_1": ("g_n", 0.03),
    "accelerometer_2": ("g_n", 0.04),
    "motor_current": ("A", 2.2),
    "pressure": ("bar", 0.4),
    "housing_temperature": ("degC", 70.0),
    "fluid_temperature": ("degC", 25.0),
    "supply_voltage": ("V", 230.0),
    "flow": ("l/min", 32.0),
}
WAVEFORMS: Final = {"vibration_drive_end": "g_n", "vibration_fan_end": "g_n"}
MODEL: Final = Path(__file__).resolve().parents[1] / "docs/models/skab-pump-anomaly"


@dataclass(frozen=True, slots=True)
class Site:
    """How many assets there are, and how they are heard.

    Parameters
    ----------
    benches, pumps : assets of 17 and of 8 channels at 10 Hz; a model looks at the pumps
    rigs : assets of 2 waveforms at 12 kHz, with features, and the shaft's speed
    broker_port : of the broker at which they publish; None where nothing is heard
    """

    benches: int
    pumps: int
    rigs: int
    broker_port: int | None = None

    def channels(self) -> dict[str, tuple[AssetType, dict[str, str]]]:
        """Return the type of each asset and the unit of each of its channels."""
        of_bench = {channel.name: channel.input_unit for channel in BENCH.channels}
        of_pump = {name: symbol for name, (symbol, _) in PUMP_CHANNELS.items()}
        of_rig = {**WAVEFORMS, "shaft_speed": "rpm"}
        return {
            **{f"bench-{n}": (BENCH, of_bench) for n in range(self.benches)},
            **{f"pump-{n}": (PUMP, of_pump) for n in range(self.pumps)},
            **{f"rig-{n}": (RIG, of_rig) for n in range(self.rigs)},
        }

    def configuration(self) -> dict[str, Any]:
        """Return the agent's configuration."""
        port = self.broker_port
        line = (
            {"kind": "opcua", "url": "opc.tcp://127.0.0.1:1/none"}
            if port is None
            else {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}"}
        )
        return {
            "agent": "bench",
            "connections": {"line": line},
            "sources": [
                self._source(asset, kind.name, units)
                for asset, (kind, units) in self.channels().items()
            ],
            "models": [
                {
                    "model": "skab-pump-anomaly",
                    "file": str(MODEL / "model.onnx"),
                    "sha256": sha256((MODEL / "model.onnx").read_bytes()).hexdigest(),
                    "every_seconds": 1,
                }
            ],
        }

    def _source(self, asset: str, kind: str, units: Mapping[str, str]) -> dict[str, Any]:
        heard = self.broker_port is not None
        source: dict[str, Any] = {
            "kind": "mqtt" if heard else "opcua",
            "connection": "line",
            "asset": asset,
            "asset_type": kind,
            "window": {"seconds": PERIOD_S, "readings": 100_000},
            "channels": {
                name: {
                    **({"field": name} if heard else {"node": f"ns=2;s={asset}.{name}"}),
                    "unit": symbol,
                    **({"rate_hz": RIG_RATE_HZ} if name in WAVEFORMS else {}),
                }
                for name, symbol in units.items()
            },
        }
        if heard:
            source["topic"] = f"bench/{asset}"
            source["time"] = {"field": "ts", "format": "unix_ms"}
        if set(WAVEFORMS) <= set(units):
            source["features"] = {
                name: {
                    "seconds": 1,
                    "names": ["rms", "kurtosis", "crest_factor", "velocity_rms", "bpfo", "bpfi"],
                    "envelope_band": {"low_hz": 1_000, "high_hz": 5_000},
                }
                for name in WAVEFORMS
            }
        return source

    def levels(self) -> dict[str, dict[str, float]]:
        """Return what each asset's channels tell on average, in their units; no waveforms."""
        return {
            asset: {
                name: level_of(kind, name, symbol)
                for name, symbol in units.items()
                if name not in WAVEFORMS
            }
            for asset, (kind, units) in self.channels().items()
        }


def level_of(kind: AssetType, channel: str, symbol: str) -> float:
    """Return a value of a channel, in the unit it is delivered in, well within its range."""
    if kind is PUMP:
        return PUMP_CHANNELS[channel][1]
    described = kind.channel(channel)
    middle = (described.physical_min + described.physical_max) / 2
    return unit(symbol).from_si(middle)
