"""What the stack keeps between two starts, in one folder: secrets, ports, data, logs, and who runs it now."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from domain.errors import DurapayError
from embedded.processes import PortTaken, free_port, port_is_free

ROOT = Path(__file__).parent.parent
_FOLDER_VARIABLE = "DURAPAY_STATE"

# Name → the port wanted when it is free at the first start; None takes any.
PORTS: Mapping[str, int | None] = {
    "api": 8000,
    "temporal": 7233,
    "ui": 8233,
    "codec_server": 8234,
    "database": None,
    "redis": None,
    "aws": None,
    "network": None,
    "network_control": None,
    "sandbox": None,
    "bank": None,
}


class AlreadyRunning(DurapayError):
    """Another process runs the stack on this folder."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"the stack is running already (process {pid}); `durapay stop` ends it")


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _master_key() -> str:
    """A double-length 3DES key in hex, each byte of odd parity (FIPS 46-3)."""
    raw = secrets.token_bytes(16)
    return bytes(byte & 0xFE | (byte >> 1).bit_count() % 2 ^ 1 for byte in raw).hex().upper()


# Each secret is made when it is first asked for, and is then a file of its own.
_MAKERS: Mapping[str, Callable[[], str]] = {
    "database_password": lambda: secrets.token_urlsafe(24),
    "redis_password": lambda: secrets.token_urlsafe(24),
    "codec_key": lambda: _base64(secrets.token_bytes(32)),
    "hsm_pin": lambda: secrets.token_hex(16),
    "hsm_so_pin": lambda: secrets.token_hex(16),
    "imk_ac": _master_key,
    "unsealing_private_key": lambda: _base64(X25519PrivateKey.generate().private_bytes_raw()),
    "onboarding_private_key": lambda: _base64(X25519PrivateKey.generate().private_bytes_raw()),
    "identity_secret": lambda: _base64(secrets.token_bytes(32)),
    "contact_codes_secret": lambda: _base64(secrets.token_bytes(32)),
    "step_up_secret": lambda: _base64(secrets.token_bytes(32)),
    "simulator_control_token": lambda: secrets.token_urlsafe(24),
    "clearing_token": lambda: secrets.token_urlsafe(24),
    "simulator_fingerprint_key": lambda: secrets.token_hex(32),
    "bank_private_key": lambda: _base64(X25519PrivateKey.generate().private_bytes_raw()),
    "correction_private_key": lambda: _base64(X25519PrivateKey.generate().private_bytes_raw()),
    "bank_token": lambda: secrets.token_urlsafe(24),
    "bank_control_token": lambda: secrets.token_urlsafe(24),
    "sandbox_control_token": lambda: secrets.token_urlsafe(24),
    "twilio_account_sid": lambda: f"AC{secrets.token_hex(16)}",
    "twilio_auth_token": lambda: secrets.token_hex(16),
    "ses_access_key_id": lambda: f"AKIA{secrets.token_hex(8).upper()}",
    "ses_secret_access_key": lambda: secrets.token_urlsafe(30),
    "documents_access_key_id": lambda: f"AKIA{secrets.token_hex(8).upper()}",
    "documents_secret_access_key": lambda: secrets.token_urlsafe(30),
}


def make_secret(name: str) -> str:
    """A fresh value for the secret of that name."""
    return _MAKERS[name]()


def sealing_public_key(unsealing_private_key: str) -> str:
    """The public half of an X25519 private key, both raw in base64."""
    private_key = X25519PrivateKey.from_private_bytes(base64.b64decode(unsealing_private_key))
    return _base64(private_key.public_key().public_bytes_raw())


@dataclass(frozen=True, slots=True)
class Running:
    """The stack that runs now. `processes` are name → process id."""

    pid: int
    processes: dict[str, int]


class StateFolder:
    """`.durapay/` of this project, or the folder that DURAPAY_STATE names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls) -> StateFolder:
        return cls(Path(os.environ.get(_FOLDER_VARIABLE, ROOT / ".durapay")).absolute())

    def create(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o711)  # PostgreSQL's own system user passes through it
        for private in (self.path / "secrets", self.logs):
            private.mkdir(exist_ok=True)
            private.chmod(0o700)

    def data(self, name: str) -> Path:
        return self.path / "data" / name

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def rotate_logs(self) -> None:
        """The logs of the last start become `NAME.log.1`."""
        for log in self.logs.glob("*.log"):
            log.rename(log.with_suffix(".log.1"))

    def delete(self) -> None:
        """Deletes everything.

        Raises:
            AlreadyRunning: the stack runs.
        """
        if not self.path.exists():
            return
        with self.held():
            shutil.rmtree(self.path)

    def secret(self, name: str) -> str:
        """The secret of that name; made now if there is none."""
        file = self.path / "secrets" / name
        if not file.exists():
            self.keep_secret(name, make_secret(name))
        return file.read_text()

    def find_secret(self, name: str) -> str | None:
        file = self.path / "secrets" / name
        return file.read_text() if file.exists() else None

    def keep_secret(self, name: str, value: str) -> Path:
        """Writes a secret to a file that only its owner can read, and returns where that is."""
        file = self.path / "secrets" / name
        file.touch(mode=0o600)
        file.write_text(value)
        return file

    def ports(self, overrides: Mapping[str, int]) -> dict[str, int]:
        """Each part's port: an override (which is kept), that of the last start, or a free one.

        Raises:
            PortTaken: somebody listens on a port that was overridden or kept.
        """
        file = self.path / "ports.json"
        kept: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        kept |= overrides
        for name, port in kept.items():
            if not port_is_free(port):
                raise PortTaken(port, name, f"; choose another one with --port {name}=NUMBER")
        for name, wanted in PORTS.items():
            if name not in kept:
                kept[name] = wanted if wanted is not None and port_is_free(wanted) else free_port()
        file.write_text(json.dumps(kept, indent=2) + "\n")
        return kept

    def kept_ports(self) -> dict[str, int]:
        """The ports of the latest start."""
        ports: dict[str, int] = json.loads((self.path / "ports.json").read_text())
        return ports

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes this process the one that runs the stack. The kernel lets go when the process ends, however it does.

        Raises:
            AlreadyRunning: another one is.
        """
        with (self.path / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                running = self.running()
                raise AlreadyRunning(running.pid if running is not None else 0) from None
            yield

    def publish(self, running: Running) -> None:
        draft = self.path / "running.draft"
        draft.write_text(json.dumps({"pid": running.pid, "processes": running.processes}))
        draft.rename(self.path / "running.json")

    def unpublish(self) -> None:
        (self.path / "running.json").unlink(missing_ok=True)

    def running(self) -> Running | None:
        """Who runs the stack, once it is up; None if nobody does."""
        file = self.path / "running.json"
        if not file.exists():
            return None
        content = json.loads(file.read_text())
        with (self.path / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Running(content["pid"], content["processes"])
        return None
