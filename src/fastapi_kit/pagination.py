"""Page parameters and page models: arithmetic only, no SQL, no web."""

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Generic, Self, TypeVar
from urllib.parse import quote, unquote_plus

from pydantic import BaseModel, ConfigDict, Field

from fastapi_kit.errors import ConfigurationError

__all__ = ["Page", "PageParams"]

ItemT = TypeVar("ItemT")

_WINDOW = ("skip", "limit")


class PageParams(BaseModel):
    """``skip`` and ``limit`` of a hand-written list: ``Annotated[PageParams, Query()]``. Unknown parameters are refused.

    ``skip`` is 0 to 2**31 - 1; ``limit`` is 0 to 1000, 100 if not given. Override the fields for other bounds. Parameters that a route
    declares beside it count as unknown: declare them as fields of a subclass.
    """

    model_config = ConfigDict(extra="forbid")

    max_total: ClassVar[int | None] = None
    """How far a total is counted: None to the end, 0 not at all, n no further than n."""

    skip: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    limit: Annotated[int, Field(ge=0, le=1000)] = 100


class Page(BaseModel, Generic[ItemT]):
    """One offset page. ``total`` is None if it was not counted, and a lower bound if ``total_capped``."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    items: list[ItemT]
    total: Annotated[int, Field(ge=0)] | None
    total_capped: bool = False
    has_more: bool
    skip: Annotated[int, Field(ge=0)]
    limit: Annotated[int, Field(ge=0)]

    @classmethod
    def of(
        cls,
        items: Iterable[ItemT],
        *,
        skip: int,
        limit: int,
        total: int | None,
        total_capped: bool = False,
        has_more: bool | None = None,
    ) -> Self:
        """Return the page of *items* that starts after *skip* rows. An exact *total* tells whether there are more.

        Raises ConfigurationError without *has_more* where *total* is None or *total_capped*: fetch one row beyond *limit* to know.
        """
        rows = list(items)
        if has_more is None:
            if total is None or total_capped:
                raise ConfigurationError("has_more must be given where the total is not exact")
            has_more = skip + len(rows) < total
        return cls(items=rows, total=total, total_capped=total_capped, has_more=has_more, skip=skip, limit=limit)

    def link_header(self, url: str) -> str:
        """Return the ``Link`` header (RFC 8288) with first, prev, next and last of the page at *url*.

        The other parameters of *url* are kept, and what may not stand in a header is percent-encoded. ``last`` is left out where the
        total is not exact. A page with the limit 0 has no neighbours: the header is empty, and better not sent.
        """
        stem = _without_window(url)
        return ", ".join([f'<{stem}skip={skip}&limit={self.limit}>; rel="{relation}"' for relation, skip in self._neighbours()])

    def _neighbours(self) -> Iterator[tuple[str, int]]:
        if self.limit == 0:
            return
        last = self._last_skip()
        yield "first", 0
        if self.skip > 0:
            before = max(self.skip - self.limit, 0)
            yield "prev", before if last is None else min(before, last)
        if self.has_more:
            yield "next", self.skip + self.limit
        if last is not None:
            yield "last", last

    def _last_skip(self) -> int | None:
        if self.total is None or self.total_capped:
            return None
        return max(self.total - 1, 0) // self.limit * self.limit


def _without_window(url: str) -> str:
    """Return *url* up to where ``skip`` and ``limit`` are added, escaped so that it can stand between angle brackets. Never raises."""
    path, _, query = url.partition("#")[0].partition("?")
    kept = "".join([f"{part}&" for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) not in _WINDOW])
    return quote(f"{path}?{kept}", safe="%:/?#[]@!$&'()*+,;=", errors="replace")
