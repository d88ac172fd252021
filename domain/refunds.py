"""The states of a refund."""

from __future__ import annotations

from enum import StrEnum


class RefundStatus(StrEnum):
    PENDING = "pending"
    IN_DOUBT = "in_doubt"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
