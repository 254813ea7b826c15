"""The ready routes of a second factor."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.logins.protocol import TokenPair
from fastapi_kit.auth.requests.clients import client_of
from fastapi_kit.auth.users.account_routes import Connected, limited
from fastapi_kit.auth.users.schemas import (
    CODE_ERRORS,
    CodeConfirmation,
    CodeLogin,
    EnrolmentRead,
    PasswordAndCode,
    PasswordConfirmation,
    RecoveryCodesRead,
    SecondFactorRead,
)
from fastapi_kit.auth.users.second_factor import (
    begin_second_factor,
    confirm_second_factor,
    disable_second_factor,
    login_with_code,
    renew_recovery_codes,
    second_factor_of,
)
from fastapi_kit.dependencies import Dependency, as_depends
from fastapi_kit.handlers.openapi import problem_responses

if TYPE_CHECKING:
    from fastapi_kit.auth.users.flow import AuthFlow

__all__ = ["add_code_login", "add_second_factor"]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)


def add_code_login(router: APIRouter, flow: "AuthFlow[UserT, RegisterT]", session: Dependency[AsyncSession]) -> None:
    """Add ``POST /login/second-factor``."""

    async def login_second_factor(data: CodeLogin, session: Annotated[AsyncSession, as_depends(session)], request: Request) -> TokenPair:
        token, code = data.challenge_token.get_secret_value(), data.code.get_secret_value()
        return await login_with_code(flow, session, challenge_token=token, code=code, client=client_of(request))

    router.add_api_route(
        "/login/second-factor",
        login_second_factor,
        methods=["POST"],
        summary="Log in with a code",
        description=f"Exchange the challenge of a login and a code for tokens. {CODE_ERRORS}",
        response_description="An access token and a refresh token",
        responses=problem_responses(400, 401, 413, 422, *limited(flow), 503),
    )


def add_second_factor(
    router: APIRouter, flow: "AuthFlow[UserT, RegisterT]", session: Dependency[AsyncSession], current_user: Callable[..., Awaitable[UserT]]
) -> None:
    """Add the routes with which users enable and disable their second factor."""

    async def read(user: Annotated[Any, Depends(current_user)], session: Annotated[AsyncSession, as_depends(session)]) -> SecondFactorRead:
        state = await second_factor_of(flow).store.read(session, user)
        return SecondFactorRead(enabled=state.is_enabled, recovery_codes=len(state.recovery_hashes))

    async def begin(
        data: PasswordConfirmation,
        user: Annotated[Any, Depends(current_user)],
        session: Annotated[AsyncSession, as_depends(session)],
        connected: Connected,
    ) -> EnrolmentRead:
        made = await begin_second_factor(flow, session, user, current_password=data.current_password)
        return EnrolmentRead(secret=made.secret, uri=made.uri)

    async def confirm(
        data: CodeConfirmation,
        user: Annotated[Any, Depends(current_user)],
        session: Annotated[AsyncSession, as_depends(session)],
        connected: Connected,
    ) -> RecoveryCodesRead:
        codes = await confirm_second_factor(flow, session, user, code=data.code.get_secret_value())
        return RecoveryCodesRead(recovery_codes=list(codes))

    async def renew(
        data: PasswordAndCode,
        user: Annotated[Any, Depends(current_user)],
        session: Annotated[AsyncSession, as_depends(session)],
        connected: Connected,
    ) -> RecoveryCodesRead:
        codes = await renew_recovery_codes(flow, session, user, current_password=data.current_password, code=data.code.get_secret_value())
        return RecoveryCodesRead(recovery_codes=list(codes))

    async def disable(
        data: PasswordAndCode,
        user: Annotated[Any, Depends(current_user)],
        session: Annotated[AsyncSession, as_depends(session)],
        connected: Connected,
    ) -> None:
        await disable_second_factor(flow, session, user, current_password=data.current_password, code=data.code.get_secret_value())

    def add(path: str, serve: Callable[..., Awaitable[object]], summary: str, description: str, answer: str, *, status: int = 200) -> None:
        router.add_api_route(
            path,
            serve,
            methods=["POST"],
            status_code=status,
            summary=summary,
            description=description,
            response_description=answer,
            responses=problem_responses(400, 401, 409, 413, 422, *limited(flow), 503),
        )

    router.add_api_route(
        "/second-factor",
        read,
        methods=["GET"],
        summary="Show the second factor",
        description="Whether a login needs a code.",
        response_description="The second factor",
        responses=problem_responses(401, 503),
    )
    add(
        "/second-factor",
        begin,
        "Begin a second factor",
        "Get a secret for an authenticator app. Logins need no code until the first one confirms it.",
        "The secret, and the address for a QR code",
    )
    add(
        "/second-factor/confirm",
        confirm,
        "Confirm the second factor",
        "Enable the second factor with a first code of the app.",
        "Recovery codes, shown once",
    )
    add(
        "/second-factor/recovery-codes",
        renew,
        "Make new recovery codes",
        "Replace all recovery codes, with the password and a code of the app. A recovery code does not count.",
        "The new recovery codes, shown once",
    )
    add(
        "/second-factor/disable",
        disable,
        "Disable the second factor",
        "Switch the second factor off, with the password and a code.",
        "Done",
        status=204,
    )
