"""The compact form of a signed token (RFC 7515, 7.1). A token has one spelling and one meaning."""

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping
from typing import NamedTuple, NoReturn, TypeAlias

from pydantic import JsonValue

from fastapi_kit._text import MAX_DEPTH, is_deeper
from fastapi_kit.errors import ConfigurationError, InvalidTokenError

__all__ = ["Compact", "JsonObject", "decode_segment", "encode_segment", "read_kid", "read_object", "split_token", "write_object"]

JsonObject: TypeAlias = dict[str, JsonValue]

FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class Compact(NamedTuple):
    """The parts of a token. None of them is verified yet."""

    header: JsonObject
    payload: bytes
    signature: bytes
    signing_input: bytes


def split_token(token: object, *, max_length: int) -> Compact:
    """Return the parts of *token*, a str or bytes. Raises InvalidTokenError and nothing else."""
    if not isinstance(token, str | bytes):
        raise InvalidTokenError("not a string")
    if len(token) > max_length:
        raise InvalidTokenError("too long")
    text = token if isinstance(token, str) else token.decode("latin-1")
    if FORM.fullmatch(text) is None:
        raise InvalidTokenError("not three base64url segments")
    signing_input = text.encode().rpartition(b".")[0]
    header, payload, signature = map(decode_segment, text.encode().split(b"."))
    return Compact(read_object(header, part="header"), payload, signature, signing_input)


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


def encode_segment(raw: bytes) -> bytes:
    """Return *raw* in base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=")


def decode_segment(segment: bytes) -> bytes:
    """Return the bytes of a segment. Raises InvalidTokenError for another spelling of them, too."""
    try:
        raw = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        raise InvalidTokenError("a segment is not base64url") from None
    if encode_segment(raw) != segment:
        raise InvalidTokenError("a segment is not in its canonical form")
    return raw


def read_object(raw: bytes, *, part: str) -> JsonObject:
    """Return the JSON object in *raw*, the *part* of a token.

    It must be UTF-8 with finite numbers, no member twice and at most 100 levels. Raises InvalidTokenError and nothing else.
    """
    try:
        text = raw.decode("utf-8")
        value: JsonValue = DECODER.decode(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # an escaped lone surrogate cannot be encoded
    except (ValueError, RecursionError):
        raise InvalidTokenError(f"the {part} is not a plain JSON object") from None
    # With fewer brackets than levels it cannot be deep; counting them is faster than walking.
    if not isinstance(value, dict) or (text.count("{") + text.count("[") > MAX_DEPTH and is_deeper(value)):
        raise InvalidTokenError(f"the {part} is not a plain JSON object")
    return value


def write_object(value: Mapping[str, JsonValue]) -> bytes:
    """Return *value* as JSON that ``read_object`` reads as the same value. Raises ConfigurationError, TypeError."""
    message = "extra claims must be plain JSON: str, numbers, bool, None, list, and dict with str keys"
    try:
        raw = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
        if read_object(raw, part="payload") != value:
            raise TypeError(message)
    except (ValueError, RecursionError, InvalidTokenError):
        raise ConfigurationError(
            "extra claims must have finite numbers, strings without lone surrogates, no key twice and at most 100 levels"
        ) from None
    except TypeError:
        raise TypeError(message) from None
    return raw


def unique_members(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    """Return the members of an object. Raises ValueError if one occurs twice."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def finite_number(text: str) -> float:
    """Return the number. Raises ValueError for one that is too large for a float."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def reject_constant(text: str) -> NoReturn:
    """Raise ValueError for NaN and Infinity, which are not JSON."""
    raise ValueError(text)


DECODER = json.JSONDecoder(object_pairs_hook=unique_members, parse_float=finite_number, parse_constant=reject_constant)
