"""Keys and keyrings, and what they reject."""

import json
from base64 import b64encode, urlsafe_b64decode
from hashlib import sha512
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat
from fastapi import FastAPI
from jose import jwk
from pydantic import SecretStr
from tests.auth.people import SECRET
from tests.auth.tokens.test_hostile_tokens import ED, P256, RSA, pem

from fastapi_kit.auth import JWTService, Key, Keyring, TokenPolicy
from fastapi_kit.auth.tokens import Algorithm, JWKSet
from fastapi_kit.errors import ConfigurationError, InvalidTokenError
from fastapi_kit.testing import app_client

OTHER = "w8Kd2LqZ5xVb7Nf0Rt4YpG9mHs1CjE6u"


def public_pem(key: Any) -> bytes:
    raw: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw


@pytest.mark.parametrize(("algorithm", "least"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_short_secret(algorithm: Algorithm, least: int) -> None:
    """R9: a secret must be as long as the hash; one byte less is rejected."""
    secret = (SECRET + OTHER)[:least]

    assert Key(secret, algorithm).sign(b"x")
    with pytest.raises(ConfigurationError, match=f"at least {least} bytes"):
        Key(secret[:-1], algorithm)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "secret",
        "change-me-change-me-change-me-change-me",
        "your-secret-key-here-please-change-it-now",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "a" * 64,
        "ab" * 40,
        "0123456789" * 5,
        b"\0" * 64,
        bytes(range(8)) * 8,
    ],
)
def test_a_well_known_secret(secret: str | bytes) -> None:
    """R9: placeholders and repetitions are rejected, and the error does not show them."""
    with pytest.raises(ConfigurationError) as caught:
        Key(secret, "HS256")

    assert "openssl rand -hex 32" in str(caught.value)
    assert len(secret) < 10 or str(secret) not in str(caught.value)


PUBLIC = RSA.public_key()
DER = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    "secret",
    [
        pem(RSA),
        public_pem(RSA),
        public_pem(P256),
        DER,
        PUBLIC.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        b64encode(DER),
        b64encode(pem(RSA)),
        b"".join(public_pem(RSA).splitlines()[1:-1]),
        DER + b"\n",
        b'"' + b"".join(public_pem(RSA).splitlines()[1:-1]) + b'"',
        PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1],
        json.dumps(Key(pem(RSA), "RS256").public_jwk()).encode(),
    ],
    ids=[
        "private PEM",
        "PEM",
        "EC PEM",
        "DER",
        "PKCS1",
        "SSH",
        "base64 of DER",
        "base64 of PEM",
        "body of PEM",
        "DER and a line break",
        "body in quotes",
        "body of SSH",
        "JWK",
    ],
)
def test_a_key_file_is_no_secret(secret: bytes) -> None:
    """R9: a public key, in any form, is rejected as the secret of an HMAC."""
    with pytest.raises(ConfigurationError, match="key file"):
        Key(secret, "HS256")


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), SecretStr(SECRET), sha512(b"x").digest(), "пароль-" + SECRET])
def test_a_good_secret(secret: str | bytes | SecretStr) -> None:
    """R9: a secret may be a str, bytes or a SecretStr."""
    service = JWTService(secret_key=secret)

    assert service.decode(service.create_access_token("1")).sub == "1"


@pytest.mark.parametrize("secret", [f'"{SECRET}"', f'["{SECRET}"]', f'{{"k": "{SECRET}"}}'])
def test_a_secret_is_never_read_as_json(secret: str) -> None:
    """R9: a secret that looks like JSON is not read as JSON."""
    service, inner = JWTService(secret_key=secret), JWTService(secret_key=SECRET)

    assert service.decode(service.create_access_token("1")).sub == "1"
    with pytest.raises(InvalidTokenError):
        service.decode(inner.create_access_token("1"))


def small_rsa(bits: int) -> bytes:
    return pem(rsa.generate_private_key(65537, bits))


WRONG: list[tuple[str, Algorithm, Any]] = [
    ("a short RSA key", "RS256", small_rsa(1024)),
    ("a short RSA key for PSS", "PS256", small_rsa(1024)),
    ("P-384 for ES256", "ES256", pem(ec.generate_private_key(ec.SECP384R1()))),
    ("P-256 for ES512", "ES512", pem(P256)),
    ("secp256k1 for ES256", "ES256", pem(ec.generate_private_key(ec.SECP256K1()))),
    ("RSA for ES256", "ES256", pem(RSA)),
    ("EC for RS256", "RS256", pem(P256)),
    ("EC for EdDSA", "EdDSA", pem(P256)),
    ("Ed25519 for RS256", "RS256", pem(ED)),
    ("Ed448", "EdDSA", ed448.Ed448PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())),
    ("DSA", "RS256", public_pem(dsa.generate_private_key(1024))),
    ("a secret for RS256", "RS256", SECRET),
    ("half a PEM", "RS256", pem(RSA)[:200]),
    ("an encrypted PEM", "RS256", RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))),
    ("DER", "RS256", DER),
    ("nothing", "EdDSA", b""),
    ("a certificate", "RS256", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
]


@pytest.mark.parametrize(("algorithm", "material"), [pytest.param(algorithm, material, id=name) for name, algorithm, material in WRONG])
def test_a_key_that_does_not_fit(algorithm: Algorithm, material: str | bytes) -> None:
    """R10: weak keys, other curves and malformed keys are rejected at once, and the error does not show them."""
    with pytest.raises(ConfigurationError) as caught:
        Key(material, algorithm)

    raw = material if isinstance(material, str) else material.decode("latin-1")
    assert not any(line in str(caught.value) for line in raw.splitlines() if len(line) > 20)


@pytest.mark.parametrize("algorithm", ["none", "None", "", "HS128", "hs256", "RS1", "ES256K", "A256GCM", "dir", "HS256 "])
def test_an_unknown_algorithm(algorithm: Any) -> None:
    """R5: ``none`` and other unsafe or unknown algorithms cannot be configured."""
    with pytest.raises(ConfigurationError, match="HS256"):
        Key(SECRET, algorithm)


@pytest.mark.parametrize("algorithm", [None, ["HS256"], {"HS256"}, ("HS256", "RS256"), 1])
def test_algorithms_are_no_list(algorithm: Any) -> None:
    """R4: a list, a set or None as the algorithm raises TypeError."""
    with pytest.raises(TypeError, match="one name"):
        Key(SECRET, algorithm)
    with pytest.raises(TypeError):
        JWTService(secret_key=SECRET, algorithm=algorithm)


@pytest.mark.parametrize("material", [None, 1, ["x"], bytearray(b"x" * 40), object()])
def test_what_is_no_key_material(material: Any) -> None:
    """R9: a key of another type raises TypeError."""
    with pytest.raises(TypeError):
        Key(material, "HS256")


@pytest.mark.parametrize("kid", [1, b"k", ["k"], "", "k\n", "k" * 129, "schlüssel"])
def test_a_bad_kid(kid: Any) -> None:
    """R8: a kid must be a short printable string."""
    with pytest.raises((TypeError, ConfigurationError)):
        Key(SECRET, "HS256", kid=kid)


def mixed() -> list[tuple[Key, ...]]:
    rs, ps = Key(pem(RSA), "RS256", kid="a"), Key(public_pem(RSA), "PS256", kid="b")
    return [
        (),
        (Key(SECRET, "HS256"), Key(OTHER, "HS256")),
        (Key(SECRET, "HS256", kid="a"), Key(OTHER, "HS256")),
        (Key(SECRET, "HS256", kid="a"), Key(OTHER, "HS256", kid="a")),
        (Key(SECRET, "HS256"), Key(pem(RSA), "RS256")),
        (rs, ps),
        (ps, rs),
        (Key(public_pem(P256), "ES256", kid="a"), Key(SECRET, "HS256", kid="b")),
    ]


MIXED = mixed()


@pytest.mark.parametrize("keys", MIXED, ids=range(len(MIXED)))
def test_a_mixed_keyring(keys: tuple[Key, ...]) -> None:
    """R6: several keys without a kid or with the same kid, and one key with two algorithms, raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        Keyring(*keys)


def test_a_keyring_takes_keys() -> None:
    """R6: a keyring takes objects of Key only."""
    with pytest.raises(TypeError):
        Keyring(SECRET)  # type: ignore[arg-type]


def test_rotation() -> None:
    """R8: the first key signs, every key verifies; without the old key its tokens are rejected."""
    old, new = Key(SECRET, "HS256", kid="old"), Key(pem(ED), "EdDSA", kid="new")
    before, during, after = (JWTService(keyring=Keyring(*keys)) for keys in ((old,), (new, old), (new,)))
    token = before.create_access_token("1")

    assert during.decode(token).sub == "1"
    assert after.decode(during.create_access_token("2")).sub == "2"
    for service, refused in ((after, token), (before, during.create_access_token("2"))):
        with pytest.raises(InvalidTokenError, match="kid"):
            service.decode(refused)


def test_a_kid_chooses_one_key() -> None:
    """R4, R8: a token is verified with the key that it names and no other, by the algorithm of that key."""
    ring = Keyring(Key(SECRET, "HS256", kid="a"), Key(OTHER, "HS256", kid="b"))
    forged = JWTService(keyring=Keyring(Key(OTHER, "HS256", kid="a"))).create_access_token("1")

    with pytest.raises(InvalidTokenError, match="signature"):
        JWTService(keyring=ring).decode(forged)


def test_a_token_without_a_kid() -> None:
    """R8: if a key has a kid, a token must name it; a single key without a kid verifies every token."""
    plain, named = JWTService(secret_key=SECRET), JWTService(keyring=Keyring(Key(SECRET, "HS256", kid="a")))

    with pytest.raises(InvalidTokenError, match="kid"):
        named.decode(plain.create_access_token("1"))
    assert plain.decode(named.create_access_token("1")).sub == "1"


def test_a_public_key_only_verifies() -> None:
    """R6: a service with a public key decodes tokens and cannot create them."""
    private, public = JWTService(secret_key=pem(RSA), algorithm="RS256"), JWTService(secret_key=public_pem(RSA), algorithm="RS256")

    assert public.decode(private.create_access_token("1")).sub == "1"
    with pytest.raises(ConfigurationError, match="public"):
        public.create_access_token("1")


ASYMMETRIC: dict[Algorithm, bytes] = {
    "RS256": pem(RSA),
    "RS384": pem(RSA),
    "RS512": pem(RSA),
    "PS256": pem(RSA),
    "PS384": pem(RSA),
    "PS512": pem(RSA),
    "ES256": pem(P256),
    "ES384": pem(ec.generate_private_key(ec.SECP384R1())),
    "ES512": pem(ec.generate_private_key(ec.SECP521R1())),
    "EdDSA": pem(ED),
}


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
def test_every_algorithm(algorithm: Algorithm) -> None:
    """R10: each algorithm signs and verifies, and its JWK has public members only."""
    service = JWTService(keyring=Keyring(Key(ASYMMETRIC[algorithm], algorithm, kid="k")))

    assert service.decode(service.create_access_token("1")).sub == "1"
    (document,) = service.jwks()["keys"]
    assert document["alg"] == algorithm
    assert (document["kid"], document["use"]) == ("k", "sig")
    assert {"d", "p", "q", "dp", "dq", "qi", "k"}.isdisjoint(document)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "ES384", "ES512"])
def test_a_jwk_verifies(algorithm: Algorithm) -> None:
    """R8: another library can verify a token with the JWKS document."""
    service = JWTService(secret_key=ASYMMETRIC[algorithm], algorithm=algorithm)
    signing_input, _, signature = service.create_access_token("1").rpartition(".")

    key = jwk.construct(dict(service.jwks()["keys"][0]), algorithm)
    assert key.verify(signing_input.encode(), urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))


def test_a_jwk_of_ed25519_verifies() -> None:
    """R10: the JWK of an Ed25519 key is as in RFC 8037."""
    service = JWTService(secret_key=pem(ED), algorithm="EdDSA")
    document = service.jwks()["keys"][0]

    assert (document["kty"], document["crv"]) == ("OKP", "Ed25519")
    public = ed25519.Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(document["x"] + "="))
    signing_input, _, signature = service.create_access_token("1").rpartition(".")
    public.verify(urlsafe_b64decode(signature + "=" * (-len(signature) % 4)), signing_input.encode())


def test_secrets_are_in_no_document() -> None:
    """R8: a secret is not in the JWKS document."""
    ring = Keyring(Key(pem(P256), "ES256", kid="a"), Key(SECRET, "HS256", kid="b"))

    assert [key["kid"] for key in ring.jwks()["keys"]] == ["a"]
    assert JWTService(secret_key=SECRET).jwks() == {"keys": []}


def test_nothing_shows_a_key() -> None:
    """R9: the repr of a key, a keyring or a service does not show the material."""
    key = Key(SECRET, "HS256", kid="a")
    service = JWTService(keyring=Keyring(key))

    for thing in (key, Keyring(key), service, service.policy, Key(pem(RSA), "RS256")):
        assert SECRET not in repr(thing) + str(thing)
        assert "PRIVATE" not in repr(thing)


@pytest.mark.parametrize("options", [{}, {"secret_key": SECRET, "keyring": "ring"}, {"keyring": "ring", "algorithm": "HS512"}])
def test_one_way_to_say_it(options: dict[str, Any]) -> None:
    """R4: exactly one of a secret and a keyring is given."""
    given = {name: Keyring(Key(SECRET, "HS256")) if value == "ring" else value for name, value in options.items()}

    with pytest.raises(ConfigurationError):
        JWTService(**given, policy=TokenPolicy())


def test_the_back_end_is_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """R10: if python-jose uses pure Python, an asymmetric key raises ConfigurationError."""

    class Pure:
        """The key of jose's pure Python."""

        def __init__(self, *_: object) -> None: ...

    monkeypatch.setattr(jwk, "construct", lambda *_: Pure())

    with pytest.raises(ConfigurationError, match=r"python-jose\[cryptography\]"):
        Key(pem(RSA), "RS256")


async def test_a_route_for_the_document() -> None:
    """R8: a route can return the JWKS document, which has a schema in OpenAPI."""
    app = FastAPI()
    service = JWTService(keyring=Keyring(Key(pem(P256), "ES256", kid="a")))

    @app.get("/.well-known/jwks.json")
    async def read() -> JWKSet:
        return service.jwks()

    async with app_client(app) as client:
        assert (await client.get("/.well-known/jwks.json")).json() == service.jwks()
    assert "JWKSet" in app.openapi()["components"]["schemas"]
