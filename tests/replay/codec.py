"""The codec of the recorded histories: encrypted as in production, under a key that is good for nothing else."""

from __future__ import annotations

from temporalio.converter import DataConverter

from temporal.codec import EncryptionCodec
from temporal.converter import data_converter

# A TEST key, public on purpose: it opens only the histories beside this file, which hold invented payments.
PUBLIC_TEST_KEY = b"public-test-key-of-the-histories"


def replay_converter() -> DataConverter:
    return data_converter(EncryptionCodec({"public-test-key": PUBLIC_TEST_KEY}, "public-test-key"))
