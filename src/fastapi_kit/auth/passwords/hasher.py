"""Passwords, hashed and verified outside of the event loop."""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Literal, NamedTuple, Protocol, Self, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter, to_thread
from pydantic import SecretStr

from fastapi_kit.auth.passwords.contexts import argon2_context, bcrypt_context, random_bcrypt_hash
from fastapi_kit.auth.passwords.policy import INVALID_TEXT, find_fault, password_error, reveal
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.settings import KitSettings, check_settings

__all__ = ["HashContext", "PasswordCheck", "PasswordHasher"]

ResultT = TypeVar("ResultT")

DEFAULT_ROUNDS = 12
MIN_ROUNDS, MAX_ROUNDS = 10, 31

logger = logging.getLogger("fastapi_kit.auth.passwords")


class HashContext(Protocol):
    """Hashes and verifies, such as passlib's ``CryptContext``. It is called in several threads at once."""

    def hash(self, secret: str, /) -> str:
        """Return a new hash."""
        ...

    def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
        """Return whether *secret* matches, and a new hash if the stored one is outdated. ValueError counts as no match."""
        ...


@runtime_checkable
class Verifier(Protocol):
    """A context that can also verify without a new hash."""

    def verify(self, secret: str, hash: str, /) -> bool:
        """Return whether *secret* matches."""
        ...


class PasswordCheck(NamedTuple):
    """Whether the password matches, and the hash to store instead of an outdated one."""

    ok: bool
    new_hash: str | None


NO_MATCH = PasswordCheck(ok=False, new_hash=None)


class PasswordHasher:
    """Hash and verify passwords in a limited number of threads.

    The default is bcrypt with cost 12. A password of more than 72 bytes is hashed with HMAC-SHA-256 first, so that none of it is cut off.
    Make one instance at import and use it everywhere, in any event loop. No error and no log line shows a password or a hash.

    Example:
        ```python
        import asyncio

        from fastapi_kit.auth import PasswordHasher

        passwords = PasswordHasher()


        async def main() -> None:
            hashed = await passwords.hash("correct horse battery staple")
            assert await passwords.verify("correct horse battery staple", hashed)
            assert not await passwords.verify("something else", hashed)


        asyncio.run(main())
        ```
    """

    def __init__(
        self,
        *,
        rounds: int = DEFAULT_ROUNDS,
        scheme: Literal["bcrypt", "argon2"] = "bcrypt",
        context: HashContext | None = None,
        max_concurrency: int | None = None,
    ) -> None:
        """Take at most one of *rounds*, *scheme* and *context*.

        Args:
            rounds: The cost of bcrypt, 10 to 31. Each step doubles the time.
            scheme: ``"argon2"`` hashes with argon2id. It still verifies bcrypt hashes, and replaces them.
            context: An object of your own that hashes and verifies.
            max_concurrency: Threads at work in one event loop. Without it, the number of cores.

        Raises:
            ConfigurationError: A value is out of bounds, the options exclude each other, or the context cannot hash.
            MissingExtraError: The extra ``argon2`` is not installed.
        """
        if not MIN_ROUNDS <= rounds <= MAX_ROUNDS:
            raise ConfigurationError(f"rounds must be from {MIN_ROUNDS} to {MAX_ROUNDS}")
        if (context is not None) + (scheme != "bcrypt") + (rounds != DEFAULT_ROUNDS) > 1:
            raise ConfigurationError("rounds is the cost of bcrypt, and a context has its own scheme: give one of rounds, scheme, context")
        if max_concurrency is not None and max_concurrency < 1:
            raise ConfigurationError("max_concurrency must be at least 1")
        self._context, self._dummy = prepare_context(rounds, scheme, context)
        self._max_concurrency = max_concurrency or os.cpu_count() or 1
        self._limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, CapacityLimiter] = WeakKeyDictionary()

    @classmethod
    def from_settings(cls, settings: KitSettings) -> Self:
        """Build a hasher from PASSWORD_HASH_ROUNDS, which may be below 10 if ENVIRONMENT is ``test``.

        Raises:
            ConfigurationError: *settings* has no such field.
        """
        check_settings(settings, "PASSWORD_HASH_ROUNDS")
        rounds = settings.PASSWORD_HASH_ROUNDS
        return cls(rounds=rounds) if rounds >= MIN_ROUNDS else cls(context=bcrypt_context(rounds=rounds))

    async def hash(self, password: str | SecretStr) -> str:
        """Return a hash to store.

        Raises:
            UserInputError: The password has more than 4096 characters, or a lone surrogate.
        """
        text = reveal(password)
        if fault := find_fault(text):
            raise password_error([fault])
        try:
            return await self._in_thread(partial(self._context.hash, text))
        except ValueError:
            if "\0" in text:
                raise password_error([INVALID_TEXT]) from None
            raise

    async def verify(self, password: str | SecretStr, hashed: str | None) -> bool:
        """Return whether *password* matches *hashed*.

        If *hashed* is None or malformed, the result is False after the same time. A malformed hash is logged.
        """
        return (await self._compare(password, hashed, update=False)).ok

    async def verify_and_update(self, password: str | SecretStr, hashed: str | None) -> PasswordCheck:
        """Verify as ``verify`` does, and return a new hash if the stored one is outdated."""
        return await self._compare(password, hashed, update=True)

    async def _compare(self, password: str | SecretStr, hashed: str | None, *, update: bool) -> PasswordCheck:
        text = reveal(password)
        if find_fault(text):
            return NO_MATCH
        return await self._in_thread(partial(compare, self._context, text, hashed, dummy=self._dummy, update=update))

    async def _in_thread(self, call: Callable[[], ResultT]) -> ResultT:
        loop, borrower = asyncio.get_running_loop(), object()
        if loop not in self._limiters:
            self._limiters[loop] = CapacityLimiter(self._max_concurrency)
        limiter = self._limiters[loop]
        await limiter.acquire_on_behalf_of(borrower)
        # A thread cannot be stopped. The task of its own keeps its place until the thread ends, even if the caller is cancelled.
        work = asyncio.ensure_future(to_thread.run_sync(call, limiter=CapacityLimiter(1)))
        work.add_done_callback(lambda _: limiter.release_on_behalf_of(borrower))
        return await asyncio.shield(work)


def prepare_context(rounds: int, scheme: str, context: HashContext | None) -> tuple[HashContext, str]:
    """Return the context, and a hash of its default cost that matches no password."""
    if context is None and scheme == "bcrypt":
        return bcrypt_context(rounds=rounds), random_bcrypt_hash(rounds=rounds)
    if context is None and scheme != "argon2":
        raise ConfigurationError("scheme is bcrypt or argon2; for others give a context")
    made = argon2_context() if context is None else context
    try:
        return made, made.hash(secrets.token_urlsafe())
    except ValueError as error:
        raise ConfigurationError("the context cannot hash; if it is passlib's own bcrypt with bcrypt 5, leave context= out") from error


def compare(context: HashContext, secret: str, hashed: str | None, *, dummy: str, update: bool) -> PasswordCheck:
    """Verify in a thread. Without a usable hash, verify against *dummy*, so that it takes the same time."""
    if hashed is not None:
        try:
            if update:
                return PasswordCheck(*context.verify_and_update(secret, hashed))
            return PasswordCheck(ok=matches(context, secret, hashed), new_hash=None)
        except (TypeError, ValueError) as error:
            # The error's text may show the hash. TypeError is raised for a hash that is not a string.
            logger.warning("A stored password hash is malformed or of an unknown scheme (%s): the login fails", type(error).__name__)
    with suppress(ValueError):
        matches(context, secret, dummy)
    return NO_MATCH


def matches(context: HashContext, secret: str, hashed: str) -> bool:
    """Return whether *secret* matches, without a new hash if the context can do that."""
    return context.verify(secret, hashed) if isinstance(context, Verifier) else context.verify_and_update(secret, hashed)[0]
