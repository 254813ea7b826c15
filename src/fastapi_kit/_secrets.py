"""Recognise placeholders that are used as secrets."""

import re

__all__ = ["is_placeholder", "repeats"]

TEMPLATE_WORDS = re.compile(
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"  # the key of FastAPI's tutorial
    "|0?123456789|abcdefghijklmnopqrstuvwxyz|12345678|123456|1234|qwertyuiop"
    "|characters|default|development|example|generate|insecure|minimum|passphrase|password|placeholder|please|private|production"
    "|change|random|replace|secret|signing|string|super|testing|token|django|fastapi|flask|jwt|key|dev"
    "|least|long|must|this|with|your"
)


def is_placeholder(secret: str) -> bool:
    """Return whether *secret* consists of little more than the words of templates, or repeats itself."""
    rest = TEMPLATE_WORDS.sub("", re.sub(r"[\W_]+", "", secret.lower()))
    return len(rest) < 16 or len(set(rest)) < 6 or repeats(secret)


def repeats(secret: str | bytes) -> bool:
    """Return whether *secret* is one part, at most its half, repeated."""
    return any(secret[unit:] == secret[:-unit] for unit in range(1, len(secret) // 2 + 1))
