"""Mask secrets in log records: by the name beside the value, in fields and in text.

Every pattern takes linear time: a match takes all that it has read, and a failed attempt has read a bounded number of characters.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from pydantic import JsonValue

from fastapi_kit._text import MAX_DEPTH, is_items, is_mapping, text_of

__all__ = ["mask_fields", "mask_text"]

MASK = "***"
MAX_VALUES = 1_000

WORDS = r"""(?: pass(?:word|wd|phrase|code) | secret | token | credential | signature | input_value | sess(?:ion)?[_-]?id
    | (?:api|access|private|signing|encryption)[ _-]?key | (?<![a-z])(?:pass|pwd|dsn|otp|totp|sid)(?![a-z])
    | (?P<header> authori[sz]ation | cookie ) )"""
# A name that ends so is not a secret's: token_type, password_changed_at, InvalidTokenError, tokens.py.
HARMLESS = ("_at", "_count", "_days", "_minutes", "_seconds", "_type", "error", ".py")
NAME = rf"(?: {WORDS} | (?<=[\"'])input(?=[\"']) ) [\w.\[\]-]{{0,40}}+" + "".join(f"(?<!{re.escape(end)})" for end in HARMLESS)

SECRET_NAME = re.compile(rf"{WORDS} | \A input \Z", re.IGNORECASE | re.VERBOSE)
PAIR_NAME = re.compile(r"[\w.\[\]'-]{1,60}")
# password=x, "password": "x", ("password", "x"). A header without quotes, and a value in brackets, go to the end of the line.
NAMED_VALUE = re.compile(
    rf"""(?P<name> {NAME} (?: (?:\\*+["'])?+ \s*+ [:=]++ \s*+ | \\*+["'] \s*+ , \s*+ ) )
    (?: [bru]?+ (?P<quote> \\*+["'] ) (?: [^\\"'\r\n]++ | (?!(?P=quote))\\*+["'] | \\++(?!["']) )*+ (?P=quote)?+
      | [\[({{] [^\r\n]*+ | (?(header) [^\r\n]++ | (?: [^\s&] | &(?!\w++=) )++ ) )""",
    re.IGNORECASE | re.VERBOSE,
)
# What looks like a port is not the beginning of a password.
USERINFO = re.compile(
    r""":// (?: (?P<user> [^\s:/\[]*+ : ) (?! \d{1,5} (?: [/?\#"'\s] | \Z ) ) (?P<rest> \S++ ) | [^\s:@/?\#\[]++ @ )""", re.VERBOSE
)
# JSON web tokens, API keys, Bearer and Basic credentials, password hashes, private keys.
SHAPES = re.compile(
    r"""\b eyJ[\w-]{8,}+ [\w.-]*+ | (?<=_)[0-9a-f]{32}_[0-9a-f]{64} | (?i: (?<=\bbearer[ ]) | (?<=\bbasic[ ]) ) [\w.~+/=-]{16,}+
    | \$(?:2[abxy]|argon2\w*+)\$ [^\s"',;)\]}]++
    | -----BEGIN[ ][A-Z ]{0,30}PRIVATE[ ]KEY----- [^-]*+ (?:-----END[ ][A-Z ]{0,30}-----)?+""",
    re.ASCII | re.VERBOSE,
)
# Values that PostgreSQL, its drivers and SQLAlchemy quote. They may have several lines: up to the next part of the error or traceback.
QUOTED_BY_DRIVERS = re.compile(
    r"""(?P<name> \[parameters:[ ] | (?:DETAIL|CONTEXT):[ ]{2} | Failing[ ]row[ ]contains[ ]\( | \)=\(
        | invalid[ ]input[ ](?:syntax|value|for)[ ] [^:\n]{1,100}+ :[ ] )
    (?s: .*?) (?= \n (?:[ |]*+\n)?+ [ |]*+ (?: \[SQL | \[parameters: | \(Background | \+- | Traceback | The[ ]above | During ) | \Z )""",
    re.VERBOSE,
)
# Text in which this finds nothing has no match for the patterns above. It is many times faster, on lowered text.
HINT = re.compile(
    r"pass|pwd|secret|token|credential|signature|input|sess|key|dsn|otp|sid|authori|cookie|://|eyj|_[0-9a-f]{32}_|bearer|basic|\$2|\$argon2"
    r"|\[parameters|detail:|context:|failing row|\)=\("
)


def mask_text(text: str) -> str:
    """Return *text* with ``***`` in place of each value that belongs to a secret's name, and of what drivers quote. Takes linear time."""
    if not HINT.search(text.lower()):
        return text
    text = SHAPES.sub(MASK, text)
    text = NAMED_VALUE.sub(lambda match: f"{match['name']}{match['quote'] or ''}{MASK}{match['quote'] or ''}", text)
    text = USERINFO.sub(mask_userinfo, text)
    return QUOTED_BY_DRIVERS.sub(rf"\g<name>{MASK}", text)


def mask_userinfo(match: re.Match[str]) -> str:
    if match["rest"] is None:
        return f"://{MASK}@"
    # The password may contain an @ itself.
    _, at, host = match["rest"].rpartition("@")
    return f"://{match['user']}{MASK}@{host}" if at else match[0]


def is_secret(name: str) -> bool:
    lowered = name.lower()
    return bool(HINT.search(lowered) and SECRET_NAME.search(name)) and not lowered.rstrip("'").endswith(HARMLESS)


def mask_fields(fields: Mapping[str, object]) -> dict[str, JsonValue]:
    """Return *fields* as JSON values. A value with a secret's name, at any depth, becomes ``***``; text is masked by ``mask_text``.

    Pairs such as ``("token", value)`` count as fields. Objects that JSON does not know become text. At most 100 levels and 1,000
    values are kept; an ellipsis stands for the rest.
    """
    return Walk().fields(fields, MAX_DEPTH)


@dataclass
class Walk:
    """Counts the values that are still kept."""

    left: int = MAX_VALUES

    def fields(self, fields: Mapping[object, object] | Mapping[str, object], depth: int) -> dict[str, JsonValue]:
        items = islice(fields.items(), self.left + 1)
        named = ((text_of(name), value) for name, value in items)
        return {mask_text(name): self.value(MASK if is_secret(name) else value, depth) for name, value in named}

    def value(self, value: object, depth: int) -> JsonValue:
        self.left -= 1
        if self.left < 0 or depth < 0:
            return "…"
        if is_mapping(value):
            return self.fields(value, depth - 1)
        if is_items(value):
            items = list(islice(value, self.left + 1))
            if len(items) == 2 and isinstance(items[0], str | bytes) and PAIR_NAME.fullmatch(name := text_of(items[0])) and is_secret(name):
                items[1] = MASK
            return [self.value(item, depth - 1) for item in items]
        if value is None or isinstance(value, bool):
            return value
        # Other readers of JSON fail on larger numbers.
        if (isinstance(value, int) and abs(value) < 2**64) or (isinstance(value, float) and math.isfinite(value)):
            return value
        return mask_text(text_of(value))
