"""What each route needs of an API key, said once and shown in the OpenAPI document (`x-access`, `x-scope`).

A route's scope follows from its tag and its method: `GET` reads, everything else writes. Exceptions are in a table.
A key with scopes gets no further than a route whose scope it has; a route without one is closed to it. A session may do
what its user may, whatever the scopes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from fastapi import FastAPI

from api.rate_limits import RouteClass
from domain.scopes import Scope

_RESOURCES = {
    "Payments": "payments",
    "Refunds": "payments",
    "Payment methods": "payment_methods",
    "Bank accounts": "payment_methods",
    "Users": "users",
    "Passkeys": "users",
    "Devices": "users",
    "Onboarding": "users",
    "Sessions": "users",
    "Registration": "users",
    "Disputes": "disputes",
    "Settlement": "settlement",
    "API keys": "api_keys",
}
_READING = frozenset({"GET", "HEAD"})


class Access(StrEnum):
    """`APP` is what an app does without a session: a publishable key is enough. `PUBLIC` needs no credentials."""

    KEY = "key"
    APP = "app"
    PUBLIC = "public"


# What an app that nobody is signed in to may do; the rest needs a session or a secret key.
_APP = frozenset(
    {
        ("POST", "/v1/registrations"),
        ("GET", "/v1/registrations/{registration_id}"),
        ("POST", "/v1/registrations/{registration_id}/verify_email"),
        ("POST", "/v1/registrations/{registration_id}/verify_phone"),
        ("POST", "/v1/registrations/{registration_id}/resend"),
        ("POST", "/v1/sessions"),
        ("POST", "/v1/sessions/passkey_options"),
        ("POST", "/v1/sessions/passkey"),
        ("POST", "/v1/password_resets"),
        ("POST", "/v1/password_resets/{code_id}/confirm"),
        ("POST", "/v1/payment_methods/cards"),
    }
)
_PUBLIC = frozenset({("GET", "/.well-known/jwks.json"), ("POST", "/v1/sessions/refresh")})


# What moves money or tries cards.
_MONEY = frozenset({"payments", "payment_methods"})


@dataclass(frozen=True, slots=True)
class Need:
    """`rate_class` says which rate limit counts the route's requests."""

    access: Access
    scope: Scope | None
    rate_class: RouteClass


def need_of(method: str, path: str, tags: Iterable[str | Enum]) -> Need:
    """What a route needs; no scope where its tags name no resource."""
    place = (method, path)
    access = Access.APP if place in _APP else Access.PUBLIC if place in _PUBLIC else Access.KEY
    resource = next((_RESOURCES[str(tag)] for tag in tags if str(tag) in _RESOURCES), None)
    reading = method in _READING
    scope = None if resource is None else Scope(f"{resource}:{'read' if reading else 'write'}")
    return Need(access, scope, _rate_class(access, resource, reading))


def _rate_class(access: Access, resource: str | None, reading: bool) -> RouteClass:
    if reading:
        return RouteClass.READS
    if resource in _MONEY:
        return RouteClass.MONEY
    return RouteClass.WRITES if access is Access.KEY else RouteClass.SIGN_IN


def declare(app: FastAPI) -> None:
    """Writes each route's need into the OpenAPI document of `app`."""
    without_needs = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path, operations in without_needs()["paths"].items():
                for method, operation in operations.items():
                    need = need_of(method.upper(), path, operation.get("tags", ()))
                    operation["x-access"] = need.access.value
                    operation["x-scope"] = need.scope.value if need.scope else None
        return without_needs()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual has it
