"""`python -m network.simulator`: the simulator as a process, set up by `DURAPAY_SIMULATOR_…`, ended by SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from network.simulator.server import SimulatorConfig, SimulatorServer


class SimulatorSettings(BaseSettings):
    """`imk_ac` and `fingerprint_key` are in hexadecimal."""

    model_config = SettingsConfigDict(env_prefix="DURAPAY_SIMULATOR_")

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    control_port: int = Field(ge=1, le=65535)
    control_token: SecretStr = Field(min_length=16)
    # Opens the clearing files and nothing else. Without one, the control token does.
    clearing_token: SecretStr | None = Field(default=None, min_length=16)
    journal_file: Path
    imk_ac: SecretStr = Field(min_length=32, max_length=32)
    fingerprint_key: SecretStr = Field(min_length=32)
    late_answer_seconds: float = Field(default=15.0, gt=0, le=600)
    lost_acknowledgements: int = Field(default=2, ge=0, le=100)
    dispute_delay_seconds: float = Field(default=2.0, ge=0, le=3600)
    notice_retry_seconds: float = Field(default=5.0, gt=0, le=3600)

    def config(self) -> SimulatorConfig:
        return SimulatorConfig(
            journal_file=self.journal_file,
            imk_ac=bytes.fromhex(self.imk_ac.get_secret_value()),
            fingerprint_key=bytes.fromhex(self.fingerprint_key.get_secret_value()),
            host=self.host,
            port=self.port,
            control_port=self.control_port,
            control_token=self.control_token.get_secret_value(),
            clearing_token=self.clearing_token.get_secret_value() if self.clearing_token else "",
            late_answer_seconds=self.late_answer_seconds,
            lost_acknowledgements=self.lost_acknowledgements,
            dispute_delay_seconds=self.dispute_delay_seconds,
            notice_retry_seconds=self.notice_retry_seconds,
        )


async def serve(config: SimulatorConfig) -> None:
    """Serves until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with SimulatorServer(config):
        await ended.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve(SimulatorSettings().config()))
