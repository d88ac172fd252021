"""The whole way of a new user in a real browser: its WebAuthn, its keys, and the page that the platform serves."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest_asyncio
from playwright.async_api import CDPSession, Page, async_playwright, expect

from tests.support.app import App, Someone
from tests.support.platform import Access

# The platform shares two cores with other tests.
_PATIENCE_MS = 60_000


@dataclass(slots=True)
class Browser:
    page: Page
    devtools: CDPSession
    authenticator_id: str
    problems: list[str]

    async def do(self, step: str, outcome: str, /, **fields: str) -> str:
        """Fills a step's form, submits it, and waits for what it says."""
        form = self.page.locator(f"form#{step}")
        for name, value in fields.items():
            await form.locator(f"input[name={name}]").fill(value)
        await form.get_by_role("button").click()
        output = form.locator("output")
        await expect(output).to_have_class("good" if outcome == "good" else "bad", timeout=_PATIENCE_MS)
        return await output.inner_text()

    async def verify_users(self, verify: bool) -> None:
        """Whether the person at the browser can prove who they are to their authenticator."""
        values = {"authenticatorId": self.authenticator_id, "isUserVerified": verify}
        await self.devtools.send("WebAuthn.setUserVerified", values)


@pytest_asyncio.fixture
async def browser(platform: Access) -> AsyncIterator[Browser]:
    executable = shutil.which("chromium")
    assert executable is not None, "make chromium installs the browser"
    async with async_playwright() as playwright:
        # Tests run as root in containers, where Chromium's own sandbox does not start.
        chromium = await playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = await chromium.new_page(viewport={"width": 1280, "height": 900})
        devtools = await page.context.new_cdp_session(page)
        await devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        added = await devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if "Security Policy" in message.text else None)
        # Passkeys belong to a domain: the page must not be asked for by its IP address.
        await page.goto(f"http://localhost:{urlsplit(platform.api).port}/wallet")
        yield Browser(page, devtools, added["authenticatorId"], problems)
        await chromium.close()


async def test_a_new_user_registers_adds_a_passkey_and_pays_with_it(browser: Browser, app: App) -> None:
    someone = Someone()
    await browser.do("app", "good", key=app.http.headers["Authorization"].removeprefix("Bearer "))
    await browser.do("register", "good", name=someone.name, email=someone.email, phone=someone.phone)
    codes = {"email": await app.code(someone.email), "phone": await app.code(someone.phone)}
    registered = await browser.do("codes", "good", **codes)
    user_id = registered.rpartition(" ")[2].rstrip(".")
    await browser.do("add-passkey", "good", name="Grace's laptop")
    assert user_id in await browser.do("sign-in", "good")

    await browser.do("card", "good")
    assert "requires_action" in await browser.do("pay", "good", dollars="3000")
    await expect(browser.page.locator("#confirmed")).to_have_text("$3,000.00 to Corner Coffee")
    # Somebody else at the keyboard, whose finger is not the user's: nothing is confirmed.
    await browser.verify_users(False)
    await browser.do("confirm", "bad")
    await browser.verify_users(True)
    assert "captured" in await browser.do("confirm", "good")
    assert "No payment waits" in await browser.do("confirm", "bad")
    assert browser.problems == []


async def test_a_browser_without_a_passkey_signs_nobody_in(browser: Browser, app: App) -> None:
    assert "publishable key" in await browser.do("sign-in", "bad")
    await browser.do("app", "good", key=app.http.headers["Authorization"].removeprefix("Bearer "))
    await browser.do("sign-in", "bad")
    assert "Sign in first" in await browser.do("add-passkey", "bad")


async def test_the_page_runs_nothing_from_elsewhere(browser: Browser, app: App) -> None:
    response = await browser.page.reload()
    assert response is not None
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert (await app.http.get("/wallet/../app.py")).status_code == 404
    assert (await app.http.get("/wallet/other.html")).status_code == 404
