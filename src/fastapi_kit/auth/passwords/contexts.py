"""The only importer of passlib and bcrypt. It works around their faults.

passlib's own bcrypt handler fails with bcrypt 5, logs a traceback with bcrypt 4, and lets bcrypt cut passwords after 72 bytes. The two
handlers below read and write the same formats without it. For a malformed hash they raise ValueError, without the hash in the text.
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
def without_warnings() -> Generator[None]:
    """Ignore what passlib 1.7.4 warns about on newer versions of Python and argon2-cffi."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crypt' is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "Accessing argon2.__version__ is deprecated", DeprecationWarning)
        yield


with without_warnings():
    from passlib.context import CryptContext

__all__ = ["CryptContext", "argon2_context", "bcrypt_context", "random_bcrypt_hash"]

MAX_BYTES = 72
"""What bcrypt reads of a password."""
MIN_ROUNDS, MAX_ROUNDS = 4, 31
ALPHABET = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$([./A-Za-z0-9]{22})([./A-Za-z0-9]{31})")
BCRYPT_SHA256 = re.compile(
    r"\$bcrypt-sha256\$(?:v=2,t=2b,r=(?P<rounds>[0-9]{1,2})|2[ab],(?P<rounds_v1>[0-9]{1,2}))"
    r"\$(?P<salt>[./A-Za-z0-9]{22})\$(?P<digest>[./A-Za-z0-9]{31})"
)


def bcrypt_context(*, rounds: int) -> CryptContext:
    """Return a context that hashes with bcrypt and replaces hashes of another cost.

    Args:
        rounds: The cost, 4 to 31. Costs below 10 are for tests: ``PasswordHasher(context=bcrypt_context(rounds=4))``.
    """
    return CryptContext(schemes=[Bcrypt(rounds), BcryptSha256(rounds)])


def argon2_context() -> CryptContext:
    """Return a context that hashes with argon2id, and verifies and replaces bcrypt hashes. Raises MissingExtraError."""
    if find_spec("argon2") is None:
        raise MissingExtraError("argon2")
    with without_warnings():
        context = CryptContext(schemes=["argon2", Bcrypt(), BcryptSha256()], deprecated=[Bcrypt.name, BcryptSha256.name])
        context.hash("")  # the first use loads the backend, which warns
    return context


def random_bcrypt_hash(*, rounds: int) -> str:
    """Return a well-formed hash of an unknown password, without hashing one."""
    return f"$2b${rounds:02d}$" + "".join(secrets.choice(ALPHABET) for _ in range(22 + 31))


@dataclass(frozen=True)
class StoredHash:
    """The parts of a hash of either format."""

    rounds: int
    salt: str
    digest: str
    is_current: bool = True
    """Whether it has the form that is written today."""

    def __post_init__(self) -> None:
        if not MIN_ROUNDS <= self.rounds <= MAX_ROUNDS:
            raise ValueError("the cost of the stored hash is out of range")

    @property
    def is_tidy(self) -> bool:
        """Whether the unused bits of both last characters are 0. Some other implementations leave them set."""
        return self.salt == tidy(self.salt, unused_bits=4) and self.digest == tidy(self.digest, unused_bits=2)

    def matches(self, key: bytes) -> bool:
        """Return whether *key*, at most 72 bytes without NUL, has this digest."""
        found = bcrypt_digest(key, rounds=self.rounds, salt=tidy(self.salt, unused_bits=4))
        return hmac.compare_digest(found, tidy(self.digest, unused_bits=2))


class Handler:
    """What a CryptContext needs of a handler. An instance does as well as a class. The context sets ``deprecated``."""

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    setting_kwds: ClassVar[tuple[str, ...]] = ()
    context_kwds: ClassVar[tuple[str, ...]] = ()
    is_disabled: ClassVar[bool] = False
    deprecated: bool = False

    def __init__(self, rounds: int = 12) -> None:
        self.rounds = rounds

    def using(self, *, relaxed: bool = False) -> Self:
        """Return a copy for a context. *relaxed* is an argument of passlib and has no effect here."""
        return copy.copy(self)

    def identify(self, hash: str | bytes) -> bool:
        """Return whether *hash* begins as this format does."""
        return as_text(hash).startswith(self.prefixes)


class Bcrypt(Handler):
    """Reads ``$2a$``, ``$2b$`` and ``$2y$``, which mean the same today. Writes ``$2b$``.

    A password that bcrypt would cut, or that contains NUL, is hashed as BcryptSha256. A stored hash of a password that was cut matches
    every password with the same first 72 bytes, and then needs an update.
    """

    name = "bcrypt"
    prefixes = ("$2a$", "$2b$", "$2y$")

    def hash(self, secret: str) -> str:
        """Return a new hash."""
        key = secret.encode()
        if not is_whole(key):
            return BcryptSha256(self.rounds).hash(secret)
        return bcrypt.hashpw(key, bcrypt.gensalt(self.rounds)).decode()

    def verify(self, secret: str, hash: str | bytes) -> bool:
        """Return whether *secret* matches. A password with NUL never does, because bcrypt ends there."""
        key = secret.encode()
        return self.read(hash).matches(key.replace(b"\0", b" ")[:MAX_BYTES]) and b"\0" not in key

    def needs_update(self, hash: str | bytes, secret: str) -> bool:
        """Return whether a new hash of *secret* would have another cost or format."""
        stored = self.read(hash)
        return stored.rounds != self.rounds or not stored.is_tidy or not is_whole(secret.encode())

    @staticmethod
    def read(hash: str | bytes) -> StoredHash:
        """Return the parts of *hash*. Raises ValueError if it is malformed."""
        parts = parse(BCRYPT, hash)
        return StoredHash(int(parts[1]), parts[2], parts[3])


class BcryptSha256(Handler):
    """passlib's ``$bcrypt-sha256$``: bcrypt of the HMAC of a password of any length.

    Hashes of version 1, of a plain SHA-256, are verified and then need an update.
    """

    name = "bcrypt_sha256"
    prefixes = ("$bcrypt-sha256$",)

    def hash(self, secret: str) -> str:
        """Return a new hash."""
        salt = bcrypt.gensalt(self.rounds)[-22:].decode()
        digest = bcrypt_digest(shorten(secret, salt), rounds=self.rounds, salt=salt)
        return f"$bcrypt-sha256$v=2,t=2b,r={self.rounds}${salt}${digest}"

    def verify(self, secret: str, hash: str | bytes) -> bool:
        """Return whether *secret* matches."""
        stored = self.read(hash)
        return stored.matches(shorten(secret, stored.salt if stored.is_current else None))

    def needs_update(self, hash: str | bytes, secret: str) -> bool:
        """Return whether a new hash would have another version or cost."""
        stored = self.read(hash)
        return stored.rounds != self.rounds or not stored.is_current

    @staticmethod
    def read(hash: str | bytes) -> StoredHash:
        """Return the parts of *hash*. Raises ValueError if it is malformed."""
        parts = parse(BCRYPT_SHA256, hash)
        is_current = parts["rounds"] is not None
        return StoredHash(int(parts["rounds"] if is_current else parts["rounds_v1"]), parts["salt"], parts["digest"], is_current)


def is_whole(key: bytes) -> bool:
    """Return whether bcrypt reads all of *key*."""
    return len(key) <= MAX_BYTES and b"\0" not in key


def shorten(secret: str, salt: str | None) -> bytes:
    """Return 44 bytes for a password of any length: of its HMAC, or of its SHA-256 without a *salt*."""
    key = secret.encode()
    digest = sha256(key).digest() if salt is None else hmac.digest(salt.encode(), key, "sha256")
    return base64.b64encode(digest)


def bcrypt_digest(key: bytes, *, rounds: int, salt: str) -> str:
    """Return the last 31 characters of bcrypt's hash."""
    return bcrypt.hashpw(key, f"$2b${rounds:02d}${salt}".encode())[-31:].decode()


def tidy(text: str, *, unused_bits: int) -> str:
    """Return *text* with the unused bits of its last character set to 0."""
    last = ALPHABET.index(text[-1])
    return text[:-1] + ALPHABET[last >> unused_bits << unused_bits]


def parse(pattern: re.Pattern[str], hash: str | bytes) -> re.Match[str]:
    """Return the match of all of *hash*. Raises ValueError."""
    found = pattern.fullmatch(as_text(hash))
    if found is None:
        raise ValueError("the stored hash is malformed")
    return found


def as_text(hash: str | bytes) -> str:
    """Return *hash* as a str."""
    return hash.decode("ascii", "replace") if isinstance(hash, bytes) else hash
