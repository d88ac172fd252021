"""The payload codec: every payload is AES-256-GCM ciphertext before it leaves the process (NIST SP 800-38D).

Encoded payload: metadata `encoding: binary/encrypted`, `key-id`, `namespace` and `workflow-id`; data is the 12-byte
nonce followed by the ciphertext of the whole inner payload. The metadata is the additional authenticated data, so a
ciphertext moved to another workflow or key id does not open. Nothing that is not encrypted is accepted on decode.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from domain.errors import DurapayError

ENCODING = b"binary/encrypted"
_NONCE_BYTES = 12
_KEY_BYTES = 32


class CodecError(DurapayError):
    """A payload could not be opened: it is not encrypted, its key is unknown, or it was tampered with or moved."""


class EncryptionCodec(PayloadCodec, WithSerializationContext):
    """Encrypts with `keys[active_key_id]`, decrypts with any of `keys` (32 bytes each).

    Raises:
        ValueError: a key is not 32 bytes long, or the active key is not among them.
    """

    def __init__(self, keys: Mapping[str, bytes], active_key_id: str) -> None:
        if active_key_id not in keys:
            raise ValueError(f"the active codec key {active_key_id!r} is not in the keyring")
        for identifier, key in keys.items():
            if len(key) != _KEY_BYTES:
                raise ValueError(f"codec key {identifier!r} must be {_KEY_BYTES} bytes long")
        self._ciphers = {identifier.encode(): AESGCM(key) for identifier, key in keys.items()}
        self._active_key_id = active_key_id.encode()
        self._namespace = b""
        self._workflow_id = b""

    def with_context(self, context: SerializationContext) -> Self:
        """This codec, bound to the workflow that a payload belongs to."""
        bound = self.__class__.__new__(self.__class__)
        bound.__dict__.update(self.__dict__)
        if isinstance(context, WorkflowSerializationContext | ActivitySerializationContext):
            bound._namespace = context.namespace.encode()
            bound._workflow_id = (context.workflow_id or "").encode()
        return bound

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypt(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._decrypt(payload) for payload in payloads]

    def _encrypt(self, payload: Payload) -> Payload:
        metadata = {
            "encoding": ENCODING,
            "key-id": self._active_key_id,
            "namespace": self._namespace,
            "workflow-id": self._workflow_id,
        }
        nonce = os.urandom(_NONCE_BYTES)
        cipher = self._ciphers[self._active_key_id]
        ciphertext = cipher.encrypt(nonce, payload.SerializeToString(), _associated_data(metadata))
        return Payload(metadata=metadata, data=nonce + ciphertext)

    def _decrypt(self, payload: Payload) -> Payload:
        metadata = payload.metadata
        if metadata.get("encoding") != ENCODING:
            raise CodecError("the payload is not encrypted")
        cipher = self._ciphers.get(metadata.get("key-id", b""))
        if cipher is None:
            raise CodecError("the payload is encrypted with an unknown key")
        owner = metadata.get("workflow-id", b"")
        if self._workflow_id and owner and owner != self._workflow_id:
            raise CodecError("the payload belongs to another workflow")
        nonce, ciphertext = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            plaintext = cipher.decrypt(nonce, ciphertext, _associated_data(metadata))
        except (InvalidTag, ValueError):
            raise CodecError("the payload was tampered with") from None
        return Payload.FromString(plaintext)


def _associated_data(metadata: Mapping[str, bytes]) -> bytes:
    fields = ("encoding", "key-id", "namespace", "workflow-id")
    return b"".join(len(value).to_bytes(4, "big") + value for value in (metadata.get(name, b"") for name in fields))
