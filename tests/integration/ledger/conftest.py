from __future__ import annotations

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger.transfers import Limit, OpenAccount
from tests.integration.ledger.support import USD, Books


@pytest_asyncio.fixture
async def books(engine: AsyncEngine) -> Books:
    made = Books(engine)
    await made.apply(
        OpenAccount(made.bank, USD, "bank"),
        OpenAccount(made.shop, USD, "merchant_payable"),
        OpenAccount(made.wallet, USD, "user_wallet", Limit.DEBITS_MUST_NOT_EXCEED_CREDITS),
        made.fund(1000, "fund"),
    )
    return made
