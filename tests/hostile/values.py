"""Values of fields, as they stand in JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping

from tests.hostile.asgi import Sent
from tests.hostile.promise import CANARY

__all__ = [
    "DEEP",
    "FLOATS",
    "LABELS",
    "MOMENTS",
    "MONSTERS",
    "SPANS",
    "TYPES",
    "VALUES",
    "changes_of",
    "creations_of",
    "nested",
    "samples_of",
]

_C = CANARY.encode()


def nested(opening: bytes, levels: int, closing: bytes, leaf: bytes = b"") -> bytes:
    return opening * levels + leaf + closing * levels


# fmt: off
TYPES: tuple[bytes, ...] = (
    b"null", b"true", b"false", b"0", b"1", b"-1", b"1.5", b'""', b'" "', b"[]", b"{}", b"[null]", b"[[]]", b'{"":{}}', b'"null"',
    b'"' + _C + b'"', b'["' + _C + b'"]', b'{"' + _C + b'":"' + _C + b'"}',
)
"""Every type of JSON, for every field."""

_TEXTS = (
    rb'"\u0000"', rb'"a\u0000b"', rb'"\ud800"', rb'"\udfff"', rb'"a\ud800b"', rb'"\udc00\ud800"', rb'"\ud83d\ude00"', rb'"\uffff\ufffe"',
    b'"%s"' % (b"x" * 51), b'"%s"' % ("\N{GRINNING FACE}" * 50).encode(), b'"%s"' % ("\N{GRINNING FACE}" * 51).encode(),
    rb'"\u202e\u0008\u001b[31m"', b'"%s %(a)s {0} $1 :name ? \\\\; DROP TABLE notes --"', b'"\x7f"', b'"%s"' % (b"x" * 100_000),
)
_INTEGERS = (
    b"32767", b"32768", b"-32769", b"2147483647", b"2147483648", b"-2147483649", b"9223372036854775807", b"9223372036854775808",
    b"-9223372036854775809", b"1" * 40, b"-" + b"1" * 4000, b"1" * 5000, b'"%s"' % (b"1" * 4000), b'"%s"' % (b"1" * 5000),
    b"1.0", b"1e3", b"-0.0", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity", b'"1"', b'" 1 "', b'"1_0"', b'"0x1"', b'"1.0"',
    '"\N{CIRCLED DIGIT ONE}"'.encode(), '"\N{ARABIC-INDIC DIGIT ONE}"'.encode(), b'"+1"', b"01", b"+1", b".5", b"1.", b"0x1", b"1_0",
)
FLOATS = (
    b"1e308", b"-1e308", b"5e-324", b"1e-400", b"1" * 400, b"1" * 4000, b'"NaN"', b'"nan"', b'"inf"', b'"-Infinity"', b'"1e400"',
    b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"-0.0", b"0.1", b'"0x1p3"', b'"1,5"',
)
_DECIMALS = (
    b'"NaN"', b'"sNaN"', b'"Infinity"', b'"-inf"', b"NaN", b"1e400", b'"-0"', b'"0E+5"', b'"0x1"', b'"1_0"', b'"1e"', b'"."', b'" 1 "',
    b"99999999.99", b"99999999.995", b'"99999999.994"', b'"-99999999.995"', b"100000000", b'"1.005"', b'"1e999999999999999999999"',
)
MOMENTS = (
    b'"0001-01-01T00:00:00+14:00"', b'"9999-12-31T23:59:59-14:00"', b'"0001-01-01T00:00:00Z"', b'"9999-12-31T23:59:59.999999Z"',
    b'"0000-01-01T00:00:00Z"', b'"10000-01-01T00:00:00Z"', b'"-0001-01-01T00:00:00Z"', b'"2024-01-01T23:59:60Z"',
    b'"2016-12-31T23:59:60Z"',
    b'"2024-01-01T24:00:00Z"', b'"2024-01-01T00:00:00+24:00"', b'"2024-01-01T00:00:00-24:00"', b'"2024-01-01T00:00:00+23:59"',
    b'"2024-01-01T00:00:00+99:99"', b'"2024-01-01T00:00:00.1234567890Z"', b'"2024-02-30T00:00:00Z"', b'"2024-01-01"', b'"infinity"',
    b'"now"', b'"epoch"', b"0", b"-1", b"1e11", b"1e20", b"-1e20", b"1e400", b"NaN", b"1" * 400, b'"0"', b'"2024-W01-1T00:00:00Z"',
)
_DAYS = (
    b'"0000-01-01"', b'"0001-01-01"', b'"9999-12-31"', b'"10000-01-01"', b'"2024-02-30"', b'"2023-02-29"', b'"2024-13-01"', b'"24-1-1"',
    b"0", b"1", b"1e20", b"-1e20", b"NaN", b"1e400", b"1" * 400, b'"2024-01-01T00:00:00"', b'"2024-01-01T00:00:01"', b'"infinity"',
)
_CLOCKS = (
    b'"24:00"', b'"23:59:60"', b'"12:00"', b'"12:00+14:00"', b'"12:00Z"', b'"12:00+24:00"', b"86400", b"86399.5", b"-1", b"NaN", b"1e400",
)
_SPANS = (
    b'"P1000000000D"', b'"P99999999999999999999D"', b"1e20", b"NaN", b"1e400", b"1", b'"PT0.0000001S"', b'"-PT1S"', b'"P1Y"', b'"25:00"',
)
_DOCUMENTS = (
    b"NaN", b"[NaN]", b'{"a":Infinity}', b"[1e400]", rb'"\u0000"', rb'{"\u0000":1}', rb'["a",{"b":"\u0000"}]', rb'"\ud800"',
    rb'{"\ud800":1}',
    rb'[[["\udfff"]]]', b'{"a":1,"a":2}', b'{"":1}', b"-0.0", b"1" * 4000, b"1e308", b"[%s]" % b",".join([b"1"] * 5000),
    nested(b"[", 100, b"]"), nested(b'{"a":', 100, b"}", b"1"), nested(b'[{"a":', 50, b"}]", b"1"), nested(b"[", 100_000, b"]"),
)
_UUIDS = (
    b'"%s"' % (b"0" * 32), b'"{00000000-0000-0000-0000-000000000000}"', b'"urn:uuid:00000000-0000-0000-0000-000000000000"',
    b'"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"', b'"00000000-0000-0000-0000-00000000000"', b'"00000000-0000-0000-0000-0000000000000"',
    b'"gggggggg-0000-0000-0000-000000000000"', b'" 00000000-0000-0000-0000-000000000000"', rb'"\u0000"', b"0", b'"\xef\xbc\x90"',
)

VALUES: Mapping[str, tuple[bytes, ...]] = {
    "name": _TEXTS, "text": _TEXTS, "number": _INTEGERS, "big": _INTEGERS, "small": _INTEGERS, "ratio": FLOATS, "price": _DECIMALS,
    "amount": _DECIMALS, "day": _DAYS, "moment": (*MOMENTS, b'"2024-01-01T00:00:00"'), "clock": _CLOCKS, "span": _SPANS,
    "colour": (b'"red"', b'"RED"', b'"Red"', b'" red"', b'"green"', rb'"red\u0000"', b"0"), "data": _DOCUMENTS,
    "blob": (rb'"\u0000"', rb'"\ud800"', rb'"\u00ff"', b"[1]", b"1"), "token": _UUIDS,
    "flag": (b'"yes"', b'"on"', b'"t"', b'"TRUE"', b'"tRuE"', b"2", b"-1", b"1.0", b"0.5", b'"2"', b'" true"', b"NaN"),
}
"""What fits its type badly, by the field of a sample."""

MONSTERS = (
    b'"1e309"', b'"-1e309"', b'"1e131071"', b'"1e200000"', b'"1e1000000"', b'"-1e1000000"', b"1" * 400, b"1" * 4000,
    b'"%s"' % (b"9" * 200_000),
    b'"1e-20000"', b'"1e-1000000"', b'"-1e-20000"',
)
"""Decimals that SQLite cannot hold, or PostgreSQL."""

SPANS = (b'"P999999999D"', b'"-P999999999D"', b'"P10000000D"', b"-63000000000")
"""Intervals that SQLite cannot hold."""

DEEP = (
    nested(b"[", 300, b"]"), nested(b"[", 900, b"]"), nested(b'{"a":', 300, b"}", b"1"), nested(b'{"a":', 900, b"}", b"1"),
    nested(b'[{"a":', 150, b"}]", b"1"), nested(b'[{"a":', 450, b"}]", b"1"),
)
"""Documents that Python's JSON reads and Pydantic does not write."""


_OWN_VALUES: tuple[object, ...] = (CANARY, 1, None, {"a": 1})
_OWN_NAMES = (
    "_sa_instance_state", "__dict__", "__class__", "__init__", "__table__", "metadata", "registry", "", "\0", "\ud800", "n" * 1000, "id",
)
LABELS = [
    Sent(method=method, path=path, body=json.dumps({"name": f"l{index}", own: value} if method == "POST" else {own: value}).encode())
    for index, own in enumerate([*_OWN_NAMES, "name"])
    for value in _OWN_VALUES
    for method, path in (("POST", b"/labels"), ("PATCH", b"/labels/first"))
]
"""Names that an open schema lets through, and that are no column."""
# fmt: on


def samples_of(fields: Mapping[str, Iterable[bytes]]) -> Iterator[Sent]:
    """Yield a creation and a change with each of the values; all other fields are well."""
    for field, values in fields.items():
        for value in values:
            yield from (creations_of(field, value), changes_of(field, value))


def creations_of(field: str, value: bytes) -> Sent:
    """Return the creation of a sample with this value."""
    others = b"".join(b',"%s":%s' % (name, well) for name, well in ((b"name", b'"n"'), (b"number", b"1")) if name != field.encode())
    return Sent(path=b"/samples", body=b'{"%s":%s%s}' % (field.encode(), value, others))


def changes_of(field: str, value: bytes) -> Sent:
    """Return the change of the first sample to this value."""
    return Sent(method="PATCH", path=b"/samples/1", body=b'{"%s":%s}' % (field.encode(), value))
