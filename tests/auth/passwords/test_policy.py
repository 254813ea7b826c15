"""Which new passwords are good enough."""

import logging
from dataclasses import replace
from importlib.resources import files

import pytest
from pydantic import SecretStr

from fastapi_kit.auth.passwords import PasswordPolicy
from fastapi_kit.errors import ConfigurationError, UserInputError

SURROGATE = "correct \ud800 horse"
policy = PasswordPolicy()
ADA = ("ada.lovelace@engines.example", "Ada Lovelace")


async def codes(password: str, *similar_to: str, policy: PasswordPolicy = policy) -> list[str]:
    """Return the codes of the reasons against *password*."""
    try:
        await policy.check(password, similar_to=similar_to)
    except UserInputError as error:
        return [reason.code for reason in error.errors]
    return []


@pytest.mark.parametrize(
    "password",
    [
        "correct horse battery staple",
        "xkcd-9361",
        "ALLCAPSBUTODD",
        "þorn und ß",
        "8 Zeichen",
        "🔑🐴🔋📎🦆🧂🪁🌋",
        "was pop fed nop",
        "q" * 7 + "rstxz",
    ],
)
async def test_a_good_password_passes(password: str) -> None:
    """R30: there are no composition rules: enough characters that are not common are good."""
    assert await codes(password, *ADA) == []


async def test_lengths_count_characters() -> None:
    """R30: lengths are in characters, not bytes: 8 to 128 by default, and both can be set."""
    long = PasswordPolicy(min_length=15, max_length=200)

    assert await codes("🔑🐴🔋📎🦆🧂🪁") == ["too_short"]
    assert await codes("tr0ub4dor & " * 11) == ["too_long"]
    assert await codes("tr0ub4dor & " * 11, policy=long) == []
    assert await codes("correct horse", policy=long) == ["too_short"]


@pytest.mark.parametrize(
    "password",
    [
        *("password", "PassWord", "pássword", "password1!", "sunshine2024", "trustno1", "iloveyou"),
        *("aaaaaaaa", "abababab", "abcabcabc", "12121212", "🔑🔑🔑🔑🔑🔑🔑🔑"),
        *("abcdefgh", "hgfedcba", "12345678", "0987654321", "abcd1234"),
        *("qwertyuiop", "poiuytrewq", "asdfghjkl", "1q2w3e4r5t", "1qaz2wsx3edc"),
    ],
)
async def test_what_many_people_have_is_rejected(password: str) -> None:
    """R30: listed passwords, repetitions and keys in a row are rejected, also with capitals, accents or a year at the end."""
    assert await codes(password) == ["too_common"]


async def test_common_passwords_can_be_allowed() -> None:
    """R30: reject_common=False keeps the rules about length and similarity."""
    assert await codes("password", policy=PasswordPolicy(reject_common=False)) == []


def test_the_list_is_long_enough() -> None:
    """R30: the list has more than 3,000 passwords of the default length, in the form that is compared."""
    listed = files("fastapi_kit.auth.passwords").joinpath("common_passwords.txt").read_text("utf-8").splitlines()

    assert len(listed) >= 3000
    assert listed == sorted(set(listed))
    assert all(len(password) >= 8 and password == password.casefold().strip() for password in listed)


@pytest.mark.parametrize(
    "password",
    [
        "lovelace",
        "Lovelace1815",
        "adalovelace",
        "ADA.LOVELACE",
        "ada.lovelace@engines.example",
        "engines99",
        "lövelâce",
        "lovelacelovelace1",
    ],
)
async def test_what_is_known_of_the_owner_is_rejected(password: str) -> None:
    """R30: a password that is little more than the address or the name of the user is rejected."""
    assert await codes(password, *ADA) == ["too_similar"]


@pytest.mark.parametrize("password", ["ada likes tables", "lovelace analytical card", "adamant purple", "9 engines hum softly"])
async def test_a_passphrase_may_contain_a_name(password: str) -> None:
    """R30: a long password may contain a name, and short names do not count."""
    assert await codes(password, *ADA) == []


async def test_every_reason_is_named() -> None:
    """R30: one error has every reason, and does not show the password."""
    with pytest.raises(UserInputError) as caught:
        await PasswordPolicy(min_length=15).check("qwertyuiop", similar_to=["qwertyuiop@mail.example"])

    assert [reason.code for reason in caught.value.errors] == ["too_short", "too_common", "too_similar"]
    assert {reason.loc for reason in caught.value.errors} == {("body", "password")}
    assert caught.value.detail == (
        "the password must have at least 15 characters; it is too common, or too simple a pattern; it is too much like your other details"
    )


async def test_lone_surrogates_are_rejected() -> None:
    """R35: a password with a lone surrogate is rejected."""
    assert await codes(SURROGATE) == ["invalid_text"]


async def test_a_breached_password_is_rejected() -> None:
    """R30: is_breached is called last, with the password as typed, if every other rule is met."""
    asked: list[str] = []

    async def is_breached(password: str) -> bool:
        asked.append(password)
        return password.startswith("Breached")

    checking = PasswordPolicy(is_breached=is_breached)

    assert await codes("Breached horse", policy=checking) == ["breached"]
    assert await codes("correct horse", policy=checking) == []
    assert await codes("password", policy=checking) == ["too_common"]
    assert asked == ["Breached horse", "correct horse"]


async def test_a_failing_breach_check_lets_pass(caplog: pytest.LogCaptureFixture) -> None:
    """R30: a breach check that raises lets the password pass, and the type of the error is logged."""

    async def is_breached(password: str) -> bool:
        raise TimeoutError(f"no answer for {password}")

    with caplog.at_level(logging.WARNING, logger="fastapi_kit.auth.passwords"):
        assert await codes("correct horse", policy=PasswordPolicy(is_breached=is_breached)) == []

    assert "TimeoutError" in caplog.text
    assert "correct horse" not in caplog.text


@pytest.mark.parametrize("bounds", [{"min_length": 7}, {"max_length": 63}, {"max_length": 4097}, {"min_length": 100, "max_length": 99}])
def test_impossible_lengths_are_rejected(bounds: dict[str, int]) -> None:
    """R30: a minimum below 8, a maximum below 64 and one above 4096 raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        PasswordPolicy(**bounds)  # type: ignore[arg-type]


async def test_one_text_is_no_list_of_texts() -> None:
    """R30: one string as similar_to raises ConfigurationError, because its letters would be compared."""
    with pytest.raises(ConfigurationError, match="brackets"):
        await policy.check("correct horse", similar_to="ada@engines.example")


async def test_a_policy_is_changed_by_replacing_it() -> None:
    """R30: a policy is a frozen dataclass, and checks a SecretStr, too."""
    longer = replace(policy, min_length=15)

    await policy.check(SecretStr("correct horse"))
    with pytest.raises(UserInputError):
        await longer.check(SecretStr("correct horse"))
