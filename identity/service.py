"""All that a program needs of identities, in one piece."""

from __future__ import annotations

from dataclasses import dataclass

from identity.sessions import Sessions
from identity.signing_keys import SigningKeys


@dataclass(frozen=True, slots=True)
class Identity:
    sessions: Sessions
    signing_keys: SigningKeys
