"""A person from the first word to the last: real rows, a real HSM, a real storage; then nothing opens any more."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.contracts import IdentityCheck, RescreeningPage
from activities.onboarding import ClosureActivities, OnboardingActivities
from config.settings import OnboardingSettings
from documents.errors import DocumentMissing
from documents.storage import Bucket, DocumentStorage
from domain.closure import CloseOrder, ClosureOrder, EraseOrder
from domain.ids import ONBOARDING_DOCUMENT, new_id, onboarding_document_key
from domain.onboarding import (
    CheckOutcome,
    DocumentKind,
    Onboarding,
    OnboardingChange,
    OnboardingDocument,
    OnboardingEvent,
    SealedDetails,
    apply,
)
from domain.personal import PersonalDetails, to_json
from domain.tiers import Tier
from embedded.softhsm import HsmToken, find_module
from onboarding.cases import DETAILS, Borrower, Cases
from onboarding.closures import Closures
from onboarding.errors import ChangeOutOfOrder, KeyMismatch
from onboarding.provider import LocalProvider
from onboarding.watch_list import WatchList
from sealing import Sealer, Unsealer
from sealing.personal import seal
from tests.support.persons import AddedUser, add_user, details
from tests.unit.documents.files import PDF
from vault.hsm.pkcs11_provider import Pkcs11Provider
from vault.personal_keys import PersonalKeys

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RETENTION = timedelta(days=1826)


@pytest.fixture(scope="module")
def provider(hsm_token: HsmToken) -> Iterator[Pkcs11Provider]:
    provider = Pkcs11Provider(find_module(), hsm_token.label, hsm_token.pin)
    yield provider
    provider.close()


@pytest_asyncio.fixture
async def storage(s3_endpoint: str) -> AsyncIterator[DocumentStorage]:
    name = f"persons-{secrets.token_hex(4)}"
    storage = DocumentStorage(Bucket(name, "eu-central-1", "testing", "testing", endpoint=s3_endpoint))
    await storage.create_bucket()
    yield storage
    await storage.close()


@dataclass
class Case:
    """What the API and the workflow do with a user's case, one after the other."""

    user: AddedUser
    cases: Cases
    keys: PersonalKeys
    onboarding: OnboardingActivities
    closures: ClosureActivities
    told: list[tuple[str, str]]
    state: Onboarding = field(default_factory=Onboarding)
    sequence: int = 0

    def change(self, event: OnboardingEvent, **fields: object) -> OnboardingChange:
        document = fields.get("document")
        kind = document.kind if isinstance(document, OnboardingDocument) else None
        self.state = apply(self.state, event, kind=kind)
        self.sequence += 1
        ids = (self.user.user_id, self.user.account_id)
        return OnboardingChange(*ids, self.sequence, event, self.state, NOW, "somebody", **fields)  # type: ignore[arg-type]

    async def submit(self, person: PersonalDetails) -> OnboardingChange:
        key = await self.keys.key_of(self.user.user_id)
        ciphertext = seal(key.key, to_json(person), DETAILS, self.user.user_id, key.key_id)
        sealed = SealedDetails(key.key_id, base64.b64encode(ciphertext).decode(), "2031-04-15")
        change = self.change(OnboardingEvent.SUBMITTED, details=sealed)
        await self.cases.record(change)
        return change

    async def check(self, handle_of: str | None = None) -> CheckOutcome:
        handle = await self.keys.lend(handle_of or self.user.user_id)
        return (await self.onboarding.check(IdentityCheck(self.user.user_id, handle))).outcome


@pytest_asyncio.fixture
async def case(
    engine: AsyncEngine, redis: Redis, provider: Pkcs11Provider, storage: DocumentStorage
) -> AsyncIterator[Case]:
    private = X25519PrivateKey.generate()
    keys = PersonalKeys(engine, redis, provider, Sealer(private.public_key().public_bytes_raw()))
    local = LocalProvider(WatchList.load(OnboardingSettings.model_fields["watch_list"].get_default()))

    told: list[tuple[str, str]] = []

    async def tell(user_id: str, list_version: str) -> None:
        told.append((user_id, list_version))

    async def end(user_id: str) -> None:
        return None

    cases = Cases(engine)
    onboarding = OnboardingActivities(cases, Borrower(redis, Unsealer([private.private_bytes_raw()])), local, tell)
    closures = ClosureActivities(Closures(engine, RETENTION), storage, end)
    yield Case(await add_user(engine), cases, keys, onboarding, closures, told)
    keys.close()


async def test_what_was_said_is_opened_for_the_check_and_for_nobody_elses(case: Case, engine: AsyncEngine) -> None:
    await case.submit(details())
    assert await case.check() is CheckOutcome.CLEAR
    with pytest.raises(Exception, match="not that of the details") as refused:
        await case.check(handle_of=(await add_user(engine)).user_id)
    assert isinstance(refused.value.__cause__, KeyMismatch)


async def test_a_change_is_written_once_and_in_its_turn(case: Case, engine: AsyncEngine) -> None:
    first = await case.submit(details())
    await case.cases.record(first)
    case.change(OnboardingEvent.REFERRED)
    with pytest.raises(ChangeOutOfOrder):
        await case.cases.record(case.change(OnboardingEvent.APPROVED, reasons=("fine",)))
    async with engine.connect() as connection:
        count = text("SELECT count(*) FROM onboarding.events WHERE user_id = :user")
        assert await connection.scalar(count, {"user": case.user.user_id}) == 1


async def test_whoever_was_held_against_another_list_is_told_of_todays_page_by_page(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.onboarding._PAGE", 1)
    await case.submit(details())
    await case.cases.record(case.change(OnboardingEvent.CLEARED, list_version="an older one"))
    assert await _rescreened(case) == [(case.user.user_id, "2026-11-22")]
    case.told.clear()
    await case.cases.record(case.change(OnboardingEvent.RESCREENED, list_version="2026-11-22"))
    assert await _rescreened(case) == []


async def _rescreened(case: Case) -> list[tuple[str, str]]:
    """Of all pages, what was told to this user. (Users of other tests are there, too.)"""
    page = RescreeningPage()
    while True:
        done = await case.onboarding.rescreen(page)
        if done.after is None:
            return [told for told in case.told if told[0] == case.user.user_id]
        page = RescreeningPage(done.after, done.list_version)


async def test_the_database_takes_no_step_that_a_case_does_not_have(case: Case, engine: AsyncEngine) -> None:
    await case.submit(details())
    for statement in (
        "UPDATE onboarding.cases SET status = 'pending', version = version + 1 WHERE user_id = :user",
        "UPDATE onboarding.cases SET status = 'verified' WHERE user_id = :user",
        "DELETE FROM onboarding.cases WHERE user_id = :user",
        "UPDATE onboarding.events SET actor = 'nobody' WHERE user_id = :user",
        "UPDATE platform.users SET tier = 'friend' WHERE id = :user",
    ):
        with pytest.raises(IntegrityError):
            async with engine.begin() as connection:
                await connection.execute(text(statement), {"user": case.user.user_id})


async def test_after_the_erasure_nothing_is_left_that_could_be_opened(
    case: Case, engine: AsyncEngine, storage: DocumentStorage
) -> None:
    user_id = case.user.user_id
    key = await case.keys.key_of(user_id)
    document_id = new_id(ONBOARDING_DOCUMENT)
    await storage.put(
        onboarding_document_key(user_id, document_id), seal(key.key, PDF, user_id), "application/octet-stream"
    )
    document = OnboardingDocument(
        document_id, DocumentKind.IDENTITY_FRONT, "application/pdf", len(PDF), secrets.token_hex(32)
    )
    await case.cases.record(case.change(OnboardingEvent.DOCUMENT_ADDED, document=document))
    await case.submit(details())
    assert PDF not in await storage.read(onboarding_document_key(user_id, document_id))

    closures = case.closures._closures
    await closures.begin(ClosureOrder(user_id, case.user.account_id, user_id))
    assert (await closures.obstacles(user_id)).open == ()
    await closures.shut(user_id)
    await case.keys.retire(user_id)
    closed = await closures.close(CloseOrder(user_id, NOW))
    assert closed.erase_after == NOW + RETENTION
    assert await case.keys.destroy(user_id) == key.key_id
    order = EraseOrder(user_id, key.key_id, NOW + RETENTION)
    certificate = await case.closures.erase(order)
    assert await case.closures.erase(order) == certificate
    assert (certificate.key_id, certificate.documents) == (key.key_id, 1)
    with pytest.raises(DocumentMissing):
        await storage.read(onboarding_document_key(user_id, document_id))
    async with engine.connect() as connection:
        row = (await connection.execute(text("SELECT * FROM platform.users WHERE id = :id"), {"id": user_id})).one()
        assert (row.name, row.email, row.phone, row.tier) == ("erased", None, None, Tier.UNVERIFIED)
        sealed = text("SELECT sealed_details FROM onboarding.cases WHERE user_id = :id")
        assert await connection.scalar(sealed, {"id": user_id}) is None


async def test_nobody_is_erased_before_the_retention_is_over(case: Case, engine: AsyncEngine) -> None:
    user_id = case.user.user_id
    closures = case.closures._closures
    await closures.begin(ClosureOrder(user_id, case.user.account_id, user_id))
    await closures.close(CloseOrder(user_id, NOW))
    with pytest.raises(IntegrityError):
        await closures.erase(EraseOrder(user_id, None, NOW + RETENTION - timedelta(seconds=1)))
    async with engine.connect() as connection:
        name = text("SELECT name FROM platform.users WHERE id = :id")
        assert await connection.scalar(name, {"id": user_id}) == "Anna Eriksson"
