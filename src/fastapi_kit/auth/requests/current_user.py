"""From a request to the claims of its token, and to the user of the application. Call a factory once and keep what it returns."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal, Protocol, TypeVar, cast, overload

from fastapi.params import Depends
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_kit.auth.requests.cookies import CookieTransport
from fastapi_kit.auth.requests.transports import BearerTransport, Transport
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.tokens.service import TokenVerifier
from fastapi_kit.auth.users.accounts import is_superuser
from fastapi_kit.dependencies import CHALLENGES, CROSS_SITE, OPTIONAL, Dependency, as_depends
from fastapi_kit.errors import AuthenticationError, ConfigurationError, InsufficientScopeError, InvalidTokenError

__all__ = ["CurrentUserDependency", "UserDependency", "get_claims_factory", "get_current_user_factory", "with_claims"]

UserT = TypeVar("UserT")
UserT_co = TypeVar("UserT_co", covariant=True)
SessionT = TypeVar("SessionT")
ValueT = TypeVar("ValueT")

BEARER = (BearerTransport(),)
MEMORY = "fastapi_kit.auth"
"""The key in a connection's scope under which ``once`` keeps its values."""


class UserDependency(Protocol[UserT_co]):
    """A dependency that gives the user, for ``Depends`` and ``dependency_overrides``. FastAPI reads its real signature."""

    @property
    def claims(self) -> Callable[..., Awaitable[TokenClaims]]:
        """The dependency for the claims of the user's token, also for ``Depends``."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[UserT_co]:
        """Return the user."""
        ...


class CurrentUserDependency(UserDependency[UserT_co], Protocol[UserT_co]):
    """A dependency that gives the user, and the same for routes that anonymous requests may use."""

    @property
    def optional(self) -> UserDependency[UserT_co | None]:
        """The dependency that gives None without a token. A token that is not valid is still a 401."""
        ...


def is_active(user: object) -> bool:
    """Return ``user.is_active``, or True without such an attribute. Raises ConfigurationError for a method, which is always true."""
    flag = getattr(user, "is_active", True)
    if callable(flag):
        raise ConfigurationError(f"{type(user).__name__}.is_active is a method: pass active=lambda user: user.is_active()")
    return bool(flag)


@overload
def get_current_user_factory(
    tokens: TokenVerifier,
    load_user: Callable[[SessionT, TokenClaims], Awaitable[UserT | None]],
    *,
    session: Dependency[SessionT],
    transports: Sequence[Transport] = ...,
    active: Callable[[UserT], bool] = ...,
) -> CurrentUserDependency[UserT]: ...
@overload
def get_current_user_factory(
    tokens: TokenVerifier,
    load_user: Callable[[SessionT, TokenClaims], Awaitable[UserT | None]],
    *,
    session: Dependency[SessionT],
    optional: Literal[True],
    transports: Sequence[Transport] = ...,
    active: Callable[[UserT], bool] = ...,
) -> UserDependency[UserT | None]: ...


def get_current_user_factory(
    tokens: TokenVerifier,
    load_user: Callable[[SessionT, TokenClaims], Awaitable[UserT | None]],
    *,
    session: Dependency[SessionT],
    optional: bool = False,
    transports: Sequence[Transport] = BEARER,
    active: Callable[[UserT], bool] = is_active,
) -> CurrentUserDependency[UserT] | UserDependency[UserT | None]:
    """Build the dependency that gives the user of a request. Its ``optional`` is the same dependency for routes without a required login.

    A request loads its user once: dependencies with the same loader and session share it, the required and the optional one, too. It also
    works in WebSocket routes, before ``accept()``. ``Security(get_current_user, scopes=[...])`` requires scopes of the token.

    The dependency raises AuthenticationError (401) without a token. It raises InvalidTokenError (401) if the token is not valid, or if its
    user does not exist or is not active. Errors of the loader are not translated. For a token with an actor, the actor is loaded in the
    same way, and must be a superuser who acts as a user who is none.

    Args:
        tokens: Verifies the token: a ``JWTService``, or logins.
        load_user: Called with what *session* gives and with the claims. Returns the user, or None if there is none.
        session: Any dependency, such as ``db.session`` or your own ``get_db``.
        optional: Return ``optional`` of the dependency.
        transports: Where a request may carry its token, in the order in which they are tried.
        active: Returns whether the user may log in. The default is ``user.is_active``; a user without this attribute is active.

    Raises:
        ConfigurationError: *transports* is empty.

    Example:
        ```python
        from typing import Annotated

        from fastapi import Depends, FastAPI

        from fastapi_kit.auth import JWTService, TokenClaims, get_current_user_factory

        users = {1: "Ada"}
        tokens = JWTService(secret_key="mD3vY7qT1kR9wX5zB8nL2pC6hJ4gF0sA")


        async def get_users() -> dict[int, str]:  # or db.session
            return users


        async def load_user(users: dict[int, str], claims: TokenClaims) -> str | None:
            return users.get(claims.subject(int))


        get_current_user = get_current_user_factory(tokens, load_user, session=get_users)
        app = FastAPI()


        @app.get("/me")
        async def me(user: Annotated[str, Depends(get_current_user)]) -> str:
            return user
        ```
    """

    async def load(connection: HTTPConnection, claims: TokenClaims, session: SessionT, needed: SecurityScopes) -> UserT:
        user = await load_active(connection, claims, session)
        if claims.actor is not None:
            actor = await load_active(connection, replace(claims, sub=claims.actor, actor=None), session)
            if not is_superuser(actor) or is_superuser(user):
                raise InvalidTokenError("its actor may not act as its user")
        check_scopes(claims, needed.scopes)
        return user

    async def load_active(connection: HTTPConnection, claims: TokenClaims, session: SessionT) -> UserT:
        user = await once(connection, (load_user, session, claims), partial(load_user, session, claims))
        if user is None:
            raise InvalidTokenError("its user does not exist")
        if not active(user):
            raise InvalidTokenError("its user is not active")
        return user

    # The claims come first: a request without a token needs no session.
    async def get_current_user(
        connection: HTTPConnection,
        claims: Annotated[TokenClaims, Depends(claims_reader(tokens, transports))],
        session: Annotated[Any, as_depends(session)],
        needed: SecurityScopes,
    ) -> UserT:
        return await load(connection, claims, session, needed)

    async def get_optional_user(
        connection: HTTPConnection,
        claims: Annotated[TokenClaims | None, Depends(claims_reader(tokens, transports, optional=True))],
        session: Annotated[Any, as_depends(session)],
        needed: SecurityScopes,
    ) -> UserT | None:
        if claims is None and needed.scopes:
            raise AuthenticationError
        return None if claims is None else await load(connection, claims, session, needed)

    get_claims = get_claims_factory(tokens, transports=transports)
    vars(get_optional_user)[OPTIONAL] = True
    optional_user = with_claims(get_optional_user, get_claims)
    vars(get_current_user)["optional"] = optional_user
    return optional_user if optional else cast("CurrentUserDependency[UserT]", with_claims(get_current_user, get_claims))


def get_claims_factory(tokens: TokenVerifier, *, transports: Sequence[Transport] = BEARER) -> Callable[..., Awaitable[TokenClaims]]:
    """Build the dependency that gives the claims of a request's token and loads no user.

    The dependency raises AuthenticationError (401) without a valid token. ``Security(get_claims, scopes=[...])`` requires scopes.

    Args:
        tokens: Verifies the token: a ``JWTService``, or logins.
        transports: Where a request may carry its token, in the order in which they are tried.

    Raises:
        ConfigurationError: *transports* is empty.
    """

    async def get_claims(claims: Annotated[TokenClaims, Depends(claims_reader(tokens, transports))], needed: SecurityScopes) -> TokenClaims:
        check_scopes(claims, needed.scopes)
        return claims

    return get_claims


def with_claims(dependency: Callable[..., Awaitable[UserT]], claims: object) -> UserDependency[UserT]:
    """Return *dependency* with its attribute ``claims``, which is absent if *claims* is None."""
    if claims is not None:
        vars(dependency)["claims"] = claims
    return cast("UserDependency[UserT]", dependency)


class ClaimsReader(SecurityBase):
    """Tries *transports* in order. OpenAPI shows it as *scheme*.

    It never calls FastAPI's own scheme, whose behaviour differs from version to version.
    """

    def __init__(self, scheme: SecurityBase, tokens: TokenVerifier, transports: Sequence[Transport], *, optional: bool) -> None:
        self.model = scheme.model
        self.scheme_name = scheme.scheme_name
        self._tokens = tokens
        self._transports = tuple(transports)
        self._optional = optional
        vars(self)[CROSS_SITE] = any(isinstance(transport, CookieTransport) for transport in transports)

    async def __call__(self, connection: HTTPConnection) -> TokenClaims | None:
        """Return the claims of the first token found. Raises AuthenticationError without one, unless it is optional."""
        return await read_claims(connection, self._tokens, self._transports, optional=self._optional)


async def read_claims(
    connection: HTTPConnection, tokens: TokenVerifier, transports: Sequence[Transport], *, optional: bool
) -> TokenClaims | None:
    """Return the claims of the first token found. Raises AuthenticationError without one, unless it is *optional*."""
    scope = connection.scope
    for transport in transports:
        scope[CHALLENGES] = (*(each for each in scope.get(CHALLENGES, ()) if each != transport.challenge), transport.challenge)
        claims = await once(connection, (tokens, transport), partial(transport.authenticate, connection, tokens))
        if claims is not None:
            return claims
    if not optional:
        raise AuthenticationError
    return None


ReadClaims = Callable[..., Awaitable[TokenClaims | None]]


def claims_reader(tokens: TokenVerifier, transports: Sequence[Transport], *, optional: bool = False) -> ReadClaims:
    """Return the dependency that gives the claims of the first transport that has a token."""
    if not transports:
        raise ConfigurationError("without a transport no request has a token: leave transports= out for the Authorization header")
    every = tuple(transports)
    shown = [(count, scheme) for count, scheme in enumerate((each.scheme for each in every), 1) if scheme is not None]
    if not shown:
        return undocumented(tokens, every, optional=optional)
    read: ReadClaims = ClaimsReader(shown[-1][1], tokens, every, optional=optional)
    for count, scheme in reversed(shown[:-1]):
        read = documented_after(ClaimsReader(scheme, tokens, every[:count], optional=True), read)
    return read


def undocumented(tokens: TokenVerifier, transports: Sequence[Transport], *, optional: bool) -> ReadClaims:
    """Return a dependency that reads the claims and is not in OpenAPI, as WebSockets are not."""

    async def read(connection: HTTPConnection) -> TokenClaims | None:
        return await read_claims(connection, tokens, transports, optional=optional)

    return read


def documented_after(fewer: ReadClaims, read: ReadClaims) -> ReadClaims:
    """Return a dependency that gives what *read* gives, and has the schemes of both in OpenAPI.

    A dependency is one scheme in OpenAPI, so each transport needs a dependency.
    """

    async def read_last(
        _: Annotated[TokenClaims | None, Depends(fewer)], claims: Annotated[TokenClaims | None, Depends(read)]
    ) -> TokenClaims | None:
        return claims

    return read_last


def check_scopes(claims: TokenClaims, needed: Iterable[str]) -> None:
    """Raise InsufficientScopeError, which names all *needed* scopes (RFC 6750, 3), unless the token has them."""
    if not claims.scopes.issuperset(needed):
        raise InsufficientScopeError(frozenset(needed))


async def once(connection: HTTPConnection, key: object, make: Callable[[], Awaitable[ValueT]]) -> ValueT:
    """Return the result of *make*, which is called once in a request for all equal keys. A key need not be hashable.

    FastAPI's own cache does not do this: it calls a dependency once for every set of scopes.
    """
    # A copy of the scope for an inner request has other headers, and must not get the user of this request.
    kept: tuple[object, list[tuple[object, Any]]] = connection.scope.get(MEMORY, (None, []))
    if kept[0] is not connection.scope["headers"]:
        connection.scope[MEMORY] = kept = (connection.scope["headers"], [])
    for known, value in kept[1]:
        if known == key:
            found: ValueT = value
            return found
    made = await make()
    kept[1].append((key, made))
    return made
