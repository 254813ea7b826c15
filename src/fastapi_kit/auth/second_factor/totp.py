"""Codes of an authenticator app (TOTP, RFC 6238)."""

import binascii
import hmac
import logging
import re
import secrets
from base64 import b32decode, b32encode
from urllib.parse import quote, urlencode

from fastapi_kit.auth.tokens.policy import Clock, is_printable, utc_now
from fastapi_kit.errors import ConfigurationError

__all__ = ["TOTP", "hotp", "read_code"]

DIGITS = 6
PERIOD = 30
"""Seconds of a step."""
SECRET_BYTES = 20
"""160 bits, as RFC 4226, 4 recommends."""
LONGEST_INPUT = 32

logger = logging.getLogger("fastapi_kit.auth.second_factor")


class TOTP:
    """Six digits that change every 30 seconds, by HMAC-SHA-1, as all authenticator apps make them.

    The code of the step before and of the step after are accepted, too, for clocks that differ (RFC 6238, 5.2). Store the step that
    ``verify`` returns, and pass it the next time: so a code works once.

    Args:
        issuer: The name of your application in the app. It has no colon.
        clock: Returns the current time, with a time zone.

    Raises:
        ConfigurationError: *issuer* is blank, not printable, or has a colon.
    """

    def __init__(self, *, issuer: str, clock: Clock = utc_now) -> None:
        if not is_printable(issuer) or ":" in issuer:
            raise ConfigurationError("issuer must be a name of printable characters without a colon")
        self.issuer = issuer
        self._clock = clock

    def new_secret(self) -> str:
        """Return a random secret of 160 bits in base32, which belongs to one user. Store it encrypted."""
        return b32encode(secrets.token_bytes(SECRET_BYTES)).decode()

    def uri(self, secret: str, *, account: str) -> str:
        """Return the ``otpauth://`` address for the QR code. It contains the secret.

        Args:
            secret: From ``new_secret``.
            account: What the app shows beside the name of your application, such as the e-mail address.
        """
        label = quote(f"{self.issuer}:{account}", safe=":@", errors="replace")
        values = {"secret": secret, "issuer": self.issuer, "algorithm": "SHA1", "digits": DIGITS, "period": PERIOD}
        return f"otpauth://totp/{label}?{urlencode(values, quote_via=quote, errors='replace')}"

    def verify(self, secret: str, code: str, *, last_step: int | None) -> int | None:
        """Return the step of *code*, or None if it is wrong, too old or used.

        All steps are compared, in constant time. Of several requests with one code, the one that stores the step first wins: store it only
        over *last_step*, in one statement.

        Args:
            secret: From ``new_secret``. A malformed one is logged, and no code fits.
            code: What the user typed. Spaces and hyphens are ignored.
            last_step: The step of the last code that was accepted, or None.
        """
        digits, key = read_code(code), read_secret(secret)
        if digits is None or key is None:
            return None
        current = int(self._clock().timestamp()) // PERIOD
        found = None
        for step in (current - 1, current, current + 1):
            fits = hmac.compare_digest(hotp(key, step), digits)
            if fits and (last_step is None or step > last_step):
                found = step
        return found


def hotp(key: bytes, counter: int) -> str:
    """Return the code for a counter (RFC 4226, 5.3)."""
    digest = hmac.digest(key, counter.to_bytes(8), "sha1")
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4]) & 0x7FFF_FFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


def read_code(code: object) -> str | None:
    """Return the six digits that were typed, or None if it is something else."""
    if not isinstance(code, str) or len(code) > LONGEST_INPUT:
        return None
    digits = re.sub(r"[\s-]", "", code)
    return digits if re.fullmatch(rf"[0-9]{{{DIGITS}}}", digits) else None


def read_secret(secret: object) -> bytes | None:
    """Return the bytes of a secret, or None if it is malformed."""
    try:
        key = b32decode(secret) if isinstance(secret, str) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        logger.warning("A stored secret of a second factor is malformed")
    return key or None
