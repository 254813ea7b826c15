"""The compact form of a signed token (RFC 7515, 7.1), read and written so that a token has one spelling and one meaning."""

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import NamedTuple, NoReturn, TypeAlias

from pydantic import JsonValue

from fastapi_kit._text import MAX_DEPTH, is_deeper
from fastapi_kit.errors import InvalidTokenError

JsonObject: TypeAlias = dict[str, JsonValue]

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class Compact(NamedTuple):
    """A token taken apart, nothing of it believed yet."""

    header: JsonObject
    payload: bytes
    signature: bytes
    signing_input: bytes


def split_token(token: object, *, max_length: int) -> Compact:
    """Return the parts of *token*, str or bytes. Raises InvalidTokenError, and nothing else."""
    if not isinstance(token, str | bytes):
        raise InvalidTokenError("not a text")
    if len(token) > max_length:
        raise InvalidTokenError("too long")
    text = token if isinstance(token, str) else token.decode("latin-1")
    if _FORM.fullmatch(text) is None:
        raise InvalidTokenError("not three base64url segments")
    signing_input, _, signature = text.encode().rpartition(b".")
    header, _, payload = signing_input.partition(b".")
    raw_payload, raw_signature = _decode_segment(payload), _decode_segment(signature)
    return Compact(parse_object(_decode_segment(header), of="header"), raw_payload, raw_signature, signing_input)


def join_token(header: bytes, payload: bytes) -> bytes:
    """Return what is signed; the token is this, a dot, and the signature as a segment."""
    return encode_segment(header) + b"." + encode_segment(payload)


def encode_segment(raw: bytes) -> bytes:
    """Return *raw* in base64url without padding."""
    return urlsafe_b64encode(raw).rstrip(b"=")


def _decode_segment(segment: bytes) -> bytes:
    try:
        raw = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except ValueError:
        raise InvalidTokenError("a segment is not base64url") from None
    if encode_segment(raw) != segment:
        raise InvalidTokenError("a segment is not in its canonical form")
    return raw


def parse_object(raw: bytes, *, of: str) -> JsonObject:
    """Return the JSON object in *raw*; *of* says in the reason which part it is. Raises InvalidTokenError, and nothing else."""
    try:
        return read_object(raw)
    except (ValueError, RecursionError):
        raise InvalidTokenError(f"the {of} is not a plain JSON object") from None


def read_object(raw: bytes) -> JsonObject:
    """Return the JSON object in *raw*: UTF-8, finite numbers, no member twice, 100 levels at most. Raises ValueError, RecursionError."""
    text = raw.decode("utf-8")
    value: JsonValue = _DECODER.decode(text)
    # Without so many brackets it cannot be deep: this is faster than looking.
    if not isinstance(value, dict) or (text.count("{") + text.count("[") > MAX_DEPTH and is_deeper(value)):
        raise ValueError
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # an escaped half of a surrogate pair is no text
    return value


def write_object(value: Mapping[str, JsonValue]) -> bytes:
    """Return *value* as JSON that read_object reads as the same. Raises TypeError, ValueError, RecursionError."""
    raw = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    if read_object(raw) != value:
        raise TypeError("keys must be texts and values plain JSON")
    return raw


def _unique(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_number)
