"""The dictionary against which headers of frames are packed: usual words and units.

It is part of encoding version 2 for ever: not a byte of it may change. `docs/frame-format.md`
says how readers in other languages get it.
"""

from __future__ import annotations

from typing import Final

_WORDS: Final = (
    "rate_hz str i8 i4 i2 i1 u8 u4 u2 u1 b1 f4 state mode status alarm running starts "
    "count total cycle tool recipe batch program operator axis_ spindle_ feed_ drive_ "
    "servo_ x y z a b c d phase_ line_ in_ out_ upper_ lower_ front_ rear_ left_ "
    "right_ drive_end_ nondrive_end_ nacelle_ rotor_ blade_ generator_ gearbox_ "
    "shaft_ winding_ stator_ hydraulic_ coolant_ cooling_ lubricant_ oil_ air_ gas_ "
    "steam_ water_ fuel_ exhaust_ ambient_ inlet_ outlet_ suction_ discharge_ fluid_ "
    "housing_ supply_ motor_ pump_ valve_ fan_ compressor_ turbine_ conveyor_ "
    "bearing_ efficiency humidity density concentration conductivity ph turbidity "
    "thickness width height length diameter mass weight stress strain displacement "
    "position angle level frequency energy power torque force velocity speed_ "
    "setpoint speed acceleration accelerometer_ vibration_ vibration voltage current "
    "flow pressure temperature _1 _2 _3 _4 "
)

_UNITS: Final = (
    # symbol, factor and offset as the header writes them
    ("m/s2", "1.0", "0.0"),
    ("rad/s", "1.0", "0.0"),
    ("A", "1.0", "0.0"),
    ("J", "1.0", "0.0"),
    ("N", "1.0", "0.0"),
    ("Hz", "1.0", "0.0"),
    ("m", "1.0", "0.0"),
    ("kg", "1.0", "0.0"),
    ("W", "1.0", "0.0"),
    ("Pa", "1.0", "0.0"),
    ("1", "1.0", "0.0"),
    ("K", "1.0", "0.0"),
    ("delta_K", "1.0", "0.0"),
    ("s", "1.0", "0.0"),
    ("N.m", "1.0", "0.0"),
    ("m/s", "1.0", "0.0"),
    ("V", "1.0", "0.0"),
    ("m3/s", "1.0", "0.0"),
    ("g_n", "9.80665", "0.0"),
    ("mm/s2", "0.001", "0.0"),
    ("rpm", "0.10471975511965977", "0.0"),
    ("mA", "0.001", "0.0"),
    ("kWh", "3600000.0", "0.0"),
    ("kN", "1000.0", "0.0"),
    ("kHz", "1000.0", "0.0"),
    ("mm", "0.001", "0.0"),
    ("um", "1e-06", "0.0"),
    ("kW", "1000.0", "0.0"),
    ("bar", "100000.0", "0.0"),
    ("mbar", "100.0", "0.0"),
    ("kPa", "1000.0", "0.0"),
    ("MPa", "1000000.0", "0.0"),
    ("atm", "101325.0", "0.0"),
    ("psi", "6894.757293168361", "0.0"),
    ("%", "0.01", "0.0"),
    ("degC", "1.0", "273.15"),
    ("degF", "0.5555555555555556", "255.3722222222222"),
    ("delta_degC", "1.0", "0.0"),
    ("ms", "0.001", "0.0"),
    ("min", "60.0", "0.0"),
    ("h", "3600.0", "0.0"),
    ("mm/s", "0.001", "0.0"),
    ("kV", "1000.0", "0.0"),
    ("mV", "0.001", "0.0"),
    ("l/min", "1.6666666666666667e-05", "0.0"),
    ("l/s", "0.001", "0.0"),
    ("m3/h", "0.0002777777777777778", "0.0"),
)

HEADER_DICTIONARY: Final = (
    _WORDS
    + '{"agent":"agent-001","asset":"asset-1","channels":[{"clock":1,"factor":1.0,"name":"'
    + "".join(
        f'","offset":{offset},"type":"f8","unit":"{symbol}"}},'
        f'{{"clock":0,"factor":{factor},"name":"'
        for symbol, factor, offset in _UNITS
    )
    + '","offset":0.0,"type":"f8","unit":"1"}],"clocks":1}'
).encode()

TIMED_HEADER_DICTIONARY: Final = HEADER_DICTIONARY + (
    b',"time":{"source":"recording"}}'
    b',"time":{"offset_ns":50000000,"source":"mixed","stepped":true,"synchronized":false}}'
    b',"time":{"source":"agent","synchronized":true}}'
    b',"time":{"offset_ns":20000000,"source":"server","synchronized":true}}'
    b',"time":{"offset_ns":10000000,"source":"device","synchronized":true}}'
)
"""For headers that say how far their times can be trusted; not a byte of it may change either."""
