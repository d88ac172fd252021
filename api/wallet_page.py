"""A wallet for developers: a page that does with the API what an app does. Live platforms do not have it."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from api.context import Context
from api.errors import ApiError

router = APIRouter(prefix="/wallet", include_in_schema=False)

_PAGES = Path(__file__).parent / "pages"
_FILES = {
    "wallet.html": "text/html; charset=utf-8",
    "wallet.css": "text/css; charset=utf-8",
    "wallet.svg": "image/svg+xml",
    "wallet.js": "text/javascript; charset=utf-8",
    "calls.js": "text/javascript; charset=utf-8",
    "keys.js": "text/javascript; charset=utf-8",
    "parts.js": "text/javascript; charset=utf-8",
}
_HEADERS = {
    # Card numbers are typed here: nothing from elsewhere runs, and nothing is sent elsewhere.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@router.get("")
async def wallet(context: Context) -> Response:
    return _file(context, "wallet.html")


@router.get("/{name}")
async def wallet_file(name: str, context: Context) -> Response:
    return _file(context, name)


def _file(context: Context, name: str) -> Response:
    if context.settings.livemode or name not in _FILES:
        raise ApiError("route_missing", "There is no such page.")
    return Response((_PAGES / name).read_bytes(), media_type=_FILES[name], headers=_HEADERS)
