"""API keys in the memory of this process."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from fastapi_kit.auth.api_keys.store import APIKeyRecord

__all__ = ["MemoryAPIKeyStore"]


class MemoryAPIKeyStore:
    """An ``APIKeyStore`` for tests and for applications of one process. Its keys end with the process."""

    def __init__(self) -> None:
        self._keys: dict[str, APIKeyRecord] = {}

    # Without an await inside, each method is atomic.

    async def add(self, key: APIKeyRecord, /) -> None:
        """Store a new key."""
        self._keys[key.id] = key

    async def find(self, id: str, /) -> APIKeyRecord | None:
        """Return the key, or None if it was revoked."""
        return self._keys.get(id)

    async def list(self, subject: str, /) -> Sequence[APIKeyRecord]:
        """Return the keys of *subject*."""
        return [key for key in self._keys.values() if key.subject == subject]

    async def touch(self, id: str, /, *, at: datetime) -> None:
        """Store when the key was used, unless a later time is stored."""
        key = self._keys.get(id)
        if key is not None and (key.last_used_at is None or key.last_used_at < at):
            self._keys[id] = replace(key, last_used_at=at)

    async def remove(self, subject: str, id: str, /) -> bool:
        """Remove the key *id* of *subject*, and return whether there was one."""
        key = self._keys.get(id)
        if key is None or key.subject != subject:
            return False
        del self._keys[id]
        return True

    async def remove_all(self, subject: str, /) -> None:
        """Remove all keys of *subject*."""
        self._keys = {id: key for id, key in self._keys.items() if key.subject != subject}
