"""When a delivery is tried again, and when it is given up."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from api.webhooks.egress import Answer, CallFailed
from api.webhooks.run import waits_for_address
from api.webhooks.sending import EndpointGone, RetryRules, outcome_of, retry_after_s
from api.webhooks.store import Delivery, DeliveryState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = RetryRules(attempts_max=10, age_s_max=7_200.0, retry_s_max=60.0)


def delivery(attempts: int = 0, age_s: float = 0.0) -> Delivery:
    return Delivery(
        delivery_id=1,
        webhook_id="wh-1",
        run=1,
        after_position=0,
        position=1,
        event_id=uuid.UUID(int=1),
        event_type="io.heddle.asset.registered",
        subject="asset:a",
        lane="asset:a",
        occurred_at=NOW,
        is_test=False,
        sight=b"",
        state=DeliveryState.PENDING,
        attempts=attempts,
        created_at=NOW - timedelta(seconds=age_s),
        next_try_at=None,
        attempted_at=None,
        status_code=None,
        duration_s=None,
        failure_code=None,
        failure=None,
    )


def answered(status: int, retry_after: str | None = None) -> Answer:
    return Answer(status, "", retry_after, 0.1)


def pause_s(attempts: int, result: Answer, seed: int = 0) -> float:
    outcome = outcome_of(result, delivery(attempts), RULES, NOW, random.Random(seed))
    assert outcome.next_try_at is not None
    return (outcome.next_try_at - NOW).total_seconds()


@pytest.mark.parametrize("attempts", range(9))
def test_pauses_are_spread_over_a_bound_that_doubles(attempts: int) -> None:
    bound_s = min(60.0, 2.0**attempts)
    pauses = [pause_s(attempts, answered(500), seed) for seed in range(400)]
    assert 0 <= min(pauses) < 0.05 * bound_s
    assert 0.95 * bound_s < max(pauses) <= bound_s
    assert sum(pauses) / len(pauses) == pytest.approx(bound_s / 2, rel=0.1)


@pytest.mark.parametrize("attempts", [10, 1_000])
def test_a_pause_never_overflows(attempts: int) -> None:
    rules = RetryRules(attempts_max=10**6, age_s_max=1e9, retry_s_max=60.0)
    outcome = outcome_of(answered(500), delivery(attempts), rules, NOW, random.Random(1))
    assert outcome.next_try_at is not None
    assert outcome.next_try_at - NOW <= timedelta(seconds=60)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 0.0),
        ("", 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("1e3", 0.0),
        ("٣", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sunday, 01-Mar-26 12:00:05 GMT", 5.0),
        ("99999999999999999999", 0.0),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(text: str | None, seconds: float) -> None:
    """RFC 9110, 10.2.3: seconds, or a date in any of three forms."""
    assert retry_after_s(text, NOW) == seconds


def test_an_address_that_asks_for_patience_gets_it() -> None:
    outcome = outcome_of(answered(429, "3600"), delivery(), RULES, NOW, random.Random(1))
    assert outcome.next_try_at == outcome.quiet_until == NOW + timedelta(hours=1)
    bounded = outcome_of(answered(503, "999999999"), delivery(), RULES, NOW, random.Random(1))
    assert bounded.next_try_at == NOW + timedelta(seconds=RULES.age_s_max)


@pytest.mark.parametrize(
    ("attempts", "age_s", "state"),
    [
        (8, 0.0, DeliveryState.PENDING),
        (9, 0.0, DeliveryState.DEAD),
        (0, 7_199.0, DeliveryState.PENDING),
        (0, 7_200.0, DeliveryState.DEAD),
    ],
)
def test_it_is_given_up_after_too_many_attempts_or_too_long(
    attempts: int, age_s: float, state: DeliveryState
) -> None:
    for result in (answered(500), CallFailed("webhook.timeout", "no answer", 1.0)):
        outcome = outcome_of(result, delivery(attempts, age_s), RULES, NOW, random.Random(1))
        assert outcome.state is state
        assert (outcome.next_try_at is None) == (state is DeliveryState.DEAD)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_taken(status: int) -> None:
    outcome = outcome_of(answered(status), delivery(), RULES, NOW, random.Random(1))
    assert (outcome.state, outcome.status_code) == (DeliveryState.DELIVERED, status)


@pytest.mark.parametrize("status", [100, 199, 300, 301, 304, 307, 400, 401, 404, 409, 500, 599])
def test_everything_else_is_tried_again(status: int) -> None:
    outcome = outcome_of(answered(status), delivery(), RULES, NOW, random.Random(1))
    assert (outcome.state, outcome.failure_code) == (DeliveryState.PENDING, "webhook.refused")


def test_gone_is_for_good() -> None:
    with pytest.raises(EndpointGone):
        outcome_of(answered(410), delivery(), RULES, NOW, random.Random(1))


@pytest.mark.parametrize(
    ("code", "status", "waits"),
    [
        ("webhook.refused", 503, True),
        ("webhook.refused", 429, True),
        ("webhook.refused", 500, False),
        ("webhook.refused", 400, False),
        ("webhook.unreachable", None, True),
        ("webhook.timeout", None, True),
        ("webhook.tls_failed", None, False),
        ("webhook.forbidden_address", None, False),
        (None, None, False),
    ],
)
def test_who_waits_for_the_address_is_tried_once_it_is_back(
    code: str | None, status: int | None, *, waits: bool
) -> None:
    failed = delivery()
    failed.failure_code, failed.status_code = code, status
    assert waits_for_address(failed) is waits
