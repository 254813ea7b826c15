"""Filters and searches find the same rows on SQLite and PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar
from uuid import uuid5

import pytest
from pydantic import ConfigDict, Field, ValidationError
from sqlalchemy import JSON, Select, and_, event, not_, or_, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, with_loader_criteria
from sqlalchemy.types import Text
from tests.tables.shop import NAMESPACE, Colour, Item, ItemFilters, ItemQuery, ItemRead, ItemService, Owner, ShopBase, Tag, moment

from fastapi_kit.crud import FilterSpec, QuerySpec, ReadService, any_of
from fastapi_kit.db import Database
from fastapi_kit.db.engines.sqlite import add_functions
from fastapi_kit.errors import ConfigurationError


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[AsyncSession]:
    """Six items, by the letters of their ids: a to f."""
    await database.create_tables(ShopBase.metadata)
    async with database.begin() as session:
        boss = Owner(id=1, email="boss@x.org")
        ann, bob = Owner(id=2, email="ann@x.org", boss=boss), Owner(id=3, email="bob@x.org")
        session.add_all([boss, ann, bob])
        session.add_all(
            [
                Item(id=1, name="100% Wool", note="Größe ÄÖ", price=Decimal("1.50"), stock=1, owner=ann, sold_at=moment(1, 0), rating=1.5),
                Item(id=2, name="100x Wool", note="größe äö", price=Decimal("2.50"), stock=2, owner=bob, sold_at=moment(1, 23)),
                Item(id=3, name="a_b", note=None, price=Decimal("3.50"), colour=Colour.RED, sold_at=moment(2), day=date(2026, 3, 2)),
                Item(id=4, name="aXb", note="", price=Decimal("4.50"), colour=Colour.BLUE, noted_at=moment(2, 23).replace(tzinfo=None)),
                Item(id=5, name="ΣΟΦΟΣ", note="Ellipsis", views=2**40, code=uuid5(NAMESPACE, "five"), sold_at=moment(3, 0)),
                Item(id=6, name="gone", note="o/ld", archived=True),
            ]
        )
        await session.flush()
        session.add_all(
            [
                Tag(item_id=1, name="red", weight=1),
                Tag(item_id=1, name="blue", weight=9),
                Tag(item_id=2, name="red", weight=9),
                Tag(item_id=3, name="Red", weight=0),
            ]
        )
    async with asynccontextmanager(database.get_session)() as session:
        yield session


async def found(session: AsyncSession, **parameters: Any) -> str:
    """Return the letters of the items that are found."""
    page = await ItemService(session).page_as(ItemRead, ItemQuery(**parameters), order_by=Item.id)
    assert page.total == len(page.items)
    return "".join("_abcdef"[item.id] for item in page.items)


@pytest.mark.parametrize(
    ("parameters", "items"),
    [
        pytest.param({}, "abcde", id="defaults apply"),
        pytest.param({"archived": True}, "f", id="defaults are replaced"),
        pytest.param({"name": "a_b"}, "c", id="eq"),
        pytest.param({"name": "x" * 100}, "", id="longer than the column"),
        pytest.param({"name__contains": "%"}, "a", id="percent is literal"),
        pytest.param({"name__contains": "_"}, "c", id="underscore is literal"),
        pytest.param({"name__contains": "/"}, "", id="the escape is literal"),
        pytest.param({"name__contains": "x"}, "b", id="contains regards case"),
        pytest.param({"name__contains": ""}, "abcde", id="contains nothing"),
        pytest.param({"name__icontains": "X"}, "bd", id="icontains"),
        pytest.param({"name__startswith": "100"}, "ab", id="startswith"),
        pytest.param({"name__startswith": "A"}, "", id="startswith regards case"),
        pytest.param({"name__istartswith": "A_"}, "c", id="istartswith"),
        pytest.param({"name__endswith": "Wool"}, "ab", id="endswith"),
        pytest.param({"name__endswith": "wool"}, "", id="endswith regards case"),
        pytest.param({"name__endswith": ""}, "abcde", id="ends with nothing"),
        pytest.param({"name__iendswith": "σ"}, "e", id="iendswith beyond ASCII"),
        pytest.param({"name__in": ["a_b", "aXb"]}, "cd", id="in"),
        pytest.param({"name__in": []}, "", id="in nothing"),
        pytest.param({"name__not_in": ["a_b", "aXb"]}, "abe", id="not_in"),
        pytest.param({"name__not_in": []}, "abcde", id="not in nothing"),
        pytest.param({"note__not_in": ["", "Ellipsis"]}, "abc", id="not_in finds null"),
        pytest.param({"note__ne": ""}, "abce", id="ne finds null"),
        pytest.param({"note__isnull": True}, "c", id="isnull"),
        pytest.param({"note__isnull": False}, "abde", id="not isnull"),
        pytest.param({"price__gte": "2.5", "price__lt": "4.5"}, "bc", id="a range"),
        pytest.param({"price__gte": "1.499", "price__lt": "2.501"}, "ab", id="more digits than the column has"),
        pytest.param({"price__gte": "99999999999"}, "", id="more than the column can hold"),
        pytest.param({"price__lt": "1e300"}, "abcde", id="much more than the column can hold"),
        pytest.param({"stock": 2}, "b", id="a small integer"),
        pytest.param({"views__gt": 2**32}, "e", id="a big integer"),
        pytest.param({"rating__lte": 1.5}, "a", id="a float"),
        pytest.param({"colour": "r"}, "c", id="an enum"),
        pytest.param({"code": uuid5(NAMESPACE, "five")}, "e", id="a UUID"),
        pytest.param({"day": "2026-03-02"}, "c", id="a date"),
        pytest.param({"sold_at": "2026-03-01"}, "ab", id="a day of moments"),
        pytest.param({"sold_at__date": "2026-03-01"}, "ab", id="date"),
        pytest.param({"noted_at__date": "2026-03-02"}, "d", id="date of naive moments"),
        pytest.param({"sold_at__ne": "2026-03-01"}, "cde", id="not on a day"),
        pytest.param({"sold_at__gt": "2026-03-01"}, "ce", id="after a day"),
        pytest.param({"sold_at__gte": "2026-03-02"}, "ce", id="from a day on"),
        pytest.param({"sold_at__lt": "2026-03-02"}, "ab", id="before a day"),
        pytest.param({"sold_at__lte": "2026-03-02"}, "abc", id="up to a day"),
        pytest.param({"sold_at__lte": datetime(2026, 3, 2, 11, tzinfo=UTC)}, "ab", id="up to a moment"),
        pytest.param({"sold_at__lte": date.max}, "abce", id="up to the last day"),
        pytest.param({"sold_at__gt": date.max}, "", id="after the last day"),
        pytest.param({"sold_at__ne": date.max}, "abcde", id="not on the last day"),
        pytest.param({"sold_at__gte": date.min}, "abce", id="from the first day on"),
        pytest.param({"sold_at__in": ["2026-03-01", "2026-03-03"]}, "abe", id="on one of some days"),
        pytest.param({"sold_at__in": []}, "", id="on no day"),
        pytest.param({"sold_at__not_in": ["2026-03-01", "2026-03-03"]}, "cd", id="on none of some days"),
        pytest.param({"label__endswith": "b!"}, "cd", id="a hybrid"),
        pytest.param({"owner__email": "ann@x.org"}, "a", id="a related row"),
        pytest.param({"owner__boss__email": "boss@x.org"}, "a", id="a row at the end of two relationships"),
        pytest.param({"owner__isnull": True}, "cde", id="no related row"),
        pytest.param({"tags__isnull": False}, "abc", id="some related row"),
        pytest.param({"tags__name": "red"}, "ab", id="one of several related rows"),
        pytest.param({"tags__name": "red", "tags__weight__gte": 5}, "b", id="one related row meets both"),
        pytest.param({"tag": "Red"}, "abc", id="a condition of the application"),
        pytest.param({"q": "wool"}, "ab", id="a search"),
        pytest.param({"q": "größe  WOOL"}, "ab", id="each word in some column, beyond ASCII"),
        pytest.param({"q": "äö 100X"}, "b", id="words of two columns"),
        pytest.param({"q": "%"}, "a", id="a search for percent"),
        pytest.param({"archived": True, "q": "O/L"}, "f", id="a search for a slash"),
        pytest.param({"q": "σ"}, "e", id="a search for a letter with two small forms"),
        pytest.param({"q": "   "}, "abcde", id="a search for nothing"),
        pytest.param({"q": "σοφ"}, "e", id="a search in Greek"),
    ],
)
async def test_what_is_found(shop: AsyncSession, parameters: dict[str, Any], items: str) -> None:
    """Each operator finds these rows on both databases."""
    assert await found(shop, **parameters) == items


async def test_a_search_takes_long_text(shop: AsyncSession) -> None:
    """A pattern may be longer than SQLite's limit for LIKE."""
    assert await found(shop, name__icontains="x" * 60_000) == ""


@pytest.mark.parametrize(
    ("parameters", "kinds"),
    [
        ({"nme": 1, "price": 2}, {("nme",): "unknown_parameter", ("price",): "unknown_parameter"}),
        ({"price__gte": "cheap"}, {("price__gte",): "decimal_parsing"}),
        ({"price__gte": "NaN"}, {("price__gte",): "finite_number"}),
        ({"rating__lte": "inf"}, {("rating__lte",): "out_of_range"}),
        ({"stock": 2**15}, {("stock",): "out_of_range"}),
        ({"views__gt": 2**63}, {("views__gt",): "out_of_range"}),
        ({"tags__weight__gte": -(2**31) - 1}, {("tags__weight__gte",): "out_of_range"}),
        ({"name": "a\0"}, {("name",): "invalid_text"}),
        ({"name__in": ["a", "\ud800"]}, {("name__in",): "invalid_text"}),
        ({"tag": "a\0"}, {("tag",): "invalid_text"}),
        ({"q": "a\0"}, {("q",): "string_pattern_mismatch"}),
        ({"q": "a" * 201}, {("q",): "string_too_long"}),
        ({"sold_at__lte": "2026-03-02T11:00:00"}, {("sold_at__lte",): "naive_datetime"}),
        ({"sold_at__lte": "2026"}, {("sold_at__lte",): "invalid_date"}),
        ({"sold_at__in": ["2026-03-02", "0.5"]}, {("sold_at__in",): "invalid_date"}),
        ({"day": "20260302"}, {("day",): "invalid_date"}),
        ({"colour": "green"}, {("colour",): "enum"}),
        ({"sort": "secret"}, {("sort",): "invalid_sort"}),
        ({"sort": "name,-name"}, {("sort",): "invalid_sort"}),
        ({"sort": "name,"}, {("sort",): "invalid_sort"}),
        ({"limit": 101}, {("limit",): "less_than_equal"}),
    ],
)
def test_what_is_rejected(parameters: dict[str, Any], kinds: dict[Any, str]) -> None:
    """What is undeclared, malformed or out of range is an error of its parameter."""
    with pytest.raises(ValidationError) as caught:
        ItemQuery(**parameters)

    assert {(error["loc"][0],): error["type"] for error in caught.value.errors()} == kinds


def test_errors_list_what_is_allowed() -> None:
    """An unknown parameter or sort key gets the list of those that there are."""
    with pytest.raises(ValidationError, match=r"the parameters are archived, code, colour, .*, tags__weight__gte"):
        ItemQuery(nme=1)
    with pytest.raises(ValidationError, match="takes each of name, price, note, sold_at, rating, colour, size once"):
        ItemQuery(sort="secret")


def test_unknown_parameters_may_be_ignored() -> None:
    """``extra="ignore"`` lets other parameters pass."""

    class Lenient(QuerySpec[Item]):
        model_config = ConfigDict(extra="ignore")
        name: str | None = None

    assert Lenient(name="a", page=3).model_dump() == {"skip": 0, "limit": 100, "name": "a"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"__annotations__": {"nme": str | None}, "nme": None}, "nme is not a filter of Item"),
        ({"__annotations__": {"name__like": str | None}, "name__like": None}, "name__like is not a filter of Item: .* eq, ne, lt"),
        ({"__annotations__": {"price__icontains": str | None}, "price__icontains": None}, "icontains is not for columns"),
        ({"__annotations__": {"tags": str | None}, "tags": None}, "tags is not a filter"),
        ({"__annotations__": {"owner__name": str | None}, "owner__name": None}, "owner__name is not a filter"),
        ({"__annotations__": {"name__gt__lt": str | None}, "name__gt__lt": None}, "name__gt__lt is not a filter"),
        ({"__annotations__": {"sort": str}, "sort": "price", "sort_fields": (Item.name,)}, "sort: price is not in sort_fields"),
    ],
)
def test_mistakes_are_found_when_the_class_is_made(body: dict[str, Any], text: str) -> None:
    """A field that names no column, or an operator that the column does not have, is a TypeError."""
    with pytest.raises(TypeError, match=text):
        type("Wrong", (FilterSpec[Item],), {"__module__": __name__, **body})


def test_the_smallest_page_has_a_row() -> None:
    """``limit`` is at least 1, as in lists of a router without a spec."""

    class Plain(QuerySpec[Item]): ...

    assert Plain(limit=1).limit == 1
    with pytest.raises(ValidationError):
        Plain(limit=0)


def test_parameters_without_a_use_do_not_exist() -> None:
    """``q`` and ``sort`` are parameters of lists that can be searched and sorted; a subclass may add them."""

    class Plain(QuerySpec[Item]): ...

    class Searched(Plain):
        search_fields: ClassVar[Any] = (Item.name,)

    assert set(Plain.model_fields) == {"skip", "limit"}
    assert set(Searched.model_fields) == {"skip", "limit", "q"}
    assert Searched(q="a").conditions() != ()
    with pytest.raises(ValidationError):
        Plain(q="a")


def test_aliases() -> None:
    """A parameter may have another name than its field."""

    class Aliased(QuerySpec[Item]):
        name__icontains: Annotated[str | None, Field(alias="contains")] = None
        price__gte: Annotated[Decimal | None, Field(validation_alias="min_price")] = None

    query = Aliased.model_validate({"contains": "a", "min_price": 3})
    assert (query.name__icontains, query.price__gte) == ("a", 3)
    with pytest.raises(ValidationError):
        Aliased.model_validate({"price__gte": 3})


def test_columns_with_the_names_of_parameters() -> None:
    """A column whose name is taken gets an operator."""

    class Base(DeclarativeBase): ...

    class Car(Base):
        __tablename__ = "cars"
        id: Mapped[int] = mapped_column(primary_key=True)
        model: Mapped[str]
        order: Mapped[int]
        limit: Mapped[int]

    class CarQuery(QuerySpec[Car]):
        model: str | None = None
        order: int | None = None
        limit__eq: int | None = None

    sql = str(select(Car.id).where(*CarQuery(model="T", order=1, limit__eq=2).conditions()))
    assert sql.endswith('WHERE cars.model = :model_1 AND cars."order" = :order_1 AND cars."limit" = :limit_1')


async def test_any_statement_takes_a_spec(shop: AsyncSession) -> None:
    """``conditions()`` and ``order_by()`` are for statements of one's own; NOT and OR join them."""
    cheap, red = ItemFilters(price__lt=Decimal(2)), ItemFilters(colour=Colour.RED)
    ordered = ItemFilters(sort="-note,name")

    either = select(Item.id).where(or_(and_(*cheap.conditions()), and_(*red.conditions()))).order_by(Item.id)
    neither = select(Item.id).where(not_(or_(and_(*cheap.conditions()), and_(*red.conditions())))).order_by(Item.id)

    assert (await shop.scalars(either)).all() == [1, 3, 5]
    assert (await shop.scalars(neither)).all() == [4, 6]  # SQL's NOT finds no nulls.
    assert (await shop.scalars(select(Item.id).where(Item.id.in_([3, 4])).order_by(*ordered.order_by()))).all() == [3, 4]
    assert (await shop.scalars(select(Item.id).where(any_of(Item.id, [1, 2])).order_by(Item.id))).all() == [1, 2]
    assert (await shop.scalars(select(Item.id).where(any_of(Item.id, [])))).all() == []


async def test_sorts(shop: AsyncSession) -> None:
    """Nulls come last, and first with ``-``, on both databases. A labelled expression may be a sort key."""
    service = ItemService(shop)

    async def ids(**parameters: Any) -> list[int]:
        return [item.id for item in (await service.page_as(ItemRead, ItemQuery(**parameters))).items]

    assert await ids(sort="rating") == [1, 2, 3, 4, 5]
    assert await ids(sort="-rating") == [2, 3, 4, 5, 1]
    assert await ids(sort="size,-price") == [4, 3, 5, 2, 1]
    assert await ids(sort="") == [1, 2, 3, 4, 5]
    by_price = await service.page_as(ItemRead, ItemQuery(sort="name"), order_by=Item.price.desc())
    assert [item.id for item in by_price.items] == [4, 3, 2, 1, 5]


# --- What a filter must not see ---


class Mine(ReadService[Owner]):
    """The owners but bob."""

    def base_query(self) -> Select[Any]:
        return select(Owner).where(Owner.email != "boss@x.org")


class OwnerQuery(QuerySpec[Owner]):
    email: str | None = None
    boss__secret__startswith: str | None = None
    boss__isnull: bool | None = None
    items__name: str | None = None
    items__owner__secret: str | None = None


class OwnerRead(ItemRead):
    name: str = ""
    email: str


async def test_a_filter_does_not_see_what_base_query_hides(shop: AsyncSession) -> None:
    """Rows of the service's own model that ``base_query`` hides cannot be guessed through a relationship."""
    service = Mine(shop)

    async def emails(**parameters: Any) -> list[str]:
        return [owner.email for owner in (await service.list(*OwnerQuery(**parameters).confined(service.related_query)))]

    assert await emails(boss__secret__startswith="h") == []
    assert await emails(items__owner__secret="hidden", items__name="100% Wool") == ["ann@x.org"]

    class All(ReadService[Owner]): ...

    assert [owner.email for owner in await All(shop).list(*OwnerQuery(boss__secret__startswith="h").conditions())] == ["ann@x.org"]


class ItemsOfTenant(ItemService):
    """Sees the tags of one weight only."""

    def related_query(self, model: type[Any]) -> Select[Any] | None:
        return select(Tag).where(Tag.weight == 9) if model is Tag else super().related_query(model)


async def test_a_service_hides_related_rows(shop: AsyncSession) -> None:
    """``related_query`` confines what filters see of another model."""
    page = await ItemsOfTenant(shop).page_as(ItemRead, ItemQuery(tags__name="red"))

    assert [item.id for item in page.items] == [2]


@pytest.mark.parametrize("statement_of_ones_own", [False, True])
async def test_criteria_of_the_session_hide_related_rows(shop: AsyncSession, statement_of_ones_own: bool) -> None:
    """``with_loader_criteria`` of a ``do_orm_execute`` listener holds inside filters."""

    def hide(state: Any) -> None:
        state.statement = state.statement.options(with_loader_criteria(Tag, Tag.weight == 9))

    async def ids_by(query: ItemQuery) -> list[int]:
        if statement_of_ones_own:
            return sorted(await shop.scalars(select(Item.id).where(*query.conditions())))
        return [item.id for item in (await ItemService(shop).page_as(ItemRead, query)).items]

    event.listen(shop.sync_session, "do_orm_execute", hide)
    try:
        ids = [await ids_by(ItemQuery(**parameters)) for parameters in ({"tags__name": "red"}, {"tags__isnull": False})]
    finally:
        event.remove(shop.sync_session, "do_orm_execute", hide)

    assert ids == [[2], [1, 2]]


# --- Arrays and documents ---


class DocumentBase(DeclarativeBase):
    pass


class Document(DocumentBase):
    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    labels: Mapped[list[str]] = mapped_column(ARRAY(Text).with_variant(JSON(), "sqlite"))
    data: Mapped[dict[str, Any]] = mapped_column(JSONB().with_variant(JSON(), "sqlite"))
    plain: Mapped[dict[str, Any]] = mapped_column(JSON())


class DocumentQuery(QuerySpec[Document]):
    labels__contains: list[str] | None = None
    data__contains: dict[str, Any] | None = None
    plain__contains: dict[str, Any] | None = None


class DocumentRead(ItemRead):
    name: str = ""


class Documents(ReadService[Document]): ...


async def test_arrays_and_documents(database: Database) -> None:
    """``contains`` asks for items of an array and parts of a document on PostgreSQL, and is a ConfigurationError on SQLite."""
    await database.create_tables(DocumentBase.metadata)
    async with database.begin() as session:
        session.add_all(
            [
                Document(id=1, labels=["a", "b"], data={"x": 1, "y": 2}, plain={"x": 1}),
                Document(id=2, labels=["b"], data={"x": 2}, plain={"x": [1, 2]}),
            ]
        )
        await session.flush()
        service = Documents(session)
        queries = [DocumentQuery(labels__contains=["a"]), DocumentQuery(data__contains={"x": 1}), DocumentQuery(plain__contains={"x": [2]})]
        if database.engine.dialect.name == "sqlite":
            for query in queries:
                with pytest.raises(ConfigurationError, match="PostgreSQL can"):
                    await service.list(*query.conditions())
        else:
            assert [[row.id for row in await service.list(*query.conditions())] for query in queries] == [[1], [1], [2]]


async def test_an_engine_without_the_function(shop: AsyncSession) -> None:
    """A search over an engine of your own on SQLite names what is missing; with it, the search works."""
    url = shop.get_bind().engine.url
    engine = create_async_engine(url)
    async with AsyncSession(engine) as session:
        if url.get_backend_name() == "sqlite":
            with pytest.raises(ConfigurationError, match="add_functions"):
                await found(session, q="GRÖ")
            await session.rollback()
            await engine.dispose()
            event.listen(engine.sync_engine, "connect", add_functions)
        assert await found(session, q="GRÖ") == "ab"
    await engine.dispose()
