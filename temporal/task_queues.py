"""Task queues are trust boundaries: who may poll a queue decides who sees what."""

from __future__ import annotations

from enum import StrEnum


class TaskQueue(StrEnum):
    """`VAULT` is polled by the only workers with the HSM's PIN, `NETWORK` by the only ones that open a credential."""

    PAYMENTS = "payments"
    VAULT = "vault"
    NETWORK = "network"
    NOTIFY = "notify"
    SETTLEMENT = "settlement"
    BANK = "bank"
    ONBOARDING = "onboarding"
