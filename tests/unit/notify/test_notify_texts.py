"""Every text of every kind, channel and language."""

from __future__ import annotations

import pytest

from domain import declines
from notify.errors import FactMissing
from notify.messages import CHANNELS, REQUIRED_FACTS, ChannelName, Content, Kind, Notification, Recipient
from notify.rendering import _EVENTS, _REASONS, LANGUAGES, render

_FACTS = {
    "amount": "1050.00 EUR",
    "merchant": "Fish & <Chips>",
    "last4": "4242",
    "code": "493021",
    "decline_code": "insufficient_funds",
    "decline_message": "The card has insufficient funds.",
    "contact_code": "206134",
    "purpose": "password_reset",
    "event": "refresh_token_reused",
    "when": "2026-11-22 23:40 UTC",
    "expiry": "12/2034",
    "arrives": "2026-11-24",
    "why": "expired",
}
# Of a payment, or of who may get at the account.
_OF_BANK_ACCOUNTS = frozenset(
    {
        Kind.DEPOSITS_SENT,
        Kind.BANK_ACCOUNT_VERIFIED,
        Kind.BANK_ACCOUNT_NOT_VERIFIED,
        Kind.BANK_ACCOUNT_REVOKED,
    }
)
_OF_ACCESS = frozenset({Kind.CONTACT_CODE, Kind.CONTACT_KNOWN, Kind.CONTACT_REPLACED, Kind.SECURITY_NOTICE})

_ALL = [
    pytest.param(kind, channel, locale, id=f"{kind}-{channel}-{locale}")
    for kind in Kind
    for channel in CHANNELS[kind]
    for locale in sorted(LANGUAGES)
]

# The characters of one-segment SMS (3GPP TS 23.038, 6.2.1) that German and English need; the extension counts double.
_GSM7 = set(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)


def _recipient(locale: str) -> Recipient:
    return Recipient("usr_1", "Ada <b>Lovelace</b>", "ada@example.com", "+4915112345678", ("token",), locale)


def _rendered(kind: Kind, channel: ChannelName, locale: str, **changed: str) -> Content:
    return render(Notification("pay_1:notify:x", "usr_1", kind, {**_FACTS, **changed}), channel, _recipient(locale))


@pytest.mark.parametrize(("kind", "channel", "locale"), _ALL)
def test_every_kind_renders_on_every_channel_in_every_language(kind: Kind, channel: ChannelName, locale: str) -> None:
    content = _rendered(kind, channel, locale)
    if kind is Kind.CARD_EXPIRING:
        assert "12/2034" in content.body
    elif kind in _OF_BANK_ACCOUNTS:
        assert "4242" in content.title + content.body
        assert "1050" not in content.body
    elif kind not in _OF_ACCESS:
        assert "1050.00 EUR" in content.title + content.body
        assert "Fish & <Chips>" in content.title + content.body
    assert bool(content.title) == (channel is not ChannelName.SMS)
    assert (content.html is not None) == (channel is ChannelName.EMAIL)
    assert "{{" not in content.body
    assert "  " not in content.body


@pytest.mark.parametrize("locale", sorted(LANGUAGES))
def test_each_reason_why_an_account_was_not_verified_is_told_in_words_of_its_own(locale: str) -> None:
    reasons = ("refused", "attempts_exceeded", "locked", "expired", "returned")
    told = {_rendered(Kind.BANK_ACCOUNT_NOT_VERIFIED, ChannelName.PUSH, locale, why=why).body for why in reasons}
    assert len(told) == len(reasons)


@pytest.mark.parametrize(("kind", "channel", "locale"), _ALL)
def test_the_required_facts_are_enough(kind: Kind, channel: ChannelName, locale: str) -> None:
    facts = {name: _FACTS[name] for name in REQUIRED_FACTS[kind]}
    assert render(Notification("k", "usr_1", kind, facts), channel, _recipient(locale)).body


@pytest.mark.parametrize("kind", Kind)
def test_a_missing_fact_is_refused_by_name(kind: Kind) -> None:
    for missing in REQUIRED_FACTS[kind]:
        with pytest.raises(FactMissing) as refused:
            Notification("k", "usr_1", kind, {name: value for name, value in _FACTS.items() if name != missing})
        assert refused.value.fact == missing


@pytest.mark.parametrize("locale", sorted(LANGUAGES))
def test_only_the_sms_carries_the_code(locale: str) -> None:
    assert CHANNELS[Kind.STEP_UP_CODE] == (ChannelName.SMS, ChannelName.IN_APP)
    assert "493021" in _rendered(Kind.STEP_UP_CODE, ChannelName.SMS, locale).body
    in_app = _rendered(Kind.STEP_UP_CODE, ChannelName.IN_APP, locale)
    assert "493021" not in in_app.title + in_app.body


_SENT_AS_SMS = [kind for kind in Kind if ChannelName.SMS in CHANNELS[kind]]


@pytest.mark.parametrize(("kind", "locale"), [(kind, locale) for kind in _SENT_AS_SMS for locale in sorted(LANGUAGES)])
def test_an_sms_with_a_merchant_name_of_full_length_is_one_segment(kind: Kind, locale: str) -> None:
    # 22 characters are all that DE43 has for a merchant's name.
    body = _rendered(kind, ChannelName.SMS, locale, merchant="M" * 22, decline_code="card_velocity_exceeded").body
    assert set(body) <= _GSM7
    assert len(body) <= 160


def test_html_is_escaped_and_plain_text_is_not() -> None:
    mail = _rendered(Kind.PAYMENT_AUTHORIZED, ChannelName.EMAIL, "en")
    assert mail.html is not None
    assert "Ada &lt;b&gt;Lovelace&lt;/b&gt;" in mail.html
    assert "<Chips>" not in mail.html
    assert "Ada <b>Lovelace</b>" in mail.body


def test_a_line_break_in_a_fact_cannot_start_a_second_subject() -> None:
    mail = _rendered(Kind.PAYMENT_AUTHORIZED, ChannelName.EMAIL, "en", merchant="Shop\r\nBcc: eve@example.com")
    assert mail.title == "Your payment of 1050.00 EUR to Shop Bcc: eve@example.com"


def test_a_fact_is_never_read_as_a_template() -> None:
    text = _rendered(Kind.PAYMENT_AUTHORIZED, ChannelName.SMS, "en", merchant="{{ 7 * 7 }}").body
    assert "{{ 7 * 7 }}" in text


@pytest.mark.parametrize(
    ("locale", "language"), [("de-AT", "de"), ("de_CH", "de"), ("DE", "de"), ("fr", "en"), ("", "en"), ("../de", "en")]
)
def test_a_locale_without_texts_is_served_in_english(locale: str, language: str) -> None:
    assert _rendered(Kind.PAYMENT_AUTHORIZED, ChannelName.SMS, locale) == _rendered(
        Kind.PAYMENT_AUTHORIZED, ChannelName.SMS, language
    )


def test_a_decline_gives_its_reason_in_the_recipient_s_language_only() -> None:
    assert "insufficient funds" in _rendered(Kind.PAYMENT_DECLINED, ChannelName.IN_APP, "en").body
    german = _rendered(Kind.PAYMENT_DECLINED, ChannelName.IN_APP, "de").body
    assert "nicht gedeckt" in german
    assert "insufficient" not in german


def test_every_decline_code_that_says_more_than_no_is_translated() -> None:
    known = [*declines._TABLE.values(), declines.NETWORK_UNAVAILABLE]
    telling = {entry.code for entry in known if entry.message != "The card was declined."}
    for language in LANGUAGES - {"en"}:
        assert set(_REASONS[language]) == telling


def test_no_repr_shows_an_address_a_fact_or_a_text() -> None:
    notification = Notification("k", "usr_1", Kind.STEP_UP_CODE, _FACTS)
    shown = repr(_recipient("en")) + repr(notification) + repr(render(notification, ChannelName.SMS, _recipient("en")))
    for secret in ("Ada", "ada@example.com", "+4915112345678", "token", "493021", "Chips"):
        assert secret not in shown


@pytest.mark.parametrize("locale", sorted(LANGUAGES))
@pytest.mark.parametrize("purpose", ["registration", "contact_change", "password_reset"])
@pytest.mark.parametrize("channel", CHANNELS[Kind.CONTACT_CODE])
def test_a_code_is_in_what_is_sent_to_the_address_that_it_proves(
    locale: str, purpose: str, channel: ChannelName
) -> None:
    content = _rendered(Kind.CONTACT_CODE, channel, locale, purpose=purpose)
    assert "206134" in content.body
    assert ("assw" in content.body) == (purpose == "password_reset")
    if channel is ChannelName.SMS:
        assert len(content.body) <= 160
    else:
        assert "206134" in str(content.html)
        assert "206134" in content.title


@pytest.mark.parametrize("event", _EVENTS["en"])
@pytest.mark.parametrize("locale", sorted(LANGUAGES))
@pytest.mark.parametrize("channel", CHANNELS[Kind.SECURITY_NOTICE])
def test_every_security_event_is_told_in_every_language(event: str, locale: str, channel: ChannelName) -> None:
    content = _rendered(Kind.SECURITY_NOTICE, channel, locale, event=event)
    assert _EVENTS[locale][event][0] in content.title + content.body
    assert "2026-11-22 23:40 UTC" in content.title + content.body
    if channel is ChannelName.SMS:
        assert set(content.body) <= _GSM7
        assert len(content.body) <= 160


def test_an_event_without_a_text_is_told_in_general_words() -> None:
    assert _EVENTS["en"].keys() == _EVENTS["de"].keys()
    assert _rendered(Kind.SECURITY_NOTICE, ChannelName.SMS, "en", event="unheard_of").body
