"""The stream of directives: received, verified, handed on; resumed where it ended.

Nothing is believed of a message that no pinned key has signed. The position up to which directives
were dealt with is on disk, so that a restart neither repeats nor misses one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from domain.directives import ModelDirective, ModelRetirement, SetpointDirective
from domain.errors import HeddleError, InvalidInput, NotAllowed, Unavailable
from edge_agent.setpoints.applier import SetpointApplier
from edge_agent.setpoints.guards import Refusal
from edge_agent.settings import Settings
from edge_agent.uplink.frames import Backoff
from edge_agent.uplink.transport import RequestFailed, StreamMessage, Transport, Wanted
from edge_agent.uplink.verification import PinnedKey, claimed_directive, verified_directive
from edge_agent.waiting import end_all, first_ended, wait_up_to

IDLE_S: Final = 60.0
DISK_RETRY_S: Final = 1.0
SETTLING_S_MAX: Final = 10.0
"""So long after its start an agent waits to hear of the channels its interlocks look at."""
SETTLING_POLL_S: Final = 0.1
STANDING_BYTES_MAX: Final = 128 * 1024
MODELS_AGAIN_S: Final = 60.0
"""So long after a version could not be taken, such as for a file that lacks, it is tried again."""
NOT_FOUND: Final = "uplink.http_404"

ModelPromoted = Callable[[ModelDirective | ModelRetirement], Awaitable[None]]
"""Takes a version of a model that serves from now on, or that serves no more; it was verified."""

_log = logging.getLogger("heddle.edge.directives")


class DirectiveStream:
    """Receives the directives of one agent.

    Parameters
    ----------
    applier : of set-points
    """

    def __init__(
        self, agent: str, transport: Transport, applier: SetpointApplier, settings: Settings
    ) -> None:
        self.alive_s = 0.0
        self._agent = agent
        self._transport = transport
        self._applier = applier
        self._backoff = Backoff(settings.retry_delay_s_min, settings.retry_delay_s_max)
        self._keys: tuple[PinnedKey, ...] = ()
        self._models: Mapping[str, ModelPromoted] = {}
        self._models_turn = asyncio.Lock()
        self._models_missed: set[str] = set()
        self._changed = asyncio.Event()
        self._failing: set[str] = set()

    def configure(self, keys: tuple[PinnedKey, ...], models: Mapping[str, ModelPromoted]) -> None:
        """Obey `keys` from now on, and hand promoted versions of `models` to whom they concern."""
        self._keys = keys
        self._models = dict(models)
        self._changed.set()

    @property
    def failing(self) -> bool:
        """Whether the stream is wanted and not there."""
        return bool(self._failing)

    async def run(self) -> None:
        """Receive for ever; end by being cancelled."""
        await self._settled()
        while True:
            self._changed.clear()
            assets = frozenset(one.asset for one in self._applier.declared.values())
            if not self._keys or not (assets or self._models):
                await wait_up_to(self._changed, IDLE_S)
                continue
            pause_s = await self._receive(assets)
            await wait_up_to(self._changed, pause_s)

    async def _settled(self) -> None:
        """Return once the channels are heard of on which set-points depend, or it took too long.

        What was told while the agent was away would else be refused for what it does not know yet.
        """
        for _ in range(round(SETTLING_S_MAX / SETTLING_POLL_S)):
            if self._applier.is_informed:
                return
            await asyncio.sleep(SETTLING_POLL_S)

    async def _receive(self, assets: frozenset[str]) -> float:
        """Receive until the stream ends or what is wanted changes; return the pause before more."""
        journal = self._applier.journal
        after = journal.handled_position if journal.has_begun() else None
        wanted = Wanted(self._agent, assets, frozenset(self._models), after)
        receiving = asyncio.ensure_future(self._receive_all(wanted))
        changing = asyncio.ensure_future(self._changed.wait())
        asking = asyncio.ensure_future(self._keep_models())
        try:
            await first_ended((receiving, changing, asking))
            self._backoff.reset()
            return self._backoff.delay_s_min
        except RequestFailed as failure:
            if failure.code not in self._failing:
                self._failing.add(failure.code)
                _log.warning("no directives come from %s: %s", self._transport.address, failure)
            return max(failure.retry_after_s, self._backoff.next_delay_s())
        except Unavailable as full:
            _log.error("a directive waits, nothing can be remembered of it: %s", full)
            return DISK_RETRY_S
        finally:
            await end_all((receiving, changing, asking))

    async def _receive_all(self, wanted: Wanted) -> None:
        async for message in self._transport.receive_directives(wanted):
            self.alive_s = asyncio.get_running_loop().time()
            if self._failing:
                _log.info("directives come again from %s", self._transport.address)
                self._failing.clear()
            if wanted.after is None and message.data and self._was_handled(message):
                continue
            await self.take(message)

    def _was_handled(self, message: StreamMessage) -> bool:
        """Return whether `message` was dealt with before a beginning that broke off."""
        journal = self._applier.journal
        return (
            message.position is not None
            and not journal.has_begun()
            and message.position <= journal.handled_position
        )

    # --- models ---------------------------------------------------------------------------

    async def _keep_models(self) -> None:
        """Take the versions that serve now, and try again later what could not be taken."""
        self._models_missed = set(self._models)
        while True:
            for model in sorted(self._models_missed):
                await self._ask_for(model)
            await asyncio.sleep(MODELS_AGAIN_S)

    async def _ask_for(self, model: str) -> None:
        """Ask which version of `model` serves, and take it."""
        path = f"/v1/agents/{self._agent}/models/{model}"
        try:
            told = await self._transport.fetch(path, STANDING_BYTES_MAX)
            directive = verified_directive(told.decode(errors="replace"), self._keys)
        except RequestFailed as failure:
            if failure.code != NOT_FOUND:
                raise
            self._models_missed.discard(model)  # the server has never promoted one
            return
        except (NotAllowed, InvalidInput) as error:
            _log.error("what the server says of model %s is not believed: %s", model, error)
            self._models_missed.discard(model)
            return
        if isinstance(directive, SetpointDirective) or directive.model_id != model:
            _log.error("the server told of something else than of model %s", model)
            self._models_missed.discard(model)
            return
        await self._hand_on(directive)

    async def take(self, message: StreamMessage) -> None:
        """Deal with one message.

        Raises
        ------
        Unavailable
            ``outbox.disk_full``: it has to be received again
        """
        if not message.data:
            if message.position is not None and not self._applier.journal.has_begun():
                self._applier.journal.begin(message.position)
            return
        try:
            directive = verified_directive(message.data, self._keys)
        except (NotAllowed, InvalidInput) as error:
            claimed = claimed_directive(message.data)
            self._applier.refuse_unverified(
                claimed if isinstance(claimed, SetpointDirective) else None,
                Refusal(error.code, error.message),
            )
            return
        match directive:
            case SetpointDirective():
                # What has begun to be written is brought to its end, whatever ends the stream.
                await asyncio.shield(asyncio.ensure_future(self._applier.handle(directive)))
            case ModelDirective() | ModelRetirement():
                await self._promote(directive)

    async def _promote(self, directive: ModelDirective | ModelRetirement) -> None:
        journal = self._applier.journal
        if directive.agent != self._agent or directive.position <= journal.handled_position:
            _log.warning("a replayed or foreign directive of %s is refused", directive.model_id)
            return
        await self._hand_on(directive)
        journal.move_to(directive.position)

    async def _hand_on(self, directive: ModelDirective | ModelRetirement) -> None:
        """Let whom it concerns take `directive`; what fails is told there and tried again."""
        promoted = self._models.get(directive.model_id)
        if promoted is None or directive.agent != self._agent:
            return
        async with self._models_turn:
            try:
                await promoted(directive)
            except (HeddleError, OSError):
                self._models_missed.add(directive.model_id)
            else:
                self._models_missed.discard(directive.model_id)
