"""How a declaration says in which form its times are: ``format`` and ``zone``."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edge_agent.timestamps import ISO8601, UNIX_MS, UNIX_S, TimeReader, carries_zone
from edge_agent.yaml_section import Section


def read_time_format(time: Section) -> tuple[str | None, ZoneInfo | None]:
    """Return the declared format and zone of `time`; None in place of what is wrong or absent."""
    time_format = time.text("format")
    zone_name = time.text("zone") if time.has("zone") else None
    zone = None
    if zone_name is not None:
        try:
            zone = ZoneInfo(zone_name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            told = f"{zone_name!r} is not a time zone"
            time.fault("zone", "mapping.zone_unknown", told, "such as Europe/Berlin or UTC")
    if time_format is None:
        return None, zone
    if time_format not in (ISO8601, UNIX_S, UNIX_MS):
        if "%" not in time_format:
            hint = "iso8601, unix_s, unix_ms or a strptime format such as '%Y-%m-%d %H:%M:%S'"
            time.fault("format", "mapping.time_format", f"{time_format!r} is no format", hint)
            return None, zone
        if zone_name is None and not carries_zone(time_format):
            note_zone_missing(time, f"times in the format {time_format!r} carry no zone")
    if zone_name is not None and carries_zone(time_format):
        told = f"times in the format {time_format!r} carry their own zone"
        time.fault("zone", "mapping.zone_conflict", told, "leave zone out")
    return time_format, zone


def note_zone_missing(time: Section, told: str) -> None:
    """Note that `time` has to say in which zone its wall clock is."""
    hint = "add zone: an IANA name such as Europe/Berlin, or UTC"
    time.fault("zone", "mapping.zone_missing", told, hint)


def declared_times(time: Section) -> TimeReader | None:
    """Return the reader of the times that `time` declares, or None after noting what is wrong."""
    time_format, zone = read_time_format(time)
    return None if time_format is None else TimeReader(time_format, zone)
