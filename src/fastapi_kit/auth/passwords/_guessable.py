"""Passwords that are guessed first: common ones, keys in a row, and what is known of the user."""

import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache
from importlib.resources import files

LINES = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1q2w3e4r5t6y7u8i9o0p",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
)
"""The alphabet, the digits, and keyboards by rows, in zigzag and by columns."""
WALKS = (*LINES, *(line[::-1] for line in LINES))

MIN_STEPS = 4
"""Ordinary words contain fewer keys in a row."""
MAX_PERIOD = 4
"""The longest unit of a repetition."""
MAX_TRIMMINGS = 4
"""Digits and signs around a word. Guessers try them, too."""
MIN_WORD = 4
"""Shorter words of a known value are ignored."""
ENOUGH = 8
"""Characters that make a password good, whatever else it contains."""
MAX_LENGTH = 256
"""Characters of a known value that are compared."""

TRIMMINGS = re.compile(r"^[\W\d_]+|[\W\d_]+$")
BETWEEN_WORDS = re.compile(r"[\W_]+")


def is_common(password: str) -> bool:
    """Return whether *password* is in the list of common ones, or repeats up to four characters, or consists of keys in a row.

    Capitals, accents, and up to four digits or signs around it are ignored.
    """
    text = fold(password)
    stem = TRIMMINGS.sub("", text)
    candidates = {text, stem} if len(text) - len(stem) <= MAX_TRIMMINGS else {text}
    return any(candidate in common_passwords() or is_repeated(candidate) or is_walk(candidate) for candidate in candidates)


def is_similar(password: str, known: Collection[str]) -> bool:
    """Return whether *password* is little more than the *known* values, such as an e-mail address, or their words.

    They are removed from the password. The rest must have at least 8 characters, or be more than half of it.
    """
    text = rest = fold(password)
    for word in sorted({word for value in known for word in words_in(fold(value[:MAX_LENGTH]))}, key=len, reverse=True):
        rest = rest.replace(word, "")
    return len(rest) < len(text) and len(rest) < ENOUGH and 2 * len(rest) <= len(text)


def fold(text: str) -> str:
    """Return *text* without what guessers ignore: capitals, accents, and other Unicode forms of a character."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


@cache
def common_passwords() -> frozenset[str]:
    """Return the 5,000 most used passwords of 8 characters and more."""
    return frozenset(files("fastapi_kit.auth.passwords").joinpath("common_passwords.txt").read_text("utf-8").split())


def is_repeated(text: str) -> bool:
    """Return whether *text* is one unit over and over."""
    return any(text[period:] == text[:-period] for period in range(1, MAX_PERIOD + 1) if len(text) >= 2 * period)


def is_walk(text: str) -> bool:
    """Return whether *text* consists of pieces of the lines, each of at least four keys."""
    position = 0
    while position < len(text):
        steps = steps_along(text, position)
        if steps < MIN_STEPS:
            return False
        position += steps
    return bool(text)


def steps_along(text: str, start: int) -> int:
    """Return how many characters of *text*, from *start* on, follow one of the lines."""
    longest = max(map(len, LINES))
    lengths = range(min(longest, len(text) - start), 0, -1)
    return next((length for length in lengths if any(text[start : start + length] in line for line in WALKS)), 0)


def words_in(value: str) -> Iterator[str]:
    """Yield a known value, the part before its ``@``, both without separators, and its words."""
    for whole in (value, value.partition("@")[0]):
        yield from (word for word in (whole, BETWEEN_WORDS.sub("", whole)) if len(word) >= MIN_WORD)
    yield from (word for word in BETWEEN_WORDS.split(value) if len(word) >= MIN_WORD)
