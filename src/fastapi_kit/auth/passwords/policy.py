"""Which new passwords are good enough."""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass

from pydantic import SecretStr

from fastapi_kit._text import is_encodable
from fastapi_kit.auth.passwords._guessable import is_common, is_similar
from fastapi_kit.errors import ConfigurationError, FieldError, UserInputError

__all__ = ["INVALID_TEXT", "PasswordPolicy", "find_fault", "password_error", "reveal"]

MAX_CHARACTERS = 4096
"""The longest password that is hashed. passlib has the same limit."""

logger = logging.getLogger("fastapi_kit.auth.passwords")


@dataclass(frozen=True, kw_only=True)
class PasswordPolicy:
    """Rules for new passwords: length, not common, not similar to other details of the user, not breached.

    There are no rules about capitals, digits and signs.

    Args:
        min_length: In characters, at least 8. 15 is better.
        max_length: In characters, from 64 to 4096.
        reject_common: Reject the 5,000 most used passwords of 8 characters and more, repetitions, and keys in a row.
        is_breached: Called last, with a password that passed every other rule. If it raises, a warning is logged and the password passes.

    Raises:
        ConfigurationError: A length is out of bounds.
    """

    min_length: int = 8
    max_length: int = 128
    reject_common: bool = True
    is_breached: Callable[[str], Awaitable[bool]] | None = None

    def __post_init__(self) -> None:
        if self.min_length < 8 or self.max_length < max(self.min_length, 64) or self.max_length > MAX_CHARACTERS:
            raise ConfigurationError(f"min_length must be at least 8, max_length from 64 to {MAX_CHARACTERS} and not below min_length")

    async def check(self, password: str | SecretStr, *, similar_to: Collection[str] = ()) -> None:
        """Check a new password against every rule.

        Args:
            password: The new password.
            similar_to: What others know of the user: ``[user.email, user.name]``.

        Raises:
            UserInputError: Names every reason, at ``("body", "password")``. The codes are ``invalid_text``, ``too_short``, ``too_long``,
                ``too_common``, ``too_similar`` and ``breached``.
        """
        if isinstance(similar_to, str):
            raise ConfigurationError("similar_to is a collection of strings: put the string into brackets")
        text = reveal(password)
        if reasons := list(self.reasons_against(text, similar_to)):
            raise password_error(reasons)
        if self.is_breached is None:
            return
        try:
            is_breached = await self.is_breached(text)
        except Exception as error:
            # Another service's failure must not keep people from registering.
            logger.warning("The breach check failed (%s): the password is accepted without it", type(error).__name__)
            return
        if is_breached:
            raise password_error([reason("breached", "is known from a data breach")])

    def reasons_against(self, text: str, similar_to: Collection[str]) -> Iterator[FieldError]:
        """Yield a reason for each rule that *text* breaks. Does not call ``is_breached``."""
        if fault := find_fault(text, max_length=self.max_length):
            yield fault
            return
        if len(text) < self.min_length:
            yield reason("too_short", f"must have at least {self.min_length} characters")
        if self.reject_common and is_common(text):
            yield reason("too_common", "is too common, or too simple a pattern")
        if is_similar(text, similar_to):
            yield reason("too_similar", "is too much like your other details")


def reveal(password: str | SecretStr) -> str:
    """Return the password as a str."""
    return password.get_secret_value() if isinstance(password, SecretStr) else password


def find_fault(text: str, *, max_length: int = MAX_CHARACTERS) -> FieldError | None:
    """Return why *text* cannot be hashed, or None."""
    if len(text) > max_length:
        return reason("too_long", f"must have at most {max_length} characters")
    return None if is_encodable(text) else INVALID_TEXT


def reason(code: str, message: str) -> FieldError:
    """Return a reason against the password of a request's body."""
    return FieldError(("body", "password"), code, message)


def password_error(reasons: Collection[FieldError]) -> UserInputError:
    """Return the error for all *reasons*."""
    return UserInputError("the password " + "; it ".join(each.message for each in reasons), errors=tuple(reasons))


INVALID_TEXT = reason("invalid_text", "has characters that cannot be used")
