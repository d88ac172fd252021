"""What goes in and out: recipients, notifications, texts, and the report of a delivery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from notify.card_numbers import refuse_card_numbers
from notify.errors import FactMissing


class Kind(StrEnum):
    PAYMENT_AUTHORIZED = "payment_authorized"
    PAYMENT_DECLINED = "payment_declined"
    PAYMENT_REFUNDED = "payment_refunded"
    PAYMENT_REVERSED = "payment_reversed"
    STEP_UP_CODE = "step_up_code"
    DISPUTE_OPENED = "dispute_opened"
    # The issuer's last word: the payer has the money back, or the charge stands.
    DISPUTE_UPHELD = "dispute_upheld"
    DISPUTE_REJECTED = "dispute_rejected"
    CARD_EXPIRING = "card_expiring"
    DEPOSITS_SENT = "deposits_sent"
    BANK_ACCOUNT_VERIFIED = "bank_account_verified"
    BANK_ACCOUNT_NOT_VERIFIED = "bank_account_not_verified"
    # It was verified, and then the bank returned an entry.
    BANK_ACCOUNT_REVOKED = "bank_account_revoked"
    CONTACT_CODE = "contact_code"
    CONTACT_KNOWN = "contact_known"
    CONTACT_REPLACED = "contact_replaced"
    SECURITY_NOTICE = "security_notice"


class ChannelName(StrEnum):
    PUSH = "push"
    SMS = "sms"
    EMAIL = "email"
    IN_APP = "in_app"


_EVERYWHERE = (ChannelName.PUSH, ChannelName.SMS, ChannelName.EMAIL, ChannelName.IN_APP)

# A one-time code proves that the payer has the phone: it goes there and nowhere else, least of all to a mailbox or to
# a lock screen. The in-app notice says only that a code was sent.
CHANNELS: Mapping[Kind, tuple[ChannelName, ...]] = {
    Kind.PAYMENT_AUTHORIZED: _EVERYWHERE,
    Kind.PAYMENT_DECLINED: _EVERYWHERE,
    Kind.PAYMENT_REFUNDED: _EVERYWHERE,
    Kind.PAYMENT_REVERSED: _EVERYWHERE,
    Kind.STEP_UP_CODE: (ChannelName.SMS, ChannelName.IN_APP),
    Kind.DISPUTE_OPENED: (ChannelName.PUSH, ChannelName.EMAIL, ChannelName.IN_APP),
    Kind.DISPUTE_UPHELD: (ChannelName.PUSH, ChannelName.EMAIL, ChannelName.IN_APP),
    Kind.DISPUTE_REJECTED: (ChannelName.PUSH, ChannelName.EMAIL, ChannelName.IN_APP),
    # Not worth an SMS: nothing is wrong yet, and it comes twice.
    Kind.CARD_EXPIRING: (ChannelName.PUSH, ChannelName.EMAIL, ChannelName.IN_APP),
    Kind.DEPOSITS_SENT: (ChannelName.PUSH, ChannelName.EMAIL, ChannelName.IN_APP),
    Kind.BANK_ACCOUNT_VERIFIED: (ChannelName.PUSH, ChannelName.EMAIL, ChannelName.IN_APP),
    Kind.BANK_ACCOUNT_NOT_VERIFIED: (ChannelName.PUSH, ChannelName.EMAIL, ChannelName.IN_APP),
    Kind.BANK_ACCOUNT_REVOKED: (ChannelName.PUSH, ChannelName.EMAIL, ChannelName.IN_APP),
    # These prove an address or speak to its owner, who need be no user: their recipient has that one address alone.
    Kind.CONTACT_CODE: (ChannelName.SMS, ChannelName.EMAIL),
    Kind.CONTACT_KNOWN: (ChannelName.SMS, ChannelName.EMAIL),
    Kind.CONTACT_REPLACED: (ChannelName.SMS, ChannelName.EMAIL),
    Kind.SECURITY_NOTICE: _EVERYWHERE,
}

CODE = "code"

# `decline_code` (domain.declines) and `decline_message` are optional; without them the text gives no reason.
REQUIRED_FACTS: Mapping[Kind, tuple[str, ...]] = {
    Kind.PAYMENT_AUTHORIZED: ("amount", "merchant", "last4"),
    Kind.PAYMENT_DECLINED: ("amount", "merchant", "last4"),
    Kind.PAYMENT_REFUNDED: ("amount", "merchant", "last4"),
    Kind.PAYMENT_REVERSED: ("amount", "merchant", "last4"),
    Kind.STEP_UP_CODE: ("amount", "merchant", CODE),
    Kind.DISPUTE_OPENED: ("amount", "merchant", "last4"),
    Kind.DISPUTE_UPHELD: ("amount", "merchant", "last4"),
    Kind.DISPUTE_REJECTED: ("amount", "merchant", "last4"),
    Kind.CARD_EXPIRING: ("last4", "expiry"),
    Kind.DEPOSITS_SENT: ("last4", "arrives"),
    Kind.BANK_ACCOUNT_VERIFIED: ("last4",),
    Kind.BANK_ACCOUNT_NOT_VERIFIED: ("last4", "why"),
    Kind.BANK_ACCOUNT_REVOKED: ("last4",),
    Kind.CONTACT_CODE: ("contact_code", "purpose"),
    Kind.CONTACT_KNOWN: (),
    Kind.CONTACT_REPLACED: ("when",),
    Kind.SECURITY_NOTICE: ("event", "when"),
}


@dataclass(frozen=True, slots=True)
class Recipient:
    """A user and where to reach them; `phone` in E.164, `locale` a BCP 47 tag. Addresses are kept out of reprs."""

    user_id: str
    name: str = field(repr=False)
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    push_tokens: tuple[str, ...] = field(default=(), repr=False)
    locale: str = "en"


@dataclass(frozen=True, slots=True)
class Notification:
    """Something that a user is to be told. `key` is the effect's key (`pay_…:notify:authorized`).

    `facts` fill the texts: `amount` (money as people read it), `merchant`, `last4`, `decline_code`,
    `decline_message`, `code`; `arrives` is a date, `why` a word (`refused`, `attempts_exceeded`, `locked`, `expired`,
    `returned`). They are kept out of reprs.

    Raises:
        CardNumberRefused: a fact looks like a card number.
        FactMissing: the kind needs a fact that is not there.
        ValueError: there is no such kind.
    """

    key: str
    user_id: str
    kind: Kind
    facts: Mapping[str, str] = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))
        refuse_card_numbers(self.facts)
        for fact in REQUIRED_FACTS[self.kind]:
            if fact not in self.facts:
                raise FactMissing(self.kind, fact)


@dataclass(frozen=True, slots=True)
class Content:
    """A rendered text. `title` is a subject line or a headline (empty for SMS); `html` is for e-mail only."""

    title: str = field(repr=False)
    body: str = field(repr=False)
    html: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One notification on one channel. `message_id` (`msg_…`) follows from `key`: sent twice, it is one message."""

    message_id: str
    key: str
    user_id: str
    kind: Kind
    content: Content


class Outcome(StrEnum):
    """What became of one channel. `REJECTED`: the provider said no for good, now or at an earlier attempt."""

    SENT = "sent"
    ALREADY_SENT = "already_sent"
    NOT_REACHABLE = "not_reachable"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    outcomes: Mapping[ChannelName, Outcome]
