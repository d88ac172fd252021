"""The journal: one row per effect key, and every step of it a single conditional statement.

    created ──▶ sending ──▶ answered
       │           ├──────▶ unanswered      (a request: for good; an advice: until it is repeated)
       ▼           └──────▶ created         (no byte was written after all)
    abandoned

Whoever changes a state first has decided it; whoever comes second reads what was decided and answers that. That is
what makes an effect happen once, however many workers ask for it and wherever one of them dies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Final, cast

from sqlalchemy import (
    ColumnElement,
    Date,
    Executable,
    RowMapping,
    Select,
    String,
    Table,
    Update,
    and_,
    bindparam,
    case,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy import cast as cast_sql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from domain.card_checks import CardChecks, CheckResult
from domain.currency import Currency
from domain.money import Money
from domain.network import LateAnswer
from domain.outcomes import DoubtReason
from network.cases import CaseAnswer
from network.codec import Message
from network.errors import EffectKeyReused, JournalUnavailable, OriginalUnknown, StanExhausted
from network.messages import APPROVED, Acceptor, Original, Purchase, Trace, settlement_date
from store.models.network import NetworkMessage

_STAN_EXHAUSTED: Final = "54000"  # program_limit_exceeded, raised by the numbering trigger


class Kind(StrEnum):
    """`SALE` is an authorization that is taken at once; only what is asked on the wire tells the two apart."""

    AUTHORIZE = "authorize"
    SALE = "sale"
    INCREMENT = "increment"
    VERIFY = "verify"
    CAPTURE = "capture"
    REFUND = "refund"
    REVERSE = "reverse"
    RELEASE = "release"
    PROVISION = "provision"
    DEPROVISION = "deprovision"
    REPRESENT = "represent"
    ACCEPT = "accept"


class State(StrEnum):
    CREATED = "created"
    SENDING = "sending"
    ANSWERED = "answered"
    UNANSWERED = "unanswered"
    ABANDONED = "abandoned"


# The first message of each kind; what the original of a reversal was called.
_MTI: Final[Mapping[Kind, str]] = {
    Kind.AUTHORIZE: "0100",
    Kind.SALE: "0200",
    Kind.INCREMENT: "0100",
    Kind.VERIFY: "0100",
    Kind.REFUND: "0200",
    Kind.CAPTURE: "0220",
    Kind.REVERSE: "0420",
    Kind.RELEASE: "0420",
    Kind.PROVISION: "0620",
    Kind.DEPROVISION: "0620",
    Kind.REPRESENT: "0620",
    Kind.ACCEPT: "0620",
}
_KINDS_BY_ANSWER: Final[Mapping[str, frozenset[Kind]]] = {
    "0110": frozenset({Kind.AUTHORIZE, Kind.INCREMENT, Kind.VERIFY}),
    "0210": frozenset({Kind.SALE, Kind.REFUND}),
    "0230": frozenset({Kind.CAPTURE}),
    "0430": frozenset({Kind.REVERSE, Kind.RELEASE}),
    "0630": frozenset({Kind.PROVISION, Kind.DEPROVISION, Kind.REPRESENT, Kind.ACCEPT}),
}
# What is repeated until it is acknowledged; the others are requests, which are decided once.
ADVICE: Final = frozenset(
    {
        Kind.CAPTURE,
        Kind.REVERSE,
        Kind.RELEASE,
        Kind.PROVISION,
        Kind.DEPROVISION,
        Kind.REPRESENT,
        Kind.ACCEPT,
    }
)

# What can be undone: it moved money, or may have.
_REVERSIBLE: Final = frozenset({Kind.AUTHORIZE, Kind.SALE, Kind.INCREMENT, Kind.REFUND})

# To what each kind can refer. A sale was captured with its approval, so that it has no captures and increments.
_REFERRED: Final[Mapping[Kind, frozenset[Kind]]] = {
    Kind.INCREMENT: frozenset({Kind.AUTHORIZE}),
    Kind.CAPTURE: frozenset({Kind.AUTHORIZE}),
    Kind.RELEASE: frozenset({Kind.AUTHORIZE}),
    Kind.REFUND: frozenset({Kind.AUTHORIZE, Kind.SALE}),
    Kind.REPRESENT: frozenset({Kind.AUTHORIZE, Kind.SALE}),
    Kind.ACCEPT: frozenset({Kind.AUTHORIZE, Kind.SALE}),
}
# To the network an authorization, what is added to it and what is taken of it are one purchase. A refund is another.
_ONE_PURCHASE: Final = frozenset({Kind.INCREMENT, Kind.CAPTURE, Kind.RELEASE, Kind.REPRESENT, Kind.ACCEPT})
# What has a day in the network's clearing once it is acknowledged.
_SETTLED: Final = (Kind.SALE, Kind.CAPTURE, Kind.REFUND, Kind.REVERSE)

_TABLE: Final = cast(Table, NetworkMessage.__table__)
_C: Final = _TABLE.c

# What an answer can still decide.
_OPEN: Final = or_(_C.state == State.SENDING, and_(_C.state == State.UNANSWERED, _C.kind.in_(ADVICE)))

# The three statements of every exchange are built once: putting one together costs more than running it.
_INSERT: Final = insert(_TABLE).on_conflict_do_nothing(index_elements=[_C.effect_key]).returning(*_C)
_BEGIN: Final = (
    update(_TABLE)
    .where(_C.effect_key == bindparam("key"), _C.state == State.CREATED)
    .values(
        state=State.SENDING,
        attempts=1,
        sent_at=func.clock_timestamp(),
        sealed_pan=func.coalesce(bindparam("box"), _C.sealed_pan),
    )
)
_TODAY: Final = cast_sql(func.timezone("UTC", func.clock_timestamp()), Date)
_RECORD_ANSWER: Final = (
    update(_TABLE)
    .where(_C.effect_key == bindparam("key"), _OPEN)
    .values(
        state=State.ANSWERED,
        response_code=bindparam("code"),
        approval_code=bindparam("approval"),
        settlement_date=case(
            (
                and_(_C.kind.in_(_SETTLED), bindparam("code", type_=String) == APPROVED),
                func.coalesce(bindparam("settlement_date", type_=Date), _TODAY),
            ),
        ),
        answered_at=func.clock_timestamp(),
        doubt_reason=null(),
        checks=bindparam("checks", type_=_C.checks.type),
    )
    .returning(*_C)
)


@dataclass(frozen=True, slots=True)
class Effect:
    """What an effect key stands for. The same key with anything else in here is a mistake of the caller.

    `final` is a capture's: whether it is the last one. `dispute` is what is answered in one.
    """

    kind: Kind
    effect_key: str
    money: Money | None = None
    payment_id: str | None = None
    token_id: str | None = None
    original_effect_key: str | None = None
    final: bool | None = None
    dispute: CaseAnswer | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A numbered row of the journal (not a tombstone)."""

    effect: Effect
    state: State
    trace: Trace
    acceptor: Acceptor | None
    sealed_pan: str | None = field(repr=False)
    attempts: int
    response_code: str | None
    approval_code: str | None
    doubt_reason: DoubtReason | None
    answered_at: datetime | None
    reversal_decided_at: datetime | None
    late_response_code: str | None
    settlement_date: date | None
    checks: CardChecks | None = None

    @property
    def purchase(self) -> Purchase:
        assert self.effect.money is not None, "every kind but what is about a device number has an amount"
        assert self.acceptor is not None, "every kind but what is about a device number has an acceptor"
        return Purchase(self.trace, self.effect.money, self.acceptor)

    @property
    def original(self) -> Original:
        """This entry as DE90 of another message names it."""
        trace = self.trace
        return Original(_MTI[self.effect.kind], trace.stan, trace.transmission_time, trace.acquirer_id.lstrip("0"))


class Journal:
    """The rows of one acquirer. All methods raise `JournalUnavailable` when PostgreSQL does not answer."""

    def __init__(self, engine: AsyncEngine, acquirer_id: str) -> None:
        self._engine = engine
        # Nearly all steps are one statement: autocommit spares BEGIN and COMMIT their round trips.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._acquirer_id = acquirer_id

    async def open(
        self, effect: Effect, acceptor: Acceptor | None = None, sealed_pan: str | None = None
    ) -> Entry | None:
        """The row of `effect`, made now if there is none yet; None when the effect was abandoned.

        Raises:
            EffectKeyReused: the key stands for something else.
            StanExhausted: no trace number is free.
        """
        async with self.connection() as connection:
            return await self._open(connection, effect, acceptor, sealed_pan, rrn=None)

    async def open_about(self, effect: Effect) -> tuple[Entry | None, Entry]:
        """The same for what refers to an original, and the original: payment, acceptor and card are taken from it.

        So is the RRN, but for a refund.

        Raises:
            OriginalUnknown: nothing was ever sent under the original's key.
        """
        async with self.connection() as connection:
            original = await _read(connection, _by_key(effect.original_effect_key))
            if original is None or original.effect.kind not in _REFERRED[effect.kind] or original.attempts == 0:
                raise OriginalUnknown("nothing to which this can refer was sent under the original's effect key")
            inherited = Effect(
                effect.kind,
                effect.effect_key,
                effect.money,
                effect.payment_id or original.effect.payment_id,
                original.effect.token_id,
                effect.original_effect_key,
                effect.final,
                effect.dispute,
            )
            rrn = original.trace.rrn if effect.kind in _ONE_PURCHASE else None
            box = None if effect.dispute else original.sealed_pan
            return await self._open(connection, inherited, original.acceptor, box, rrn), original

    async def decide_reversal(self, effect_key: str, original_effect_key: str) -> tuple[Entry, Entry] | None:
        """Decides, for ever, that the original does not count; the reversal to send for it, and the original.

        None when nothing of the original was sent: from now on nothing will be, even if it was never asked for yet.
        Otherwise an original that waits is unanswered from here on, and its late answer changes nothing.

        Raises:
            EffectKeyReused: `effect_key` stands for something else.
            OriginalUnknown: the original is an advice, or asked for no money.
        """
        async with self.connection(transaction=True) as connection:
            tombstone = {
                "effect_key": original_effect_key,
                "acquirer_id": self._acquirer_id,
                "state": State.ABANDONED,
            }
            await connection.execute(_INSERT, tombstone)
            locked = await connection.execute(_by_key(original_effect_key).with_for_update())
            row = locked.mappings().one()
            if row["state"] == State.ABANDONED:
                return None
            original = _entry(row)
            if original.effect.kind not in _REVERSIBLE:
                raise OriginalUnknown(f"what was sent to {original.effect.kind} cannot be reversed")
            if original.state is State.CREATED:
                await connection.execute(_step(original_effect_key, state=State.ABANDONED))
                return None
            if original.reversal_decided_at is None:
                await connection.execute(_step(original_effect_key, **_decision(original.state)))
            effect = Effect(
                Kind.REVERSE,
                effect_key,
                original.effect.money,
                original.effect.payment_id,
                original.effect.token_id,
                original_effect_key,
            )
            entry = await self._open(connection, effect, original.acceptor, original.sealed_pan, rrn=original.trace.rrn)
            assert entry is not None, "nobody abandons a reversal"
            return entry, original

    async def begin(self, effect_key: str, sealed_pan: str | None = None) -> bool:
        """`created` → `sending`, committed before a byte leaves; False when someone else was faster."""
        return await self._change(_BEGIN, {"key": effect_key, "box": sealed_pan})

    async def begin_repeat(self, effect_key: str, attempts: int) -> bool:
        """Claims the repetition after `attempts` attempts; False when someone else was faster."""
        same = _C.attempts == attempts
        return await self._change(_step(effect_key, _OPEN, same, state=State.SENDING, attempts=attempts + 1))

    async def unsend(self, effect_key: str) -> bool:
        """`sending` → `created`: the only attempt so far wrote no byte. False when that is no longer all there is."""
        only = _C.attempts == 1
        step = _step(effect_key, _C.state == State.SENDING, only, state=State.CREATED, attempts=0, sent_at=null())
        return await self._change(step)

    async def give_up(self, effect_key: str, reason: DoubtReason) -> Entry:
        """`sending` → `unanswered`; the row as it stands then, whoever decided it."""
        step = _step(effect_key, _C.state == State.SENDING, state=State.UNANSWERED, doubt_reason=reason)
        await self._change(step)
        return await self.read(effect_key)

    async def record_answer(self, entry: Entry, message: Message, checks: CardChecks | None = None) -> Entry:
        """`sending` → `answered` with DE39, DE38 and what was found of code and address; the row as it stands then,
        whoever decided it.

        An answer to a request that was given up meanwhile is recorded as a late one.
        """
        answered = {
            "key": entry.effect.effect_key,
            "code": message.get(39),
            "approval": message.fields.get(38),
            "settlement_date": settlement_date(message, datetime.now(UTC).date()),
            "checks": None if checks is None else asdict(checks),
        }
        async with self.connection() as connection:
            decided = await _read(connection, _RECORD_ANSWER, answered)
            if decided is not None:
                return decided
            await self._record_late(connection, entry.effect.effect_key, message)
            return await _one(connection, entry.effect.effect_key)

    async def find_answered_by(self, message: Message) -> Entry | None:
        """The row to which an answer that nobody waited for belongs (STAN, DE7, RRN); None when there is none."""
        async with self.connection() as connection:
            matching = (
                select(_TABLE)
                .where(
                    _C.acquirer_id == self._acquirer_id,
                    _C.stan == message.get(11),
                    _C.transmission_time == message.get(7),
                    _C.kind.in_(_KINDS_BY_ANSWER.get(message.mti, frozenset())),
                )
                .order_by(_C.created_at.desc())
                .limit(1)
            )
            entry = await _read(connection, matching)
            return entry if entry is not None and message.fields.get(37, entry.trace.rrn) == entry.trace.rrn else None

    async def record_late(self, entry: Entry, message: Message) -> Entry:
        """Keeps a late answer to a request beside its outcome; the row as it stands then.

        A row that is still being sent is left alone: who sends it records its answer, or its repeat will ask again.
        """
        async with self.connection() as connection:
            await self._record_late(connection, entry.effect.effect_key, message)
            return await _one(connection, entry.effect.effect_key)

    async def unreported(self, limit: int = 100) -> list[LateAnswer]:
        """Late answers of which nobody was told yet, oldest first. One about no money is nobody's business."""
        query = (
            select(_TABLE)
            .where(_C.late_answered_at.is_not(None), _C.late_reported_at.is_(None))
            .where(_C.acquirer_id == self._acquirer_id, _C.kind != Kind.VERIFY)
            .order_by(_C.late_answered_at)
            .limit(limit)
        )
        async with self.connection() as connection:
            entries = [_entry(row) for row in (await connection.execute(query)).mappings()]
        return [
            LateAnswer(
                entry.effect.payment_id or "",
                entry.effect.effect_key,
                entry.late_response_code or "",
                entry.trace.stan,
                entry.trace.rrn,
            )
            for entry in entries
        ]

    async def mark_reported(self, effect_key: str) -> None:
        await self._change(_step(effect_key, late_reported_at=func.clock_timestamp()))

    async def find(self, effect_key: str) -> Entry | None:
        """The row of `effect_key`; None when it was abandoned."""
        async with self.connection() as connection:
            entry = await _read(connection, _by_key(effect_key))
            return None if entry is None or entry.state is State.ABANDONED else entry

    async def read(self, effect_key: str) -> Entry:
        """The numbered row of `effect_key`, which must exist."""
        async with self.connection() as connection:
            return await _one(connection, effect_key)

    async def rrns(self, payment_id: str) -> list[str]:
        """The retrieval reference numbers under which the network knows `payment_id`, oldest first."""
        query = (
            select(_C.rrn, func.min(_C.created_at))
            .where(_C.payment_id == payment_id, _C.rrn.is_not(None))
            .group_by(_C.rrn)
            .order_by(func.min(_C.created_at))
        )
        async with self.connection() as connection:
            return [str(row[0]) for row in await connection.execute(query)]

    async def _open(
        self,
        connection: AsyncConnection,
        effect: Effect,
        acceptor: Acceptor | None,
        sealed_pan: str | None,
        rrn: str | None,
    ) -> Entry | None:
        values = {
            "effect_key": effect.effect_key,
            "kind": effect.kind,
            "state": State.CREATED,
            "mti": _MTI[effect.kind],
            "acquirer_id": self._acquirer_id,
            "rrn": rrn,
            "amount_minor": effect.money.amount_minor if effect.money else None,
            "currency": effect.money.currency.value if effect.money else None,
            "payment_id": effect.payment_id,
            "token_id": effect.token_id,
            "original_effect_key": effect.original_effect_key,
            "final": effect.final,
            "dispute": asdict(effect.dispute) if effect.dispute else None,
            "acceptor": asdict(acceptor) if acceptor else None,
            "sealed_pan": sealed_pan,
        }
        row = (await connection.execute(_INSERT, values)).mappings().one_or_none()
        if row is None:
            row = (await connection.execute(_by_key(effect.effect_key))).mappings().one()
        if row["state"] == State.ABANDONED:
            return None
        entry = _entry(row)
        if entry.effect != effect:
            raise EffectKeyReused("the effect key already stands for another request")
        return entry

    async def _record_late(self, connection: AsyncConnection, effect_key: str, message: Message) -> None:
        """Keeps the first late answer. The answer that decided the row, come twice, is not a late one."""
        code = message.get(39)
        step = _step(
            effect_key,
            _C.state.in_((State.ANSWERED, State.UNANSWERED)),
            _C.late_response_code.is_(None),
            or_(_C.response_code.is_(None), _C.response_code != code),
            late_response_code=code,
            late_answered_at=func.clock_timestamp(),
        )
        await connection.execute(step)

    async def _change(self, statement: Update, values: Mapping[str, Any] | None = None) -> bool:
        async with self.connection() as connection:
            return bool((await connection.execute(statement, values)).rowcount)

    @asynccontextmanager
    async def connection(self, *, transaction: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection of the journal's: each statement by itself, or all in one transaction."""
        try:
            if transaction:
                async with self._engine.begin() as connection:
                    yield connection
            else:
                async with self._single.connect() as connection:
                    yield connection
        except (DBAPIError, PoolTimeout) as error:
            if isinstance(error, IntegrityError):
                raise  # a rule of the database was broken: a bug, not an outage
            if isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _STAN_EXHAUSTED:
                raise StanExhausted("no trace number of this acquirer is free today") from None
            # The statement's parameters, sealed boxes among them, would be printed with the cause.
            raise JournalUnavailable(f"the journal does not answer ({type(error).__name__})") from None


def _by_key(effect_key: str | None) -> Select[Any]:
    return select(_TABLE).where(_C.effect_key == effect_key)


def _step(effect_key: str, *conditions: ColumnElement[bool], **values: Any) -> Update:
    return update(_TABLE).where(_C.effect_key == effect_key, *conditions).values(**values)


def _decision(state: State) -> dict[str, Any]:
    """What a reversal's decision changes in its original."""
    decided: dict[str, Any] = {"reversal_decided_at": func.clock_timestamp()}
    if state is State.SENDING:
        decided |= {"state": State.UNANSWERED, "doubt_reason": DoubtReason.TIMEOUT}
    return decided


async def _read(
    connection: AsyncConnection, statement: Executable, values: Mapping[str, Any] | None = None
) -> Entry | None:
    """The entry that `statement` returns; None when there is none, or only a tombstone."""
    row = (await connection.execute(statement, values)).mappings().one_or_none()
    return None if row is None or row["kind"] is None else _entry(row)


async def _one(connection: AsyncConnection, effect_key: str) -> Entry:
    return _entry((await connection.execute(_by_key(effect_key))).mappings().one())


def _entry(row: RowMapping) -> Entry:
    money = None if row["currency"] is None else Money(row["amount_minor"], Currency[row["currency"]])
    return Entry(
        effect=Effect(
            Kind(row["kind"]),
            row["effect_key"],
            money,
            row["payment_id"],
            row["token_id"],
            row["original_effect_key"],
            row["final"],
            None if row["dispute"] is None else CaseAnswer(**row["dispute"]),
        ),
        state=State(row["state"]),
        trace=Trace(row["transmission_time"], row["stan"], row["acquirer_id"], row["rrn"]),
        acceptor=None if row["acceptor"] is None else Acceptor(**row["acceptor"]),
        sealed_pan=row["sealed_pan"],
        attempts=row["attempts"],
        response_code=row["response_code"],
        approval_code=row["approval_code"],
        doubt_reason=None if row["doubt_reason"] is None else DoubtReason(row["doubt_reason"]),
        answered_at=row["answered_at"],
        reversal_decided_at=row["reversal_decided_at"],
        late_response_code=row["late_response_code"],
        settlement_date=row["settlement_date"],
        checks=None if row["checks"] is None else _checks(row["checks"]),
    )


def _checks(stored: Mapping[str, str]) -> CardChecks:
    return CardChecks(**{name: CheckResult(result) for name, result in stored.items()})
