"""Secrets in text and in data, found by their shape or by the name beside them: a net, not a proof.

What is in doubt is masked. Every pattern is linear: a match takes all it has read, and a failure has read a bounded number of characters
or some that no later attempt reads again (possessive quantifiers).
"""

import math
import re
from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from pydantic import JsonValue

from fastapi_kit._text import MAX_DEPTH, is_items, is_mapping, text_of

__all__ = ["mask_fields", "mask_text"]

_MASK = "***"
_MAX_ITEMS = 1_000
_MAX_CACHED = 100

_WORDS = r"""
    pass(?:word|wd|phrase|code) | (?<![a-z])pass(?![a-z]) | pwd | dsn | secret(?!ar) | token(?!i[sz]) | credential | signature
    | (?:api|access|private|signing|encryption)[ _-]?key
    | (?<![a-z])t?otp(?![a-z]) | otp[ _-]?code | (?:one[ _-]?time|verification|recovery|backup)[ _-]?codes?(?![a-z])
    | sess(?:ion)?[ _-]?id(?!le|ent) | (?<![a-z])sid(?![a-z]) | (?P<header> authori[sz]ation | cookie )
"""
# A name that ends so is no secret: token_type, password_changed_at, InvalidTokenError, tokens.py.
_HARMLESS = ("_at", "_count", "_days", "_minutes", "_seconds", "_type", "error", "exception", "warning", ".py")
_NOT_HARMLESS = "".join(f"(?<!{re.escape(end)})(?<!{re.escape(end.replace('_', '-'))})" for end in _HARMLESS)
_NAME = rf"(?: {_WORDS} | input_value | (?<=[\"'])input(?=\\*[\"']) ) [\w.\[\]-]{{0,40}}+ {_NOT_HARMLESS}"
_QUOTED = r"""(?P<quote>\\{0,8}["']) (?: [^\\"'\r\n]++ | (?!(?P=quote))\\*+["'] | \\++(?!["']) )*+ (?P=quote)?+"""
_STRING = r"""(?: "(?:[^"\\\r\n]++|\\.)*+"?+ | '(?:[^'\\\r\n]++|\\.)*+'?+ )"""
_BRACKETED = rf"""[\[({{] (?: [^\])}}"']++ | {_STRING} )*+ [\])}}]*+"""
# Up to white space, the next parameter of a query, or a quote that closes.
_BARE = r"""(?: [^\s"'&] | &(?![\w.\[\]%-]{1,40}=) | ["'](?![\s,:;)\]}>]|\Z) )++"""

_SECRET_NAME = re.compile(rf"{_WORDS} | \A input \Z", re.IGNORECASE | re.VERBOSE)
# What may stand in a list before its value, and what may in a pair.
_LONE_NAME = re.compile(r"""(?:b['"])?(?:--[\w-]{1,60}|x-[\w-]{1,60}|(?:proxy-)?authorization|(?:set-)?cookie)['"]?""", re.IGNORECASE)
_PAIR_NAME = re.compile(r"""(?:b['"])?[\w.\[\]-]{1,60}['"]?""")
_NAMED_VALUE = re.compile(
    rf"""
    (?P<name> {_NAME} (?: \\*+["']?+ \s*+ (?: [=-]> | :?=+ | : | %3[AD] ) \s*+  # password = x, "password": x, password%3Dx
                        | \\*+["'] \s*+ , \s*+ ) )                              # ("password", x)
    (?: [bruf]{{0,2}}+ {_QUOTED} (?: (?![,;:&)\]}}>]) {_BARE} )?+
      | \w{{0,20}}+ {_BRACKETED} (?: {_BARE} )?+
      | (?(header) [^\r\n]++ | {_BARE} ) )
    """,
    re.IGNORECASE | re.VERBOSE,
)

# From the first colon to the last @ of the word. What looks like a port is none of a password's.
_USERINFO = re.compile(
    r"""(?P<web> (?<=http) | (?<=https) | (?<=ws) | (?<=wss) )?+ ://
    (?: (?P<user> [^\s:/\[]*+ : ) (?! \d{1,5} (?: ["'\\\s] | \Z | (?(web) [/?#,;)\]}>] | (?!) ) ) ) (?P<rest> \S++ )
      | [^\s:@/?#\[]{16,}+ @ )""",
    re.IGNORECASE | re.VERBOSE,
)
_SCHEME = re.compile(
    r"""(?<![a-z]) (?P<scheme> (?:bearer|basic) (?: \\*["'],? | \s | %20 | [:=+] )++ )
    (?! (?: and|are|auth\w*|basic|bearer|credentials?|digest|expired|header|invalid|is|missing|not|or|realm|required|scheme|tokens?|was )
        (?![\w.~+/=-]) | [\w-]{1,40}+=\w )
    [^\s"',;<>]++""",
    re.IGNORECASE | re.VERBOSE,
)
_JWT = re.compile(r"eyJ[\w-]{8,}+[\w.-]*+", re.ASCII)
_HASH = re.compile(r"\$(?:2[abxy]|argon2\w*|scrypt|pbkdf2[\w-]*)\$[^\s\"',;)\]}]++", re.ASCII)
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^-]*+(?:-----END [A-Z ]{0,30}-----)?")
# An option of a command line and its value.
_OPTION = re.compile(
    rf"""(?P<name> (?<![^\s"'\x60(\[]) --[\w-]{{0,40}}? (?: {_WORDS} ) [\w-]{{0,40}}+ {_NOT_HARMLESS} [ \t]++ )
    (?! [-\s] | (?: and|argument|expects|flag|has|is|may|must|needs|not|option|or|requires?|requires|was ) (?![\w-]) )
    (?: "(?:[^"\\\r\n]++|\\.)*+"?+ | '[^'\r\n]*+'?+ | [^\s"']++ )++""",
    re.IGNORECASE | re.VERBOSE,
)
# One-time codes of OAuth, and others in a query. What has no digit is a word, such as not_found.
_CODE = re.compile(r"(?P<name>[?&]code=)(?=[^\s&]{0,100}?\d)[^\s\"'&]{6,}+", re.IGNORECASE)
# Values that the errors of SQLAlchemy, PostgreSQL and its drivers show: all lines, up to the next part of the error or of the traceback.
_DATABASE_VALUES = re.compile(
    r"""(?P<name> \[parameters:[ ] | ^[ |]*+ (?:DETAIL|CONTEXT):[ ]{2} | Failing[ ]row[ ]contains[ ]\( | \)=\(
        | invalid[ ]input[ ](?: syntax[ ]for | value[ ]for | for[ ]query[ ]argument ) [^:\r\n]{1,100}+ :[ ] )
    (?: [^\n]++ | \n (?! (?: [ |]*+ \n )?+ [ |]*+ (?: \[SQL | \[parameters: | \(Background | \+- | Traceback[ ]\(most[ ]recent
        | The[ ]above[ ]exception[ ]was | During[ ]handling[ ]of ) ) )*+""",
    re.MULTILINE | re.VERBOSE,
)


def _named(match: re.Match[str]) -> str:
    quote = match["quote"] or ""
    return f"{match['name']}{quote}{_MASK}{quote}"


def _userinfo(match: re.Match[str]) -> str:
    if match["rest"] is None:
        return f"://{_MASK}@"
    _, at, host = match["rest"].rpartition("@")
    return f"://{match['user']}{_MASK}@{host}" if at else match[0]


class _Rule(NamedTuple):
    """A pattern, tried only where one of *marks* is in the text, which is looked up much faster."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]


_NAME_MARKS = (
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "credential",
    "cookie",
    "authori",
    "signature",
    "dsn",
    "input",
    "otp",
    "code",
    "sid",
    "sess",
)
_RULES = (
    _Rule(("private key",), _PEM, _MASK),
    _Rule(("eyj",), _JWT, _MASK),
    _Rule(("$",), _HASH, _MASK),
    _Rule(("--",), _OPTION, rf"\g<name>{_MASK}"),
    _Rule(_NAME_MARKS, _NAMED_VALUE, _named),
    _Rule(("code=",), _CODE, rf"\g<name>{_MASK}"),
    _Rule(("://",), _USERINFO, _userinfo),
    _Rule(("bearer", "basic"), _SCHEME, rf"\g<scheme>{_MASK}"),
    _Rule(("[parameters", "detail:", "context:", "failing row", ")=(", "invalid input"), _DATABASE_VALUES, rf"\g<name>{_MASK}"),
)


def mask_text(text: str) -> str:
    """Replace what looks like a password, token, key or cookie in *text* by ``***``. Takes linear time."""
    lowered = text.lower()
    for marks, pattern, replacement in _RULES:
        for mark in marks:
            if mark in lowered:
                text = pattern.sub(replacement, text)
                break
    return text


@lru_cache(maxsize=512)
def _read_name(name: str) -> tuple[str, bool]:
    """Return the name of a field as it may be shown, and whether its value is secret. The same names come again and again."""
    return mask_text(name), bool(_SECRET_NAME.search(name)) and not name.lower().endswith(_HARMLESS)


def _names_secret(item: object, names: re.Pattern[str]) -> bool:
    return isinstance(item, str | bytes) and bool(names.fullmatch(text := text_of(item))) and _read_name(text)[1]


def mask_fields(fields: Mapping[str, object]) -> dict[str, JsonValue]:
    """Return *fields* as JSON has them, strings masked, and the whole value where a name, at any depth, says that it is secret.

    What JSON has not becomes text. At most 100 levels and 1,000 values are kept; an ellipsis stands for the rest.
    """
    return _Walk().mapping(fields, MAX_DEPTH)


@dataclass
class _Walk:
    left: int = _MAX_ITEMS

    def mapping(self, items: Mapping[object, object] | Mapping[str, object], depth: int) -> dict[str, JsonValue]:
        fields: dict[str, JsonValue] = {}
        for key, value in islice(items.items(), self.left + 1):
            name = text_of(key)
            shown, is_secret = _read_name(name) if len(name) <= _MAX_CACHED else _read_name.__wrapped__(name)
            fields[shown] = self.value(_MASK if is_secret else value, depth - 1)
        return fields

    def value(self, value: object, depth: int) -> JsonValue:
        self.left -= 1
        match value:
            case _ if self.left < 0:
                return "…"
            case None | bool():
                return value
            case int() if -(2**63) <= value < 2**64:
                return value
            case float() if math.isfinite(value):
                return value
            case _ if is_mapping(value) or is_items(value):
                return self.container(value, depth)
            case _:
                return mask_text(text_of(value))

    def container(self, value: object, depth: int) -> JsonValue:
        if depth < 0:
            return "…"
        try:
            return self.mapping(value, depth) if is_mapping(value) else self.items(value, depth)
        except Exception as error:
            return f"<{type(value).__name__} that raises {type(error).__name__}>"

    def items(self, value: object, depth: int) -> JsonValue:
        # A name and its value, as a message has them too, or many in a row: the words of a command line, raw headers.
        names = _PAIR_NAME if isinstance(value, Sized) and len(value) == 2 else _LONE_NAME
        items, masked, is_secret = value if is_items(value) else (), list[JsonValue](), False
        for item in islice(items, self.left + 1):
            masked.append(self.value(_MASK if is_secret else item, depth - 1))
            is_secret = _names_secret(item, names)
        return masked
