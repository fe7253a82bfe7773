"""Webhooks: what is told to another system's address, as whom, and from where in the log on.

Their settings are facts in the stream `webhook:<id>`, so that the audit trail says who sent what
where. Secrets are no part of the log, nor is what became of each delivery. Nothing about a webhook
is ever corrected, it is changed: a correction could give it other rights than it was created with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, assert_never

from domain.errors import CommandRejected, InvalidInput, NotFound
from domain.events import event_type
from domain.texts import NOTE_LENGTH_MAX, TITLE_LENGTH_MAX, check_note, check_text

URL_LENGTH_MAX: Final = 2_000
DOCUMENT_LENGTH_MAX: Final = 20_000
VARIABLES_LENGTH_MAX: Final = 20_000
SECRETS_MAX: Final = 4
"""Secrets that are valid at once: the newest, and those that it overlaps with."""

OVERLAP_S_MAX: Final = 30 * 86_400.0
REDELIVERIES_MAX: Final = 500


def webhook_stream(webhook_id: str) -> str:
    """Return the stream of a webhook's facts."""
    return f"webhook:{webhook_id}"


class ContentMode(StrEnum):
    """How a CloudEvent goes over HTTP: CloudEvents 1.0, HTTP protocol binding, section 3."""

    STRUCTURED = "STRUCTURED"
    BINARY = "BINARY"


class WebhookStatus(StrEnum):
    """Whether a webhook delivers."""

    ACTIVE = "ACTIVE"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    DELETED = "DELETED"


# --- events -------------------------------------------------------------------------------


@dataclass(frozen=True)
class WebhookSettings:
    """Where it goes and what it tells.

    Parameters
    ----------
    document : a GraphQL document whose operation is a subscription
    operation_name : which of its operations; None: the only one
    variables : the JSON object of its variables
    acts_as_key : id of the API key whose rights and sight it has; None: those of an open server
    """

    title: str
    url: str
    document: str
    operation_name: str | None
    variables: str
    mode: ContentMode
    acts_as_key: str | None


@event_type("webhook.created")
@dataclass(frozen=True)
class WebhookCreated:
    """What happens after `after_position` is delivered, signed with `secret_id`."""

    webhook_id: str
    settings: WebhookSettings
    secret_id: str
    after_position: int


@event_type("webhook.changed")
@dataclass(frozen=True)
class WebhookChanged:
    """From here on it has other settings; deliveries that were made already keep what they say."""

    webhook_id: str
    settings: WebhookSettings


@event_type("webhook.paused")
@dataclass(frozen=True)
class WebhookPaused:
    """Somebody wants no deliveries for the time being; nothing is lost."""

    webhook_id: str
    reason: str


@event_type("webhook.resumed")
@dataclass(frozen=True)
class WebhookResumed:
    """Deliveries go on where they stood."""

    webhook_id: str


@event_type("webhook.secret_rotated")
@dataclass(frozen=True)
class WebhookSecretRotated:
    """Deliveries are signed with `secret_id`, and with those before it until `others_until`."""

    webhook_id: str
    secret_id: str
    others_until: datetime


@event_type("webhook.replayed")
@dataclass(frozen=True)
class WebhookReplayed:
    """What happened after `after_position` is delivered once more; what waits is made anew."""

    webhook_id: str
    after_position: int


@event_type("webhook.tested")
@dataclass(frozen=True)
class WebhookTested:
    """Somebody had a test delivered."""

    webhook_id: str


@event_type("webhook.redelivered")
@dataclass(frozen=True)
class WebhookRedelivered:
    """Somebody had deliveries tried again that had been given up."""

    webhook_id: str
    delivery_ids: tuple[int, ...]


@event_type("webhook.stopped")
@dataclass(frozen=True)
class WebhookStopped:
    """It delivers no more until somebody resumes it; `code` is dotted and stable."""

    webhook_id: str
    code: str
    reason: str


@event_type("webhook.deleted")
@dataclass(frozen=True)
class WebhookDeleted:
    """It is no more; what waited is dropped."""

    webhook_id: str
    reason: str


WebhookEvent = (
    WebhookCreated
    | WebhookChanged
    | WebhookPaused
    | WebhookResumed
    | WebhookSecretRotated
    | WebhookReplayed
    | WebhookTested
    | WebhookRedelivered
    | WebhookStopped
    | WebhookDeleted
)

WEBHOOK_TYPES: Final = (
    "webhook.created",
    "webhook.changed",
    "webhook.paused",
    "webhook.resumed",
    "webhook.secret_rotated",
    "webhook.replayed",
    "webhook.tested",
    "webhook.redelivered",
    "webhook.stopped",
    "webhook.deleted",
)

# --- commands -----------------------------------------------------------------------------


@dataclass(frozen=True)
class CreateWebhook:
    """Deliver what happens; see `WebhookCreated`."""

    webhook_id: str
    settings: WebhookSettings
    secret_id: str
    after_position: int


@dataclass(frozen=True)
class ChangeWebhook:
    """Give it other settings."""

    webhook_id: str
    settings: WebhookSettings


@dataclass(frozen=True)
class PauseWebhook:
    """Deliver nothing for the time being."""

    webhook_id: str
    reason: str = ""


@dataclass(frozen=True)
class ResumeWebhook:
    """Go on where it stood."""

    webhook_id: str


@dataclass(frozen=True)
class RotateWebhookSecret:
    """Sign with another secret, and with those before it until `others_until`."""

    webhook_id: str
    secret_id: str
    others_until: datetime


@dataclass(frozen=True)
class ReplayWebhook:
    """Deliver what happened after a position once more."""

    webhook_id: str
    after_position: int


@dataclass(frozen=True)
class TestWebhook:
    """Have a test delivered."""

    __test__ = False  # it is no test of ours

    webhook_id: str


@dataclass(frozen=True)
class RedeliverWebhook:
    """Have deliveries tried again that had been given up."""

    webhook_id: str
    delivery_ids: tuple[int, ...]


@dataclass(frozen=True)
class StopWebhook:
    """Deliver no more, for whatever `code` names."""

    webhook_id: str
    code: str
    reason: str


@dataclass(frozen=True)
class DeleteWebhook:
    """Be rid of it."""

    webhook_id: str
    reason: str = ""


WebhookCommand = (
    CreateWebhook
    | ChangeWebhook
    | PauseWebhook
    | ResumeWebhook
    | RotateWebhookSecret
    | ReplayWebhook
    | TestWebhook
    | RedeliverWebhook
    | StopWebhook
    | DeleteWebhook
)


# --- state --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Uncreated:
    """Nobody has created it."""


@dataclass(frozen=True)
class Secret:
    """One that deliveries are signed with; `until` is None of the newest."""

    secret_id: str
    until: datetime | None


@dataclass(frozen=True)
class Webhook:
    """A webhook as its facts make it.

    Parameters
    ----------
    secrets : the newest first, at most `SECRETS_MAX`
    after_position : where what it delivers begins, since it was created or last replayed
    stop_code, stop_reason : of what is not active: why
    """

    webhook_id: str
    settings: WebhookSettings
    status: WebhookStatus
    secrets: tuple[Secret, ...]
    after_position: int
    stop_code: str | None = None
    stop_reason: str | None = None


WebhookState = Uncreated | Webhook


# --- decisions ----------------------------------------------------------------------------


def decide(command: WebhookCommand, webhook: WebhookState) -> tuple[WebhookEvent, ...]:
    """Return the events that `command` causes on `webhook`; none where it stands so already.

    Raises
    ------
    NotFound
        ``webhook.unknown``: it was never created, or is deleted
    CommandRejected
        ``webhook.already_created``, ``webhook.not_active``
    InvalidInput
        ``text.empty``, ``text.too_long``, ``webhook.redeliveries``
    """
    if isinstance(command, CreateWebhook):
        if not isinstance(webhook, Uncreated):
            raise CommandRejected(
                "webhook.already_created",
                f"webhook {command.webhook_id!r} was created already",
                value=command.webhook_id,
            )
        return (
            WebhookCreated(
                command.webhook_id,
                _checked(command.settings),
                command.secret_id,
                command.after_position,
            ),
        )
    if isinstance(webhook, Uncreated) or webhook.status is WebhookStatus.DELETED:
        raise unknown_webhook(command.webhook_id)
    return _decide_created(command, webhook)


def unknown_webhook(webhook_id: str) -> NotFound:
    """Return the error for a webhook that nobody created, or that is no more."""
    return NotFound(
        "webhook.unknown", f"there is no webhook {webhook_id!r:.80}", value=webhook_id[:80]
    )


def _decide_created(command: Any, webhook: Webhook) -> tuple[WebhookEvent, ...]:
    webhook_id, status = webhook.webhook_id, webhook.status
    match command:
        case ChangeWebhook(settings=settings):
            checked = _checked(settings)
            return () if checked == webhook.settings else (WebhookChanged(webhook_id, checked),)
        case PauseWebhook(reason=reason):
            if status is WebhookStatus.PAUSED:
                return ()
            return (WebhookPaused(webhook_id, check_note("reason", reason)),)
        case ResumeWebhook():
            return () if status is WebhookStatus.ACTIVE else (WebhookResumed(webhook_id),)
        case RotateWebhookSecret(secret_id=secret_id, others_until=until):
            return (WebhookSecretRotated(webhook_id, secret_id, until),)
        case ReplayWebhook(after_position=after):
            return (WebhookReplayed(webhook_id, after),)
        case TestWebhook():
            return (WebhookTested(webhook_id),)
        case RedeliverWebhook(delivery_ids=delivery_ids):
            return (WebhookRedelivered(webhook_id, _redeliveries(delivery_ids)),)
        case StopWebhook(code=code, reason=reason):
            if status is not WebhookStatus.ACTIVE:
                return ()
            return (WebhookStopped(webhook_id, code, reason[:NOTE_LENGTH_MAX]),)
        case DeleteWebhook(reason=reason):
            return (WebhookDeleted(webhook_id, check_note("reason", reason)),)
        case _:
            raise TypeError(f"{type(command).__name__} is no command on a webhook")


def _checked(settings: WebhookSettings) -> WebhookSettings:
    check_text("url", settings.url, URL_LENGTH_MAX)
    check_text("document", settings.document, DOCUMENT_LENGTH_MAX)
    check_note("variables", settings.variables, VARIABLES_LENGTH_MAX)
    return replace(settings, title=check_text("title", settings.title, TITLE_LENGTH_MAX))


def _redeliveries(delivery_ids: tuple[int, ...]) -> tuple[int, ...]:
    if not 1 <= len(delivery_ids) <= REDELIVERIES_MAX:
        raise InvalidInput(
            "webhook.redeliveries",
            f"{len(delivery_ids)} deliveries are not 1 to {REDELIVERIES_MAX}",
            value=len(delivery_ids),
            limit=REDELIVERIES_MAX,
        )
    return tuple(sorted(set(delivery_ids)))


# --- fold ---------------------------------------------------------------------------------


def evolve(webhook: WebhookState, event: WebhookEvent) -> WebhookState:
    """Return what `event` makes of `webhook`.

    Raises
    ------
    ValueError
        it was never created
    """
    if isinstance(event, WebhookCreated):
        return Webhook(
            event.webhook_id,
            event.settings,
            WebhookStatus.ACTIVE,
            (Secret(event.secret_id, None),),
            event.after_position,
        )
    if isinstance(webhook, Uncreated):
        raise ValueError(f"webhook {event.webhook_id!r} was never created")
    match event:
        case WebhookChanged(settings=settings):
            return replace(webhook, settings=settings)
        case WebhookPaused(reason=reason):
            return _in(webhook, WebhookStatus.PAUSED, "webhook.paused", reason)
        case WebhookResumed():
            return _in(webhook, WebhookStatus.ACTIVE)
        case WebhookSecretRotated(secret_id=secret_id, others_until=until):
            return replace(webhook, secrets=(Secret(secret_id, None), *_until(webhook, until)))
        case WebhookReplayed(after_position=after):
            return replace(webhook, after_position=after)
        case WebhookTested() | WebhookRedelivered():
            return webhook
        case WebhookStopped(code=code, reason=reason):
            return _in(webhook, WebhookStatus.STOPPED, code, reason)
        case WebhookDeleted(reason=reason):
            return _in(webhook, WebhookStatus.DELETED, "webhook.deleted", reason)
        case _:
            assert_never(event)


def fold(events: Iterable[WebhookEvent]) -> WebhookState:
    """Return the webhook that `events`, in order, make."""
    state: WebhookState = Uncreated()
    for event in events:
        state = evolve(state, event)
    return state


def _in(
    webhook: Webhook, status: WebhookStatus, code: str | None = None, reason: str | None = None
) -> Webhook:
    return replace(webhook, status=status, stop_code=code, stop_reason=reason)


def _until(webhook: Webhook, until: datetime) -> tuple[Secret, ...]:
    """Return the secrets so far, none of which lasts longer than `until`."""
    ended = (
        replace(secret, until=until if secret.until is None else min(secret.until, until))
        for secret in webhook.secrets
    )
    return tuple(ended)[: SECRETS_MAX - 1]
