"""Secrets are found in text and in data, in linear time."""

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from starlette.datastructures import Headers, MultiDict

from fastapi_kit._masking import mask_fields, mask_text

SECRET = "hunter2"

# Written by programs: the secret is in quotes, and escaped.
QUOTED: list[Callable[[str], str]] = [
    lambda secret: json.dumps({"password": secret, "user": "bob"}),
    lambda secret: json.dumps({"data": {"accessToken": secret}}, separators=(",", ":")),
    lambda secret: json.dumps({"body": json.dumps({"client_secret": secret})}),
    lambda secret: str({"user": "bob", "api_key": secret}),
    lambda secret: str([("x-api-key", secret), ("host", "h")]),
    lambda secret: str([(b"cookie", secret.encode("utf-8", "backslashreplace")), (b"host", b"h")]),
    lambda secret: f"User(password={secret!r}, name='bob')",
    lambda secret: f"value too short [input_value={secret!r}, input_type=str]",
    lambda secret: str([{"loc": ("body", "pin"), "input": secret}]),
    lambda secret: str({"tokens": [secret, 1, secret], "user": "bob"}),
    lambda secret: f"credentials={{'user': 'bob', 'pin': {secret!r}}}",
]
# Written by hand: up to white space.
BARE: list[Callable[[str], str]] = [
    lambda secret: f"password={secret}",
    lambda secret: f"Password : {secret}",
    lambda secret: f"DB_PASSWORD={secret} DEBUG=1",
    lambda secret: f'"GET /reset?user=bob&token={secret} HTTP/1.1" 200',
    lambda secret: f"X-API-Key: {secret}",
    lambda secret: f"Authorization: Custom a=b {secret}",
    lambda secret: f"Set-Cookie: theme=dark; session={secret}; Path=/",
    lambda secret: f"/login?next=%2Fa%3Ftoken%3D{secret}",
    lambda secret: f"session_id={secret}",
    lambda secret: f"Set: PHPSESSID={secret}",
    lambda secret: f"connect.sid={secret}",
    lambda secret: f"otp: {secret}",
    lambda secret: f"one-time code: {secret}",
    lambda secret: f"verification_code={secret}",
    lambda secret: f"recoveryCode={secret}",
]
URLS: list[Callable[[str], str]] = [
    lambda secret: f"postgresql+asyncpg://app:{secret}@db.example.com:5432/app",
    lambda secret: f"cannot reach 'redis://:{secret}@cache/0'",
    lambda secret: f"amqp://a@b:{secret}@one,amqp://a:{secret}@two",
]
TOKENS: list[Callable[[str], str]] = [
    lambda secret: f"got Bearer {secret} instead",
    lambda secret: f"HTTPAuth('Basic', '{secret}')",
    lambda secret: f"basic\t{secret}",
    lambda secret: f"token is eyJhbGciOiJI.{secret}.x, expired",
]

AROUND = st.text(st.characters(exclude_characters="\"'[({\\"), max_size=20)
ANYTHING = st.text(max_size=12)
VISIBLE = st.text(st.characters(exclude_categories=["Z", "C"]), max_size=12)


def check(form: Callable[[str], str], before: str, secret: str, after: str) -> None:
    masked = mask_text(f"{before} {form(secret)} {after}")

    assert SECRET not in masked
    assert SECRET not in mask_text(masked)


@pytest.mark.parametrize("form", QUOTED)
@given(before=AROUND, start=ANYTHING, end=ANYTHING, after=AROUND)
def test_a_secret_in_quotes_is_masked_whole(form: Callable[[str], str], before: str, start: str, end: str, after: str) -> None:
    """The value of a secret's name is masked, whatever characters are in it and around it."""
    check(form, before, start + SECRET + end, after)


@pytest.mark.parametrize("form", BARE)
@given(before=AROUND, start=VISIBLE, end=VISIBLE, after=AROUND)
def test_a_secret_without_quotes_is_masked_up_to_white_space(
    form: Callable[[str], str], before: str, start: str, end: str, after: str
) -> None:
    """Names with = or a colon, query strings and headers."""
    assume(not re.search(r"[\"'&]", start))
    check(form, before, start + SECRET + end, after)


@pytest.mark.parametrize("form", URLS)
@given(before=AROUND, start=VISIBLE, end=VISIBLE, after=AROUND)
def test_a_password_in_a_url_is_masked_up_to_the_last_at(form: Callable[[str], str], before: str, start: str, end: str, after: str) -> None:
    """Also one with slashes, colons, quotes and at signs that nobody has encoded."""
    assume(not re.match(r"\d{1,5}[\"'\\]", start))
    check(form, before, start + SECRET + end, after)


@pytest.mark.parametrize("form", TOKENS)
@given(
    before=AROUND,
    start=st.from_regex(r"[A-Za-z0-9._~+/-]{0,12}", fullmatch=True),
    end=st.from_regex(r"[A-Za-z0-9._~-]{0,12}=*", fullmatch=True),
    after=AROUND,
)
def test_a_token_is_known_by_its_shape(form: Callable[[str], str], before: str, start: str, end: str, after: str) -> None:
    """Bearer and Basic credentials and JSON web tokens, wherever they stand."""
    if "eyJ" in form(""):
        start, end = start.replace("/", "").replace("+", "").replace("~", ""), end.replace("=", "").replace("~", "")
    check(form, before, start + SECRET + end, after)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mysql --password hunter2 -h db", "mysql --password *** -h db"),
        ("run --db-password 'correct horse' -v", "run --db-password *** -v"),
        ("run --token=hunter2 -v", "run --token=*** -v"),
        ("['run', '--api-key', 'hunter2', '-v']", "['run', '--api-key', '***', '-v']"),
        ("GET /callback?code=SplxlOBeZQQ1&state=1", "GET /callback?code=***&state=1"),
        ("GET /verify?user=1&code=123456", "GET /verify?user=1&code=***"),
        ("totp=123456 user=1", "totp=*** user=1"),
    ],
)
def test_codes_and_command_lines_are_masked(text: str, masked: str) -> None:
    """Options with their values, and what is used once."""
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "status code 404",
        "exit code: 1",
        "error code=23505",
        "code=not_found",
        "GET /errors?code=not_found&page=1",
        "session idle: 5",
        "the side: left, aside=1",
        "verification code expired",
        "--token-type bearer",
        "the option --password is required",
        "Bearer token is missing",
        "Basic authentication required",
        "InvalidTokenError: expired",
        '  File "/app/auth/tokens.py", line 12, in decode',
        "token_type=bearer expires_in=60",
        "ACCESS_TOKEN_EXPIRE_MINUTES=30",
        "http://localhost:8000/users/bob@example.com?a=b@c",
        "http://[::1]:8000/@vite/client",
        "redis://cache:6379 is unreachable, tell admin@example.com",
        "ssh://git@github.com/a/b",
        "GET /api/v1/passengers/{id} 200 in 3.1 ms",
        "the secretary has a compass: north",
        "primary key=7",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Logs stay readable: ports, names of errors and files, and words that only look alike."""
    assert mask_text(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://app:p@ss/w:rd@db:5432/app?ssl=1", "postgresql://app:***@db:5432/app?ssl=1"),
        ("https://0123456789abcdef0123@o0.ingest.example.com/1", "https://***@o0.ingest.example.com/1"),
        ('{"password": "a\\"b", "user": "bob"}', '{"password": "***", "user": "bob"}'),
        ("?token=a&user=bob", "?token=***&user=bob"),
        ("password=SecretStr('**********') user=bob", "password=*** user=bob"),
        ("Cookie: a=b; c=d\nHost: h", "Cookie: ***\nHost: h"),
        ("[parameters: ('ada', 'hunter2')]\n(Background", "[parameters: ***\n(Background"),
        ("Failing row contains (1, hunter2\n2).", "Failing row contains (***"),
        ("taken\nDETAIL:  Key (name)=(hunter2\n2) already exists.\n[SQL: INSERT", "taken\nDETAIL:  ***\n[SQL: INSERT"),
        ("  | x\n  | DETAIL:  Key (a)=(hunter2\n  | 2) exists.\n  +----", "  | x\n  | DETAIL:  ***\n  +----"),
        ("CONTEXT:  $1 = 'hunter2'\n\nThe above exception was", "CONTEXT:  ***\n\nThe above exception was"),
        ("Schlüssel (lower(name::text))=(hunter2) existiert", "Schlüssel (lower(name::text))=(***"),
        ("invalid input for query argument $1: 'hunter2' (a)\n(Background", "invalid input for query argument $1: ***\n(Background"),
        ('invalid input syntax for type integer: "hunter2"', "invalid input syntax for type integer: ***"),
        ('invalid input value for enum kind: "hunter2"', "invalid input value for enum kind: ***"),
        ("-----BEGIN PRIVATE KEY-----\nMII\nabc=\n-----END PRIVATE KEY-----\nok", "***\nok"),
        ("private_key=-----BEGIN RSA PRIVATE KEY-----\nMII", "private_key=***"),
    ],
)
def test_what_is_around_a_secret_stays(text: str, masked: str) -> None:
    """The secret goes, its name and what follows stay."""
    assert mask_text(text) == masked


HOSTILE = [
    *("a", " ", '"', "\\", "key", "pass", "://", "://a@", "://a:1/", "http://a:1", "eyJ", "eyJaaaaaaaa.", "basic", "Bearer "),
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
    *("--", "--a", "--password", "--password ", '--password "', "--pass-", "?code=", "&code=1", "session_id", "otp=", "sid"),
    *("cookie:\n", "input'", "'input' ,", "[parameters: ", "-----BEGIN PRIVATE KEY-----"),
    *(
        "DETAIL:  ",
        "\nDETAIL:  ",
        "DETAIL:  \n |",
        "\n  | ",
        ")=(\n",
        "Failing row contains (",
        "invalid input syntax for type ",
        "[parameters: \n[",
    ),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """A megabyte that is made to be searched again and again is done at once; quadratic time would be hours."""
    assert isinstance(mask_text(piece * (1_000_000 // len(piece))), str)


@given(
    st.text()
    | st.lists(st.sampled_from(["token", "password", "=", ":", '"', "'", "\\", "[", "]", " ", "&a=", "://", "@", "a"])).map("".join)
)
def test_any_text_can_be_masked(text: str) -> None:
    """Nothing raises, and text without a name, a URL or a scheme stays as it is."""
    masked = mask_text(text)

    assert masked == text or "***" in masked


# --- Data ---


class Login(BaseModel):
    user: str
    password: str


def test_fields_are_masked_by_name_at_any_depth() -> None:
    """The whole value of a secret's name goes, whatever its type; strings elsewhere are searched."""
    masked = mask_fields(
        {
            "password": 1234,
            "headers": {"Cookie": {"a": "b"}, "host": "h", b"authorization": b"Bearer x"},
            "urls": ["redis://:hunter2@h", ("postgresql://u:hunter2@h",)],
            "login": Login(user="bob", password="hunter2"),
            "secret": SecretStr("hunter2"),
            "shown": SecretStr("hunter2"),
            "input": "hunter2",
            "token_type": "bearer",
            "key": {"password=hunter2": 1},
            "argv": ["run", "--db-password", "hunter2", "-v"],
            "pairs": [("x-api-key", "hunter2"), [b"x-api-key", b"hunter2"], ("token", "hunter2")],
            "sid": 1,
            "otp": 123456,
        }
    )

    assert masked == {
        "password": "***",
        "headers": {"Cookie": "***", "host": "h", "b'authorization'": "***"},
        "urls": ["redis://:***@h", ["postgresql://u:***@h"]],
        "login": "user='bob' password='***'",
        "secret": "***",
        "shown": "**********",
        "input": "***",
        "token_type": "bearer",
        "key": {"password=***": "***"},
        "argv": ["run", "--db-password", "***", "-v"],
        "pairs": [["x-api-key", "***"], ["b'x-api-key'", "***"], ["token", "***"]],
        "sid": "***",
        "otp": "***",
    }


SECRETS = [b"Token hunter2", "session=hunter2"]


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", SECRETS[0]), (b"cookie", SECRETS[1])],
        [("Authorization", SECRETS[0]), ("Cookie", SECRETS[1])],
        ((b"proxy-authorization", SECRETS[0]), [b"set-cookie", SECRETS[1]]),
        [[b"Authorization", SECRETS[0], b"Cookie", SECRETS[1]]],
        [(b"authorization", SECRETS[0], True), (b"cookie", SECRETS[1], False)],
        [("user[password]", "hunter2"), ("access_token", ["hunter2"]), ("client.secret", {"a": "hunter2"})],
        {"request": {"scope": {"headers": [[(b"authorization", SECRETS[0])]]}}},
        httpx.Headers([(b"authorization", SECRETS[0])]).raw,
        httpx.Headers([(b"authorization", SECRETS[0])]),
        Headers(raw=[(b"authorization", b"Token hunter2")]).items(),
        MultiDict([("token", "hunter2")]).multi_items(),
    ],
    ids=repr,
)
def test_pairs_are_masked_in_fields_as_in_messages(headers: Any) -> None:
    """Headers as ASGI, clients and forms have them, nested or flat."""
    assert "hunter2" not in json.dumps(mask_fields({"extra": headers}))


def test_pairs_without_secrets_stay() -> None:
    """Other names, and texts that are no names."""
    pairs = [["host", "h"], ["token_type", "bearer"], ["forgot your password?", "yes"], ["accept", "*/*"], ["name", "cookie"], [1, 2]]

    assert mask_fields({"pairs": pairs, "fields": ["name", "password", "email"]}) == {
        "pairs": pairs,
        "fields": ["name", "password", "email"],
    }


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("password=hunter2")


class Unreadable(dict[str, str]):
    def items(self) -> Any:
        raise RuntimeError("password=hunter2")


def test_fields_are_what_json_has() -> None:
    """NaN, huge numbers, lone surrogates and objects become text."""
    fields = {"nan": float("nan"), "inf": float("-inf"), "huge": 2**64, "endless": 10**5000, "cut": "a\ud800", "text": Unprintable()}

    masked = mask_fields(fields | {"dict": Unreadable(a="b"), "kept": [None, True, 1, 1.5]})

    assert masked == {
        "nan": "nan",
        "inf": "-inf",
        "huge": "18446744073709551616",
        "endless": "<int whose text is a ValueError>",
        "cut": "a\\ud800",
        "text": "<Unprintable whose text is a RuntimeError>",
        "dict": "<Unreadable that raises RuntimeError>",
        "kept": [None, True, 1, 1.5],
    }


def test_fields_are_bounded() -> None:
    """Circles, deep nesting and shared lists that would unfold to billions of values end in an ellipsis."""
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
