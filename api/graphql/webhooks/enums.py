"""Enumerations of webhooks."""

from __future__ import annotations

from api.graphql.scalars import described_enum
from api.webhooks.store import DeliveryState
from domain.webhooks import ContentMode, WebhookStatus

described_enum(
    ContentMode,
    "How a CloudEvent goes over HTTP.",
    {
        "STRUCTURED": "The event and its data are the JSON body; the signature covers all of it.",
        "BINARY": "The data is the body, the event's attributes are headers `ce-…`; the signature "
        "covers the body alone.",
    },
    name="WebhookContentMode",
)
described_enum(
    WebhookStatus,
    "Whether a webhook delivers.",
    {
        "ACTIVE": "It does.",
        "PAUSED": "Somebody wants it to rest; nothing is lost.",
        "STOPPED": "It had to stop, `stopCode` says why; resume it once that is put right.",
        "DELETED": "It is no more.",
    },
)
described_enum(
    DeliveryState,
    "What became of a delivery.",
    {
        "PENDING": "It waits for its turn, or for its next attempt.",
        "DELIVERED": "The receiver has taken it: it answered 2xx.",
        "DEAD": "It was given up after too many attempts, or too long; it can be redelivered.",
        "WITHDRAWN": "What it told of came to lie out of the webhook's sight before it was taken.",
    },
    name="WebhookDeliveryState",
)
