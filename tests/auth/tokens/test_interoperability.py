"""PyJWT and joserfc read our tokens and our keys, and we read theirs."""

import json
import secrets
import time
from base64 import urlsafe_b64encode
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet, OctKey, import_key
from tests.auth.tokens.test_hostile_tokens import ED, P256, RSA, pem
from tests.auth.tokens.test_keys import public_pem

from fastapi_kit.auth import JWTService, Key, Keyring
from fastapi_kit.auth.tokens import Algorithm
from fastapi_kit.auth.tokens.remote import RemoteIssuer
from fastapi_kit.errors import InvalidTokenError

# RFC 9864 has another name for EdDSA over Ed25519, and joserfc says so.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated")

SECRET = secrets.token_hex(48)
PRIVATE: dict[Algorithm, Any] = {
    "RS256": RSA,
    "RS384": RSA,
    "RS512": RSA,
    "PS256": RSA,
    "PS384": RSA,
    "PS512": RSA,
    "ES256": P256,
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ED,
}
ALGORITHMS: list[Algorithm] = ["HS256", "HS384", "HS512", *PRIVATE]
EVERY_ALGORITHM = pytest.mark.parametrize("algorithm", ALGORITHMS)
EVERY_KEY_PAIR = pytest.mark.parametrize("algorithm", PRIVATE)


def service(algorithm: Algorithm) -> JWTService:
    material = pem(PRIVATE[algorithm]) if algorithm in PRIVATE else SECRET
    return JWTService(keyring=Keyring(Key(material, algorithm, kid="k-1")))


def payload() -> dict[str, Any]:
    now = int(time.time())
    return {"sub": "7", "type": "access", "jti": secrets.token_hex(16), "iat": now, "exp": now + 900, "scope": "a b", "name": "Zoë"}


def joserfc_key(algorithm: Algorithm, *, private: bool) -> Any:
    if algorithm not in PRIVATE:
        return OctKey.import_key(SECRET)
    key = PRIVATE[algorithm]
    return import_key(pem(key) if private else public_pem(key), kind_of(key))


def kind_of(key: Any) -> Any:
    return "RSA" if key is RSA else "OKP" if key is ED else "EC"


@EVERY_ALGORITHM
def test_pyjwt_reads_our_tokens(algorithm: Algorithm) -> None:
    """A service that uses PyJWT verifies our tokens, and sees the same claims."""
    key = public_pem(PRIVATE[algorithm]) if algorithm in PRIVATE else SECRET

    token = service(algorithm).create_access_token("7", scopes=["b", "a"], extra={"name": "Zoë"})

    claims = jwt.decode(token, key, algorithms=[algorithm])
    assert (claims["sub"], claims["scope"], claims["name"]) == ("7", "a b", "Zoë")
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT", "kid": "k-1"}


@EVERY_ALGORITHM
def test_joserfc_reads_our_tokens(algorithm: Algorithm) -> None:
    """A service that uses joserfc verifies our tokens, and sees the same claims."""
    token = service(algorithm).create_access_token("7", scopes=["b", "a"], extra={"name": "Zoë"})

    read = joserfc_jwt.decode(token, joserfc_key(algorithm, private=False), algorithms=[algorithm])

    assert (read.claims["sub"], read.claims["scope"], read.claims["name"]) == ("7", "a b", "Zoë")


@EVERY_ALGORITHM
def test_we_read_tokens_of_pyjwt(algorithm: Algorithm) -> None:
    """We verify tokens that PyJWT has signed, and none whose signature is another's."""
    key = PRIVATE.get(algorithm, SECRET)
    token = jwt.encode(payload(), key, algorithm, headers={"kid": "k-1"})

    claims = service(algorithm).decode(token)

    assert (claims.sub, claims.scopes, claims.extra) == ("7", {"a", "b"}, {"name": "Zoë"})
    with pytest.raises(InvalidTokenError, match="signature"):
        service(algorithm).decode(".".join([*token.split(".")[:2], urlsafe_b64encode(bytes(64)).rstrip(b"=").decode()]))


@EVERY_ALGORITHM
def test_we_read_tokens_of_joserfc(algorithm: Algorithm) -> None:
    """We verify tokens that joserfc has signed."""
    header = {"alg": algorithm, "typ": "JWT", "kid": "k-1"}
    token = joserfc_jwt.encode(header, payload(), joserfc_key(algorithm, private=True), algorithms=[algorithm])

    claims = service(algorithm).decode(token)

    assert (claims.sub, claims.scopes, claims.extra) == ("7", {"a", "b"}, {"name": "Zoë"})


@EVERY_KEY_PAIR
def test_both_read_our_keys(algorithm: Algorithm) -> None:
    """PyJWT and joserfc find the key in our JWKS document by its kid, and verify our tokens with it."""
    tokens = service(algorithm)
    token, document = tokens.create_access_token("7"), json.loads(json.dumps(tokens.jwks()))

    key = jwt.PyJWKSet.from_dict(document)["k-1"]
    assert key.algorithm_name == algorithm
    assert jwt.decode(token, key, algorithms=[algorithm])["sub"] == "7"
    keys = KeySet.import_key_set(document)
    assert joserfc_jwt.decode(token, keys, algorithms=[algorithm]).claims["sub"] == "7"


@EVERY_KEY_PAIR
async def test_we_read_our_own_keys(algorithm: Algorithm) -> None:
    """A RemoteIssuer reads the document of a JWTService, and verifies tokens of PyJWT with it."""
    document = json.dumps(service(algorithm).jwks()).encode()

    async def fetch(url: str) -> bytes:
        return document

    verifier = RemoteIssuer("https://tenant.example.org", audience="api", algorithms=[algorithm], fetch=fetch)
    token = jwt.encode({**payload(), "iss": "https://tenant.example.org", "aud": "api"}, PRIVATE[algorithm], algorithm, {"kid": "k-1"})

    assert (await verifier.verify(token)).sub == "7"


@EVERY_KEY_PAIR
async def test_we_read_keys_of_joserfc(algorithm: Algorithm) -> None:
    """A RemoteIssuer reads keys as joserfc writes them: with a thumbprint for a kid, and no ``alg``."""
    key = joserfc_key(algorithm, private=True)
    key.ensure_kid()
    document = json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    async def fetch(url: str) -> bytes:
        return document

    verifier = RemoteIssuer("https://tenant.example.org", audience="api", algorithms=[algorithm], fetch=fetch)
    claims = {**payload(), "iss": "https://tenant.example.org", "aud": "api"}
    token = joserfc_jwt.encode({"alg": algorithm, "kid": key.kid}, claims, key, algorithms=[algorithm])

    assert (await verifier.verify(token)).sub == "7"
