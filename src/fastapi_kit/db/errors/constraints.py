"""Finding the constraint of a table by the name or the columns that the database reports."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

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
    """Return the constraint or index *name* of *tables*. The name may be shortened, or the database's own for an unnamed one."""
    for table in tables:
        for rule in rules_of(table):
            if name in given_names(rule):
                return rule
    return next((rule for table in tables for made, rule in default_names(table) if made == name), None)


def find_unique(table: Table, columns: Iterable[Column[Any] | str]) -> Rule | None:
    """Return the primary key, unique constraint or unique index over exactly *columns*, or None if there is not exactly one."""
    wanted = set(columns)
    rules = [rule for rule in rules_of(table) if is_unique(rule) and set(columns_of(rule)) == wanted]
    return rules[0] if len(rules) == 1 else None


def indexed_columns(table: Table) -> Collection[Column[Any]]:
    """Return the columns in a key, a unique constraint or an index of *table*."""
    rules = [rule for rule in rules_of(table) if is_unique(rule) or isinstance(rule, Index)]
    return {column for rule in rules for column in columns_of(rule)}


def name_of(rule: Rule | None) -> str | None:
    """Return the full name of *rule* in the metadata."""
    return next(iter(given_names(rule)), None) if rule is not None else None


def columns_of(rule: Rule) -> Sequence[Column[Any]]:
    """Return the columns of *rule*: those of its key, or those that its expressions name."""
    if isinstance(rule, CheckConstraint):
        # The parent of a CHECK of one column is the column.
        parent: Any = getattr(rule, "parent", None)
        return columns_named_in(str(rule.sqltext), getattr(parent, "table", parent))
    if not isinstance(rule, Index):
        return list(rule.columns) if isinstance(rule, ColumnCollectionConstraint) else []
    found: list[Column[Any]] = []
    for part in rule.expressions:
        if isinstance(part, Column):
            found.append(part)
        elif rule.table is not None:
            found.extend(columns_named_in(str(part), rule.table))
    return list(dict.fromkeys(found))


def columns_named_in(text: str, table: Table) -> Sequence[Column[Any]]:
    """Return the columns of *table* whose names are words of the SQL *text*, outside its string literals."""
    quoted, plain = set[str](), set[str]()
    for string, name, word, qualifies in _WORD.findall(text):
        if not string and not qualifies:
            quoted.add(name)
            plain.add(word.casefold())
    return [column for column in table.columns if column.name in quoted or column.name.casefold() in plain]


def target_of(rule: ForeignKeyConstraint) -> Sequence[Column[Any]]:
    """Return the columns that the foreign key *rule* refers to. Empty if their table is missing in the metadata."""
    try:
        return [element.column for element in rule.elements]
    except NoReferenceError:
        return []


_WORD = re.compile(r"""('(?:[^']|'')*')|(?:"((?:[^"]|"")+)"|(?<![\w:])(\w+))(\s*[.(])?""")
"""A string literal, a quoted name, or a word that is neither a cast nor a parameter; and whether a dot or a parenthesis follows."""


def rules_of(table: Table) -> Sequence[Rule]:
    return [*table.constraints, *table.indexes, *(rule for column in table.columns for rule in column.constraints)]


def is_unique(rule: Rule) -> bool:
    return rule.unique if isinstance(rule, Index) else isinstance(rule, UniqueConstraint | PrimaryKeyConstraint)


# --- Names ---

_LONGEST = 63
"""Longest name on PostgreSQL, in bytes."""
_LABELS = {PrimaryKeyConstraint: "pkey", UniqueConstraint: "key", ForeignKeyConstraint: "fkey", CheckConstraint: "check"}
_quote = DefaultDialect(max_identifier_length=_LONGEST).identifier_preparer


def given_names(rule: Rule) -> Sequence[str]:
    # SQLAlchemy shortens long names of a naming convention, and makes the names of Enum and Boolean types when they are formatted.
    names: list[str] = []
    if isinstance(rule.name, str):
        names.append(str(rule.name))
    if rule.name is not None:
        with suppress(IdentifierError):
            names.append((_quote.format_constraint(rule) or "").strip('"'))
    return [name for name in names if name]


def default_names(table: Table) -> Iterator[tuple[str, Rule]]:
    """Yield the unnamed constraints of *table* with the names that PostgreSQL makes for them."""
    taken = Counter[tuple[str, str]]()
    for rule in sorted(rules_of(table), key=lambda rule: getattr(rule, "_creation_order", 0)):
        label = next((label for kind, label in _LABELS.items() if isinstance(rule, kind)), None)
        if label is None or name_of(rule) is not None:
            continue
        names = [column.name for column in columns_of(rule)]
        named_after = "" if label == "pkey" or (label == "check" and len(names) != 1) else "_".join(names)
        # PostgreSQL numbers the later ones of several constraints with the same name.
        ending, owner, columns = f"{label}{taken[label, named_after] or ''}", table.name, named_after
        taken[label, named_after] += 1
        # It shortens the longer part until the name fits.
        while len((made := "_".join(filter(None, (owner, columns, ending)))).encode()) > _LONGEST:
            owner, columns = (owner[:-1], columns) if len(owner) > len(columns) else (owner, columns[:-1])
        yield made, rule
