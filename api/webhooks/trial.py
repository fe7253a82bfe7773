"""A test of a webhook: one delivery that says nothing but that it is one, sent now and once."""

from __future__ import annotations

import random
from typing import Final

import orjson

from api.services import Services
from api.webhooks import store
from api.webhooks.cloudevents import TYPE_PREFIX
from api.webhooks.egress import Answer, CallFailed, Egress
from api.webhooks.policy import EgressPolicy
from api.webhooks.secret_store import SecretStore
from api.webhooks.sending import EndpointGone, RetryRules, attempt, outcome_of
from api.webhooks.store import Delivery, DeliveryState, NewDelivery, Outcome
from eventlog.reading import read_event
from projections.webhooks import WebhookRow

_ONCE: Final = RetryRules(attempts_max=1, age_s_max=0.0, retry_s_max=0.0)


def new_egress(services: Services) -> Egress:
    """Return what calls addresses as the settings of `services` allow."""
    settings = services.settings
    return Egress(
        EgressPolicy.of(settings),
        timeout_s=settings.webhook_timeout_s,
        ca_file=None if settings.webhook_ca_file is None else str(settings.webhook_ca_file),
    )


async def deliver_test(services: Services, row: WebhookRow, position: int) -> Delivery:
    """Send the test that the event at `position` tells of, and return what became of it.

    Asked for again it is sent no second time.

    Raises
    ------
    Unavailable
        as `SecretStore.valid`
    """
    ledger = services.ledger
    event = await read_event(ledger, position)
    assert event is not None, "it was recorded"
    secrets = SecretStore(ledger, services.settings)
    keys = await secrets.valid(row, store.utc_now())
    body = orjson.dumps({"data": {"webhook": row.webhook_id, "title": row.settings.title}})
    made = NewDelivery(
        after_position=position - 1,
        position=position,
        event_id=event.event_id,
        event_type=f"{TYPE_PREFIX}webhook.test",
        subject=event.stream,
        lane=event.stream,
        occurred_at=event.occurred_at,
        body=body,
        sight=b"",
    )
    delivery = await store.plan_test(ledger, row, made, store.utc_now())
    if delivery.state is not DeliveryState.PENDING:
        return delivery
    egress = new_egress(services)
    try:
        outcome = await _outcome(egress, row, delivery, body, keys, ledger.name)
    finally:
        await egress.close()
    await store.settle(ledger, delivery, outcome)
    return delivery


async def _outcome(
    egress: Egress,
    row: WebhookRow,
    delivery: Delivery,
    body: bytes,
    keys: list[bytes],
    ledger: str,
) -> Outcome:
    now = store.utc_now()
    result: Answer | CallFailed
    try:
        result = await attempt(egress, row.settings, delivery, body, keys, ledger, now)
    except CallFailed as failed:
        result = failed
    try:
        return outcome_of(result, delivery, _ONCE, store.utc_now(), random.SystemRandom())
    except EndpointGone:
        assert isinstance(result, Answer)
        return Outcome(
            DeliveryState.DEAD,
            store.utc_now(),
            result.seconds,
            result.status,
            failure_code="webhook.endpoint_gone",
            failure="410: the address wants no deliveries any more",
        )
