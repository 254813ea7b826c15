"""Which passwords are guessed first: those many people have, keys in a row, what is known of their owner."""

import re
import unicodedata
from collections.abc import Collection, Iterator
from functools import cache
from importlib.resources import files

_LINES = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1q2w3e4r5t6y7u8i9o0p",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik",
)
"""The alphabet, the digits, and keyboards by rows, in zigzag and by columns."""
_WALKS = (*_LINES, *(line[::-1] for line in _LINES))

_SHORTEST_STEPS = 4
"""Fewer letters in a row are found in ordinary words."""
_LONGEST_PERIOD = 4
_MOST_TRIMMINGS = 4
"""Digits and signs that people put around a word, and guessers too."""
_SHORTEST_WORD = 4
_ENOUGH = 8
_LONGEST = 256
"""Characters that make a password good whatever else it contains."""

_TRIMMINGS = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_BETWEEN_WORDS = re.compile(r"[\W_]+")


def is_common(password: str) -> bool:
    """Return whether *password* is one that many people have, or one or few characters repeated, or keys in a row.

    Up to four digits or signs around it do not make it better, nor do capitals and accents.
    """
    text = _fold(password)
    stem = _TRIMMINGS.sub("", text)
    candidates = {text, stem} if len(text) - len(stem) <= _MOST_TRIMMINGS else {text}
    return any(_is_listed(candidate) or _is_repeated(candidate) or _is_walk(candidate) for candidate in candidates)


def is_similar(password: str, known: Collection[str]) -> bool:
    """Return whether *password* is little more than the values *known*, an e-mail address for instance, or their words.

    Of each value the first 256 characters count. What is left without them must be at least 8 characters, or more than half of the
    password.
    """
    text = rest = _fold(password)
    for word in sorted({word for value in known for word in _words(_fold(value[:_LONGEST]))}, key=len, reverse=True):
        rest = rest.replace(word, "")
    return len(rest) < len(text) and len(rest) < _ENOUGH and 2 * len(rest) <= len(text)


def _fold(text: str) -> str:
    """Drop what guessers ignore: capitals, accents, and the other forms that Unicode has for a character."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


@cache
def _listed() -> frozenset[str]:
    return frozenset(files("fastapi_kit.auth").joinpath("common_passwords.txt").read_text("utf-8").split())


def _is_listed(text: str) -> bool:
    return text in _listed()


def _is_repeated(text: str) -> bool:
    return any(text[period:] == text[:-period] for period in range(1, _LONGEST_PERIOD + 1) if len(text) >= 2 * period)


def _is_walk(text: str) -> bool:
    """Return whether *text* is made of pieces of the lines, none of them short."""
    position = 0
    while position < len(text):
        steps = _steps(text, position)
        if steps < _SHORTEST_STEPS:
            return False
        position += steps
    return bool(text)


def _steps(text: str, start: int) -> int:
    """Return how far *text* follows one of the lines from *start* on."""
    longest = max(map(len, _LINES))
    lengths = range(min(longest, len(text) - start), 0, -1)
    return next((length for length in lengths if any(text[start : start + length] in line for line in _WALKS)), 0)


def _words(value: str) -> Iterator[str]:
    for whole in (value, value.partition("@")[0]):
        yield from (word for word in (whole, _BETWEEN_WORDS.sub("", whole)) if len(word) >= _SHORTEST_WORD)
    yield from (word for word in _BETWEEN_WORDS.split(value) if len(word) >= _SHORTEST_WORD)
