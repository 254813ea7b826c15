"""Page parameters and page models: arithmetic only, no SQL, no web."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import quote, unquote_plus

from pydantic import BaseModel, ConfigDict, Field

from fastapi_kit.errors import ConfigurationError

__all__ = ["KeysetPage", "Page", "PageParams", "Slice"]

ItemT = TypeVar("ItemT")


class PageParams(BaseModel):
    """``skip`` and ``limit`` of a hand-written list: ``Annotated[PageParams, Query()]``. Unknown parameters are rejected.

    ``skip`` is 0 to 2**31 - 1. ``limit`` is 0 to 1000, by default 100. Override the fields for other bounds. A parameter that a route
    declares beside the model counts as unknown: declare it as a field of a subclass.
    """

    model_config = ConfigDict(extra="forbid")

    max_total: ClassVar[int | None] = None
    """How far a Page counts: None counts all rows, a number of at least 1 counts no further. A Slice never counts."""

    estimate_total: ClassVar[bool] = False
    """Whether a Page has the number of rows that the planner of PostgreSQL expects, where counting stops at ``max_total``. That is one more
    statement, and ``total_is_estimate`` is true. On SQLite the total is capped."""

    skip: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    limit: Annotated[int, Field(ge=0, le=1000)] = 100

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Raise ConfigurationError for an estimate without a number up to which rows are counted."""
        super().__pydantic_init_subclass__(**kwargs)
        if cls.estimate_total and not cls.max_total:
            raise ConfigurationError(f"{cls.__name__}: estimate_total needs a max_total, up to which rows are counted")


class Slice(BaseModel, Generic[ItemT]):
    """Some rows of a list, found by their offset, without the number of all rows.

    Example:
        ```python
        from fastapi_kit.pagination import Slice

        rows, limit = ["a", "b", "c"], 2  # one row more than the limit was read
        letters = Slice(items=rows[:limit], skip=0, limit=limit, has_more=len(rows) > limit)
        assert 'rel="next"' in letters.link_header("/letters")
        ```
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    items: list[ItemT]
    has_more: bool
    skip: Annotated[int, Field(ge=0)]
    limit: Annotated[int, Field(ge=0)]

    def link_header(self, url: str) -> str:
        """Return the ``Link`` header (RFC 8288) with the first, prev, next and last page, for the page at *url*.

        Other parameters of *url* stay. Characters that a header cannot contain are percent-encoded. ``last`` is missing if the total is
        not exact. With the limit 0 the text is empty: do not send the header then.
        """
        stem = stem_of(url, "skip", "limit")
        return ", ".join([f'<{stem}skip={skip}&limit={self.limit}>; rel="{relation}"' for relation, skip in self._links()])

    def _links(self) -> Iterator[tuple[str, int]]:
        """Yield the relation and the ``skip`` of each neighbour."""
        if self.limit == 0:
            return
        last = self._last()
        yield "first", 0
        if self.skip > 0:
            before = max(self.skip - self.limit, 0)
            yield "prev", before if last is None else min(before, last)
        if self.has_more:
            yield "next", self.skip + self.limit
        if last is not None:
            yield "last", last

    def _last(self) -> int | None:
        """Return the ``skip`` of the last page, or None if it is not known."""
        return None


class Page(Slice[ItemT], Generic[ItemT]):
    """One page of a list, found by its offset, with the number of all rows.

    If ``total_capped`` is true, counting stopped: there are more than ``total`` rows. If ``total_is_estimate`` is true, ``total`` is about
    how many there are.

    Example:
        ```python
        from fastapi_kit import Page

        page = Page[str].of(["c", "d"], skip=2, limit=2, total=5)
        assert page.has_more
        assert 'rel="next"' in page.link_header("/letters")
        ```
    """

    total: Annotated[int, Field(ge=0)]
    total_capped: bool = False
    total_is_estimate: bool = False

    @classmethod
    def of(
        cls,
        items: Iterable[ItemT],
        *,
        skip: int,
        limit: int,
        total: int,
        total_capped: bool = False,
        total_is_estimate: bool = False,
        has_more: bool | None = None,
    ) -> Self:
        """Return the page of *items* that starts after *skip* rows.

        Args:
            items: The rows of the page.
            skip: How many rows come before.
            limit: How many rows were asked for.
            total: The number of all rows. If they are not counted, use Slice.
            total_capped: Whether counting stopped at *total*.
            total_is_estimate: Whether *total* is about how many there are.
            has_more: Whether a row follows the page. It may be unknown (None) only if *total* is exact.

        Raises:
            ConfigurationError: *has_more* is unknown and *total* is not exact. Read one row more than *limit* to know.
        """
        rows = list(items)
        if has_more is None:
            if total_capped or total_is_estimate:
                raise ConfigurationError("has_more must be given if the total is not exact")
            has_more = skip + len(rows) < total
        inexact = {"total_capped": total_capped, "total_is_estimate": total_is_estimate}
        return cls(items=rows, total=total, **inexact, has_more=has_more, skip=skip, limit=limit)

    def _last(self) -> int | None:
        return None if self.total_capped or self.total_is_estimate else max(self.total - 1, 0) // self.limit * self.limit


class KeysetPage(BaseModel, Generic[ItemT]):
    """Some rows of a list, found by the values of a neighbouring row. A cursor is None if no row follows on its side.

    Example:
        ```python
        from fastapi_kit.pagination import KeysetPage

        page = KeysetPage(items=["c", "d"], next_cursor="Mg", previous_cursor=None, limit=2)
        assert page.link_header("/letters?sort=name") == '</letters?sort=name&limit=2&cursor=Mg>; rel="next"'
        ```
    """

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    items: list[ItemT]
    next_cursor: str | None
    previous_cursor: str | None
    limit: Annotated[int, Field(ge=0)]

    def link_header(self, url: str) -> str:
        """Return the ``Link`` header (RFC 8288) with the previous and the next page, for the page at *url*. It may be empty."""
        stem = stem_of(url, "cursor", "limit")
        cursors = {"prev": self.previous_cursor, "next": self.next_cursor}
        return ", ".join(
            f'<{stem}limit={self.limit}&cursor={cursor}>; rel="{relation}"' for relation, cursor in cursors.items() if cursor is not None
        )


def stem_of(url: str, *parameters: str) -> str:
    """Return *url* without these *parameters*, ready for others. Characters that a header cannot contain are percent-encoded."""
    path, _, query = url.partition("#")[0].partition("?")
    others = [f"{part}&" for part in query.split("&") if part and unquote_plus(part.partition("=")[0]) not in parameters]
    return quote(f"{path}?{''.join(others)}", safe="%:/?#[]@!$&'()*+,;=", errors="replace")
