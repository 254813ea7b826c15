"""Codes for when the authenticator app is lost."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi_kit.errors import ConfigurationError

__all__ = ["RecoveryCodes", "new_recovery_codes", "use_recovery_code"]

# Digits and letters that cannot be confused: no i, l, o and u.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
READ_AS = str.maketrans("ilo", "110")
LENGTH, GROUP = 16, 4
"""16 characters of 5 bits: 80 random bits."""
LONGEST_INPUT = 64
MOST = 20


@dataclass(frozen=True)
class RecoveryCodes:
    """Codes to show once, and their hashes to store. The repr hides the codes."""

    codes: Sequence[str] = field(repr=False)
    hashes: Sequence[str]


def new_recovery_codes(*, count: int = 10) -> RecoveryCodes:
    """Make codes of 80 random bits, each for one use, such as ``7k2m-9xqd-04vn-wz3h``.

    Args:
        count: 1 to 20.

    Raises:
        ConfigurationError: *count* is out of bounds.
    """
    if not 1 <= count <= MOST:
        raise ConfigurationError(f"count must be from 1 to {MOST}")
    plain = ["".join(secrets.choice(ALPHABET) for _ in range(LENGTH)) for _ in range(count)]
    shown = ["-".join(code[start : start + GROUP] for start in range(0, LENGTH, GROUP)) for code in plain]
    return RecoveryCodes(shown, [digest(code) for code in plain])


def use_recovery_code(code: str, hashes: Sequence[str]) -> Sequence[str] | None:
    """Return the hashes without that of *code*, or None if *code* is wrong. Store what it returns only over *hashes*, in one statement.

    Args:
        code: What the user typed. Case, spaces and hyphens do not matter; ``o`` is read as 0, ``i`` and ``l`` as 1.
        hashes: The stored hashes of the codes that are not used. All are compared, in constant time.
    """
    typed = read_recovery_code(code)
    if typed is None:
        return None
    wanted = digest(typed)
    fits = [hmac.compare_digest(wanted, stored) for stored in hashes]
    return [stored for stored, fit in zip(hashes, fits, strict=True) if not fit] if any(fits) else None


def read_recovery_code(code: object) -> str | None:
    """Return the code in its normal form, or None if it is something else."""
    if not isinstance(code, str) or len(code) > LONGEST_INPUT:
        return None
    typed = re.sub(r"[\W_]", "", code).lower().translate(READ_AS)
    return typed if len(typed) == LENGTH and set(typed) <= set(ALPHABET) else None


def digest(code: str) -> str:
    """Return what is stored of a code. It is random, so a plain SHA-256 cannot be guessed."""
    return hashlib.sha256(code.encode()).hexdigest()
