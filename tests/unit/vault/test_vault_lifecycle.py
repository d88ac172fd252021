"""The token's life cycle as data."""

from __future__ import annotations

import pytest

from vault.lifecycle import TRANSITIONS, TokenEvent, TokenStatus, next_status, refusal, sources


def test_a_deleted_token_leads_nowhere() -> None:
    assert not [event for status, event in TRANSITIONS if status is TokenStatus.DELETED]


def test_only_an_active_token_can_be_suspended_and_only_a_suspended_one_resumed() -> None:
    assert sources(TokenEvent.SUSPEND) == (TokenStatus.ACTIVE,)
    assert sources(TokenEvent.RESUME) == (TokenStatus.SUSPENDED,)
    assert sources(TokenEvent.ACTIVATE) == (TokenStatus.INACTIVE,)


@pytest.mark.parametrize("event", TokenEvent)
def test_an_event_leads_to_one_state_and_repeating_it_is_no_refusal(event: TokenEvent) -> None:
    after = {target for (_, happening), target in TRANSITIONS.items() if happening is event}
    assert after == {next_status(event)}
    assert refusal(next_status(event), event) is None


@pytest.mark.parametrize(
    ("status", "event", "code"),
    [
        (TokenStatus.SUSPENDED, TokenEvent.ACTIVATE, "token_suspended"),
        (TokenStatus.DELETED, TokenEvent.ACTIVATE, "token_deleted"),
        (TokenStatus.INACTIVE, TokenEvent.SUSPEND, "token_inactive"),
        (TokenStatus.INACTIVE, TokenEvent.RESUME, "token_inactive"),
        (TokenStatus.DELETED, TokenEvent.RESUME, "token_deleted"),
    ],
)
def test_an_impossible_step_is_refused_with_the_state_as_code(
    status: TokenStatus, event: TokenEvent, code: str
) -> None:
    refused = refusal(status, event)
    assert refused is not None
    assert refused.code == code
