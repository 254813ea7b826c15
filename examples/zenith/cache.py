"""What is read often: in memory, or on the Redis of CACHE_URL for several workers."""

from fastapi_kit.cache import Cache

from .config import settings

cache = Cache.from_settings(settings)
