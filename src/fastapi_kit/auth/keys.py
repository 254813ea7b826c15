"""Signing keys, each bound to one algorithm."""

import json
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from pydantic import SecretStr
from typing_extensions import TypedDict

from fastapi_kit._secrets import is_placeholder, repeats
from fastapi_kit.auth._codec import Algorithm, PreparedKey
from fastapi_kit.auth._jose import prepare
from fastapi_kit.errors import ConfigurationError

__all__ = ["Algorithm", "JWKSet", "Key", "Keyring", "algorithm_named"]


class JWKSet(TypedDict):
    """A JWKS document (RFC 7517): public keys only."""

    keys: list[Mapping[str, str]]


@dataclass(frozen=True)
class Key:
    """One key, one algorithm: a secret, or a PEM (a public PEM only verifies). Checked at once; the repr hides it.

    A secret for HS256, HS384, HS512 has at least 32, 48, 64 bytes and is random. The other algorithms take a PEM that is not encrypted: RSA
    of 2048 bits or more for RS* and PS*, P-256, P-384, P-521 for ES256, ES384, ES512, Ed25519 for EdDSA.
    *kid* names the key in the tokens' headers and in the JWKS document.

    Raises ConfigurationError on a key that is weak, known or not one for *algorithm*, TypeError on another type.
    """

    material: str | bytes | SecretStr = field(repr=False)
    algorithm: Algorithm
    kid: str | None = None
    _prepared: PreparedKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        algorithm_named(self.algorithm)
        _check_kid(self.kid)
        raw = _raw(self.material)
        if self.algorithm in _MIN_SECRET_BYTES:
            _check_secret(raw, self.algorithm)
        object.__setattr__(self, "_prepared", prepare(raw, self.algorithm))

    @property
    def can_sign(self) -> bool:
        """Whether it is a secret or a private key."""
        return self._prepared.can_sign

    def sign(self, message: bytes) -> bytes:
        """Return the signature of *message*. Raises ConfigurationError where the key is public."""
        return self._prepared.sign(message)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Return whether *signature* is this key's of *message*."""
        return self._prepared.verify(message, signature)

    def public_jwk(self) -> Mapping[str, str] | None:
        """Return the public half as a JWK (RFC 7517), None for a secret."""
        jwk = self._prepared.public_jwk()
        if jwk is None:
            return None
        return {**jwk, "use": "sig"} if self.kid is None else {**jwk, "use": "sig", "kid": self.kid}


class Keyring:
    """The first key signs, every key verifies: put the new key first, drop the old one when its tokens have expired.

    With one key that has no *kid* every token is checked with that key. As soon as a key has one, a token must name its key.
    """

    keys: Sequence[Key]

    def __init__(self, *keys: Key) -> None:
        """Raises ConfigurationError on no key, and on several that lack a *kid*, share one, or are one key under two algorithms."""
        _check_types(keys)
        _check_together(keys)
        self.keys = keys
        self._by_kid = {key.kid: key for key in keys}

    def __repr__(self) -> str:
        return f"Keyring({', '.join(map(repr, self.keys))})"

    def find(self, kid: str | None) -> Key | None:
        """Return the key that checks a token with *kid* in its header, None if there is none."""
        if None in self._by_kid:
            return self.keys[0]
        return None if kid is None else self._by_kid.get(kid)

    def jwks(self) -> JWKSet:
        """Return the public keys as a JWKS document. Secrets are never in it."""
        return {"keys": [jwk for key in self.keys if (jwk := key.public_jwk()) is not None]}


def _check_types(keys: Sequence[object]) -> None:
    if not all(isinstance(key, Key) for key in keys):
        raise TypeError("a keyring takes objects of Key")


def _check_together(keys: Sequence[Key]) -> None:
    if not keys:
        raise ConfigurationError("a keyring needs a key")
    kids = [key.kid for key in keys]
    if len(keys) > 1 and None in kids:
        raise ConfigurationError("each key of a keyring with several needs a kid of its own")
    if len(set(kids)) < len(kids):
        raise ConfigurationError("two keys have the same kid: give each its own")
    algorithms: dict[bytes, Algorithm] = {}
    for key in keys:
        if algorithms.setdefault(_identity(key), key.algorithm) != key.algorithm:
            raise ConfigurationError("one key stands under two algorithms: make a key for each")
    if not keys[0].can_sign and any(key.can_sign for key in keys):
        raise ConfigurationError("the first key signs, and it is public: put the private key first")


def _identity(key: Key) -> bytes:
    """Return what is the same in two keys with one secret or public half, whatever their algorithms and spelling."""
    jwk = key.public_jwk()
    if jwk is None:
        return _raw(key.material)
    return json.dumps({name: value for name, value in jwk.items() if name not in {"alg", "kid", "use"}}, sort_keys=True).encode()


_ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
_MIN_SECRET_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
_MAX_KID = 128


def algorithm_named(name: object) -> Algorithm:
    """Return the algorithm of that *name*. Raises ConfigurationError where there is none, TypeError on anything but a str."""
    if not isinstance(name, str):
        raise TypeError("algorithm must be one name such as 'HS256': a key is bound to one algorithm")
    for algorithm in _ALGORITHMS:
        if algorithm == name:
            return algorithm
    # The name stays out of the message: with swapped arguments it is the secret.
    raise ConfigurationError(f"the algorithm is unknown or unsafe: use one of {', '.join(_ALGORITHMS)}")


def _check_kid(kid: object) -> None:
    if kid is None:
        return
    if not isinstance(kid, str):
        raise TypeError("kid must be a text")
    if not (kid.isascii() and kid.isprintable() and 0 < len(kid) <= _MAX_KID):
        raise ConfigurationError(f"kid must be 1 to {_MAX_KID} printable ASCII characters")


def _raw(material: object) -> bytes:
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


def _check_secret(secret: bytes, algorithm: str) -> None:
    least = _MIN_SECRET_BYTES[algorithm]
    advice = f"set it to the output of: openssl rand -hex {least}"
    if _is_key_file(secret):
        raise ConfigurationError(
            f"{algorithm} takes a random secret, and this is a key file: choose RS256, PS256, ES256 or EdDSA, or {advice}"
        )
    if len(secret) < least:
        raise ConfigurationError(f"a secret for {algorithm} has at least {least} bytes: {advice}")
    if _is_guessable(secret):
        raise ConfigurationError(f"the secret is a placeholder that everybody knows or can guess: {advice}")


def _is_guessable(secret: bytes) -> bool:
    if all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in secret):
        return is_placeholder(secret.decode("ascii"))
    return len(set(secret)) < 16 or repeats(secret)


_KEY_TEXTS = (b"-----BEGIN", b"---- BEGIN", b"ssh-rsa ", b"ssh-ed25519 ", b"ecdsa-sha2-", b'"kty"', b"\x07ssh-rsa", b"\x0bssh-ed25519")


def _is_key_file(secret: bytes) -> bool:
    """Return whether *secret* is a key of another kind: PEM, DER, SSH or JWK, or a PEM or DER in base64."""
    return any(_is_key(raw) for raw in (secret, _from_base64(secret)))


def _is_key(raw: bytes) -> bool:
    return any(text in raw for text in _KEY_TEXTS) or _is_der(raw) or _is_der(raw.rstrip(b"\r\n"))


def _is_der(raw: bytes) -> bool:
    """Return whether *raw* is an ASN.1 SEQUENCE of exactly this length that begins with a SEQUENCE or an INTEGER, as keys do."""
    if len(raw) < 40 or raw[0] != 0x30:
        return False
    extra = raw[1] & 0x7F if raw[1] & 0x80 else 0
    length = int.from_bytes(raw[2 : 2 + extra]) if extra else raw[1]
    return len(raw) == 2 + extra + length and raw[2 + extra] in (0x30, 0x02)


def _from_base64(text: bytes) -> bytes:
    try:
        compact = re.sub(rb"[\s\"']+", b"", text).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        return b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except ValueError:
        return b""
