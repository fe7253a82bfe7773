"""Who may ask for how much: a bucket of tokens a client, and a bound on what runs at once."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from domain.errors import Unavailable

CLIENTS_MAX: Final = 10_000
RETRY_AFTER_S_MAX: Final = 3_600


class RateExceeded(Unavailable):
    """A client asked for more than its share; `value` is how many seconds it should wait."""


class TokenBuckets:
    """A bucket of tokens for each client, filled at a steady rate.

    A bucket that holds anything at all lets a request of any cost through and may go below zero:
    the client then waits until it is paid back, and no request is too large to be ever let through.
    Clients are kept in the order of their last request; beyond `clients_max` the one that was
    silent for longest is forgotten, which gives it a full bucket when it comes again.

    Parameters
    ----------
    rate : tokens a second
    burst : tokens that a full bucket holds
    clock : seconds, never going back
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        clients_max: int = CLIENTS_MAX,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clients_max = clients_max
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, tokens: float) -> float:
        """Take `tokens` out of the bucket of `client`; return what it holds now.

        Raises
        ------
        RateExceeded
            ``client.throttled`` where the bucket is empty
        """
        now = self._clock()
        held, since = self._buckets.get(client, (self._burst, now))
        held = min(self._burst, held + (now - since) * self._rate)
        if held <= 0:
            wait_s = min(RETRY_AFTER_S_MAX, max(1, math.ceil((1 - held) / self._rate)))
            raise RateExceeded(
                "client.throttled",
                f"this client has asked for more than its {self._rate:g} a second",
                hint=f"try again in {wait_s} s; ask for less at once, or less often",
                value=wait_s,
                limit=self._rate,
            )
        held -= tokens
        self._buckets[client] = (held, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > self._clients_max:
            self._buckets.popitem(last=False)
        return held


class Places:
    """A bound on how much runs at once; whoever comes beyond it is sent away, and does not wait."""

    def __init__(self, places: int) -> None:
        self._places = places
        self.taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place.

        Raises
        ------
        Unavailable
            ``server.busy``
        """
        if self.taken >= self._places:
            raise Unavailable(
                "server.busy",
                f"{self._places} operations are being executed, which is all that may be at once",
                hint="try again in a moment",
                limit=self._places,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
