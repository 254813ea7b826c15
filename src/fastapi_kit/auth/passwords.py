"""Passwords, hashed off the event loop."""

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol, Self, TypeVar, runtime_checkable
from weakref import WeakKeyDictionary

from anyio import CapacityLimiter, to_thread
from pydantic import SecretStr

from fastapi_kit._text import is_encodable
from fastapi_kit.auth._guessable import is_common, is_similar
from fastapi_kit.auth._passlib import argon2_context, bcrypt_context, random_bcrypt_hash
from fastapi_kit.errors import ConfigurationError, FieldError, UserInputError
from fastapi_kit.settings import KitSettings

__all__ = ["HashContext", "PasswordCheck", "PasswordHasher", "PasswordPolicy"]

T = TypeVar("T")

_ROUNDS = 12
_FEWEST_ROUNDS, _MOST_ROUNDS = 10, 31
_MOST_CHARACTERS = 4096
"""What is hashed at most, and what passlib takes."""
_log = logging.getLogger("fastapi_kit.auth.passwords")


class HashContext(Protocol):
    """What does the hashing: passlib's ``CryptContext`` fits. It is called in several threads at once."""

    def hash(self, secret: str, /) -> str:
        """Return a new hash."""
        ...

    def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
        """Return whether it fits, and a better hash if the stored one is old. A ValueError is a password that does not fit."""
        ...


@runtime_checkable
class _Verifies(Protocol):
    def verify(self, secret: str, hash: str, /) -> bool: ...


class PasswordCheck(NamedTuple):
    """Whether the password fits, and the hash to store instead if the old one is outdated."""

    ok: bool
    new_hash: str | None


class PasswordHasher:
    """Hash and verify in a bounded pool of threads. bcrypt (cost 12) by default; longer than 72 bytes is pre-hashed, never cut.

    Make one at import and use it everywhere, in any event loop. Nothing that it raises or logs shows a password or a hash.
    """

    def __init__(
        self,
        *,
        rounds: int = _ROUNDS,
        scheme: Literal["bcrypt", "argon2"] = "bcrypt",
        context: HashContext | None = None,
        max_concurrency: int | None = None,
    ) -> None:
        """Use *context* if given, else bcrypt with *rounds* (10 to 31), or argon2id, which still verifies bcrypt and upgrades it.

        *max_concurrency*: threads at work in one event loop, default the number of cores. Raises ConfigurationError on values out of
        bounds, on options that exclude each other and on a context that cannot hash; MissingExtraError without the extra ``argon2``.
        """
        if not _FEWEST_ROUNDS <= rounds <= _MOST_ROUNDS:
            raise ConfigurationError(f"rounds must be from {_FEWEST_ROUNDS} to {_MOST_ROUNDS}")
        if (context is not None) + (scheme != "bcrypt") + (rounds != _ROUNDS) > 1:
            raise ConfigurationError(
                "rounds is the cost of bcrypt, and a context has a scheme of its own: give one of rounds, scheme, context"
            )
        if max_concurrency is not None and max_concurrency < 1:
            raise ConfigurationError("max_concurrency must be at least 1")
        self._context, self._dummy = _prepare(rounds, scheme, context)
        self._max_concurrency = max_concurrency or os.cpu_count() or 1
        self._limiters: WeakKeyDictionary[asyncio.AbstractEventLoop, CapacityLimiter] = WeakKeyDictionary()

    @classmethod
    def from_settings(cls, settings: KitSettings) -> Self:
        """Build it from PASSWORD_HASH_ROUNDS, which may be below 10 where ENVIRONMENT is ``test``."""
        rounds = settings.PASSWORD_HASH_ROUNDS
        return cls(rounds=rounds) if rounds >= _FEWEST_ROUNDS else cls(context=bcrypt_context(rounds=rounds))

    async def hash(self, password: str | SecretStr) -> str:
        """Return a hash to store. Raises UserInputError for lone surrogates and for more than 4096 characters."""
        text = _reveal(password)
        if fault := _unusable(text):
            raise _refusal([fault])
        try:
            return await self._in_thread(partial(self._context.hash, text))
        except ValueError:
            if "\0" in text:
                raise _refusal([_INVALID_TEXT]) from None
            raise

    async def verify(self, password: str | SecretStr, hashed: str | None) -> bool:
        """Return whether *password* fits. None or a malformed *hashed* costs as much time and is False; the latter is logged."""
        return await self._check(self._verify, password, hashed, failed=False)

    async def verify_and_update(self, password: str | SecretStr, hashed: str | None) -> PasswordCheck:
        """Verify, and say whether the stored hash should be replaced."""
        return await self._check(self._update, password, hashed, failed=PasswordCheck(ok=False, new_hash=None))

    def _verify(self, secret: str, hashed: str) -> bool:
        if isinstance(self._context, _Verifies):
            # Saves the new hash that nobody asked for.
            return self._context.verify(secret, hashed)
        return self._context.verify_and_update(secret, hashed)[0]

    def _update(self, secret: str, hashed: str) -> PasswordCheck:
        return PasswordCheck(*self._context.verify_and_update(secret, hashed))

    async def _check(self, check: Callable[[str, str], T], password: str | SecretStr, hashed: str | None, *, failed: T) -> T:
        text = _reveal(password)
        if _unusable(text):
            return failed
        return await self._in_thread(partial(self._check_or_pretend, check, text, hashed, failed))

    def _check_or_pretend(self, check: Callable[[str, str], T], secret: str, hashed: str | None, failed: T) -> T:
        if hashed is not None:
            try:
                return check(secret, hashed)
            except (TypeError, ValueError) as error:
                # Its text may show the hash. A TypeError is for a hash that is no text.
                _log.warning("A stored password hash is malformed or of an unknown scheme (%s): the login fails", type(error).__name__)
        with suppress(ValueError):
            self._verify(secret, self._dummy)
        return failed

    async def _in_thread(self, call: Callable[[], T]) -> T:
        limiter, borrower = self._limiter(), object()
        await limiter.acquire_on_behalf_of(borrower)
        # A task of its own: a thread cannot be stopped, so whoever is cancelled meanwhile leaves its place taken until it ends.
        work = asyncio.ensure_future(to_thread.run_sync(call, limiter=CapacityLimiter(1)))
        work.add_done_callback(lambda _: limiter.release_on_behalf_of(borrower))
        return await asyncio.shield(work)

    def _limiter(self) -> CapacityLimiter:
        loop = asyncio.get_running_loop()
        if loop not in self._limiters:
            self._limiters[loop] = CapacityLimiter(self._max_concurrency)
        return self._limiters[loop]


def _prepare(rounds: int, scheme: str, context: HashContext | None) -> tuple[HashContext, str]:
    """Return the context, and a hash of its default cost that no password fits."""
    if context is None and scheme == "bcrypt":
        return bcrypt_context(rounds=rounds), random_bcrypt_hash(rounds=rounds)
    if context is None and scheme != "argon2":
        raise ConfigurationError("scheme is bcrypt or argon2; others go into a context")
    made = argon2_context() if context is None else context
    try:
        return made, made.hash(secrets.token_urlsafe())
    except ValueError as error:
        raise ConfigurationError("the context cannot hash; if it is passlib's own bcrypt with bcrypt 5, leave context= out") from error


@dataclass(frozen=True, kw_only=True)
class PasswordPolicy:
    """Which new passwords are good enough: length, not common, not like *similar_to*, not breached. No composition rules.

    Lengths are in characters. *min_length* is at least 8 (15 is better), *max_length* from 64 to 4096; else ConfigurationError.
    *reject_common* refuses the 5,000 most used passwords of 8 characters and more, repetitions and keys in a row. *is_breached* is asked
    last, with a password that passed all else; if it raises, a warning is logged and the password passes.
    """

    min_length: int = 8
    max_length: int = 128
    reject_common: bool = True
    is_breached: Callable[[str], Awaitable[bool]] | None = None

    def __post_init__(self) -> None:
        if self.min_length < 8 or self.max_length < max(self.min_length, 64) or self.max_length > _MOST_CHARACTERS:
            raise ConfigurationError(f"min_length must be at least 8, max_length from 64 to {_MOST_CHARACTERS} and not below min_length")

    async def check(self, password: str | SecretStr, *, similar_to: Collection[str] = ()) -> None:
        """Raise UserInputError, naming every reason, if *password* is not good enough.

        *similar_to*: what others know of its owner, as ``[user.email, user.name]``. The codes of the reasons are ``invalid_text``,
        ``too_short``, ``too_long``, ``too_common``, ``too_similar`` and ``breached``, their place ``("body", "password")``.
        """
        if isinstance(similar_to, str):
            raise ConfigurationError("similar_to is a list of texts: put the text into brackets")
        text = _reveal(password)
        if reasons := list(self._reasons(text, similar_to)):
            raise _refusal(reasons)
        if await self._is_known_breached(text):
            raise _refusal([_BREACHED])

    def _reasons(self, text: str, similar_to: Collection[str]) -> Iterator[FieldError]:
        if fault := _unusable(text, most=self.max_length):
            yield fault
            return
        if len(text) < self.min_length:
            yield _reason("too_short", f"must have at least {self.min_length} characters")
        if self.reject_common and is_common(text):
            yield _reason("too_common", "is too common, or too simple a pattern")
        if is_similar(text, similar_to):
            yield _reason("too_similar", "is too much like your other details")

    async def _is_known_breached(self, text: str) -> bool:
        if self.is_breached is None:
            return False
        try:
            return bool(await self.is_breached(text))
        except Exception as error:
            # Whatever somebody else's service does, people must be able to register.
            _log.warning("The breach check failed (%s): the password is accepted without it", type(error).__name__)
            return False


def _reveal(password: str | SecretStr) -> str:
    return password.get_secret_value() if isinstance(password, SecretStr) else password


def _unusable(text: str, *, most: int = _MOST_CHARACTERS) -> FieldError | None:
    if len(text) > most:
        return _reason("too_long", f"must have at most {most} characters")
    return None if is_encodable(text) else _INVALID_TEXT


def _reason(code: str, message: str) -> FieldError:
    return FieldError(("body", "password"), code, message)


def _refusal(reasons: Collection[FieldError]) -> UserInputError:
    return UserInputError("the password " + "; it ".join(reason.message for reason in reasons), errors=tuple(reasons))


_INVALID_TEXT = _reason("invalid_text", "has characters that cannot be used")
_BREACHED = _reason("breached", "is known from a data breach")
