"""What a store of API keys keeps, and what it must be able to do."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

__all__ = ["APIKeyInfo", "APIKeyRecord", "APIKeyStore"]


@dataclass(frozen=True, kw_only=True)
class APIKeyInfo:
    """One API key of a user, without the key."""

    id: str
    """The id is a part of the key. It gives no access."""
    subject: str
    name: str
    hint: str
    """The prefix and the last four characters, by which users recognise a key."""
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    """None for a key that is valid until it is revoked."""
    last_used_at: datetime | None
    """When the key was last used, to about a minute; None if it never was."""


@dataclass(frozen=True, kw_only=True)
class APIKeyRecord(APIKeyInfo):
    """One API key as it is stored. The repr hides the hash."""

    secret_hash: bytes = field(repr=False)
    """The SHA-256 of the secret part of the key, which is random."""


class APIKeyStore(Protocol):
    """Keeps the keys of ``APIKeys``. Each method is atomic and stores what it does before it returns.

    All methods raise UnavailableError if the store does not answer.
    """

    async def add(self, key: APIKeyRecord, /) -> None:
        """Store a new key."""
        ...

    async def find(self, id: str, /) -> APIKeyRecord | None:
        """Return the key, or None if it was revoked."""
        ...

    async def list(self, subject: str, /) -> Sequence[APIKeyRecord]:
        """Return the keys of *subject*, in any order. Some may have expired."""
        ...

    async def touch(self, id: str, /, *, at: datetime) -> None:
        """Store when the key was used, unless a later time is stored. A key that was revoked stays revoked."""
        ...

    async def remove(self, subject: str, id: str, /) -> bool:
        """Remove the key *id* of *subject*. Return False if there is none, or if it is the key of another subject.

        Of many calls at once for one key, one returns True.
        """
        ...

    async def remove_all(self, subject: str, /) -> None:
        """Remove all keys of *subject*."""
        ...
