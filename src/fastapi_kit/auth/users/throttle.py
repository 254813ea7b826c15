"""Limits on guessing passwords and codes, per account and per client."""

import unicodedata
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from fastapi_kit.errors import ConfigurationError, RateLimitedError
from fastapi_kit.ratelimit.counters import AttemptCounter, MemoryCounter, client_key

__all__ = ["LoginThrottle", "limited_codes"]


@dataclass(frozen=True, kw_only=True)
class LoginThrottle:
    """Limits the attempts on an account and from a client: logins, codes, mails that reset a password.

    An attempt counts before its password is verified, so guesses at the same time cannot pass the limit. An attempt that is rejected does
    not count, so no account is closed for longer than *window*.

    Args:
        counter: Where attempts are counted: a ``RateLimiter`` on Redis for several processes. The default is the memory of this process.
        per_account: How many attempts an account has in *window*. A success gives them back.
        per_client: How many attempts a client has, successful ones included. An IPv6 client is a /64. Many users may be behind one address.
        window: The time in which attempts count together.
        name: What is attempted. Throttles with different names count apart, also in one *counter*.

    Raises:
        ConfigurationError: A limit is less than 1, or *window* is not positive.
    """

    counter: AttemptCounter = field(default_factory=MemoryCounter)
    per_account: int = 10
    per_client: int = 50
    window: timedelta = timedelta(minutes=15)
    name: str = "login"

    def __post_init__(self) -> None:
        if self.per_account < 1 or self.per_client < 1 or self.window <= timedelta():
            raise ConfigurationError("a throttle needs limits of at least 1, and a window that is longer than nothing")

    async def attempt(self, *, account: str, client: str | None, kind: str = "account") -> None:
        """Count one attempt.

        Args:
            account: What the client typed, known or not, or the id of a user. Case and Unicode form do not matter.
            client: The address of the client: ``request.client.host``. None for an attempt that has no client.
            kind: One word for what is attempted. Accounts of different kinds count apart, so that no name that a stranger types counts
                as the id of a user. A client has one count for all kinds.

        Raises:
            RateLimitedError: There were too many attempts. It does not say whether of the account or of the client.
        """
        # The client comes first: one that is over its limit takes no attempt from an account.
        if client is not None:
            await self._hit(self._client(client), self.per_client)
        await self._hit(self._account(kind, account), self.per_account)

    async def succeeded(self, *, account: str, kind: str = "account") -> None:
        """Forget the attempts on *account*. Those of the client stay: its next guess may be at another account."""
        await self.counter.reset(self._account(kind, account))

    async def _hit(self, key: str, limit: int) -> None:
        if wait := await self.counter.hit(key, limit=limit, window=self.window.total_seconds()):
            raise RateLimitedError(wait)

    def _account(self, kind: str, account: str) -> str:
        # Not casefold, which makes one of two addresses: with ß and with ss. A login to one would give attempts back to the other.
        return f"{self.name} {kind} {unicodedata.normalize('NFKC', account).strip().lower()}"

    def _client(self, client: str) -> str:
        return f"{self.name} client {client_key(client)}"


@asynccontextmanager
async def limited_codes(
    throttle: LoginThrottle | None, subject: str, client: str | None = None, *, kind: str = "code"
) -> AsyncGenerator[None]:
    """Count an attempt before the code in the block is checked, and forget it if the code is right. Raises RateLimitedError."""
    # Counted apart from passwords: who knows the password must not get new attempts with each login.
    if throttle is not None:
        await throttle.attempt(account=subject, client=client, kind=kind)
    yield
    if throttle is not None:
        await throttle.succeeded(account=subject, kind=kind)
