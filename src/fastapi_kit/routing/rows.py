"""The row of a path as a dependency."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, Mapper
from sqlalchemy.orm.interfaces import ORMOption

from fastapi_kit.crud.attributes import attributes_of, mapper_of
from fastapi_kit.crud.identity import identity_of
from fastapi_kit.crud.locks import RowLock
from fastapi_kit.crud.reads import ReadService
from fastapi_kit.dependencies import Dependency, answering, as_depends, declare
from fastapi_kit.errors import ConfigurationError, MultipleMatchesError, NotFoundError
from fastapi_kit.routing.keys import column_in_path, key_in_path
from fastapi_kit.routing.resource import name_of, snake_case

__all__ = ["get_row_factory"]

ModelT = TypeVar("ModelT")


def get_row_factory(
    service_class: type[ReadService[ModelT]],
    *,
    session: Dependency[AsyncSession] | None = None,
    service: Dependency[ReadService[ModelT]] | None = None,
    name: str | None = None,
    key: Mapped[Any] | None = None,
    lock: RowLock | None = None,
    options: Sequence[ORMOption] = (),
) -> Callable[..., Awaitable[ModelT]]:
    """Build the dependency that gives the row whose key is in the path.

    The dependency raises NotFoundError (404). It reads through the service, so a ``base_query`` limits the rows. The row belongs to the
    session of the request: writes of a service with the same *session* change it.

    Args:
        service_class: The service, or a ReadService. It names the model.
        session: A dependency that gives the session, such as ``db.session`` or your own ``get_db``.
        service: A dependency that gives the service, where ``Service(session)`` is not enough. Give either this or *session*.
        name: The path parameter, where it is not named as the attribute: ``note_id``. A composite key has one for each attribute.
        key: A unique column that is in the path instead of the primary key: ``Article.slug``.
        lock: Lock the row, until the session's next commit or rollback. With ``session=db.transaction`` that is the end of the request.
        options: Loader options, such as ``selectinload(Note.tags)``.

    Raises:
        ConfigurationError: The service names no model; the key cannot be part of a path; *key* is not a column of the model; *name* is
            given for a composite key.
        TypeError: Both or neither of *session* and *service* are given.

    Example:
        ```python
        from typing import Annotated

        from fastapi import Depends, FastAPI
        from sqlalchemy.orm import Mapped, mapped_column

        from fastapi_kit import Base, Database, register_exception_handlers
        from fastapi_kit.crud import ReadService
        from fastapi_kit.routing import get_row_factory


        class Note(Base):
            __tablename__ = "notes"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]


        class NoteService(ReadService[Note]): ...


        db = Database("sqlite:///:memory:")
        get_note = get_row_factory(NoteService, session=db.session)
        app = FastAPI()
        register_exception_handlers(app)


        @app.get("/notes/{id}/title")
        async def get_title(note: Annotated[Note, Depends(get_note)]) -> str:
            return note.title
        ```
    """
    given = session if service is None else service
    if given is None or (session is not None and service is not None):
        raise TypeError("get_row_factory() needs exactly one of session= and service=")
    model: type[ModelT] | None = getattr(service_class, "model", None)
    if model is None:
        raise ConfigurationError(f"{service_class.__name__} has no model")
    mapper = mapper_of(model)
    attribute = None if key is None else name_of(mapper, key)
    if key is not None and attribute is None:
        raise ConfigurationError(f"key= is not a column of {model.__name__}")

    @answering(404)
    async def get_row(given: Annotated[Any, as_depends(given)], __key__: Any) -> ModelT:
        rows: ReadService[ModelT] = service_class(given) if service is None else given
        if key is None or attribute is None:
            return await rows.get_one(__key__, options=options, lock=lock)
        found = await rows.list(key == __key__, limit=2, options=options, lock=lock)
        if len(found) > 1:
            raise MultipleMatchesError(model, (attribute,))
        if not found:
            raise NotFoundError(model, __key__)
        return found[0]

    return declare(get_row, __key__=segment_type(mapper, name, attribute))


def segment_type(mapper: Mapper[Any], name: str | None, attribute: str | None) -> Any:
    """Return the type of the path parameter *name* for *attribute*, or for the primary key."""
    identity = identity_of(mapper)
    names = identity.names if attribute is None else (attribute,)
    columns, of = attributes_of(mapper).columns, snake_case(mapper.class_).replace("_", " ")
    if len(names) == 1:
        return column_in_path(columns[names[0]], name or names[0], of=of)
    if name is not None:
        raise ConfigurationError(f"name= is for one parameter: the key of {mapper.class_.__name__} is {', '.join(names)}")
    return key_in_path({each: columns[each] for each in names}, of=of)
