"""Where a token is, and what a 401 asks for."""

from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Security
from fastapi.security import APIKeyHeader
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from tests.auth.people import People, Person, PersonRead, client_of, no_session, tokens

from fastapi_kit.auth import BearerTransport, TokenClaims, TokenVerifier, Transport, get_current_user_factory, require
from fastapi_kit.errors import ConfigurationError

WORD = BearerTransport(word="Token")


class KeyTransport(Transport):
    """A token in the header ``X-Key``."""

    @property
    def scheme(self) -> SecurityBase:
        return APIKeyHeader(name="X-Key", scheme_name="Key")

    @property
    def challenge(self) -> str:
        return "Key"

    async def authenticate(self, connection: HTTPConnection, tokens: TokenVerifier) -> TokenClaims | None:
        key = connection.headers.get("X-Key")
        return None if key is None else await tokens.verify(key)


def build(*transports: Transport) -> FastAPI:
    """Return an app with a required user, a required scope, and a guard over an optional user."""
    people = People(Person(1))
    get_user = get_current_user_factory(tokens, people.load, session=no_session, transports=transports)
    app = FastAPI()

    @app.get("/me")
    async def me(user: Annotated[Person, Depends(get_user)]) -> PersonRead:
        return PersonRead(id=user.id)

    @app.get("/notes", dependencies=[Security(get_user, scopes=["notes"])])
    async def notes() -> None: ...

    @app.get("/guarded", dependencies=[Depends(require(get_user.optional, verified=True))])
    async def guarded() -> None: ...

    return app


def header(word: str, subject: str = "1") -> dict[str, str]:
    return {"Authorization": f"{word} {tokens.create_access_token(subject)}"}


@pytest.mark.parametrize("word", ["Token", "token", "TOKEN"])
async def test_another_word(word: str) -> None:
    """R25: the word before the token can be another one, in any case; then Bearer is no credentials."""
    async with client_of(lambda app: app.include_router(build(WORD).router)) as client:
        assert (await client.get("/me", headers=header(word))).json() == {"id": 1}
        bearer = await client.get("/me", headers=header("Bearer"))
    assert (bearer.status_code, bearer.json()["code"]) == (401, "not_authenticated")


@pytest.mark.parametrize(
    ("path", "headers", "status", "challenge"),
    [
        ("/me", {}, 401, "Token"),
        ("/guarded", {}, 401, "Token"),
        ("/me", {"Authorization": "Token x"}, 401, 'Token error="invalid_token"'),
        ("/me", {"Authorization": "Token"}, 401, 'Token error="invalid_token"'),
        ("/me", header("Token", "7"), 401, 'Token error="invalid_token"'),
        ("/notes", header("Token"), 403, 'Token error="insufficient_scope", scope="notes"'),
    ],
)
async def test_the_challenge_has_the_word(path: str, headers: dict[str, str], status: int, challenge: str) -> None:
    """R21, R22, R23: ``WWW-Authenticate`` has the word of the transport, whatever was wrong."""
    async with client_of(lambda app: app.include_router(build(WORD).router)) as client:
        answer = await client.get(path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (status, challenge)


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ({}, "Key, Token"),
        ({"X-Key": "x"}, 'Key error="invalid_token"'),
        ({"Authorization": "Token x"}, 'Key, Token error="invalid_token"'),
        ({"Authorization": "Bearer x"}, "Key, Token"),
    ],
)
async def test_the_challenges_of_several_transports(headers: dict[str, str], challenge: str) -> None:
    """R21: a 401 has the challenges of the transports that were asked, each once, and the error beside that of the token."""
    async with client_of(lambda app: app.include_router(build(KeyTransport(), WORD).router)) as client:
        for path in ("/me", "/guarded"):
            assert (await client.get(path, headers=headers)).headers["www-authenticate"] == challenge


@pytest.mark.parametrize("others", [["Basic dXNlcjpwYXNz"], ["Digest x"], ["Token y"], [""], ["Bearer", "Basic x"]])
@pytest.mark.parametrize("first", [True, False])
async def test_one_header_only(others: list[str], first: bool) -> None:
    """R22: a request with more than one Authorization header is rejected, whatever their schemes and their order."""
    good = header("Bearer")["Authorization"]
    values = [good, *others] if first else [*others, good]

    async with client_of(lambda app: app.include_router(build(BearerTransport()).router)) as client:
        answer = await client.get("/me", headers=[("Authorization", value) for value in values])
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')


async def test_the_document_of_another_word() -> None:
    """R29: OpenAPI shows another word as the whole header, under a name of its own."""
    schemes = [BearerTransport(word="Token").scheme, BearerTransport(word="Token", scheme_name="Login").scheme]
    named = BearerTransport(scheme_name="Login", token_url="login").scheme

    assert [scheme.scheme_name for scheme in (*schemes, named)] == ["Token", "Login", "Login"]
    model = schemes[0].model.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert (model["in"], model["name"], model["description"]) == ("header", "Authorization", "`Token` and the token")
    assert named.model.model_dump()["flows"]["password"]["tokenUrl"] == "login"


@pytest.mark.parametrize("word", ["", "two words", "To\nken", "Tökén", 'a"b', "a,b"])
def test_what_cannot_be_a_word(word: str) -> None:
    """R25: a word that cannot be in the header raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="word"):
        BearerTransport(word=word)
