"""Bank accounts, verifications and a bank, put together as the bank worker puts them together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.bank import DepositWorkflows
from bank import store
from bank.client import BankClient
from bank.files import Originator
from bank.gateway import BankGateway
from bank.simulator.app import BankSimulator, Config
from bank.simulator.store import Bank
from domain.bank_accounts import BankAccountType
from domain.ids import ACCOUNT, MICRO_DEPOSIT, PAYMENT_METHOD, USER, effect_key, new_id
from domain.micro_deposits import (
    BankReturn,
    BeginRefusal,
    ConfirmAttempt,
    ConfirmVerdict,
    DepositReturned,
    DepositsPosted,
    MicroDepositChange,
    MicroDepositEvent,
    MicroDepositOrder,
    MicroDepositStatus,
    OriginateCommand,
    next_status,
)
from sealing import Sealer, Unsealer
from vault.bank_accounts import BankAccountVault, KeptBankAccount, NewBankAccount
from vault.hsm.pkcs11_provider import Pkcs11Provider

# A Monday morning in New York.
MONDAY = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
ORIGINATOR = Originator("076401251", "SIMULATED BANK", "1123456789", "DURAPAY")
TOKEN, CONTROL_TOKEN = "t" * 24, "c" * 24
ROUTING = "021000021"


# The vault's key, for what the bank corrects.
CORRECTION_KEY = X25519PrivateKey.generate()
CORRECTIONS = Sealer(CORRECTION_KEY.public_key().public_bytes_raw())


class Clock:
    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@dataclass(slots=True)
class Workflows(DepositWorkflows):
    """What the workflows would hear. Of `ended` verifications none runs any more."""

    ended: set[str] = field(default_factory=set)
    told: list[DepositsPosted | DepositReturned] = field(default_factory=list)
    begun: list[BankReturn] = field(default_factory=list)

    async def tell(self, news: DepositsPosted | DepositReturned) -> bool:
        self.told.append(news)
        return news.micro_deposit_id not in self.ended

    async def begin(self, entry: BankReturn) -> None:
        self.begun.append(entry)

    async def account_removed(self, micro_deposit_id: str) -> None:
        raise AssertionError("no account was removed")


@dataclass(slots=True)
class Owner:
    account_id: str
    user_id: str


@dataclass(slots=True)
class BankRig:
    engine: AsyncEngine
    vault: BankAccountVault
    simulator: BankSimulator
    gateway: BankGateway
    unsealer: Unsealer
    clock: Clock
    private_key: bytes = field(repr=False)

    async def owner(self) -> Owner:
        owner = Owner(new_id(ACCOUNT), new_id(USER))
        async with self.engine.begin() as connection:
            await connection.execute(
                text("INSERT INTO platform.accounts (id, name) VALUES (:id, :id)"), {"id": owner.account_id}
            )
            await connection.execute(
                text("INSERT INTO platform.users (id, account_id, name) VALUES (:id, :account, 'Ada Lovelace')"),
                {"id": owner.user_id, "account": owner.account_id},
            )
        return owner

    async def order(self, number: str, owner: Owner | None = None) -> MicroDepositOrder:
        """A verification to be begun, of a bank account that was added."""
        owner = owner or await self.owner()
        kept = await self.vault.add(NewBankAccount(ROUTING, number, BankAccountType.CHECKING), owner.user_id)
        return await self.order_of(kept, owner)

    async def order_of(self, kept: KeptBankAccount, owner: Owner) -> MicroDepositOrder:
        async with self.engine.begin() as connection:
            method = await connection.execute(
                text(
                    "INSERT INTO platform.payment_methods AS known (id, account_id, user_id, type, bank_account_id,"
                    " routing_number, account_type, last4, status) VALUES (:id, :account, :user, 'us_bank_account',"
                    " :bank_account, :routing, 'checking', :last4, 'pending')"
                    " ON CONFLICT (bank_account_id) DO UPDATE SET status = known.status RETURNING id"
                ),
                {
                    "id": new_id(PAYMENT_METHOD),
                    "account": owner.account_id,
                    "user": owner.user_id,
                    "bank_account": kept.id,
                    "routing": kept.routing_number,
                    "last4": kept.last4,
                },
            )
            method_id = str(method.scalar_one())
        return MicroDepositOrder(
            new_id(MICRO_DEPOSIT), owner.account_id, owner.user_id, method_id, kept.id, self.clock.now
        )

    async def begin(self, order: MicroDepositOrder) -> BeginRefusal | None:
        async with self.engine.begin() as connection:
            return await store.begin(connection, order)

    async def command(self, order: MicroDepositOrder) -> OriginateCommand:
        return OriginateCommand(
            effect_key(order.micro_deposit_id, "originate"),
            order.micro_deposit_id,
            await self.vault.box(order.bank_account_id),
        )

    async def record(self, order: MicroDepositOrder, *events: MicroDepositEvent) -> None:
        for event in events:
            async with self.engine.begin() as connection:
                row = (
                    await connection.execute(
                        text("SELECT status, version FROM bank.micro_deposits WHERE id = :id"),
                        {"id": order.micro_deposit_id},
                    )
                ).one()
                status = next_status(MicroDepositStatus(row.status), event)
                change = MicroDepositChange(order.micro_deposit_id, row.version + 1, event, status, self.clock.now)
                await store.record(connection, change)

    async def posted(self, order: MicroDepositOrder) -> None:
        """The deposits are begun, and posted as far as the books are concerned."""
        assert await self.begin(order) is None
        events = MicroDepositEvent
        await self.record(order, events.INITIATED, events.ORIGINATED, events.POSTED)

    async def amounts(self, order: MicroDepositOrder) -> tuple[int, int]:
        async with self.engine.connect() as connection:
            chosen = await store.amounts(connection, order.micro_deposit_id)
        return chosen.first_minor, chosen.second_minor

    async def guess(self, order: MicroDepositOrder, amounts: tuple[int, int], number: object = 1) -> ConfirmVerdict:
        key = effect_key(order.micro_deposit_id, f"confirm-{number}")
        return await self.gateway.confirm(ConfirmAttempt(key, order.micro_deposit_id, amounts))

    async def wrong(self, order: MicroDepositOrder) -> tuple[int, int]:
        first, second = await self.amounts(order)
        return first % 49 + 1, second

    async def row(self, order: MicroDepositOrder) -> dict[str, object]:
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT * FROM bank.micro_deposits WHERE id = :id"), {"id": order.micro_deposit_id}
            )
            return dict(found.mappings().one())

    async def forward(self, days: int) -> None:
        """Puts our clock and the bank's forward."""
        self.clock.now += timedelta(days=days)
        await self.simulator.ask(lambda books: books.catch_up())

    async def control(self, method: str, path: str, body: object = None) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.simulator.url) as client:
            response = await client.request(
                method, f"/control{path}", json=body, headers={"Authorization": f"Bearer {CONTROL_TOKEN}"}
            )
        assert response.is_success, response.text
        return response

    async def requests(self, file_id: str) -> list[str]:
        """What became of each time the bank was handed the file over."""
        journal = (await self.control("GET", "/journal")).json()
        return [each["outcome"] for each in journal["requests"] if each["file_id"] == file_id]

    async def entries(self, file_id: str) -> list[dict[str, object]]:
        journal = (await self.control("GET", "/journal")).json()
        return [each for each in journal["entries"] if each["file_id"] == file_id]


@asynccontextmanager
async def open_rig(engine: AsyncEngine, provider: Pkcs11Provider, folder: Path) -> AsyncIterator[BankRig]:
    key = X25519PrivateKey.generate()
    clock = Clock(MONDAY)
    vault = BankAccountVault(
        engine, provider, Sealer(key.public_key().public_bytes_raw()), Unsealer([CORRECTION_KEY.private_bytes_raw()])
    )
    unsealer = Unsealer([key.private_bytes_raw()])
    config = Config(
        folder / "bank.db", TOKEN, CONTROL_TOKEN, Bank(ORIGINATOR.routing_number, ORIGINATOR.bank_name), clock=clock
    )
    async with BankSimulator(config) as simulator:
        await _continue_returns(engine, simulator)
        client = BankClient(simulator.url, TOKEN, timeout_seconds=2.0)
        gateway = BankGateway(engine, unsealer, client, ORIGINATOR, corrections=CORRECTIONS, clock=clock)
        yield BankRig(engine, vault, simulator, gateway, unsealer, clock, key.private_bytes_raw())
        await client.aclose()
    vault.close()


async def _continue_returns(engine: AsyncEngine, simulator: BankSimulator) -> None:
    """The database has read files of the banks before this one: this one's numbers follow theirs."""
    async with engine.connect() as connection:
        last = await store.last_return_file(connection)
    await simulator.ask(lambda books: books.number_returns_after(last))
