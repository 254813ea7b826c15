"""From a request to the host's user, and guards on top. Call a factory once and keep what it returns."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from collections.abc import Awaitable, Callable, Collection, Sequence
from inspect import isawaitable
from typing import Annotated, Any, Literal, Protocol, TypeVar, cast, overload

from fastapi.params import Depends, Security
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from fastapi_kit.auth._reading import check_scopes, once, reader, scoped
from fastapi_kit.auth.tokens import TokenClaims, TokenVerifier
from fastapi_kit.auth.transports import BearerTransport, Transport
from fastapi_kit.dependencies import Dependency, answering, as_depends
from fastapi_kit.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidTokenError,
    PermissionDeniedError,
)

__all__ = ["UserDependency", "get_claims_factory", "get_current_user_factory", "require", "require_access"]

UserT = TypeVar("UserT")
UserT_co = TypeVar("UserT_co", covariant=True)
SessionT = TypeVar("SessionT")
ObjectT = TypeVar("ObjectT")

_BEARER = (BearerTransport(),)


class UserDependency(Protocol[UserT_co]):
    """A dependency that gives the user, for ``Depends`` and ``dependency_overrides``; its signature is FastAPI's business."""

    @property
    def claims(self) -> Callable[..., Awaitable[TokenClaims]]:
        """The dependency for the claims behind the user, also for ``Depends``."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Awaitable[UserT_co]:
        """Return the user."""
        ...


@overload
def get_current_user_factory(
    tokens: TokenVerifier,
    load_user: Callable[[SessionT, TokenClaims], Awaitable[UserT | None]],
    *,
    session: Dependency[SessionT],
    transports: Sequence[Transport] = ...,
    active: Callable[[UserT], bool] | None = None,
) -> UserDependency[UserT]: ...
@overload
def get_current_user_factory(
    tokens: TokenVerifier,
    load_user: Callable[[SessionT, TokenClaims], Awaitable[UserT | None]],
    *,
    session: Dependency[SessionT],
    optional: Literal[True],
    transports: Sequence[Transport] = ...,
    active: Callable[[UserT], bool] | None = None,
) -> UserDependency[UserT | None]: ...


def get_current_user_factory(
    tokens: TokenVerifier,
    load_user: Callable[[SessionT, TokenClaims], Awaitable[UserT | None]],
    *,
    session: Dependency[SessionT],
    optional: bool = False,
    transports: Sequence[Transport] = _BEARER,
    active: Callable[[UserT], bool] | None = None,
) -> UserDependency[UserT] | UserDependency[UserT | None]:
    """Build the dependency that gives the user of a request, loaded once however often it is asked for.

    Factories with the same loader and session share the user: one that must be there and one that is *optional* load it once.

    No, bad or revoked token, unknown user, or not *active* (default: ``user.is_active`` where there is one): AuthenticationError (401).
    With *optional* no token gives None; a bad one is refused all the same. *session* is any dependency: what it gives is the loader's first
    argument. Errors of the loader stay what they are; only InvalidTokenError is a 401. ``Security(get_current_user, scopes=[...])``
    asks for scopes of the token. Works in WebSocket routes too, before ``accept()``. Raises ConfigurationError without a transport.
    """
    may_enter = active or _is_active

    # The claims come first: a request without a token needs no session.
    async def get_current_user(
        connection: HTTPConnection,
        claims: Annotated[TokenClaims | None, Depends(reader(tokens, transports, optional=optional))],
        session: Annotated[Any, as_depends(session)],
        needed: SecurityScopes,
    ) -> UserT | None:
        if claims is None:
            # An anonymous caller passes if the user is optional, unless scopes are required.
            if needed.scopes:
                raise AuthenticationError
            return None
        user = await once(connection, (load_user, session, claims), lambda: load_user(session, claims))
        if user is None:
            raise InvalidTokenError("its user does not exist")
        if not may_enter(user):
            raise InvalidTokenError("its user is not active")
        check_scopes(claims, needed.scopes)
        return user

    return _with_claims(get_current_user, scoped(reader(tokens, transports)))


def get_claims_factory(tokens: TokenVerifier, *, transports: Sequence[Transport] = _BEARER) -> Callable[..., Awaitable[TokenClaims]]:
    """Build the dependency that gives the verified claims and loads nothing.

    Raises AuthenticationError (401) without a valid token; ``Security(get_claims, scopes=[...])`` asks for scopes.
    """
    return scoped(reader(tokens, transports))


def require(
    get_current_user: Callable[..., Awaitable[UserT]],
    *,
    scopes: Collection[str] = (),
    roles: Collection[str] = (),
    permissions: Collection[str] = (),
    verified: bool = False,
    superuser: bool = False,
    check: Callable[[UserT], bool | Awaitable[bool]] | None = None,
) -> UserDependency[UserT]:
    """Build the dependency that gives the user if all of this holds. Raises InsufficientScopeError, PermissionDeniedError (403).

    *get_current_user* may be the host's own, or a guard; only *scopes* need one that a factory built (TypeError). *scopes* are the token's,
    all of them needed; *roles* (any one) and *permissions* (all) are ``user.roles`` and ``user.permissions``; *verified* and *superuser*
    are ``user.is_verified`` and ``user.is_superuser``, read from the user and never from the token. A user without such an attribute is
    the application's mistake (ConfigurationError, 500). A guard over an optional user answers 401 to anonymous requests.
    """
    for name, value in {"scopes": scopes, "roles": roles, "permissions": permissions}.items():
        if isinstance(value, str):
            raise TypeError(f"{name} is a collection: write {name}=[{value!r}]")
    checks = _Checks(roles=frozenset(roles), permissions=frozenset(permissions), verified=verified, superuser=superuser)
    claims = getattr(get_current_user, "claims", None)
    get_user = get_current_user
    if scopes:
        if claims is None:
            raise TypeError("scopes are those of a token: give require() a dependency that get_current_user_factory() has built")
        get_user = _with_scopes(get_current_user, claims, scopes)

    @answering(403)
    async def get_permitted_user(user: Annotated[Any, Depends(get_user)], needed: SecurityScopes) -> UserT:
        _refuse_scopes_of_nothing(claims, needed)
        if user is None:
            raise AuthenticationError
        checks.apply(user)
        await _refuse_unless(True if check is None else check(user))
        return cast("UserT", user)

    return _with_claims(get_permitted_user, claims)


def require_access(
    get_current_user: Callable[..., Awaitable[UserT]],
    get_object: Callable[..., Awaitable[ObjectT]],
    *,
    check: Callable[[UserT, ObjectT], bool | Awaitable[bool]],
) -> Callable[..., Awaitable[ObjectT]]:
    """Build the dependency that gives the object of a request if *check* lets its user have it. Raises PermissionDeniedError (403).

    *get_object* is a dependency, such as one that loads a row by the key in the path; it runs after the user is known. Raise NotFoundError
    in *check* where the user is not to learn that the object exists.
    """
    claims = getattr(get_current_user, "claims", None)

    @answering(403)
    async def get_permitted_object(
        user: Annotated[Any, Depends(get_current_user)], found: Annotated[Any, Depends(get_object)], needed: SecurityScopes
    ) -> ObjectT:
        _refuse_scopes_of_nothing(claims, needed)
        if user is None:
            raise AuthenticationError
        await _refuse_unless(check(user, found))
        return cast("ObjectT", found)

    return get_permitted_object


def _with_scopes(
    get_current_user: Callable[..., Awaitable[UserT]], claims: Callable[..., object], scopes: Collection[str]
) -> Callable[..., Awaitable[UserT]]:
    async def get_user_with_scopes(
        user: Annotated[Any, Depends(get_current_user)], _: Annotated[TokenClaims, Security(claims, scopes=list(scopes))]
    ) -> UserT:
        return cast("UserT", user)

    return get_user_with_scopes


def _refuse_scopes_of_nothing(claims: object, needed: SecurityScopes) -> None:
    if needed.scopes and claims is None:
        raise ConfigurationError(
            f"Security(..., scopes={needed.scopes}) asks for scopes that nobody reads: stand the guard on get_current_user_factory()"
        )


def _with_claims(dependency: Callable[..., Awaitable[UserT]], claims: object) -> UserDependency[UserT]:
    if claims is not None:
        vars(dependency)["claims"] = claims
    return cast("UserDependency[UserT]", dependency)


# --- Users ---


def _is_active(user: object) -> bool:
    return bool(getattr(user, "is_active", True))


class _Checks:
    def __init__(self, *, roles: frozenset[str], permissions: frozenset[str], verified: bool, superuser: bool) -> None:
        self.roles = roles
        self.permissions = permissions
        self.flags = [name for name, asked in {"is_verified": verified, "is_superuser": superuser}.items() if asked]

    def apply(self, user: object) -> None:
        for flag in self.flags:
            if not _attribute(user, flag):
                raise PermissionDeniedError(f"{flag} is needed")
        if self.roles and not self.roles & _names(user, "roles"):
            raise PermissionDeniedError(f"one of the roles {sorted(self.roles)} is needed")
        if missing := self.permissions and self.permissions - _names(user, "permissions"):
            raise PermissionDeniedError(f"the permissions {sorted(missing)} are needed")


def _attribute(user: object, name: str) -> object:
    try:
        return getattr(user, name)
    except AttributeError:
        raise ConfigurationError(f"{type(user).__name__} has no {name}: give it one, or say what you mean with check=") from None


def _names(user: object, attribute: str) -> frozenset[object]:
    names = _attribute(user, attribute)
    if isinstance(names, str) or not isinstance(names, Collection):
        raise ConfigurationError(f"{type(user).__name__}.{attribute} is no collection of names: say what you mean with check=")
    return frozenset(cast("Collection[object]", names))


async def _refuse_unless(allowed: bool | Awaitable[bool]) -> None:
    if not (await allowed if isawaitable(allowed) else allowed):
        raise PermissionDeniedError("the check refuses")
