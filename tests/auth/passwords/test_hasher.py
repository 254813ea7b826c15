"""Hashing off the loop, whatever is wrong with what is stored; and which new passwords are refused."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files

import pytest
from pydantic import SecretStr

from fastapi_kit.auth.passwords import HashContext, PasswordCheck, PasswordHasher, PasswordPolicy
from fastapi_kit.auth.passwords.contexts import CryptContext, bcrypt_context
from fastapi_kit.errors import ConfigurationError, UserInputError
from fastapi_kit.settings import KitSettings

cheap = PasswordHasher(context=bcrypt_context(rounds=4))

SURROGATE = "correct \ud800 horse"
TOO_LONG = "x" * 4097


class RecordingContext:
    """Hashes by reversing, and notes what it is asked; *gate* holds every call back while it is closed."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.checked: list[str] = []
        self.threads: set[int] = set()

    def hash(self, secret: str, /) -> str:
        return secret[::-1]

    def verify_and_update(self, secret: str, hash: str, /) -> tuple[bool, str | None]:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.checked.append(hash)
            self.threads.add(threading.get_ident())
        self.entered.release()
        assert self.gate.wait(10)
        with self.lock:
            self.running -= 1
        if hash == "malformed":
            raise ValueError(f"malformed: {hash} {secret}")
        if hash == "broken":
            raise KeyError("a mistake in the host's context")
        return secret == hash[::-1], None


async def entered(context: RecordingContext) -> None:
    """Wait, without stopping the loop, until one more call has entered the context."""
    assert await asyncio.to_thread(context.entered.acquire, timeout=10)


# --- Hashing ---


async def test_a_password_fits_its_hash() -> None:
    """R30: the hash that is stored fits the password, as text and as SecretStr, and no other."""
    hashed = await cheap.hash(SecretStr("correct horse"))

    assert await cheap.verify("correct horse", hashed)
    assert await cheap.verify(SecretStr("correct horse"), hashed)
    assert not await cheap.verify("correct house", hashed)


async def test_the_default_is_bcrypt_of_cost_12() -> None:
    """R31: without options a new hash costs 12; rounds=10 is the cheapest that is taken."""
    assert (await PasswordHasher().hash("correct horse")).startswith("$2b$12$")
    assert (await PasswordHasher(rounds=10).hash("correct horse")).startswith("$2b$10$")


async def test_an_outdated_hash_is_replaced() -> None:
    """R34: verify_and_update hands over the hash to store instead; verify only answers."""
    hashed = await cheap.hash("correct horse")
    today = PasswordHasher(context=bcrypt_context(rounds=5))

    check = await today.verify_and_update("correct horse", hashed)

    assert check.ok
    assert check.new_hash is not None
    assert await today.verify_and_update("correct horse", check.new_hash) == PasswordCheck(ok=True, new_hash=None)
    assert await today.verify_and_update("correct house", hashed) == PasswordCheck(ok=False, new_hash=None)
    assert await today.verify("correct horse", hashed) is True


@pytest.mark.parametrize(("password", "code"), [(SURROGATE, "invalid_text"), (TOO_LONG, "too_long")])
async def test_what_cannot_be_hashed_is_the_callers_mistake(password: str, code: str) -> None:
    """R35: lone surrogates and endless passwords are refused as input, and verify as False."""
    with pytest.raises(UserInputError) as caught:
        await cheap.hash(password)

    assert [(error.loc, error.code) for error in caught.value.errors] == [(("body", "password"), code)]
    assert await cheap.verify(password, await cheap.hash("correct horse")) is False
    assert await cheap.verify_and_update(password, None) == PasswordCheck(ok=False, new_hash=None)


async def test_nul_and_4096_characters_are_taken() -> None:
    """R35: NUL is a character as any other, and so is the 4096th."""
    for password in ("nul\0inside", "🔑" * 4096):
        hashed = await cheap.hash(password)
        assert await cheap.verify(password, hashed)
        assert not await cheap.verify(password[:-1], hashed)


async def test_a_context_that_refuses_nul_is_no_server_error() -> None:
    """R35: where the host's context refuses NUL, so does the hasher, as input."""

    class Picky(RecordingContext):
        def hash(self, secret: str, /) -> str:
            if "\0" in secret or secret == "odd":
                raise ValueError("no")
            return secret[::-1]

    picky = PasswordHasher(context=Picky())

    with pytest.raises(UserInputError, match="characters"):
        await picky.hash("nul\0inside")
    with pytest.raises(ValueError, match="no"):
        await picky.hash("odd")


# --- Stored hashes that are none ---


async def test_no_hash_costs_one_verify() -> None:
    """R32: without a stored hash the context verifies one of the same cost, which does not fit."""
    context = RecordingContext()
    hasher = PasswordHasher(context=context)

    assert await hasher.verify("correct horse", None) is False
    assert await hasher.verify_and_update("correct horse", None) == PasswordCheck(ok=False, new_hash=None)
    assert len(context.checked) == 2
    assert len(set(context.checked)) == 1


async def test_the_dummy_is_of_the_hashers_own_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """R32: what is verified for an unknown user costs what a real verify costs, at once and without hashing anything before."""
    verified: list[str] = []
    verify = CryptContext.verify

    def note(self: CryptContext, secret: str, hash: str) -> bool:
        verified.append(hash)
        return verify(self, secret, hash)

    monkeypatch.setattr(CryptContext, "verify", note)

    assert await PasswordHasher(rounds=11).verify("correct horse", None) is False
    assert [hashed[:7] for hashed in verified] == ["$2b$11$"]


@pytest.mark.parametrize("hashed", ["", "!", "garbage", "$2b$99$" + "C" * 53, "$2b$12$short", "$argon2id$", "\ud800"])
async def test_a_malformed_hash_is_a_failed_login(hashed: str, caplog: pytest.LogCaptureFixture) -> None:
    """R33: it is False, and one warning that shows neither the hash nor the password."""
    with caplog.at_level(logging.WARNING, logger="fastapi_kit.auth.passwords"):
        assert await cheap.verify("correct horse", hashed) is False

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "correct horse" not in caplog.text
    assert not hashed or hashed not in record.getMessage()


async def test_a_malformed_hash_costs_one_verify() -> None:
    """R32: the dummy is verified after the refusal, with the host's context too."""
    context = RecordingContext()
    hasher = PasswordHasher(context=context)

    assert await hasher.verify("correct horse", "malformed") is False
    assert len(context.checked) == 2
    assert context.checked[0] == "malformed"


async def test_other_errors_of_the_context_go_on() -> None:
    """R33: a mistake in the host's context is no failed login."""
    with pytest.raises(KeyError):
        await PasswordHasher(context=RecordingContext()).verify("correct horse", "broken")


# --- Threads ---


async def test_the_event_loop_runs_on() -> None:
    """R31: while a password is verified the loop serves others."""
    context = RecordingContext()
    context.gate.clear()
    verifying = asyncio.ensure_future(PasswordHasher(context=context).verify("correct horse", "x"))
    await entered(context)

    for _ in range(100):
        await asyncio.sleep(0)

    assert not verifying.done()
    context.gate.set()
    assert await verifying is False
    assert threading.get_ident() not in context.threads


async def test_no_more_threads_than_allowed() -> None:
    """R31: what comes beyond max_concurrency waits its turn."""
    context = RecordingContext()
    context.gate.clear()
    hasher = PasswordHasher(context=context, max_concurrency=2)
    verifying = [asyncio.ensure_future(hasher.verify("correct horse", "x")) for _ in range(8)]
    for _ in range(2):
        await entered(context)

    assert context.running == 2
    context.gate.set()
    assert await asyncio.gather(*verifying) == [False] * 8
    assert context.most == 2


async def test_a_cancelled_verify_keeps_its_place_until_it_ends() -> None:
    """R31: clients that go away do not make more threads run than allowed, and what they waited for is not begun."""
    context = RecordingContext()
    context.gate.clear()
    hasher = PasswordHasher(context=context, max_concurrency=1)
    left_while_running = asyncio.ensure_future(hasher.verify("correct horse", "first"))
    await entered(context)
    left_while_waiting = asyncio.ensure_future(hasher.verify("correct horse", "second"))
    await asyncio.sleep(0)
    for task in (left_while_running, left_while_waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    patient = asyncio.ensure_future(hasher.verify("correct horse", "third"))
    for _ in range(100):
        await asyncio.sleep(0)

    assert context.checked == ["first"]
    context.gate.set()
    assert await patient is False
    assert context.checked == ["first", "third"]
    assert context.most == 1


def test_one_hasher_serves_several_loops() -> None:
    """R31: a hasher that was made at import works in each loop, also after one was closed."""
    hasher = PasswordHasher(context=bcrypt_context(rounds=4), max_concurrency=1)

    async def use() -> bool:
        hashed = await asyncio.gather(*(hasher.hash("correct horse") for _ in range(3)))
        return all([await hasher.verify("correct horse", each) for each in hashed])

    assert [asyncio.run(use()) for _ in range(2)] == [True, True]


# --- Options ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: PasswordHasher(rounds=9),
        lambda: PasswordHasher(rounds=32),
        lambda: PasswordHasher(max_concurrency=0),
        lambda: PasswordHasher(rounds=13, scheme="argon2"),
        lambda: PasswordHasher(rounds=13, context=RecordingContext()),
        lambda: PasswordHasher(scheme="argon2", context=RecordingContext()),
        lambda: PasswordHasher(scheme="md5"),  # type: ignore[arg-type]
    ],
)
def test_impossible_options_are_refused(make: Callable[[], PasswordHasher]) -> None:
    """R31: a cost below 10, no threads, an unknown scheme, and options that exclude each other, are mistakes at start-up."""
    with pytest.raises(ConfigurationError):
        make()


@pytest.mark.parametrize(("environment", "rounds", "begin"), [("local", 11, "$2b$11$"), ("test", 4, "$2b$04$")])
async def test_settings_choose_the_cost(environment: str, rounds: int, begin: str) -> None:
    """R31: PASSWORD_HASH_ROUNDS is the cost, in tests also one below 10."""
    settings = KitSettings.model_validate({"ENVIRONMENT": environment, "PASSWORD_HASH_ROUNDS": rounds})

    assert (await PasswordHasher.from_settings(settings).hash("correct horse")).startswith(begin)


def test_a_context_that_cannot_hash_is_found_at_once() -> None:
    """R33: passlib's own bcrypt with bcrypt 5 refuses every password; the start says so, not each registration."""

    class Broken(RecordingContext):
        def hash(self, secret: str, /) -> str:
            raise ValueError("password cannot be longer than 72 bytes")

    with pytest.raises(ConfigurationError, match="leave context= out"):
        PasswordHasher(context=Broken())


async def test_the_hosts_own_context_fits() -> None:
    """R33: a CryptContext as hosts have it hashes, verifies and upgrades."""
    context: HashContext = CryptContext(
        schemes=["pbkdf2_sha256", "sha256_crypt"], deprecated="auto", pbkdf2_sha256__rounds=10, sha256_crypt__rounds=1000
    )
    hasher = PasswordHasher(context=context)
    old = CryptContext(schemes=["sha256_crypt"], sha256_crypt__rounds=1000).hash("correct horse")

    check = await hasher.verify_and_update("correct horse", old)

    assert check.ok
    assert check.new_hash is not None
    assert check.new_hash.startswith("$pbkdf2-sha256$")
    assert await hasher.verify("correct horse", check.new_hash)
    assert await hasher.verify("correct horse", None) is False
    assert await hasher.verify("nul\0inside", "garbage") is False


async def test_argon2_is_one_word_away() -> None:
    """R33: scheme="argon2" hashes with argon2id and takes bcrypt users over at their next login."""
    hasher = PasswordHasher(scheme="argon2")

    check = await hasher.verify_and_update("correct horse", await cheap.hash("correct horse"))

    assert check.new_hash is not None
    assert check.new_hash.startswith("$argon2id$")
    assert await hasher.verify("correct horse", check.new_hash)
    assert not await hasher.verify("correct horse", None)


# --- The policy ---

policy = PasswordPolicy()
ADA = ("ada.lovelace@engines.example", "Ada Lovelace")


async def codes(password: str, *similar_to: str, policy: PasswordPolicy = policy) -> list[str]:
    """Return why *password* is refused."""
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
    """R30: no composition rules: any characters will do, if there are enough of them and they are not the usual ones."""
    assert await codes(password, *ADA) == []


async def test_lengths_count_characters() -> None:
    """R30: 8 to 128 characters by default, whatever bytes they take; both bounds can be moved."""
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
async def test_what_many_people_have_is_refused(password: str) -> None:
    """R30: the list, repetitions, and keys in a row; capitals, accents and a year at the end do not help."""
    assert await codes(password) == ["too_common"]


async def test_common_passwords_can_be_allowed() -> None:
    """R30: reject_common=False leaves the lengths and the likeness."""
    assert await codes("password", policy=PasswordPolicy(reject_common=False)) == []


def test_the_list_is_long_enough() -> None:
    """R30: more than 3,000 passwords that the default length would let through, each in the form that is compared."""
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
async def test_what_is_known_of_the_owner_is_refused(password: str) -> None:
    """R30: the address, its parts and the words of the name, and little more than these."""
    assert await codes(password, *ADA) == ["too_similar"]


@pytest.mark.parametrize("password", ["ada likes tables", "lovelace analytical card", "adamant purple", "9 engines hum softly"])
async def test_a_passphrase_may_contain_a_name(password: str) -> None:
    """R30: what is good without the name is good with it, and short names do not count."""
    assert await codes(password, *ADA) == []


async def test_every_reason_is_named() -> None:
    """R30: one answer tells all that is wrong, and does not show the password."""
    with pytest.raises(UserInputError) as caught:
        await PasswordPolicy(min_length=15).check("qwertyuiop", similar_to=["qwertyuiop@mail.example"])

    assert [reason.code for reason in caught.value.errors] == ["too_short", "too_common", "too_similar"]
    assert {reason.loc for reason in caught.value.errors} == {("body", "password")}
    assert caught.value.detail == (
        "the password must have at least 15 characters; it is too common, or too simple a pattern; it is too much like your other details"
    )


async def test_lone_surrogates_are_refused() -> None:
    """R35: a password that no encoding carries is wrong input."""
    assert await codes(SURROGATE) == ["invalid_text"]


async def test_a_breached_password_is_refused() -> None:
    """R30: the host's check is asked last, with the password as typed, and only when all else is well."""
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
    """R30: nobody is kept from registering because another service is down; the log says so by the kind of error."""

    async def is_breached(password: str) -> bool:
        raise TimeoutError(f"no answer for {password}")

    with caplog.at_level(logging.WARNING, logger="fastapi_kit.auth.passwords"):
        assert await codes("correct horse", policy=PasswordPolicy(is_breached=is_breached)) == []

    assert "TimeoutError" in caplog.text
    assert "correct horse" not in caplog.text


@pytest.mark.parametrize("bounds", [{"min_length": 7}, {"max_length": 63}, {"max_length": 4097}, {"min_length": 100, "max_length": 99}])
def test_impossible_lengths_are_refused(bounds: dict[str, int]) -> None:
    """R30: fewer than 8, a maximum below 64, and more than can be hashed, are mistakes at start-up."""
    with pytest.raises(ConfigurationError):
        PasswordPolicy(**bounds)  # type: ignore[arg-type]


async def test_one_text_is_no_list_of_texts() -> None:
    """R30: similar_to="ada@…" would compare with single letters: it is refused."""
    with pytest.raises(ConfigurationError, match="brackets"):
        await policy.check("correct horse", similar_to="ada@engines.example")


async def test_a_policy_is_changed_by_replacing_it() -> None:
    """R30: it is a frozen dataclass; secrets are taken as SecretStr too."""
    longer = replace(policy, min_length=15)

    await policy.check(SecretStr("correct horse"))
    with pytest.raises(UserInputError):
        await longer.check(SecretStr("correct horse"))
