"""Constraints of a table by the name or the columns that a database reports."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, TypeAlias, cast

from sqlalchemy import (
    CheckConstraint,
    Column,
    Constraint,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import IdentifierError, NoReferenceError
from sqlalchemy.schema import ColumnCollectionConstraint

__all__ = ["Rule", "columns_named_in", "columns_of", "find_rule", "find_unique", "indexed_columns", "name_of", "target_of"]

Rule: TypeAlias = Constraint | Index


def find_rule(tables: Iterable[Table], name: str) -> Rule | None:
    """Return the constraint or index *name* of *tables*, be the name given, shortened, or the database's own for an unnamed one."""
    rules = [rule for table in tables for rule in _rules(table)]
    given = next((rule for rule in rules if name in _given_names(rule)), None)
    return given if given is not None else dict(_default_names(rules)).get(name)


def find_unique(table: Table, columns: Iterable[Column[Any] | str]) -> Rule | None:
    """Return the one primary key, unique constraint or unique index over exactly *columns*; None if there are several."""
    wanted = set(columns)
    rules = [rule for rule in _rules(table) if _is_unique(rule) and set(columns_of(rule)) == wanted]
    return rules[0] if len(rules) == 1 else None


def indexed_columns(table: Table) -> Collection[Column[Any]]:
    """Return the columns that stand in a key, a unique constraint or an index."""
    rules = [rule for rule in _rules(table) if _is_unique(rule) or isinstance(rule, Index)]
    return {column for rule in rules for column in columns_of(rule)}


def name_of(rule: Rule | None) -> str | None:
    """Return the name that the metadata gives *rule*, in full."""
    return next(filter(None, _given_names(rule)), None) if rule is not None else None


def columns_of(rule: Rule) -> Sequence[Column[Any]]:
    """Return the columns that *rule* is about: those of its key, or those that its expressions name."""
    table = _table_of(rule)
    match rule:
        case CheckConstraint():
            return columns_named_in(str(rule.sqltext), table)
        case Index():
            parts = [[part] if getattr(part, "table", None) is table else columns_named_in(str(part), table) for part in rule.expressions]
            return list(dict.fromkeys(cast("Iterable[Column[Any]]", chain.from_iterable(parts))))
        case ColumnCollectionConstraint():
            return list(rule.columns)
        case _:
            return []


def columns_named_in(text: str, table: Table) -> Sequence[Column[Any]]:
    """Return the columns of *table* whose names stand as words in the SQL *text*, outside its strings."""
    quoted, plain = set[str](), set[str]()
    for string, name, word, qualifies in _WORD.findall(text):
        if not string and not qualifies:
            quoted.add(name)
            plain.add(word.casefold())
    return [column for column in table.columns if column.name in quoted or column.name.casefold() in plain]


def target_of(rule: ForeignKeyConstraint) -> Sequence[Column[Any]]:
    """Return the columns that the foreign key *rule* points at; none if the metadata lacks their table."""
    try:
        return [element.column for element in rule.elements]
    except NoReferenceError:
        return []


def _table_of(rule: Rule) -> Table:
    # A CHECK that stands at a column has the column for its parent.
    parent = getattr(rule, "table" if isinstance(rule, Index) else "parent")
    return cast("Table", getattr(parent, "table", parent))


_WORD = re.compile(r"""('(?:[^']|'')*')|(?:"((?:[^"]|"")+)"|(?<![\w:])(\w+))(\s*[.(])?""")
"""A string, or a quoted name, or a word that is no cast or parameter; and whether it qualifies or calls what follows."""


def _rules(table: Table) -> Sequence[Rule]:
    return [*table.constraints, *table.indexes, *(rule for column in table.columns for rule in column.constraints)]


def _is_unique(rule: Rule) -> bool:
    return rule.unique if isinstance(rule, Index) else isinstance(rule, UniqueConstraint | PrimaryKeyConstraint)


# --- Names. ---

_LONGEST = 63
"""Bytes of a name on PostgreSQL."""
_quote = DefaultDialect(max_identifier_length=_LONGEST).identifier_preparer


def _given_names(rule: Rule) -> Iterator[str]:
    # The long names of a naming convention are shortened and end with a hash; those of Enum and Boolean types are made on demand.
    if rule.name is None:
        return
    if isinstance(rule.name, str):
        yield str(rule.name)
    with suppress(IdentifierError):
        yield (_quote.format_constraint(rule) or "").strip('"')


def _default_names(rules: Iterable[Rule]) -> Iterator[tuple[str, Rule]]:
    # Of several that would get the same name PostgreSQL numbers the later ones.
    taken = Counter[tuple[str, str, str]]()
    for rule in sorted(rules, key=lambda rule: getattr(rule, "_creation_order", 0)):
        parts = None if isinstance(rule, Index) or name_of(rule) else _name_parts(rule)
        if parts is not None:
            table, columns, label = parts
            yield _made_name(table, columns, f"{label}{taken[parts] or ''}"), rule
            taken[parts] += 1


def _name_parts(rule: Constraint) -> tuple[str, str, str] | None:
    table, names = _table_of(rule).name, [column.name for column in columns_of(rule)]
    match rule:
        case PrimaryKeyConstraint():
            return table, "", "pkey"
        case UniqueConstraint():
            return table, "_".join(names), "key"
        case ForeignKeyConstraint():
            return table, "_".join(names), "fkey"
        case CheckConstraint():
            return table, names[0] if len(names) == 1 else "", "check"
        case _:
            return None


def _made_name(table: str, columns: str, label: str) -> str:
    # PostgreSQL shortens the longer part until the whole fits.
    while len("_".join(filter(None, (table, columns, label))).encode()) > _LONGEST:
        table, columns = (table[:-1], columns) if len(table) > len(columns) else (table, columns[:-1])
    return "_".join(filter(None, (table, columns, label)))
