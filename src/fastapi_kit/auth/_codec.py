"""The seam to a cryptographic package: one key, ready to sign and verify bytes. Everything above it is our own."""

from collections.abc import Mapping
from typing import Literal, Protocol, TypeAlias

Algorithm: TypeAlias = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class PreparedKey(Protocol):
    """One key bound to one algorithm."""

    @property
    def can_sign(self) -> bool:
        """Whether the secret half is there."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the signature of *message*. Raises ConfigurationError where the key can only verify."""
        ...

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether *signature* is this key's of *message*. Never raises."""
        ...

    def public_jwk(self) -> Mapping[str, str] | None:
        """Return the public half as a JWK (RFC 7517), None for a secret."""
        ...
