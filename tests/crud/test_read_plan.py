"""Read plans of flat schemas: columns are read as plain rows; and which schemas are flat."""

import enum
import gc
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    EmailStr,
    Field,
    RootModel,
    ValidationError,
    computed_field,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from sqlalchemy import JSON, ForeignKey, String, create_engine, event, func, inspect, select
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    composite,
    mapped_column,
    query_expression,
    reconstructor,
    synonym,
    with_expression,
)
from sqlmodel import Field as SQLField
from sqlmodel import SQLModel
from tests.tables import names
from tests.versions import needs_own_validators

from fastapi_kit.crud.read_plan.plan import ReadPlan, read_plan


class Base(DeclarativeBase): ...


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Name:
    first: str
    last: str


class Person(Base):
    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    first: Mapped[str] = mapped_column()
    last: Mapped[str] = mapped_column()
    email: Mapped[str]
    born: Mapped[date | None]
    colour: Mapped[Colour] = mapped_column(default=Colour.RED)
    meta: Mapped[dict[str, Any]] = mapped_column("metadata", MutableDict.as_mutable(JSON), default=dict)
    text: Mapped[str] = mapped_column(String(9), deferred=True, default="t")
    name: Mapped[Name] = composite("first", "last")
    full_name: Mapped[str] = column_property(first + " " + last)
    mail = synonym("email")
    note: Mapped[str] = query_expression()
    type_: Mapped[str] = mapped_column("kind")
    __mapper_args__: ClassVar = {"polymorphic_on": "type_", "polymorphic_identity": "person"}

    @property
    def initials(self) -> str:
        return self.first[0] + self.last[0]

    @hybrid_property
    def kind(self) -> str:
        return self.type_.upper()


class Employee(Person):
    __tablename__ = "employees"
    id: Mapped[int] = mapped_column(ForeignKey(Person.id), primary_key=True)
    salary: Mapped[int]
    __mapper_args__: ClassVar = {"polymorphic_identity": "employee"}


@pytest.fixture
def session() -> Iterator[Session]:
    """A session with an employee called Ada Byron."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        meta = {"title": "Dr", "tags": ["a", "b"]}
        session.add(Employee(first="Ada", last="Byron", email="ada@example.org", born=date(1815, 12, 10), meta=meta, salary=7))
        session.commit()
        yield session
    engine.dispose()


def plan_of(schema: type[BaseModel], model: type[object] = Person) -> ReadPlan[Any]:
    return read_plan(schema, inspect(model))


def read_rows(session: Session, schema: type[BaseModel], model: type[object] = Person) -> list[Any]:
    plan = plan_of(schema, model)
    assert plan.columns is not None
    return plan.from_rows(session.execute(select(model).with_only_columns(*plan.columns)).all())


def read_objects(session: Session, schema: type[BaseModel], model: type[object] = Person) -> list[Any]:
    plan = plan_of(schema, model)
    session.expunge_all()
    return plan.from_objects(session.scalars(select(model).options(*plan.options())).all())


class Plain(BaseModel):
    id: int
    email: EmailStr
    born: date | None
    colour: Colour
    full_name: str
    text: str
    mail: EmailStr


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, validate_by_alias=False, extra="forbid")
    full_name: str
    first: str = Field(alias="last")


class Paths(BaseModel):
    title: str = Field(validation_alias=AliasPath("meta", "title"))
    second: str = Field(validation_alias=AliasPath("meta", "tags", 1))
    missing: str = Field("none", validation_alias=AliasPath("meta", "nothing"))
    choice: str = Field(validation_alias=AliasChoices("nothing", "last", "first"))
    meta: dict[str, Any]


class Meta(BaseModel):
    title: str
    tags: list[str]


class Nested(BaseModel):
    meta: Meta
    absent: int = 3


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="allow")
    id: int
    born: date
    _private: int = 1


class Checked(BaseModel):
    first: Annotated[str, BeforeValidator(str.upper)]
    last: str

    @field_validator("last")
    @classmethod
    def shout(cls, value: str, info: Any) -> str:
        return f"{info.data['first']} {value}!"

    @model_validator(mode="after")
    def check(self) -> "Checked":
        assert self.first == "ADA"
        return self

    @computed_field
    def both(self) -> str:
        return self.first + self.last


class Shared(SQLModel):
    id: int = SQLField(primary_key=True)
    email: str


@pytest.mark.parametrize("schema", [Plain, Camel, Paths, Nested, Strict, Checked, Shared])
def test_rows_and_objects_make_what_pydantic_makes(session: Session, schema: type[BaseModel]) -> None:
    """Rows and objects give the same instances as model_validate(), with the same fields set and the same dump."""
    (expected,) = [
        schema.__pydantic_validator__.validate_python(each, from_attributes=True, by_alias=True, by_name=True)
        for each in session.scalars(select(Person))
    ]
    for (found,) in (read_rows(session, schema), read_objects(session, schema)):
        assert found == expected
        assert type(found) is schema
        assert found.model_fields_set == expected.model_fields_set
        assert found.model_dump() == expected.model_dump()
        assert found.model_dump_json(by_alias=True) == expected.model_dump_json(by_alias=True)
        assert found.model_extra == expected.model_extra


def test_a_flat_plan_selects_its_columns_only() -> None:
    """Only the columns of the schema are selected, deferred columns and expressions too."""
    columns = plan_of(Plain).columns
    assert columns is not None
    assert [column.key for column in columns] == ["id", "email", "born", "colour", "full_name", "text", "email"]


def test_columns_of_joined_tables(session: Session) -> None:
    """A flat schema can have columns of a class and of its base."""

    class Read(BaseModel):
        email: str
        salary: int

    assert [each.model_dump() for each in read_rows(session, Read, Employee)] == [{"email": "ada@example.org", "salary": 7}]


class ByProperty(BaseModel):
    initials: str


class ByHybrid(BaseModel):
    kind: str


class Composed(BaseModel):
    name: Name


class BySubclass(BaseModel):
    salary: int | None = None


class Expression(BaseModel):
    note: str | None


class Before(BaseModel):
    id: int

    @model_validator(mode="before")
    @classmethod
    def take(cls, person: Any) -> Any:
        return {"id": person.id * 10}


class Wrapped(BaseModel):
    id: int

    @model_validator(mode="wrap")
    @classmethod
    def take(cls, person: Any, handler: Any) -> Any:
        return handler({"id": person.id * 10})


class Root(RootModel[Before]): ...


class Custom(BaseModel):
    id: int

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(lambda person: {"id": person.id * 10}, handler(source))


class Fallback(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str = Field(validation_alias=AliasChoices(AliasPath("meta", "nothing"), "last"))


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (ByProperty, {"initials": "AB"}),
        (ByHybrid, {"kind": "EMPLOYEE"}),
        (Composed, {"name": {"first": "Ada", "last": "Byron"}}),
        (BySubclass, {"salary": 7}),
        (Expression, {"note": None}),
        (Before, {"id": 10}),
        (Wrapped, {"id": 10}),
        (Root, {"id": 10}),
        pytest.param(Custom, {"id": 10}, marks=needs_own_validators),
        (Fallback, {"title": "Byron"}),
    ],
)
def test_what_only_an_object_has_is_read_from_objects(session: Session, schema: type[BaseModel], expected: dict[str, Any]) -> None:
    """Properties, hybrids, composites, columns of subclasses and validators of the whole object need objects."""
    assert plan_of(schema).columns is None
    assert [each.model_dump() for each in read_objects(session, schema)] == [expected]


def test_an_expression_of_the_statement_is_read(session: Session) -> None:
    """A field can be filled by with_expression()."""
    option = with_expression(Person.note, func.upper(Person.first))
    plan = plan_of(Expression)
    rows = session.scalars(select(Person).options(option, *plan.options([option]))).all()

    assert plan.from_objects(rows)[0].note == "ADA"


def test_code_that_runs_at_loading_needs_objects() -> None:
    """Reconstructors and load listeners run, also those that are added after the plan was made."""

    class Own(DeclarativeBase): ...

    class Letter(Own):
        __table__ = names.Name.__table__
        name: Mapped[str]

    class Built(Own):
        __table__ = names.Name.__table__
        name: Mapped[str]

        @reconstructor
        def build(self) -> None:
            self.id = 0

    class Read(BaseModel):
        id: int

    plan = plan_of(Read, Letter)
    assert plan.columns is not None
    event.listen(Letter, "load", lambda letter, _: None)
    assert plan.columns is None
    assert plan_of(Read, Built).columns is None


def test_a_mapped_class_as_its_own_schema() -> None:
    """An SQLModel table can be its own read schema."""

    class Hero(SQLModel, table=True):
        __tablename__ = "read_plan_heroes"
        id: int = SQLField(primary_key=True)

    plan = plan_of(Hero, Hero)
    hero = Hero(id=1)
    assert plan.columns is None
    assert plan.from_objects([hero])[0] is hero


def test_errors_are_those_of_the_schema(session: Session) -> None:
    """A row that is not valid raises the same error as the schema itself."""

    class Read(BaseModel):
        email: EmailStr
        first: EmailStr

    with pytest.raises(ValidationError) as expected:
        Read.model_validate(session.scalars(select(Person)).one(), from_attributes=True)
    with pytest.raises(ValidationError) as caught:
        read_rows(session, Read)

    (error,) = caught.value.errors(include_input=False)
    assert error == {**expected.value.errors(include_input=False)[0], "loc": (0, "first")}


def test_a_plan_is_made_once() -> None:
    """There is one plan for each schema and mapper."""
    assert plan_of(Plain) is plan_of(Plain)
    assert plan_of(Plain) is not plan_of(Plain, Employee)


def test_a_plan_lives_as_long_as_the_mapped_class() -> None:
    """The cache of plans keeps no class alive."""

    class Read(BaseModel):
        id: int

    def plan() -> weakref.ref[type[object]]:
        class Own(DeclarativeBase): ...

        class Thing(Own):
            __table__ = names.Name.__table__
            name: Mapped[str]

        assert plan_of(Read, Thing).from_rows([(1,)]) == [Read(id=1)]
        return weakref.ref(Thing)

    found = plan()
    gc.collect()
    assert found() is None
