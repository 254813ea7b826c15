"""Hashing and verifying outside of the event loop."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import cast

import pytest
from pydantic import SecretStr

from fastapi_kit.auth.passwords import HashContext, PasswordCheck, PasswordHasher
from fastapi_kit.auth.passwords.contexts import CryptContext, bcrypt_context
from fastapi_kit.errors import ConfigurationError, UserInputError
from fastapi_kit.settings import KitSettings

cheap = PasswordHasher(context=bcrypt_context(rounds=4))

SURROGATE = "correct \ud800 horse"
TOO_LONG = "x" * 4097


class RecordingContext:
    """Hashes by reversing, and records its calls. A closed *gate* holds every call."""

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
    """R30: a hash matches its password, as str and as SecretStr, and no other password."""
    hashed = await cheap.hash(SecretStr("correct horse"))

    assert await cheap.verify("correct horse", hashed)
    assert await cheap.verify(SecretStr("correct horse"), hashed)
    assert not await cheap.verify("correct house", hashed)


async def test_the_default_is_bcrypt_of_cost_12() -> None:
    """R31: the default cost is 12, and the lowest is 10."""
    assert (await PasswordHasher().hash("correct horse")).startswith("$2b$12$")
    assert (await PasswordHasher(rounds=10).hash("correct horse")).startswith("$2b$10$")


async def test_an_outdated_hash_is_replaced() -> None:
    """R34: verify_and_update returns the hash to store instead; verify returns a bool."""
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
    """R35: lone surrogates and endless passwords raise UserInputError when hashed, and verify as False."""
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


async def test_a_context_that_rejects_nul_is_no_server_error() -> None:
    """R35: if the context rejects NUL, hashing it raises UserInputError."""

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


# --- Malformed hashes ---


async def test_no_hash_costs_one_verify() -> None:
    """R32: without a stored hash, another one of the same cost is verified, which does not match."""
    context = RecordingContext()
    hasher = PasswordHasher(context=context)

    assert await hasher.verify("correct horse", None) is False
    assert await hasher.verify_and_update("correct horse", None) == PasswordCheck(ok=False, new_hash=None)
    assert len(context.checked) == 2
    assert len(set(context.checked)) == 1


async def test_the_dummy_is_of_the_hashers_own_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """R32: verifying for an unknown user takes the time of a real one, from the first call on."""
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
    """R33: a malformed hash is False, and one warning without the hash and the password."""
    with caplog.at_level(logging.WARNING, logger="fastapi_kit.auth.passwords"):
        assert await cheap.verify("correct horse", hashed) is False

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "correct horse" not in caplog.text
    assert not hashed or hashed not in record.getMessage()


async def test_a_malformed_hash_costs_one_verify() -> None:
    """R32: a malformed hash takes the time of a verification, also with a context of your own."""
    context = RecordingContext()
    hasher = PasswordHasher(context=context)

    assert await hasher.verify("correct horse", "malformed") is False
    assert len(context.checked) == 2
    assert context.checked[0] == "malformed"


async def test_other_errors_of_the_context_go_on() -> None:
    """R33: an error of the context other than ValueError and TypeError is raised."""
    with pytest.raises(KeyError):
        await PasswordHasher(context=RecordingContext()).verify("correct horse", "broken")


# --- Threads ---


async def test_the_event_loop_runs_on() -> None:
    """R31: the event loop runs while a password is verified."""
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
    """R31: at most max_concurrency threads work; other calls wait in order."""
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
    """R31: cancelled calls do not let more threads run than allowed, and a waiting call that is cancelled never runs."""
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
    """R31: one hasher works in several event loops, also after one was closed."""
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
def test_impossible_options_are_rejected(make: Callable[[], PasswordHasher]) -> None:
    """R31: a cost below 10, no threads, an unknown scheme and options that exclude each other raise ConfigurationError."""
    with pytest.raises(ConfigurationError):
        make()


@pytest.mark.parametrize(("environment", "rounds", "begin"), [("local", 11, "$2b$11$"), ("test", 4, "$2b$04$")])
async def test_settings_choose_the_cost(environment: str, rounds: int, begin: str) -> None:
    """R31: PASSWORD_HASH_ROUNDS is the cost; in tests it may be below 10."""
    settings = KitSettings.model_validate({"ENVIRONMENT": environment, "PASSWORD_HASH_ROUNDS": rounds})

    assert (await PasswordHasher.from_settings(settings).hash("correct horse")).startswith(begin)


def test_a_context_that_cannot_hash_is_found_at_once() -> None:
    """R33: a context that cannot hash, such as passlib's bcrypt with bcrypt 5, raises ConfigurationError at start."""

    class Broken(RecordingContext):
        def hash(self, secret: str, /) -> str:
            raise ValueError("password cannot be longer than 72 bytes")

    with pytest.raises(ConfigurationError, match="leave context= out"):
        PasswordHasher(context=Broken())


async def test_a_context_of_your_own() -> None:
    """R33: a CryptContext of your own hashes, verifies and replaces hashes."""
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


@pytest.mark.only_full
async def test_argon2_is_one_word_away() -> None:
    """R33: scheme="argon2" hashes with argon2id, and replaces bcrypt hashes when they are verified."""
    hasher = PasswordHasher(scheme="argon2")

    check = await hasher.verify_and_update("correct horse", await cheap.hash("correct horse"))

    assert check.new_hash is not None
    assert check.new_hash.startswith("$argon2id$")
    assert await hasher.verify("correct horse", check.new_hash)
    assert not await hasher.verify("correct horse", None)


def test_settings_of_another_class() -> None:
    """R31: settings without the cost raise an error that names the field."""
    foreign = cast("KitSettings", object())
    with pytest.raises(ConfigurationError, match="object has no PASSWORD_HASH_ROUNDS"):
        PasswordHasher.from_settings(foreign)
