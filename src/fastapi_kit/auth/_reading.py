"""From a request to the claims of its token, read once."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi.params import Depends
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from fastapi_kit.auth.tokens import TokenClaims, TokenVerifier
from fastapi_kit.auth.transports import Transport
from fastapi_kit.errors import AuthenticationError, ConfigurationError, InsufficientScopeError

__all__ = ["check_scopes", "nothing", "once", "reader", "required", "scoped"]

ValueT = TypeVar("ValueT")

_Reader = Callable[..., Awaitable[TokenClaims | None]]
_MEMORY = "fastapi_kit.auth"
"""Key in the connection's scope: FastAPI calls a dependency once for every set of scopes, and those of two factories one by one."""


class _Documented(SecurityBase):
    """A scheme that is shown in OpenAPI and asks for nothing: what FastAPI's own would refuse differs from version to version."""

    def __init__(self, scheme: SecurityBase) -> None:
        self.model = scheme.model
        self.scheme_name = scheme.scheme_name

    async def __call__(self) -> None:
        """Do nothing."""


def reader(tokens: TokenVerifier, transports: Sequence[Transport]) -> _Reader:
    """Return the dependency that asks *transports* in order, None if none has a token. Raises ConfigurationError without a transport."""
    if not transports:
        raise ConfigurationError("without a transport no request has a token: leave transports= out for the Authorization header")
    read: _Reader = nothing
    for transport in transports:
        read = _or_else(read, transport, tokens)
    return read


async def nothing() -> None:
    """Read nowhere."""


def _or_else(before: _Reader, transport: Transport, tokens: TokenVerifier) -> _Reader:
    async def read_claims(
        connection: HTTPConnection,
        found: Annotated[TokenClaims | None, Depends(before)],
        _: Annotated[None, Depends(_Documented(transport.scheme))],
    ) -> TokenClaims | None:
        return found or await once(connection, (tokens, transport), lambda: transport.authenticate(connection, tokens))

    return read_claims


def required(read: _Reader) -> Callable[..., Awaitable[TokenClaims]]:
    """Return the dependency that raises AuthenticationError where *read* gives None."""

    async def require_claims(claims: Annotated[TokenClaims | None, Depends(read)]) -> TokenClaims:
        if claims is None:
            raise AuthenticationError
        return claims

    return require_claims


def scoped(read: Callable[..., Awaitable[TokenClaims]]) -> Callable[..., Awaitable[TokenClaims]]:
    """Return the dependency that gives the claims of *read* if they have the scopes that ``Security`` asks for."""

    async def get_claims(claims: Annotated[TokenClaims, Depends(read)], needed: SecurityScopes) -> TokenClaims:
        check_scopes(claims, needed.scopes)
        return claims

    return get_claims


def check_scopes(claims: TokenClaims, needed: Iterable[str]) -> None:
    """Raise InsufficientScopeError, which names all that is *needed*."""
    if frozenset(needed) - claims.scopes:
        # RFC 6750, 3.
        raise InsufficientScopeError(frozenset(needed))


async def once(connection: HTTPConnection, key: object, make: Callable[[], Awaitable[ValueT]]) -> ValueT:
    """Return what *make* gives, made once in a request for all equal keys. A key may be unhashable."""
    made = _memory_of(connection.scope)
    for known, value in made:
        if known == key:
            found: ValueT = value
            return found
    value = await make()
    made.append((key, value))
    return value


def _memory_of(scope: MutableMapping[str, Any]) -> list[tuple[object, Any]]:
    # A request that a host makes of this one, by a copy of its scope, has headers of its own and must be nobody else's.
    kept: tuple[object, list[tuple[object, Any]]] = scope.get(_MEMORY, (None, []))
    if kept[0] is not scope["headers"]:
        kept = (scope["headers"], [])
        scope[_MEMORY] = kept
    return kept[1]
