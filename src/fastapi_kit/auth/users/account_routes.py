"""Ready routes with which users change, verify, recover and delete their accounts."""

# No ``from __future__ import annotations`` here: FastAPI reads the signatures of the closures below.
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

from fastapi import APIRouter, BackgroundTasks, Depends, Request, Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.requests.clients import client_of
from fastapi_kit.auth.tokens.claims import TokenClaims
from fastapi_kit.auth.users.schemas import AccountDelete, AccountName, EmailChange, LinkToken, PasswordChange, PasswordReset
from fastapi_kit.dependencies import Dependency, as_depends, while_connected
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.handlers.openapi import problem_responses

if TYPE_CHECKING:
    from fastapi_kit.auth.users.flow import AuthFlow
    from fastapi_kit.auth.users.mail import Mail, MailFlow

__all__ = [
    "Connected",
    "accepted",
    "add_account_routes",
    "add_email_change",
    "add_email_confirmation",
    "add_email_verification",
    "add_password_reset",
    "limited",
]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)

SENT = "A mail is sent if it can be"
AND_CODE = ", and a code if the account has a second factor"

Connected: TypeAlias = Annotated[None, while_connected]
"""The last parameter of a route, so that it ends before the session: a client that leaves does not cancel the COMMIT."""


def add_account_routes(
    router: APIRouter,
    flow: "AuthFlow[UserT, RegisterT]",
    session: Dependency[AsyncSession],
    current_user: Callable[..., Awaitable[UserT]],
    *,
    password: bool,
    delete: bool,
) -> None:
    """Add ``POST /password`` and ``POST /me/delete``."""
    get_claims: Callable[..., Awaitable[TokenClaims]] | None = getattr(current_user, "claims", None)
    if get_claims is None:
        raise ConfigurationError("the route to change the password needs current_user.claims: use get_current_user_factory")

    async def change_password(
        data: PasswordChange,
        user: Annotated[Any, Depends(current_user)],
        claims: Annotated[TokenClaims, Depends(get_claims)],
        session: Annotated[AsyncSession, as_depends(session)],
        connected: Connected,
    ) -> None:
        await flow.change(session, user, data, keep=claims.sid)

    async def delete_account(
        data: AccountDelete,
        user: Annotated[Any, Depends(current_user)],
        session: Annotated[AsyncSession, as_depends(session)],
        connected: Connected,
    ) -> None:
        await flow.delete_account(session, user, current=data.current_password, code=data.code)

    if password:
        text = "Set a new password. It needs the current one, and ends the other logins of the account."
        add(router, "/password", change_password, 204, "Change the password", text, 401, 403, *limited(flow))
    if delete:
        add(
            router,
            "/me/delete",
            delete_account,
            204,
            "Delete the account",
            f"Delete the account. It needs the password{AND_CODE}.",
            401,
            403,
            409,
            *limited(flow),
        )


def add_password_reset(router: APIRouter, mail: "MailFlow[UserT, RegisterT]", session: Dependency[AsyncSession]) -> None:
    """Add ``POST /password/forgot`` and ``POST /password/reset``."""

    async def forgot_password(
        data: AccountName,
        session: Annotated[AsyncSession, as_depends(session)],
        request: Request,
        background: BackgroundTasks,
        connected: Connected,
    ) -> Response:
        return accepted(background, await mail.request_reset(session, email=data.email, client=client_of(request)))

    async def reset_password(data: PasswordReset, session: Annotated[AsyncSession, as_depends(session)], connected: Connected) -> None:
        await mail.reset_password(session, data.token.get_secret_value(), new=data.password)

    text = "Send a link to set a new password. The answer is the same if there is no such account."
    add(router, "/password/forgot", forgot_password, 202, "Forgot the password", text, *limited(mail))
    text = "Set a new password with the link of a mail. It ends all logins of the account."
    add(router, "/password/reset", reset_password, 204, "Reset the password", text)


def add_email_verification(router: APIRouter, mail: "MailFlow[UserT, RegisterT]", session: Dependency[AsyncSession]) -> None:
    """Add ``POST /email/verification``."""

    async def request_verification(
        data: AccountName,
        session: Annotated[AsyncSession, as_depends(session)],
        request: Request,
        background: BackgroundTasks,
        connected: Connected,
    ) -> Response:
        return accepted(background, await mail.request_verification(session, email=data.email, client=client_of(request)))

    text = "Send the link to verify the address again. The answer is the same if there is no such account."
    add(router, "/email/verification", request_verification, 202, "Verify the address", text, *limited(mail))


def add_email_change(
    router: APIRouter,
    mail: "MailFlow[UserT, RegisterT]",
    session: Dependency[AsyncSession],
    current_user: Callable[..., Awaitable[UserT]],
) -> None:
    """Add ``POST /email``."""

    async def change_email(
        data: EmailChange,
        user: Annotated[Any, Depends(current_user)],
        session: Annotated[AsyncSession, as_depends(session)],
        request: Request,
        background: BackgroundTasks,
        connected: Connected,
    ) -> Response:
        current, code, client = data.current_password, data.code, client_of(request)
        return accepted(background, await mail.request_email(session, user, email=data.email, current=current, code=code, client=client))

    text = f"Send a link to a new address, which becomes the address of the account when it is confirmed. It needs the password{AND_CODE}."
    add(router, "/email", change_email, 202, "Change the address", text, 401, 403, *limited(mail), *limited(mail.flow))


def add_email_confirmation(router: APIRouter, mail: "MailFlow[UserT, RegisterT]", session: Dependency[AsyncSession]) -> None:
    """Add ``POST /email/confirm``."""

    async def confirm_email(data: LinkToken, session: Annotated[AsyncSession, as_depends(session)], connected: Connected) -> None:
        await mail.confirm_email(session, data.token.get_secret_value())

    add(router, "/email/confirm", confirm_email, 204, "Confirm the address", "Confirm an address with the link of a mail.", 409)


def accepted(background: BackgroundTasks, mail: "Mail") -> Response:
    """Return the answer of every route that sends a mail, and send it afterwards."""
    background.add_task(mail)
    return Response(status_code=202)


def limited(flow: "AuthFlow[Any, Any] | MailFlow[Any, Any] | None") -> tuple[int, ...]:
    """Return 429 if the steps of *flow* have a throttle."""
    return () if flow is None or flow.throttle is None else (429,)


def add(
    router: APIRouter, path: str, serve: Callable[..., Awaitable[object]], status: int, summary: str, description: str, *errors: int
) -> None:
    """Add a route that answers *status* without a body."""
    router.add_api_route(
        path,
        serve,
        methods=["POST"],
        status_code=status,
        response_class=Response,
        summary=summary,
        description=description,
        response_description="Done" if status == 204 else SENT,
        responses=problem_responses(*sorted({400, 413, 422, 503, *errors})),
    )
