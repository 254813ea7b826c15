"""Secrets that must not sign a token: too short, well known, or really the key file of another algorithm."""

import re
from base64 import b64decode
from collections.abc import Mapping

from fastapi_kit._secrets import is_placeholder, repeats
from fastapi_kit.errors import ConfigurationError

__all__ = ["MIN_SECRET_BYTES", "check_secret"]

MIN_SECRET_BYTES: Mapping[str, int] = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The length of the hash (RFC 7518, 3.2)."""
KEY_FILE_MARKS = (b"-----BEGIN", b"---- BEGIN", b"ssh-rsa ", b"ssh-ed25519 ", b"ecdsa-sha2-", b'"kty"', b"\x07ssh-rsa", b"\x0bssh-ed25519")


def check_secret(secret: bytes, algorithm: str) -> None:
    """Raise ConfigurationError unless *secret* is long and random enough for the HMAC *algorithm*."""
    least = MIN_SECRET_BYTES[algorithm]
    advice = f"set it to the output of: openssl rand -hex {least}"
    if is_key_file(secret) or is_key_file(decoded_base64(secret)):
        raise ConfigurationError(
            f"{algorithm} takes a random secret, and this is a key file: choose RS256, PS256, ES256 or EdDSA, or {advice}"
        )
    if len(secret) < least:
        raise ConfigurationError(f"a secret for {algorithm} has at least {least} bytes: {advice}")
    is_text = all(0x20 <= byte < 0x7F or byte in b"\t\r\n" for byte in secret)
    if is_placeholder(secret.decode("ascii")) if is_text else len(set(secret)) < 16 or repeats(secret):
        raise ConfigurationError(f"the secret is a placeholder that is well known or easy to guess: {advice}")


def is_key_file(raw: bytes) -> bool:
    """Return whether *raw* is a key in PEM, DER, SSH or JWK form. Public keys are among them, which everyone may know."""
    return any(mark in raw for mark in KEY_FILE_MARKS) or is_der_key(raw) or is_der_key(raw.rstrip(b"\r\n"))


def is_der_key(raw: bytes) -> bool:
    """Return whether *raw* is an ASN.1 SEQUENCE of exactly this length that begins with a SEQUENCE or an INTEGER, as keys do."""
    if len(raw) < 40 or raw[0] != 0x30:
        return False
    extra = raw[1] & 0x7F if raw[1] & 0x80 else 0
    length = int.from_bytes(raw[2 : 2 + extra]) if extra else raw[1]
    return len(raw) == 2 + extra + length and raw[2 + extra] in (0x30, 0x02)


def decoded_base64(text: bytes) -> bytes:
    """Return the bytes that *text* contains in base64, with or without line breaks, quotes and padding; nothing for other text."""
    try:
        compact = re.sub(rb"[\s\"']+", b"", text).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        return b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except ValueError:
        return b""
