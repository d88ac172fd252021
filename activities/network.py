"""The card network's side of a payment: only the workers of its queue open a credential."""

from __future__ import annotations

from temporalio import activity

from activities import contracts
from activities.errors import translated
from domain.disputes import AcceptCommand, RepresentCommand
from domain.network import (
    AuthorizeCommand,
    CaptureCommand,
    DeprovisionCommand,
    IncrementCommand,
    ProvisionCommand,
    RefundCommand,
    ReleaseCommand,
    ReverseCommand,
    VerifyCommand,
)
from domain.outcomes import Acknowledged, Approved, Declined, NeverSent, Reversed, Unknown
from network.gateway import NetworkGateway


class NetworkActivities(contracts.NetworkActivities):
    def __init__(self, gateway: NetworkGateway) -> None:
        self._gateway = gateway

    @activity.defn(name="network.authorize")
    async def authorize(self, command: AuthorizeCommand) -> Approved | Declined | Unknown:
        with translated():
            return await self._gateway.authorize(command)

    @activity.defn(name="network.increment")
    async def increment(self, command: IncrementCommand) -> Approved | Declined | Unknown:
        with translated():
            return await self._gateway.increment(command)

    @activity.defn(name="network.verify")
    async def verify(self, command: VerifyCommand) -> Approved | Declined | Unknown:
        with translated():
            return await self._gateway.verify(command)

    @activity.defn(name="network.reverse")
    async def reverse(self, command: ReverseCommand) -> Reversed | NeverSent:
        with translated():
            return await self._gateway.reverse(command)

    @activity.defn(name="network.capture")
    async def capture(self, command: CaptureCommand) -> Acknowledged:
        with translated():
            return await self._gateway.capture(command)

    @activity.defn(name="network.release")
    async def release(self, command: ReleaseCommand) -> Acknowledged:
        with translated():
            return await self._gateway.release(command)

    @activity.defn(name="network.refund")
    async def refund(self, command: RefundCommand) -> Approved | Declined | Unknown:
        with translated():
            return await self._gateway.refund(command)

    @activity.defn(name="network.represent")
    async def represent(self, command: RepresentCommand) -> Acknowledged:
        with translated():
            return await self._gateway.represent(command)

    @activity.defn(name="network.accept")
    async def accept(self, command: AcceptCommand) -> Acknowledged:
        with translated():
            return await self._gateway.accept(command)

    @activity.defn(name="network.provision")
    async def provision(self, command: ProvisionCommand) -> Acknowledged:
        with translated():
            return await self._gateway.provision(command)

    @activity.defn(name="network.deprovision")
    async def deprovision(self, command: DeprovisionCommand) -> Acknowledged:
        with translated():
            return await self._gateway.deprovision(command)
