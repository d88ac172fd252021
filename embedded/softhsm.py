"""SoftHSM 2: finds the PKCS#11 module and makes tokens in folders of our own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from domain.errors import DurapayError

# Debian, Debian multiarch, Fedora, SUSE, Homebrew, built from source.
_PLACES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)


class SoftHsmMissing(DurapayError):
    """SoftHSM is not installed. It comes from the system's packages, not from PyPI."""

    def __init__(self) -> None:
        super().__init__("SoftHSM is not installed; run: apt-get install -y softhsm2")


class TokenFailed(DurapayError):
    """A token could not be made."""


@dataclass(frozen=True, slots=True)
class HsmToken:
    """A PKCS#11 token and how to log in to it. `configuration` is the file that SOFTHSM2_CONF names."""

    module: Path
    label: str
    pin: str = field(repr=False)
    configuration: Path


def find_module() -> Path:
    """The PKCS#11 module; the environment's SOFTHSM2_MODULE has precedence.

    Raises:
        SoftHsmMissing: there is none.
    """
    for place in (os.environ.get("SOFTHSM2_MODULE"), *_PLACES):
        if place and Path(place).exists():
            return Path(place)
    raise SoftHsmMissing


def configuration_file(folder: Path) -> Path:
    """Where the configuration of the token folder is."""
    return folder / "softhsm2.conf"


def create_token(folder: Path, *, label: str, pin: str, so_pin: str) -> HsmToken:
    """A token named `label` in `folder` (made with mode 0700); one that is there already stays as it is.

    Raises:
        SoftHsmMissing: SoftHSM is not installed.
        TokenFailed: SoftHSM refused.
    """
    module = find_module()
    utility = shutil.which("softhsm2-util")
    if utility is None:
        raise SoftHsmMissing
    tokens = folder / "tokens"
    tokens.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    configuration = configuration_file(folder)
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    token = HsmToken(module=module, label=label, pin=pin, configuration=configuration)
    if not any(tokens.iterdir()):
        environment = {"PATH": os.environ.get("PATH", ""), "SOFTHSM2_CONF": str(configuration)}
        # softhsm2-util takes PINs as arguments only; that of a development token is visible for a moment.
        command = [utility, "--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", so_pin]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise TokenFailed(f"softhsm2-util ended with code {result.returncode}: {result.stderr.strip()}")
    return token


def main() -> None:
    """`python -m embedded.softhsm` says where the module is, or ends with 1 and what to install."""
    try:
        print(find_module())
    except SoftHsmMissing as error:
        sys.exit(str(error))
    if shutil.which("softhsm2-util") is None:
        sys.exit(str(SoftHsmMissing()))


if __name__ == "__main__":
    main()
