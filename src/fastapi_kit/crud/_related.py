"""Which related rows an answer may show."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import Select, and_
from sqlalchemy.orm import Mapper, with_loader_criteria
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit._compat import plain_criteria
from fastapi_kit.errors import ConfigurationError

__all__ = ["criteria_of"]


def criteria_of(mappers: Iterable[Mapper[Any]], confine: Callable[[type[Any]], Select[Any] | None]) -> Iterator[ORMOption]:
    """Yield the options that load of the related *mappers* only the rows that *confine* returns for them.

    Raises:
        ConfigurationError: *confine* returns more than a select of the model with a WHERE. SQLAlchemy cannot apply that to an alias.
    """
    for mapper in mappers:
        rows = confine(mapper.class_)
        if rows is None:
            continue
        criteria = plain_criteria(rows, mapper)
        if criteria is None:
            name = mapper.class_.__name__
            raise ConfigurationError(
                f"the rows of {name} in an answer of some fields cannot be restricted by a select that joins, groups or limits:"
                f" let related_query({name}) return a select with where() only, with exists() for other tables"
            )
        if criteria:
            yield with_loader_criteria(mapper.class_, and_(*criteria), include_aliases=True)
