"""Lives of verifications by deposits, to be recorded. Each is a function of its world and of how to skip over time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

from domain.micro_deposits import RETURN_WINDOW, MicroDepositStatus, NotReceived
from tests.support.deposit_world import DOUBT, FILE_ID, RIGHT, TAKEN, WRONG, DepositWorld

Skip = Callable[[timedelta], Awaitable[None]]
Scenario = Callable[[DepositWorld, Skip], Awaitable[None]]


async def verified_after_a_doubt(world: DepositWorld, skip: Skip) -> None:
    """The answer is lost, the bank denies having the file and gets it again; one wrong guess, then the right one."""
    world.bank.sends.then(DOUBT, TAKEN)
    world.bank.answers.then(NotReceived(FILE_ID))
    await world.start()
    await world.post()
    await world.guess(WRONG)
    await world.guess(RIGHT)
    await skip(RETURN_WINDOW)


async def returned_after_it_was_verified(world: DepositWorld, skip: Skip) -> None:
    await world.start()
    await world.post()
    await world.guess(RIGHT)
    await world.give_back("R10")


async def canceled(world: DepositWorld, skip: Skip) -> None:
    await world.start()
    await world.reached(MicroDepositStatus.SENT)
    await world.cancel()


async def removed_with_its_account(world: DepositWorld, skip: Skip) -> None:
    await world.start()
    await world.post()
    await world.remove()


DEPOSITS: tuple[Scenario, ...] = (
    verified_after_a_doubt,
    returned_after_it_was_verified,
    canceled,
    removed_with_its_account,
)
