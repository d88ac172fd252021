"""Disputes as a merchant's program meets them: reading, evidence, answering, giving in; and what is refused."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from domain.disputes import ChargebackNotice, DisputeKind, NoticeStage
from domain.evidence import MAX_FILE_BYTES, MAX_FILES, TextField
from domain.ids import dispute_workflow_id
from temporal.codec import EncryptionCodec
from temporal.converter import data_converter
from temporal.task_queues import TaskQueue
from tests.integration.api.test_api_bad_input import check_error
from tests.support.disputes import dispute_events, dispute_id_of, notice
from tests.support.platform import Access
from tests.support.shop import Json, Shop, http_client, new_key, until
from tests.unit.documents.files import EXE, GIF, HTML, PDF, jpeg, pdf_of, png
from workflows.dispute import DisputeWorkflow

K, N = DisputeKind, NoticeStage
TEXTS = {"product_description": "Forty-two cups of coffee", "service_date": "2026-11-02"}


@pytest_asyncio.fixture(scope="module")
async def stranger(platform: Access, database: AsyncEngine) -> AsyncIterator[Shop]:
    """Another account."""
    shop = await Shop.open(platform, database)
    yield shop
    await shop.http.aclose()


class Issuer:
    """The card network's word, as its worker passes it on."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def disputes(self, payment: Json, kind: DisputeKind = K.CHARGEBACK, **fields: Any) -> ChargebackNotice:
        first = notice(
            payment["id"], kind, issued_at=datetime.now(UTC), **({"amount_minor": payment["amount_minor"]} | fields)
        )
        await self._client.start_workflow(
            "dispute", first, id=dispute_workflow_id(first.chargeback_id), task_queue=TaskQueue.PAYMENTS
        )
        return first

    async def says(self, first: ChargebackNotice, stage: NoticeStage, kind: DisputeKind = K.CHARGEBACK) -> None:
        handle = self._client.get_workflow_handle(dispute_workflow_id(first.chargeback_id))
        word = notice(
            first.payment_id,
            kind,
            stage,
            chargeback_id=first.chargeback_id,
            amount_minor=first.money.amount_minor,
            issued_at=datetime.now(UTC),
        )
        await handle.signal(DisputeWorkflow.network_decision, word)


@pytest_asyncio.fixture(scope="session")
async def issuer(platform: Access) -> Issuer:
    codec = EncryptionCodec({"k1": base64.b64decode(platform.secret("codec_key"))}, "k1")
    client = await Client.connect(platform.temporal, namespace=platform.namespace, data_converter=data_converter(codec))
    return Issuer(client)


async def disputed(shop: Shop, issuer: Issuer, kind: DisputeKind = K.CHARGEBACK) -> Json:
    """A new payment's dispute. Its card is new, too: fraud rules let one card pay only so often a minute."""
    first = await issuer.disputes(await shop.captured((await shop.wallet()).card_id), kind)
    return await shown(shop, dispute_id_of(first.chargeback_id))


async def shown(shop: Shop, dispute_id: str) -> Json:
    """The dispute, once it is there."""
    path = f"/v1/disputes/{dispute_id}"
    response = await until(lambda: shop.http.get(path), lambda answer: answer.status_code == 200)
    dispute: Json = response.json()
    return dispute


async def hand_in(
    shop: Shop,
    dispute: Json,
    content: bytes | None = PDF,
    name: str = "receipt.pdf",
    *,
    texts: Mapping[str, str] | None = None,
    key: str | None = "",
) -> httpx.Response:
    """As a program would: a multipart form, with a declared type that nobody believes. Without content: texts alone."""
    parts: list[tuple[str, Any]] = [(field, (None, text)) for field, text in (texts or {}).items()]
    if content is not None:
        parts.append(("file", (name, content, "application/pdf")))
    headers = {} if key is None else {"Idempotency-Key": key or new_key()}
    return await shop.http.post(f"/v1/disputes/{dispute['id']}/evidence", files=parts, headers=headers)


@pytest_asyncio.fixture(scope="module")
async def dispute(shop: Shop, issuer: Issuer) -> Json:
    """One that all refusals are tried on: none of them changes it."""
    return await disputed(shop, issuer)


# ------------------------------------------------------------------------------------------------------------- reading


async def test_a_chargeback_shows_what_is_at_stake_and_until_when(shop: Shop, issuer: Issuer) -> None:
    payment = await shop.captured((await shop.wallet()).card_id, 1234)
    first = await issuer.disputes(payment)
    dispute = await shown(shop, dispute_id_of(first.chargeback_id))
    due_by = datetime.fromisoformat(dispute.pop("due_by"))
    created = datetime.fromisoformat(dispute.pop("created"))
    assert timedelta(days=19) < due_by - created < timedelta(days=21)
    assert dispute == {
        "object": "dispute",
        "id": dispute_id_of(first.chargeback_id),
        "payment": payment["id"],
        "kind": "chargeback",
        "status": "needs_response",
        "status_reason": None,
        "amount_minor": 1234,
        "currency": "USD",
        "fee_minor": 0,
        "reason": "fraudulent",
        "reason_code": "10.4",
        "network_case": first.chargeback_id,
        "overdue": False,
        "evidence": {"texts": {}, "files": [], "submitted_at": None, "acknowledged_at": None, "sha256": None},
        "livemode": False,
        "closed": None,
    }


async def test_disputes_are_listed_newest_first_by_status_payment_and_deadline(
    platform: Access, database: AsyncEngine, issuer: Issuer
) -> None:
    shop = await Shop.open(platform, database)
    made = [await disputed(shop, issuer) for _ in range(2)]
    inquiry = await disputed(shop, issuer, K.INQUIRY)
    ids = [inquiry["id"], made[1]["id"], made[0]["id"]]

    async def listed(**filters: Any) -> list[str]:
        return [each["id"] for each in (await shop.get("/v1/disputes", **filters))["data"]]

    assert await listed() == ids
    assert await listed(status="inquiry") == [inquiry["id"]]
    assert await listed(payment=made[0]["payment"]) == [made[0]["id"]]
    soon = (datetime.now(UTC) + timedelta(days=15)).isoformat()
    assert await listed(**{"due_by[lt]": soon}) == [inquiry["id"]]
    assert await listed(**{"created[lt]": "2020-01-01T00:00:00Z"}) == []
    page = await shop.get("/v1/disputes", limit=2)
    assert ([each["id"] for each in page["data"]], page["has_more"]) == (ids[:2], True)
    assert await listed(starting_after=ids[1]) == [ids[2]]
    assert await listed(ending_before=ids[1]) == [ids[0]]
    await shop.http.aclose()


async def test_a_dispute_of_another_account_is_missing_like_one_that_does_not_exist(
    shop: Shop, stranger: Shop, dispute: Json
) -> None:
    handed_in = await hand_in(shop, dispute)
    file_id = handed_in.json()["evidence"]["files"][-1]["id"]
    for found in (dispute["id"], "dp_nothing"):
        path = f"/v1/disputes/{found}"
        messages = {
            check_error(await stranger.http.get(path), 404, "resource_missing")["message"],
            check_error(await stranger.http.get(f"{path}/evidence/{file_id}"), 404, "resource_missing")["message"],
            check_error(await hand_in(stranger, {"id": found}), 404, "resource_missing")["message"],
            check_error(await stranger.post(f"{path}/submit"), 404, "resource_missing")["message"],
            check_error(await stranger.post(f"{path}/accept"), 404, "resource_missing")["message"],
        }
        assert messages == {f"No such dispute: {found}"}
    assert (await stranger.get("/v1/disputes"))["data"] == []
    assert (await stranger.get("/v1/disputes", starting_after=dispute["id"]))["data"] == []


async def test_a_users_session_sees_no_disputes(platform: Access, shop: Shop, dispute: Json) -> None:
    wallet = await shop.wallet()
    token = (await shop.post(f"/v1/users/{wallet.user_id}/sessions")).json()["token"]
    async with http_client(platform, token) as http:
        user = Shop(http, shop.account_id, token)
        for response in (
            await http.get("/v1/disputes"),
            await http.get(f"/v1/disputes/{dispute['id']}"),
            await hand_in(user, dispute),
            await user.post(f"/v1/disputes/{dispute['id']}/accept"),
        ):
            check_error(response, 403, "permission_denied")


async def test_what_a_dispute_has_taken_cannot_be_refunded_and_the_rest_can(shop: Shop, issuer: Issuer) -> None:
    payment, key = await shop.captured((await shop.wallet()).card_id, 2000), new_key()
    first = await issuer.disputes(payment, amount_minor=1500)
    await shown(shop, dispute_id_of(first.chargeback_id))
    refunds = f"/v1/payments/{payment['id']}/refunds"
    for body in ({"amount_minor": 501}, {"amount_minor": 501}):
        check_error(await shop.post(refunds, body, key=key), 409, "payment_disputed", "amount_minor")
    check_error(await shop.post(refunds), 409, "payment_disputed", "amount_minor")
    check_error(await shop.post(refunds, {"amount_minor": 2001}), 422, "amount_too_large", "amount_minor")
    assert (await shop.get(refunds))["data"] == []
    rest = await shop.post(refunds, {"amount_minor": 500})
    assert rest.status_code == 201, rest.text


async def test_without_credentials_nothing_of_a_form_is_read(platform: Access, dispute: Json) -> None:
    async with http_client(platform, None) as http:
        response = await http.post(f"/v1/disputes/{dispute['id']}/evidence", files={"file": ("a.pdf", PDF)})
    check_error(response, 401, "api_key_missing")


# ------------------------------------------------------------------------------------------------------------ evidence


async def test_evidence_is_kept_listed_and_downloaded_by_a_link(shop: Shop, issuer: Issuer) -> None:
    dispute = await disputed(shop, issuer)
    files = {"invoice.exe": PDF, "parcel.jpg": jpeg(), "Unterschrift ✍.png": png()}
    for name, content in files.items():
        response = await hand_in(shop, dispute, content, name, texts=TEXTS | {"purpose": "receipt"})
        assert response.status_code == 200, response.text
    evidence = response.json()["evidence"]
    assert evidence["texts"] == TEXTS
    assert [(file["name"], file["content_type"], file["purpose"]) for file in evidence["files"]] == [
        ("invoice.exe", "application/pdf", "receipt"),
        ("parcel.jpg", "image/jpeg", "receipt"),
        ("Unterschrift ✍.png", "image/png", "receipt"),
    ]
    for file, content in zip(evidence["files"], files.values(), strict=True):
        assert (file["size_bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        link = await shop.get(f"/v1/disputes/{dispute['id']}/evidence/{file['id']}")
        assert link["file"] == file
        left = datetime.fromisoformat(link["expires_at"]) - datetime.now(UTC)
        assert timedelta(minutes=4) < left <= timedelta(minutes=5)
        assert "X-Amz-Expires=300" in link["url"]
        async with httpx.AsyncClient(trust_env=False) as anybody:
            downloaded = await anybody.get(link["url"])
        assert downloaded.content == content
        assert downloaded.headers["content-type"] == file["content_type"]
        assert downloaded.headers["content-disposition"].startswith("attachment;")
        assert downloaded.headers["x-amz-server-side-encryption"] == "AES256"
    assert await shown(shop, dispute["id"]) == response.json()


async def test_texts_alone_are_evidence_and_an_empty_one_removes_what_was_said(shop: Shop, issuer: Issuer) -> None:
    dispute = await disputed(shop, issuer)
    first = await hand_in(shop, dispute, None, texts=TEXTS | {"customer_name": "  Ada Lovelace "})
    assert first.json()["evidence"]["texts"] == TEXTS | {"customer_name": "Ada Lovelace"}
    second = await hand_in(shop, dispute, None, texts={"customer_name": "", "service_date": "2026-11-03"})
    assert second.json()["evidence"]["texts"] == TEXTS | {"service_date": "2026-11-03"}


async def test_every_field_of_text_is_taken(shop: Shop, issuer: Issuer) -> None:
    dispute = await disputed(shop, issuer)
    response = await hand_in(shop, dispute, None, texts={field.value: f"about {field}" for field in TextField})
    assert response.json()["evidence"]["texts"] == {field.value: f"about {field}" for field in TextField}


async def test_the_same_key_hands_in_once(shop: Shop, issuer: Issuer, database: AsyncEngine) -> None:
    dispute, key = await disputed(shop, issuer), new_key()
    first, *others = await asyncio.gather(*(hand_in(shop, dispute, texts=TEXTS, key=key) for _ in range(4)))
    assert first.status_code == 200
    assert [other.json() for other in others] == [first.json()] * 3
    again = await hand_in(shop, dispute, texts=TEXTS, key=key)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first.json(), "true")
    assert len(first.json()["evidence"]["files"]) == 1
    assert [event["type"] for event in await dispute_events(database, dispute["id"])] == ["created", "evidence_added"]
    for changed in (
        await hand_in(shop, dispute, png(), texts=TEXTS, key=key),
        await hand_in(shop, dispute, name="other.pdf", texts=TEXTS, key=key),
        await hand_in(shop, dispute, key=key),
    ):
        check_error(changed, 422, "idempotency_key_reused", "Idempotency-Key")


async def test_the_largest_file_is_taken(shop: Shop, dispute: Json) -> None:
    response = await hand_in(shop, dispute, pdf_of(MAX_FILE_BYTES), "large.pdf")
    assert response.status_code == 200, response.text


# ------------------------------------------------------------------------------------------------------------- refusals

BAD_FILES: dict[str, tuple[bytes, str, int, str]] = {
    "a program named like a document": (EXE, "invoice.pdf", 422, "file_type_unsupported"),
    "a page named like a document": (HTML, "invoice.pdf", 422, "file_type_unsupported"),
    "a GIF": (GIF, "photo.gif", 422, "file_type_unsupported"),
    "half a picture": (png()[:-6], "photo.png", 422, "file_type_unsupported"),
    "nothing": (b"", "empty.pdf", 422, "file_empty"),
    "a byte too many": (pdf_of(MAX_FILE_BYTES + 1), "large.pdf", 413, "file_too_large"),
    "a path upwards": (PDF, "../../etc/passwd", 422, "file_name_invalid"),
    "a path of Windows": (PDF, "..\\..\\boot.ini", 422, "file_name_invalid"),
    "an absolute path": (PDF, "/etc/passwd.pdf", 422, "file_name_invalid"),
    "a name of dots": (PDF, "..", 422, "file_name_invalid"),
    "a name that reads backwards": (PDF, "invoice\u202efdp.exe", 422, "file_name_invalid"),
    "a long name": (PDF, "a" * 101, 422, "file_name_invalid"),
    "a card number for a name": (PDF, "4242424242424242.pdf", 422, "card_number_refused"),
}


@pytest.mark.parametrize(("content", "name", "status", "code"), BAD_FILES.values(), ids=BAD_FILES.keys())
async def test_a_file_is_refused(shop: Shop, dispute: Json, content: bytes, name: str, status: int, code: str) -> None:
    before = await shown(shop, dispute["id"])
    check_error(await hand_in(shop, dispute, content, name), status, code, "file")
    assert await shown(shop, dispute["id"]) == before


async def test_a_body_larger_than_a_file_may_be_is_not_read_to_its_end(shop: Shop, dispute: Json) -> None:
    check_error(await hand_in(shop, dispute, bytes(8 * 1024 * 1024)), 413, "body_too_large")


async def test_other_routes_take_no_large_body(shop: Shop, dispute: Json) -> None:
    response = await shop.post(f"/v1/disputes/{dispute['id']}/submit", {"x": "y" * 100_000})
    check_error(response, 413, "body_too_large")


@pytest.mark.parametrize(
    ("texts", "code", "param"),
    [
        ({"favourite_color": "blue"}, "parameter_unknown", "favourite_color"),
        ({"customer_name": "x" * 5001}, "parameter_invalid", "customer_name"),
        ({"customer_name": "a\0b"}, "parameter_invalid", "customer_name"),
        ({"uncategorized_text": "paid with 4242 4242 4242 4242"}, "card_number_refused", "uncategorized_text"),
        ({"purpose": "fun"}, "parameter_invalid", "purpose"),
        ({"file": "not a file"}, "parameter_invalid", "file"),
        ({"purpose": "receipt"}, "evidence_missing", None),
    ],
)
async def test_a_text_is_refused(
    shop: Shop, dispute: Json, texts: dict[str, str], code: str, param: str | None
) -> None:
    check_error(await hand_in(shop, dispute, None, texts=texts), 422, code, param)


async def test_a_form_that_is_none_is_refused(shop: Shop, dispute: Json) -> None:
    path, headers = f"/v1/disputes/{dispute['id']}/evidence", {"Idempotency-Key": new_key()}
    check_error(
        await shop.http.post(path, json=TEXTS, headers=headers), 415, "content_type_unsupported", "Content-Type"
    )
    multipart = headers | {"Content-Type": "multipart/form-data"}
    check_error(await shop.http.post(path, content=b"--x\r\n", headers=multipart), 400, "body_invalid")
    broken = headers | {"Content-Type": "multipart/form-data; boundary=x"}
    check_error(await shop.http.post(path, content=b"no boundary", headers=broken), 400, "body_invalid")
    twice = [("customer_name", (None, "Ada")), ("customer_name", (None, "Eve"))]
    check_error(await shop.http.post(path, files=twice, headers=headers), 422, "parameter_invalid", "customer_name")
    two_files = [("file", ("a.pdf", PDF)), ("file", ("b.pdf", PDF))]
    check_error(await shop.http.post(path, files=two_files, headers=headers), 400, "body_invalid")
    check_error(await hand_in(shop, dispute, key=None), 400, "idempotency_key_missing", "Idempotency-Key")


async def test_only_so_many_files_are_taken_and_a_refused_one_does_not_stay(shop: Shop, issuer: Issuer) -> None:
    dispute = await disputed(shop, issuer)
    for number in range(MAX_FILES):
        assert (await hand_in(shop, dispute, name=f"{number}.pdf")).status_code == 200
    check_error(await hand_in(shop, dispute), 409, "evidence_limit_reached")
    assert len((await shown(shop, dispute["id"]))["evidence"]["files"]) == MAX_FILES


# --------------------------------------------------------------------------------------------------- answering, giving


async def test_an_answer_freezes_the_evidence(shop: Shop, issuer: Issuer) -> None:
    dispute = await disputed(shop, issuer)
    path, key = f"/v1/disputes/{dispute['id']}/submit", new_key()
    check_error(await shop.post(path), 422, "evidence_missing")
    await hand_in(shop, dispute, texts=TEXTS)
    answered = await shop.post(path, key=key)
    assert answered.status_code == 200, answered.text
    assert (answered.json()["status"], answered.json()["evidence"]["submitted_at"] is not None) == (
        "under_review",
        True,
    )
    again = await shop.post(path, key=key)
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (answered.json(), "true")
    check_error(await hand_in(shop, dispute), 409, "dispute_unexpected_state")
    check_error(await shop.post(path), 409, "dispute_unexpected_state")
    check_error(await shop.post(f"/v1/disputes/{dispute['id']}/accept"), 409, "dispute_unexpected_state")


async def test_what_the_issuer_decides_is_shown(shop: Shop, issuer: Issuer) -> None:
    first = await issuer.disputes(await shop.captured((await shop.wallet()).card_id))
    dispute = await shown(shop, dispute_id_of(first.chargeback_id))
    await issuer.says(first, N.WON)
    won = await until(lambda: shown(shop, dispute["id"]), lambda each: each["status"] == "won")
    assert (won["status_reason"], won["due_by"]) == ("decided_by_issuer", None)
    assert won["closed"] is not None


async def test_giving_in_needs_no_body_and_loses_at_once(shop: Shop, issuer: Issuer) -> None:
    dispute = await disputed(shop, issuer)
    response = await shop.http.post(f"/v1/disputes/{dispute['id']}/accept", headers={"Idempotency-Key": new_key()})
    assert response.status_code == 200, response.text
    assert (response.json()["status"], response.json()["status_reason"]) == ("lost", "accepted")
    check_error(
        await shop.post(f"/v1/disputes/{dispute['id']}/accept", {"reason": "x"}), 422, "parameter_unknown", "reason"
    )


async def test_an_inquiry_cannot_be_accepted(shop: Shop, issuer: Issuer) -> None:
    dispute = await disputed(shop, issuer, K.INQUIRY)
    assert (dispute["status"], dispute["kind"]) == ("inquiry", "inquiry")
    check_error(await shop.post(f"/v1/disputes/{dispute['id']}/accept"), 409, "dispute_unexpected_state")


async def test_the_form_is_documented(shop: Shop) -> None:
    paths = (await shop.get("/openapi.json"))["paths"]
    form = paths["/v1/disputes/{dispute_id}/evidence"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert set(form["schema"]["properties"]) == {field.value for field in TextField} | {"file", "purpose"}
    assert form["schema"]["properties"]["file"]["format"] == "binary"
