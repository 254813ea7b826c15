"""Passwords, hashed in a thread: hashing would block the event loop."""

import asyncio
import hashlib
import hmac
import os

ITERATIONS = 600_000


async def get_password_hash(password: str) -> str:
    salt = os.urandom(16)
    digest = await derive(password, salt, ITERATIONS)
    return f"{ITERATIONS}${salt.hex()}${digest.hex()}"


async def verify_password(plain_password: str, hashed_password: str) -> bool:
    iterations, salt, digest = hashed_password.split("$")
    derived = await derive(plain_password, bytes.fromhex(salt), int(iterations))
    return hmac.compare_digest(derived, bytes.fromhex(digest))


async def derive(password: str, salt: bytes, iterations: int) -> bytes:
    return await asyncio.to_thread(hashlib.pbkdf2_hmac, "sha256", password.encode(), salt, iterations)
