"""`python -m bank.simulator`: the bank as a process, set up by `DURAPAY_BANK_SIMULATOR_…`, ended by SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from bank.simulator.app import BankSimulator, Config
from bank.simulator.store import Bank


class BankSimulatorSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="DURAPAY_BANK_SIMULATOR_")

    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    token: SecretStr = Field(min_length=16)
    control_token: SecretStr = Field(min_length=16)
    journal_file: Path
    # Its check digit is right; it stands in for the bank of whoever runs the platform.
    routing_number: str = "076401251"
    name: str = "SIMULATED BANK"

    def config(self) -> Config:
        return Config(
            journal_file=self.journal_file,
            token=self.token.get_secret_value(),
            control_token=self.control_token.get_secret_value(),
            bank=Bank(self.routing_number, self.name),
            host=self.host,
            port=self.port,
        )


async def serve(config: Config) -> None:
    """Serves until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with BankSimulator(config):
        await ended.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve(BankSimulatorSettings().config()))
