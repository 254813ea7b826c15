"""Access tokens of another issuer, whose keys are fetched over HTTP from a real server."""

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi import Depends, FastAPI
from tests.auth.people import SECRET, Person, client_of, no_session
from tests.auth.tokens.issuer import FIRST, SECOND, Issuer, jwk_of, running
from tests.auth.tokens.test_hostile_tokens import pem

from fastapi_kit.auth import JWTService, TokenClaims, TokenPolicy, get_current_user_factory, require
from fastapi_kit.auth.tokens.claims import TOKEN_TYPES, TokenType
from fastapi_kit.auth.tokens.remote import RemoteIssuer, fetch
from fastapi_kit.errors import ConfigurationError, InvalidTokenError, MissingExtraError, UnavailableError
from fastapi_kit.handlers import register_exception_handlers
from fastapi_kit.testing import app_client

P256 = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


@pytest.fixture
def issuer() -> Issuer:
    """An issuer whose keys are fetched without a network."""
    return Issuer()


@pytest.fixture
async def served() -> AsyncIterator[Issuer]:
    """An issuer on a real server."""
    async with running(Issuer()) as issuer:
        yield issuer


async def reason(verifier: RemoteIssuer, token: Any) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        await verifier.verify(token)
    return caught.value.reason


# --- Claims ---


async def test_a_token(issuer: Issuer) -> None:
    """Your routes get the claims of a token of the issuer: it is an access token, with its scopes and what else is in it."""
    token = issuer.token(scope="read:notes openid", azp="spa", permissions=["x"], jti="short", sid="s-1")

    claims = await issuer.verifier().verify(token)

    assert (claims.sub, claims.type, claims.iss, claims.jti, claims.sid) == ("auth0|7", "access", issuer.url, "short", "s-1")
    assert claims.aud == ("https://api.example.org",)
    assert claims.scopes == {"read:notes", "openid"}
    assert claims.extra == {"azp": "spa", "permissions": ["x"]}


async def test_a_token_without_jti_has_a_name(issuer: Issuer) -> None:
    """A token without ``jti`` has one name all the same, and another token has another."""
    verifier, token = issuer.verifier(), issuer.token()

    names = {(await verifier.verify(each)).jti for each in (token, token, issuer.token(sub="8"))}

    assert len(names) == 2


@pytest.mark.parametrize(
    ("claim", "value", "scopes"),
    [
        ("scope", ..., set()),
        ("scope", "", set()),
        ("scope", "a b", {"a", "b"}),
        ("scp", "a b", {"a", "b"}),
        ("scp", ["a", "b"], {"a", "b"}),
        ("permissions", ["read:x"], {"read:x"}),
    ],
)
async def test_where_the_scopes_are(issuer: Issuer, claim: str, value: Any, scopes: set[str]) -> None:
    """Scopes are a string or a list, in the claim that the issuer uses."""
    assert (await issuer.verifier(scope_claim=claim).verify(issuer.token(**{claim: value}))).scopes == scopes


@pytest.mark.parametrize("value", [7, True, {"a": 1}, [1], ["a b"], 'a"b', [None]])
async def test_malformed_scopes(issuer: Issuer, value: Any) -> None:
    """Malformed scopes make a token invalid; they are not read as no scopes."""
    assert await reason(issuer.verifier(), issuer.token(scope=value)) == "the scopes are malformed"


NEVER = 99_999_999_999_999
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://other.example.org"}, "another issuer"),
    ({"iss": ...}, "iss is missing or malformed"),
    ({"aud": "https://other.example.org"}, "another audience"),
    ({"aud": ["a", "b"]}, "another audience"),
    ({"aud": ...}, "aud is missing or malformed"),
    ({"aud": []}, "aud is missing or malformed"),
    ({"sub": ...}, "sub is missing or malformed"),
    ({"sub": ""}, "sub is missing or malformed"),
    ({"exp": ...}, "exp is missing or not a timestamp"),
    ({"exp": NEVER}, "exp is missing or not a timestamp"),
    ({"exp": 1}, "expired"),
    ({"iat": ...}, "iat is missing or not a timestamp"),
    ({"nbf": 9_999_999_999}, "not valid yet"),
    ({"typ": "logout+jwt"}, "another typ in the header"),
    ({"typ": 1}, "another typ in the header"),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG, ids=[str(changes) for changes, _ in WRONG])
async def test_a_claim_that_is_wrong(issuer: Issuer, changes: dict[str, Any], expected: str) -> None:
    """Issuer, audience, subject and times are required and checked, as in tokens of your own."""
    assert await reason(issuer.verifier(), issuer.token(**changes)) == expected


@pytest.mark.parametrize("typ", ["at+jwt", "application/AT+JWT", "JWT", "jwt", ...])
async def test_types_of_access_tokens(issuer: Issuer, typ: Any) -> None:
    """The header may say ``at+jwt`` or ``JWT`` or nothing."""
    assert (await issuer.verifier().verify(issuer.token(typ=typ))).sub == "auth0|7"


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "n"},
        {"at_hash": "h"},
        {"c_hash": "h"},
        {"events": {}},
        {"token_use": "id"},
    ],
)
async def test_an_id_token(issuer: Issuer, claims: dict[str, Any]) -> None:
    """An ID token for the right audience is no access token, whichever issuer has made it."""
    assert await reason(issuer.verifier(), issuer.token(**claims)) == "another type of token"


@pytest.mark.parametrize("type", [each for each in TOKEN_TYPES if each != "access"])
async def test_other_tokens_of_another_application(issuer: Issuer, type: TokenType) -> None:
    """If the issuer is another application of yours, its refresh tokens, links and challenges are no access tokens, as there."""
    policy = TokenPolicy(issuer=issuer.url, audience="https://api.example.org")
    service = JWTService(secret_key=pem(FIRST), algorithm="RS256", policy=policy, clock=issuer.clock)
    issuer.body = lambda: json.dumps(service.jwks()).encode()
    verifier = issuer.verifier()

    assert (await verifier.verify(service.create_access_token("7"))).sub == "7"
    assert await reason(verifier, service.create_token("7", type=type, lifetime=timedelta(minutes=5))) == "another type of token"


@pytest.mark.parametrize("claims", [{"token_type": "refresh"}, {"type": "Refresh", "typ": "at+jwt"}, {"type": "id"}])
async def test_a_type_in_the_payload(issuer: Issuer, claims: dict[str, Any]) -> None:
    """Other libraries write the type into such a claim, too. ``Bearer`` and what is no type of a token say nothing."""
    assert await reason(issuer.verifier(), issuer.token(**claims)) == "another type of token"
    assert (await issuer.verifier().verify(issuer.token(token_type="Bearer", type=["x"]))).sub == "auth0|7"


async def test_an_actor(issuer: Issuer) -> None:
    """Who acts as the user of a token is in its claims, and may not pass where only the user may."""
    person = {"auth0|7": Person(7), "auth0|1": Person(1, is_superuser=True)}

    async def load(session: object, claims: TokenClaims) -> Person | None:
        return person.get(claims.sub)

    user = get_current_user_factory(issuer.verifier(), load, session=no_session)

    def build(app: FastAPI) -> None:
        @app.get("/actor")
        async def actor(user: Annotated[Person, Depends(user)], claims: Annotated[TokenClaims, Depends(user.claims)]) -> Any:
            return [user.id, claims.actor]

        @app.get("/own", dependencies=[Depends(require(user, impersonated=False))])
        async def own() -> None: ...

    async with client_of(build) as client:

        async def get(path: str, act: Any) -> Any:
            return await client.get(path, headers={"Authorization": f"Bearer {issuer.token(act=act)}"})

        assert (await get("/actor", {"sub": "auth0|1"})).json() == [7, "auth0|1"]
        assert (await get("/own", {"sub": "auth0|1"})).status_code == 403
        statuses = [(await get("/actor", act)).status_code for act in ({"sub": "auth0|9"}, {"sub": "auth0|7"}, {}, "auth0|1", None, [])]
    assert statuses == [401] * 6


@pytest.mark.parametrize("typ", ["ID", "Refresh", "Offline", "", None, ["Bearer"]])
async def test_other_tokens_of_keycloak(issuer: Issuer, typ: Any) -> None:
    """Keycloak writes the type into the payload: only ``Bearer`` is an access token, also with the ``nonce`` of its older versions."""
    import jwt

    def token(value: Any) -> str:
        payload = jwt.decode(issuer.token(nonce="n"), options={"verify_signature": False})
        return jwt.encode({**payload, "typ": value}, FIRST, "RS256", headers={"kid": "first"})

    verifier = issuer.verifier()
    assert await reason(verifier, token(typ)) == "another type of token"
    assert (await verifier.verify(token("Bearer"))).sub == "auth0|7"


async def test_cognito(issuer: Issuer) -> None:
    """Access tokens of Cognito have ``client_id`` instead of an audience; ID tokens have it the other way round."""
    verifier = issuer.verifier(audience="app-1", audience_claim="client_id")

    assert (await verifier.verify(issuer.token(aud=..., client_id="app-1", token_use="access"))).aud == ("app-1",)
    assert await reason(verifier, issuer.token(aud=..., client_id="app-2", token_use="access")) == "another audience"
    assert await reason(verifier, issuer.token(aud="app-1", token_use="id")) == "another type of token"
    assert await reason(verifier, issuer.token(aud="app-1", token_use="access")) == "aud is missing or malformed"


# --- Keys and algorithms ---


async def test_every_kind_of_key(issuer: Issuer) -> None:
    """RSA, elliptic curves and Ed25519 work when they are named; a key without ``alg`` is for each that fits."""
    issuer.keys = [jwk_of(FIRST, kid="rsa"), jwk_of(P256, kid="ec"), jwk_of(ED, kid="ed")]
    verifier = issuer.verifier(algorithms=["RS256", "PS256", "ES256", "EdDSA"])

    tokens = [issuer.token(FIRST, "RS256", kid="rsa"), issuer.token(FIRST, "PS256", kid="rsa"), issuer.token(P256, "ES256", kid="ec")]
    tokens.append(issuer.token(ED, "EdDSA", kid="ed"))

    assert [(await verifier.verify(token)).sub for token in tokens] == ["auth0|7"] * 4
    assert await reason(issuer.verifier(), tokens[1]) == "another algorithm"


async def test_our_own_service_as_the_issuer(issuer: Issuer) -> None:
    """A JWTService publishes keys that a RemoteIssuer reads, also a single key without a kid."""
    service = JWTService(secret_key=pem(FIRST), algorithm="RS256", clock=issuer.clock)
    issuer.body = lambda: json.dumps(service.jwks()).encode()
    token = issuer.token(kid=...)

    assert (await issuer.verifier().verify(token)).sub == "auth0|7"
    assert await reason(issuer.verifier(), issuer.token(kid="first")) == "kid is missing or unknown"


async def test_another_algorithm_than_the_keys(issuer: Issuer) -> None:
    """The header chooses no algorithm: a key for RS256 verifies no PS256, and the public key is no secret of an HMAC."""
    verifier = issuer.verifier(algorithms=["RS256", "PS256"])

    assert await reason(verifier, issuer.token(FIRST, "PS256")) == "kid is missing or unknown"
    fetched = issuer.fetches
    secret = JWTService(secret_key=SECRET)
    assert await reason(verifier, secret.create_access_token("1")) == "another algorithm"
    assert issuer.fetches == fetched


async def test_a_forged_signature(issuer: Issuer) -> None:
    """A token that another key has signed under the name of a published one is rejected."""
    assert await reason(issuer.verifier(), issuer.token(SECOND)) == "the signature does not match"


BAD_KEYS: dict[str, Any] = {
    "for encryption": jwk_of(SECOND, kid="second", use="enc"),
    "for another operation": jwk_of(SECOND, kid="second", key_ops=["encrypt"]),
    "another algorithm": jwk_of(SECOND, kid="second", alg="RSA-OAEP"),
    "a secret": {"kty": "oct", "k": "c2VjcmV0", "kid": "second", "alg": "HS256"},
    "too short": jwk_of(rsa.generate_private_key(65537, 1024), kid="second"),
    "a curve": jwk_of(P256, kid="second"),
    "private": jwk_of(SECOND, kid="second", d="AQAB"),
    "with its factors": jwk_of(SECOND, kid="second", p="AQAB", q="AQAB"),
    "a kid that is no string": jwk_of(SECOND, kid=7),
    "a long kid": jwk_of(SECOND, kid="k" * 200),
    "no modulus": jwk_of(SECOND, kid="second", n=...),
    "a modulus of another alphabet": jwk_of(SECOND, kid="second", n="!!!"),
    "a modulus that is a number": jwk_of(SECOND, kid="second", n=65537),
    "an even exponent": jwk_of(SECOND, kid="second", e="Ag"),
    "a point that is on no curve": jwk_of(P256, kid="second", x="AAAA"),
    "no object": "key",
    "null": None,
    "empty": {},
}


@pytest.mark.parametrize("name", BAD_KEYS)
async def test_a_key_that_cannot_be_used(issuer: Issuer, name: str) -> None:
    """A key that is weak, malformed or for something else is ignored, and the others in the document work."""
    issuer.keys = [BAD_KEYS[name], jwk_of(FIRST, kid="first")]
    verifier = issuer.verifier(algorithms=["RS256", "ES256"])

    assert (await verifier.verify(issuer.token())).sub == "auth0|7"
    assert await reason(verifier, issuer.token(SECOND, kid="second")) == "kid is missing or unknown"


async def test_two_keys_with_one_name(issuer: Issuer) -> None:
    """The first of two keys with the same name counts, so that nothing which is appended replaces a key."""
    issuer.keys.append(jwk_of(SECOND, kid="first"))

    verifier = issuer.verifier()
    assert (await verifier.verify(issuer.token())).sub == "auth0|7"
    assert await reason(verifier, issuer.token(SECOND)) == "the signature does not match"


# --- Fetching ---


async def test_a_new_key(served: Issuer) -> None:
    """A new key is fetched with the first token that names it. A key that was removed ends with the cache."""
    verifier = served.verifier()
    await verifier.verify(served.token())
    served.keys.append(jwk_of(SECOND, kid="second"))
    served.advance(seconds=31)

    await verifier.verify(served.token(SECOND, kid="second"))
    await verifier.verify(served.token())
    assert served.fetches == 2

    del served.keys[0]
    served.advance(minutes=11)
    assert await reason(verifier, served.token()) == "kid is missing or unknown"
    assert served.fetches == 3


async def test_one_fetch_for_many_requests(served: Issuer) -> None:
    """A hundred first requests at once share one fetch."""
    verifier = served.verifier()

    claims = await asyncio.gather(*(verifier.verify(served.token(sub=str(number))) for number in range(100)))

    assert [each.sub for each in claims] == [str(number) for number in range(100)]
    assert served.fetches == 1


async def test_a_flood_of_unknown_keys(served: Issuer) -> None:
    """Tokens with invented kids cause one fetch in the interval, however many come, and users are served meanwhile."""
    verifier = served.verifier()
    await verifier.verify(served.token())
    served.advance(seconds=31)

    async def send(number: int) -> str:
        return await reason(verifier, served.token(SECOND, kid=f"invented-{number}"))

    assert set(await asyncio.gather(*map(send, range(50)))) == {"kid is missing or unknown"}
    for number in range(50):
        await send(number)
    assert (await verifier.verify(served.token())).sub == "auth0|7"
    assert served.fetches == 2


async def test_a_cancelled_request(served: Issuer) -> None:
    """If the client of the request that began the fetch goes away, the others get the keys, with one fetch."""
    served.open.clear()
    verifier = served.verifier()
    first = asyncio.create_task(verifier.verify(served.token()))
    others = [asyncio.create_task(verifier.verify(served.token())) for _ in range(3)]
    await served.asked.wait()

    first.cancel()
    await asyncio.wait({first})
    served.open.set()

    assert first.cancelled()
    assert [(await other).sub for other in others] == ["auth0|7"] * 3
    assert served.fetches == 1


def break_with_status(issuer: Issuer) -> None:
    issuer.status = 500


def redirect(issuer: Issuer) -> None:
    issuer.status = 302
    issuer.headers = [(b"location", f"{issuer.url}/elsewhere".encode())]


def answer_with(body: bytes) -> Any:
    def prepare(issuer: Issuer) -> None:
        issuer.body = lambda: body

    return prepare


def compress(issuer: Issuer) -> None:
    body = gzip.compress(issuer.body())
    issuer.body = lambda: body
    issuer.headers = [(b"content-encoding", b"gzip")]


BROKEN: dict[str, Any] = {
    "500": break_with_status,
    "a redirect": redirect,
    "too long": answer_with(b" " * (fetch.MAX_BYTES + 1)),
    "compressed": compress,
    "no JSON": answer_with(b"<html>maintenance</html>"),
    "half of it": answer_with(b'{"keys": ['),
    "a list": answer_with(b"[]"),
    "no keys": answer_with(b"{}"),
    "keys of another type": answer_with(b'{"keys": "first"}'),
    "an empty list": answer_with(b'{"keys": []}'),
    "deep": answer_with(b'{"keys":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "empty": answer_with(b""),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_an_answer_that_cannot_be_used(served: Issuer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without keys, requests are a 503 and no 500. Old keys go on working for a bounded time. Only a fixed text is logged."""
    verifier, fresh = served.verifier(max_stale=timedelta(hours=2)), served.verifier()
    await verifier.verify(served.token())
    BROKEN[name](served)

    with pytest.raises(UnavailableError):
        await fresh.verify(served.token())
    served.advance(minutes=119)
    assert (await verifier.verify(served.token())).sub == "auth0|7"
    served.advance(minutes=2)
    with pytest.raises(UnavailableError):
        await verifier.verify(served.token())

    records = [record for record in caplog.records if record.name == "fastapi_kit.auth.tokens.remote"]
    assert len(records) == 3
    assert all(record.levelno == logging.WARNING and "127.0.0.1" not in record.getMessage() for record in records)


async def test_an_answer_without_end(served: Issuer) -> None:
    """What is longer than the limit is not read to its end."""
    served.chunks_left = 1000

    with pytest.raises(UnavailableError):
        await served.verifier().verify(served.token())

    assert served.chunks_left > 0


async def test_an_issuer_that_is_gone() -> None:
    """Old keys outlive their issuer for a while, and a new one is tried again soon."""
    async with running(Issuer()) as issuer:
        verifier, fresh = issuer.verifier(), issuer.verifier()
        await verifier.verify(issuer.token())
    issuer.advance(minutes=30)

    assert (await verifier.verify(issuer.token())).sub == "auth0|7"
    with pytest.raises(UnavailableError) as caught:
        await fresh.verify(issuer.token())
    assert caught.value.retry_after == 5


async def test_an_issuer_that_comes_back(served: Issuer) -> None:
    """After a failure without any keys, the next fetch is 5 seconds later, and requests in between are a 503 at once."""
    verifier = served.verifier()
    served.status = 503
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await verifier.verify(served.token())
    assert served.fetches == 1
    served.status = 200
    served.advance(seconds=5)

    assert (await verifier.verify(served.token())).sub == "auth0|7"


async def test_a_slow_issuer(served: Issuer) -> None:
    """An issuer that does not answer is given up after the timeout."""
    served.open.clear()

    async with asyncio.timeout(30):
        with pytest.raises(UnavailableError):
            await served.verifier(timeout=0.01).verify(served.token())


async def test_a_clock_that_is_set_back(issuer: Issuer) -> None:
    """When the clock of the server is corrected backwards, new keys are fetched all the same."""
    verifier = issuer.verifier()
    await verifier.verify(issuer.token())
    issuer.advance(hours=-5)
    issuer.keys = [jwk_of(SECOND, kid="second")]

    assert (await verifier.verify(issuer.token(SECOND, kid="second"))).sub == "auth0|7"


async def test_a_fetch_of_ones_own() -> None:
    """Your application may fetch the document itself; what it raises, and what it returns, breaks nothing."""
    issuer, asked = Issuer("https://tenant.example.org/"), list[str]()
    answers: list[Any] = [RuntimeError("proxy password hunter2"), b"x" * (fetch.MAX_BYTES + 1), None, issuer.body()]

    async def own(url: str) -> bytes:
        asked.append(url)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        document: bytes = answer
        return document

    verifier = issuer.verifier(fetch=own)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await verifier.verify(issuer.token())
        issuer.advance(seconds=6)

    assert (await verifier.verify(issuer.token())).sub == "auth0|7"
    assert set(asked) == {"https://tenant.example.org/.well-known/jwks.json"}


def test_another_event_loop() -> None:
    """A fetch that another event loop has begun, and does not end, delays no request."""
    issuer = Issuer()
    gates = [asyncio.Event()]

    async def stuck(url: str) -> bytes:
        if gates:
            await gates.pop().wait()
        return issuer.body()

    verifier = issuer.verifier(fetch=stuck)

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(verifier.verify(issuer.token()), 0.01)

    with asyncio.Runner() as other:
        other.run(leave())
        issuer.advance(seconds=6)

        async def verify() -> TokenClaims:
            async with asyncio.timeout(30):
                return await verifier.verify(issuer.token())

        assert asyncio.run(verify()).sub == "auth0|7"


# --- Set-up ---


@pytest.mark.parametrize(
    "url",
    [
        "http://tenant.example.org/keys",
        "http://127.0.0.1.example.org/keys",
        "http://10.0.0.1/keys",
        "ftp://tenant.example.org/keys",
        "file:///etc/passwd",
        "https://",
        "https://user:password@tenant.example.org/keys",
        "https://tenant.example.org:port/keys",
        "https://[/keys",
        "tenant.example.org",
        "",
    ],
)
def test_the_address_of_the_keys(url: str) -> None:
    """Keys come over https, or from this machine; the error does not show the address."""
    with pytest.raises(ConfigurationError) as caught:
        RemoteIssuer("https://tenant.example.org", audience="api", jwks_url=url)

    assert "password" not in str(caught.value)
    assert not url or url not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://tenant.example.org/keys", "http://localhost:8080/keys", "http://[::1]/keys", "http://127.0.0.1/k"]
)
def test_good_addresses(url: str) -> None:
    """https anywhere, http on this machine."""
    RemoteIssuer("https://tenant.example.org", audience="api", jwks_url=url)


@pytest.mark.parametrize(
    "options",
    [
        {"algorithms": []},
        {"algorithms": ["HS256"]},
        {"algorithms": ["RS256", "HS512"]},
        {"algorithms": ["none"]},
        {"audience": ""},
        {"min_refetch": timedelta()},
        {"cache_lifetime": timedelta(seconds=1)},
        {"max_stale": timedelta(minutes=1)},
        {"timeout": 0},
        {"timeout": 61},
        {"leeway": timedelta(hours=1)},
        {"max_length": 10},
    ],
    ids=str,
)
def test_options_that_are_out_of_bounds(options: dict[str, Any]) -> None:
    """A secret cannot be configured, an audience is required, and times are within bounds."""
    with pytest.raises(ConfigurationError):
        RemoteIssuer("https://tenant.example.org", **{"audience": "api", **options})


@pytest.mark.parametrize("options", [{"algorithms": "RS256"}, {"audience": None}, {"algorithms": None}])
def test_options_of_another_type(options: dict[str, Any]) -> None:
    """A string or None instead of a collection, and None instead of the audience, raise TypeError."""
    with pytest.raises(TypeError):
        RemoteIssuer("https://tenant.example.org", **{"audience": "api", **options})


def test_without_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without httpx the error is the command that installs it; with a fetch of your own it is not needed."""
    monkeypatch.setattr(fetch, "find_spec", lambda name: None)

    with pytest.raises(MissingExtraError, match=r"fastapi-kit-blocks\[remote\]"):
        RemoteIssuer("https://tenant.example.org", audience="api")

    async def own(url: str) -> bytes:
        return b""

    RemoteIssuer("https://tenant.example.org", audience="api", fetch=own)


@pytest.mark.parametrize("token", [None, "", 7, "a.b", "a.b.c", "x" * 9000, "\ud800", b"\xff"])
async def test_what_is_no_token(issuer: Issuer, token: Any) -> None:
    """What is no token is rejected before any key is fetched."""
    await reason(issuer.verifier(), token)

    assert issuer.fetches == 0


async def test_an_app(issuer: Issuer) -> None:
    """An app takes the issuer where it takes its own tokens: users by their subject, scopes, 401, 403, and 503 while there are no keys."""

    async def load(session: object, claims: TokenClaims) -> str:
        return claims.sub

    get_user = get_current_user_factory(issuer.verifier(), load, session=no_session)
    app = FastAPI()
    register_exception_handlers(app)

    @app.get("/notes")
    async def notes(user: Annotated[str, Depends(require(get_user, scopes=["read:notes"]))]) -> str:
        return user

    async with app_client(app) as client:

        async def status(token: str) -> int:
            return (await client.get("/notes", headers={"Authorization": f"Bearer {token}"})).status_code

        issuer.status = 500
        answer = await client.get("/notes", headers={"Authorization": f"Bearer {issuer.token()}"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        issuer.status = 200
        issuer.advance(seconds=5)
        tokens = [issuer.token(scope="read:notes"), issuer.token(), issuer.token(iss="x")]
        assert [await status(token) for token in tokens] == [200, 403, 401]
