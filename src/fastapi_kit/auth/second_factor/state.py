"""What is stored of a second factor, and where."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["Cipher", "FactorState", "FactorStore"]

UserT_contra = TypeVar("UserT_contra", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class FactorState:
    """What is stored of the second factor of one user. The default is that of a user without one."""

    secret: bytes | None = field(default=None, repr=False)
    """The encrypted secret of the authenticator app."""
    last_step: int | None = None
    """The step of the last code that was used. None until the first code has confirmed that the app has the secret."""
    recovery_hashes: Sequence[str] = field(default=(), repr=False)
    """Of the recovery codes that are not used."""

    @property
    def is_enabled(self) -> bool:
        """Whether a login needs a code."""
        return self.secret is not None and self.last_step is not None


class FactorStore(Protocol[UserT_contra]):
    """Keeps the second factors of your users: ``SQLFactorStore``, or a class of your own."""

    async def read(self, session: AsyncSession, user: UserT_contra, /) -> FactorState:
        """Return what is stored now, not what was loaded with *user*."""
        ...

    async def replace(self, session: AsyncSession, user: UserT_contra, new: FactorState, /, *, old: FactorState) -> bool:
        """Store *new* if *old* is stored, and return whether it was. It must be atomic: it decides which of several requests wins."""
        ...


class Cipher(Protocol):
    """Encrypts the secrets: ``cryptography.fernet.Fernet`` and ``MultiFernet`` fit."""

    def encrypt(self, data: bytes, /) -> bytes:
        """Return *data*, encrypted and authenticated."""
        ...

    def decrypt(self, token: bytes, /) -> bytes:
        """Return what was encrypted. Raises an exception for anything else."""
        ...
