"""Counters of attempts in a moving window."""

import math
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from threading import Lock
from time import monotonic
from typing import Protocol

from fastapi_kit.errors import ConfigurationError

__all__ = ["SHORTEST_WAIT", "AttemptCounter", "Count", "MemoryCounter", "check_limit", "client_key", "digest"]

SHORTEST_WAIT = 0.001
WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
"""``[2001:db8::1]:80``, ``[2001:db8::1]`` and ``192.0.2.7:80``."""


class AttemptCounter(Protocol):
    """Counts attempts in a moving window: a ``MemoryCounter``, a ``RateLimiter``, or a class of your own."""

    async def hit(self, key: str, /, *, limit: int, window: float) -> float:
        """Count one attempt, and return 0. If there were *limit* in *window* seconds, count nothing and return the seconds to wait.

        Of attempts at the same time, *limit* return 0.
        """
        ...

    async def reset(self, key: str, /) -> None:
        """Forget the attempts of *key*."""
        ...


@dataclass(frozen=True, kw_only=True)
class Count:
    """What became of an attempt."""

    wait: float
    """0 if the attempt was counted, otherwise the seconds to wait."""
    left: int
    """How many attempts are left now."""
    resets_in: float
    """After how many seconds there is one more."""


@dataclass
class Attempts:
    """The times of the attempts of one key, the oldest first."""

    times: "array[float]"
    ends_at: float


class MemoryCounter:
    """Counts in the memory of this process. Works with several threads and event loops.

    It has a fixed-size hash of each key, whatever the key is, and a time for each attempt.

    Args:
        max_keys: How many keys it has at most. With one more, it forgets the key whose last attempt is the longest ago.
        clock: Returns seconds that never go back.

    Raises:
        ConfigurationError: *max_keys* is less than 1.
    """

    def __init__(self, *, max_keys: int = 100_000, clock: Callable[[], float] = monotonic) -> None:
        if max_keys < 1:
            raise ConfigurationError("max_keys must be at least 1")
        self._max_keys = max_keys
        self._clock = clock
        self._lock = Lock()
        # The key with the latest attempt is the last one.
        self._attempts: dict[bytes, Attempts] = {}

    async def hit(self, key: str, /, *, limit: int, window: float) -> float:
        """Count one attempt, and return 0. If there were *limit* in *window* seconds, count nothing and return the seconds to wait.

        Raises:
            ConfigurationError: *limit* is less than 1, or *window* is not a positive number.
        """
        return (await self.count(key, limit=limit, window=window)).wait

    async def count(self, key: str, /, *, limit: int, window: float) -> Count:
        """Do the same as ``hit``, and return how many attempts are left, too."""
        check_limit(limit, window)
        hashed = digest(key)
        with self._lock:
            now = self._clock()
            found = self._attempts.get(hashed) or Attempts(array("d"), now)
            times = found.times
            del times[: bisect_right(times, now - window)]
            if len(times) >= limit:
                wait = times[-limit] + window - now
                return Count(wait=max(wait, SHORTEST_WAIT), left=0, resets_in=wait)
            times.append(now)
            found.ends_at = max(found.ends_at, now + window)
            self._attempts.pop(hashed, None)
            self._attempts[hashed] = found
            self._forget(now)
            return Count(wait=0.0, left=limit - len(times), resets_in=times[0] + window - now)

    async def reset(self, key: str, /) -> None:
        """Forget the attempts of *key*."""
        with self._lock:
            self._attempts.pop(digest(key), None)

    def clear(self) -> None:
        """Forget everything, for example between tests."""
        with self._lock:
            self._attempts.clear()

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._attempts)

    def _forget(self, now: float) -> None:
        """Remove the oldest keys that are over, or too many."""
        while (oldest := next(iter(self._attempts))) and (self._attempts[oldest].ends_at <= now or len(self._attempts) > self._max_keys):
            del self._attempts[oldest]


def digest(key: str) -> bytes:
    """Return a hash of *key*, so that neither its length nor its characters matter."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def check_limit(limit: int, window: float) -> None:
    """Raise ConfigurationError for a limit or a window that cannot be counted."""
    if limit < 1:
        raise ConfigurationError("a limit must be at least 1")
    if not (math.isfinite(window) and window > 0):
        raise ConfigurationError("a window must be a positive number of seconds")


def client_key(address: str | None) -> str:
    """Return the key under which a client is counted: an IPv4 address, or the /64 of an IPv6 address, which is what one client gets.

    *address* is ``request.client.host``. A port behind it, as some proxies write it, is left out: a client can change it. Any other text is
    returned as it is, and None as an empty string.
    """
    with_port = WITH_PORT.fullmatch(address or "")
    try:
        found = ip_address((with_port[1] or with_port[2]) if with_port else address or "")
    except ValueError:
        return address or ""
    if isinstance(found, IPv6Address):
        return str(found.ipv4_mapped or f"{IPv6Address(int(found) >> 64 << 64)}/64")
    return str(found)
