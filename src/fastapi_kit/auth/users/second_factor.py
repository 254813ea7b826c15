"""The steps of a login with a second factor, without HTTP."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.logins.protocol import ClientInfo, EndableLogins, TokenPair
from fastapi_kit.auth.second_factor.steps import Enrolment, SecondFactor, scopes_of
from fastapi_kit.auth.users.throttle import limited_codes
from fastapi_kit.db.sessions import finish
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

if TYPE_CHECKING:
    from fastapi_kit.auth.users.flow import AuthFlow

__all__ = [
    "begin_second_factor",
    "confirm_second_factor",
    "disable_second_factor",
    "login_with_code",
    "renew_recovery_codes",
    "second_factor_of",
]

UserT = TypeVar("UserT")
RegisterT = TypeVar("RegisterT", bound=BaseModel)


async def login_with_code(
    flow: "AuthFlow[UserT, RegisterT]", session: AsyncSession, *, challenge_token: str, code: str, client: ClientInfo | None = None
) -> TokenPair:
    """Begin the login of a challenge, with the scopes that it was asked for and that the user may still have.

    Args:
        flow: Has the second factor and the logins.
        session: A session of your database.
        challenge_token: From the SecondFactorRequiredError of ``flow.login``.
        code: A code of the authenticator app, or a recovery code. It is used up.
        client: Where the request comes from, for the list of logins and for the throttle.

    Raises:
        InvalidTokenError: The challenge is over, or its user does not exist, may not log in, or has another password or factor
            now.
        InvalidCredentialsError: The code is wrong, or was used.
        RateLimitedError: The user or the client had too many attempts.
        UnavailableError: What counts the attempts does not answer.
    """
    factor, logins, accounts = second_factor_of(flow), flow.logins, flow.accounts(session)
    if logins is None:
        raise ConfigurationError("a login with a code needs AuthFlow(logins=...)")
    challenge = factor.decode(challenge_token)
    user = await accounts.get_account(challenge.sub)
    account = None if user is None else accounts.describe(user)
    if user is None or account is None or not flow.may_log_in(account):
        raise InvalidTokenError("its user does not exist or may not log in")
    stored = account.hashed_password
    async with limited_codes(flow.throttle, account.subject, None if client is None else client.address):
        await factor.answer(session, user, challenge, code, hashed_password=stored)
    scopes = scopes_of(challenge) & frozenset(() if flow.scopes is None else flow.scopes(user))
    if not isinstance(logins, EndableLogins):
        return await logins.start(account.subject, scopes=scopes)
    pair = await logins.start(account.subject, scopes=scopes, client=client)
    # A change of the password ends the logins that it finds. It may have come between the code and the start.
    if not await flow.still_has_hash(session, user, stored):
        begun = await logins.decode_refresh_token(pair.refresh_token)
        await logins.end(account.subject, begun.sid or "")
        raise InvalidTokenError("the password was changed")
    return pair


async def begin_second_factor(
    flow: "AuthFlow[UserT, RegisterT]", session: AsyncSession, user: UserT, *, current_password: str | SecretStr
) -> Enrolment:
    """Return a new secret for the authenticator app of *user*. ``confirm_second_factor`` enables it.

    Raises:
        UserInputError: The current password is wrong.
        ConflictError: The factor is enabled already.
    """
    factor = second_factor_of(flow)
    await flow.confirm(session, user, current_password)
    account = flow.accounts(session).describe(user)
    return await factor.begin(session, user, account=account.email or account.subject)


async def confirm_second_factor(flow: "AuthFlow[UserT, RegisterT]", session: AsyncSession, user: UserT, *, code: str) -> Sequence[str]:
    """Enable the factor with a first code of the app, and return the recovery codes, which are shown once.

    Raises:
        UserInputError: The code is wrong.
        RateLimitedError: The user had too many attempts.
        ConflictError: There is nothing to confirm.
    """
    factor, account = second_factor_of(flow), flow.accounts(session).describe(user)

    async def store() -> Sequence[str]:
        codes = await factor.confirm(session, user, code)
        await flow.tell(session, "second_factor_enabled", before=account, after=account)
        return codes

    # Counted apart from logins: it needs no password, and a stolen token must not keep the user from logging in.
    async with limited_codes(flow.throttle, account.subject, kind="enrolment"):
        return await finish(store())


async def renew_recovery_codes(
    flow: "AuthFlow[UserT, RegisterT]", session: AsyncSession, user: UserT, *, current_password: str | SecretStr, code: str
) -> Sequence[str]:
    """Replace all recovery codes with the password and a code of the app, and return the new ones, which are shown once.

    It takes no recovery code: ``SecondFactor.renew_recovery_codes`` says why.

    Raises:
        UserInputError: The current password or the code is wrong.
        RateLimitedError: The user had too many attempts.
        ConflictError: The factor is not enabled, or another request was faster.
    """
    factor, account = second_factor_of(flow), flow.accounts(session).describe(user)
    await flow.confirm(session, user, current_password)

    async def store() -> Sequence[str]:
        codes = await factor.renew_recovery_codes(session, user, code)
        await flow.tell(session, "recovery_codes", before=account, after=account)
        return codes

    async with limited_codes(flow.throttle, account.subject):
        return await finish(store())


async def disable_second_factor(
    flow: "AuthFlow[UserT, RegisterT]", session: AsyncSession, user: UserT, *, current_password: str | SecretStr, code: str
) -> None:
    """Switch the factor off with the password and a code, which may be a recovery code.

    Raises:
        UserInputError: The current password or the code is wrong.
        RateLimitedError: The user had too many attempts.
        ConflictError: The factor is not enabled.
    """
    factor, account = second_factor_of(flow), flow.accounts(session).describe(user)
    await flow.confirm(session, user, current_password)

    async def store() -> None:
        await factor.disable(session, user, code)
        await flow.tell(session, "second_factor_disabled", before=account, after=account)

    async with limited_codes(flow.throttle, account.subject):
        await finish(store())


def second_factor_of(flow: "AuthFlow[UserT, RegisterT]") -> SecondFactor[UserT]:
    """Return the factor. Raises ConfigurationError if there is none."""
    if flow.second_factor is None:
        raise ConfigurationError("this AuthFlow has no second factor: pass second_factor=SecondFactor(tokens, totp, SQLFactorStore(), ...)")
    return flow.second_factor
