"""The notices that users get after a change of what they log in with."""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_kit.auth.users.accounts import Account
from fastapi_kit.auth.users.throttle import LoginThrottle
from fastapi_kit.db.atomic import is_opened
from fastapi_kit.db.hooks import on_commit
from fastapi_kit.db.sessions import finish
from fastapi_kit.errors import UnavailableError

__all__ = ["AccountChange", "ChangeKind", "Notify", "after_commit", "send_notice"]

ChangeKind: TypeAlias = Literal["password", "email", "second_factor_enabled", "second_factor_disabled", "recovery_codes"]
"""What was changed."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AccountChange:
    """A change that its user should hear of, because a thief may have made it."""

    kind: ChangeKind
    to: str
    """Where to send the mail: the address that the account had before the change."""
    account: Account
    """The account after the change."""


Notify: TypeAlias = Callable[[AccountChange], Awaitable[object]]
"""A function of your application. It sends a mail to ``change.to``, which says what was changed."""


async def send_notice(notify: Notify, change: AccountChange, throttle: LoginThrottle | None) -> None:
    """Call *notify*, and log its error: the change is stored. *throttle* limits how many notices a user gets."""
    try:
        if throttle is not None:
            with suppress(UnavailableError):
                await throttle.attempt(account=change.account.subject, client=None, kind="notice")
        await notify(change)
    except Exception as error:
        # The application's function may raise anything. The text may have an address.
        logger.error("A notice of a change could not be sent: %s", type(error).__name__)


async def after_commit(session: AsyncSession, call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Make *call* after the commit of the transaction that was opened on *session*, or now if none was: then its write has committed.

    A cancellation, of a client that has gone, does not stop the call. Await this in ``finish``, so that it cannot come before, either.
    """
    if is_opened(session):
        on_commit(session, lambda: finish(call()))
    else:
        await finish(call())
