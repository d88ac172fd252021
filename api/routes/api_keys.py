"""API keys: made, listed, rolled and revoked. A key gives no more than it has."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter, Response
from sqlalchemy import RowMapping

from api.auth import Client, Principal
from api.context import Context
from api.errors import ApiError, missing
from api.schemas.api_keys import ApiKeyObject, NewApiKey, RollApiKey
from api.schemas.common import Page
from domain.scopes import Scope
from store.api_keys import OPERATOR, PUBLISHABLE, NewKey, find_key, issue_key, list_keys, revoke_key, roll_key

router = APIRouter(prefix="/v1/api_keys", tags=["API keys"])


@router.post("", status_code=201, summary="Create an API key")
async def create_key(body: NewApiKey, context: Context, caller: Client) -> ApiKeyObject:
    """Each call makes a new one. It is shown this once. An operator's key is made by an operator's key alone."""
    wanted = NewKey(
        # A key with scopes is never an operator's: what operators may do is not divided.
        role="client" if body.scopes is not None or not caller.operator or body.kind == PUBLISHABLE else OPERATOR,
        kind=body.kind,
        scopes=_scopes(caller, body),
        name=body.name,
        lifetime=None if body.expires_in_days is None else timedelta(days=body.expires_in_days),
        livemode=context.settings.livemode,
    )
    async with context.engine.begin() as connection:
        issued = await issue_key(connection, caller.account_id, wanted)
        row = await find_key(connection, caller.account_id, issued.id)
    assert row is not None
    return _key_object(row, issued.key)


@router.get("", summary="List API keys")
async def get_keys(context: Context, caller: Client) -> Page[ApiKeyObject]:
    """All that are good, newest first."""
    async with context.reader.connect() as connection:
        rows = await list_keys(connection, caller.account_id)
    return Page(url="/v1/api_keys", has_more=False, data=[_key_object(row) for row in rows])


@router.post("/{key_id}/roll", status_code=201, summary="Roll an API key")
async def roll(key_id: str, body: RollApiKey, context: Context, caller: Client) -> ApiKeyObject:
    """A new key that may do the same. The old one is good for `overlap_seconds` still; it can be rolled once."""
    async with context.engine.begin() as connection:
        _require(await find_key(connection, caller.account_id, key_id), key_id, caller)
        issued = await roll_key(
            connection,
            caller.account_id,
            key_id,
            timedelta(seconds=body.overlap_seconds),
            livemode=context.settings.livemode,
        )
        if issued is None:
            raise missing("API key", key_id)
        row = await find_key(connection, caller.account_id, issued.id)
    assert row is not None
    return _key_object(row, issued.key)


@router.delete("/{key_id}", status_code=204, summary="Revoke an API key")
async def revoke(key_id: str, context: Context, caller: Client) -> Response:
    """It opens nothing any more. Doing it again changes nothing."""
    async with context.engine.begin() as connection:
        _require(await find_key(connection, caller.account_id, key_id), key_id, caller)
        await revoke_key(connection, caller.account_id, key_id)
    return Response(status_code=204)


def _scopes(caller: Principal, body: NewApiKey) -> tuple[Scope, ...] | None:
    """
    Raises:
        ApiError: the new key would have more than the one that asks.
    """
    if body.kind == PUBLISHABLE:
        return None
    wanted = caller.scopes if body.scopes is None else frozenset(Scope(scope) for scope in body.scopes)
    if wanted is None:
        return None
    if caller.scopes is not None and not wanted <= caller.scopes:
        raise ApiError("permission_denied", "A key cannot give scopes that it has not.", "scopes")
    return tuple(sorted(wanted))


def _require(row: RowMapping | None, key_id: str, caller: Principal) -> None:
    """
    Raises:
        ApiError: there is no such key, or it may do more than the one that asks.
    """
    if row is None:
        raise missing("API key", key_id)
    if row["kind"] == PUBLISHABLE:
        return
    all_scopes = row["scopes"] is None
    more = caller.scopes is not None and (all_scopes or not {Scope(each) for each in row["scopes"]} <= caller.scopes)
    if more or (row["role"] == OPERATOR and not caller.operator):
        raise ApiError("permission_denied", "The key may do more than the one that asks.")


def _key_object(row: RowMapping, key: str | None = None) -> ApiKeyObject:
    return ApiKeyObject(
        id=row["id"],
        kind=row["kind"],
        operator=row["role"] == OPERATOR,
        name=row["name"],
        scopes=row["scopes"],
        created=row["created_at"],
        expires_at=row["expires_at"],
        replaced_by=row["replaced_by"],
        key=key,
    )
