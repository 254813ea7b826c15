"""Signing keys, each bound to one algorithm."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from pydantic import SecretStr
from typing_extensions import TypedDict

from fastapi_kit.auth.tokens._compact import Compact, JsonObject, read_object
from fastapi_kit.auth.tokens._jose import Algorithm, PreparedKey, prepare_key
from fastapi_kit.auth.tokens._weak_secrets import MIN_SECRET_BYTES, check_secret
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

__all__ = ["Algorithm", "JWKSet", "Key", "Keyring", "check_algorithm", "read_payload"]

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
MAX_KID_LENGTH = 128


class JWKSet(TypedDict):
    """A JWKS document (RFC 7517): public keys only."""

    keys: list[Mapping[str, str]]


@dataclass(frozen=True)
class Key:
    """One key for one algorithm, checked when it is made. Its repr hides the material.

    Args:
        material: For HS256, HS384 and HS512 a random secret of at least 32, 48 and 64 bytes. For the other algorithms a PEM that is not
            encrypted: RSA of 2048 bits or more for RS* and PS*, P-256, P-384 and P-521 for ES256, ES384 and ES512, Ed25519 for EdDSA.
            With a public PEM the key only verifies.
        algorithm: The one algorithm of the key. It is never taken from a token.
        kid: The name of the key in the headers of tokens and in the JWKS document.

    Raises:
        ConfigurationError: The key is weak or well known, or does not fit *algorithm*.
        TypeError: An argument has another type.
    """

    material: str | bytes | SecretStr = field(repr=False)
    algorithm: Algorithm
    kid: str | None = None
    _prepared: PreparedKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_algorithm(self.algorithm)
        check_kid(self.kid)
        raw = raw_material(self.material)
        if self.algorithm in MIN_SECRET_BYTES:
            check_secret(raw, self.algorithm)
        object.__setattr__(self, "_prepared", prepare_key(raw, self.algorithm))

    @property
    def can_sign(self) -> bool:
        """Whether the key is a secret or a private key."""
        return self._prepared.signer is not None

    def sign(self, message: bytes) -> bytes:
        """Return the signature of *message*. Raises ConfigurationError if the key is public."""
        if self._prepared.signer is None:
            raise ConfigurationError("the key is public and can only verify: give the private key, and put it first, to sign tokens")
        return self._prepared.signer.sign(message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether *signature* is the signature of *message* by this key. Never raises."""
        return self._prepared.verifier.verify(message, signature)

    def public_jwk(self) -> Mapping[str, str] | None:
        """Return the public key as a JWK (RFC 7517), or None for a secret."""
        jwk = self._prepared.public_jwk
        if jwk is None:
            return None
        return {**jwk, "use": "sig"} if self.kid is None else {**jwk, "use": "sig", "kid": self.kid}


class Keyring:
    """The first key signs, and every key verifies.

    To change the key, put the new one first, and remove the old one when its tokens have expired. With a single key without a *kid*, every
    token is verified with that key. If a key has a *kid*, a token must name its key.
    """

    keys: Sequence[Key]

    def __init__(self, *keys: Key) -> None:
        """Take the keys in order.

        Raises:
            ConfigurationError: There is no key, or one of several keys has no *kid*, or two keys have the same *kid*, or one key is given
                with two algorithms, or the first key is public and another is not.
            TypeError: An argument is not a ``Key``.
        """
        check_keys(keys)
        self.keys = keys
        self._by_kid = {key.kid: key for key in keys}

    def __repr__(self) -> str:
        return f"Keyring({', '.join(map(repr, self.keys))})"

    def find(self, kid: str | None) -> Key | None:
        """Return the key that verifies a token with *kid* in its header, or None."""
        if None in self._by_kid:
            return self.keys[0]
        return None if kid is None else self._by_kid.get(kid)

    def jwks(self) -> JWKSet:
        """Return the public keys as a JWKS document. It never contains a secret."""
        return {"keys": [jwk for key in self.keys if (jwk := key.public_jwk()) is not None]}


def read_payload(parts: Compact, key: Key | None) -> JsonObject:
    """Return the payload of a token that *key* has signed, with the algorithm of the key. Raises InvalidTokenError."""
    if key is None:
        raise InvalidTokenError("kid is missing or unknown")
    if parts.header.get("alg") != key.algorithm:
        raise InvalidTokenError("another algorithm than the key's")
    if not key.verify(parts.signing_input, parts.signature):
        raise InvalidTokenError("the signature does not match")
    return read_object(parts.payload, part="payload")


def check_algorithm(name: object) -> Algorithm:
    """Return the algorithm with this *name*. Raises ConfigurationError for an unknown one, TypeError for another type."""
    if not isinstance(name, str):
        raise TypeError("algorithm must be one name such as 'HS256': a key is bound to one algorithm")
    for algorithm in ALGORITHMS:
        if algorithm == name:
            return algorithm
    # The name stays out of the message: if the arguments are swapped, it is the secret.
    raise ConfigurationError(f"the algorithm is unknown or unsafe: use one of {', '.join(ALGORITHMS)}")


def check_kid(kid: object) -> None:
    """Raise ConfigurationError or TypeError unless *kid* is None or a short printable string."""
    if kid is None:
        return
    if not isinstance(kid, str):
        raise TypeError("kid must be a str")
    if not (kid.isascii() and kid.isprintable() and 0 < len(kid) <= MAX_KID_LENGTH):
        raise ConfigurationError(f"kid must be 1 to {MAX_KID_LENGTH} printable ASCII characters")


def check_keys(keys: Sequence[object]) -> None:
    """Raise ConfigurationError or TypeError unless *keys* make a keyring."""
    ring = [key for key in keys if isinstance(key, Key)]
    if len(ring) < len(keys):
        raise TypeError("a keyring takes objects of Key")
    if not ring:
        raise ConfigurationError("a keyring needs a key")
    kids = [key.kid for key in ring]
    if len(ring) > 1 and None in kids:
        raise ConfigurationError("each key of a keyring with several needs a kid of its own")
    if len(set(kids)) < len(kids):
        raise ConfigurationError("two keys have the same kid: give each its own")
    algorithms: dict[bytes, Algorithm] = {}
    for key in ring:
        if algorithms.setdefault(identity_of(key), key.algorithm) != key.algorithm:
            raise ConfigurationError("one key is given with two algorithms: make a key for each")
    if not ring[0].can_sign and any(key.can_sign for key in ring):
        raise ConfigurationError("the first key signs, and it is public: put the private key first")


def identity_of(key: Key) -> bytes:
    """Return what two keys with the same secret or public key have in common, whatever their algorithms and spelling."""
    jwk = key.public_jwk()
    if jwk is None:
        return raw_material(key.material)
    return json.dumps({name: value for name, value in jwk.items() if name not in {"alg", "kid", "use"}}, sort_keys=True).encode()


def raw_material(material: object) -> bytes:
    """Return the bytes of a key's material."""
    if isinstance(material, SecretStr):
        material = material.get_secret_value()
    if isinstance(material, bytes):
        return material
    if not isinstance(material, str):
        raise TypeError("the key must be str, bytes or SecretStr")
    try:
        return material.encode()
    except UnicodeEncodeError:
        raise ConfigurationError("the key has characters that cannot be encoded: give it as bytes") from None
