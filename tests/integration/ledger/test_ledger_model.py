"""Random chains, applied to PostgreSQL and to the model: the same answers, the same balances, the same holds."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from ledger.errors import LedgerError
from ledger.queries import check_invariants
from ledger.transfers import (
    Applied,
    ExpirePending,
    Limit,
    OpenAccount,
    Outcome,
    Pending,
    Post,
    PostPending,
    Step,
    VoidPending,
    apply,
    apply_each,
)
from store.engine import create_engine
from store.models.ledger import LedgerAccount, LedgerHold
from tests.integration.ledger.model import Model, Refused

_Result = TypeVar("_Result")
# Whether each step was replayed; or the refusal's code, and the index of the step.
Expected = list[bool] | tuple[str, int]

USD, EUR = Currency.USD, Currency.EUR
PAST, FAR = datetime(2020, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

OPENED = [
    OpenAccount("bank", USD, "bank"),
    OpenAccount("wallet", USD, "user_wallet", Limit.DEBITS_MUST_NOT_EXCEED_CREDITS),
    OpenAccount("asset", USD, "asset", Limit.CREDITS_MUST_NOT_EXCEED_DEBITS),
    OpenAccount("euros", EUR, "bank"),
]
FUNDING: list[Step] = [
    Post("fund", "bank", "wallet", 100, USD, "code", "reference"),
    Post("lend", "asset", "bank", 100, USD, "code", "reference"),
    Pending("h0", "wallet", "bank", 30, USD, "code", "reference"),
    Pending("h1", "wallet", "bank", 20, USD, "code", "reference"),
    Pending("h2", "bank", "asset", 40, USD, "code", "reference", FAR),
    Pending("h3", "bank", "wallet", 10, USD, "code", "reference", PAST),
]

# Mostly what can go well; now and then one currency too many, the same account twice, one that nobody opened.
SIDES = [("bank", "wallet"), ("wallet", "bank"), ("asset", "wallet"), ("wallet", "asset"), ("bank", "asset")] * 5
SIDES += [("bank", "euros"), ("wallet", "wallet"), ("ghost", "bank"), ("bank", "ghost")]


def steps(model: Model) -> st.SearchStrategy[Step]:
    """Steps that meet what is in `model`: second phases of its holds, replays, and ids that may be taken."""
    name, amount = _names(40), _amounts()
    hold = st.sampled_from([*model.holds] * 5 + ["t0", "fund"])
    return st.one_of(
        st.sampled_from([*OPENED, OpenAccount("ghost", USD, "x"), OpenAccount("ghost", USD, "y")]),
        st.sampled_from([*model.transfers.values(), *FUNDING]),
        *first_phases(name),
        st.builds(PostPending, name, hold, amount, st.just("reference"), st.booleans()),
        st.builds(PostPending, name, hold, amount, st.just("reference"), st.booleans()),
        st.builds(VoidPending, name, hold, st.just("reference")),
        st.builds(ExpirePending, name, hold, st.just("reference")),
    )


def first_phases(name: st.SearchStrategy[str]) -> list[st.SearchStrategy[Step]]:
    movement = {
        "id": name,
        "sides": st.sampled_from(SIDES),
        "amount_minor": _amounts(),
        "currency": st.sampled_from([USD] * 15 + [EUR]),
        "covered": st.sampled_from([False, False, True]),
    }
    expires_at = st.sampled_from([None, None, PAST, FAR])
    pending = st.builds(_pending, **movement, expires_at=expires_at)
    return [st.builds(_post, **movement), pending, pending]


def _names(count: int) -> st.SearchStrategy[str]:
    return st.sampled_from([f"t{number}" for number in range(count)])


def _amounts() -> st.SearchStrategy[int]:
    return st.sampled_from([1, 2, 5, 10, 20, 30, 60])


# Their ids are seldom taken, so many of them can be booked together.
FRESH: st.SearchStrategy[Step] = st.deferred(lambda: st.one_of(first_phases(_names(1_000))))


def _post(id: str, sides: tuple[str, str], amount_minor: int, currency: Currency, covered: bool) -> Post:
    return Post(id, *sides, amount_minor, currency, "code", "reference", covered=covered)


def _pending(
    id: str, sides: tuple[str, str], amount_minor: int, currency: Currency, covered: bool, expires_at: datetime | None
) -> Pending:
    return Pending(id, *sides, amount_minor, currency, "code", "reference", expires_at, covered=covered)


def told(outcome: list[Applied] | LedgerError, expected: Expected) -> list[bool] | tuple[str, int | None]:
    """What PostgreSQL said, in the model's words where those allow for either of two codes."""
    if not isinstance(outcome, LedgerError):
        return [applied.replayed for applied in outcome]
    if isinstance(expected, tuple) and outcome.code in expected[0].split(" or "):
        return expected[0], outcome.index
    return outcome.code, outcome.index


class LedgerMachine(RuleBasedStateMachine):
    """One run has ids of its own: its model knows them without `prefix`, the database with it."""

    engine: AsyncEngine
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self.prefix = secrets.token_hex(6)
        self.model = Model()

    @initialize()
    def open_and_fund(self) -> None:
        self.compare([*OPENED, *FUNDING])

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self.compare([data.draw(steps(self.model))])

    @rule(data=st.data())
    def chain(self, data: st.DataObject) -> None:
        self.compare(data.draw(st.lists(steps(self.model), min_size=2, max_size=4)))

    @rule(data=st.data())
    def long_chain_of_first_phases(self, data: st.DataObject) -> None:
        """These are booked together."""
        self.compare(data.draw(st.lists(FRESH, min_size=4, max_size=8)))

    @rule(data=st.data())
    def batch_of_chains(self, data: st.DataObject) -> None:
        self.compare_each(data.draw(st.lists(st.lists(steps(self.model), min_size=1, max_size=3), max_size=6)))

    @rule(data=st.data())
    def batch_of_first_phases(self, data: st.DataObject) -> None:
        self.compare_each(data.draw(st.lists(st.lists(FRESH, min_size=1, max_size=2), max_size=12)))

    def compare_each(self, chains: Sequence[Sequence[Step]]) -> None:
        expected = [self.expected(chain) for chain in chains]
        outcomes = self.run(self._apply_each([[self._prefixed(step) for step in chain] for chain in chains]))
        assert [told(outcome, wanted) for outcome, wanted in zip(outcomes, expected, strict=True)] == expected

    def expected(self, chain: Sequence[Step]) -> Expected:
        try:
            return self.model.apply(chain)
        except Refused as refusal:
            code, index = refusal.args
            return code, index

    def compare(self, chain: Sequence[Step]) -> None:
        expected = self.expected(chain)
        try:
            outcome: list[Applied] | LedgerError = self.run(self._apply([self._prefixed(step) for step in chain]))
        except LedgerError as refusal:
            outcome = refusal
        assert told(outcome, expected) == expected

    @invariant()
    def balances_and_holds_are_the_same(self) -> None:
        balances, holds = self.run(self._state())
        assert balances == {key: account.sums() for key, account in self.model.accounts.items()}
        assert holds == {key: (hold.state, hold.remaining) for key, hold in self.model.holds.items()}

    def teardown(self) -> None:
        async def violations() -> list[Any]:
            async with self.engine.connect() as connection:
                return list(await check_invariants(connection))

        assert self.run(violations()) == []

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return self.loop.run_until_complete(work)

    def _prefixed(self, step: Step) -> Step:
        names = ("id", "debit_account", "credit_account", "pending_id")
        named: dict[str, Any] = {key: f"{self.prefix}:{getattr(step, key)}" for key in names if hasattr(step, key)}
        return replace(step, **named)

    async def _apply_each(self, chains: Sequence[Sequence[Step]]) -> list[Outcome]:
        async with self.engine.begin() as connection:
            return await apply_each(connection, chains)

    async def _apply(self, chain: Sequence[Step]) -> list[Applied]:
        async with self.engine.begin() as connection:
            return list(await apply(connection, chain))

    async def _state(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[str, int]]]:
        mine = f"{self.prefix}:%"
        accounts = select(
            LedgerAccount.id,
            LedgerAccount.debits_pending,
            LedgerAccount.debits_posted,
            LedgerAccount.credits_pending,
            LedgerAccount.credits_posted,
        ).where(LedgerAccount.id.like(mine))
        holds = select(LedgerHold.pending_id, LedgerHold.state, LedgerHold.remaining_minor).where(
            LedgerHold.pending_id.like(mine)
        )
        async with self.engine.connect() as connection:
            balances = {self._bare(row[0]): tuple(row[1:]) for row in await connection.execute(accounts)}
            standing = {self._bare(row[0]): (row[1], row[2]) for row in await connection.execute(holds)}
        return balances, standing

    def _bare(self, identifier: str) -> str:
        return identifier.removeprefix(f"{self.prefix}:")


def test_any_chains_do_in_postgresql_what_they_do_in_the_model(database_url: str) -> None:
    LedgerMachine.loop = asyncio.new_event_loop()
    LedgerMachine.engine = create_engine(database_url, pool_size=1)
    try:
        run_state_machine_as_test(
            LedgerMachine,
            settings=settings(
                max_examples=30,
                stateful_step_count=30,
                # Looking for a smaller example takes minutes on a database; the steps are printed as they are.
                phases=[Phase.generate],
                database=None,
            ),
        )
    finally:
        LedgerMachine.loop.run_until_complete(LedgerMachine.engine.dispose())
        LedgerMachine.loop.close()
