"""The way to Heddle: mutations under keys of our own, and the webhook that it tells us by."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any, Final

import httpx

from examples.cmms.store import Entry, Store

logger = logging.getLogger("cmms")

TIMEOUT_S: Final = 30.0
IDLE_S: Final = 0.1
RETRY_S_MAX: Final = 5.0

WORK_ORDERS: Final = """
subscription {
  workOrders(everyS: 0.1) {
    cursor
    workOrders {
      workOrderId version assetId title priority state plannedStart plannedEnd assignee
    }
  }
}
"""
_CREATE: Final = """
mutation($input: CreateWebhookInput!) {
  createWebhook(input: $input) {
    __typename
    ... on CreateWebhookSuccess { secret webhook { webhookId } }
    ... on Error { code message }
  }
}
"""
_ROTATE: Final = """
mutation($input: RotateWebhookSecretInput!) {
  rotateWebhookSecret(input: $input) {
    __typename
    ... on RotateWebhookSecretSuccess { secret }
    ... on Error { code message }
  }
}
"""


class NotNow(Exception):
    """Heddle cannot be reached, or asks for the same thing again later."""


class Refused(Exception):
    """Heddle has understood, and says no."""


class Heddle:
    """Sends what was done here, one after the other, for as long as it takes.

    Parameters
    ----------
    url : of the server, such as ``http://127.0.0.1:8000``
    api_key : None where the server asks nobody who he is
    own_url : where Heddle's webhook finds us
    """

    def __init__(self, store: Store, url: str, api_key: str | None, own_url: str) -> None:
        self._store = store
        self._own_url = own_url
        headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._http = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False
        )

    async def run(self) -> None:
        """Connect once, then send whatever is in the outbox, until cancelled."""
        delay_s = IDLE_S
        async with self._http:
            while True:
                try:
                    await self._connect()
                    sent = await self._send_next()
                    delay_s = 0.0 if sent else IDLE_S
                except NotNow as error:
                    delay_s = min(max(2 * delay_s, IDLE_S), RETRY_S_MAX)
                    delay_s *= random.uniform(0.5, 1.0)
                    logger.warning("heddle: %s", error)
                except Refused as error:
                    delay_s = RETRY_S_MAX
                    logger.error("heddle: %s", error)
                await asyncio.sleep(delay_s)

    # --- the webhook ----------------------------------------------------------------------

    async def _connect(self) -> None:
        """Have Heddle tell us of every work order there ever was, and from then on.

        Asked again after an answer that was lost, Heddle tells no secret twice: it makes another.
        """
        if self._store.setting("secret") is not None:
            return
        key = f"cmms-{self._store.installation()}"
        start = await self._ask("{ log { start } }", {})
        created = await self._mutate(
            _CREATE,
            "createWebhook",
            {
                "idempotencyKey": key,
                "title": "CMMS",
                "url": self._own_url,
                "document": WORK_ORDERS,
                "after": start["log"]["start"],
            },
        )
        secret = created["secret"]
        if secret is None:
            rotated = await self._mutate(
                _ROTATE,
                "rotateWebhookSecret",
                {
                    "idempotencyKey": f"{key}-{random.getrandbits(64):x}",
                    "webhookId": created["webhook"]["webhookId"],
                },
            )
            secret = rotated["secret"]
        self._store.keep_setting("webhook", created["webhook"]["webhookId"])
        self._store.keep_setting("secret", secret)

    # --- the outbox -----------------------------------------------------------------------

    async def _send_next(self) -> bool:
        entry = await asyncio.to_thread(self._store.next_entry)
        if entry is None:
            return False
        try:
            told = await self._mutate(_document(entry), entry.mutation, _input(entry))
            state, answer = "DONE", str(told["__typename"])
        except Refused as error:
            state, answer = "REFUSED", str(error)
        await asyncio.to_thread(self._store.settle, entry, state, answer)
        return True

    async def _mutate(self, document: str, name: str, input: dict[str, Any]) -> dict[str, Any]:
        """Return the success of a mutation.

        Raises
        ------
        NotNow, Refused
        """
        result: dict[str, Any] = (await self._ask(document, {"input": input}))[name]
        if result["__typename"] == "UnavailableError":
            raise NotNow(f"{result['code']}: {result['message']}")
        if not result["__typename"].endswith("Success"):
            raise Refused(f"{result['code']}: {result['message']}")
        return result

    async def _ask(self, document: str, variables: dict[str, Any]) -> dict[str, Any]:
        try:
            response = await self._http.post(
                "/graphql", json={"query": document, "variables": variables}
            )
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise NotNow(f"{type(error).__name__}: {error}") from error
        if response.status_code >= 500 or response.status_code == 429:
            raise NotNow(f"HTTP {response.status_code}")
        if answer.get("data") is None:
            raise Refused(str(answer.get("errors", answer))[:500])
        data: dict[str, Any] = answer["data"]
        return data


def _document(entry: Entry) -> str:
    title = entry.mutation[0].upper() + entry.mutation[1:]
    return (
        f"mutation($input: {title}Input!) {{ {entry.mutation}(input: $input) "
        "{ __typename ... on Error { code message } } }"
    )


def _input(entry: Entry) -> dict[str, Any]:
    return {
        **entry.input,
        "workOrderId": entry.work_order_id,
        "idempotencyKey": entry.idempotency_key,
    }
