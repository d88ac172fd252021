"""Faults that can be switched on: what the network does to answers, whatever the issuer decided."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Faults(BaseModel):
    """Counters are used up, switches stay until they are reset. Sign-on, echo and sign-off are answered regardless."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # The next answers that are decided and recorded, but not sent.
    drop_answers: int = Field(default=0, ge=0, le=100_000)
    # The same for acknowledgements of reversals (0430) alone.
    drop_reversal_acknowledgements: int = Field(default=0, ge=0, le=100_000)
    # The next answers instead of which the connection is closed.
    drop_connections: int = Field(default=0, ge=0, le=1_000)
    # The next answers that are sent twice.
    duplicate_answers: int = Field(default=0, ge=0, le=100_000)
    # The next notices of disputes that get lost on their way; they are repeated.
    drop_notices: int = Field(default=0, ge=0, le=100_000)
    # How long every answer is held back.
    delay_seconds: float = Field(default=0.0, ge=0, le=60)
    # Closes the connections there are, and every new one at once.
    refuse_connections: bool = False

    def use(self, counter: str) -> bool:
        """Whether the fault `counter` strikes now; it has one strike less then."""
        left: int = getattr(self, counter)
        if left:
            setattr(self, counter, left - 1)
        return left > 0
