"""Which related rows an answer may show."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import Select, and_, tuple_
from sqlalchemy.orm import Mapper, with_loader_criteria
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit._compat import plain_criteria
from fastapi_kit.crud.identity import identity_of

__all__ = ["criteria_of"]


def criteria_of(mappers: Iterable[Mapper[Any]], confine: Callable[[type[Any]], Select[Any] | None]) -> Iterator[ORMOption]:
    """Yield the options that load of the related *mappers* only the rows that *confine* returns for them."""
    for mapper in mappers:
        rows = confine(mapper.class_)
        criteria = None if rows is None else plain_criteria(rows, mapper)
        if rows is not None and criteria is None:
            attributes = identity_of(mapper).attributes
            keys: Any = rows.with_only_columns(*attributes).correlate(None)
            criteria = [tuple_(*attributes).in_(keys)]
        if criteria:
            yield with_loader_criteria(mapper.class_, and_(*criteria), include_aliases=True)
