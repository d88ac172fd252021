"""A service account as Google issues them, with a key of its own and the sandbox as its token endpoint."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PROJECT_ID = "durapay-sandbox"


def service_account(endpoint: str, project_id: str = PROJECT_ID) -> dict[str, str]:
    """The content of a service account file for the sandbox at `endpoint` (scheme, host and port)."""
    private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {
        "type": "service_account",
        "project_id": project_id,
        "private_key_id": secrets.token_hex(20),
        "private_key": pem.decode(),
        "client_email": f"firebase-adminsdk@{project_id}.iam.gserviceaccount.com",
        "client_id": str(secrets.randbelow(10**21)),
        "token_uri": f"{endpoint.rstrip('/')}/token",
    }


def write_service_account(path: Path, endpoint: str, project_id: str = PROJECT_ID) -> None:
    """Writes a fresh service account to `path`, readable by its owner alone. A file that is there is replaced."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(json.dumps(service_account(endpoint, project_id), indent=2))
