"""Buckets of tokens: what they hold, when they are empty, and how many of them there are."""

from __future__ import annotations

import pytest

from api.problem import headers_of, status_of
from api.throttle import Places, RateExceeded, TokenBuckets
from domain.errors import Unavailable


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_bucket_is_emptied_and_filled_again() -> None:
    clock = Clock()
    buckets = TokenBuckets(10, 100, clock=clock)

    assert buckets.take("a", 60) == 40
    assert buckets.take("a", 60) == -20  # a bucket that holds something lets anything through
    with pytest.raises(RateExceeded) as caught:
        buckets.take("a", 1)
    clock.now += caught.value.value
    buckets.take("a", 1)

    assert caught.value.value == 3  # seconds until 21 tokens have come, rounded up
    assert status_of(caught.value) == 429
    assert headers_of(caught.value) == ((b"retry-after", b"3"),)
    clock.now += 3_600
    assert buckets.take("a", 0) == 100


def test_clients_do_not_share_a_bucket_and_are_bounded() -> None:
    buckets = TokenBuckets(1, 10, clients_max=3, clock=Clock())
    for client in "abcabd":
        buckets.take(client, 5)

    assert len(buckets) == 3
    with pytest.raises(RateExceeded):
        buckets.take("a", 1)
    assert buckets.take("c", 0) == 10  # silent for longest, so it was forgotten


def test_places_are_bounded_and_given_back() -> None:
    places = Places(1)
    with places.place(), pytest.raises(Unavailable) as caught, places.place():
        pass
    with places.place():
        assert places.taken == 1

    assert places.taken == 0
    assert (caught.value.code, status_of(caught.value)) == ("server.busy", 503)
