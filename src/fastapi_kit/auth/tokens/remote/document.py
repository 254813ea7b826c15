"""From a JWKS document to the keys that can be used."""

from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import JsonValue

from fastapi_kit.auth.tokens._compact import JsonObject, decode_segment, read_object
from fastapi_kit.auth.tokens.keys import Algorithm, Key
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

__all__ = ["Keys", "read_keys"]

Keys: TypeAlias = Mapping[tuple[str | None, str], Key]
"""Keys by ``kid`` and algorithm."""

PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Of private and secret keys (RFC 7518, 6.2.2, 6.3.2 and 6.4). The factors of an RSA key are enough to sign with it."""
CURVES = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
MAX_KEYS = 100


def read_keys(document: bytes, algorithms: Collection[Algorithm]) -> Keys:
    """Return the keys in *document* for *algorithms*; of two with the same name, the first.

    A key that is malformed, weak, private or for something else is left out. Raises InvalidTokenError if there is no list of keys.
    """
    listed = read_object(document, part="document").get("keys")
    if not isinstance(listed, list):
        raise InvalidTokenError("the document has no list of keys")
    found: dict[tuple[str | None, str], Key] = {}
    for jwk in listed[:MAX_KEYS]:
        if isinstance(jwk, dict) and is_for_signatures(jwk):
            for key in usable_keys(jwk, algorithms):
                found.setdefault((key.kid, key.algorithm), key)
    return found


def is_for_signatures(jwk: JsonObject) -> bool:
    """Return whether a key may verify signatures. One that was published with its private part may not: anyone can sign with it."""
    operations = jwk.get("key_ops", ["verify"])
    return jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations and PRIVATE_MEMBERS.isdisjoint(jwk)


def usable_keys(jwk: JsonObject, algorithms: Collection[Algorithm]) -> Iterator[Key]:
    """Yield the key for its ``alg``; without one, for each of *algorithms* that fits."""
    kid = jwk.get("kid")
    try:
        pem = public_pem(jwk)
    except (ValueError, UnsupportedAlgorithm, InvalidTokenError):
        return
    for algorithm in algorithms:
        if jwk.get("alg", algorithm) == algorithm and (kid is None or isinstance(kid, str)):
            try:
                yield Key(pem, algorithm, kid)
            except ConfigurationError:
                continue


def public_pem(jwk: JsonObject) -> bytes:
    """Return the public key (RFC 7518, 6; RFC 8037, 2). Raises ValueError, UnsupportedAlgorithm, InvalidTokenError."""
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
    match jwk:
        case {"kty": "RSA", "n": n, "e": e}:
            key = rsa.RSAPublicNumbers(number_in(e), number_in(n)).public_key()
        case {"kty": "EC", "crv": "P-256" | "P-384" | "P-521" as name, "x": x, "y": y}:
            key = ec.EllipticCurvePublicNumbers(number_in(x), number_in(y), CURVES[name]).public_key()
        case {"kty": "OKP", "crv": "Ed25519", "x": x}:
            key = ed25519.Ed25519PublicKey.from_public_bytes(bytes_in(x))
        case _:
            raise ValueError("another kind of key")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def number_in(member: JsonValue) -> int:
    """Return the number that is written in base64url."""
    return int.from_bytes(bytes_in(member))


def bytes_in(member: JsonValue) -> bytes:
    """Return the bytes that are written in base64url."""
    if not isinstance(member, str):
        raise ValueError("not a string")
    return decode_segment(member.encode())
