"""What the platform asks of the card network, each effect once: journal, credential, link, and what their answers mean.

The order that everything rests on: the journal's row is committed, then turned to `sending` and committed again, then
the first byte is written. A row that is still `created` was not sent; any other may have been.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.disputes import AcceptCommand, ChargebackNotice, RepresentCommand
from domain.merchants import Merchant
from domain.money import Money
from domain.network import (
    AuthorizeCommand,
    CaptureCommand,
    DeprovisionCommand,
    IncrementCommand,
    LateAnswer,
    ProvisionCommand,
    RefundCommand,
    ReleaseCommand,
    ReverseCommand,
    SealedCredential,
    VerifyCommand,
)
from domain.outcomes import (
    Acknowledged,
    Approved,
    AuthorizationOutcome,
    Declined,
    DoubtReason,
    NeverSent,
    ReversalOutcome,
    Reversed,
    Unknown,
)
from network import cases, messages
from network.cases import CaseAnswer
from network.codec import Message
from network.credentials import Credentials
from network.errors import (
    AdviceRefused,
    CredentialExpired,
    EffectAbandoned,
    EffectKeyReused,
    InDoubt,
    NetworkError,
    NotAcknowledged,
    OriginalUnknown,
    Unreachable,
)
from network.journal import ADVICE, Effect, Entry, Journal, Kind, State
from network.link import NetworkLink, Prepared, prepare
from network.messages import APPROVED, Acceptor, Authentication, Card, Purchase
from network.notices import Notices
from sealing import Unsealer

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

# DE39 of an acknowledgement that says "not now": the host is out of order (91, 96) and the advice goes on.
_TRY_AGAIN: Final = frozenset({"91", "96"})
# Answers that nobody waits for and that are not looked at yet. A flood beyond this is not worth our memory.
_UNMATCHED_LIMIT: Final = 1000
_LATE_RETRY_SECONDS: Final = 30.0
_RECORD_ATTEMPTS: Final = 8

# Makes the first sending, or its repeat, of a journaled effect.
Build = Callable[[Entry, bool], Awaitable[Message]]


class Present(Protocol):
    """Makes a request that shows a card and its authentication data."""

    def __call__(
        self, purchase: Purchase, card: Card, authentication: Authentication | None, *, repeat: bool = False
    ) -> Message: ...


class NetworkGateway:
    """The network worker's only way to the network.

    `acquirer_id` is DE32. `answer_timeout_seconds` bounds a request from its call to its answer. `on_late_answer` is
    told of answers that came after their request was given up, at least once each and across restarts; it never gets
    to approve anything. So is `on_chargeback` of what the network says of disputes. `terminal_id` is DE41 (at most 8
    characters).

    All methods may be called again with the same command at any time, by any process; they answer what was decided.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        redis: Redis,
        unsealer: Unsealer,
        link: NetworkLink,
        acquirer_id: str,
        answer_timeout_seconds: float,
        on_late_answer: Callable[[LateAnswer], Awaitable[None]],
        on_chargeback: Callable[[ChargebackNotice], Awaitable[None]],
        *,
        terminal_id: str = "00000001",
    ) -> None:
        self._journal = Journal(engine, acquirer_id)
        self._credentials = Credentials(redis, unsealer)
        self._link = link
        self._answer_timeout_seconds = answer_timeout_seconds
        self._on_late_answer = on_late_answer
        self._terminal_id = terminal_id
        self._running: dict[str, tuple[object, asyncio.Task[Any]]] = {}
        self._unmatched: asyncio.Queue[Message] = asyncio.Queue(_UNMATCHED_LIMIT)
        self._late = asyncio.Event()
        self._notices = Notices(self._journal, acquirer_id, on_chargeback)
        self._background: list[asyncio.Task[None]] = []

    async def start(self, *, wait_seconds: float = 2.0) -> None:
        """Begins to connect, and waits at most `wait_seconds` for it: a network that is down fails no start."""
        self._link.on_unmatched(self._enqueue_unmatched)
        self._link.on_request(self._notices.receive)
        self._late.set()  # whatever an earlier process could not report
        self._background = [
            asyncio.create_task(self._record_unmatched(), name="network-unmatched"),
            asyncio.create_task(self._report_late_answers(), name="network-late-answers"),
            *self._notices.start(),
        ]
        self._link.start()
        if not await self._link.wait_until_ready(wait_seconds):
            _log.warning("the network does not answer yet; requests are refused as unreachable until it does")

    async def close(self) -> None:
        """Waits for what is under way, signs off, and ends."""
        under_way = [task for _, task in self._running.values()]
        if under_way:
            await asyncio.wait(under_way, timeout=self._answer_timeout_seconds + 1)
        await self._link.close()
        for task in (*self._background, *under_way):
            task.cancel()
        await asyncio.gather(*self._background, *under_way, return_exceptions=True)
        self._background = []

    async def authorize(self, command: AuthorizeCommand) -> AuthorizationOutcome:
        """Asks the issuer for `command.money` (0100), or, for a sale, takes it with its approval (0200).

        Raises:
            Unreachable: nothing was sent.
            CredentialExpired: nothing was sent, and the vault has to make new authentication data.
            CredentialUnusable, CredentialStoreUnavailable: nothing was sent.
            EffectAbandoned: a reversal was decided before anything was sent; nothing ever will be.
            EffectKeyReused: the key stands for another request.
            MessageInvalid: the command cannot be put into a message.
            JournalUnavailable: ask again.
        """
        return await self._once(command.effect_key, _identity(command), lambda: self._authorize(command))

    async def verify(self, command: VerifyCommand) -> AuthorizationOutcome:
        """Asks the issuer whether the card is good, for an amount of zero (0100).

        Raises: as `authorize`, but for `EffectAbandoned`: there is nothing to reverse.
        """
        identity = (command.effect_key, command.reference, command.currency, command.credential.token_id)
        return await self._once(command.effect_key, identity, lambda: self._verify(command))

    async def increment(self, command: IncrementCommand) -> AuthorizationOutcome:
        """Asks the issuer for `command.money` more on an authorization (0100).

        Raises: as `authorize`, but for what concerns authentication data; and `OriginalUnknown`.
        """
        return await self._once(command.effect_key, command, lambda: self._increment(command))

    async def refund(self, command: RefundCommand) -> AuthorizationOutcome:
        """Asks the issuer to take `command.money` back for the cardholder (0200, processing code 20).

        Raises: as `authorize`; and `OriginalUnknown`.
        """
        return await self._once(command.effect_key, command, lambda: self._refund(command))

    async def reverse(self, command: ReverseCommand) -> ReversalOutcome:
        """Undoes an authorization (with its increments), a sale, an increment or a refund, sent or not (0420).

        Raises:
            NotAcknowledged: the reversal stands, and is to be repeated until it is acknowledged.
            Unreachable: the same, and not a byte of it was sent so far.
            AdviceRefused: the host refuses it; an operator has to look.
            EffectKeyReused, OriginalUnknown, CredentialUnusable, JournalUnavailable.
        """
        return await self._once(command.effect_key, command, lambda: self._reverse(command))

    async def capture(self, command: CaptureCommand) -> Acknowledged:
        """Tells the network that `command.money` of an authorization is taken (0220).

        Raises: as `reverse`.
        """
        return await self._once(command.effect_key, command, lambda: self._capture(command))

    async def release(self, command: ReleaseCommand) -> Acknowledged:
        """Tells the network that nothing beyond what was captured will be taken of an authorization (0420 in part).

        Raises: as `reverse`.
        """
        return await self._once(command.effect_key, command, lambda: self._release(command))

    async def provision(self, command: ProvisionCommand) -> Acknowledged:
        """Tells the network which card number a new device number stands for (0620).

        Raises: as `reverse`, but for `OriginalUnknown`.
        """
        identity = (command.effect_key, command.token_id)
        return await self._once(command.effect_key, identity, lambda: self._provision(command))

    async def deprovision(self, command: DeprovisionCommand) -> Acknowledged:
        """Tells the network that a device number stands for its card no more (0620).

        Raises: as `provision`.
        """
        identity = (command.effect_key, command.token_id)
        return await self._once(command.effect_key, identity, lambda: self._deprovision(command))

    async def represent(self, command: RepresentCommand) -> Acknowledged:
        """Contests a chargeback, or answers an inquiry, with evidence (0620).

        Raises: as `reverse`; `OriginalUnknown` also if the network never told of such a case of this payment.
        """
        given = CaseAnswer(command.chargeback_id, command.evidence_sha256, command.documents, command.statement)
        return await self._once(command.effect_key, command, lambda: self._answer(Kind.REPRESENT, command, given))

    async def accept(self, command: AcceptCommand) -> Acknowledged:
        """Gives in to a chargeback (0620).

        Raises: as `represent`.
        """
        given = CaseAnswer(command.chargeback_id)
        return await self._once(command.effect_key, command, lambda: self._answer(Kind.ACCEPT, command, given))

    async def rrns(self, payment_id: str) -> list[str]:
        """The retrieval reference numbers (DE37) of a payment: what reconciliation asks the network about."""
        return await self._journal.rrns(payment_id)

    async def _once(self, effect_key: str, identity: object, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Runs `work` once for all who ask at the same time.

        It goes on when a caller is canceled: what was begun on the wire is brought to its end in the journal.
        """
        running = self._running.get(effect_key)
        if running is None:
            task = asyncio.create_task(work(), name=f"network-{effect_key}")
            self._running[effect_key] = (identity, task)
            task.add_done_callback(lambda done: self._finished(effect_key, done))
        else:
            known, task = running
            if known != identity:
                raise EffectKeyReused("the effect key already stands for another request")
        result: _T = await asyncio.shield(task)
        return result

    def _finished(self, effect_key: str, task: asyncio.Task[Any]) -> None:
        del self._running[effect_key]
        if not task.cancelled():
            task.exception()  # all its callers may be gone; the journal has the state

    async def _authorize(self, command: AuthorizeCommand) -> AuthorizationOutcome:
        kind = Kind.SALE if command.sale else Kind.AUTHORIZE
        effect = Effect(kind, command.effect_key, command.money, command.payment_id, command.credential.token_id)
        present = messages.sale if command.sale else messages.authorization
        return await self._present(effect, command.merchant, command.credential, present)

    async def _verify(self, command: VerifyCommand) -> AuthorizationOutcome:
        nothing = Money(0, command.currency)
        effect = Effect(Kind.VERIFY, command.effect_key, nothing, command.reference, command.credential.token_id)
        return await self._present(effect, command.merchant, command.credential, messages.verification)

    async def _present(
        self, effect: Effect, merchant: Merchant, credential: SealedCredential, message: Present
    ) -> AuthorizationOutcome:
        """The outcome of a request that shows the card's credential. It is deleted once it has served."""
        handle = credential.authentication_handle

        async def build(entry: Entry, repeat: bool) -> Message:
            authentication = await self._credentials.authentication(handle) if handle else None
            card = self._credentials.card(credential.sealed_pan)
            return message(entry.purchase, card, authentication, repeat=repeat)

        acceptor = Acceptor.of(merchant, self._terminal_id)
        entry = await self._journal.open(effect, acceptor, credential.sealed_pan)
        try:
            outcome = await self._decide(entry, build, credential.sealed_pan)
        except EffectAbandoned:
            await self._forget(handle)
            raise
        await self._forget(handle)
        return outcome

    async def _forget(self, handle: str | None) -> None:
        if handle is not None:
            await self._credentials.forget(handle)

    async def _increment(self, command: IncrementCommand) -> AuthorizationOutcome:
        entry, original = await self._journal.open_about(
            Effect(
                Kind.INCREMENT,
                command.effect_key,
                command.money,
                command.payment_id,
                original_effect_key=command.original_effect_key,
            )
        )

        async def build(entry: Entry, repeat: bool) -> Message:
            card = self._credentials.card(_box(original))
            return messages.increment(entry.purchase, card, original.original, repeat=repeat)

        return await self._decide(entry, build)

    async def _refund(self, command: RefundCommand) -> AuthorizationOutcome:
        entry, original = await self._journal.open_about(
            Effect(
                Kind.REFUND,
                command.effect_key,
                command.money,
                command.payment_id,
                original_effect_key=command.original_effect_key,
            )
        )

        async def build(entry: Entry, repeat: bool) -> Message:
            card = self._credentials.card(_box(original))
            return messages.refund(entry.purchase, card, original.original, repeat=repeat)

        return await self._decide(entry, build)

    async def _capture(self, command: CaptureCommand) -> Acknowledged:
        entry, original = await self._journal.open_about(
            Effect(
                Kind.CAPTURE,
                command.effect_key,
                command.money,
                original_effect_key=command.original_effect_key,
                final=command.final,
            )
        )

        async def build(entry: Entry, repeat: bool) -> Message:
            card = self._credentials.card(_box(original))
            approval_code = original.approval_code or ""
            return messages.capture(
                entry.purchase, card, original.original, approval_code, final=command.final, repeat=repeat
            )

        return _acknowledged(await self._advise(entry, build))

    async def _reverse(self, command: ReverseCommand) -> ReversalOutcome:
        decided = await self._journal.decide_reversal(command.effect_key, command.original_effect_key)
        if decided is None:
            return NeverSent()
        entry, original = decided

        async def build(entry: Entry, repeat: bool) -> Message:
            card = self._credentials.card(_box(original))
            approval_code = original.approval_code or ""
            of_refund = original.effect.kind is Kind.REFUND
            return messages.reversal(
                entry.purchase, card, original.original, approval_code, of_refund=of_refund, repeat=repeat
            )

        acknowledged = _acknowledged(await self._advise(entry, build))
        # It may have come while the reversal was on its way.
        original = await self._journal.read(command.original_effect_key)
        return Reversed(acknowledged.acknowledged_at, original.late_response_code)

    async def _release(self, command: ReleaseCommand) -> Acknowledged:
        entry, original = await self._journal.open_about(
            Effect(Kind.RELEASE, command.effect_key, command.captured, original_effect_key=command.original_effect_key)
        )

        async def build(entry: Entry, repeat: bool) -> Message:
            card = self._credentials.card(_box(original))
            purchase = replace(entry.purchase, money=original.purchase.money)
            approval_code = original.approval_code or ""
            return messages.release(purchase, card, original.original, approval_code, command.captured, repeat=repeat)

        return _acknowledged(await self._advise(entry, build))

    async def _provision(self, command: ProvisionCommand) -> Acknowledged:
        async def build(entry: Entry, repeat: bool) -> Message:
            card, pan = self._credentials.provisioning(command.sealed_token)
            return messages.provisioning(entry.trace, card, pan, repeat=repeat)

        effect = Effect(Kind.PROVISION, command.effect_key, token_id=command.token_id)
        return _acknowledged(await self._advise(await self._journal.open(effect), build))

    async def _deprovision(self, command: DeprovisionCommand) -> Acknowledged:
        async def build(entry: Entry, repeat: bool) -> Message:
            return messages.deprovisioning(entry.trace, self._credentials.card(command.sealed_pan), repeat=repeat)

        effect = Effect(Kind.DEPROVISION, command.effect_key, token_id=command.token_id)
        return _acknowledged(await self._advise(await self._journal.open(effect), build))

    async def _answer(self, kind: Kind, command: RepresentCommand | AcceptCommand, given: CaseAnswer) -> Acknowledged:
        original_effect_key, payment_id = await self._notices.original_of(command.chargeback_id)
        if payment_id != command.payment_id:
            raise OriginalUnknown("the case is about another payment")
        effect = Effect(
            kind,
            command.effect_key,
            command.money,
            payment_id,
            original_effect_key=original_effect_key,
            dispute=given,
        )
        entry, _ = await self._journal.open_about(effect)

        async def build(entry: Entry, repeat: bool) -> Message:
            return cases.answer(entry.purchase, given, repeat=repeat)

        return _acknowledged(await self._advise(entry, build))

    async def _decide(self, entry: Entry | None, build: Build, sealed_pan: str | None = None) -> AuthorizationOutcome:
        """The outcome of a request: the stored one, or that of its first sending, or of the one repeat."""
        if entry is None:
            raise EffectAbandoned("a reversal was decided before the request was sent")
        deadline = self._deadline()
        key = entry.effect.effect_key
        match entry.state:
            case State.ANSWERED | State.UNANSWERED:
                return _outcome(entry)
            case State.CREATED:
                message = prepare(await build(entry, False))
                if not self._link.ready:
                    raise Unreachable("the link to the network is down")
                if not await self._journal.begin(key, sealed_pan):
                    return await self._overtaken(key, build)
            case _:
                # Whoever sent it is gone, or waits in another process: the host answers both alike from its journal.
                repeat = await self._prepare_repeat(entry, build)
                if repeat is None:
                    return _outcome(await self._journal.give_up(key, DoubtReason.WORKER_LOST))
                message = repeat
        return await self._exchange(entry, message, deadline)

    async def _prepare_repeat(self, entry: Entry, build: Build) -> Prepared | None:
        """The one repeat of a request that was being sent; None when it cannot be made or was made already."""
        if entry.attempts > 1 or not self._link.ready:
            return None
        try:
            message = prepare(await build(entry, True))
        except CredentialExpired:
            return None  # the cryptogram is gone: whatever the host decided is found out by reversing it
        return message if await self._journal.begin_repeat(entry.effect.effect_key, entry.attempts) else None

    async def _overtaken(self, effect_key: str, build: Build) -> AuthorizationOutcome:
        """Someone else took the row between our reading and our sending: a reversal, or another process."""
        entry = await self._journal.find(effect_key)
        return await self._decide(entry, build)

    async def _exchange(self, entry: Entry, message: Prepared, deadline: float) -> AuthorizationOutcome:
        key = entry.effect.effect_key
        try:
            answer = await self._link.request(message, deadline)
        except Unreachable:
            if await self._journal.unsend(key):
                raise
            return _outcome(await self._journal.give_up(key, DoubtReason.CONNECTION_LOST))
        except InDoubt as doubt:
            return _outcome(await self._journal.give_up(key, doubt.reason))
        checks = messages.checks(message.message, answer)
        decided = await self._journal.record_answer(entry, answer, checks)
        if decided.late_response_code is not None:
            self._late.set()
        return _outcome(decided)

    async def _advise(self, entry: Entry | None, build: Build) -> Entry:
        """The acknowledged row of an advice, which is sent or repeated unless it was acknowledged before."""
        if entry is None:
            raise EffectAbandoned("the advice was given up before it was sent")
        if entry.state is State.ANSWERED:
            return entry
        key = entry.effect.effect_key
        repeat = entry.state is not State.CREATED
        deadline = self._deadline()
        message = prepare(await build(entry, repeat))
        if not self._link.ready:
            raise _not_sent(repeat)
        begun = await (self._journal.begin_repeat(key, entry.attempts) if repeat else self._journal.begin(key))
        if not begun:
            raise NotAcknowledged("another process is sending this advice")
        try:
            answer = await self._link.request(message, deadline)
        except Unreachable:
            raise _not_sent(not await self._journal.unsend(key)) from None
        except InDoubt as doubt:
            decided = await self._journal.give_up(key, doubt.reason)
            if decided.state is State.ANSWERED:
                return decided
            raise NotAcknowledged(f"no acknowledgement came: {doubt.reason}") from None
        if answer.get(39) in _TRY_AGAIN:
            await self._journal.give_up(key, DoubtReason.INVALID_ANSWER)
            raise NotAcknowledged(f"the network cannot take the advice now: {answer.get(39)}")
        return await self._journal.record_answer(entry, answer)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._answer_timeout_seconds

    def _enqueue_unmatched(self, message: Message) -> None:
        try:
            self._unmatched.put_nowait(message)
        except asyncio.QueueFull:
            _log.error("too many answers that belong to no request; one to STAN %s is dropped", message.get(11))

    async def _record_unmatched(self) -> None:
        while True:
            message = await self._unmatched.get()
            for attempt in range(_RECORD_ATTEMPTS):
                try:
                    await self._record_one_unmatched(message)
                    break
                except NetworkError as error:
                    _log.warning("an unexpected answer could not be recorded yet: %s", error)
                    await asyncio.sleep(min(0.1 * 2**attempt, 5.0))
            else:
                _log.error("an unexpected answer to STAN %s could not be recorded", message.get(11))

    async def _record_one_unmatched(self, message: Message) -> None:
        entry = await self._journal.find_answered_by(message)
        if entry is None:
            _log.error("an unsolicited answer %s to STAN %s is refused", message.mti, message.get(11))
            return
        running = self._running.get(entry.effect.effect_key)
        if running is not None:
            # The answer that decides may be on its way into the journal; only after it can a second one be told apart.
            await asyncio.wait((running[1],))
        if entry.effect.kind in ADVICE:
            if message.get(39) not in _TRY_AGAIN:
                await self._journal.record_answer(entry, message)
            return
        recorded = await self._journal.record_late(entry, message)
        if recorded.late_response_code is None:
            _log.info("a repeated answer to RRN %s is ignored", entry.trace.rrn)
        else:
            _log.error("a late answer to RRN %s is recorded; it changes nothing", entry.trace.rrn)
            self._late.set()

    async def _report_late_answers(self) -> None:
        """Tells of late answers until each has been told; one that cannot be told waits and does not hold up others."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._late.wait(), _LATE_RETRY_SECONDS)
            self._late.clear()
            try:
                for late in await self._journal.unreported():
                    await self._report(late)
            except NetworkError as error:
                _log.warning("late answers could not be reported yet: %s", error)

    async def _report(self, late: LateAnswer) -> None:
        try:
            await self._on_late_answer(late)
        except Exception:  # whatever the receiver's trouble is, it is told again
            _log.exception("the late answer to RRN %s could not be reported yet", late.rrn)
        else:
            await self._journal.mark_reported(late.effect_key)


def _identity(command: AuthorizeCommand) -> object:
    """What makes two commands the same: the sealed credential is made anew by the vault and may differ."""
    return (command.effect_key, command.payment_id, command.money, command.credential.token_id, command.sale)


def _box(original: Entry) -> str:
    assert original.sealed_pan is not None, "an authorization is journaled with its credential, a refund inherits it"
    return original.sealed_pan


def _outcome(entry: Entry) -> AuthorizationOutcome:
    """What a decided request's row means."""
    if entry.state is not State.ANSWERED:
        return Unknown(entry.doubt_reason or DoubtReason.TIMEOUT, entry.trace.rrn, entry.trace.stan)
    assert entry.answered_at is not None
    assert entry.response_code is not None
    assert entry.effect.money is not None
    if entry.response_code != APPROVED:
        return Declined(entry.response_code, entry.trace.rrn, entry.trace.stan, entry.answered_at, entry.checks)
    return Approved(
        entry.effect.money.amount_minor,
        entry.approval_code or "",
        entry.trace.rrn,
        entry.trace.stan,
        entry.answered_at,
        entry.checks,
    )


def _acknowledged(entry: Entry) -> Acknowledged:
    assert entry.answered_at is not None
    assert entry.response_code is not None
    if entry.response_code != APPROVED:
        raise AdviceRefused(entry.response_code)
    return Acknowledged(entry.answered_at)


def _not_sent(sent_before: bool) -> NetworkError:
    """`Unreachable` only when nothing was ever sent under the key."""
    if sent_before:
        return NotAcknowledged("the link to the network is down; the advice was sent before and not acknowledged")
    return Unreachable("the link to the network is down")
