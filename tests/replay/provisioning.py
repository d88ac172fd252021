"""A scripted world around the provisioning of a token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity
from temporalio.client import Client

from activities.contracts import ProvisioningBox, TokenRef
from domain.network import ProvisionCommand
from domain.outcomes import Acknowledged
from temporal.task_queues import TaskQueue
from tests.support.world import NOW, Script
from workers.registry import activity_worker, payments_worker


class ScriptedProvisioning:
    """The four steps; `provision` is the one that meets the outside world."""

    def __init__(self) -> None:
        self.network = Script(Acknowledged(NOW))

    @activity.defn(name="vault.provisioning_box")
    async def provisioning_box(self, token: TokenRef) -> ProvisioningBox:
        return ProvisioningBox("key.box")

    @activity.defn(name="network.provision")
    async def provision(self, command: ProvisionCommand) -> Acknowledged:
        answer: Acknowledged = await self.network.play(command)
        return answer

    @activity.defn(name="vault.activate_token")
    async def activate_token(self, token: TokenRef) -> None:
        return None

    @activity.defn(name="payment_methods.activate")
    async def activate(self, token: TokenRef) -> None:
        return None


@asynccontextmanager
async def open_provisioning(client: Client) -> AsyncIterator[Script]:
    """Workers for all queues that a provisioning needs, and the script of its network."""
    scripted = ScriptedProvisioning()
    vault = [scripted.provisioning_box, scripted.activate_token]
    async with (
        payments_worker(client, [scripted.activate], "test"),
        activity_worker(client, TaskQueue.VAULT, vault, "test"),
        activity_worker(client, TaskQueue.NETWORK, [scripted.provision], "test"),
    ):
        yield scripted.network
