"""A program with cookies and bearer tokens, as applications write it, runs as it stands."""

from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from httpx import AsyncClient

from fastapi_kit import Base
from fastapi_kit.testing.client import app_client


@pytest.fixture
async def cookie_and_bearer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[tuple[ModuleType, AsyncClient]]:
    """The program with cookies and bearer tokens, in an empty folder, and a client of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    module = import_module("tests.typing.applications.cookie_and_bearer")
    await module.db.create_tables(module.Note.metadata)
    async with app_client(module.app) as client:
        yield module, client
    for model in (module.Note, module.User):
        Base.metadata.remove(model.__table__)


async def test_cookies_and_bearer_tokens(cookie_and_bearer: tuple[ModuleType, AsyncClient]) -> None:
    """A browser logs in with a cookie and a program with a token; both are one user, and delete only what is theirs."""
    module, client = cookie_and_bearer
    ada = {"email": "ada@example.org", "password": "analytical engine no. 1"}
    form, page = {"username": ada["email"], "password": ada["password"]}, {"Origin": "https://test"}
    prefix = module.settings.API_V1_STR
    await client.post(f"{prefix}/register", json=ada)
    async with module.db.begin() as session:
        session.add_all([module.Note(id=id, owner_id=owner) for id, owner in ((1, 1), (2, 1), (3, 2))])

    foreign = await client.post(f"{prefix}/login", data=form, headers={"Origin": "https://evil.example"})
    login = await client.post(f"{prefix}/login", data=form, headers=page)
    page |= {"X-CSRF-Token": client.cookies["__Host-session-csrf"]}
    by_cookie = [(await client.delete(f"/notes/{id}", headers=headers)).status_code for id, headers in ((1, {}), (1, page), (3, page))]
    client.cookies.clear()
    token = (await module.logins.start("1")).access_token
    by_token = [(await client.delete(f"/notes/{id}", headers={"Authorization": f"Bearer {token}"})).status_code for id in (2, 3)]

    assert (foreign.status_code, login.status_code, login.content) == (403, 204, b"")
    assert (by_cookie, by_token) == ([403, 204, 403], [204, 403])
    assert (await client.get("/audit", headers={"Authorization": f"Bearer {token}"})).status_code == 403
    assert (await client.get("/audit")).headers["www-authenticate"] == "Cookie, Bearer"
