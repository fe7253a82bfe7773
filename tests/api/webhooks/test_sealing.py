"""Secrets of webhooks in the database: of no use without the key, which is elsewhere."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from api.settings import ServerSettings
from api.webhooks.sealing import KEY_FILE, Sealing
from api.webhooks.signature import spelled
from domain.errors import Unavailable
from tests.api.graphql.server import Server
from tests.api.webhooks.hooks import EVENTS, done, hooking
from tests.api.webhooks.receiver import Receiver

SECRET = bytes(range(100, 132))
NAME = ("plant-1", "wh-1", "secret-1")


def sealing(text: bytes = b"k") -> Sealing:
    return Sealing(text * 32)


def test_what_was_sealed_is_opened_under_its_name_alone() -> None:
    sealed = sealing().seal(SECRET, *NAME)
    assert SECRET not in sealed
    assert sealing().open(sealed, *NAME) == SECRET
    assert sealing().seal(SECRET, *NAME) != sealed
    for wrong in (("plant-2", *NAME[1:]), ("plant-1", "wh-2", NAME[2]), (*NAME[:2], "secret-2")):
        with pytest.raises(Unavailable) as refused:
            sealing().open(sealed, *wrong)
        assert refused.value.code == "webhook.secret_unreadable"


@pytest.mark.parametrize("change", [0, 1, 13, -1])
def test_what_was_altered_or_sealed_otherwise_is_refused(change: int) -> None:
    sealed = bytearray(sealing().seal(SECRET, *NAME))
    sealed[change] ^= 1
    with pytest.raises(Unavailable) as refused:
        sealing().open(bytes(sealed), *NAME)
    assert refused.value.code == "webhook.secret_unreadable"
    with pytest.raises(Unavailable):
        sealing(b"o").open(sealing().seal(SECRET, *NAME), *NAME)
    with pytest.raises(Unavailable):
        sealing().open(b"", *NAME)


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    settings = ServerSettings(keys_dir=tmp_path / "keys")
    made = Sealing.of(settings)
    path = tmp_path / "keys" / KEY_FILE
    assert Sealing.of(settings) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert base64.b64decode(path.read_text()) == made.key
    assert Sealing.of(ServerSettings(keys_dir=tmp_path, webhook_key=bytes(32))).key == bytes(32)


def test_a_key_that_others_may_read_or_that_is_none_is_not_used(tmp_path: Path) -> None:
    settings = ServerSettings(keys_dir=tmp_path)
    Sealing.of(settings)
    path = tmp_path / KEY_FILE
    path.chmod(0o644)
    with pytest.raises(Unavailable, match="may be read by others") as refused:
        Sealing.of(settings)
    assert refused.value.code == "webhook.key_unusable"
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(Unavailable, match="32 bytes"):
        Sealing.of(settings)


@pytest.mark.anyio
async def test_the_database_holds_no_secret_that_signs(server: Server, receiver: Receiver) -> None:
    made = await done(
        server, "createWebhook", "secret", title="R", url=receiver.url, document=EVENTS
    )
    sealed = await server.ledger.pool.fetchval(
        "select sealed from webhook_secret where ledger_id = $1", server.ledger.ledger_id
    )
    assert made["secret"].startswith("whsec_")
    assert base64.b64decode(made["secret"].removeprefix("whsec_")) not in sealed
    assert made["secret"] != spelled(sealed)


@pytest.mark.anyio
async def test_a_webhook_whose_key_is_lost_waits_until_its_secret_is_rotated(
    webhook_database_url: str, receiver: Receiver, ledger_name: str
) -> None:
    async with hooking(webhook_database_url, ledger=ledger_name) as server:
        made = await done(
            server,
            "createWebhook",
            "webhook { webhookId }",
            title="R",
            url=receiver.url,
            document=EVENTS,
            variables={"types": ["asset.registered"]},
        )
    async with hooking(webhook_database_url, ledger=ledger_name, webhook_key=bytes(32)) as server:
        name = made["webhook"]["webhookId"]
        await server.register("pump-1")
        code = await server.code(
            "mutation($input: TestWebhookInput!) { testWebhook(input: $input) { __typename } }",
            input={"idempotencyKey": "tested", "webhookId": name},
        )
        assert code == "webhook.secret_unreadable"
        assert receiver.received == []

        rotated = await done(
            server, "rotateWebhookSecret", "secret", webhookId=name, overlapS=3_600
        )
        (received,) = await receiver.until_taken(1)
        assert received.signed_with(rotated["secret"])
