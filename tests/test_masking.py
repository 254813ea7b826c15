"""Secrets are masked by the name beside them, in fields and in text. One test for each sentence of the guide."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from starlette.datastructures import Headers, MultiDict
from tests.thorough import FULL

from fastapi_kit._masking import mask_fields, mask_text

SECRET = "hunter2"
SIZE = 1_000_000 if FULL else 100_000
NAMES = [
    *("password", "passwd", "passphrase", "passcode", "secret", "token", "credential", "signature", "api_key", "access_key"),
    *("private_key", "signing_key", "encryption_key", "session_id", "sessid", "pass", "pwd", "dsn", "otp", "totp", "sid"),
    *("cookie", "authorization"),
]
HARMLESS = [
    *("token_type", "password_changed_at", "token_count", "refresh_token_days", "ACCESS_TOKEN_EXPIRE_MINUTES", "token_seconds"),
    *("InvalidTokenError", "auth/tokens.py", "compass", "passengers", "side", "primary key", "name"),
]

# The secret is in quotes, and escaped.
QUOTED: list[Callable[[str], str]] = [
    lambda secret: json.dumps({"password": secret, "user": "bob"}),
    lambda secret: json.dumps({"data": {"accessToken": secret}}, separators=(",", ":")),
    lambda secret: json.dumps({"body": json.dumps({"client_secret": secret})}),
    lambda secret: str({"user": "bob", "api_key": secret}),
    lambda secret: str([("x-api-key", secret), ("host", "h")]),
    lambda secret: str([(b"cookie", secret.encode("utf-8", "backslashreplace")), (b"host", b"h")]),
    lambda secret: f"User(password={secret!r}, name='bob')",
    lambda secret: str({"tokens": [secret], "user": "bob"}),
]
# The secret ends at white space.
BARE: list[Callable[[str], str]] = [
    lambda secret: f"password={secret}",
    lambda secret: f"DB_PASSWORD : {secret}",
    lambda secret: f'"GET /reset?user=bob&token={secret} HTTP/1.1" 200',
    lambda secret: f"X-API-Key: {secret}",
    lambda secret: f"Authorization: Custom a=b {secret}",
    lambda secret: f"Set-Cookie: theme=dark; session={secret}; Path=/",
    lambda secret: f"postgresql+asyncpg://app:{secret}@db.example.com:5432/app",
    lambda secret: f"redis://:{secret}@cache/0",
]
AROUND = st.text(st.characters(exclude_characters="\"'[({\\"), max_size=20)
VISIBLE = st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="\"'&[({"), max_size=12)


@pytest.mark.parametrize("form", QUOTED)
@given(before=AROUND, start=st.text(max_size=12), end=st.text(max_size=12))
def test_a_quoted_value_is_masked_to_its_closing_quote(form: Callable[[str], str], before: str, start: str, end: str) -> None:
    """The value beside a secret's name is masked, with whatever characters it contains."""
    assert SECRET not in mask_text(f"{before} {form(f'{start}{SECRET}{end}')}")


@pytest.mark.parametrize("form", BARE)
@given(before=AROUND, start=VISIBLE, end=VISIBLE)
def test_a_value_without_quotes_is_masked_to_white_space(form: Callable[[str], str], before: str, start: str, end: str) -> None:
    """Query strings, environment variables, headers and URLs. A password that begins like a port is not recognised in a URL."""
    assume(not re.match(r"\d{1,5}[/?#]", start))
    assert SECRET not in mask_text(f"{before} {form(f'{start}{SECRET}{end}')}")


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_secrets(name: str) -> None:
    """A name counts in any case, inside a longer name, with a hyphen for the underscore."""
    for written in (name, name.upper(), f"client_{name}", name.replace("_", "-"), f"user[{name}]", f"{name}s" if len(name) > 4 else name):
        assert mask_text(f"{written}=hunter2") == f"{written}=***"
        assert mask_fields({written: 7}) == {written: "***"}


@pytest.mark.parametrize("name", HARMLESS)
def test_other_names_are_shown(name: str) -> None:
    """Names that only look alike, and names that end in _at, _count, _days, _minutes, _seconds, _type, Error or .py."""
    assert mask_text(f"{name}: 5") == f"{name}: 5"
    assert mask_fields({name: 5}) == {name: 5}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # names
        ('{"password": "a\\"b", "user": "bob"}', '{"password": "***", "user": "bob"}'),
        ("?token=a&b&user=bob", "?token=***&user=bob"),
        ("password=SecretStr('**********') user=bob", "password=*** user=bob"),
        ("tokens=['hunter2', 'b'] user=bob\nnext", "tokens=***\nnext"),
        ("Cookie: a=b; c=d\nHost: h", "Cookie: ***\nHost: h"),
        ('{"cookie": "a=b", "host": "h"}', '{"cookie": "***", "host": "h"}'),
        # URLs
        ("postgresql://app:p@ss/w:rd@db:5432/app?ssl=1", "postgresql://app:***@db:5432/app?ssl=1"),
        ("https://0123456789abcdef@ingest.example.com/1", "https://***@ingest.example.com/1"),
        ("http://localhost:8000/users/bob@example.com", "http://localhost:8000/users/bob@example.com"),
        ("http://localhost/users/bob@example.com", "http://localhost/users/bob@example.com"),
        ("http://[::1]:8000/@vite/client", "http://[::1]:8000/@vite/client"),
        ("redis://cache:6379 is down, tell bob@example.com", "redis://cache:6379 is down, tell bob@example.com"),
        # shapes
        ("got eyJhbGciOiJI.eyJzdWIi.c2ln, expired", "got ***, expired"),
        (f"got shop_{'0a' * 16}_{'1b' * 32}, expired", "got shop_***, expired"),
        ("got Bearer 0123456789abcdef instead", "got Bearer *** instead"),
        ("Basic dXNlcjpodW50ZXIyIQ==", "Basic ***"),
        ("stored $2b$12$abcdefghijklmnop.", "stored ***"),
        ("stored $argon2id$v=19$m=65536$c2FsdA, old", "stored ***, old"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\nabc=\n-----END RSA PRIVATE KEY-----\nok", "***\nok"),
        # databases
        ("[parameters: ('ada', 'hunter2')]\n(Background", "[parameters: ***\n(Background"),
        ("Failing row contains (1, hunter2\n2).", "Failing row contains (***"),
        ("taken\nDETAIL:  Key (name)=(hunter2\n2) already exists.\n[SQL: INSERT", "taken\nDETAIL:  ***\n[SQL: INSERT"),
        ("  | x\n  | DETAIL:  Key (a)=(hunter2\n  | 2) exists.\n  +----", "  | x\n  | DETAIL:  ***\n  +----"),
        ("CONTEXT:  $1 = 'hunter2'\nThe above exception was", "CONTEXT:  ***\nThe above exception was"),
        ("Schlüssel (lower(name::text))=(hunter2) existiert", "Schlüssel (lower(name::text))=(***"),
        ("invalid input for query argument $1: 'hunter2' (a)\n(Background", "invalid input for query argument $1: ***\n(Background"),
        ('invalid input syntax for type integer: "hunter2"', "invalid input syntax for type integer: ***"),
        ('invalid input value for enum kind: "hunter2"', "invalid input value for enum kind: ***"),
    ],
)
def test_what_is_around_a_secret_stays(text: str, masked: str) -> None:
    """Only the value is masked; its name and what follows stay readable."""
    assert mask_text(text) == masked


def test_the_input_in_errors_of_pydantic_is_masked() -> None:
    """In the text of a ValidationError and in its list of errors."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python(SECRET)

    assert SECRET not in mask_text(str(caught.value))
    assert SECRET not in mask_text(str(caught.value.errors()))
    assert SECRET not in str(mask_fields({"errors": caught.value.errors()}))


@pytest.mark.parametrize(
    "text",
    [
        "the secret is hunter2",
        "mysql --password hunter2",
        "/callback?code=123456",
        "next=%2F%3Ftoken%3Dhunter2",
        "cGFzc3dvcmQ9aHVudGVyMg==",
        "Bearer token is missing",
        "Basic authentication required",
        "InvalidTokenError: expired",
        '  File "/app/auth/tokens.py", line 12, in decode',
        "token_type=bearer expires_in=60",
    ],
)
def test_what_is_not_masked(text: str) -> None:
    """The limits that the guide lists, and text of the library that must stay readable."""
    assert mask_text(text) == text


HOSTILE = [
    *("a", " ", '"', "\\", "key", "pass", "://", "://a@", "://a:1/", "http://a:1", "eyJ", "eyJaaaaaaaa.", "basic ", "Bearer "),
    *(
        "password",
        'password="',
        "password='\\\"",
        "password\\\\",
        "token\\",
        "token\n",
        "token[",
        "token=[",
        "token=&",
        "token=&a",
        'secret"',
    ),
    *("cookie:\n", "input'", "'input' ,", "[parameters: ", "-----BEGIN PRIVATE KEY-----", "$2a$", ")=(\n"),
    *(
        "DETAIL:  ",
        "\nDETAIL:  ",
        "DETAIL:  \n |",
        "\n  | ",
        "Failing row contains (",
        "invalid input syntax for type ",
        "[parameters: \n[",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """A megabyte of one repeated piece takes less than a few seconds. With quadratic time it would take hours, a tenth of it minutes."""
    assert isinstance(mask_text(piece * (SIZE // len(piece))), str)


@given(
    st.text()
    | st.lists(st.sampled_from(["token", "password", "=", ":", '"', "'", "\\", "[", "]", " ", "&a=", "://", "@", "a"])).map("".join)
)
def test_any_text_can_be_masked(text: str) -> None:
    """No text raises an error. Text without a secret stays as it is."""
    masked = mask_text(text)

    assert masked == text or "***" in masked


# --- Fields ---


class Login(BaseModel):
    user: str
    password: str


def test_fields_are_masked_by_name_at_any_depth() -> None:
    """The whole value of a secret's name is masked, whatever its type. Other text is masked as messages are."""
    masked = mask_fields(
        {
            "password": 1234,
            "headers": {"Cookie": {"a": "b"}, "host": "h", b"authorization": b"Bearer x"},
            "urls": ["redis://:hunter2@h", ("postgresql://u:hunter2@h",)],
            "login": Login(user="bob", password="hunter2"),
            "shown": SecretStr("hunter2"),
            "input": "hunter2",
            "checks": {"redis://:hunter2@h": "ok"},
        }
    )

    assert masked == {
        "password": "***",
        "headers": {"Cookie": "***", "host": "h", "b'authorization'": "***"},
        "urls": ["redis://:***@h", ["postgresql://u:***@h"]],
        "login": "user='bob' password='***'",
        "shown": "**********",
        "input": "***",
        "checks": {"redis://:***@h": "ok"},
    }


@pytest.mark.parametrize(
    "pairs",
    [
        [(b"authorization", b"Token hunter2"), [b"cookie", b"session=hunter2"]],
        [("user[password]", "hunter2"), ("access_token", ["hunter2"]), ("client.secret", {"a": "hunter2"})],
        {"request": {"scope": {"headers": [[(b"authorization", b"Token hunter2")]]}}},
        Headers(raw=[(b"authorization", b"Token hunter2")]).items(),
        MultiDict([("token", "hunter2")]).multi_items(),
    ],
    ids=repr,
)
def test_pairs_are_masked_as_fields(pairs: Any) -> None:
    """Headers of ASGI, of clients and of forms, at any depth."""
    assert SECRET not in json.dumps(mask_fields({"extra": pairs}))
    assert SECRET not in mask_text(str(pairs))


def test_pairs_without_secrets_stay() -> None:
    """Other names, sentences, and lists of more than two names."""
    pairs = [["host", "h"], ["token_type", "bearer"], ["forgot your password?", "yes"], ["name", "cookie"], [1, 2]]

    assert mask_fields({"pairs": pairs, "names": ["name", "password", "email"]}) == {"pairs": pairs, "names": ["name", "password", "email"]}


def test_fields_are_what_json_has() -> None:
    """NaN, huge numbers, lone surrogates and objects become text."""

    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("password=hunter2")

    fields = {"nan": float("nan"), "inf": float("-inf"), "huge": 2**64, "endless": 10**5000, "cut": "a\ud800", "text": Unprintable()}

    assert mask_fields(fields | {"kept": [None, True, 1, 1.5]}) == {
        "nan": "nan",
        "inf": "-inf",
        "huge": "18446744073709551616",
        "endless": "<int whose text is a ValueError>",
        "cut": "a\\ud800",
        "text": "<Unprintable whose text is a RuntimeError>",
        "kept": [None, True, 1, 1.5],
    }


def test_fields_are_bounded() -> None:
    """Circles, deep nesting and shared lists that would expand to billions of values end in an ellipsis."""
    circle: list[Any] = []
    circle.append(circle)
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    shared: list[Any] = ["x"]
    for _ in range(9):
        shared = [shared] * 10

    texts = [json.dumps(mask_fields({"value": value})) for value in (circle, deep, shared, list(range(10**6)))]

    assert all("\\u2026" in text and len(text) < 20_000 for text in texts)
