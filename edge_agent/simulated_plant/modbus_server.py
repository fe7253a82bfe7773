"""The plant over Modbus TCP: a device for each pump, a float for each channel, a set-point.

Input registers from 0 on hold the channels in their order, each a float32, high word first; NaN
where a sensor delivers nothing or says that it has failed. Holding register 0 is the wanted flow
in tenths of a litre per minute.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from edge_agent.simulated_plant.machine import CHANNELS, Sample, SimulatedPump

SETPOINT_ADDRESS: Final = 0
SETPOINT_SCALE: Final = 0.1
READS_INPUT: Final = 4
WRITES_HOLDING: Final = (6, 16)


class ModbusPlant:
    """Serves the plant on ``host:port``; the first pump is device 1."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._server: ModbusTcpServer | None = None
        self._latest: dict[str, list[int]] = {}

    @property
    def address(self) -> str:
        """Where it is found."""
        return f"modbus-tcp://{self._host}:{self._port}"

    async def open(self, pumps: Sequence[SimulatedPump]) -> None:
        """Begin to serve `pumps`."""
        devices = [self._device(number, pump) for number, pump in enumerate(pumps, start=1)]
        self._server = ModbusTcpServer(devices, address=(self._host, self._port))
        await self._server.serve_forever(background=True)

    async def tell(self, pump: SimulatedPump, sample: Sample) -> None:
        """Let clients read the sample."""
        registers: list[int] = []
        for channel in CHANNELS:
            value = sample.values[channel]
            number = math.nan if channel in sample.qualities else value
            registers += struct.unpack(">HH", struct.pack(">f", number))
        self._latest[pump.name] = registers

    async def close(self) -> None:
        """Cut every connection and stop listening."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.shutdown()  # type: ignore[no-untyped-call]

    def _device(self, number: int, pump: SimulatedPump) -> SimDevice:
        async def answer(
            function_code: int,
            start_address: int,
            address: int,
            count: int,
            registers: list[int],
            written: list[int] | list[bool] | None,
        ) -> ExcCodes | None:
            if function_code == READS_INPUT:
                latest = self._latest.get(pump.name)
                if latest is not None:
                    registers[: len(latest)] = latest
            elif written is not None and function_code in WRITES_HOLDING:
                if address != SETPOINT_ADDRESS or count != 1:
                    return ExcCodes.ILLEGAL_ADDRESS
                followed = pump.want_flow(written[0] * SETPOINT_SCALE)
                written[:] = [round(followed / SETPOINT_SCALE)]  # type: ignore[list-item]
            elif start_address == SETPOINT_ADDRESS:
                registers[0] = round(pump.flow_setpoint_l_per_min / SETPOINT_SCALE)
            return None

        nothing = SimData(0, values=False, datatype=DataType.BITS)
        held = SimData(0, values=0, datatype=DataType.REGISTERS)
        read = SimData(0, count=2 * len(CHANNELS), values=0, datatype=DataType.REGISTERS)
        return SimDevice(id=number, simdata=([nothing], [nothing], [held], [read]), action=answer)
