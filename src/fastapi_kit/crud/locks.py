"""Row locks."""

from dataclasses import dataclass
from typing import Final

__all__ = ["FOR_UPDATE", "RowLock"]


@dataclass(frozen=True, kw_only=True)
class RowLock:
    """A row lock, with the options of SQLAlchemy's ``Select.with_for_update``. SQLite locks the whole database for writing instead.

    Args:
        read: Take a shared lock (``FOR SHARE``).
        nowait: Raise UnavailableError if another transaction holds the lock, instead of waiting.
        skip_locked: Leave out rows that another transaction has locked.
        key_share: Let other transactions insert rows that refer to this one (``FOR NO KEY UPDATE``, with *read* ``FOR KEY SHARE``).
    """

    read: bool = False
    nowait: bool = False
    skip_locked: bool = False
    key_share: bool = False


FOR_UPDATE: Final[RowLock] = RowLock()
"""The lock of a plain ``FOR UPDATE``."""
