"""A new user's whole way in a real browser: its WebAuthn, its keys, and the page that the platform serves."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import expect

from tests.support.app import App, Someone, wrong
from tests.support.bank import ROUTING_NUMBER, Bank
from tests.support.browser import PHONE, Browser, browser_at
from tests.support.platform import Access, api_beside
from tests.support.shop import GOOD_CARD, Shop, http_client

CARD = {"number": "4242 4242 4242 4242", "expiry": "12/34", "cvc": "123"}


async def _register(browser: Browser, app: App) -> Someone:
    """A user who is signed in on the page and has no password."""
    someone = Someone(password=None)
    await browser.do("app", "good", key=app.http.headers["Authorization"].removeprefix("Bearer "))
    await browser.do("register", "good", name=someone.name, email=someone.email, phone=someone.phone)
    codes = {"email": await app.code(someone.email), "phone": await app.code(someone.phone)}
    await browser.do("codes", "good", **codes)
    await browser.noticed("You are registered")
    return someone


async def test_a_new_user_comes_from_registration_to_a_verified_bank_account_and_a_confirmed_payment(
    browser: Browser, app: App, bank: Bank
) -> None:
    someone = await _register(browser, app)
    await browser.do("add-passkey", "good", name="Grace's laptop")
    await browser.press("Sign out")
    await browser.noticed("You are signed out")
    await browser.do("sign-in", "good")
    await browser.noticed(f"Welcome, {someone.name}")

    number = await bank.new_number()
    account = f"Checking …{number[-4:]}"
    await browser.do("bank", "good", routing_number=ROUTING_NUMBER, account_number=number)
    assert number not in await browser.everything()
    await browser.press(f"Send two deposits to {account}")
    await browser.has("bank", account, "sent")
    assert [file["status"] for file in await bank.files_of(number)] == ["accepted"]
    assert await bank.statement(number) == []
    await bank.forward(5)

    first, second, taken_back = await bank.statement(number)
    assert (taken_back, 1 <= first <= 49, 1 <= second <= 49) == (-first - second, True, True)
    await _look_until(browser, account, "awaiting confirmation")
    await _confirm(browser, account, first % 49 + 1, second)
    assert "micro_deposit_amounts_incorrect" in await browser.told("banks", "bad")
    await expect(browser.row("bank", account)).to_contain_text("2 attempts are left")
    await _confirm(browser, account, second, first)
    await browser.told("banks", "good")
    await browser.has("bank", account, "verified")

    await browser.do("card", "good", **CARD)
    assert GOOD_CARD not in (await browser.everything()).replace(" ", "")
    assert "requires_action" in await browser.do("pay", "good", dollars="3000")
    await expect(browser.page.locator("#confirmed")).to_have_text("$3,000.00 to Corner Coffee")
    # Somebody else at the keyboard, whose finger is not the user's: nothing is confirmed.
    await browser.verify_users(False)
    await browser.do("confirm", "bad")
    await browser.verify_users(True)
    await browser.page.locator("#confirm-button").click()
    await expect(browser.page.locator("#confirmation")).to_be_hidden(timeout=60_000)
    assert "captured" in await browser.told("pay", "good")
    await browser.has("payment", "$3,000.00 to Corner Coffee", "paid (captured)")
    assert (browser.problems, browser.foreign) == ([], [])


async def _look_until(browser: Browser, account: str, status: str) -> None:
    """Presses "Look again" until the verification has come so far: what the bank posted is told behind the answer."""
    for _ in range(60):
        await browser.do("banks", "good")
        if await browser.row("bank", account).locator(".status").text_content() == status:
            return
        await browser.page.wait_for_timeout(250)
    pytest.fail(f"{account} is not {status}")


async def _confirm(browser: Browser, account: str, *cents: int) -> None:
    for label, amount in zip(("First", "Second"), cents, strict=True):
        await browser.page.get_by_label(f"{label}, in cents to {account}").fill(str(amount))
    await browser.press(f"Confirm the amounts for {account}")


async def test_a_user_sees_what_pays_and_what_signs_in_and_takes_it_away(
    browser: Browser, app: App, bank: Bank, shop: Shop
) -> None:
    await _register(browser, app)
    await browser.do("add-passkey", "good", name="Laptop")
    await browser.press("Remove the passkey Laptop")
    assert "passkey_last" in await browser.told("add-passkey", "bad")

    number = await bank.new_number()
    await browser.do("bank", "good", routing_number=ROUTING_NUMBER, account_number=number)
    account = f"Checking …{number[-4:]}"
    await browser.press(f"Send two deposits to {account}")
    await browser.has("bank", account, "sent")
    await browser.press(f"Cancel the verification of {account}")
    await browser.has("bank", account, "canceled")
    await browser.press(f"Remove {account}")
    await expect(browser.page.locator("#bank-list")).to_contain_text("No bank account yet")

    await browser.do("card", "good", **CARD)
    assert "captured" in await browser.do("pay", "good", dollars="12.50", merchant="camera-7")
    paid = browser.row("payment", "$12.50 to Nimbus Cameras")
    payment = await paid.get_attribute("data-id")
    refund = await shop.post(f"/v1/payments/{payment}/refunds", {"amount_minor": 250})
    assert refund.json()["status"] == "succeeded", refund.text
    await browser.do("payments", "good")
    await expect(paid).to_contain_text("Refund of $2.50: succeeded")
    await browser.press("Remove Visa …4242")
    await expect(browser.page.locator("#card-list")).to_contain_text("No card yet")

    await browser.press("Sign out")
    await browser.noticed("You are signed out")
    left = await browser.everything()
    assert [text for text in ("4242", number[-4:], str(payment), "$12.50") if text in left] == []
    assert browser.problems == []


async def test_a_browser_that_is_a_device_signs_its_payments_and_its_sign_in_until_it_is_revoked(
    browser: Browser, app: App, shop: Shop
) -> None:
    await _register(browser, app)
    await browser.do("add-passkey", "good")
    await browser.do("add-device", "good", name="Kitchen tablet")
    await browser.has("device", "Kitchen tablet", "this browser")
    await browser.do("card", "good", **CARD)
    proofs: list[str | None] = []
    browser.page.on("request", lambda asked: proofs.append(asked.headers.get("dpop")) if _pays(asked) else None)
    assert "captured" in await browser.do("pay", "good", dollars="8")
    assert len(proofs) == 1
    assert proofs[0] is not None

    # The key outlives the page, and can be used there, not read.
    await browser.reload()
    await browser.do("sign-in", "good")
    await browser.has("device", "Kitchen tablet", "this browser")
    assert "captured" in await browser.do("pay", "good", dollars="9")
    extractable = await browser.page.evaluate(
        "user => import('/wallet/keys.js').then(k => k.keptDevices.find(user)).then(d => d.privateKey.extractable)",
        (await shop.get("/v1/payments", limit=1))["data"][0]["user"],
    )
    assert extractable is False

    await browser.press("Revoke the device Kitchen tablet")
    await browser.noticed("Kitchen tablet is revoked")
    await browser.do("sign-in", "good")
    await expect(browser.page.locator("#device-list")).to_contain_text("No device yet")
    assert browser.problems == []


def _pays(asked: Any) -> bool:
    return bool(asked.method == "POST" and asked.url.endswith("/v1/payments"))


async def test_a_request_whose_answer_was_lost_is_sent_again_under_its_key(
    browser: Browser, app: App, shop: Shop
) -> None:
    await _register(browser, app)
    await browser.do("card", "good", **CARD)
    lost: list[str] = []

    async def lose_the_first_answer(route: Any) -> None:
        if _pays(route.request) and not lost:
            response = await route.fetch()
            lost.append((await response.json())["id"])
            await route.abort()
        else:
            await route.continue_()

    await browser.page.route("**/v1/payments", lose_the_first_answer)
    assert "No answer came" in await browser.do("pay", "bad", dollars="21")
    assert "captured" in await browser.do("pay", "good")
    user = (await shop.get(f"/v1/payments/{lost[0]}"))["user"]
    assert [each["id"] for each in (await shop.get("/v1/payments", user=user))["data"]] == lost
    # What was answered is over: the same once more is another payment.
    assert "captured" in await browser.do("pay", "good", dollars="21")
    assert len((await shop.get("/v1/payments", user=user))["data"]) == 2


async def test_a_user_without_a_passkey_confirms_by_the_code_of_the_sms(browser: Browser, app: App) -> None:
    someone = await _register(browser, app)
    await browser.do("card", "good", **CARD)
    await browser.do("pay", "good", dollars="3000")
    code = await app.code(someone.phone, known=1)
    assert "step_up_code_incorrect" in await browser.do("confirm", "bad", code=wrong(code))
    await browser.press("Later")
    await browser.press("Confirm $3,000.00 to Corner Coffee")
    await browser.page.get_by_label("Code from the SMS").fill(code)
    await browser.page.locator("#confirm-button").click()
    await expect(browser.page.locator("#confirmation")).to_be_hidden(timeout=60_000)
    await browser.has("payment", "$3,000.00 to Corner Coffee", "paid (captured)")

    await browser.do("pay", "good", dollars="3100")
    await browser.press("Do not pay")
    await browser.has("payment", "$3,100.00 to Corner Coffee", "canceled")
    await browser.press("Sign out")
    await browser.noticed("You are signed out")


async def test_what_is_wrong_is_named_at_its_field_and_no_number_stays_in_one(browser: Browser, app: App) -> None:
    await _register(browser, app)
    wrong_ones = (
        ("card", CARD | {"number": "4242 4242 4242 4241"}, "number", "incorrect_number"),
        ("card", CARD | {"expiry": "01/20"}, "expiry", "expired_card"),
        ("bank", {"routing_number": "021000022", "account_number": "1234567"}, "routing_number", "incorrect_routing"),
    )
    for step, fields, wrong_one, code in wrong_ones:
        assert code in await browser.do(step, "bad", **fields)
        field = browser.page.locator(f"form#{step} [name={wrong_one}]")
        await expect(field).to_be_focused()
        await expect(field).to_have_attribute("aria-invalid", "true")
        description = await field.get_attribute("aria-describedby")
        await expect(browser.page.locator(f"output#{description}")).to_contain_text(code)
        values = await browser.page.evaluate("[...document.querySelectorAll('input')].map(i => i.value)")
        assert {fields.get("number"), fields.get("cvc"), fields.get("account_number")} & set(values) == set()


async def test_an_expired_token_is_refreshed_once_for_all_who_need_it(browser: Browser, app: App) -> None:
    await _register(browser, app)
    refreshed: list[str] = []
    before: set[str] = set()
    answer = {"error": {"code": "session_expired", "message": "The session has expired.", "param": None}}

    async def expire(route: Any) -> None:
        """What the API says of a token that is ten minutes old: here, of the one that the page began with."""
        token = route.request.headers["authorization"]
        before.update({token} if not before else ())
        if token in before:
            await route.fulfill(status=401, json=answer)
        else:
            await route.continue_()

    await browser.page.route("**/v1/payment_methods**", expire)
    await browser.page.route("**/v1/passkeys**", expire)
    browser.page.on(
        "request", lambda asked: refreshed.append(asked.url) if asked.url.endswith("/sessions/refresh") else None
    )
    await browser.do("add-passkey", "good")
    assert len(refreshed) == 1
    await browser.do("card", "good", **CARD)
    assert "captured" in await browser.do("pay", "good", dollars="4")
    assert len(refreshed) == 1


async def test_a_browser_that_is_offline_says_so_and_goes_on_when_it_is_back(browser: Browser, app: App) -> None:
    await _register(browser, app)
    await browser.page.context.set_offline(True)
    await browser.noticed("This browser is offline")
    assert "No answer came" in await browser.do("payments", "bad")
    await browser.page.context.set_offline(False)
    await browser.noticed("This browser is online again")
    await browser.do("payments", "good")


async def test_a_session_that_ends_elsewhere_takes_what_it_showed_off_the_page(
    browser: Browser, app: App, shop: Shop
) -> None:
    someone = await _register(browser, app)
    await browser.do("card", "good", **CARD)
    await browser.do("pay", "good", dollars="5")
    user = (await shop.get("/v1/payments", limit=1))["data"][0]["user"]
    assert (await shop.http.delete(f"/v1/users/{user}/sessions")).status_code == 204
    await browser.page.locator("form#payments button").click()
    await browser.noticed("Your session has ended")
    assert someone.name not in await browser.everything()


async def test_a_browser_without_a_passkey_signs_nobody_in(browser: Browser, app: App) -> None:
    assert "publishable key" in await browser.do("sign-in", "bad")
    await browser.do("app", "good", key=app.http.headers["Authorization"].removeprefix("Bearer "))
    await browser.do("sign-in", "bad")
    await expect(browser.page.locator("#inside")).to_be_hidden()


async def test_the_page_runs_nothing_from_elsewhere(browser: Browser, app: App) -> None:
    policy = (await browser.reload()).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    inline = "document.createElement('script').textContent = 'window.ran = 1'"
    with pytest.raises(Exception, match="TrustedScript"):
        await browser.page.evaluate(inline)
    assert await browser.page.evaluate("window.ran ?? 0") == 0
    assert browser.foreign == []
    assert (await app.http.get("/wallet/../app.py")).status_code == 404
    assert (await app.http.get("/wallet/other.html")).status_code == 404


async def test_a_live_platform_does_not_serve_the_page(platform: Access) -> None:
    async with api_beside(platform, LIVEMODE="true") as live, http_client(live, None) as client:
        assert (await client.get("/docs")).status_code == 200
        for path in ("/wallet", "/wallet/wallet.js"):
            response = await client.get(path)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "route_missing")


async def test_every_field_and_button_has_a_name_and_nothing_is_wider_than_a_phone(platform: Access, app: App) -> None:
    async with browser_at(platform, PHONE) as browser:
        assert await browser.page.evaluate(_NAMELESS) == []
        await _register(browser, app)
        await browser.do("add-passkey", "good", name="A telephone with a name that is rather long for one line")
        await browser.do("card", "good", **CARD)
        await browser.do("pay", "good", dollars="3000")
        assert await browser.page.evaluate(_NAMELESS) == []
        wide = await browser.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0


# Fields without a label, buttons without a text, lists and sections without a name.
_NAMELESS = """
[...document.querySelectorAll("input, select, button, ul, dialog, section")].filter((each) => {
  if (each.tagName === "BUTTON") return !(each.getAttribute("aria-label") || each.textContent.trim());
  if (each.labels) return each.labels.length === 0;
  return !document.getElementById(each.getAttribute("aria-labelledby"));
}).map((each) => each.outerHTML)
"""
