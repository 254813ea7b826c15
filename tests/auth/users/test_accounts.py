"""The normal form of e-mail addresses."""

import pytest

from fastapi_kit.auth.users import normalize_email
from fastapi_kit.errors import UserInputError


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Ann@Example.COM", "ann@example.com"),
        ("  ann@example.com\n", "ann@example.com"),
        ("\uff41\uff4e\uff4e@example.com", "ann@example.com"),
        ("ann@BÜCHER.example.com", "ann@bücher.example.com"),
        ("ann@xn--bcher-kva.example.com", "ann@bücher.example.com"),
        ("u\u0308ber@example.com", "über@example.com"),
        ("ΟΔΟΣ@example.com", "οδοσ@example.com"),
        ("οδος@example.com", "οδοσ@example.com"),
    ],
)
def test_one_form_of_an_address(written: str, normal: str) -> None:
    """R51: an address has one form, for every case, white space and Unicode form."""
    assert normalize_email(written) == normalize_email(normal) == normal


@pytest.mark.parametrize(
    "written",
    [
        "",
        "ann",
        "ann@",
        "@example.com",
        "ann@example",
        "a\0@example.com",
        "\ud800@example.com",
        "a" * 300,
        "ann\ufe0f@example.com",
        "an\u034fn@example.com",
        "ann\U000e0100@example.com",
    ],
)
def test_a_malformed_address(written: str) -> None:
    """R51: a malformed address raises UserInputError, which does not show it."""
    with pytest.raises(UserInputError) as caught:
        normalize_email(written)

    assert [(error.loc, error.code) for error in caught.value.errors] == [(("email",), "email")]
    assert len(written) < 2 or written not in str(caught.value)
