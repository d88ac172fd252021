"""What every route needs, made once at start-up and handed out by FastAPI's dependencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from api.rate_limits import RateLimits
from config.settings import ApiSettings
from documents.storage import DocumentStorage
from identity.service import Identity
from vault.bank_accounts import BankAccountVault
from vault.personal_keys import PersonalKeys
from vault.service import Vault


@dataclass(frozen=True, slots=True)
class ApiContext:
    """`reader` is the engine for single statements."""

    settings: ApiSettings
    engine: AsyncEngine
    reader: AsyncEngine
    temporal: Client
    vault: Vault
    bank_accounts: BankAccountVault
    personal_keys: PersonalKeys
    documents: DocumentStorage
    identity: Identity
    limits: RateLimits


async def _context(request: Request) -> ApiContext:
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context)]
