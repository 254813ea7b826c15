"""Whether plain statements do what SQLAlchemy's unit of work would do for a model, the host's own code included."""

from typing import Any

from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty, Session

from fastapi_kit.crud.facts import ModelFacts

__all__ = ["deletes_plainly", "inserts_plainly"]


def inserts_plainly(facts: ModelFacts, session: Session) -> bool:
    """Return whether INSERTs are enough: one table, all of it loaded with its rows; no constructor, validator or listener of the host's."""
    mapper, made = facts.mapper, session.dispatch
    listeners = (
        *(mapper.dispatch.before_insert, mapper.dispatch.after_insert),
        *tuple(mapper.class_manager.dispatch.init)[1:],  # the first is SQLAlchemy's own
        *(made.before_attach, made.after_attach, made.transient_to_pending, made.pending_to_persistent),
        *(attribute.class_attribute.dispatch.set for attribute in mapper.column_attrs),
        *_flush_listeners(session),
    )
    return (
        _is_one_table(mapper)
        and not facts.loaded_with_rows.symmetric_difference(facts.columns)
        and mapper.class_manager.original_init is mapper.registry.constructor
        and not mapper.validators
        and not any(listeners)
        and _hybrids_make_sql(mapper)
    )


def deletes_plainly(facts: ModelFacts, session: Session) -> bool:
    """Return whether one DELETE is enough: one table; no cascade, secondary, version or listener."""
    mapper, made = facts.mapper, session.dispatch
    listeners = (
        *(mapper.dispatch.before_delete, mapper.dispatch.after_delete),
        *(made.persistent_to_deleted, made.deleted_to_detached),
        *_flush_listeners(session),
    )
    return (
        _is_one_table(mapper)
        and mapper.version_id_col is None
        and not any(_needs_unit_of_work(relation) for relation in mapper.relationships)
        and not any(listeners)
    )


def _is_one_table(mapper: Mapper[Any]) -> bool:
    return len(mapper.tables) == 1 and mapper.polymorphic_on is None and not mapper.inherits


def _hybrids_make_sql(mapper: Mapper[Any]) -> bool:
    # An ORM insert asks each hybrid for its SQL, also those that are plain Python and have none.
    try:
        for name in list(mapper.all_orm_descriptors.keys()):
            getattr(mapper.class_, name)
    except Exception:
        return False
    return True


def _flush_listeners(session: Session) -> tuple[Any, ...]:
    return session.dispatch.before_flush, session.dispatch.after_flush, session.dispatch.after_flush_postexec


def _needs_unit_of_work(relation: RelationshipProperty[Any]) -> bool:
    if relation.viewonly:
        return False
    if relation.direction is RelationshipDirection.MANYTOONE:
        return relation.cascade.delete
    # Rows that point here are set to null or deleted one by one, unless the database was told to do it.
    return relation.direction is RelationshipDirection.MANYTOMANY or not relation.passive_deletes
