"""Texts, from Jinja templates: per language and kind one file with a block for each text, and one for HTML.

`reasons.json` of a language translates the decline codes of `domain.declines`, `events.json` says what happened to a
user's access (a headline and a sentence).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from notify.messages import CODE, ChannelName, Content, Kind, Notification, Recipient

_FOLDER = Path(__file__).parent / "templates"

DEFAULT_LANGUAGE = "en"
LANGUAGES = frozenset(folder.name for folder in _FOLDER.iterdir() if folder.is_dir())
_EVENTS = {path.parent.name: json.loads(path.read_text("utf-8")) for path in _FOLDER.glob("*/events.json")}
_REASONS = {path.parent.name: json.loads(path.read_text("utf-8")) for path in _FOLDER.glob("*/reasons.json")}


def _is_html(name: str | None) -> bool:
    return name is not None and name.endswith(".html.j2")


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    loader=FileSystemLoader(_FOLDER),
    undefined=StrictUndefined,
    autoescape=_is_html,
    trim_blocks=True,
    lstrip_blocks=True,
    # The templates are part of the release: looking for changes at each use is wasted.
    auto_reload=False,
)


def render(notification: Notification, channel: ChannelName, recipient: Recipient) -> Content:
    """The text of `notification` on `channel`, in the recipient's language or else in English."""
    language = _language(recipient.locale)
    # Only the SMS may know the code: a template of another channel that asks for it fails.
    facts = {name: value for name, value in notification.facts.items() if name != CODE or channel is ChannelName.SMS}
    named = {**facts, "name": recipient.name, "reason": _reason(language, facts)}
    if "event" in facts:
        events = _EVENTS[language]
        named["event_title"], named["event_text"] = events.get(facts["event"], events["other"])
    # What a merchant calls itself, or a user, is one line; a line break in it could start a second headline.
    variables = {name: " ".join(value.split()) for name, value in named.items()}
    template = _ENVIRONMENT.get_template(f"{language}/{notification.kind}.txt.j2")
    match channel:
        case ChannelName.SMS:
            return Content(title="", body=_block(template, "sms", variables))
        case ChannelName.EMAIL:
            return Content(
                title=_block(template, "subject", variables),
                body=_block(template, "email", variables),
                html=_html(language, notification.kind, variables),
            )
        case ChannelName.PUSH | ChannelName.IN_APP:
            return Content(
                title=_block(template, f"{channel}_title", variables),
                body=_block(template, f"{channel}_body", variables),
            )


def _language(locale: str) -> str:
    """`de-AT` and `de_AT` are German; a language without texts is English."""
    language = locale.replace("_", "-").partition("-")[0].lower()
    return language if language in LANGUAGES else DEFAULT_LANGUAGE


def _reason(language: str, facts: Mapping[str, str]) -> str:
    """Why a payment was declined, or nothing: rather no reason than one in a language that the payer did not choose."""
    if language == DEFAULT_LANGUAGE:
        return facts.get("decline_message", "")
    reason: str = _REASONS[language].get(facts.get("decline_code", ""), "")
    return reason


def _html(language: str, kind: Kind, variables: dict[str, str]) -> str:
    return _ENVIRONMENT.get_template(f"{language}/{kind}.html.j2").render(variables, language=language)


def _block(template: Template, name: str, variables: dict[str, str]) -> str:
    text = "".join(template.blocks[name](template.new_context(dict(variables))))
    # A fact that is empty leaves two spaces or one at a line's end.
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines())
