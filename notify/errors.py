"""What can go wrong with a notification. No message here holds an address, a text or a code of the recipient's."""

from __future__ import annotations

from collections.abc import Iterable

from domain.errors import DurapayError


class TemporaryFailure(DurapayError):
    """The provider did not take the message now; it may later.

    `code` is the provider's (or `timed_out`, `unreachable`). `retry_after_seconds` is what the provider asked for.
    After `timed_out` it is not known whether the message was taken.
    """

    def __init__(self, code: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"temporary failure: {code}")
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class PermanentRefusal(DurapayError):
    """The provider will never deliver this to this address. `code` is the provider's."""

    def __init__(self, code: str) -> None:
        super().__init__(f"permanent refusal: {code}")
        self.code = code


class RecipientGone(PermanentRefusal):
    """The address itself is dead (an app was removed, a token replaced): it is to be forgotten."""


class DeliveryIncomplete(DurapayError):
    """Some channels are still owed the message; delivering again comes back only for these.

    `retry_after_seconds` is the longest wait that a provider asked for, None when none did.
    """

    def __init__(self, channels: Iterable[str], retry_after_seconds: float | None) -> None:
        self.channels = tuple(sorted(channels))
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"not delivered yet: {', '.join(self.channels)}")


class InvalidNotification(DurapayError):
    """No such notification can be made, now or later: the caller has a bug."""


class CardNumberRefused(InvalidNotification):
    """A fact looks like a card number. Its value is not repeated, only its name."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"the fact {fact!r} holds what looks like a card number")
        self.fact = fact


class FactMissing(InvalidNotification):
    """The kind's texts need a fact that was not given."""

    def __init__(self, kind: str, fact: str) -> None:
        super().__init__(f"a {kind} notification needs the fact {fact!r}")
        self.fact = fact


class KeyReused(InvalidNotification):
    """The same key was used for another user or another kind of notification."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key} belongs to another notification")
        self.key = key
