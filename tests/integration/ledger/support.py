"""Books of a test's own in the shared ledger: its ids carry a random prefix."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from domain.currency import Currency
from ledger.invariants import Violation
from ledger.queries import balance, check_invariants
from ledger.transfers import Applied, Pending, Post, PostPending, Step, VoidPending, apply

USD = Currency.USD


class Books:
    """An account `bank` without a limit, one `shop` without, and a `wallet` with $10.00 that must not go below zero."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.prefix = secrets.token_hex(6)
        self.bank = self.name("bank")
        self.shop = self.name("shop")
        self.wallet = self.name("wallet")

    def name(self, what: str) -> str:
        return f"{self.prefix}:{what}"

    async def apply(self, *chain: Step) -> list[Applied]:
        async with self.engine.begin() as connection:
            return await apply(connection, chain)

    async def sums(self, account: str) -> tuple[int, int, int, int]:
        """Debits pending and posted, credits pending and posted."""
        async with self.engine.connect() as connection:
            found = await balance(connection, account)
        return found.debits_pending, found.debits_posted, found.credits_pending, found.credits_posted

    async def violations(self) -> list[Violation]:
        async with self.engine.connect() as connection:
            return await check_invariants(connection)

    def fund(self, amount_minor: int, transfer: str) -> Post:
        return Post(self.name(transfer), self.bank, self.wallet, amount_minor, USD, "top_up", self.prefix)

    def pay(self, amount_minor: int, transfer: str = "pay") -> Post:
        return Post(self.name(transfer), self.wallet, self.shop, amount_minor, USD, "purchase", self.prefix)

    def hold(self, amount_minor: int, transfer: str = "hold", *, expires_at: datetime | None = None) -> Pending:
        return Pending(self.name(transfer), self.wallet, self.shop, amount_minor, USD, "hold", self.prefix, expires_at)

    def post(self, amount_minor: int, transfer: str = "post", *, hold: str = "hold", final: bool = True) -> PostPending:
        return PostPending(self.name(transfer), self.name(hold), amount_minor, self.prefix, final=final)

    def void(self, transfer: str = "void", *, hold: str = "hold") -> VoidPending:
        return VoidPending(self.name(transfer), self.name(hold), self.prefix)
