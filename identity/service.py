"""All that a program needs of identities, in one piece."""

from __future__ import annotations

from dataclasses import dataclass

from identity.codes import ContactCodeDesk
from identity.credentials import Credentials
from identity.devices import Devices
from identity.passkeys import Passkeys
from identity.registration import Registrations
from identity.sessions import Sessions
from identity.signing_keys import SigningKeys
from identity.step_up import StepUps


@dataclass(frozen=True, slots=True)
class Identity:
    sessions: Sessions
    signing_keys: SigningKeys
    codes: ContactCodeDesk
    registrations: Registrations
    credentials: Credentials
    passkeys: Passkeys
    devices: Devices
    step_ups: StepUps
