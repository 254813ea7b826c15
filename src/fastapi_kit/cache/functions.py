"""Caching what an async function returns."""

import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, get_type_hints

from fastapi_kit.cache.cache import Cache, check_lifetime
from fastapi_kit.cache.codec import Codec
from fastapi_kit.errors import ConfigurationError

__all__ = ["cached"]

P = ParamSpec("P")
ValueT = TypeVar("ValueT")


def cached(
    cache: Cache, *, lifetime: timedelta, key: Callable[..., str]
) -> Callable[[Callable[P, Awaitable[ValueT]]], Callable[P, Awaitable[ValueT]]]:
    """Cache what the decorated async function returns. ``cache.delete(key)`` drops it.

    The annotated return type decides how the value is stored, so datetimes, Decimals, UUIDs and schemas come back as what they were. None
    is a value. A value that does not survive JSON is not cached, which is logged once. Concurrent calls with one key run the function once.

    The key must contain everything that the result depends on, the user or tenant too. Do not call the function inside a transaction that
    writes: what is rolled back later would be stored.

    Args:
        cache: Where to keep it.
        lifetime: How long to keep it, at least a millisecond.
        key: Is called with the arguments of the function. Two functions may use the same key, for example to be dropped together.

    Raises:
        ConfigurationError: The function is not async, or its return type is not annotated or unknown to Pydantic.

    Example:
        ```python
        import asyncio
        from datetime import timedelta
        from decimal import Decimal

        from fastapi_kit.cache import Cache, cached

        cache = Cache()
        calls: list[str] = []


        @cached(cache, lifetime=timedelta(minutes=5), key=lambda currency: f"rate:{currency}")
        async def rate(currency: str) -> Decimal:
            calls.append(currency)
            return Decimal("1.08")


        async def main() -> None:
            assert await rate("USD") == await rate("USD") == Decimal("1.08")
            assert calls == ["USD"]
            await cache.delete("rate:USD")
            await rate("USD")
            assert calls == ["USD", "USD"]


        asyncio.run(main())
        ```
    """
    check_lifetime(lifetime)

    def decorate(function: Callable[P, Awaitable[ValueT]]) -> Callable[P, Awaitable[ValueT]]:
        name = f"{function.__module__}.{function.__qualname__}"
        codec = Codec[ValueT](return_type(function, name=name), name=name)

        @wraps(function)
        async def read(*args: P.args, **kwargs: P.kwargs) -> ValueT:
            chosen = key(*args, **kwargs)
            load = partial(function, *args, **kwargs)
            return await cache.fetch(f"{name} {chosen}", load, codec=codec, lifetime=lifetime, groups=[chosen])

        return read

    return decorate


def return_type(function: Callable[..., object], *, name: str) -> Any:
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigurationError(f"{name} cannot be cached: its annotations name something that is not defined yet") from error
    if not inspect.iscoroutinefunction(function) or "return" not in hints:
        raise ConfigurationError(f"{name} cannot be cached: it must be an async function with an annotated return type")
    return hints["return"]
