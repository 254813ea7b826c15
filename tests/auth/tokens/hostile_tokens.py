"""Tokens that must be rejected. Each differs in one thing from a token that is accepted."""

import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from hmac import digest
from typing import Any

from tests.auth.people import SECRET

from fastapi_kit.auth import JWTService

Sign = Callable[[bytes], bytes]
Named = Iterator[tuple[str, str]]

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def hs256(message: bytes) -> bytes:
    """Sign as the holder of the tests' secret would."""
    return digest(SECRET.encode(), message, sha256)


def encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class Forge:
    """Makes tokens of any header and payload, validly signed."""

    def __init__(
        self, sign: Sign = hs256, algorithm: str = "HS256", *, type: str = "access", kid: str | None = None, now: float | None = None
    ):
        self.sign = sign
        self.now = int(time.time() if now is None else now)
        self.header: dict[str, Any] = {"alg": algorithm, "typ": "JWT", **({} if kid is None else {"kid": kid})}
        self.payload: dict[str, Any] = {
            "sub": "1",
            "type": type,
            "jti": "Zm9vYmFyYmF6cXV4cXV1eA",
            "iat": self.now,
            "exp": self.now + 86_400,  # some are made when the tests are collected, and used at the end of a long run
        }

    def raw(self, header: bytes, payload: bytes) -> str:
        signing_input = f"{encode(header)}.{encode(payload)}"
        return f"{signing_input}.{encode(self.sign(signing_input.encode()))}"

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a token of the usual header and claims but for these; a claim that is ... is left out."""
        merged = {name: value for name, value in {**self.payload, **claims}.items() if value is not ...}
        fields = {name: value for name, value in {**self.header, **(header or {})}.items() if value is not ...}
        return self.raw(json.dumps(fields).encode(), json.dumps(merged).encode())

    def with_json(self, *, header: str | bytes | None = None, payload: str | bytes | None = None) -> str:
        first, second = (
            json.dumps(self.header).encode() if header is None else header,
            json.dumps(self.payload).encode() if payload is None else payload,
        )
        return self.raw(*(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in (first, second)))


def valid_neighbours(forge: Forge) -> Named:
    """Tokens that are accepted, so that a hostile token is rejected for its one fault."""
    now = forge.now
    yield "as it is", forge.token()
    yield "no typ", forge.token({"typ": ...})
    yield "typ in small letters", forge.token({"typ": "jwt"})
    yield "typ as a media type", forge.token({"typ": "application/jwt"})
    yield "b64 true", forge.token({"b64": True})
    yield "keys that are never read", forge.token({"jku": "https://evil.example.com", "x5u": "x", "x5c": ["x"], "jwk": {"kty": "oct"}})
    yield "exp as a fraction", forge.token(exp=now + 900.5)
    yield "exp far away", forge.token(exp=253402300799)
    yield "issued at its end", forge.token(iat=now + 5, exp=now + 5)
    yield "nbf in the past", forge.token(nbf=now - 5)
    yield "clocks that differ", forge.token(iat=now + 5, nbf=now + 5)
    yield "just expired", forge.token(iat=now - 900, exp=now - 5)
    yield "other claims", forge.token(roles=["a"], nested={"a": [1, None, True]}, text="\u00e9\U0001f98a")
    yield "an issuer that nobody asked for", forge.token(iss="https://issuer.example.com")
    yield "scopes", forge.token(scope="a b:c d/e")
    yield "a session", forge.token(sid="s")
    yield "an actor", forge.token(act={"sub": "2"})
    yield "a long subject", forge.token(sub="x" * 1000)
    yield "white space in the JSON", forge.with_json(payload=json.dumps(forge.payload, indent=2))
    yield "nested to the limit", forge.token(deep=_nested(30))
    yield "many brackets, none of them deep", forge.token(flat=[[{}]] * 40, text="[{" * 40)


def _nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def hostile_tokens(tokens: JWTService | None = None, *, forge: Forge | None = None, type: str = "access") -> Named:
    """Yield a few hundred names and tokens. *tokens* has the clock."""
    forge = forge or Forge(type=type, now=tokens.now().timestamp() if tokens else None)
    for group in (_segments, _spellings, _json_faults, _deep, _headers, _claims, _times, _signatures, _sizes):
        yield from ((f"{group.__name__.strip('_')}: {name}", token) for name, token in group(forge))


def _segments(forge: Forge) -> Named:
    good = forge.token()
    header, payload, signature = good.split(".")
    for name in ("", ".", "..", "...", "x", "x.y", "x.y.z", "null", "Bearer", "undefined", "true", "[]", "{}", "%00", "-.-.-", "_._._"):
        yield f"nothing but {name!r}", name
    parts = {
        "one segment": header,
        "two segments": f"{header}.{payload}",
        "no signature": f"{header}.{payload}.",
        "no payload": f"{header}..{signature}",
        "no header": f".{payload}.{signature}",
        "four segments": f"{good}.{signature}",
        "five segments, as JWE": f"{good}.x.y",
        "a dot at the end": f"{good}.",
        "a dot at the beginning": f".{good}",
        "twice": f"{good}{good}",
        "two, comma": f"{good},{good}",
        "reversed": good[::-1],
        "header and payload swapped": f"{payload}.{header}.{signature}",
        "JSON serialization": json.dumps({"protected": header, "payload": payload, "signature": signature}),
    }
    yield from parts.items()


def _spellings(forge: Forge) -> Named:
    """Other texts that a lenient base64 reads as the same bytes."""
    good = forge.token()
    parts = good.split(".")
    for index, part in enumerate(parts):
        for addition in (
            "=",
            "==",
            "===",
            "====",
            "!!!!",
            "####",
            " ",
            "\n",
            "\t",
            "\r\n",
            "\0",
            "\u200b",
            "\ufeff",
            "\u00e9",
            "\u0661",
            "*",
            "~",
            "%3D",
            "A",
            "AA",
            "AAAA",
        ):
            yield f"{addition!r} after segment {index}", _replaced(parts, index, part + addition)
        for insertion in (" ", "\n", "=", "\u200b", "+", "/", "\u00e9", "."):
            yield f"{insertion!r} inside segment {index}", _replaced(parts, index, part[:5] + insertion + part[5:])
        yield f"white space before segment {index}", _replaced(parts, index, " " + part)
        yield f"full-width letters in segment {index}", _replaced(parts, index, chr(ord(part[0]) + 0xFEE0) + part[1:])
        yield f"the last character of segment {index} cut off", _replaced(parts, index, part[:-1])
    signature = parts[2]
    if len(signature) % 4:
        for alias in _aliases(signature[-1], 16 if len(signature) % 4 == 2 else 4):
            yield f"the signature ending {alias} for {signature[-1]}", _replaced(parts, 2, signature[:-1] + alias)
    yield "a byte order mark", "\ufeff" + good
    yield "in quotes", f'"{good}"'
    yield "a scheme before it", f"Bearer {good}"
    yield "in capitals", good.upper()
    standard = b64encode(forge.sign(b"?>?>")).decode().rstrip("=")
    yield "the standard alphabet", f"{parts[0]}.{parts[1]}.{standard}+/"


def _aliases(last: str, step: int) -> list[str]:
    index = ALPHABET.index(last)
    return [ALPHABET[other] for other in range(index - index % step, index - index % step + step) if other != index]


def _replaced(parts: list[str], index: int, part: str) -> str:
    return ".".join(part if place == index else other for place, other in enumerate(parts))


def _json_faults(forge: Forge) -> Named:
    header, payload = json.dumps(forge.header), json.dumps(forge.payload)
    scalars = [
        "null",
        "true",
        "0",
        "1e400",
        '"text"',
        "[]",
        f"[{payload}]",
        "",
        " ",
        "{",
        "{}",
        "{}{}",
        "NaN",
        "-Infinity",
        "undefined",
        "'a'",
    ]
    for text in scalars:
        yield f"the payload {text[:20]}", forge.with_json(payload=text)
        yield f"the header {text[:20]}", forge.with_json(header=text)
    for addition in (
        '"x": NaN',
        '"x": Infinity',
        '"x": -Infinity',
        '"x": 1e400',
        '"x": 1e999999',
        '"x": [NaN]',
        '"x": {"y": 1e400}',
        '"x": 01',
        '"x": +1',
        '"x": 1.',
        '"x": "\\ud800"',
        '"\\udfff": 1',
        '"x": {"\\ud83d": 1}',
        '"x": "\\x00"',
        '"x": "a\nb"',
        "x: 1",
        '"x": 1,',
        '"x"',
    ):
        yield f"{addition} in the payload", forge.with_json(payload=f"{payload[:-1]}, {addition}}}")
        yield f"{addition} in the header", forge.with_json(header=f"{header[:-1]}, {addition}}}")
    for name, value in {"sub": '"2"', "exp": "99999999999", "type": '"access"', "aud": '"a", "aud": "b"', "x": '1, "x": 2'}.items():
        yield f"{name} twice in the payload", forge.with_json(payload=f'{payload[:-1]}, "{name}": {value}, "{name}": {value}}}')
    for name in ("sub", "type", "exp", "jti"):
        yield f"{name} once more", forge.with_json(payload=f'{payload[:-1]}, "{name}": {json.dumps(forge.payload[name])}}}')
    yield "alg twice", forge.with_json(header=f'{{"alg": "none", {header[1:]}')
    yield "alg twice, the good one first", forge.with_json(header=f'{header[:-1]}, "alg": "none"}}')
    yield "members twice, below the top", forge.with_json(payload=f'{payload[:-1]}, "x": {{"y": 1, "y": 2}}}}')
    yield "a comment", forge.with_json(payload=f"/* */{payload}")
    yield "something after the payload", forge.with_json(payload=f"{payload} x")
    yield "something after the header", forge.with_json(header=f"{header} x")
    for name, codec in {"UTF-16": "utf-16", "UTF-32": "utf-32", "a byte order mark": "utf-8-sig"}.items():
        yield f"the payload in {name}", forge.with_json(payload=payload.encode(codec))
        yield f"the header in {name}", forge.with_json(header=header.encode(codec))
    for raw in (b"\xff", b"\x80abc", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x00"):
        yield f"the bytes {raw!r} in the payload", forge.with_json(payload=payload.encode()[:-1] + b', "x": "' + raw + b'"}')
        yield f"the bytes {raw!r} in the header", forge.with_json(header=header.encode()[:-1] + b', "x": "' + raw + b'"}')
    yield "a number of 5,000 digits", forge.with_json(payload=f'{payload[:-1]}, "x": {"9" * 5000}}}')


def _deep(forge: Forge) -> Named:
    header, payload = json.dumps(forge.header), json.dumps(forge.payload)
    for levels in (101, 200, 500, 890, 980, 1000, 1100, 2500):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            inner = f"{opening * levels}1{closing * levels}"
            yield f"{levels} levels of {opening} in the payload", forge.with_json(payload=f'{payload[:-1]}, "x": {inner}}}')
            yield f"{levels} levels of {opening} in the header", forge.with_json(header=f'{header[:-1]}, "x": {inner}}}')
            yield f"{levels} levels of {opening} that never end", forge.with_json(header=opening * levels)


def _headers(forge: Forge) -> Named:
    own = forge.header["alg"]
    others: list[Any] = [
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        " ",
        None,
        True,
        0,
        [own],
        [own, "none"],
        {"alg": own},
        own.lower(),
        f" {own}",
        f"{own} ",
        f"{own}\0",
        own[:2],
        "HS",
        "HS1",
        "RSA1_5",
        "dir",
        "A256GCM",
    ]
    others += [name for name in ("HS256", "HS384", "HS512", "RS256", "RS512", "PS256", "ES256", "ES512", "EdDSA", "ES256K") if name != own]
    for alg in others:
        yield f"alg {alg!r}", forge.token({"alg": alg})
    yield "no alg", forge.token({"alg": ...})
    for alg in ("none", "None", "NONE"):
        header = encode(json.dumps({**forge.header, "alg": alg}).encode())
        payload = encode(json.dumps(forge.payload).encode())
        for signature in ("", "AA", "e30"):
            yield f"alg {alg} signed {signature!r}", f"{header}.{payload}.{signature}"
    for crit in ([], ["exp"], ["b64"], ["x"], "exp", None, True, {}):
        yield f"crit {crit!r}", forge.token({"crit": crit})
    for cty in ("JWT", "jwt", "application/json", "", None, 1):
        yield f"cty {cty!r}", forge.token({"cty": cty})
    for b64 in (False, None, 0, 1, "true", []):
        yield f"b64 {b64!r}", forge.token({"b64": b64})
    for typ in (
        "at+jwt",
        "application/at+jwt",
        "JWE",
        "dpop+jwt",
        "",
        None,
        1,
        ["JWT"],
        "JWT JWT",
        "JW\u0422",
        "logout+jwt",
        "secevent+jwt",
    ):
        yield f"typ {typ!r}", forge.token({"typ": typ})
    for kid in (1, None, True, [], ["k"], {}, 1.5):
        yield f"kid {kid!r}", forge.token({"kid": kid})
    if "kid" in forge.header:
        for name in ("", "x", "../../dev/null", "' OR 1=1 --", "k1\0", "K1", "k" * 5000, "https://evil.example.com/key"):
            yield f"kid {name[:30]!r}", forge.token({"kid": name})
        yield "no kid", forge.token({"kid": ...})


ODD: dict[str, list[Any]] = {
    "sub": [..., None, "", " ", "\t", "1\n", "\u200b", "a\0b", 1, 1.0, True, [], ["1"], {}, {"a": "1"}, "\u202e1"],
    "type": [..., None, "", "Access", "ACCESS", "access ", "other", True, 1, ["access"], {"access": 1}, "verify", "reset", "mfa", "api"],
    "jti": [..., None, "", "short", 1, True, [], {}, " " * 22, "a" * 21 + "\0", "a" * 15],
    "exp": [
        ...,
        None,
        "",
        True,
        False,
        [],
        {},
        "9999999999",
        " 123 ",
        "9_999_999_999",
        "\u0669" * 10,
        -1,
        0,
        1,
        1.5,
        10**12,
        10**30,
        -(10**30),
        1e300,
    ],
    "iat": [..., None, "", True, False, [], {}, "1", "\u0661", -1, 10**12, 1e300, 10**30],
    "nbf": [None, "", True, False, [], {}, "1", -1, 10**12, 10**30],
    "iss": [None, "", True, 1, [], ["a"], {}, "\0"],
    "aud": ["", "a", [], ["a"], ["a", "b"], [""], [1], None, 1, True, {}, [["a"]], "https://api.example.com"],
    "scope": [None, "", " ", "a  b", " a", "a ", "a\tb", "a\nb", 'a"b', "a\\b", "\u00e9", 1, True, ["a"], {}, [], "a\0"],
    "sid": [None, "", " ", 1, True, [], {}, "a\0"],
}


def _claims(forge: Forge) -> Named:
    for name, values in ODD.items():
        for value in values:
            if value != forge.payload.get(name):
                shown = "left out" if value is ... else repr(value)[:40]
                yield f"{name} {shown}", forge.token(**{name: value})
    other = "refresh" if forge.payload["type"] == "access" else "access"
    yield f"the type {other}", forge.token(type=other)
    yield "no claim at all", forge.with_json(payload="{}")


def _times(forge: Forge) -> Named:
    now = forge.now
    yield "expired long ago", forge.token(iat=now - 9000, exp=now - 8000)
    yield "expired, beyond the leeway", forge.token(iat=now - 900, exp=now - 11)
    yield "issued in the future", forge.token(iat=now + 60)
    yield "valid in the future", forge.token(nbf=now + 60)
    yield "issued after its end", forge.token(iat=now + 8, exp=now + 7)


def _signatures(forge: Forge) -> Named:
    good = forge.token()
    signing_input, _, signature = good.rpartition(".")
    raw = forge.sign(signing_input.encode())
    for name, other in {
        "empty": b"",
        "a byte": b"\0",
        "zeros": bytes(len(raw)),
        "ones": b"\xff" * len(raw),
        "cut off": raw[:-1],
        "half": raw[: len(raw) // 2],
        "longer": raw + b"\0",
        "twice": raw + raw,
        "backwards": raw[::-1],
        "one bit off": bytes([raw[0] ^ 1]) + raw[1:],
        "the last bit off": raw[:-1] + bytes([raw[-1] ^ 1]),
        "a plain hash": sha256(signing_input.encode()).digest(),
        "of an empty secret": digest(b"", signing_input.encode(), sha256),
        "of another secret": digest(b"x" * 32, signing_input.encode(), sha256),
        "of a known secret": digest(b"secret", signing_input.encode(), sha256),
        "of its own text": raw.hex().encode(),
    }.items():
        yield f"a signature that is {name}", f"{signing_input}.{encode(other)}".rstrip(".") + ("." if not other else "")
    header, payload, _ = good.split(".")
    changed = encode(json.dumps({**forge.payload, "sub": "2"}).encode())
    yield "another payload under the signature", f"{header}.{changed}.{signature}"
    yield "another header under the signature", f"{encode(json.dumps({**forge.header, 'x': 1}).encode())}.{payload}.{signature}"
    spaced = encode(json.dumps(forge.payload, indent=1).encode())
    yield "the same claims, written otherwise, under the signature", f"{header}.{spaced}.{signature}"


def _sizes(forge: Forge) -> Named:
    for size in (8200, 20_000, 100_000):
        yield f"a claim of {size} characters", forge.token(x="x" * size)
        yield f"{size} dots", "." * size
        yield f"a signature of {size} characters", f"{forge.token()}{'A' * size}"
    yield "a subject of 10,000 characters", forge.token(sub="x" * 10_000)
    yield "10,000 scopes", forge.token(scope=" ".join(map(str, range(10_000))))
