"""The testable assertions of the Sparkplug 3.0.0 specification for edge nodes and hosts.

Every id stands here, as the part that its section shares and what is its own; each is verified
by a test that carries it (`verifies`) or has a reason why there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

_BY_SECTION: Final[dict[str, str]] = {
    "case-sensitivity-": "metric-names sparkplug-ids",
    "components-": "ph-state",
    "conformance-": "primary-host",
    "host-topic-phid-": """
        birth-message birth-payload birth-payload-timestamp birth-qos birth-required birth-retain
        birth-sub-required birth-topic death-payload death-payload-timestamp-connect
        death-payload-timestamp-disconnect-clean
        death-payload-timestamp-disconnect-with-no-disconnect-packet death-qos death-required
        death-retain death-topic""",
    "intro-": """
        sparkplug-host-state group-id-string group-id-chars edge-node-id-string edge-node-id-chars
        device-id-string device-id-chars edge-node-id-uniqueness""",
    "message-flow-device-": """
        birth-publish-dbirth-match-edge-node-topic birth-publish-dbirth-payload
        birth-publish-dbirth-payload-seq birth-publish-dbirth-qos birth-publish-dbirth-retained
        birth-publish-dbirth-topic birth-publish-nbirth-wait dcmd-subscribe""",
    "message-flow-edge-node-": """
        birth-publish-connect birth-publish-nbirth-payload birth-publish-nbirth-payload-bdSeq
        birth-publish-nbirth-payload-seq birth-publish-nbirth-qos birth-publish-nbirth-retained
        birth-publish-nbirth-topic birth-publish-phid-offline birth-publish-phid-wait
        birth-publish-phid-wait-id birth-publish-phid-wait-online
        birth-publish-phid-wait-timestamp birth-publish-will-message
        birth-publish-will-message-payload birth-publish-will-message-payload-bdSeq
        birth-publish-will-message-qos birth-publish-will-message-topic
        birth-publish-will-message-will-retained ncmd-subscribe""",
    "message-flow-": """
        hid-sparkplug-state-message-delivered phid-sparkplug-clean-session-311
        phid-sparkplug-clean-session-50 phid-sparkplug-state-publish
        phid-sparkplug-state-publish-payload phid-sparkplug-state-publish-payload-timestamp
        phid-sparkplug-subscription""",
    "operational-behavior-data-commands-": """
        dcmd-metric-name dcmd-metric-value dcmd-verb ncmd-metric-name ncmd-metric-value
        ncmd-rebirth-name ncmd-rebirth-value ncmd-rebirth-verb ncmd-verb rebirth-action-1
        rebirth-action-2 rebirth-action-3 rebirth-datatype rebirth-name rebirth-name-aliases
        rebirth-value""",
    "operational-behavior-data-publish-": """
        dbirth dbirth-change dbirth-order dbirth-values nbirth nbirth-change nbirth-order
        nbirth-values""",
    "operational-behavior-": """
        device-ddeath edge-node-birth-sequence-wait edge-node-intentional-disconnect-ndeath
        edge-node-intentional-disconnect-packet
        edge-node-termination-host-action-ddeath-devices-offline
        edge-node-termination-host-action-ddeath-devices-tags-stale
        edge-node-termination-host-action-ndeath-devices-offline
        edge-node-termination-host-action-ndeath-devices-tags-stale
        edge-node-termination-host-action-ndeath-node-offline
        edge-node-termination-host-action-ndeath-node-tags-stale
        edge-node-termination-host-offline edge-node-termination-host-offline-reconnect
        edge-node-termination-host-offline-timestamp""",
    "operational-behavior-host-": """
        application-connect-birth application-connect-birth-payload
        application-connect-birth-qos application-connect-birth-retained
        application-connect-birth-topic application-connect-will application-connect-will-payload
        application-connect-will-qos application-connect-will-retained
        application-connect-will-topic application-death-payload application-death-qos
        application-death-retained application-death-topic application-disconnect-intentional
        application-host-id application-multi-server-timestamp application-termination
        reordering-param reordering-rebirth reordering-start reordering-success""",
    "operational-behavior-primary-application-state-with-multiple-servers-": """
        single-server state state-subs walk""",
    "payloads-": """
        alias-birth-requirement alias-data-cmd-requirement alias-uniqueness
        dataset-column-num-headers dataset-column-size dataset-parameter-type-req
        dataset-types-def dataset-types-num dataset-types-type dataset-types-value dbirth-order
        dbirth-qos dbirth-retain dbirth-seq dbirth-seq-inc dbirth-timestamp dcmd-qos dcmd-retain
        dcmd-seq dcmd-timestamp ddata-order ddata-qos ddata-retain ddata-seq ddata-seq-inc
        ddata-timestamp ddeath-seq ddeath-seq-inc ddeath-seq-number ddeath-timestamp
        metric-datatype-not-req metric-datatype-req metric-datatype-value
        metric-datatype-value-type metric-propertyvalue-type-req metric-propertyvalue-type-type
        metric-propertyvalue-type-value metric-timestamp-in-UTC name-birth-data-requirement
        name-cmd-requirement name-requirement nbirth-bdseq nbirth-bdseq-repeat
        nbirth-edge-node-descriptor nbirth-qos nbirth-rebirth-req nbirth-retain nbirth-seq
        nbirth-timestamp ncmd-qos ncmd-retain ncmd-seq ncmd-timestamp ndata-order ndata-qos
        ndata-retain ndata-seq ndata-seq-inc ndata-timestamp ndeath-bdseq ndeath-seq
        ndeath-will-message ndeath-will-message-publisher
        ndeath-will-message-publisher-disconnect-mqtt311
        ndeath-will-message-publisher-disconnect-mqtt50 ndeath-will-message-qos
        ndeath-will-message-retain propertyset-keys-array-size propertyset-quality-value-type
        propertyset-quality-value-value propertyset-values-array-size
        sequence-num-always-included sequence-num-incrementing sequence-num-req-nbirth
        state-birth state-birth-payload state-subscribe state-will-message
        state-will-message-payload state-will-message-qos state-will-message-retain
        timestamp-in-UTC""",
    "payloads-template-": """
        dataset-value definition-is-definition definition-members definition-nbirth
        definition-nbirth-only definition-parameters definition-parameters-default definition-ref
        instance-is-definition instance-members instance-members-birth instance-members-data
        instance-parameters instance-ref is-definition is-definition-definition
        is-definition-instance parameter-name-required parameter-name-type parameter-type-req
        parameter-type-value parameter-value parameter-value-type ref-definition ref-instance
        version""",
    "principles-": """
        birth-certificates-order persistence-clean-session-311 persistence-clean-session-50
        rbe-recommended""",
    "topic-structure": "",
    "topic-structure-namespace-": """
        a device-id-associated-message-types device-id-non-associated-message-types
        duplicate-device-id-across-edge-node unique-device-id unique-edge-node-descriptor
        valid-device-id valid-edge-node-id valid-group-id""",
    "topics-": """
        dbirth-metric-reqs dbirth-metrics dbirth-mqtt dbirth-seq dbirth-timestamp dbirth-topic
        dcmd-mqtt dcmd-payload dcmd-timestamp dcmd-topic ddata-mqtt ddata-payload ddata-seq-num
        ddata-timestamp ddata-topic ddeath-mqtt ddeath-seq-num ddeath-topic nbirth-bdseq-included
        nbirth-bdseq-increment nbirth-bdseq-matching nbirth-metric-reqs nbirth-metrics
        nbirth-mqtt nbirth-rebirth-metric nbirth-seq-num nbirth-templates nbirth-timestamp
        nbirth-topic ncmd-mqtt ncmd-payload ncmd-timestamp ncmd-topic ndata-mqtt ndata-payload
        ndata-seq-num ndata-timestamp ndata-topic ndeath-payload ndeath-seq ndeath-topic""",
}

ASSERTIONS: Final = frozenset(
    section + own for section, names in _BY_SECTION.items() for own in (names.split() or [""])
)
"""Every id, without ``tck-id-``."""

_NO_TEMPLATES: Final = "the edge node publishes no templates; the host tells that it reads none"
_NO_DATA_SETS: Final = "the edge node publishes no data sets; the host tells that it reads none"
_BY_OPERATOR: Final = "whoever names the nodes and hosts of a plant has to name each once"

NOT_TESTED: Final[dict[str, str]] = {
    **{name: _NO_TEMPLATES for name in ASSERTIONS if name.startswith("payloads-template-")},
    **{name: _NO_DATA_SETS for name in ASSERTIONS if name.startswith("payloads-dataset-")},
    "topics-nbirth-templates": _NO_TEMPLATES,
    "intro-edge-node-id-uniqueness": _BY_OPERATOR,
    "payloads-nbirth-edge-node-descriptor": _BY_OPERATOR,
    "topic-structure-namespace-unique-edge-node-descriptor": _BY_OPERATOR,
    "host-topic-phid-death-payload-timestamp-disconnect-with-no-disconnect-packet": (
        "the host always leaves with a DISCONNECT packet, or crashes and leaves it to its will"
    ),
    "operational-behavior-host-application-multi-server-timestamp": (
        "a connection of the agent is one broker, and each keeps a time of its own"
    ),
    "operational-behavior-primary-application-state-with-multiple-servers-state-subs": (
        "what is configured in a plant of several brokers; each part of it is tested for itself"
    ),
}
"""Ids without a test, each with its reason."""


def verifies(*names: str) -> Callable[[Test], Test]:
    """Say which assertions a test verifies."""

    def mark(test: Test) -> Test:
        test.verified = names  # type: ignore[attr-defined]
        return test

    return mark
