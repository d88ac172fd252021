"""What a merchant pays the platform for a capture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.currency import Currency
from domain.money import Money


@dataclass(frozen=True, slots=True)
class PlatformFee:
    """`basis_points` of what is captured (0–10,000) and a fixed amount, by currency in its minor units, per capture.

    The fee stays when the payment is refunded: the work was done, and the network's own fees do not come back either.

    Raises:
        ValueError: the share or an amount is negative, or the share more than all of it.
    """

    basis_points: int = 0
    fixed_minor: Mapping[Currency, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.basis_points <= 10_000 or any(amount < 0 for amount in self.fixed_minor.values()):
            raise ValueError("a fee takes between nothing and all of a capture")

    def of(self, captured: Money) -> int:
        """The fee in minor units: the share is rounded half up, and no capture costs more than it brings."""
        share = (captured.amount_minor * self.basis_points + 5_000) // 10_000
        return min(share + self.fixed_minor.get(captured.currency, 0), captured.amount_minor)


NO_FEE = PlatformFee()
