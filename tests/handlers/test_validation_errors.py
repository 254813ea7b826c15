"""FastAPI's 422: the fields are named, and nothing that the client sent comes back."""

import json
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Header, Query
from httpx import AsyncClient
from pydantic import BaseModel, field_validator
from tests.handlers.apps import JSON, SECRET, Named, client_of


async def test_an_invalid_body_names_its_fields(client: AsyncClient) -> None:
    """FastAPI's 422 names the field, the rule and a text."""
    response = await client.post("/items", json={"name": 1, "kind": "cow"})

    assert response.status_code == 422
    assert response.json()["code"] == "invalid_request"
    assert response.json()["errors"] == [
        {"loc": ["body", "name"], "code": "string_type", "message": "Input should be a valid string"},
        {"loc": ["body", "kind"], "code": "literal_error", "message": "Input should be 'cat' or 'dog'"},
    ]


async def test_the_schemas_own_texts_are_always_shown(client: AsyncClient) -> None:
    """Pydantic's own texts are shown, except those that would quote a value."""
    response = await client.post("/items", json={"name": ["should"], "kind": "Input", "id": "zq", "pet": {"tag": "zq"}})

    assert [item["message"] for item in response.json()["errors"]] == [
        "Input should be a valid string",
        "Input should be 'cat' or 'dog'",
        "Input should be a valid UUID",
        "Input should have one of the expected tags",
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"password": SECRET},  # name is missing: FastAPI shows the whole body
        {"name": {"deep": SECRET}},
        {"name": "n", "price": SECRET},
        {"name": "n", "kind": SECRET},
        {"name": "n", "email": f"{SECRET}@@"},
        {"name": "n", "scores": {"a": SECRET}},
        {"name": "n", "unknown": SECRET},
        {"name": "n", "code": f"echo {SECRET}"},
        {"name": "n", "code": f"shout {SECRET}"},
        SECRET,
        [SECRET],
    ],
)
async def test_what_was_sent_is_not_sent_back(client: AsyncClient, item: Any) -> None:
    """No value of the body is in the response, whoever wrote the message."""
    response = await client.post("/items", json=item)

    assert response.status_code == 422
    assert SECRET[:7].lower() not in response.text.lower()


async def test_what_was_sent_in_the_address_is_not_sent_back(client: AsyncClient) -> None:
    """No value of the path or the query is in the response."""
    response = await client.get(f"/items/{SECRET}?page={SECRET}")

    assert response.status_code == 422
    assert SECRET not in response.text


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("bad", "is not valid"),
        ("assert", "is not valid"),
        ("echo abc", "is not valid"),
        ("input", "the code input is not taken"),
        ("custom", "has no such code"),
        ("names code", "goes with code only"),
        ("names hunter2", "is not valid"),
    ],
)
async def test_a_validators_text_is_shown_if_it_is_declared_safe(client: AsyncClient, code: str, message: str) -> None:
    """The text of UserInputError, and of a custom error with names of the schema, is shown; that of a ValueError is not."""
    response = await client.post("/items", json={"name": "n", "code": code})

    assert [item["message"] for item in response.json()["errors"]] == [message]


@pytest.mark.parametrize("value", ["hun", "h", "7", "12"])
async def test_not_even_a_short_value_is_sent_back(client: AsyncClient, value: str) -> None:
    """A value of one letter is not in the response either."""
    response = await client.post("/items", json={"name": "n", "code": f"echo {value}"})

    assert [item["message"] for item in response.json()["errors"]] == ["is not valid"]


async def test_keys_that_the_client_chose_are_not_sent_back(client: AsyncClient) -> None:
    """Keys of dicts are * in loc; fields, labels of unions and aliases are shown."""
    item = {"scores": {"hunter2": "x"}, "inner": {"hunter2": {"hunter3": "x"}}, "text": '{"hunter2": "x"}', "choice": {}, "Straße 1": 1}
    response = await client.post("/items", json=item)

    assert [item["loc"][1:] for item in response.json()["errors"]] == [
        ["name"],
        ["scores", "*"],
        ["inner", "*", "*"],
        ["text", "*"],
        ["choice", "int"],
        ["choice", "list[int]"],
        ["Straße 1"],
    ]


async def test_a_key_that_only_resembles_a_field_is_not_sent_back(client: AsyncClient) -> None:
    """A key that contains a word of the schema and more is * in loc."""
    keys = ["name!hunter2", "name 4111111111111111", "4111name", "name!", "1", "\ud800", "name\n"]
    body = json.dumps({"name": "n", "scores": dict.fromkeys(keys, "x")})
    response = await client.post("/items", content=body, headers=JSON)

    assert {item["loc"][2] for item in response.json()["errors"]} == {"*"}


async def test_parameters_of_dependencies_and_included_routers_are_known() -> None:
    """loc names parameters of dependencies and of included routers."""

    def page(
        size: Annotated[int, Query(alias="page[size]")] = 1, x_odd: Annotated[int, Header()] = 1, visits: Annotated[int, Cookie()] = 1
    ) -> None: ...

    router, app = APIRouter(), FastAPI()

    @router.post("/{number}")
    async def read(number: int, item: Named, note: Annotated[str, Body()]) -> None: ...

    app.include_router(router, prefix="/in", dependencies=[Depends(page)])
    async with client_of(app) as client:
        client.cookies["visits"] = "x"
        response = await client.post("/in/x?page[size]=x", json={"item": {"name": 1}}, headers={"X-Odd": "x"})

    found = {tuple(item["loc"]) for item in response.json()["errors"]}
    assert found == {
        ("path", "number"),
        ("query", "page[size]"),
        ("header", "x-odd"),
        ("cookie", "visits"),
        ("body", "item", "name"),
        ("body", "note"),
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [("colour", "colour"), ("$ref", "$ref"), ("page[size]", "page[size]"), ("my secret", "*"), ("a@b.example", "*"), ("x" * 65, "*")],
)
async def test_an_unknown_field_is_shown_if_it_looks_like_a_name(client: AsyncClient, name: str, shown: str) -> None:
    """The name of an unknown field is shown only if it looks like a name."""
    response = await client.post("/items", json={"name": "n", name: 1})

    assert [item["loc"] for item in response.json()["errors"]] == [["body", shown]]


async def test_the_number_of_errors_is_bounded() -> None:
    """A response has at most 100 errors."""
    app = FastAPI()

    @app.post("/")
    async def create(items: list[Named]) -> None:
        pass

    async with client_of(app) as client:
        response = await client.post("/", json=[{}] * 5000)
    assert len(response.json()["errors"]) == 100


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b'{"name": ', 422),
        (b'{"name": "\xff"}', 400),
        (b"\xff\xfe\x00", 400),
        (rb'{"name": "n", "price": "\ud800"}', 422),
        (rb'{"\ud800": 1}', 422),
        (rb'{"name": "n", "scores": {"\udfff": "x"}}', 422),
        (b'{"name": NaN}', 422),
        (b'{"name": "n", "scores": {"a": NaN}}', 422),
        (b'{"name": "n", "price": Infinity, "unknown": -Infinity}', 422),
        (b"[" * 100_000 + b"]" * 100_000, 400),
        (b'{"name":' + b"[" * 500 + b"]" * 500 + b"}", 422),
        (b'{"name": ' + b"1" * 5000 + b"}", 400),
        (b'{"name": ' + b"1" * 4000 + b"}", 422),
        (b"null", 422),
        (b"\x00", 422),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_hostile_bodies_are_a_4xx(client: AsyncClient, content: bytes, status: int) -> None:
    """Broken JSON, lone surrogates, NaN, huge numbers and deep nesting are never a 5xx."""
    response = await client.post("/items", content=content, headers=JSON)

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "a" * 500, ""])
async def test_a_wrong_content_type_is_a_problem(client: AsyncClient, content_type: str) -> None:
    """JSON with another content type is a 422."""
    response = await client.post("/items", content=b'{"name": "n"}', headers={"Content-Type": content_type})

    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize("path", ["/items/%ff", "/items/%00", "/items/%ED%A0%80", f"/items/{'9' * 5000}", "/items/1?page=%ff", "/%ff"])
async def test_hostile_addresses_are_a_4xx(client: AsyncClient, path: str) -> None:
    """Invalid UTF-8, NUL and huge numbers in path and query are never a 5xx."""
    response = await client.get(path)

    assert response.status_code in {404, 422}
    assert response.headers["content-type"] == "application/problem+json"


class Checked(BaseModel):
    password: str

    @field_validator("password")
    @classmethod
    def _check(cls, value: str) -> str:
        kind, _, rest = value.partition("|")
        match kind:
            case "repr":
                raise ValueError(f"bad {value!r}")
            case "cut":
                raise ValueError(f"{rest[:10]}... is too weak")
            case _:
                raise ValueError(f"domain {rest} is blocked")


@pytest.mark.parametrize("password", ["repr|p\\ass'word-hunter2-long", "cut|hunter2-and-more", "part|secret-corp.example", "part|hunter2"])
async def test_a_part_of_what_was_sent_is_not_sent_back(password: str) -> None:
    """The text of a ValueError is not shown if it quotes a part of the value or spells it in another way."""
    app = FastAPI()

    @app.post("/")
    async def check(data: Checked) -> None: ...

    async with client_of(app) as client:
        response = await client.post("/", json={"password": password})

    assert response.json()["errors"][0]["message"] == "is not valid"
