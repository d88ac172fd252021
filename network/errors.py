"""What can go wrong on the way to the card network. A decline is a value, a lost answer is `Unknown`.

Retryable, with the same command: `Unreachable`, `NotAcknowledged`, `JournalUnavailable`, `CredentialStoreUnavailable`,
and of the clearing service `ClearingNotReady` and `ClearingUnreachable`.
All others stay as they are however often they are tried.
"""

from __future__ import annotations

from datetime import date

from domain.errors import DurapayError, Unavailable
from domain.outcomes import DoubtReason


class NetworkError(DurapayError):
    """The root of this package's errors. No message holds a card number, a cryptogram or a raw field value."""


class Unreachable(NetworkError, Unavailable):
    """No byte of the request left this host and the journal proves it; sending it again is safe."""


class NotAcknowledged(NetworkError):
    """The advice may have left and no acknowledgement came. Repeating it is safe and has to go on until one comes."""


class AdviceRefused(NetworkError):
    """The host answered an advice (capture, reversal, provisioning) with a refusal; repeating it changes nothing.

    `response_code` is DE39 of that answer.
    """

    def __init__(self, response_code: str) -> None:
        super().__init__(f"the network refused the advice with response code {response_code}")
        self.response_code = response_code


class CredentialExpired(NetworkError):
    """The sensitive authentication data is gone and nothing was sent. Only new data from the vault helps."""


class CredentialUnusable(NetworkError):
    """A sealed box cannot be opened by this worker, or it lacks what the message needs."""


class CredentialStoreUnavailable(NetworkError, Unavailable):
    """Redis, which holds the sensitive authentication data for some minutes, did not answer; nothing was sent."""


class JournalUnavailable(NetworkError):
    """PostgreSQL did not answer. Asking again with the same effect key finds out how far the effect had come."""


class StanExhausted(NetworkError):
    """All 999,999 trace numbers of this acquirer and day are used, or far too many of those that were tried."""


class EffectAbandoned(NetworkError):
    """A reversal was decided before the request was sent; under this effect key nothing will ever be sent."""


class EffectKeyReused(NetworkError):
    """The effect key belongs to another request (other kind, amount, currency, payment, token or original)."""


class OriginalUnknown(NetworkError):
    """The journal has no sent request under the original's effect key, so there is nothing to refer to."""


class MessageInvalid(NetworkError):
    """Not a message of this network's dialect of ISO 8583. `field` is the data element at fault, if one is."""

    def __init__(self, reason: str, field: int | None = None) -> None:
        super().__init__(reason if field is None else f"DE{field}: {reason}")
        self.field = field


class TlvInvalid(MessageInvalid):
    """Chip data (DE55) that is not well-formed BER-TLV."""


class FrameInvalid(NetworkError):
    """The byte stream is not framed as agreed; only a new connection can be trusted again."""


class DuplicateInFlight(Unreachable):
    """A request with the same matching key waits for its answer on this link; the second was not sent."""


class InDoubt(NetworkError):
    """At least one byte may have left and no valid answer came; `reason` says what happened."""

    def __init__(self, reason: DoubtReason) -> None:
        super().__init__(f"the request is in doubt: {reason}")
        self.reason = reason


class ClearingNotReady(NetworkError, Unavailable):
    """The network has not closed `day` yet. Its file comes after that."""

    def __init__(self, day: date) -> None:
        super().__init__(f"the network has not closed {day} yet")
        self.day = day


class ClearingUnreachable(NetworkError, Unavailable):
    """The network's clearing service did not give an answer that could be used."""


class ClearingFileInvalid(NetworkError):
    """What the network gave as the clearing file of `day` is none, or not all of it."""

    def __init__(self, day: date, reason: str) -> None:
        super().__init__(f"the clearing file of {day} is not valid: {reason}")
        self.day = day
