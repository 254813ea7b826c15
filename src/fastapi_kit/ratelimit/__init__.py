"""Limits on how often something is done: counters of attempts, and limits on requests.

The names are imported on first use (PEP 562), so that a counter does not load FastAPI.
"""

from typing import TYPE_CHECKING

from fastapi_kit._lazy import names_of

if TYPE_CHECKING:
    from fastapi_kit.ratelimit.counters import AttemptCounter, MemoryCounter, client_key
    from fastapi_kit.ratelimit.limiter import RateLimiter, client_address

__all__ = ["AttemptCounter", "MemoryCounter", "RateLimiter", "client_address", "client_key"]

_HOMES = {"counters": ["AttemptCounter", "MemoryCounter", "client_key"], "limiter": ["RateLimiter", "client_address"]}

# Hidden from the type checkers, which would otherwise accept any name.
if not TYPE_CHECKING:
    __getattr__ = names_of(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
