"""The Temporal client that API, workers and tools share."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.client import Client, Interceptor
from temporalio.service import RetryConfig

from config.settings import CodecSettings, TemporalSettings
from temporal.codec import EncryptionCodec
from temporal.converter import data_converter
from temporal.crash_points import crash_point_interceptors


def codec(settings: CodecSettings) -> EncryptionCodec:
    keys = {identifier: key.get_secret_value() for identifier, key in settings.keys.items()}
    return EncryptionCodec(keys, settings.active_key_id)


async def connect(
    temporal: TemporalSettings,
    codec_settings: CodecSettings,
    *,
    lazy: bool = False,
    patience_seconds: float | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> Client:
    """A client on `temporal.address`. With `lazy` it connects at its first call, so a server that is down does not
    keep a process from starting. A call that fails for want of a server is tried again for `patience_seconds`, or as
    long as the SDK thinks right, which is ten seconds."""
    patience = RetryConfig()
    if patience_seconds is not None:
        patience.max_elapsed_time_millis = round(patience_seconds * 1000)
    return await Client.connect(
        temporal.address,
        namespace=temporal.namespace,
        data_converter=data_converter(codec(codec_settings)),
        interceptors=[*interceptors, *crash_point_interceptors()],
        lazy=lazy,
        retry_config=patience,
    )
