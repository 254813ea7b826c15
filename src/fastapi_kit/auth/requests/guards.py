"""Guards: what the user of a request may do."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from collections.abc import Awaitable, Callable, Collection
from inspect import isawaitable
from typing import Annotated, Any, TypeVar, cast

from fastapi.params import Depends, Security
from fastapi.security import SecurityScopes

from fastapi_kit.auth.requests.current_user import UserDependency, with_claims
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.dependencies import OPTIONAL, answering
from fastapi_kit.errors import AuthenticationError, ConfigurationError, ImpersonatedError, PermissionDeniedError

__all__ = ["require", "require_access"]

UserT = TypeVar("UserT")
ObjectT = TypeVar("ObjectT")


def require(
    get_current_user: Callable[..., Awaitable[UserT]],
    *,
    scopes: Collection[str] = (),
    roles: Collection[str] = (),
    permissions: Collection[str] = (),
    login: bool = False,
    verified: bool = False,
    superuser: bool = False,
    impersonated: bool = True,
    check: Callable[[UserT], bool | Awaitable[bool]] | None = None,
) -> UserDependency[UserT]:
    """Build the dependency that gives the user if every condition holds.

    The dependency raises InsufficientScopeError or PermissionDeniedError (403). Over an optional user it answers 401 to anonymous requests.
    A user without an attribute that a condition needs is a mistake of the application: ConfigurationError (500).

    Args:
        get_current_user: A dependency that gives the user: yours, one from ``get_current_user_factory``, or another guard.
        scopes: The token has all of them.
        roles: ``user.roles`` has at least one of them.
        permissions: ``user.permissions`` has all of them.
        login: The request has the access token of a login, not an API key.
        verified: ``user.is_verified`` is true.
        superuser: ``user.is_superuser`` is true.
        impersonated: Whether another user may pass who acts as the user. With False the guard raises ImpersonatedError (403) then.
        check: Called with the user, sync or async; returns whether the user may pass.

    Raises:
        TypeError: *scopes*, *login* or *impersonated* are given, but no factory built *get_current_user*; or a condition is one string
            instead of a collection.

    Example:
        ```python
        from dataclasses import dataclass

        from fastapi import Depends, FastAPI

        from fastapi_kit.auth import require


        @dataclass
        class User:
            is_superuser: bool


        async def get_current_user() -> User:  # or from get_current_user_factory
            return User(is_superuser=True)


        require_superuser = require(get_current_user, superuser=True)
        app = FastAPI()


        @app.delete("/everything", dependencies=[Depends(require_superuser)])
        async def delete_everything() -> None: ...
        ```
    """
    for name, value in {"scopes": scopes, "roles": roles, "permissions": permissions}.items():
        if isinstance(value, str):
            raise TypeError(f"{name} is a collection: write {name}=[{value!r}]")
    one_role, all_permissions = frozenset(roles), frozenset(permissions)
    flags = [name for name, required in {"is_verified": verified, "is_superuser": superuser}.items() if required]
    claims = getattr(get_current_user, "claims", None)
    get_user = get_current_user
    if scopes or login or not impersonated:
        if claims is None:
            raise TypeError("scopes, logins and actors belong to a token: give require() a dependency from get_current_user_factory()")
        get_user = with_token(get_current_user, claims, scopes, login=login, impersonated=impersonated)

    statuses = {403} if scopes or login or not impersonated or roles or permissions or flags or check else set[int]()

    @answering(*statuses, *statuses_over(get_current_user))
    async def get_permitted_user(user: Annotated[Any, Depends(get_user)], needed: SecurityScopes) -> UserT:
        check_scopes_are_read(claims, needed)
        if user is None:
            raise AuthenticationError
        check_user(user, flags=flags, roles=one_role, permissions=all_permissions)
        if check is not None:
            await check_result(check(user))
        return cast("UserT", user)

    return with_claims(get_permitted_user, claims)


def require_access(
    get_current_user: Callable[..., Awaitable[UserT]],
    get_object: Callable[..., Awaitable[ObjectT]],
    *,
    check: Callable[[UserT, ObjectT], bool | Awaitable[bool]],
) -> Callable[..., Awaitable[ObjectT]]:
    """Build the dependency that gives the object of a request if *check* returns true.

    The dependency raises PermissionDeniedError (403).

    Args:
        get_current_user: A dependency that gives the user, as for ``require``.
        get_object: A dependency that gives the object, such as the row with the key in the path. It runs after the user is known.
        check: Called with the user and the object, sync or async. Raise NotFoundError in it if the user must not learn that the object
            exists.
    """
    claims = getattr(get_current_user, "claims", None)

    @answering(403, *statuses_over(get_current_user))
    async def get_permitted_object(
        user: Annotated[Any, Depends(get_current_user)], found: Annotated[Any, Depends(get_object)], needed: SecurityScopes
    ) -> ObjectT:
        check_scopes_are_read(claims, needed)
        if user is None:
            raise AuthenticationError
        await check_result(check(user, found))
        return cast("ObjectT", found)

    return get_permitted_object


def statuses_over(get_current_user: object) -> set[int]:
    """Return 401 if *get_current_user* gives an optional user, which a guard requires."""
    return {401} if getattr(get_current_user, OPTIONAL, False) else set()


def with_token(
    get_current_user: Callable[..., Awaitable[UserT]],
    claims: Callable[..., object],
    scopes: Collection[str],
    *,
    login: bool,
    impersonated: bool,
) -> Callable[..., Awaitable[UserT]]:
    """Return a dependency that gives the user if the token has *scopes*, belongs to a login and has no actor, as far as that is needed."""

    async def get_user_of_token(
        user: Annotated[Any, Depends(get_current_user)], found: Annotated[TokenClaims, Security(claims, scopes=list(scopes))]
    ) -> UserT:
        if login and found.type != "access":
            raise PermissionDeniedError("a login is needed")
        if not impersonated and found.actor is not None:
            raise ImpersonatedError
        return cast("UserT", user)

    return get_user_of_token


def check_scopes_are_read(claims: object, needed: SecurityScopes) -> None:
    """Raise ConfigurationError if a route requires scopes, and the user of the guard has no token."""
    if needed.scopes and claims is None:
        raise ConfigurationError(
            f"Security(..., scopes={needed.scopes}) requires scopes, but the guard reads no token: build it on get_current_user_factory()"
        )


def check_user(user: object, *, flags: Collection[str], roles: frozenset[str], permissions: frozenset[str]) -> None:
    """Raise PermissionDeniedError unless *user* has all *flags*, one of the *roles* and all *permissions*."""
    for flag in flags:
        if not attribute_of(user, flag):
            raise PermissionDeniedError(f"{flag} is needed")
    if roles and not roles & names_in(user, "roles"):
        raise PermissionDeniedError(f"one of the roles {sorted(roles)} is needed")
    if missing := permissions and permissions - names_in(user, "permissions"):
        raise PermissionDeniedError(f"the permissions {sorted(missing)} are needed")


def attribute_of(user: object, name: str) -> object:
    """Return an attribute that a condition needs. Raises ConfigurationError if it is missing, or a method, which is always true."""
    try:
        value: object = getattr(user, name)
    except AttributeError:
        raise ConfigurationError(f"{type(user).__name__} has no {name}: add it, or use check= instead") from None
    if callable(value):
        raise ConfigurationError(f"{type(user).__name__}.{name} is a method: use check= instead")
    return value


def names_in(user: object, attribute: str) -> frozenset[object]:
    """Return the names in a collection of the user."""
    names = attribute_of(user, attribute)
    if isinstance(names, str) or not isinstance(names, Collection):
        raise ConfigurationError(f"{type(user).__name__}.{attribute} is not a collection of names: use check= instead")
    return frozenset(cast("Collection[object]", names))


async def check_result(allowed: bool | Awaitable[bool]) -> None:
    """Raise PermissionDeniedError unless a check returned true."""
    if not (await allowed if isawaitable(allowed) else allowed):
        raise PermissionDeniedError("the check failed")
