"""Webhooks: what is decided about them, and what their facts make of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.webhooks import (
    SECRETS_MAX,
    ChangeWebhook,
    ContentMode,
    CreateWebhook,
    DeleteWebhook,
    PauseWebhook,
    RedeliverWebhook,
    ReplayWebhook,
    ResumeWebhook,
    RotateWebhookSecret,
    Secret,
    StopWebhook,
    TestWebhook,
    Uncreated,
    Webhook,
    WebhookCreated,
    WebhookPaused,
    WebhookResumed,
    WebhookSettings,
    WebhookStatus,
    WebhookStopped,
    decide,
    evolve,
    fold,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = WebhookSettings(
    title="The CMMS",
    url="https://cmms.example/hooks",
    document="subscription { events { cursor } }",
    operation_name=None,
    variables="{}",
    mode=ContentMode.STRUCTURED,
    acts_as_key=None,
)
CREATED = WebhookCreated("wh-1", SETTINGS, "s-1", 7)


def _with(field: str, value: Any) -> WebhookSettings:
    return replace(SETTINGS, **{field: value})


def after(*commands: Any) -> Webhook:
    """Return the webhook that was created and then asked for `commands`."""
    state: Any = fold([CREATED])
    for command in commands:
        for event in decide(command, state):
            state = evolve(state, event)
    assert isinstance(state, Webhook)
    return state


def test_what_is_created_is_active_from_its_position_on() -> None:
    (event,) = decide(CreateWebhook("wh-1", SETTINGS, "s-1", 7), Uncreated())
    assert event == CREATED
    webhook = after()
    assert (webhook.status, webhook.after_position) == (WebhookStatus.ACTIVE, 7)
    assert webhook.secrets == (Secret("s-1", None),)


def test_it_is_created_once() -> None:
    with pytest.raises(CommandRejected) as refused:
        decide(CreateWebhook("wh-1", SETTINGS, "s-1", 7), after())
    assert refused.value.code == "webhook.already_created"


@pytest.mark.parametrize(
    "command",
    [
        ChangeWebhook("wh-1", SETTINGS),
        PauseWebhook("wh-1"),
        ResumeWebhook("wh-1"),
        RotateWebhookSecret("wh-1", "s-2", NOW),
        ReplayWebhook("wh-1", 0),
        TestWebhook("wh-1"),
        RedeliverWebhook("wh-1", (1,)),
        StopWebhook("wh-1", "webhook.endpoint_gone", "gone"),
        DeleteWebhook("wh-1"),
    ],
)
def test_nothing_is_asked_of_one_that_is_not_there(command: Any) -> None:
    for state in (Uncreated(), after(DeleteWebhook("wh-1"))):
        with pytest.raises(NotFound) as refused:
            decide(command, state)
        assert refused.value.code == "webhook.unknown"


def test_it_rests_stops_and_goes_on() -> None:
    stop = StopWebhook("wh-1", "webhook.endpoint_gone", "410")
    assert decide(stop, after()) == (WebhookStopped("wh-1", "webhook.endpoint_gone", "410"),)
    stopped = after(stop)
    assert (stopped.status, stopped.stop_code) == (WebhookStatus.STOPPED, "webhook.endpoint_gone")
    assert decide(stop, stopped) == ()
    assert decide(stop, after(PauseWebhook("wh-1"))) == ()
    assert decide(PauseWebhook("wh-1", "why"), stopped) == (WebhookPaused("wh-1", "why"),)
    assert decide(PauseWebhook("wh-1"), after(PauseWebhook("wh-1"))) == ()
    assert decide(ResumeWebhook("wh-1"), stopped) == (WebhookResumed("wh-1"),)
    assert decide(ResumeWebhook("wh-1"), after()) == ()
    resumed = after(stop, ResumeWebhook("wh-1"))
    assert (resumed.status, resumed.stop_code, resumed.stop_reason) == (
        WebhookStatus.ACTIVE,
        None,
        None,
    )


def test_secrets_before_the_newest_last_no_longer_than_any_rotation_says() -> None:
    later, soon = NOW + timedelta(days=2), NOW + timedelta(hours=1)
    webhook = after(
        RotateWebhookSecret("wh-1", "s-2", later), RotateWebhookSecret("wh-1", "s-3", soon)
    )
    assert webhook.secrets == (Secret("s-3", None), Secret("s-2", soon), Secret("s-1", soon))
    webhook = after(
        RotateWebhookSecret("wh-1", "s-2", soon), RotateWebhookSecret("wh-1", "s-3", later)
    )
    assert webhook.secrets[2] == Secret("s-1", soon)
    many = [RotateWebhookSecret("wh-1", f"s-{n}", later) for n in range(10)]
    assert len(after(*many).secrets) == SECRETS_MAX


def test_settings_are_changed_and_checked() -> None:
    other = replace(SETTINGS, title="  The ERP ", mode=ContentMode.BINARY)
    assert after(ChangeWebhook("wh-1", other)).settings == replace(other, title="The ERP")
    assert decide(ChangeWebhook("wh-1", SETTINGS), after()) == ()
    for field, code in (("title", "text.empty"), ("url", "text.empty"), ("document", "text.empty")):
        with pytest.raises(InvalidInput) as refused:
            decide(ChangeWebhook("wh-1", _with(field, " ")), after())
        assert refused.value.code == code


def test_a_replay_begins_where_it_says() -> None:
    assert after(ReplayWebhook("wh-1", 3)).after_position == 3


@pytest.mark.parametrize("count", [0, 501])
def test_redeliveries_are_bounded(count: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        decide(RedeliverWebhook("wh-1", tuple(range(count))), after())
    assert (refused.value.code, refused.value.value) == ("webhook.redeliveries", count)


def test_nothing_happens_to_one_that_was_never_created() -> None:
    with pytest.raises(ValueError, match="never created"):
        evolve(Uncreated(), WebhookResumed("wh-1"))
