"""A real browser at the wallet's page, with an authenticator of its own: what a user has before them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from playwright.async_api import CDPSession, Locator, Page, Response, async_playwright, expect

from tests.support.platform import Access

DESKTOP, PHONE = (1280, 900), (375, 812)
# The platform shares two cores with other tests.
_PATIENCE_MS = 60_000


@dataclass(slots=True)
class Browser:
    """`problems` are errors of the page's scripts and breaches of its security policy; `foreign` what it asked others
    than the platform for."""

    page: Page
    devtools: CDPSession
    authenticator_id: str
    problems: list[str]
    foreign: list[str]

    async def do(self, step: str, outcome: str, /, **fields: str) -> str:
        """Fills a step's form, submits it, and waits for what it says."""
        form = self.page.locator(f"form#{step}")
        for name, value in fields.items():
            field = form.locator(f"[name={name}]")
            if await field.evaluate("field => field.tagName") == "SELECT":
                await field.select_option(value)
            else:
                await field.fill(value)
        await form.locator("button:not([type=button])").click()
        return await self.told(step, outcome)

    async def told(self, step: str, outcome: str) -> str:
        """What a form's last step came to, `good` or `bad`, once that is known."""
        output = self.page.locator(f"form#{step} output")
        await expect(output).to_have_class(outcome, timeout=_PATIENCE_MS)
        return await output.text_content() or ""

    async def press(self, name: str) -> None:
        """A button, by what a screen reader calls it."""
        await self.page.get_by_role("button", name=name, exact=True).click()

    async def noticed(self, text: str) -> None:
        await expect(self.page.locator("#notice")).to_contain_text(text, timeout=_PATIENCE_MS)

    def row(self, of: str, text: str) -> Locator:
        """The line with `text` of a list."""
        return self.page.locator(f"#{of}-list > li", has_text=text)

    async def has(self, of: str, text: str, status: str) -> None:
        """Waits until the line with `text` of a list says `status`."""
        await expect(self.row(of, text).locator(".status").first).to_have_text(status, timeout=_PATIENCE_MS)

    async def everything(self) -> str:
        """All that the page holds: what is shown, what is not, and what is typed into it."""
        script = "[document.documentElement.outerHTML, ...[...document.querySelectorAll('input')].map(i => i.value)]"
        return "\n".join(await self.page.evaluate(script))

    async def verify_users(self, verify: bool) -> None:
        """Whether the person at the browser can prove who they are to their authenticator."""
        values = {"authenticatorId": self.authenticator_id, "isUserVerified": verify}
        await self.devtools.send("WebAuthn.setUserVerified", values)

    async def reload(self) -> Response:
        response = await self.page.reload()
        assert response is not None
        return response


@asynccontextmanager
async def browser_at(access: Access, size: tuple[int, int] = DESKTOP) -> AsyncIterator[Browser]:
    """A browser at the page of the platform, of that many CSS pixels."""
    executable = shutil.which("chromium")
    assert executable is not None, "make chromium installs the browser"
    # Passkeys belong to a domain: the page must not be asked for by its IP address.
    origin = f"http://localhost:{urlsplit(access.api).port}"
    async with async_playwright() as playwright:
        # Tests run as root in containers, where Chromium's own sandbox does not start.
        chromium = await playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = await chromium.new_page(viewport={"width": size[0], "height": size[1]})
        page.set_default_timeout(_PATIENCE_MS)
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
        browser = Browser(page, devtools, added["authenticatorId"], [], [])
        page.on("pageerror", lambda error: browser.problems.append(str(error)))
        page.on("console", lambda said: browser.problems.append(said.text) if "Security Policy" in said.text else None)
        page.on("request", lambda asked: None if asked.url.startswith(origin) else browser.foreign.append(asked.url))
        await page.goto(f"{origin}/wallet")
        yield browser
        await chromium.close()
