"""The formats of bcrypt, with every supported version of bcrypt and passlib."""

import base64
import hmac
import subprocess
import sys
from hashlib import sha256

import bcrypt
import pytest

from fastapi_kit.auth.passwords.contexts import CryptContext, argon2_context, bcrypt_context, random_bcrypt_hash
from fastapi_kit.errors import MissingExtraError

context = bcrypt_context(rounds=4)

# From the test suites of crypt_blowfish, Openwall's, and of jBCrypt.
PUBLISHED = [
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
    ("U*U*U", "$2a$05$XXXXXXXXXXXXXXXXXXXXXOAcXxm9kjPGEMsLznoKqmqw7tc8WCx4a"),
    ("", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
    ("a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
    ("abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
    ("abcdefghijklmnopqrstuvwxyz", "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC"),
    ("~!@#$%^&*()      ~!@#$%^&*()PNBFRD", "$2a$06$fPIsBO8qRqkjj273rfaOI.HtSV9jLDpTbZn782DC6/t7qT67P6FfO"),
]

MALFORMED = [
    "",
    "!",
    "garbage",
    "$2b$",
    "$2b$12$",
    "$2x$04$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$2b$99$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$2b$03$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$2b$+5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$2b$٠٥$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$2b$5$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOe",
    "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW\n",
    "$2b$05$CCCCCCCCCC CCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyO\udc80",
    "$bcrypt-sha256$",
    "$bcrypt-sha256$v=3,t=2b,r=5$CCCCCCCCCCCCCCCCCCCCC.$E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "$bcrypt-sha256$v=2,t=2b,r=99$CCCCCCCCCCCCCCCCCCCCC.$E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
]


@pytest.mark.parametrize(("password", "hashed"), PUBLISHED)
@pytest.mark.parametrize("ident", ["$2a$", "$2b$", "$2y$"])
def test_published_vectors_fit(password: str, hashed: str, ident: str) -> None:
    """R33: hashes that other implementations published match, with each of the three prefixes."""
    stored = ident + hashed[4:]

    assert context.verify(password, stored)
    assert not context.verify(password + "x", stored)


@pytest.mark.parametrize("password", ["", "correct horse", "pässwörd", "a" * 72, "🔑" * 18])
def test_new_hashes_are_plain_bcrypt(password: str) -> None:
    """R30: the hash of a password of up to 72 bytes is plain bcrypt."""
    hashed = context.hash(password)

    assert hashed.startswith("$2b$04$")
    assert bcrypt.checkpw(password.encode(), hashed.encode())
    assert context.verify_and_update(password, hashed) == (True, None)


@pytest.mark.parametrize("password", ["", "correct horse", "pässwörd", "a" * 72])
def test_hashes_of_bcrypt_fit(password: str) -> None:
    """R33: hashes made with bcrypt match, as str and as the bytes that bcrypt returns."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4))

    assert context.verify(password, hashed)
    assert context.verify_and_update(password, hashed.decode()) == (True, None)


@pytest.mark.parametrize("password", ["a" * 73, "🔑" * 64, "ä" * 37, "nul\0inside", "x" * 4096])
def test_what_bcrypt_would_cut_is_hashed_first(password: str) -> None:
    """R30: a password is not cut after 72 bytes or at NUL; its last character counts."""
    hashed = context.hash(password)

    assert hashed.startswith("$bcrypt-sha256$v=2,t=2b,r=4$")
    assert context.verify_and_update(password, hashed) == (True, None)
    assert not context.verify(password[:-1], hashed)


def test_a_hash_of_a_cut_password_is_replaced() -> None:
    """R30: a hash of a cut password still matches, and the new hash is of the whole password."""
    cut = bcrypt.hashpw(b"a" * 72, bcrypt.gensalt(4)).decode()

    fits, replacement = context.verify_and_update("a" * 80, cut)

    assert fits
    assert replacement is not None
    assert context.verify_and_update("a" * 80, replacement) == (True, None)
    assert not context.verify("a" * 81, replacement)


def test_nul_ends_no_password() -> None:
    """R35: a password with NUL does not match the hash of the part before it."""
    assert not context.verify("secret\0more", context.hash("secret"))
    assert not context.verify("secret\0", context.hash("secret"))


# Made by passlib 1.7.4 with bcrypt 4.0.1, and by libpass 1.9.4: bcrypt_sha256.using(rounds=5).hash(...)
FOREIGN_SHA256 = [
    ("correct horse", "$bcrypt-sha256$v=2,t=2b,r=5$7/KfEDmSw8eaf0RrMKT3Oe$563/VRZRQL92BGg7eHWBILaKDMGMXre"),
    ("a" * 100, "$bcrypt-sha256$v=2,t=2b,r=5$gLKRCb6ezYUiWRciuVTlEe$NaChDBBNHcqhqAgF24ZhqHf2I2Bxwgq"),
    ("pässwörd", "$bcrypt-sha256$v=2,t=2b,r=5$ZtrJX3r.YT05zeWmxcGYLO$H3oCjv1BbCxSYyoxDf7WArxqhSWUwN."),
    ("correct horse", "$bcrypt-sha256$v=2,t=2b,r=5$V9gMb0HiFR7mVaVJs5u5h.$rr2M6CsSKlOKVKUG5LPUgo9/J5y56G."),
    ("a" * 100, "$bcrypt-sha256$v=2,t=2b,r=5$PnUlsjSI8PxJrDcRpLuAke$8n3Ocs3M1pPulwkev4KezZA7AFUZZ6i"),
    ("pässwörd", "$bcrypt-sha256$v=2,t=2b,r=5$jab0jhGW5YIb4ew35jQT9.$VD7I14z/SNfKRs/SG6RH.xuQXLdjo6O"),
]


@pytest.mark.parametrize(("password", "hashed"), FOREIGN_SHA256)
def test_hashes_of_passlibs_bcrypt_sha256_fit(password: str, hashed: str) -> None:
    """R33: hashes of passlib and libpass match, and are kept if their cost is right."""
    assert bcrypt_context(rounds=5).verify_and_update(password, hashed) == (True, None)
    assert not context.verify(password + "x", hashed)


@pytest.mark.parametrize("password", ["a" * 100, "nul\0inside", "🔑" * 64])
def test_passlibs_bcrypt_sha256_reads_ours(password: str) -> None:
    """R33: the hashes have the format that passlib documents: bcrypt of base64 of HMAC-SHA256 with the salt as the key."""
    _, _, settings, salt, digest = context.hash(password).split("$")
    key = base64.b64encode(hmac.digest(salt.encode(), password.encode(), "sha256"))

    assert settings == "v=2,t=2b,r=4"
    assert bcrypt.checkpw(key, f"$2b$04${salt}{digest}".encode())


def test_the_first_version_of_bcrypt_sha256_is_replaced() -> None:
    """R33: a hash of the older format, without HMAC, matches and is replaced."""
    plain = bcrypt.hashpw(base64.b64encode(sha256(b"correct horse").digest()), bcrypt.gensalt(4)).decode()
    hashed = f"$bcrypt-sha256$2b,4${plain[7:29]}${plain[29:]}"

    fits, replacement = context.verify_and_update("correct horse", hashed)

    assert fits
    assert replacement is not None
    assert replacement.startswith("$2b$04$")


@pytest.mark.parametrize("rounds", [4, 6])
@pytest.mark.parametrize("password", ["correct horse", "a" * 100])
def test_another_cost_is_replaced(rounds: int, password: str) -> None:
    """R33: a hash of a lower or a higher cost matches and is replaced."""
    today = bcrypt_context(rounds=5)

    fits, replacement = today.verify_and_update(password, bcrypt_context(rounds=rounds).hash(password))

    assert fits
    assert replacement is not None
    assert today.verify_and_update(password, replacement) == (True, None)


def test_unused_bits_are_ignored() -> None:
    """R33: a hash with unused bits set, whose salt bcrypt calls invalid, matches and is replaced."""
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    tidy = context.hash("correct horse")
    untidy = tidy[:28] + alphabet[alphabet.index(tidy[28]) + 1] + tidy[29:59] + alphabet[alphabet.index(tidy[59]) + 1]

    fits, replacement = context.verify_and_update("correct horse", untidy)

    assert fits
    assert replacement is not None
    assert not context.verify("correct house", untidy)


@pytest.mark.parametrize("hashed", MALFORMED)
def test_a_malformed_hash_is_a_value_error(hashed: str) -> None:
    """R33: every malformed hash raises ValueError, without the hash in the text."""
    with pytest.raises(ValueError, match=r"hash") as caught:
        context.verify_and_update("correct horse", hashed)

    assert "E5YPO9" not in str(caught.value)


def test_a_random_hash_looks_like_any_other() -> None:
    """R32: the hash for unknown users is well-formed and random, has the given cost, and matches no password."""
    dummies = {random_bcrypt_hash(rounds=4) for _ in range(20)}

    assert len(dummies) == 20
    assert [context.verify_and_update("correct horse", dummy) for dummy in dummies] == [(False, None)] * 20
    assert random_bcrypt_hash(rounds=12).startswith("$2b$12$")


@pytest.mark.only_full
def test_argon2_takes_over_from_bcrypt() -> None:
    """R33: with argon2 new hashes are argon2id; bcrypt hashes of both formats match and are replaced."""
    argon2 = argon2_context()

    for password in ("correct horse", "a" * 100):
        fits, replacement = argon2.verify_and_update(password, context.hash(password))
        assert fits
        assert replacement is not None
        assert replacement.startswith("$argon2id$")
        assert argon2.verify_and_update(password, replacement) == (True, None)


def test_argon2_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """R33: without argon2-cffi the error shows the command that installs it."""
    monkeypatch.setitem(sys.modules, "argon2", None)

    with pytest.raises(MissingExtraError, match=r"\[argon2\]"):
        argon2_context()


QUIET = """
import asyncio, logging, sys
logging.basicConfig(level=logging.INFO)
from fastapi_kit.auth.passwords import PasswordHasher
from fastapi_kit.auth.passwords.contexts import bcrypt_context

async def main():
    for hasher in (PasswordHasher(context=bcrypt_context(rounds=4)), PasswordHasher(scheme="argon2"), PasswordHasher(rounds=10)):
        for password in ("correct horse", "a" * 100):
            assert await hasher.verify(password, await hasher.hash(password))
            assert not await hasher.verify(password, None)

asyncio.run(main())
assert not {"fastapi", "sqlalchemy", "starlette"} & sys.modules.keys()
"""


@pytest.mark.only_full
def test_nothing_is_logged_or_warned_of() -> None:
    """R33: importing and using the hasher prints no warning and no log line, and loads no web framework."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", QUIET], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_context_is_passlibs() -> None:
    """R33: the context is an ordinary CryptContext, so passlib's own tools work on it."""
    assert isinstance(context, CryptContext)
    assert context.schemes() == ("bcrypt", "bcrypt_sha256")
    assert context.identify(context.hash("a" * 100)) == "bcrypt_sha256"
