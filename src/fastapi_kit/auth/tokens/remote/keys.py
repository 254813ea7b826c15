"""The keys of an issuer, fetched when they are needed and kept for a while."""

import asyncio
import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from fastapi_kit.auth.tokens.keys import Algorithm, Key
from fastapi_kit.auth.tokens.policy import Clock
from fastapi_kit.auth.tokens.remote.document import Keys, read_keys
from fastapi_kit.auth.tokens.remote.fetch import MAX_BYTES, Fetch, UnusableAnswerError
from fastapi_kit.errors import InvalidTokenError, UnavailableError

__all__ = ["RemoteKeys"]

RETRY = timedelta(seconds=5)
"""How long to wait after a failure while there are no keys at all."""

logger = logging.getLogger("fastapi_kit.auth.tokens.remote")


class RemoteKeys:
    """The keys at a URL. Requests that need them at once share one fetch, which goes on if one of them is cancelled.

    Args:
        url: The address of the JWKS document.
        algorithms: Those of the keys to use.
        lifetime: Fetch again after this time.
        max_stale: While that fails, use the old keys for so long after they were fetched.
        min_refetch: Fetch at most once in this time, whatever the requests ask for.
        timeout: Seconds for one fetch.
        fetch: Gets the document.
        clock: Returns the current time.
    """

    def __init__(
        self,
        url: str,
        *,
        algorithms: Collection[Algorithm],
        lifetime: timedelta,
        max_stale: timedelta,
        min_refetch: timedelta,
        timeout: float,
        fetch: Fetch,
        clock: Clock,
    ) -> None:
        self._url = url
        self._algorithms = algorithms
        self._lifetime = lifetime
        self._max_stale = max_stale
        self._min_refetch = min_refetch
        self._timeout = timeout
        self._fetch = fetch
        self._clock = clock
        self._keys: Keys = {}
        self._fetched: datetime | None = None
        self._tried: datetime | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key, or None if the issuer has no such key. Raises UnavailableError if its keys cannot be fetched."""
        if (kid, algorithm) not in self._keys or not self._is_recent(self._fetched, self._lifetime):
            await self._renew()
        if not self._is_recent(self._fetched, self._max_stale):
            raise UnavailableError("the issuer of the tokens", retry_after=self._pause.total_seconds())
        return self._keys.get((kid, algorithm))

    @property
    def _pause(self) -> timedelta:
        return self._min_refetch if self._is_recent(self._fetched, self._max_stale) else min(self._min_refetch, RETRY)

    def _is_recent(self, moment: datetime | None, age: timedelta) -> bool:
        # The distance, not the difference: a clock that was set back must not stop all fetches.
        return moment is not None and abs(self._clock() - moment) < age

    async def _renew(self) -> None:
        """Wait for a fetch, unless the last one was a moment ago."""
        fetching = self._fetching
        # A fetch of another event loop would never end here.
        if fetching is None or fetching.done() or fetching.get_loop() is not asyncio.get_running_loop():
            if self._is_recent(self._tried, self._pause):
                return
            self._tried = self._clock()
            fetching = self._fetching = asyncio.create_task(self._fetch_keys())
        # Unlike awaiting the task, this does not cancel it with the request.
        await asyncio.wait({fetching})

    async def _fetch_keys(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                document = await self._fetch(self._url)
            if len(document) > MAX_BYTES:
                raise UnusableAnswerError("the answer is too long")
            keys = read_keys(document, self._algorithms)
            if not keys:
                raise UnusableAnswerError("no key in it can be used")
        except (UnusableAnswerError, InvalidTokenError) as error:
            logger.warning("The keys of an issuer could not be read: %s", error)
        except Exception as error:
            # Whatever the network or a fetch of the application raises, the keys that are there go on working.
            logger.warning("The keys of an issuer could not be fetched: %s", type(error).__name__)
        else:
            self._keys, self._fetched = keys, self._clock()
