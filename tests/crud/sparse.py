"""Schemas of articles of which a client may ask for some fields, their services, and six articles."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, EmailStr, Field, PlainSerializer, field_validator
from pydantic.alias_generators import to_camel
from sqlalchemy import Select, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from tests.tables.press import Article, Label, Page, Writer
from tests.tables.press import PressBase as PressBase

from fastapi_kit.crud import CRUDService, KeysetSpec, QuerySpec, SparseModel, SparseSpec


class WriterRead(BaseModel):
    id: int
    name: str


class LabelRead(BaseModel):
    name: str


class ArticleRead(SparseModel):
    always_fields = ("id",)
    include_fields = ("writer", "labels")

    id: int
    title: str
    body: str
    email: EmailStr
    price: Annotated[Decimal, PlainSerializer(lambda value: f"{value} EUR")]
    written_at: datetime
    data: str | None = None
    note: str = "none"
    heading: str
    writer: WriterRead | None
    labels: list[LabelRead]

    @field_validator("title")
    @classmethod
    def stripped(cls, value: str) -> str:
        return value.strip()


class CamelRead(SparseModel):
    """Its names in JSON are others than its attributes."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)
    include_fields = ("writer",)

    id: int
    written_at: datetime
    head: str = Field(validation_alias="title", serialization_alias="title")
    writer: WriterRead | None


class PageRead(SparseModel):
    id: int
    title: str
    body: str


class PageWrite(BaseModel):
    title: str
    body: str = ""


class ArticleWrite(BaseModel):
    title: str
    body: str
    email: str
    price: Decimal
    written_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)


class ArticleQuery(SparseSpec[ArticleRead], QuerySpec[Article]):
    sort_fields: ClassVar[Any] = (Article.title, Article.price)
    title: str | None = None
    price__gte: Decimal | None = None


class ArticleFeed(SparseSpec[ArticleRead], KeysetSpec[Article]):
    sort_fields: ClassVar[Any] = (Article.price,)


class ArticleService(CRUDService[Article, ArticleWrite, ArticleWrite]): ...


class PageService(CRUDService[Page, PageWrite, PageWrite]): ...


class DiscreetService(ArticleService):
    """Hides labels that are not public."""

    def related_query(self, model: type[Any]) -> Select[Any] | None:
        return select(Label).where(Label.public) if model is Label else super().related_query(model)


PLAIN: Sequence[str] = ["id", "title", "body", "email", "price", "written_at", "data", "note", "heading"]
INCLUDED: Sequence[str] = ["writer", "labels"]


async def fill(session: AsyncSession, number: int = 6) -> None:
    """Insert articles by two writers, each with two labels, the second of them not public."""
    when = datetime(2026, 1, 1, 12, tzinfo=UTC)
    await session.execute(insert(Writer.__table__), [{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bob"}])
    rows = [
        {
            "id": at,
            "title": f"Title {at}",
            "body": f"Body {at} " * 10,
            "email": f"a{at}@example.org",
            "price": Decimal(at % 3) + Decimal("0.5"),
        }
        | {"written_at": when, "data": "x" if at % 2 else None, "writer_id": (1, 2, None)[at % 3]}
        for at in range(1, number + 1)
    ]
    await session.execute(insert(Article), rows)
    labels = [{"article_id": at, "name": name, "public": name != "inside"} for at in range(1, number + 1) for name in ("news", "inside")]
    await session.execute(insert(Label), labels)
    session.add(Page(title="Start", body="Text"))
    await session.commit()
