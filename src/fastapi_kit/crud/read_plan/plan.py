"""How rows of a mapped class become instances of a read schema. Compiled once for each schema and mapper."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property, lru_cache
from typing import Any, Generic, TypeVar, cast

from pydantic import BaseModel, ValidationError
from sqlalchemy import Row, Select, inspect, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapper, QueryableAttribute
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud.identity import identity_of
from fastapi_kit.crud.read_plan.attributes import has_load_listener
from fastapi_kit.crud.read_plan.fields import SchemaReader, core_schema_of
from fastapi_kit.crud.read_plan.lines import LineWriter, line_of
from fastapi_kit.crud.read_plan.needs import Needs, NeedsCompiler
from fastapi_kit.crud.read_plan.options import GivenOptions, loader_options, only_columns
from fastapi_kit.crud.read_plan.parts import part_of
from fastapi_kit.crud.read_plan.unloaded import error_of_unloaded, no_lazy_loads, unloaded_in
from fastapi_kit.crud.read_plan.validation import ListValidator
from fastapi_kit.crud.sparse import ReadAs, SparseModel, SparseSpec, choices_of, schema_of

__all__ = ["MOST_PARTS", "ReadPlan", "check_plans", "plan_of_part", "read_plan"]

SchemaT = TypeVar("SchemaT", bound=BaseModel)

_PLANS = "fastapi_kit.read_plans"
_MAX_KEYS = 1000
MOST_PARTS = 256
"""How many plans of parts are kept, of all schemas together. A client may ask for very many."""


def read_plan(shown: ReadAs[SchemaT], mapper: Mapper[Any]) -> "ReadPlan[SchemaT]":
    """Return the plan to read objects of *mapper* as *shown*.

    That of a schema is compiled once and lives as long as the mapped class. Those of its parts, of which a client chooses, are kept while
    they are among the last used.

    Raises:
        ConfigurationError: The model cannot fill a field. The text names the field and the remedy.
    """
    schema = schema_of(shown)
    if isinstance(shown, SparseSpec):
        asked = shown.asked()
        if asked != shown.choices().default:
            return cast("ReadPlan[SchemaT]", plan_of_part(schema, asked, mapper))
    known: dict[str, dict[type[BaseModel], ReadPlan[Any]]] = cast("Any", mapper.class_manager).info
    plans = known.setdefault(_PLANS, {})
    if schema not in plans:
        default = choices_of(schema).default if issubclass(schema, SparseModel) else None
        plans[schema] = ReadPlan(schema, mapper, default)
    return plans[schema]


def check_plans(schema: type[BaseModel], mapper: Mapper[Any]) -> None:
    """Raise ConfigurationError if *mapper* cannot fill a field of *schema*, or one that a client may ask for."""
    read_plan(schema, mapper)
    if issubclass(schema, SparseModel):
        ReadPlan(schema, mapper, choices_of(schema).whole)


@lru_cache(maxsize=MOST_PARTS)
def plan_of_part(schema: type[BaseModel], names: frozenset[str], mapper: Mapper[Any]) -> "ReadPlan[Any]":
    """Return the plan to read the fields *names* of *schema*."""
    return ReadPlan(schema, mapper, names)


class ReadPlan(Generic[SchemaT]):
    """What to select or load of *mapper* to fill *schema*, and how to validate it. Get one from ``read_plan``.

    With *names* only these fields are read.
    """

    def __init__(self, schema: type[SchemaT], mapper: Mapper[Any], names: frozenset[str] | None = None) -> None:
        self.schema = schema
        self.mapper = mapper
        self.is_part = names is not None
        self._part = part = None if names is None else part_of(schema, names)
        self._needs, self._flat = compile_plan(core_schema_of(schema) if part is None else part, mapper)
        self._validate = ListValidator(schema, part)

    @property
    def columns(self) -> tuple[QueryableAttribute[Any], ...] | None:
        """The attributes to select for ``from_rows``. None if the schema must be filled from objects."""
        return None if self._flat is None or has_load_listener(self.mapper) else self._flat

    @property
    def _needs_columns_only(self) -> bool:
        # If so, only columns could be loaded lazily, and ``satisfied_by`` checks those.
        return self._flat is not None

    @cached_property
    def select_by_key(self) -> Select[Any]:
        """The select of ``columns`` of the row whose key is in ``Identity.parameters``."""
        rows: Any = identity_of(self.mapper).select
        selected: Select[Any] = rows.with_only_columns(*(self.columns or ()))
        return selected

    def from_rows(self, rows: Iterable[Sequence[object]]) -> list[SchemaT]:
        """Return *rows*, each of which begins with ``columns``, as instances of the schema.

        Raises:
            ValidationError: pydantic rejects a row.
        """
        return self._validate(self._named(rows))

    @cached_property
    def _named(self) -> Callable[[Iterable[Sequence[object]]], list[dict[str, object]]]:
        return naming(list(self._needs.selected))

    @cached_property
    def _writer(self) -> LineWriter | None:
        return LineWriter.of(self.schema, self._part)

    def lines(self, found: Sequence[Any]) -> list[bytes]:
        """Return plain rows of ``columns``, or loaded objects, as the JSON of instances of the schema."""
        if self._writer is not None and is_plain(found):
            return self._writer(self._named(found))
        return [line_of(row) for row in self.from_found(found)]

    def from_found(self, found: Sequence[Any]) -> list[SchemaT]:
        """Return plain rows of ``columns``, or loaded objects, as instances of the schema."""
        return self.from_rows(found) if is_plain(found) else self.from_objects(found)

    def from_objects(self, objects: Iterable[object]) -> list[SchemaT]:
        """Return loaded *objects* as instances of the schema.

        Raises:
            NotLoadedError: The schema, or a property that it reads, needs something that is not loaded.
            ValidationError: pydantic rejects an object.
        """
        objects = list(objects)
        with nullcontext() if self._needs_columns_only else no_lazy_loads(objects):
            try:
                return self._validate(objects)
            except ValidationError as error:
                kinds = {each["type"] for each in error.errors(include_url=False, include_context=False, include_input=False)}
                unloaded = next(unloaded_in(objects, self._needs), None) if "get_attribute_error" in kinds else None
                if unloaded is None:
                    raise
                raise unloaded.error from error
            except SQLAlchemyError as error:
                # A validator of the schema got the object itself and read something that is not loaded.
                not_loaded = error_of_unloaded(error)
                if not_loaded is None:
                    raise
                raise not_loaded from error

    def options(self, given: Sequence[ORMOption] = (), *, join: bool = True) -> list[ORMOption]:
        """Return the loader options for a select of the mapper that has the options *given* already.

        The *given* options take precedence. What is needed below a relationship that they load is added. With *join*, many-to-one
        relationships are joined to the statement itself, which must not be grouped or distinct.
        """
        if not given:
            return list(self._join_options if join else self._select_options)
        return loader_options(self._needs, GivenOptions.of(given), join=join)

    @cached_property
    def narrowing(self) -> Sequence[ORMOption]:
        """Options for a select whose objects are only read by ``from_found``: columns that no field needs are not loaded."""
        return only_columns(self._needs) if self.is_part and not has_load_listener(self.mapper) else ()

    @cached_property
    def related(self) -> Sequence[Mapper[Any]]:
        """The mappers of all related objects that are read."""
        return list(dict.fromkeys(relationship.mapper for needs in self._needs.all() for relationship in needs.relationships))

    def satisfied_by(self, row: object) -> bool:
        """Return whether ``from_objects`` can read *row* without SQL: everything is loaded and every property can be read."""
        with nullcontext() if self._needs_columns_only else no_lazy_loads([row]):
            return next(unloaded_in([row], self._needs), None) is None

    def loads(self, objects: Iterable[object], criteria: Sequence[ORMOption] = ()) -> Iterator[Select[Any]]:
        """Yield selects that load what persistent *objects* lack. Run each in their session before the next one.

        If nothing is missing, it yields nothing. Trees through several relationships are loaded level by level. *criteria* are options
        that restrict the related rows.
        """
        objects = list(objects)
        asked = set[tuple[Needs, object]]()
        while True:
            lacking = dict[Needs, dict[tuple[Any, ...], None]]()
            for unloaded in unloaded_in(objects, self._needs, compute=False):
                state: Any = inspect(unloaded.row)
                identity = state.identity
                if identity is not None and (unloaded.needs, identity) not in asked:
                    lacking.setdefault(unloaded.needs, {})[identity] = None
            if not lacking:
                return
            for needs, identities in lacking.items():
                asked.update((needs, identity) for identity in identities)
                yield from (statement.options(*criteria) for statement in selects(needs, list(identities)))

    @cached_property
    def _join_options(self) -> list[ORMOption]:
        return loader_options(self._needs, GivenOptions.of(()), join=True)

    @cached_property
    def _select_options(self) -> list[ORMOption]:
        return loader_options(self._needs, GivenOptions.of(()), join=False)


def naming(names: Sequence[str]) -> Callable[[Iterable[Sequence[object]]], list[dict[str, object]]]:
    """Return the function that makes a dict with these *names* from the first columns of each row.

    It is compiled, as the methods of a dataclass are: ``dict(zip(names, row))`` takes three times as long.
    """
    pairs = ", ".join(f"{name!r}: row[{place}]" for place, name in enumerate(names))
    named: Callable[[Iterable[Sequence[object]]], list[dict[str, object]]] = eval(f"lambda rows: [{{{pairs}}} for row in rows]")
    return named


def is_plain(found: Sequence[Any]) -> bool:
    """Return whether *found* are plain rows, and not objects."""
    return bool(found) and isinstance(found[0], Row | tuple)


def selects(needs: Needs, identities: Sequence[tuple[Any, ...]]) -> Iterator[Select[Any]]:
    key = tuple_(*needs.mapper.primary_key)
    options = loader_options(needs, GivenOptions.of(()), join=True)
    for start in range(0, len(identities), _MAX_KEYS):
        chunk = identities[start : start + _MAX_KEYS]
        condition = key.in_(chunk) if len(chunk[0]) > 1 else needs.mapper.primary_key[0].in_([identity for (identity,) in chunk])
        yield select(needs.mapper.class_).where(condition).options(*options)


def compile_plan(core: Any, mapper: Mapper[Any]) -> tuple[Needs, tuple[QueryableAttribute[Any], ...] | None]:
    reader = SchemaReader()
    needs = NeedsCompiler(reader).of_root(reader.content(core), mapper)
    columns = tuple(column.class_attribute for column in needs.selected.values())
    return needs, columns if needs.flat and columns else None
