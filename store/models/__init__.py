"""All tables, so that whoever needs the whole metadata (Alembic) imports this package alone."""

from store.models import disputes, ledger, network, notify, platform, settlement, vault
from store.models.base import Base

__all__ = ["Base", "disputes", "ledger", "network", "notify", "platform", "settlement", "vault"]
