"""Get the document with an issuer's keys over HTTP."""

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TypeAlias
from urllib.parse import urlsplit

from fastapi_kit.errors import ConfigurationError, MissingExtraError

__all__ = ["MAX_BYTES", "Fetch", "UnusableAnswerError", "check_url", "get_fetch", "is_loopback"]

Fetch: TypeAlias = Callable[[str], Awaitable[bytes]]
"""Returns the body of the document at a URL. Any exception means that the issuer cannot be reached."""

MAX_BYTES = 256 * 1024


class UnusableAnswerError(Exception):
    """The issuer answered something else than its keys. The text is fixed, and can be logged."""


def get_fetch() -> Fetch:
    """Return ``fetch_with_httpx``. Raises MissingExtraError if httpx is not installed."""
    if find_spec("httpx") is None:
        raise MissingExtraError("remote")
    return fetch_with_httpx


async def fetch_with_httpx(url: str) -> bytes:
    """Return the body at *url*. Redirects are not followed, and nothing is read beyond MAX_BYTES. The caller limits the time."""
    from httpx import AsyncClient

    # Without compression, a short answer cannot become a long one.
    headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
    async with AsyncClient(follow_redirects=False, timeout=None) as client, client.stream("GET", url, headers=headers) as response:
        if response.status_code != 200:
            raise UnusableAnswerError("the status is not 200")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise UnusableAnswerError("the answer is compressed")
        body = bytearray()
        async for chunk in response.aiter_raw(chunk_size=16 * 1024):
            body += chunk
            if len(body) > MAX_BYTES:
                raise UnusableAnswerError("the answer is too long")
        return bytes(body)


def check_url(url: str) -> None:
    """Raise ConfigurationError unless *url* is https, or http on this machine."""
    try:
        parts = urlsplit(url)
        host, has_more = parts.hostname or "", bool(parts.username or parts.password or parts.fragment)
        _ = parts.port
    except ValueError:
        raise ConfigurationError("the URL of the keys cannot be parsed") from None
    if not host or has_more:
        raise ConfigurationError("the URL of the keys has a host, and neither a user nor a fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ConfigurationError("the URL of the keys is https://; http:// is for 127.0.0.1, ::1 and localhost only")


def is_loopback(host: str) -> bool:
    """Return whether *host* is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
