"""The header and the signature of a token, whoever has signed it."""

from collections.abc import Collection

from fastapi_kit.auth.tokens._compact import Compact, JsonObject, read_object
from fastapi_kit.auth.tokens.keys import Key
from fastapi_kit.errors import InvalidTokenError

__all__ = ["read_kid", "read_payload"]


def read_kid(header: JsonObject, *, types: Collection[str]) -> str | None:
    """Return the ``kid`` of a token whose ``typ`` is one of *types*, in lower case. Without ``typ`` it counts as ``jwt``.

    Keys and URLs in the header (jwk, x5c, jku, x5u) are ignored. Raises InvalidTokenError.
    """
    if "crit" in header or header.get("b64", True) is not True:
        raise InvalidTokenError("the header requires an extension")
    if "cty" in header:
        raise InvalidTokenError("another kind of content")
    typ, kid = header.get("typ", "JWT"), header.get("kid")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in types:
        raise InvalidTokenError("another typ in the header")
    if "kid" in header and not isinstance(kid, str):
        raise InvalidTokenError("kid is not a string")
    return kid if isinstance(kid, str) else None


def read_payload(parts: Compact, key: Key | None) -> JsonObject:
    """Return the payload of a token that *key* has signed, with the algorithm of the key. Raises InvalidTokenError."""
    if key is None:
        raise InvalidTokenError("kid is missing or unknown")
    if parts.header.get("alg") != key.algorithm:
        raise InvalidTokenError("another algorithm than the key's")
    if not key.verify(parts.signing_input, parts.signature):
        raise InvalidTokenError("the signature does not match")
    return read_object(parts.payload, part="payload")
