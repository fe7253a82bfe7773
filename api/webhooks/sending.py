"""Attempts: one delivery to one address, and what follows from what was answered.

Whatever is no 2xx is tried again, later and later, until the delivery is too old or was tried too
often; `410 Gone` says that nobody wants any.

References
----------
Standard Webhooks 1.0.0, "deliverability and reliability". M. Brooker, "Exponential backoff and
jitter" (2015): full jitter. RFC 9110 (2022), 10.2.3: Retry-After.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from opentelemetry import trace

from api.settings import ServerSettings
from api.tracing import traceparent_of
from api.webhooks.cloudevents import CloudEvent, on_the_wire
from api.webhooks.egress import Answer, CallFailed, Egress
from api.webhooks.signature import signed_headers
from api.webhooks.store import Delivery, DeliveryState, Outcome
from domain.webhooks import WebhookSettings

tracer = trace.get_tracer("heddle.webhooks")

RETRY_S_FIRST: Final = 1.0
"""Bound of the first pause; it doubles with each attempt."""

FAILURE_LENGTH_MAX: Final = 500
USER_AGENT: Final = "Heddle-Webhooks/1.0"
GONE: Final = 410


class EndpointGone(Exception):
    """The address says that it is no more, for good."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """When a delivery is tried again, and when it is given up.

    Parameters
    ----------
    retry_s_max : longest pause that is not asked for
    """

    attempts_max: int
    age_s_max: float
    retry_s_max: float

    @classmethod
    def of(cls, settings: ServerSettings) -> RetryRules:
        """Return the rules of `settings`."""
        return cls(
            settings.webhook_attempts_max, settings.webhook_age_s_max, settings.webhook_retry_s_max
        )

    def next_try(
        self, delivery: Delivery, now: datetime, asked_s: float, generator: random.Random
    ) -> datetime | None:
        """Return when `delivery`, which has just failed, is tried again; None: it is given up.

        Parameters
        ----------
        asked_s : for so long the address asks to be left alone
        """
        attempts = delivery.attempts + 1
        given_up_at = delivery.created_at + timedelta(seconds=self.age_s_max)
        if attempts >= self.attempts_max or now >= given_up_at:
            return None
        doublings = min(attempts - 1, 60)
        bound_s = min(self.retry_s_max, RETRY_S_FIRST * math.pow(2.0, doublings))
        pause_s = max(asked_s, generator.uniform(0.0, bound_s))
        return now + timedelta(seconds=pause_s)


def retry_after_s(text: str | None, now: datetime) -> float:
    """Return for how long an address asks to be left alone, s; 0 where it says nothing usable."""
    if text is None:
        return 0.0
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


async def attempt(
    egress: Egress,
    settings: WebhookSettings,
    delivery: Delivery,
    body: bytes,
    keys: Sequence[bytes],
    ledger: str,
    now: datetime,
) -> Answer:
    """Send `delivery` once and return what was answered.

    Parameters
    ----------
    keys : the secrets that it is signed with, the newest first
    now : what the signature is dated with

    Raises
    ------
    CallFailed
        nothing was answered
    """
    with tracer.start_as_current_span(
        "webhook delivery",
        kind=trace.SpanKind.CLIENT,
        attributes={
            "heddle.webhook": delivery.webhook_id,
            "heddle.delivery": delivery.delivery_id,
            "heddle.attempt": delivery.attempts + 1,
            "cloudevents.event_type": delivery.event_type,
        },
    ) as span:
        event = CloudEvent(
            id=delivery.message_id,
            source=f"/ledgers/{ledger}/webhooks/{delivery.webhook_id}",
            type=delivery.event_type,
            subject=delivery.subject,
            time=delivery.occurred_at,
            lane=delivery.lane,
            sequence=delivery.position,
            traceparent=traceparent_of(span),
            body=body,
        )
        headers, content = on_the_wire(event, settings.mode)
        signed = signed_headers(keys, delivery.message_id, int(now.timestamp()), content)
        try:
            answer = await egress.post(
                settings.url, {"user-agent": USER_AGENT, **headers, **signed}, content
            )
        except CallFailed as failed:
            span.set_attribute("error.type", failed.code)
            raise
        span.set_attribute("http.response.status_code", answer.status)
        return answer


def is_delivered(answer: Answer) -> bool:
    """Return whether the receiver has taken it."""
    return 200 <= answer.status < 300


def outcome_of(
    result: Answer | CallFailed,
    delivery: Delivery,
    rules: RetryRules,
    now: datetime,
    generator: random.Random,
) -> Outcome:
    """Return what an attempt came to.

    Raises
    ------
    EndpointGone
    """
    if isinstance(result, Answer) and is_delivered(result):
        return Outcome(DeliveryState.DELIVERED, now, result.seconds, result.status)
    asked_s = 0.0
    if isinstance(result, Answer):
        if result.status == GONE:
            raise EndpointGone
        status: int | None = result.status
        code, failure = "webhook.refused", _told(result)
        asked_s = min(retry_after_s(result.retry_after, now), rules.age_s_max)
    else:
        status, code, failure = None, result.code, result.message
    next_try = rules.next_try(delivery, now, asked_s, generator)
    return Outcome(
        state=DeliveryState.DEAD if next_try is None else DeliveryState.PENDING,
        at=now,
        duration_s=result.seconds,
        status_code=status,
        next_try_at=next_try,
        failure_code=code,
        failure=failure[:FAILURE_LENGTH_MAX],
        quiet_until=now + timedelta(seconds=asked_s) if asked_s > 0 else None,
    )


def _told(answer: Answer) -> str:
    excerpt = " ".join(answer.excerpt.replace("\0", " ").split())
    return f"{answer.status}: {excerpt}" if excerpt else str(answer.status)
