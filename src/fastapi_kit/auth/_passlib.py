"""The only importer of passlib and bcrypt: what they do wrong together is put right here.

passlib's own bcrypt handler fails with bcrypt 5, logs a traceback with bcrypt 4, and lets bcrypt cut passwords after 72 bytes. The two
handlers below read and write the same formats without it. Whatever is wrong with a stored hash is a ValueError without the hash in it.
"""

import base64
import copy
import hmac
import re
import secrets
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from typing import ClassVar, Self

import bcrypt

from fastapi_kit.errors import MissingExtraError


@contextmanager
def _without_their_warnings() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crypt' is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "Accessing argon2.__version__ is deprecated", DeprecationWarning)
        yield


with _without_their_warnings():
    from passlib.context import CryptContext

__all__ = ["CryptContext", "argon2_context", "bcrypt_context", "random_bcrypt_hash"]

_MOST_BYTES = 72
"""What bcrypt reads of a password."""
_LEAST_ROUNDS, _MOST_ROUNDS = 4, 31
_ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$([./A-Za-z0-9]{22})([./A-Za-z0-9]{31})")
_BCRYPT_SHA256 = re.compile(
    r"\$bcrypt-sha256\$(?:v=2,t=2b,r=(?P<rounds>[0-9]{1,2})|2[ab],(?P<rounds_v1>[0-9]{1,2}))"
    r"\$(?P<salt>[./A-Za-z0-9]{22})\$(?P<digest>[./A-Za-z0-9]{31})"
)


def bcrypt_context(*, rounds: int) -> CryptContext:
    """Return a context that hashes with bcrypt of *rounds* (4 to 31) and upgrades from any other cost.

    Costs below 10 are for tests: ``PasswordHasher(context=bcrypt_context(rounds=4))``.
    """
    return CryptContext(schemes=[Bcrypt(rounds), BcryptSha256(rounds)])


def argon2_context() -> CryptContext:
    """Return a context that hashes with argon2id, verifies bcrypt too and upgrades from it. Raises MissingExtraError."""
    if find_spec("argon2") is None:
        raise MissingExtraError("argon2")
    with _without_their_warnings():
        context = CryptContext(
            schemes=["argon2", Bcrypt(), BcryptSha256()],
            deprecated=[Bcrypt.name, BcryptSha256.name],
        )
        # The first use loads the backend, which warns.
        context.hash("")
    return context


def random_bcrypt_hash(*, rounds: int) -> str:
    """Return a well-formed hash that no password is known to fit, without the work of hashing one."""
    return f"$2b${rounds:02d}${_random_text(22)}{_random_text(31)}"


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


@dataclass(frozen=True)
class _Stored:
    """A hash of either format, taken apart."""

    rounds: int
    salt: str
    digest: str
    is_current: bool = True
    """Whether today's code would have written it in this form."""

    def __post_init__(self) -> None:
        if not _LEAST_ROUNDS <= self.rounds <= _MOST_ROUNDS:
            raise ValueError("the cost of the stored hash is out of range")

    @property
    def is_tidy(self) -> bool:
        """Whether the unused bits of both last characters are 0, as they should be: some other implementations leave them set."""
        return self.salt == _tidy(self.salt, unused_bits=4) and self.digest == _tidy(self.digest, unused_bits=2)

    def fits(self, key: bytes) -> bool:
        """Return whether *key*, at most 72 bytes without NUL, gives this digest."""
        found = _digest(key, rounds=self.rounds, salt=_tidy(self.salt, unused_bits=4))
        return hmac.compare_digest(found, _tidy(self.digest, unused_bits=2))


class _Handler:
    """What a CryptContext needs of a handler, an instance being as good as a class. The context sets ``deprecated``."""

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    setting_kwds: ClassVar[tuple[str, ...]] = ()
    context_kwds: ClassVar[tuple[str, ...]] = ()
    is_disabled: ClassVar[bool] = False
    deprecated: bool = False

    def __init__(self, rounds: int = 12) -> None:
        self.rounds = rounds

    def using(self, *, relaxed: bool = False) -> Self:
        """Return the context's own copy; *relaxed* is passlib's and means nothing where there are no settings."""
        return copy.copy(self)

    def identify(self, hash: str | bytes) -> bool:
        """Return whether *hash* claims to be of this format."""
        return _text(hash).startswith(self.prefixes)


class Bcrypt(_Handler):
    """``$2a$``, ``$2b$`` and ``$2y$``, which differ in the bugs of programs long gone. Writes ``$2b$``.

    A password that bcrypt would cut, or that contains NUL, is hashed as BcryptSha256. A stored hash of a cut password fits whatever
    begins alike, as it always did, and is then due for an update.
    """

    name = "bcrypt"
    prefixes = ("$2a$", "$2b$", "$2y$")

    def hash(self, secret: str) -> str:
        """Return a new hash."""
        key = secret.encode()
        if not _is_whole(key):
            return BcryptSha256(self.rounds).hash(secret)
        return bcrypt.hashpw(key, bcrypt.gensalt(self.rounds)).decode()

    def verify(self, secret: str, hash: str | bytes) -> bool:
        """Return whether *secret* fits. NUL never does: there bcrypt would end."""
        key = secret.encode()
        return self._parse(hash).fits(key.replace(b"\0", b" ")[:_MOST_BYTES]) and b"\0" not in key

    def needs_update(self, hash: str | bytes, secret: str) -> bool:
        """Return whether today's hash of *secret* would be of another kind."""
        stored = self._parse(hash)
        return stored.rounds != self.rounds or not stored.is_tidy or not _is_whole(secret.encode())

    @staticmethod
    def _parse(hash: str | bytes) -> _Stored:
        parts = _match(_BCRYPT, hash)
        return _Stored(int(parts[1]), parts[2], parts[3])


class BcryptSha256(_Handler):
    """passlib's ``$bcrypt-sha256$``: bcrypt of a password's HMAC, so of any length.

    Version 1, of a plain SHA-256, is read and then due for an update.
    """

    name = "bcrypt_sha256"
    prefixes = ("$bcrypt-sha256$",)

    def hash(self, secret: str) -> str:
        """Return a new hash."""
        salt = bcrypt.gensalt(self.rounds)[-22:].decode()
        digest = _digest(_shorten(secret, salt), rounds=self.rounds, salt=salt)
        return f"$bcrypt-sha256$v=2,t=2b,r={self.rounds}${salt}${digest}"

    def verify(self, secret: str, hash: str | bytes) -> bool:
        """Return whether *secret* fits."""
        stored = self._parse(hash)
        return stored.fits(_shorten(secret, stored.salt if stored.is_current else None))

    def needs_update(self, hash: str | bytes, secret: str) -> bool:
        """Return whether its version or cost is not today's."""
        stored = self._parse(hash)
        return stored.rounds != self.rounds or not stored.is_current

    @staticmethod
    def _parse(hash: str | bytes) -> _Stored:
        parts = _match(_BCRYPT_SHA256, hash)
        is_current = parts["rounds"] is not None
        return _Stored(int(parts["rounds"] if is_current else parts["rounds_v1"]), parts["salt"], parts["digest"], is_current)


def _is_whole(key: bytes) -> bool:
    return len(key) <= _MOST_BYTES and b"\0" not in key


def _shorten(secret: str, salt: str | None) -> bytes:
    key = secret.encode()
    digest = sha256(key).digest() if salt is None else hmac.digest(salt.encode(), key, "sha256")
    return base64.b64encode(digest)


def _digest(key: bytes, *, rounds: int, salt: str) -> str:
    return bcrypt.hashpw(key, f"$2b${rounds:02d}${salt}".encode())[-31:].decode()


def _tidy(text: str, *, unused_bits: int) -> str:
    last = _ALPHABET.index(text[-1])
    return text[:-1] + _ALPHABET[last >> unused_bits << unused_bits]


def _match(pattern: re.Pattern[str], hash: str | bytes) -> re.Match[str]:
    found = pattern.fullmatch(_text(hash))
    if found is None:
        raise ValueError("the stored hash is malformed")
    return found


def _text(hash: str | bytes) -> str:
    return hash.decode("ascii", "replace") if isinstance(hash, bytes) else hash
