"""Names of BACnet: objects, devices, and units as a configuration writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Final

from domain.errors import InvalidInput

PORT: Final = 47_808
HOST_PREFIX: Final = 32
"""The prefix of an address that knows of no network, and so of no broadcast."""
INSTANCE_MAX: Final = 4_194_302
"""The largest instance of an object; the one above means none (135-2020, 12.1)."""

UNITS: Final[dict[str, str]] = {
    "amperes": "A",
    "milliamperes": "mA",
    "volts": "V",
    "millivolts": "mV",
    "kilovolts": "kV",
    "watts": "W",
    "kilowatts": "kW",
    "kilowatt-hours": "kWh",
    "degrees-celsius": "degC",
    "degrees-fahrenheit": "degF",
    "degrees-kelvin": "K",
    "delta-degrees-kelvin": "delta_K",
    "bars": "bar",
    "millibars": "mbar",
    "pascals": "Pa",
    "kilopascals": "kPa",
    "pounds-force-per-square-inch": "psi",
    "liters-per-minute": "l/min",
    "liters-per-second": "l/s",
    "cubic-meters-per-hour": "m3/h",
    "cubic-meters-per-second": "m3/s",
    "cubic-meters": "m3",
    "liters": "l",
    "hertz": "Hz",
    "kilohertz": "kHz",
    "revolutions-per-minute": "rpm",
    "meters-per-second": "m/s",
    "millimeters-per-second": "mm/s",
    "meters-per-second-per-second": "m/s2",
    "millimeters": "mm",
    "meters": "m",
    "kilograms": "kg",
    "newton": "N",
    "newton-meters": "N.m",
    "percent": "%",
    "no-units": "1",
    "seconds": "s",
    "milliseconds": "ms",
    "minutes": "min",
    "hours": "h",
}
"""BACnet's engineering units that have a symbol of ours."""

_OBJECT: Final = re.compile(r"([a-z][a-z0-9-]{0,60})[,:]([0-9]{1,7})")


def check_object(text: str) -> str:
    """Return the object that `text` names, as ``analog-input,1``.

    Raises
    ------
    InvalidInput
        ``mapping.object``
    """
    found = _OBJECT.fullmatch(text)
    if found is None or int(found[2]) > INSTANCE_MAX:
        told = f"{text!r:.80} is no BACnet object"
        raise InvalidInput("mapping.object", told, hint="such as analog-input,1")
    return f"{found[1]},{int(found[2])}"


def check_address(text: str) -> tuple[str, int]:
    """Return the IPv4 address and the UDP port of ``10.0.0.9`` or ``10.0.0.9:47808``.

    Raises
    ------
    InvalidInput
        ``connection.address``
    """
    host, _, port_text = text.partition(":")
    try:
        IPv4Address(host)
        port = int(port_text) if port_text else PORT
    except (AddressValueError, ValueError):
        port = -1
    if not 0 <= port <= 65_535:
        told = f"{text!r:.80} is no IPv4 address with a UDP port"
        raise InvalidInput("connection.address", told, hint=f"such as 10.0.0.9 or 10.0.0.9:{PORT}")
    return host, port


@dataclass(frozen=True, slots=True)
class Interface:
    """Our own IPv4 address and UDP port; the `prefix` of its network says where broadcasts go."""

    host: str
    port: int
    prefix: int = HOST_PREFIX

    @property
    def text(self) -> str:
        """As the library writes it."""
        return f"{self.host}/{self.prefix}:{self.port}"


def check_interface(text: str) -> Interface:
    """Return the interface of ``10.0.0.2``, ``10.0.0.2:47808`` or ``10.0.0.2/24:47808``.

    Raises
    ------
    InvalidInput
        ``connection.address``
    """
    address, slash, rest = text.partition("/")
    if not slash:
        return Interface(*check_address(text))
    prefix, _, port_text = rest.partition(":")
    host, port = check_address(f"{address}:{port_text}" if port_text else address)
    if not (prefix.isascii() and prefix.isdigit() and 1 <= int(prefix) <= HOST_PREFIX):
        told = f"{text!r:.80} has no prefix of 1 to {HOST_PREFIX} bits"
        raise InvalidInput("connection.address", told, hint=f"such as 10.0.0.2/24:{PORT}")
    return Interface(host, port, int(prefix))


@dataclass(frozen=True, slots=True)
class ForeignRegistration:
    """A router of broadcasts (BBMD) in another network, and for how long it shall serve us."""

    host: str
    port: int
    lifetime_s: int
