"""Tests of the passkeys, with an authenticator in software, on both databases."""

import asyncio
import hashlib
import json
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from httpx import AsyncClient, Response
from sqlalchemy import text

from fastapi_kit import Base
from fastapi_kit.testing.client import app_client

APP = Path(__file__).with_name("app.py")
ADA = {"email": "ada@example.org", "password": "analytical engine no. 1"}
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class Authenticator:
    """A passkey, as a phone keeps it."""

    def __init__(self, *, origin: str = "https://example.org", flags: int = PRESENT | VERIFIED) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = hashlib.sha256(str(id(self)).encode()).digest()
        self.origin = origin
        self.flags = flags
        self.count = 0

    def client_data(self, type: str, options: dict[str, Any]) -> bytes:
        return json.dumps({"type": type, "challenge": options["challenge"], "origin": self.origin}).encode()

    def data(self, rp_id: str, flags: int) -> bytes:
        self.count += 1
        return hashlib.sha256(rp_id.encode()).digest() + bytes([flags]) + self.count.to_bytes(4)

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        point = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)}
        attested = bytes(16) + len(self.id).to_bytes(2) + self.id + cbor2.dumps(cose)
        data = self.data(options["rp"]["id"], self.flags | ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        return self.credential({"clientDataJSON": self.client_data("webauthn.create", options), "attestationObject": attestation})

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        client_data, data = self.client_data("webauthn.get", options), self.data(options["rpId"], self.flags)
        signature = self.key.sign(data + hashlib.sha256(client_data).digest(), ec.ECDSA(hashes.SHA256()))
        return self.credential({"clientDataJSON": client_data, "authenticatorData": data, "signature": signature})

    def credential(self, response: dict[str, bytes]) -> dict[str, Any]:
        id = encode(self.id)
        return {"id": id, "rawId": id, "type": "public-key", "response": {name: encode(value) for name, value in response.items()}}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def application(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The application on one database. It reads its settings at import, so each database needs its own import."""
    folder = tmp_path_factory.mktemp("passkeys")
    url = f"sqlite+aiosqlite:///{folder / 'test.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    name = f"{folder.name}_on_{request.param}"
    spec = spec_from_file_location(name, APP)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DATABASE_URL", url)
        patch.setenv("PASSWORD_HASH_ROUNDS", "10")
        patch.setenv("SECRET_KEY", "o3Q9vK1cXf7mZ2rT8yLwB5nH4dJ6sGaE")
        spec.loader.exec_module(module)
    yield module
    for model in (module.Passkey, module.Challenge, module.User):
        Base.metadata.remove(model.__table__)


@pytest.fixture
async def client(application: ModuleType) -> AsyncIterator[AsyncClient]:
    """A client of the application, with empty tables. Another example may have made others with these names."""
    if application.db.engine.dialect.name == "postgresql":
        async with application.db.engine.begin() as connection:
            for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
                await connection.execute(text(statement))
    async with app_client(application.app) as client:
        yield client
        async with application.db.begin() as session:
            for model in (application.Passkey, application.Challenge, application.User):
                await session.execute(model.__table__.delete())


async def headers_of(client: AsyncClient) -> dict[str, str]:
    await client.post("/auth/register", json=ADA)
    pair = (await client.post("/auth/login", data={"username": ADA["email"], "password": ADA["password"]})).json()
    return {"Authorization": f"Bearer {pair['access_token']}"}


async def register(client: AsyncClient, passkey: Authenticator, headers: dict[str, str]) -> Response:
    options = (await client.post("/auth/passkeys/options", headers=headers)).json()["publicKey"]
    return await client.post("/auth/passkeys", json=passkey.create(options), headers=headers)


async def request_options(client: AsyncClient) -> dict[str, Any]:
    options: dict[str, Any] = (await client.post("/auth/login/passkey/options")).json()["publicKey"]
    return options


async def test_a_login(client: AsyncClient) -> None:
    """A user registers a passkey, and logs in with it and without a password, again and again."""
    passkey = Authenticator()
    assert (await register(client, passkey, await headers_of(client))).status_code == 201

    for _ in range(2):
        answer = await client.post("/auth/login/passkey", json=passkey.get(await request_options(client)))

        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        me = await client.get("/auth/me", headers={"Authorization": f"Bearer {answer.json()['access_token']}"})
        assert me.json()["email"] == ADA["email"]


async def test_an_answer_works_once(client: AsyncClient) -> None:
    """Of several requests with one answer of the passkey, one succeeds."""
    passkey = Authenticator()
    await register(client, passkey, await headers_of(client))
    answer = passkey.get(await request_options(client))

    responses = await asyncio.gather(*(client.post("/auth/login/passkey", json=answer) for _ in range(5)))

    assert sorted(response.status_code for response in responses) == [200] + [401] * 4


async def test_what_is_rejected(client: AsyncClient) -> None:
    """Another site, an unlocked phone in other hands, an unknown passkey, a forged signature and a foreign challenge do not log in."""
    passkey, headers = Authenticator(), await headers_of(client)
    await register(client, passkey, headers)

    answers = [Authenticator().get(await request_options(client))]
    for change in ({"origin": "https://evil.example.org"}, {"flags": PRESENT}, {"key": ec.generate_private_key(ec.SECP256R1())}):
        before = vars(passkey).copy()
        vars(passkey).update(change)
        answers.append(passkey.get(await request_options(client)))
        vars(passkey).update(before)
    answers.append(passkey.get({**await request_options(client), "challenge": encode(bytes(32))}))
    creation = (await client.post("/auth/passkeys/options", headers=headers)).json()["publicKey"]
    answers.append(passkey.get({"challenge": creation["challenge"], "rpId": "example.org"}))

    statuses = [(await client.post("/auth/login/passkey", json=answer)).status_code for answer in answers]
    assert statuses == [401] * 6


async def test_a_passkey_of_another_user(client: AsyncClient) -> None:
    """A challenge to register belongs to the user who asked for it."""
    ada = await headers_of(client)
    bob = {**ADA, "email": "bob@example.org"}
    await client.post("/auth/register", json=bob)
    pair = (await client.post("/auth/login", data={"username": bob["email"], "password": bob["password"]})).json()
    options = (await client.post("/auth/passkeys/options", headers=ada)).json()["publicKey"]

    answer = await client.post(
        "/auth/passkeys", json=Authenticator().create(options), headers={"Authorization": f"Bearer {pair['access_token']}"}
    )

    assert answer.status_code == 401


@pytest.mark.only_full
async def test_hostile_credentials(client: AsyncClient) -> None:
    """Malformed credentials are a 401 or a 422, never a 5xx."""
    passkey, headers = Authenticator(), await headers_of(client)
    await register(client, passkey, headers)
    bad: list[Any] = [None, 7, "", "\u0000", "!!!", "AAAA", [], {}]

    for path in ("login/passkey", "passkeys"):
        for value in bad:
            for name in ("id", "rawId", "type", "response", "clientDataJSON", "authenticatorData", "signature", "attestationObject"):
                if path == "passkeys":
                    credential = passkey.create((await client.post("/auth/passkeys/options", headers=headers)).json()["publicKey"])
                else:
                    credential = passkey.get(await request_options(client))
                inner = credential if name in credential else credential["response"]
                if name not in inner:
                    continue
                inner[name] = value
                answer = await client.post(f"/auth/{path}", json=credential, headers=headers)
                assert 400 <= answer.status_code < 500, (path, name, value)
