"""Ready routes to register, log in, refresh, show the current user, and end logins."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, BackgroundTasks, Body, Depends, Form, Path, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from fastapi_kit.auth.logins.protocol import EndableLogins, Logins, TokenPair
from fastapi_kit.auth.requests.clients import client_of
from fastapi_kit.auth.requests.cookies import CookieTransport
from fastapi_kit.auth.requests.guards import require
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.users.account_routes import (
    accepted,
    add_account_routes,
    add_email_change,
    add_email_confirmation,
    add_email_verification,
    add_password_reset,
    limited,
)
from fastapi_kit.auth.users.accounts import check_own_fields
from fastapi_kit.auth.users.cookie_routes import (
    add_cookie_code_login,
    add_cookie_login,
    add_cookie_logout,
    add_cookie_logout_everywhere,
    add_cookie_refresh,
)
from fastapi_kit.auth.users.flow import AuthFlow
from fastapi_kit.auth.users.mail import MailFlow
from fastapi_kit.auth.users.schemas import CHALLENGE_DESCRIPTION, LoginRead, RefreshRequest
from fastapi_kit.auth.users.second_factor import second_factor_of
from fastapi_kit.auth.users.second_factor_routes import add_code_login, add_second_factor
from fastapi_kit.dependencies import Dependency, as_depends, declare, while_connected
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers.openapi import problem_responses
from fastapi_kit.schemas import SafeText

__all__ = ["AuthEndpoint", "NoStoreRoute", "PasswordForm", "auth_router"]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)


class AuthEndpoint(enum.Flag):
    """The routes. Combine them with ``|``, leave one out with ``& ~``."""

    REGISTER = 1
    """``POST /register``: 201 and the user, 409 if the address is taken."""
    LOGIN = 2
    """``POST /login``: an OAuth2 password form. The answer is a pair of tokens."""
    REFRESH = 4
    """``POST /refresh``: a new pair for a refresh token."""
    ME = 8
    """``GET /me``: the user of the request."""
    ALL = 15
    """The four above, which work with all logins."""
    LOGOUT = 16
    """``POST /logout``: 204. Ends the login of the request."""
    LOGOUT_EVERYWHERE = 32
    """``POST /logout/everywhere``: 204. Ends all logins of the user."""
    LIST_LOGINS = 64
    """``GET /logins``: the logins of the user."""
    END_LOGIN = 128
    """``DELETE /logins/{id}``: 204, 404 if the user has no such login."""
    LOGINS = 240
    """The four that list and end logins. They need logins that can be ended: ``AuthEndpoint.ALL | AuthEndpoint.LOGINS``."""
    CHANGE_PASSWORD = 256
    """``POST /password``: 204. Needs the current password, and ends the other stored logins of the user."""
    DELETE_ACCOUNT = 512
    """``POST /me/delete``: 204. Needs the current password."""
    ACCOUNT = 768
    """The two with which users change their account."""
    RESET_PASSWORD = 1024
    """``POST /password/forgot``: 202 and a mail. ``POST /password/reset``: 204."""
    VERIFY_EMAIL = 2048
    """``POST /email/verification``: 202 and a mail. ``POST /email/confirm``: 204."""
    CHANGE_EMAIL = 4096
    """``POST /email``: 202 and a mail to the new address. ``POST /email/confirm``: 204."""
    MAIL = 7168
    """The three that send mails. They need ``mail=``."""
    SECOND_FACTOR = 8192
    """``GET``, ``POST /second-factor``, ``/second-factor/confirm``, ``/recovery-codes`` and ``/disable``: users enable and disable it, and
    make new recovery codes. They need ``AuthFlow(second_factor=...)``, with which ``POST /login/second-factor`` is there beside
    ``POST /login``."""


@dataclass(frozen=True)
class PasswordForm:
    """The form of OAuth2's password grant (RFC 6749, 4.3.2), which Swagger UI's Authorize and OAuth2 clients send.

    Unlike FastAPI's form, it limits what is sent. *username* is the e-mail address, or what ``AuthFlow(identify=...)`` takes. The id and
    the secret of a client are ignored.
    """

    username: Annotated[SafeText, Form(min_length=1, max_length=320)]
    password: Annotated[SecretStr, Form(min_length=1, max_length=1024, json_schema_extra={"format": "password"})]
    grant_type: Annotated[str | None, Form(pattern="^password$")] = None
    scope: Annotated[SafeText, Form(max_length=1000, description="What the token shall allow, separated by spaces")] = ""

    @property
    def scopes(self) -> frozenset[str]:
        """The scopes that the client asks for."""
        return frozenset(self.scope.split())


def auth_router(
    flow: AuthFlow[UserT, RegisterT],
    *,
    session: Dependency[AsyncSession],
    current_user: Callable[..., Awaitable[UserT]],
    read: type[BaseModel],
    register: type[RegisterT] | None = None,
    endpoints: AuthEndpoint = AuthEndpoint.ALL,
    mail: MailFlow[UserT, RegisterT] | None = None,
    cookie: CookieTransport | None = None,
) -> APIRouter:
    """Build the routes. Leave one out to declare your own on the router.

    Every answer to the methods of the router has ``Cache-Control: no-store``, errors and the routes that you add included.

    Args:
        flow: The steps behind the routes.
        session: Any dependency that gives a session, such as ``db.session``.
        current_user: The dependency that gives the user for ``GET /me``. The routes that end logins or change the password need its
            ``claims``, which a ``get_current_user_factory`` adds.
        read: The schema of a user in an answer.
        register: The schema of a registration, with ``password`` and, unless the flow has *identify*, ``email``.
        endpoints: The routes to build.
        mail: The steps that send mails. With it, a registration sends the link that verifies the address. If it has *taken*, a registration
            answers 202 without a body, for a new and for a taken address.
        cookie: Log in, refresh and log out with cookies, for browsers: no answer contains a token. Without it, with tokens.

    Raises:
        ConfigurationError: *register* is missing, lacks a field, or has one with which users could grant themselves privileges, such as
            ``is_superuser`` or ``roles``, or ``extra="allow"``; or the flow has no logins for the routes of tokens, or none that can be
            ended for those of ``AuthEndpoint.LOGINS``; or there is no second factor for ``AuthEndpoint.SECOND_FACTOR``; or *mail* is
            missing or sends no such mail for the routes of ``AuthEndpoint.MAIL``.
    """
    if register is not None:
        needed = {"password", "email"} if flow.identify is None else {"password"}
        if missing := needed - register.model_fields.keys():
            raise ConfigurationError(f"{register.__name__} needs the fields {sorted(missing)}")
        check_own_fields(register, who="users who register")
    if flow.logins is None and endpoints & (AuthEndpoint.LOGIN | AuthEndpoint.REFRESH):
        raise ConfigurationError("the routes for login and refresh need AuthFlow(logins=...), or leave them out of endpoints=")
    if endpoints & AuthEndpoint.LOGINS and not isinstance(flow.logins, EndableLogins):
        raise ConfigurationError("the routes that list and end logins need logins in a store: AuthFlow(logins=StoredLogins(tokens, store))")
    check_mail(mail, endpoints)
    # Neither an API key nor who acts as a user ends logins or changes the account. A dependency of your own, without claims, knows neither.
    own_user = require(current_user, login=True, impersonated=False) if hasattr(current_user, "claims") else current_user
    router = APIRouter(route_class=NoStoreRoute)
    if AuthEndpoint.REGISTER in endpoints:
        if register is None:
            raise ConfigurationError(
                "the route to register needs register=; without it, pass endpoints=AuthEndpoint.ALL & ~AuthEndpoint.REGISTER"
            )
        add_register(router, flow, session, register, read, mail)
    if cookie is not None and flow.logins is not None:
        add_cookie_routes(router, flow, flow.logins, session, cookie, endpoints)
        endpoints &= ~IN_COOKIES
    if AuthEndpoint.LOGIN in endpoints:
        add_login(router, flow, session)
        if flow.second_factor is not None:
            add_code_login(router, flow, session)
    if AuthEndpoint.SECOND_FACTOR in endpoints:
        second_factor_of(flow)
        add_second_factor(router, flow, session, own_user)
    if AuthEndpoint.REFRESH in endpoints:
        add_refresh(router, flow, session)
    if AuthEndpoint.ME in endpoints:
        add_me(router, current_user, read)
    if endpoints & AuthEndpoint.LOGINS:
        add_logins(router, flow, own_user, endpoints)
    if endpoints & AuthEndpoint.ACCOUNT:
        password, delete = AuthEndpoint.CHANGE_PASSWORD in endpoints, AuthEndpoint.DELETE_ACCOUNT in endpoints
        add_account_routes(router, flow, session, own_user, password=password, delete=delete)
    if mail is not None:
        add_mail_routes(router, mail, session, own_user, endpoints)
    return router


IN_COOKIES = AuthEndpoint.LOGIN | AuthEndpoint.REFRESH | AuthEndpoint.LOGOUT | AuthEndpoint.LOGOUT_EVERYWHERE
"""The routes that set, read or delete cookies."""


def add_cookie_routes(
    router: APIRouter,
    flow: AuthFlow[UserT, RegisterT],
    logins: Logins,
    session: Dependency[AsyncSession],
    cookie: CookieTransport,
    endpoints: AuthEndpoint,
) -> None:
    """Add those of ``IN_COOKIES``."""
    if AuthEndpoint.LOGIN in endpoints:
        add_cookie_login(router, flow, logins, session, cookie, PasswordForm)
        if flow.second_factor is not None:
            add_cookie_code_login(router, flow, logins, session, cookie)
    if AuthEndpoint.REFRESH in endpoints:
        add_cookie_refresh(router, flow, logins, session, cookie)
    if AuthEndpoint.LOGOUT in endpoints:
        add_cookie_logout(router, flow, logins, cookie)
    if AuthEndpoint.LOGOUT_EVERYWHERE in endpoints:
        add_cookie_logout_everywhere(router, flow, logins, session, cookie)


def check_mail(mail: MailFlow[UserT, RegisterT] | None, endpoints: AuthEndpoint) -> None:
    """Raise ConfigurationError if a route of *endpoints* needs a mail that *mail* does not send."""
    needed = {"reset": AuthEndpoint.RESET_PASSWORD, "verify": AuthEndpoint.VERIFY_EMAIL | AuthEndpoint.CHANGE_EMAIL}
    for name, routes in needed.items():
        if endpoints & routes and getattr(mail, name, None) is None:
            raise ConfigurationError(f"these endpoints= need auth_router(mail=MailFlow(..., {name}=...))")


def add_mail_routes(
    router: APIRouter,
    mail: MailFlow[UserT, RegisterT],
    session: Dependency[AsyncSession],
    current_user: Callable[..., Awaitable[UserT]],
    endpoints: AuthEndpoint,
) -> None:
    """Add those of ``AuthEndpoint.MAIL``."""
    if AuthEndpoint.RESET_PASSWORD in endpoints:
        add_password_reset(router, mail, session)
    if AuthEndpoint.VERIFY_EMAIL in endpoints:
        add_email_verification(router, mail, session)
    if AuthEndpoint.CHANGE_EMAIL in endpoints:
        add_email_change(router, mail, session, current_user)
    if endpoints & (AuthEndpoint.VERIFY_EMAIL | AuthEndpoint.CHANGE_EMAIL):
        add_email_confirmation(router, mail, session)


class NoStoreRoute(APIRoute):
    """A route whose answers are not cached (RFC 6749, 5.1). Use it as ``route_class`` of your own routers of tokens and accounts, too."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""

        async def send_unstored(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"])["Cache-Control"] = "no-store"
            await send(message)

        await super().handle(scope, receive, send_unstored)


def add_register(
    router: APIRouter,
    flow: AuthFlow[UserT, RegisterT],
    session: Dependency[AsyncSession],
    schema: type[RegisterT],
    read: type[BaseModel],
    mail: MailFlow[UserT, RegisterT] | None,
) -> None:
    """Add ``POST /register``."""
    if mail is not None and mail.verify is None:
        mail = None

    async def register(
        __data__: Any, session: Annotated[AsyncSession, as_depends(session)], request: Request, background: BackgroundTasks
    ) -> Any:
        if mail is not None and mail.taken is not None:
            return accepted(background, await mail.register(session, __data__, password=__data__.password, client=client_of(request)))
        if mail is not None:
            await mail.limit_registration(__data__, client_of(request))
        user = await flow.register(session, __data__, password=__data__.password)
        if mail is not None:
            background.add_task(mail.verification(session, user))
        return user

    hidden = mail is not None and mail.taken is not None
    options: dict[str, Any] = {"status_code": 202, "response_class": Response} if hidden else {"status_code": 201, "response_model": read}
    router.add_api_route(
        "/register",
        declare(register, __data__=Annotated[schema, Body()]),
        dependencies=[while_connected],
        methods=["POST"],
        summary="Register",
        description="Create an account. "
        + ("The answer is the same if the address is taken." if hidden else "The address must not be taken.")
        + " The password must not be easy to guess.",
        response_description="A mail is sent" if hidden else "The new account",
        responses=problem_responses(400, *(() if hidden else (409,)), 413, 422, *limited(mail), 503),
        **options,
    )


def add_login(router: APIRouter, flow: AuthFlow[UserT, RegisterT], session: Dependency[AsyncSession]) -> None:
    """Add ``POST /login``."""
    name = "an e-mail address" if flow.identify is None else "a user name"

    async def login(
        form: Annotated[PasswordForm, Depends()], session: Annotated[AsyncSession, as_depends(session)], request: Request
    ) -> TokenPair:
        client = client_of(request)
        return await flow.login(session, email=form.username, password=form.password, scopes=form.scopes, client=client)

    router.add_api_route(
        "/login",
        login,
        dependencies=[while_connected],
        methods=["POST"],
        summary="Log in",
        description=f"Exchange {name} and a password for tokens (OAuth2 password grant)."
        + ("" if flow.second_factor is None else CHALLENGE_DESCRIPTION),
        response_description="An access token and a refresh token",
        responses=problem_responses(400, 401, 413, 422, *limited(flow), 503),
    )


def add_refresh(router: APIRouter, flow: AuthFlow[UserT, RegisterT], session: Dependency[AsyncSession]) -> None:
    """Add ``POST /refresh``."""

    async def refresh(data: RefreshRequest, session: Annotated[AsyncSession, as_depends(session)]) -> TokenPair:
        return await flow.refresh(session, data.refresh_token.get_secret_value())

    router.add_api_route(
        "/refresh",
        refresh,
        methods=["POST"],
        summary="Refresh tokens",
        description="Exchange a refresh token for new tokens. The login does not last longer for it.",
        response_description="An access token and a refresh token",
        responses=problem_responses(400, 401, 413, 422, 503),
    )


def add_me(router: APIRouter, current_user: Callable[..., Awaitable[UserT]], read: type[BaseModel]) -> None:
    """Add ``GET /me``."""

    async def me(user: Annotated[Any, Depends(current_user)]) -> Any:
        return user

    router.add_api_route(
        "/me",
        me,
        methods=["GET"],
        response_model=read,
        summary="Show the current user",
        description="The account that the token belongs to.",
        response_description="The account",
        responses=problem_responses(401, 503),
    )


def add_logins(
    router: APIRouter, flow: AuthFlow[UserT, RegisterT], current_user: Callable[..., Awaitable[UserT]], endpoints: AuthEndpoint
) -> None:
    """Add the routes that list and end logins."""
    get_claims: Callable[..., Awaitable[TokenClaims]] | None = getattr(current_user, "claims", None)
    if get_claims is None:
        raise ConfigurationError("the routes that list and end logins need current_user.claims: use get_current_user_factory")

    async def logout(claims: Annotated[TokenClaims, Depends(get_claims)]) -> None:
        await flow.logout(claims)

    async def logout_everywhere(claims: Annotated[TokenClaims, Depends(get_claims)]) -> None:
        await flow.logout_everywhere(claims)

    async def list_logins(claims: Annotated[TokenClaims, Depends(get_claims)]) -> list[LoginRead]:
        return [
            LoginRead(
                id=login.sid,
                created_at=login.created_at,
                last_used_at=login.last_used_at,
                ends_at=login.ends_at,
                address=login.address,
                user_agent=login.user_agent,
                is_current=login.sid == claims.sid,
            )
            for login in await flow.list_logins(claims)
        ]

    async def end_login(id: Annotated[SafeText, Path(max_length=64)], claims: Annotated[TokenClaims, Depends(get_claims)]) -> None:
        await flow.end_login(claims, id)

    # A user whom another one acts as is a 403. The user is loaded, too: a deleted or inactive user is a 401 here as everywhere.
    def add(
        endpoint: AuthEndpoint, method: str, path: str, serve: Callable[..., Awaitable[object]], summary: str, description: str
    ) -> None:
        if endpoint not in endpoints:
            return
        router.add_api_route(
            path,
            serve,
            dependencies=[Depends(current_user)],
            methods=[method],
            status_code=200 if method == "GET" else 204,
            summary=summary,
            description=description,
            response_description="The logins" if method == "GET" else "Done",
            responses=problem_responses(*([401, 403, 404, 422, 503] if method == "DELETE" else [401, 403, 503])),
        )

    add(AuthEndpoint.LOGOUT, "POST", "/logout", logout, "Log out", "End this login. Its refresh token cannot be used again.")
    everywhere = "End all logins of the account, this one included."
    add(AuthEndpoint.LOGOUT_EVERYWHERE, "POST", "/logout/everywhere", logout_everywhere, "Log out everywhere", everywhere)
    add(AuthEndpoint.LIST_LOGINS, "GET", "/logins", list_logins, "List logins", "The logins of the account, the last used one first.")
    add(AuthEndpoint.END_LOGIN, "DELETE", "/logins/{id}", end_login, "End a login", "End one login of the account.")
