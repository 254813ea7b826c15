"""Logins in the memory of this process."""

from collections.abc import Sequence
from datetime import datetime

from fastapi_kit.auth.logins.store import LoginRecord

__all__ = ["MemoryLoginStore"]


class MemoryLoginStore:
    """A ``LoginStore`` for tests and for applications of one process. Its logins end with the process."""

    def __init__(self) -> None:
        self._logins: dict[str, LoginRecord] = {}

    # Without an await inside, each method is atomic.

    async def add(self, login: LoginRecord, /) -> None:
        """Store a new login."""
        self._logins[login.sid] = login

    async def find(self, sid: str, /) -> LoginRecord | None:
        """Return the login, or None if it was ended."""
        return self._logins.get(sid)

    async def replace(self, login: LoginRecord, /, *, token_hash: bytes) -> bool:
        """Store *login* if the stored one still has *token_hash*, and return whether it had."""
        stored = self._logins.get(login.sid)
        if stored is None or stored.token_hash != token_hash:
            return False
        self._logins[login.sid] = login
        return True

    async def list(self, subject: str, /) -> Sequence[LoginRecord]:
        """Return the logins of *subject*."""
        return [login for login in self._logins.values() if login.subject == subject]

    async def end(self, subject: str, sid: str, /) -> bool:
        """Remove the login *sid* of *subject*, and return whether there was one."""
        stored = self._logins.get(sid)
        if stored is None or stored.subject != subject:
            return False
        del self._logins[sid]
        return True

    async def end_all(self, subject: str, /, *, keep: str | None) -> None:
        """Remove all logins of *subject*, except *keep*."""
        self._logins = {sid: login for sid, login in self._logins.items() if login.subject != subject or sid == keep}

    async def purge(self, before: datetime, /) -> int:
        """Remove the logins that ended before then, and return how many."""
        count = len(self._logins)
        self._logins = {sid: login for sid, login in self._logins.items() if login.ends_at > before}
        return count - len(self._logins)
