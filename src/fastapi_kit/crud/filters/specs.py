"""The declaration of a list: what may be filtered, searched and sorted."""

import inspect
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Annotated, Any, ClassVar, Generic, TypeVar, cast

from pydantic import Field, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from sqlalchemy import ColumnElement, Text, or_, select

from fastapi_kit.crud._parameters import Parameters, argument_of
from fastapi_kit.crud.attributes import mapper_of
from fastapi_kit.crud.filters import text
from fastapi_kit.crud.filters.fields import ColumnCheck, Confine, Filter, Where, exists_conditions, filter_of
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.crud.ordering import total_order
from fastapi_kit.crud.sparse import SparseSpec
from fastapi_kit.pagination import PageParams
from fastapi_kit.schemas import SafeText

__all__ = ["FilterSpec", "KeysetSpec", "QuerySpec", "without_window"]

ModelT = TypeVar("ModelT")

_WINDOW = frozenset({"skip", "limit", "cursor"})
_OWN = frozenset({"q", "sort", *_WINDOW})


class FilterSpec(Parameters, Generic[ModelT]):
    """What may be filtered, searched and sorted in a list of *ModelT*: ``class ItemFilters(FilterSpec[Item])``.

    A field is a filter. Its name is a column with an operator, joined by ``__``: ``price__gte``. Without an operator it is ``eq``.
    Relationships come before the column: ``owner__email``, ``lines__sku__in``. Filters over one relationship ask for one related row that
    meets them all. The operators are eq, ne, lt, lte, gt, gte, in, not_in, contains, icontains, startswith, istartswith, endswith,
    iendswith, isnull and date. None means "not given", and a default applies until the client sends another value.

    A date for a column of moments means that day in UTC; a number is not a date. ``ne`` and ``not_in`` find rows with null too, ``in`` of
    an empty list finds none. ``%`` and ``_`` are ordinary characters. ``contains`` of an array or a JSON column needs PostgreSQL.

    A parameter that is not declared is rejected. ``model_config = ConfigDict(extra="ignore")`` ignores it.

    Raises:
        TypeError: When the class is made: a field names no column, or the default of ``sort`` is not allowed.
        ValidationError: When an instance is made: a value is malformed, out of the range of its column, or not declared.
    """

    search_fields: ClassVar[Sequence[Any]] = ()
    """Text columns that ``q`` searches: each word of it is in one of them, in any case. Without any, ``q`` is not a parameter."""
    sort_fields: ClassVar[Sequence[Any]] = ()
    """Columns and labelled expressions that ``sort`` may name. Without any, ``sort`` is not a parameter."""

    model_filters: ClassVar[Mapping[str, Filter | Where[Any]]] = {}
    """The filters by the names of their fields. The library sets it."""

    q: Annotated[SafeText | None, Field(max_length=200)] = None
    sort: str = ""
    """Names of ``sort_fields``, separated by commas, ``-`` for descending: ``-created_at,name``. Its default is the default order."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Read the fields."""
        super().__pydantic_init_subclass__(**kwargs)
        model = cls.model_class()
        if model is None or cls.__pydantic_generic_metadata__["origin"] is not None:
            return
        fields = cls.own_fields()
        for name in {"q", "sort"} - {name for base in cls.__mro__[:-1] if base is not FilterSpec for name in inspect.get_annotations(base)}:
            # A base class without search_fields or sort_fields has lost its field.
            fields[name] = copy(FilterSpec.model_fields[name])
        own = _OWN | SparseSpec.model_fields.keys() if issubclass(cls, SparseSpec) else _OWN
        cls.model_filters = {name: declared(model, name, info) for name, info in fields.items() if name not in own}
        for name, found in cls.model_filters.items():
            describe(fields[name], found)
        if cls.search_fields:
            columns = ", ".join(each.key for each in cls.search_fields)
            fields["q"].description = f"Words that all occur in {columns}, in any case"
        else:
            fields.pop("q", None)
        if cls.sort_fields:
            describe_sort(fields["sort"], cls.sort_keys())
            check_default(cls.__name__, fields["sort"].default, cls.sort_keys())
        else:
            fields.pop("sort", None)
        cls.note_parameters()

    @classmethod
    def model_class(cls) -> type[Any] | None:
        """Return the model of the list, or None for a class without one."""
        return argument_of(cls, FilterSpec)

    @classmethod
    def sort_keys(cls) -> Mapping[str, Any]:
        """Return the expressions that ``sort`` may name."""
        return {each.key: each for each in cls.sort_fields}

    @field_validator("sort", check_fields=False)
    @classmethod
    def check_sort(cls, value: str) -> str:
        """Raise ValueError for a name that is not in ``sort_fields``, or that comes twice."""
        keys = cls.sort_keys()
        names = [part.removeprefix("-") for part in value.split(",")] if value else []
        if cls.model_class() is not None and (len(set(names)) < len(names) or not keys.keys() >= set(names)):
            raise PydanticCustomError(
                "invalid_sort", cast("Any", f"takes each of {', '.join(keys)} once, separated by commas, with - for descending")
            )
        return value

    def conditions(self) -> tuple[ColumnElement[bool], ...]:
        """Return what was filtered and searched for as SQL, for ``where()`` of any statement over the model.

        Filters over relationships see the rows of other models that a select of these models returns, with the criteria of the session
        (``with_loader_criteria``). They do not know what the ``base_query`` of a service hides, as the methods of services do.
        """
        return self.confined(select)

    def confined(self, confine: Confine) -> tuple[ColumnElement[bool], ...]:
        """Return ``conditions`` that see of each related model only the rows that *confine* returns for it."""
        given = [(found, getattr(self, name)) for name, found in self.model_filters.items() if getattr(self, name) is not None]
        own = [cast("ColumnElement[bool]", found.condition(value)) for found, value in given if isinstance(found, Where)]
        by_column = [(found, value) for found, value in given if isinstance(found, Filter)]
        words: Sequence[str] = (getattr(self, "q", None) or "").split()
        searched = [or_(*(text.contains(each, word, ignore_case=True) for each in self.search_fields)) for word in words]
        return (*exists_conditions(self.model_class(), by_column, confine), *own, *searched)

    def sort_items(self) -> list[Any]:
        """Return what ``sort`` names, for ``order_by=`` of a service."""
        keys = self.sort_keys()
        parts = [part for part in getattr(self, "sort", "").split(",") if part]
        return [keys[part[1:]].desc() if part.startswith("-") else keys[part].asc() for part in parts]

    def order_by(self) -> tuple[Any, ...]:
        """Return the order as SQL, for any statement over the model: ``sort``, then the primary key, nulls alike on every database."""
        model = self.model_class()
        key = () if model is None else identity_of(mapper_of(model)).attributes
        return tuple(total_order(self.sort_items(), key, dialect="sqlite"))


class QuerySpec(FilterSpec[ModelT], PageParams, Generic[ModelT]):
    """A list in offset pages: ``class ItemQuery(QuerySpec[Item])``, then ``Annotated[ItemQuery, Query()]`` or ``ItemQuery(price__gte=3)``.

    ``skip`` and ``max_total`` are those of PageParams. ``limit`` is 1 to 1000, by default 100, as in every list of a router. Override the
    fields for other bounds: ``limit: Annotated[int, Field(ge=1, le=50)] = 20``.
    """

    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class KeysetSpec(FilterSpec[ModelT], Generic[ModelT]):
    """A list in keyset pages, whose cost does not grow with their depth. Declare it like a QuerySpec.

    No row that stays is left out or shown twice, whatever is inserted and deleted meanwhile.
    """

    cursor_key: ClassVar[bytes | None] = None
    """Signs cursors, so that a client cannot make one. Without it they have a checksum. They contain the values of the sorted columns and
    of the primary key of one row, which a client can decode."""

    cursor: Annotated[str | None, Field(description="The cursor of another page. It is for the same filters and the same sort")] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="How many to return at most")] = 100

    def cursor_context(self) -> str:
        """Return what a cursor is valid for: the model, the filters and the sort."""
        model = self.model_class()
        others = {"cursor", "limit", *(SparseSpec.model_fields if isinstance(self, SparseSpec) else ())}
        return f"{model and model.__qualname__} {self.model_dump_json(exclude=others)}"


def without_window(query: type[FilterSpec[ModelT]]) -> type[FilterSpec[ModelT]]:
    """Return a subclass of *query* without ``skip``, ``limit`` and ``cursor``: all rows that are filtered and searched for."""
    whole = create_model(f"{query.__name__}Export", __base__=query, __module__=query.__module__)
    fields = whole.own_fields()
    for name in _WINDOW & fields.keys():
        del fields[name]
    whole.note_parameters()
    return whole


def declared(model: type[Any], name: str, info: FieldInfo) -> Filter | Where[Any]:
    """Return the filter that a field declares, by its annotation or by its name."""
    own: list[Any] = [each for each in info.metadata if isinstance(each, Where)]
    return cast("Where[Any]", own[0]) if own else filter_of(model, name)


def describe(info: FieldInfo, found: Filter | Where[Any]) -> None:
    """Give a field the check of its column and a description, unless it has one."""
    type_ = Text() if isinstance(found, Where) else found.type_
    if isinstance(found, Filter):
        info.description = info.description or found.description
    if type_ is not None and not any(isinstance(each, ColumnCheck) for each in info.metadata):
        info.metadata = [*info.metadata, ColumnCheck(type_)]


def describe_sort(info: FieldInfo, keys: Mapping[str, Any]) -> None:
    """Show in OpenAPI what ``sort`` takes."""
    names = "|".join(keys)
    info.description = f"{', '.join(keys)}, separated by commas, with - for descending"
    info.json_schema_extra = {"pattern": f"^(-?({names})(,-?({names}))*)?$"}


def check_default(owner: str, default: str, keys: Mapping[str, Any]) -> None:
    """Raise TypeError if the default of ``sort`` names something that is not in *keys*."""
    if unknown := {part.removeprefix("-") for part in default.split(",") if part} - keys.keys():
        raise TypeError(f"{owner}.sort: {', '.join(sorted(unknown))} is not in sort_fields")
