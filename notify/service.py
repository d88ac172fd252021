"""Delivers a notification on all of its channels, side by side, once on each.

What "once" means: PostgreSQL lets only one caller at a time send on a channel, and none after it was sent. The in-app
notice is exactly once. The vendors have no idempotency keys, so a crash between a vendor's yes and our record of it, or
an answer that is lost after the vendor took the message, makes the retry send a second time: at least once, and at most
once more per such event. For push the second replaces the first on the device (see `channels/fcm.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain import ids
from notify import push_tokens
from notify.channels import Channel
from notify.deliveries import Claim, State, address_digest, claim, release, settle_rejected, settle_sent
from notify.errors import DeliveryIncomplete, PermanentRefusal, RecipientGone, TemporaryFailure
from notify.messages import CHANNELS, ChannelName, DeliveryReport, Notification, Outcome, Outgoing, Recipient
from notify.rendering import render

T = TypeVar("T")

_logger = logging.getLogger(__name__)

# Longer than any channel's deadline (25 s), so that a claim never ends under a sender that is alive, and shorter than a
# minute, so that a crash does not hold a one-time code back for long.
LEASE = timedelta(seconds=45)

# A provider that asks for more is not believed: the caller's back-off decides.
LONGEST_RETRY_AFTER_SECONDS = 300.0

# A provider's yes that is not recorded is sent again, so a lost connection to PostgreSQL is worth a second try here.
_RECORD_DELAYS_SECONDS = (0.1, 0.5, 2.0)


@dataclass(frozen=True, slots=True)
class _Owed:
    """A channel that must be tried again. `retry_after_seconds` is the provider's wish."""

    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Attempts:
    """What came of one channel's addresses: the provider's ids, refusals and temporary failures, by address."""

    sent: Mapping[str, str]
    refused: Mapping[str, PermanentRefusal]
    failed: Mapping[str, TemporaryFailure]


class Notifier:
    """`channels` are by name (`push`, `sms`, `email`, `in_app`); a kind's channel that is not there is not used."""

    def __init__(
        self,
        engine: AsyncEngine,
        channels: Mapping[str, Channel],
        recipients: Callable[[AsyncConnection, str], Awaitable[Recipient | None]],
        *,
        lease: timedelta = LEASE,
    ) -> None:
        self._engine = engine
        # One statement is a transaction of its own: BEGIN and COMMIT would be two more round trips.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._channels = {ChannelName(name): channel for name, channel in channels.items()}
        self._recipients = recipients
        self._lease = lease

    async def deliver(self, notification: Notification) -> DeliveryReport:
        """Sends `notification` on every channel of its kind that reaches the user and has not got it yet.

        An unknown user is not reachable on any channel.

        Raises:
            DeliveryIncomplete: some channels failed for now, or another caller is sending on them; the others are done.
                Deliver again, with the same key and facts.
            KeyReused: the key belongs to another notification.
        """
        channels = [name for name in CHANNELS[notification.kind] if name in self._channels]
        async with self._engine.begin() as connection:
            recipient = await self._recipients(connection, notification.user_id)
            if recipient is None:
                return DeliveryReport(dict.fromkeys(channels, Outcome.NOT_REACHABLE))
            reachable = [name for name in channels if self._channels[name].addresses(recipient)]
            # Texts are made before anything is claimed: one that cannot be made leaves nothing half done.
            messages = {name: _outgoing(notification, name, recipient) for name in reachable}
            standing = await claim(connection, notification, reachable, self._lease)

        results: dict[ChannelName, Outcome | _Owed] = dict.fromkeys(channels, Outcome.NOT_REACHABLE)
        results |= {name: _known_outcome(state) for name, state in standing.states.items() if name in channels}
        sent = await side_by_side([self._send(held, messages[held.channel], recipient) for held in standing.claims])
        results |= {held.channel: result for held, result in zip(standing.claims, sent, strict=True)}
        return _report(notification.key, results)

    async def _send(self, held: Claim, message: Outgoing, recipient: Recipient) -> Outcome | _Owed:
        channel = self._channels[held.channel]
        addresses = channel.addresses(recipient)
        left = [address for address in addresses if address_digest(held.key, address) not in held.reached]
        attempts = await _attempt(channel, message, left)

        gone = [address for address, refusal in attempts.refused.items() if isinstance(refusal, RecipientGone)]
        if gone:
            await self._record(lambda connection: _forget(connection, message.user_id, gone))
        reached = held.reached | {address_digest(held.key, address) for address in attempts.sent}
        provider_message_id = next(iter(attempts.sent.values()), None)
        if attempts.failed:
            failures = attempts.failed.values()
            reason = next(iter(failures)).code
            await self._record(lambda connection: release(connection, held, reason, reached, provider_message_id))
            return _Owed(_longest(failure.retry_after_seconds for failure in failures))
        if reached:
            await self._record(lambda connection: settle_sent(connection, held, provider_message_id))
            return Outcome.SENT
        reason = next(iter(attempts.refused.values())).code
        await self._record(lambda connection: settle_rejected(connection, held, reason))
        return Outcome.REJECTED

    async def _record(self, write: Callable[[AsyncConnection], Awaitable[object]]) -> None:
        """Runs `write`, whose statements each stand by themselves."""
        for delay_seconds in _RECORD_DELAYS_SECONDS:
            try:
                async with self._single.connect() as connection:
                    await write(connection)
                return
            except OperationalError as error:
                _logger.warning("a delivery could not be recorded, trying again: %s", type(error.orig).__name__)
                await asyncio.sleep(delay_seconds)
        async with self._single.connect() as connection:
            await write(connection)


async def _forget(connection: AsyncConnection, user_id: str, tokens: Iterable[str]) -> None:
    for token in tokens:
        await push_tokens.prune(connection, token, user_id)


def _outgoing(notification: Notification, channel: ChannelName, recipient: Recipient) -> Outgoing:
    return Outgoing(
        message_id=ids.derived_id(ids.MESSAGE, notification.key),
        key=notification.key,
        user_id=notification.user_id,
        kind=notification.kind,
        content=render(notification, channel, recipient),
    )


async def _attempt(channel: Channel, message: Outgoing, addresses: Sequence[str]) -> _Attempts:
    sent: dict[str, str] = {}
    refused: dict[str, PermanentRefusal] = {}
    failed: dict[str, TemporaryFailure] = {}

    async def one(address: str) -> None:
        try:
            sent[address] = await channel.send(message, address)
        except PermanentRefusal as refusal:
            refused[address] = refusal
        except TemporaryFailure as failure:
            failed[address] = failure

    await side_by_side([one(address) for address in addresses])
    return _Attempts(sent, refused, failed)


async def side_by_side(sendings: Sequence[Coroutine[None, None, T]]) -> list[T]:
    """All of them to their end, whatever happens to one; a bug in one is raised only then."""
    results = await asyncio.gather(*sendings, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[T]", results)


def _known_outcome(state: State) -> Outcome | _Owed:
    match state:
        case State.SENT:
            return Outcome.ALREADY_SENT
        case State.REJECTED:
            return Outcome.REJECTED
        case State.PENDING | State.SENDING:
            return _Owed()


def _report(key: str, results: Mapping[ChannelName, Outcome | _Owed]) -> DeliveryReport:
    owed = {name: result for name, result in results.items() if isinstance(result, _Owed)}
    outcomes = {name: result for name, result in results.items() if not isinstance(result, _Owed)}
    told = ", ".join(f"{name} {results[name] if name in outcomes else 'owed'}" for name in sorted(results))
    _logger.info("notification %s: %s", key, told)
    if owed:
        raise DeliveryIncomplete(owed, _longest(channel.retry_after_seconds for channel in owed.values()))
    return DeliveryReport(outcomes)


def _longest(delays_seconds: Iterable[float | None]) -> float | None:
    asked = [delay for delay in delays_seconds if delay is not None]
    return min(max(asked), LONGEST_RETRY_AFTER_SECONDS) if asked else None
