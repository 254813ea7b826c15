"""The ready routes that log in, refresh and log out with cookies. No answer contains a token."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.logins.protocol import Logins, TokenPair
from fastapi_kit.auth.requests.clients import client_of
from fastapi_kit.auth.requests.cookies import CookieTransport
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.users.account_routes import limited
from fastapi_kit.auth.users.flow import AuthFlow
from fastapi_kit.auth.users.schemas import CHALLENGE_DESCRIPTION, CODE_ERRORS, CodeLogin
from fastapi_kit.auth.users.second_factor import login_with_code
from fastapi_kit.dependencies import CHALLENGES, Dependency, as_depends, declare, while_connected
from fastapi_kit.errors import AuthenticationError, ImpersonatedError, InvalidTokenError
from fastapi_kit.handlers.openapi import problem_responses
from fastapi_kit.handlers.registrars import problem_response

__all__ = [
    "add_cookie_code_login",
    "add_cookie_login",
    "add_cookie_logout",
    "add_cookie_logout_everywhere",
    "add_cookie_refresh",
]


def add_cookie_login(
    router: APIRouter,
    flow: AuthFlow[Any, Any],
    logins: Logins,
    session: Dependency[AsyncSession],
    cookie: CookieTransport,
    form: type[object],
) -> None:
    """Add ``POST /login``, which sets the cookies. *form* has the fields of ``PasswordForm``."""

    async def login(__form__: Any, session: Annotated[AsyncSession, as_depends(session)], request: Request, response: Response) -> None:
        client = client_of(request)
        pair = await flow.login(session, email=__form__.username, password=__form__.password, scopes=__form__.scopes, client=client)
        await set_cookies(logins, cookie, response, pair)

    router.add_api_route(
        "/login",
        declare(login, __form__=Annotated[form, Depends()]),
        dependencies=[origin_of(cookie), while_connected],
        methods=["POST"],
        status_code=204,
        summary="Log in",
        description=f"Exchange {'an e-mail address' if flow.identify is None else 'a user name'} and a password for cookies."
        + ("" if flow.second_factor is None else CHALLENGE_DESCRIPTION),
        response_description="The cookies are set",
        responses=problem_responses(400, 401, 403, 413, 422, *limited(flow), 503),
    )


def add_cookie_code_login(
    router: APIRouter, flow: AuthFlow[Any, Any], logins: Logins, session: Dependency[AsyncSession], cookie: CookieTransport
) -> None:
    """Add ``POST /login/second-factor``, which sets the cookies."""

    async def login_second_factor(
        data: CodeLogin, session: Annotated[AsyncSession, as_depends(session)], request: Request, response: Response
    ) -> None:
        token, code = data.challenge_token.get_secret_value(), data.code.get_secret_value()
        pair = await login_with_code(flow, session, challenge_token=token, code=code, client=client_of(request))
        await set_cookies(logins, cookie, response, pair)

    router.add_api_route(
        "/login/second-factor",
        login_second_factor,
        dependencies=[origin_of(cookie)],
        methods=["POST"],
        status_code=204,
        summary="Log in with a code",
        description=f"Exchange the challenge of a login and a code for cookies. {CODE_ERRORS}",
        response_description="The cookies are set",
        responses=problem_responses(400, 401, 403, 413, 422, *limited(flow), 503),
    )


def add_cookie_refresh(
    router: APIRouter, flow: AuthFlow[Any, Any], logins: Logins, session: Dependency[AsyncSession], cookie: CookieTransport
) -> None:
    """Add ``POST /refresh``, which takes the refresh token from its cookie and replaces the cookies."""

    async def refresh(session: Annotated[AsyncSession, as_depends(session)], request: Request, response: Response) -> Response | None:
        try:
            pair = await flow.refresh(session, cookie.refresh_token(request))
        except AuthenticationError as error:
            return logged_out(cookie, request, error)
        await set_cookies(logins, cookie, response, pair, continuing=request)
        return None

    router.add_api_route(
        "/refresh",
        refresh,
        dependencies=[origin_of(cookie)],
        methods=["POST"],
        status_code=204,
        response_model=None,
        summary="Refresh the login",
        description="Replace the cookies. The login does not last longer for it. If it is over, the cookies are deleted.",
        response_description="The cookies are set",
        responses=problem_responses(401, 403, 503),
    )


def add_cookie_logout(router: APIRouter, flow: AuthFlow[Any, Any], logins: Logins, cookie: CookieTransport) -> None:
    """Add ``POST /logout``, which deletes the cookies, also if the login is over."""

    async def logout(request: Request, response: Response) -> None:
        # It is over already, or it is that of a superuser who acts as the user, which goes on.
        with suppress(AuthenticationError, ImpersonatedError):
            await flow.logout(await claims_of(request, logins, cookie))
        cookie.log_out(response)

    router.add_api_route(
        "/logout",
        logout,
        dependencies=[origin_of(cookie)],
        methods=["POST"],
        status_code=204,
        response_model=None,
        summary="Log out",
        description="End this login and delete its cookies.",
        response_description="The cookies are deleted",
        responses=problem_responses(403, 503),
    )


def add_cookie_logout_everywhere(
    router: APIRouter, flow: AuthFlow[Any, Any], logins: Logins, session: Dependency[AsyncSession], cookie: CookieTransport
) -> None:
    """Add ``POST /logout/everywhere``, which deletes the cookies, also if the login is over."""

    async def logout_everywhere(
        session: Annotated[AsyncSession, as_depends(session)], request: Request, response: Response
    ) -> Response | None:
        try:
            claims = await claims_of(request, logins, cookie)
            if claims.type == "refresh":
                # It is used for that: a token that was stolen and used up ends its own login, and no other one.
                await flow.refresh(session, cookie.refresh_token(request))
            elif claims.sid not in {login.sid for login in await flow.list_logins(claims)}:
                raise InvalidTokenError("its login is over")
        except AuthenticationError as error:
            return logged_out(cookie, request, error)
        await flow.logout_everywhere(claims)
        cookie.log_out(response)
        return None

    router.add_api_route(
        "/logout/everywhere",
        logout_everywhere,
        dependencies=[origin_of(cookie)],
        methods=["POST"],
        status_code=204,
        response_model=None,
        summary="Log out everywhere",
        description="End all logins of the account, this one included.",
        response_description="The cookies are deleted",
        responses=problem_responses(401, 403, 503),
    )


def origin_of(cookie: CookieTransport) -> Any:
    """Return a dependency that checks the origin, also of a request without cookies.

    Another site must neither log its visitors in as another user nor delete their cookies.
    """

    async def check_origin(request: Request) -> None:
        cookie.check_origin(request)

    return Depends(check_origin)


async def claims_of(request: Request, logins: Logins, cookie: CookieTransport) -> TokenClaims:
    """Return the claims of the refresh token, which lives as long as the login, or of the access token if there is none.

    Raises:
        AuthenticationError: The request has neither, or it is not valid.
        CrossSiteRequestError: The CSRF token is wrong.
    """
    try:
        token = cookie.refresh_token(request)
    except AuthenticationError:
        claims = await cookie.authenticate(request, logins)
        if claims is None:
            raise
        return claims
    return await logins.decode_refresh_token(token)


async def set_cookies(
    logins: Logins, cookie: CookieTransport, response: Response, pair: TokenPair, *, continuing: Request | None = None
) -> None:
    """Set the cookies, which the browser keeps as long as the login lasts."""
    claims = await logins.decode_refresh_token(pair.refresh_token)
    cookie.log_in(response, pair, lifetime=claims.exp - claims.iat, continuing=continuing)


def logged_out(cookie: CookieTransport, request: Request, error: AuthenticationError) -> Response:
    """Return the answer to *error*, which deletes the cookies."""
    request.scope[CHALLENGES] = (cookie.challenge,)
    response = problem_response(request, error)
    cookie.log_out(response)
    return response
