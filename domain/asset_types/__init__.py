"""The catalogue of asset types: one file each, found by being here.

A module of this package that defines ``ASSET_TYPE`` is a type; nothing else has to be edited.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from domain.asset_model import AssetType
from domain.errors import NotFound


@cache
def asset_types() -> dict[str, AssetType]:
    """Return every asset type by its name."""
    found: dict[str, AssetType] = {}
    for module_info in iter_modules(__path__):
        described: AssetType = import_module(f"{__name__}.{module_info.name}").ASSET_TYPE
        if described.name in found:
            raise ValueError(f"two files describe the asset type {described.name!r}")
        found[described.name] = described
    return found


def asset_type(name: str) -> AssetType:
    """Return the asset type called `name`, or raise `NotFound` (``asset_type.unknown``)."""
    found = asset_types().get(name)
    if found is None:
        raise NotFound(
            "asset_type.unknown",
            f"asset type {name!r} is not known",
            hint=f"known types: {', '.join(sorted(asset_types()))}",
            value=name,
        )
    return found
