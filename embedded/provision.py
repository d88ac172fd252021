"""What must be there before the first payment: `python -m embedded.provision database|token`.

`database` brings the schema to the newest version. `token` makes the keys of the HSM token (the key ceremony) and
prints their check values. Both change nothing the second time.
"""

from __future__ import annotations

import os
import sys

from config.settings import DatabaseSettings, HsmSettings
from store.migrate import migrate
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.keys import create_keys


def database() -> None:
    migrate(DatabaseSettings().url.get_secret_value())


def token() -> None:
    """Needs DURAPAY_CEREMONY_IMK_AC: the double-length 3DES master key (hex) that the card issuer's host holds too."""
    settings = HsmSettings()
    provider = Pkcs11Provider(settings.module, settings.token_label, settings.pin.get_secret_value(), sessions=1)
    for label, check_value in create_keys(provider, bytes.fromhex(os.environ["DURAPAY_CEREMONY_IMK_AC"])).items():
        print(f"{label} {check_value}")
    provider.close()


if __name__ == "__main__":
    {"database": database, "token": token}[sys.argv[1]]()
