"""Ready routes with which users create, list and revoke their API keys."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.api_keys.keys import APIKeys
from fastapi_kit.auth.api_keys.store import APIKeyInfo
from fastapi_kit.auth.requests.guards import require
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.users.flow import wrong_password
from fastapi_kit.auth.users.router import NoStoreRoute
from fastapi_kit.dependencies import Dependency, as_depends, while_connected
from fastapi_kit.errors import ConfigurationError, FieldError, UserInputError
from fastapi_kit.handlers.openapi import problem_responses
from fastapi_kit.schemas import SafeText, UTCDatetime

if TYPE_CHECKING:
    from fastapi_kit.auth.users.flow import AuthFlow

__all__ = ["APIKeyCreate", "APIKeyCreated", "APIKeyRead", "api_keys_router"]

UserT = TypeVar("UserT")


class APIKeyCreate(BaseModel):
    """What a user sends to create a key."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[SafeText, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Annotated[SafeText, Field(max_length=100)]], Field(max_length=100)] = []
    expires_at: UTCDatetime | None = None


class ConfirmedAPIKeyCreate(APIKeyCreate):
    """What a user sends to create a key, with the current password."""

    model_config = ConfigDict(hide_input_in_errors=True)

    current_password: Annotated[SecretStr, Field(min_length=1, max_length=1024)]


class APIKeyRead(BaseModel):
    """What users may see of their keys."""

    id: str
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class APIKeyCreated(APIKeyRead):
    """A new key. It is shown this one time."""

    key: str = Field(repr=False)


def api_keys_router(
    keys: APIKeys,
    *,
    current_user: Callable[..., Awaitable[UserT]],
    scopes: Callable[[UserT], Collection[str]] | None = None,
    flow: "AuthFlow[UserT, Any] | None" = None,
    session: Dependency[AsyncSession] | None = None,
) -> APIRouter:
    """Build ``POST`` (create), ``GET`` (list) and ``DELETE /{id}`` (revoke) for the user's own keys.

    They need a login of the user: a request with an API key is a 403, so a key that leaks cannot create others, and one of a superuser who
    acts as the user is a 403, too, because a key would outlive that. Every answer has ``Cache-Control: no-store``. Include the router with
    a prefix.

    Args:
        keys: Creates and revokes.
        current_user: The dependency that gives the user, from ``get_current_user_factory``.
        scopes: Returns the scopes that a user may give to a key; others are a 422. Without it, keys have no scopes. A key keeps its
            scopes until it is revoked.
        flow: Asks for ``current_password`` before a key is created, and limits the guesses if it has a throttle. Without it, whoever has
            stolen an access token can create a key that stays valid.
        session: Any dependency that gives a session, for *flow*.

    Raises:
        ConfigurationError: *current_user* has no ``claims``, or only one of *flow* and *session* is given.

    Example:
        ```python
        from fastapi import FastAPI

        from fastapi_kit.auth import JWTService, TokenClaims, get_current_user_factory
        from fastapi_kit.auth.api_keys import APIKeys, MemoryAPIKeyStore
        from fastapi_kit.auth.api_keys.router import api_keys_router

        tokens = JWTService(secret_key="mD3vY7qT1kR9wX5zB8nL2pC6hJ4gF0sA")
        keys = APIKeys(MemoryAPIKeyStore(), prefix="shop")


        async def get_users() -> dict[str, str]:  # or db.session
            return {"1": "Ada"}


        async def load_user(users: dict[str, str], claims: TokenClaims) -> str | None:
            return users.get(claims.sub)


        get_current_user = get_current_user_factory(tokens, load_user, session=get_users)
        app = FastAPI()
        app.include_router(api_keys_router(keys, current_user=get_current_user), prefix="/api-keys")
        ```
    """
    get_claims: Callable[..., Awaitable[TokenClaims]] | None = getattr(current_user, "claims", None)
    if get_claims is None:
        raise ConfigurationError("the routes of API keys need current_user.claims: use get_current_user_factory")
    if (flow is None) != (session is None):
        raise ConfigurationError("to ask for the password, the routes of API keys need flow= and session=")
    get_user = require(current_user, login=True, impersonated=False)
    router = APIRouter(route_class=NoStoreRoute, dependencies=[Depends(get_user)])

    async def create_key(
        data: APIKeyCreate, user: Annotated[Any, Depends(get_user)], claims: Annotated[TokenClaims, Depends(get_claims)]
    ) -> APIKeyCreated:
        check_scopes(data.scopes, () if scopes is None else scopes(user))
        new = await keys.create(claims.sub, name=data.name, scopes=data.scopes, expires_at=data.expires_at)
        return APIKeyCreated(key=new.key, **values_of(new.info))

    serve: Callable[..., Awaitable[APIKeyCreated]] = create_key
    if flow is not None and session is not None:
        serve = confirmed(keys, create_key, flow, session, get_user, get_claims)

    async def list_keys(claims: Annotated[TokenClaims, Depends(get_claims)]) -> list[APIKeyRead]:
        return [APIKeyRead(**values_of(key)) for key in await keys.list(claims.sub)]

    async def revoke_key(id: Annotated[SafeText, Path(max_length=64)], claims: Annotated[TokenClaims, Depends(get_claims)]) -> None:
        await keys.revoke(id, subject=claims.sub)

    router.add_api_route(
        "",
        serve,
        methods=["POST"],
        status_code=201,
        summary="Create an API key",
        description="The answer has the key. It is shown this one time.",
        response_description="The new key",
        responses=problem_responses(400, 401, 403, 413, 422, *(() if flow is None or flow.throttle is None else (429,)), 503),
    )
    router.add_api_route(
        "",
        list_keys,
        methods=["GET"],
        summary="List API keys",
        description="The keys of the account, the newest first. A hint stands for the key.",
        response_description="The keys",
        responses=problem_responses(401, 403, 503),
    )
    router.add_api_route(
        "/{id}",
        revoke_key,
        methods=["DELETE"],
        status_code=204,
        summary="Revoke an API key",
        description="The key cannot be used again.",
        response_description="Done",
        responses=problem_responses(401, 403, 404, 422, 503),
    )
    return router


def confirmed(
    keys: APIKeys,
    create_key: Callable[..., Awaitable[APIKeyCreated]],
    flow: "AuthFlow[UserT, Any]",
    session: Dependency[AsyncSession],
    get_user: Callable[..., Awaitable[UserT]],
    get_claims: Callable[..., Awaitable[TokenClaims]],
) -> Callable[..., Awaitable[APIKeyCreated]]:
    """Return the route that creates a key if the password is right, and is still the one that is stored."""

    async def create_confirmed_key(
        data: ConfirmedAPIKeyCreate,
        user: Annotated[Any, Depends(get_user)],
        claims: Annotated[TokenClaims, Depends(get_claims)],
        session: Annotated[AsyncSession, as_depends(session)],
        _: Annotated[None, while_connected],
    ) -> APIKeyCreated:
        verified = await flow.confirm(session, user, data.current_password)
        created = await create_key(data, user, claims)
        # A change of the password revokes the keys that it finds. It may have come between the verification and the creation.
        if not await flow.still_has_hash(session, user, verified):
            await keys.store.remove(claims.sub, created.id)  # if it is still there
            raise wrong_password()
        return created

    return create_confirmed_key


def check_scopes(wanted: Collection[str], allowed: Collection[str]) -> None:
    """Raise UserInputError unless all *wanted* scopes are *allowed*."""
    if not set(wanted).issubset(allowed):
        wrong = FieldError(("body", "scopes"), "scope_not_allowed", "has a scope that you may not give")
        raise UserInputError("The API key cannot have these scopes.", errors=[wrong])


def values_of(key: APIKeyInfo) -> dict[str, Any]:
    """Return the values of an answer."""
    return {**asdict(key), "scopes": sorted(key.scopes)}
