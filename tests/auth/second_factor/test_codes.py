"""Codes of an authenticator app, and recovery codes."""

import logging
from base64 import b32decode, b32encode
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from fastapi_kit.auth.second_factor import TOTP, new_recovery_codes, use_recovery_code
from fastapi_kit.auth.second_factor.totp import hotp
from fastapi_kit.errors import ConfigurationError
from fastapi_kit.testing import FrozenClock

KEY = b"12345678901234567890"
SECRET = b32encode(KEY).decode()
START = datetime(2030, 6, 1, 12, tzinfo=UTC)
STEP = int(START.timestamp()) // 30


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(START)


@pytest.fixture
def totp(clock: FrozenClock) -> TOTP:
    return TOTP(issuer="Zenith", clock=clock)


# Appendix D of RFC 4226.
COUNTERS = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
# Appendix B of RFC 6238, SHA-1: the last six of its eight digits.
TIMES = {59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"}


def test_the_vectors_of_hotp() -> None:
    """The codes are those of RFC 4226."""
    assert [hotp(KEY, counter) for counter in range(10)] == COUNTERS


@pytest.mark.parametrize("seconds", TIMES)
def test_the_vectors_of_totp(seconds: int) -> None:
    """R46: the codes are those of RFC 6238, so every authenticator app makes them."""
    totp = TOTP(issuer="Zenith", clock=lambda: datetime.fromtimestamp(seconds, UTC))

    assert totp.verify(SECRET, TIMES[seconds], last_step=None) == seconds // 30


def test_the_steps_around_now(totp: TOTP) -> None:
    """R46: the code of the step before and after is accepted, for clocks that differ; older and newer ones are not."""
    answers = [totp.verify(SECRET, hotp(KEY, STEP + distance), last_step=None) for distance in range(-3, 4)]

    assert answers == [None, None, STEP - 1, STEP, STEP + 1, None, None]


def test_a_step_is_used_once(totp: TOTP, clock: FrozenClock) -> None:
    """A code that was used, and those before it, are rejected. The next one works."""
    assert totp.verify(SECRET, hotp(KEY, STEP), last_step=STEP) is None
    assert totp.verify(SECRET, hotp(KEY, STEP - 1), last_step=STEP) is None
    assert totp.verify(SECRET, hotp(KEY, STEP + 1), last_step=STEP) == STEP + 1
    clock.advance(timedelta(seconds=30))
    assert totp.verify(SECRET, hotp(KEY, STEP + 1), last_step=STEP) == STEP + 1


CODE = hotp(KEY, STEP)


@pytest.mark.parametrize("code", [CODE, f" {CODE} ", f"{CODE[:3]} {CODE[3:]}", f"{CODE[:3]}-{CODE[3:]}", "\t".join(CODE)])
def test_spaces_in_a_code(totp: TOTP, code: str) -> None:
    """Apps show codes with a space in them; users may type it."""
    assert totp.verify(SECRET, code, last_step=None) == STEP


def in_digits(zero: int) -> str:
    return "".join(chr(zero + int(digit)) for digit in CODE)


@pytest.mark.parametrize(
    "code",
    [
        None,
        "",
        " ",
        7,
        b"123456",
        CODE[:5],
        CODE + "0",
        CODE * 100_000,
        "x" * 6,
        "\ud800" * 6,
        "\0" * 6,
        f"+{CODE[1:]}",
        f"{CODE[:3]}.{CODE[3:]}",
        in_digits(0x0660),
        in_digits(0xFF10),
        in_digits(0x1D7CE),
        "½" * 6,
        [CODE],
    ],
    ids=ascii,
)
def test_what_is_no_code(totp: TOTP, code: Any) -> None:
    """R46: no other input is accepted or raises: None, empty, huge, other digits, lone surrogates."""
    assert totp.verify(SECRET, code, last_step=None) is None


@pytest.mark.parametrize("secret", ["", "1", "not base32!", "é", SECRET[:-1], SECRET.lower(), None])
def test_a_malformed_secret(totp: TOTP, secret: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A stored secret that is malformed fits no code, and is logged without its value."""
    assert totp.verify(secret, CODE, last_step=None) is None

    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "A stored secret of a second factor is malformed")
    ]


def test_a_new_secret(totp: TOTP) -> None:
    """Each secret is 160 random bits in base32."""
    secrets = {totp.new_secret() for _ in range(50)}

    assert len(secrets) == 50
    assert {len(b32decode(secret)) for secret in secrets} == {20}


@pytest.mark.parametrize("account", ["ann@example.com", "Ann Müller", "a&b=c?d#e/f%20", "a:b", "\ud800", "x" * 300, ""])
def test_the_address_for_the_app(clock: FrozenClock, account: str) -> None:
    """The address has the issuer, the account and the secret, escaped so that an app reads the same."""
    uri = TOTP(issuer="Zenith & Söhne", clock=clock).uri(SECRET, account=account)

    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("otpauth", "totp", "")
    assert uri.isascii()
    assert " " not in uri
    assert "+" not in uri
    issuer, _, name = unquote(parts.path[1:]).partition(":")
    assert (issuer, name) == ("Zenith & Söhne", account.replace("\ud800", "?"))
    fields = {"secret": [SECRET], "issuer": ["Zenith & Söhne"], "algorithm": ["SHA1"], "digits": ["6"], "period": ["30"]}
    assert parse_qs(parts.query, strict_parsing=True) == fields


@pytest.mark.parametrize("issuer", ["", " ", "a:b", "a\nb", "\ud800"])
def test_an_impossible_issuer(issuer: str) -> None:
    """Apps take what is before the colon for the issuer, so it has none."""
    with pytest.raises(ConfigurationError, match="issuer"):
        TOTP(issuer=issuer)


# --- Recovery codes ---


def test_new_recovery_codes() -> None:
    """Recovery codes have 80 random bits; the hashes show nothing of them, and neither does the repr."""
    made = new_recovery_codes()

    assert len({*made.codes, *made.hashes}) == 20
    assert all(len(code.replace("-", "")) == 16 for code in made.codes)
    assert not any(code in repr(made) or code.replace("-", "") in "".join(made.hashes) for code in made.codes)


def test_a_recovery_code_is_used_once() -> None:
    """R46: a code works once, and the others go on working."""
    made = new_recovery_codes(count=3)

    left = use_recovery_code(made.codes[1], made.hashes)

    assert left == [made.hashes[0], made.hashes[2]]
    assert use_recovery_code(made.codes[1], left) is None
    assert use_recovery_code(made.codes[0], left) == [made.hashes[2]]


@pytest.mark.parametrize(
    "typed",
    [
        str.upper,
        lambda code: code.replace("-", ""),
        lambda code: f"  {code.replace('-', ' ')}\n",
        lambda code: code.replace("-", "–"),
        lambda code: code.replace("0", "O").replace("1", "l"),
        lambda code: code.upper().replace("1", "I"),
    ],
)
def test_how_a_recovery_code_may_be_typed(typed: Any) -> None:
    """Case, spaces, hyphens, and letters that look like digits do not matter."""
    made = new_recovery_codes()

    assert all(use_recovery_code(typed(code), made.hashes) is not None for code in made.codes)


@pytest.mark.parametrize("code", [None, "", 7, b"x", "-", "x" * 16, "u" * 16, "0" * 15, "0" * 17, "0" * 100_000, "\ud800" * 16, "０" * 16])
def test_what_is_no_recovery_code(code: Any) -> None:
    """No other input is accepted or raises."""
    assert use_recovery_code(code, new_recovery_codes().hashes) is None
    assert use_recovery_code(code, []) is None


@pytest.mark.parametrize("count", [0, -1, 21])
def test_an_impossible_number_of_codes(count: int) -> None:
    """There is at least one code, and no flood of them."""
    with pytest.raises(ConfigurationError, match="from 1 to 20"):
        new_recovery_codes(count=count)
