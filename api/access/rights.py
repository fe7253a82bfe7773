"""Rights, and which role has which. A field of the schema and an endpoint each name one.

A right says what may be done; what it may be done to is the identity's scope (`api.access.sight`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What somebody is in the plant."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    MAINTENANCE = "maintenance"
    QUALITY = "quality"
    ENGINEER = "engineer"
    AUDITOR = "auditor"
    ADMIN = "admin"
    AGENT = "agent"


class Right(StrEnum):
    """What may be done."""

    READ = "read"  # plant, twins, readings, thread, figures, documents
    COMMAND = "command"  # commands at all; each one takes a right of its own beyond
    AUDIT = "audit"  # the audit trail, who did what
    OPERATE = "operate"  # runs, lots, parts, alerts acknowledged, set-points desired
    MAINTAIN = "maintain"  # work orders, spare parts, components installed and removed
    INSPECT = "inspect"  # inspections, non-conformances, quarantine, instruments
    ENGINEER = "engineer"  # the plant and its assets, documents, scenarios, set-points approved
    PREDICT = "predict"  # predictions, models, drift
    REPORT = "report"  # what an agent says of its assets: alerts, reported set-points
    INGEST = "ingest"  # frames
    INTEGRATE = "integrate"  # webhooks
    ADMINISTER = "administer"  # keys, erasure, projections


_EVERYBODY: Final = frozenset({Right.READ})

RIGHTS_OF: Final[Mapping[Role, frozenset[Right]]] = {
    Role.VIEWER: _EVERYBODY,
    Role.OPERATOR: _EVERYBODY | {Right.COMMAND, Right.OPERATE},
    Role.MAINTENANCE: _EVERYBODY | {Right.COMMAND, Right.OPERATE, Right.MAINTAIN},
    Role.QUALITY: _EVERYBODY | {Right.COMMAND, Right.OPERATE, Right.INSPECT, Right.AUDIT},
    Role.ENGINEER: _EVERYBODY
    | {
        Right.COMMAND,
        Right.OPERATE,
        Right.MAINTAIN,
        Right.INSPECT,
        Right.ENGINEER,
        Right.PREDICT,
        Right.INTEGRATE,
    },
    Role.AUDITOR: _EVERYBODY | {Right.AUDIT},
    Role.ADMIN: frozenset(Right),
    Role.AGENT: frozenset({Right.COMMAND, Right.INGEST, Right.REPORT, Right.PREDICT}),
}
