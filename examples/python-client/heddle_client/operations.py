"""Written by generate.py from operations.graphql: do not edit."""

# fmt: off
# ruff: noqa: E501

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from heddle_client.client import Operation


def _spelled(name: str) -> str:
    """Return the schema's spelling of a name that Python has for itself, such as `from_`."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)


class AssetsDataAssetsNodesTwinHealth(Struct, frozen=True, rename="camel"):
    status: Literal["GOOD", "WARNING", "CRITICAL", "UNKNOWN"]
    index: float | None


class AssetsDataAssetsNodesTwin(Struct, frozen=True, rename="camel"):
    connectivity: Literal["ONLINE", "STALE", "NEVER_SEEN"]
    last_reading_at: datetime | None
    open_alert_count: int
    health: AssetsDataAssetsNodesTwinHealth


class AssetsDataAssetsNodes(Struct, frozen=True, rename="camel"):
    asset_id: str
    title: str
    lifecycle: Literal["REGISTERED", "IN_SERVICE", "RETIRED"]
    version: int
    twin: AssetsDataAssetsNodesTwin


class AssetsDataAssetsPageInfo(Struct, frozen=True, rename="camel"):
    has_next_page: bool
    end_cursor: str | None


class AssetsDataAssets(Struct, frozen=True, rename="camel"):
    nodes: list[AssetsDataAssetsNodes]
    page_info: AssetsDataAssetsPageInfo
    position: int


class AssetsData(Struct, frozen=True, rename="camel"):
    assets: AssetsDataAssets


class AssetFilter(Struct, frozen=True, rename="camel", kw_only=True):
    asset_types: list[str] | UnsetType | None = UNSET
    lifecycles: list[Literal["REGISTERED", "IN_SERVICE", "RETIRED"]] | UnsetType | None = UNSET
    locations: list[str] | UnsetType | None = UNSET


class AssetsVariables(Struct, frozen=True, rename="camel", kw_only=True):
    first: int
    after: str | UnsetType | None = UNSET
    filter: AssetFilter | UnsetType | None = UNSET
    min_position: int | UnsetType | None = UNSET


class ReadingsDataAssetReadings(Struct, frozen=True, rename="camel"):
    channel: str
    unit: str
    tier: Literal["RAW", "SECOND", "MINUTE", "HOUR"]
    count: int
    times_ms: list[float | None]
    values: list[float | None]
    qualities: list[int]


class ReadingsDataAsset(Struct, frozen=True, rename="camel"):
    readings: list[ReadingsDataAssetReadings]


class ReadingsData(Struct, frozen=True, rename="camel"):
    asset: ReadingsDataAsset | None


class ChannelUnit(Struct, frozen=True, rename="camel", kw_only=True):
    channel: str
    unit: str


class ReadingsVariables(Struct, frozen=True, rename=_spelled, kw_only=True):
    asset_id: str
    from_: datetime
    to: datetime
    max_points: int
    channels: list[str] | UnsetType | None = UNSET
    units: list[ChannelUnit] | UnsetType | None = UNSET


class ThreadDataTraceNodes(Struct, frozen=True, rename="camel"):
    key: str
    kind: Literal["UNKNOWN", "DOCUMENT", "LOT", "PART", "PROCESS_RUN", "ASSET", "COMPONENT", "INSPECTION", "NONCONFORMANCE", "SHIPMENT", "FAILURE", "ALERT", "WORK_ORDER", "PREDICTION", "MODEL", "SCENARIO", "SETPOINT_PROPOSAL", "INSTRUMENT", "LOCATION", "SPARE_PART"]
    state: Literal["MENTIONED", "ACTIVE", "IN_PROCESS", "IN_STOCK", "QUARANTINED", "ASSEMBLED", "SCRAPPED", "SHIPPED", "RETURNED", "FAILED", "COMPLETED", "ABORTED", "GOOD", "DEFECTIVE", "CRITICAL", "SUPERSEDED", "CLOSED", "RETIRED", "CONSUMED"]
    depth: int


class ThreadDataTraceLinks(Struct, frozen=True, rename="camel"):
    kind: Literal["SPECIFIED", "CERTIFIED", "CONSUMED_BY", "PROCESSED_BY", "PRODUCED", "PERFORMED", "SPLIT_INTO", "MERGED_INTO", "ASSEMBLED_INTO", "INSPECTED_BY", "MEASURED_WITH", "FOUND", "CONCERNS", "SHIPPED_IN", "FAILED_AS", "INSTALLED_IN", "EMBODIED_BY", "RAISED", "LED_TO", "SERVICED", "PREDICTED", "ABOUT", "CONFIRMED_BY", "USED_IN", "REWORKED_FOR", "SUPERSEDED_BY", "LOCATED_IN", "MADE_FROM"]
    cause: str
    effect: str
    quantity: float | None
    unit: str | None


class ThreadDataTrace(Struct, frozen=True, rename="camel"):
    nodes: list[ThreadDataTraceNodes]
    links: list[ThreadDataTraceLinks]
    cut: Literal["NODES", "DEPTH", "SIGHT"] | None


class ThreadData(Struct, frozen=True, rename="camel"):
    trace: ThreadDataTrace


class ThreadVariables(Struct, frozen=True, rename="camel", kw_only=True):
    roots: list[str]
    direction: Literal["BACK", "FORWARD", "BOTH"]
    first: int


class ReceiveLotDataReceiveLotConflictError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="ConflictError"):
    code: str
    message: str
    hint: str
    path: list[str]


class ReceiveLotDataReceiveLotNotAllowedError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="NotAllowedError"):
    code: str
    message: str
    hint: str
    path: list[str]


class ReceiveLotDataReceiveLotNotFoundError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="NotFoundError"):
    code: str
    message: str
    hint: str
    path: list[str]


class ReceiveLotDataReceiveLotReceiveLotSuccessLot(Struct, frozen=True, rename="camel"):
    lot_id: str
    material: str | None
    state: Literal["UNKNOWN", "IN_STOCK", "QUARANTINED", "MERGED", "SCRAPPED", "SHIPPED"]


class ReceiveLotDataReceiveLotReceiveLotSuccess(Struct, frozen=True, rename="camel", tag_field="__typename", tag="ReceiveLotSuccess"):
    position: int
    version: int
    duplicate: bool
    lot: ReceiveLotDataReceiveLotReceiveLotSuccessLot | None


class ReceiveLotDataReceiveLotRejectedError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="RejectedError"):
    code: str
    message: str
    hint: str
    path: list[str]


class ReceiveLotDataReceiveLotUnavailableError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="UnavailableError"):
    code: str
    message: str
    hint: str
    path: list[str]


class ReceiveLotDataReceiveLotValidationError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="ValidationError"):
    code: str
    message: str
    hint: str
    path: list[str]


class ReceiveLotData(Struct, frozen=True, rename="camel"):
    receive_lot: ReceiveLotDataReceiveLotConflictError | ReceiveLotDataReceiveLotNotAllowedError | ReceiveLotDataReceiveLotNotFoundError | ReceiveLotDataReceiveLotReceiveLotSuccess | ReceiveLotDataReceiveLotRejectedError | ReceiveLotDataReceiveLotUnavailableError | ReceiveLotDataReceiveLotValidationError


class ReceiveLotInput(Struct, frozen=True, rename="camel", kw_only=True):
    idempotency_key: str
    lot_id: str
    material: str
    quantity: float
    unit: str
    supplier: str
    supplier_lot: str
    expected_version: int | UnsetType | None = UNSET
    dry_run: bool | UnsetType = UNSET
    occurred_at: datetime | UnsetType | None = UNSET
    certificate: str | UnsetType | None = UNSET
    late: bool | UnsetType = UNSET


class ReceiveLotVariables(Struct, frozen=True, rename="camel", kw_only=True):
    input: ReceiveLotInput


class DesireSetpointDataDesireSetpointConflictError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="ConflictError"):
    code: str
    message: str
    hint: str
    path: list[str]


class DesireSetpointDataDesireSetpointDesireSetpointSuccess(Struct, frozen=True, rename="camel", tag_field="__typename", tag="DesireSetpointSuccess"):
    position: int
    duplicate: bool


class DesireSetpointDataDesireSetpointNotAllowedError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="NotAllowedError"):
    code: str
    message: str
    hint: str
    path: list[str]


class DesireSetpointDataDesireSetpointNotFoundError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="NotFoundError"):
    code: str
    message: str
    hint: str
    path: list[str]


class DesireSetpointDataDesireSetpointRejectedError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="RejectedError"):
    code: str
    message: str
    hint: str
    path: list[str]


class DesireSetpointDataDesireSetpointUnavailableError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="UnavailableError"):
    code: str
    message: str
    hint: str
    path: list[str]


class DesireSetpointDataDesireSetpointValidationError(Struct, frozen=True, rename="camel", tag_field="__typename", tag="ValidationError"):
    code: str
    message: str
    hint: str
    path: list[str]


class DesireSetpointData(Struct, frozen=True, rename="camel"):
    desire_setpoint: DesireSetpointDataDesireSetpointConflictError | DesireSetpointDataDesireSetpointDesireSetpointSuccess | DesireSetpointDataDesireSetpointNotAllowedError | DesireSetpointDataDesireSetpointNotFoundError | DesireSetpointDataDesireSetpointRejectedError | DesireSetpointDataDesireSetpointUnavailableError | DesireSetpointDataDesireSetpointValidationError


class DesireSetpointInput(Struct, frozen=True, rename="camel", kw_only=True):
    idempotency_key: str
    asset_id: str
    setpoint: str
    value: float
    expected_version: int | UnsetType | None = UNSET
    dry_run: bool | UnsetType = UNSET
    occurred_at: datetime | UnsetType | None = UNSET
    unit: str | UnsetType | None = UNSET


class DesireSetpointVariables(Struct, frozen=True, rename="camel", kw_only=True):
    input: DesireSetpointInput


class EventsDataEventsEvent(Struct, frozen=True, rename="camel"):
    position: int
    stream: str
    type: str
    occurred_at: datetime
    actor: str
    fact: Any


class EventsDataEvents(Struct, frozen=True, rename="camel"):
    cursor: str
    lag: int
    event: EventsDataEventsEvent


class EventsData(Struct, frozen=True, rename="camel"):
    events: EventsDataEvents


class EventFilter(Struct, frozen=True, rename="camel", kw_only=True):
    types: list[str] | UnsetType | None = UNSET
    streams: list[str] | UnsetType | None = UNSET
    categories: list[str] | UnsetType | None = UNSET


class EventsVariables(Struct, frozen=True, rename="camel", kw_only=True):
    after: str | UnsetType | None = UNSET
    filter: EventFilter | UnsetType | None = UNSET


class AlertsDataAlertsAlerts(Struct, frozen=True, rename="camel"):
    alert_id: str
    asset_id: str
    severity: Literal["WARNING", "CRITICAL"]
    state: Literal["RAISED", "ACKNOWLEDGED", "CLEARED"]
    message: str
    raised_at: datetime


class AlertsDataAlerts(Struct, frozen=True, rename="camel"):
    cursor: str
    lag: int
    alerts: list[AlertsDataAlertsAlerts]


class AlertsData(Struct, frozen=True, rename="camel"):
    alerts: AlertsDataAlerts


class AlertsVariables(Struct, frozen=True, rename="camel", kw_only=True):
    after: str | UnsetType | None = UNSET


ASSETS = Operation(
    "query",
    """query Assets($first: Int!, $after: Cursor, $filter: AssetFilter, $minPosition: Position) {
  assets(first: $first, after: $after, filter: $filter, minPosition: $minPosition) {
    nodes {
      assetId
      title
      lifecycle
      version
      twin {
        connectivity
        lastReadingAt
        openAlertCount
        health {
          status
          index
        }
      }
    }
    pageInfo {
      hasNextPage
      endCursor
    }
    position
  }
}""",
    AssetsVariables,
    AssetsData,
)


READINGS = Operation(
    "query",
    """query Readings(
  $assetId: ID!
  $from: DateTime!
  $to: DateTime!
  $channels: [String!]
  $maxPoints: Int!
  $units: [ChannelUnit!]
) {
  asset(assetId: $assetId) {
    readings(from: $from, to: $to, channels: $channels, maxPoints: $maxPoints, units: $units) {
      channel
      unit
      tier
      count
      timesMs
      values
      qualities
    }
  }
}""",
    ReadingsVariables,
    ReadingsData,
)


THREAD = Operation(
    "query",
    """query Thread($roots: [String!]!, $direction: TraceDirection!, $first: Int!) {
  trace(roots: $roots, direction: $direction, first: $first) {
    nodes {
      key
      kind
      state
      depth
    }
    links {
      kind
      cause
      effect
      quantity
      unit
    }
    cut
  }
}""",
    ThreadVariables,
    ThreadData,
)


RECEIVE_LOT = Operation(
    "mutation",
    """mutation ReceiveLot($input: ReceiveLotInput!) {
  receiveLot(input: $input) {
    __typename
    ... on ReceiveLotSuccess {
      position
      version
      duplicate
      lot {
        lotId
        material
        state
      }
    }
    ... on Error {
      code
      message
      hint
      path
    }
  }
}""",
    ReceiveLotVariables,
    ReceiveLotData,
)


DESIRE_SETPOINT = Operation(
    "mutation",
    """mutation DesireSetpoint($input: DesireSetpointInput!) {
  desireSetpoint(input: $input) {
    __typename
    ... on DesireSetpointSuccess {
      position
      duplicate
    }
    ... on Error {
      code
      message
      hint
      path
    }
  }
}""",
    DesireSetpointVariables,
    DesireSetpointData,
)


EVENTS = Operation(
    "subscription",
    """subscription Events($after: Cursor, $filter: EventFilter) {
  events(after: $after, filter: $filter) {
    cursor
    lag
    event {
      position
      stream
      type
      occurredAt
      actor
      fact
    }
  }
}""",
    EventsVariables,
    EventsData,
)


ALERTS = Operation(
    "subscription",
    """subscription Alerts($after: Cursor) {
  alerts(after: $after) {
    cursor
    lag
    alerts {
      alertId
      assetId
      severity
      state
      message
      raisedAt
    }
  }
}""",
    AlertsVariables,
    AlertsData,
)
