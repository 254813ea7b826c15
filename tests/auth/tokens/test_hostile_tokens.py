"""Hostile tokens raise InvalidTokenError and nothing else; their valid neighbours are accepted."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from hmac import digest

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tests.auth.people import SECRET, tokens
from tests.auth.tokens.hostile_tokens import ALPHABET, Forge, encode, hostile_tokens, hs256, valid_neighbours

from fastapi_kit.auth import JWTService, Key, Keyring, TokenPolicy
from fastapi_kit.errors import InvalidTokenError

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def sign_es256(message: bytes) -> bytes:
    r, s = decode_dss_signature(P256.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def sign_rs256(message: bytes) -> bytes:
    return RSA.sign(message, padding.PKCS1v15(), hashes.SHA256())


def sign_ps256(message: bytes) -> bytes:
    return RSA.sign(message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())


WORLDS: dict[str, tuple[JWTService, Callable[[], Forge]]] = {
    "HS256": (tokens, Forge),
    "HS256 with a kid": (JWTService(keyring=Keyring(Key(SECRET, "HS256", kid="k1"))), lambda: Forge(kid="k1")),
    "RS256": (JWTService(secret_key=pem(RSA), algorithm="RS256"), lambda: Forge(sign_rs256, "RS256")),
    "PS256": (JWTService(secret_key=pem(RSA), algorithm="PS256"), lambda: Forge(sign_ps256, "PS256")),
    "ES256": (JWTService(secret_key=pem(P256), algorithm="ES256"), lambda: Forge(sign_es256, "ES256")),
    "EdDSA": (JWTService(secret_key=pem(ED), algorithm="EdDSA"), lambda: Forge(ED.sign, "EdDSA")),
}
EVERY_WORLD = pytest.mark.parametrize("world", WORLDS)


@EVERY_WORLD
def test_the_neighbours_are_accepted(world: str) -> None:
    """R1: a token by another hand that keeps the rules is accepted, so that the forge is known to forge well."""
    service, forge = WORLDS[world]

    for name, token in valid_neighbours(forge()):
        assert service.decode(token).jti, name


@EVERY_WORLD
def test_hostile_tokens_are_rejected(world: str) -> None:
    """R20: several hundred hostile tokens raise InvalidTokenError, as str and as bytes, with a reason that shows nothing of them."""
    service, forge = WORLDS[world]
    count = 0
    for name, token in hostile_tokens(forge=forge()):
        count += 1
        for given_token in (token, token.encode("utf-8", "surrogatepass")):
            with pytest.raises(InvalidTokenError) as caught:
                service.decode(given_token)  # type: ignore[arg-type]
                pytest.fail(name)
        assert len(str(caught.value)) < 60
        assert len(token) < 8 or token not in str(caught.value)
    assert count > 500


@pytest.mark.parametrize("depth", [10, 300, 700])
def test_depth_at_every_depth_of_the_stack(depth: int) -> None:
    """R3: nesting never escapes as RecursionError, however deep the caller already is."""
    forge = Forge()
    texts = [f'{{"alg": "HS256", "x": {"[" * levels}1{"]" * levels}}}' for levels in (*range(1, 100, 7), *range(101, 1100, 37))]
    hostile = [forge.with_json(header=text) for text in texts[15:]] + [forge.with_json(payload=text) for text in texts]

    def descend(levels: int) -> None:
        if levels:
            descend(levels - 1)
            return
        for token in hostile:
            with pytest.raises(InvalidTokenError):
                tokens.decode(token)

    descend(depth)


@pytest.mark.parametrize("odd", [None, 1, 1.5, True, [], {}, object(), b"", "", bytearray(b"x.y.z"), memoryview(b"x.y.z"), ("a", "b")])
def test_what_is_no_text(odd: object) -> None:
    """R20: None, such as a missing cookie, and other objects that are not strings raise InvalidTokenError."""
    with pytest.raises(InvalidTokenError):
        tokens.decode(odd)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["\ud800.\ud800.\ud800", "é.é.é", "\0.\0.\0", "🦊" * 3000, "a.b.c\ud800"], ids=ascii)
def test_text_that_cannot_be_encoded(text: str) -> None:
    """R20: lone surrogates raise InvalidTokenError, not UnicodeEncodeError."""
    with pytest.raises(InvalidTokenError):
        tokens.decode(text)


def test_the_public_key_is_no_secret() -> None:
    """R6: a token signed by HMAC with the public key, in any of its forms, is rejected (algorithm confusion)."""
    public = RSA.public_key()
    subject = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    forms = [
        subject,
        subject.strip(),
        der,
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        b64encode(der),
        b"".join(subject.splitlines()[1:-1]),
    ]
    service = WORLDS["RS256"][0]
    forms.append(json.dumps(service.jwks()["keys"][0]).encode())

    for form in forms:
        for algorithm in ("HS256", "RS256"):
            forge = Forge(lambda message, form=form: digest(form, message, sha256), algorithm)
            with pytest.raises(InvalidTokenError):
                service.decode(forge.token())


@pytest.mark.only_full
def test_the_size_of_a_token() -> None:
    """R2: a token of the maximal length is decoded; one character more is rejected before it is parsed."""
    token = Forge().token(x="x" * 1000)

    assert JWTService(secret_key=SECRET, policy=TokenPolicy(max_length=len(token))).decode(token)
    for refused in (token, "{" * len(token)):
        with pytest.raises(InvalidTokenError, match="too long"):
            JWTService(secret_key=SECRET, policy=TokenPolicy(max_length=len(token) - 1)).decode(refused)


async def test_verify_rejects_as_decode_does() -> None:
    """R20: verify raises as decode does, and accepts access tokens only."""
    assert (await tokens.verify(tokens.create_access_token("1"))).sub == "1"
    for token in ("", tokens.create_refresh_token("1")):
        with pytest.raises(InvalidTokenError):
            await tokens.verify(token)


def test_a_gathering_of_threads() -> None:
    """R20: several threads can use one service."""

    async def check() -> list[str]:
        return [
            claims.sub
            for claims in await asyncio.gather(*(asyncio.to_thread(tokens.decode, tokens.create_access_token(str(n))) for n in range(50)))
        ]

    assert asyncio.run(check()) == [str(number) for number in range(50)]


# --- Properties ---


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300), st.none()))
def test_any_input(token: str | bytes | None) -> None:
    """R20: any input raises InvalidTokenError and nothing else."""
    with pytest.raises(InvalidTokenError):
        tokens.decode(token)  # type: ignore[arg-type]


@given(st.lists(st.text(ALPHABET, min_size=1, max_size=80), min_size=3, max_size=3))
def test_any_three_segments(parts: list[str]) -> None:
    """R20: three random segments of base64url raise InvalidTokenError."""
    with pytest.raises(InvalidTokenError):
        tokens.decode(".".join(parts))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.only_full
@given(
    st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "x"]), JSON),
    st.dictionaries(st.sampled_from(["sub", "exp", "iat", "nbf", "jti", "type", "aud", "iss", "scope", "sid", "act", "x"]), JSON),
)
def test_any_signed_claims(header: dict[str, object], claims: dict[str, object]) -> None:
    """R20: any signed payload gives claims or raises InvalidTokenError."""
    forge = Forge()
    token = forge.raw(json.dumps({**forge.header, **header}).encode(), json.dumps({**forge.payload, **claims}).encode())
    with suppress(InvalidTokenError):
        assert tokens.decode(token).sub


GOOD = Forge().token()


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(ALPHABET + ".=+/ \n\u200b"))
def test_any_change_of_one_character(place: int, character: str) -> None:
    """R1: a token has one spelling: with any character changed or added it is rejected."""
    assert tokens.decode(GOOD)
    changed, longer = GOOD[:place] + character + GOOD[place + 1 :], GOOD[:place] + character + GOOD[place:]

    for token in {changed, longer} - {GOOD}:
        with pytest.raises(InvalidTokenError):
            tokens.decode(token)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, len(GOOD) - 1))
def test_any_part_of_a_token(start: int, end: int) -> None:
    """R1: a part of a token, and parts of two tokens together, are rejected."""
    other = Forge().token(sub="2")

    for token in (GOOD[start:end], GOOD[:start] + other[start:end] + GOOD[end:], GOOD[:start] + other[start:]):
        if token not in {GOOD, other}:
            with pytest.raises(InvalidTokenError):
                tokens.decode(token)


def test_the_forge_signs_as_the_library_does() -> None:
    """R1: the signatures of these tests are those of the library."""
    signing_input, _, signature = tokens.create_access_token("1").rpartition(".")

    assert encode(hs256(signing_input.encode())) == signature
