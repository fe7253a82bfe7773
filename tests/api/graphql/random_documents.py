"""Random documents that are valid: aliases, fragments, directives, arguments, wrong names too."""

from __future__ import annotations

from random import Random
from typing import Any, Final

ROOTS: Final[dict[str, tuple[list[str], str]]] = {
    "assets": (
        ["(first: 2)", "(first: 100)", "(first: $n)", "(first: 5, filter: {lifecycles: []})"],
        "AssetConnection",
    ),
    "asset": (
        ['(assetId: "pump-1")', '(assetId: "pump-9")', '(assetId: "a b")', "(assetId: $asset)"],
        "Asset",
    ),
    "alerts": (["(first: 3)", "(first: $n)"], "AlertConnection"),
    "trace": (
        [
            '(roots: ["asset:pump-1"], direction: BOTH)',
            '(roots: ["part:none"], direction: BACK)',
        ],
        "ThreadGraph",
    ),
    "assetTypes": ([""], "AssetType"),
    "__typename": ([""], ""),
}
"""Root fields, ways to ask for them, and what they return."""

FIELDS: Final[dict[str, list[tuple[str, list[str], str]]]] = {
    "AssetConnection": [
        ("nodes", [""], "Asset"),
        ("edges", [""], "AssetEdge"),
        ("pageInfo", [""], "PageInfo"),
        ("position", [""], ""),
        ("__typename", [""], ""),
    ],
    "AssetEdge": [("cursor", [""], ""), ("node", [""], "Asset")],
    "AlertConnection": [("nodes", [""], "Alert"), ("position", [""], "")],
    "PageInfo": [("hasNextPage", [""], ""), ("endCursor", [""], ""), ("startCursor", [""], "")],
    "Asset": [
        *[(name, [""], "") for name in ("id", "assetId", "title", "lifecycle", "version")],
        ("registeredAt", [""], ""),
        ("__typename", [""], ""),
        ("type", [""], "AssetType"),
        ("twin", [""], "Twin"),
        ("alerts", ["(first: 2)"], "AlertConnection"),
    ],
    "Alert": [
        *[(name, [""], "") for name in ("alertId", "severity", "state", "since", "note")],
        ("value", ["", '(unit: "bar")', '(unit: "parsec")'], ""),
        ("clearedAt", [""], ""),
        ("asset", [""], "Asset"),
    ],
    "AssetType": [("name", [""], ""), ("title", [""], ""), ("channels", [""], "Channel")],
    "Channel": [("name", [""], ""), ("quantity", [""], ""), ("siUnit", [""], "")],
    "Twin": [
        *[(name, [""], "") for name in ("connectivity", "lastReadingAt", "openAlertCount")],
        ("asOf", [""], ""),
        ("position", [""], ""),
        ("health", [""], "Health"),
        ("readings", ["", '(channels: ["flow"])', "(channels: [])"], "ChannelReading"),
        ("setpoints", [""], "SetpointState"),
    ],
    "Health": [("status", [""], ""), ("index", [""], ""), ("reasons", [""], "HealthReason")],
    "HealthReason": [("channel", [""], ""), ("value", ["", '(unit: "bar")'], "")],
    "ChannelReading": [
        *[(name, [""], "") for name in ("channel", "siUnit", "readAt", "ageS", "status")],
        ("value", ["", '(unit: "K")', '(unit: "l/min")'], ""),
    ],
    "SetpointState": [("setpoint", [""], ""), ("desired", ["", '(unit: "l/min")'], "")],
    "ThreadGraph": [
        ("nodes", [""], "ThreadNode"),
        ("links", [""], "ThreadLink"),
        ("outOfSight", [""], ""),
    ],
    "ThreadNode": [
        (n, [""], "") for n in ("key", "kind", "state", "depth", "firstPosition", "missing")
    ],
    "ThreadLink": [(name, [""], "") for name in ("kind", "cause", "effect", "validTo", "quantity")],
}
"""Fields of a type, ways to ask for them, and what they return."""

DEPTH_MAX: Final = 5
DIRECTIVES: Final = ["", "", "", "", " @include(if: $on)", " @skip(if: $on)", " @skip(if: false)"]


class DocumentMaker:
    """Makes documents by chance; the same from the same seed."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        self._fragments: list[str] = []

    def request(self) -> dict[str, Any]:
        """Return a request: a document and its variables."""
        self._fragments = []
        chance = self._chance
        body = " ".join(
            f"r{n}: {self._field(name, *ROOTS[name], 0)}"
            for n, name in enumerate(chance.choices(list(ROOTS), k=chance.randint(1, 3)))
        )
        document = (
            f'query Q($n: Int! = 2, $on: Boolean! = true, $asset: ID! = "pump-2") {{ {body} '
            "used: assets(first: $n) { position @skip(if: $on) __typename } "
            "also: asset(assetId: $asset) { __typename } }"
        ) + " ".join(["", *self._fragments])
        variables = chance.choice(
            [{}, {"n": 3}, {"on": False}, {"n": 0}, {"n": None}, {"asset": "pump-3", "on": False}]
        )
        return {"query": document, "variables": variables}

    def _field(self, name: str, ways: list[str], returned: str, depth: int) -> str:
        inside = f" {{ {self._selection(returned, depth + 1)} }}" if returned else ""
        directive = self._chance.choice(DIRECTIVES) if depth else ""
        return f"{name}{self._chance.choice(ways)}{directive}{inside}"

    def _selection(self, type_: str, depth: int) -> str:
        chance = self._chance
        fields = [f for f in FIELDS[type_] if depth < DEPTH_MAX or not f[2]] or [
            ("__typename", [""], "")
        ]
        told = []
        for n, (name, ways, returned) in enumerate(
            chance.sample(fields, k=chance.randint(1, len(fields)))
        ):
            alias = f"d{depth}_{n}: " if len(ways) > 1 or chance.random() < 0.2 else ""
            told.append(alias + self._field(name, ways, returned, depth))
        body = " ".join(told)
        match chance.randrange(6):
            case 0:
                return f"... on {type_} {{ {body} }}"
            case 1:
                fragment = f"F{len(self._fragments)}"
                self._fragments.append(f"fragment {fragment} on {type_} {{ {body} }}")
                return f"...{fragment}"
        return body
