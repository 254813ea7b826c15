"""What a store of logins keeps, and what it must be able to do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fastapi_kit.auth.logins.protocol import LoginInfo

__all__ = ["LoginRecord", "LoginStore"]


@dataclass(frozen=True, kw_only=True)
class LoginRecord(LoginInfo):
    """One login as it is stored. It contains no token, only the hash of the one that can be used. The repr hides the hashes."""

    scopes: frozenset[str]
    token_hash: bytes = field(repr=False)
    """The SHA-256 of the current refresh token's ``jti``, which is random."""
    previous_hash: bytes | None = field(default=None, repr=False)
    """The same of the token before, which was used at ``last_used_at``."""
    salt: bytes | None = field(default=None, repr=False)
    """With this and the previous token the current one can be made again. Without that token it is worth nothing."""


class LoginStore(Protocol):
    """Keeps the logins of ``StoredLogins``. Each method is atomic and stores what it does before it returns.

    All methods raise UnavailableError if the store does not answer.
    """

    async def add(self, login: LoginRecord, /) -> None:
        """Store a new login."""
        ...

    async def find(self, sid: str, /) -> LoginRecord | None:
        """Return the login, or None if it was ended."""
        ...

    async def replace(self, login: LoginRecord, /, *, token_hash: bytes) -> bool:
        """Store *login* over the one with its ``sid``, and return True, if the stored one still has *token_hash*. Return False otherwise.

        Of many calls at once with the same *token_hash*, one returns True.
        """
        ...

    async def list(self, subject: str, /) -> Sequence[LoginRecord]:
        """Return the logins of *subject*, in any order. Some may have expired."""
        ...

    async def end(self, subject: str, sid: str, /) -> bool:
        """Remove the login *sid* of *subject*. Return False if there is none, or if it is the login of another subject."""
        ...

    async def end_all(self, subject: str, /, *, keep: str | None) -> None:
        """Remove all logins of *subject*, except *keep*."""
        ...

    async def purge(self, before: datetime, /) -> int:
        """Remove the logins that ended before then, and return how many. A store that forgets them by itself returns 0."""
        ...
