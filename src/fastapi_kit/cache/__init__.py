"""A cache for what is read often: in memory, or on Redis for several processes. Needs the extra ``cache``."""

from fastapi_kit.cache.cache import Cache
from fastapi_kit.cache.functions import cached

__all__ = ["Cache", "cached"]
