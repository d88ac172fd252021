"""Every message that travels, found by looking: what is added to these modules is tested by itself."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from types import ModuleType

import activities.contracts
import domain
import workflows.dispute_messages
import workflows.messages
import workflows.onboarding_messages

# What stays within one process: what settlement tells the ledger, and what a person says of themselves.
_NOT_SENT = {"domain.postings", "domain.personal", "domain.travel_documents"}


def _modules() -> list[ModuleType]:
    names = {module.name for module in pkgutil.iter_modules(domain.__path__, "domain.")} - _NOT_SENT
    return [
        workflows.messages,
        workflows.dispute_messages,
        workflows.onboarding_messages,
        activities.contracts,
        *map(importlib.import_module, names),
    ]


def message_types() -> list[type]:
    """The dataclasses of the modules that workflows, activities and API share, by name."""
    found = [
        member
        for module in _modules()
        for member in vars(module).values()
        if isinstance(member, type) and dataclasses.is_dataclass(member) and member.__module__ == module.__name__
    ]
    return sorted(found, key=lambda each: (each.__module__, each.__name__))
