"""Which columns a refused INSERT or UPDATE wrote, and with what values: read from SQLAlchemy's own text and parameters."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from sqlalchemy.exc import StatementError

__all__ = ["Written", "read_statement"]


@dataclass(frozen=True, kw_only=True)
class Written:
    """An INSERT, UPDATE or DELETE: its table, and for each column that it sets the values of every row."""

    verb: str
    schema: str | None
    table: str
    values: Mapping[str, Sequence[object]] = field(default_factory=dict[str, Sequence[object]])
    columns: Mapping[int, str] = field(default_factory=dict[int, str])
    """The column that the bind parameter of a number, from 1, is stored in."""


def read_statement(error: BaseException) -> Written | None:
    """Return what the statement of *error* wrote, or None for another kind of statement and at COMMIT."""
    if not isinstance(error, StatementError) or error.statement is None:
        return None
    text = error.statement
    head = _HEAD.match(text)
    if head is None:
        return None
    verb = head[1].split()[0].upper()
    schema, _, table = ".".join(_plain(part) for part in re.findall(_NAME, head[2])).rpartition(".")
    cells = list(_READERS[verb](text, head.end())) if verb in _READERS else []
    values: dict[str, list[object]] = {cell.column: [] for cell in cells}
    for row in _rows(error.params):
        for cell in cells:
            values[cell.column].append(cell.value(row))
    return Written(
        verb=verb,
        schema=schema or None,
        table=table,
        values=values,
        columns={cell.position: cell.column for cell in cells if cell.position is not None},
    )


_EXPRESSION = object()
"""Stands for a value that an SQL expression makes."""
_Row: TypeAlias = Mapping[str, object] | Sequence[object]


@dataclass(frozen=True)
class _Cell:
    column: str
    position: int | None = None
    name: str | None = None

    def value(self, row: _Row) -> object:
        if isinstance(row, Mapping):
            return row.get(self.name or "", _EXPRESSION)
        if self.position is None or self.position > len(row):
            return _EXPRESSION
        return row[self.position - 1]


def _rows(parameters: object) -> list[_Row]:
    if isinstance(parameters, list) and any(isinstance(row, Mapping | tuple | list) for row in cast("list[object]", parameters)):
        return cast("list[_Row]", parameters)
    return [cast("_Row", parameters or ())]


_NAME = r'"(?:[^"]|"")+"|`[^`]+`|\w+'
_HEAD = re.compile(rf"\s*(INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM)\s+((?:{_NAME})(?:\.(?:{_NAME}))*)", re.IGNORECASE)
_BIND = re.compile(r"\?|%s|\$(\d+)|%\((\w+)\)s")
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|[(),]|[^'"`(),\s]+|\s+|.""", re.DOTALL)
_NEXT_ROW = re.compile(r"\)\s*,\s*\(")
_SET = re.compile(r".*?\sSET\s", re.DOTALL)
_ENDS = {"FROM", "WHERE", "RETURNING"}


def _insert_cells(text: str, start: int) -> Iterator[_Cell]:
    opening = text.find("(", start)
    start = text.find("VALUES (", start)
    if opening < 0 or not opening < start:
        return
    # An INSERT that returns its rows in order selects them from a list of values; the columns' order is the same.
    names = [_plain(name) for name in _items(text, opening + 1)[0]]
    binds = _Binds()
    while start >= 0:
        row, end = _items(text, text.index("(", start) + 1)
        for name, item in zip(names, row, strict=False):
            yield binds.cell(name, item)
        following = _NEXT_ROW.match(text, end)
        start = following.end() - 1 if following else -1


def _update_cells(text: str, start: int) -> Iterator[_Cell]:
    begin = _SET.match(text, start)
    if begin is None:
        return
    binds = _Binds()
    for item in _items(text, begin.end())[0]:
        name, _, value = item.partition("=")
        yield binds.cell(_plain(name.rpartition(".")[2]), value)


_READERS = {"INSERT": _insert_cells, "UPDATE": _update_cells}


class _Binds:
    """Counts the bind parameters of a statement, because ``?`` does not say its number."""

    def __init__(self) -> None:
        self.seen = 0

    def cell(self, column: str, item: str) -> _Cell:
        """Return the bind parameter that *item* is, a cast aside, or a cell without one for an SQL expression."""
        first = self.seen + 1
        self.seen += len(_BIND.findall(item))
        bind = re.fullmatch(rf"(?:{_BIND.pattern})(?:::.+)?", item.strip(), re.DOTALL)
        if bind is None:
            return _Cell(column)
        return _Cell(column, position=int(bind[1]) if bind[1] else first, name=bind[2])


def _plain(name: str) -> str:
    name = name.strip()
    return name[1:-1].replace('""', '"') if name[:1] in {'"', "`"} else name


def _items(text: str, start: int) -> tuple[list[str], int]:
    """Return the comma-separated items from *start* to the end of their list, and where it ends."""
    items, depth, begin = list[str](), 0, start
    for token in _TOKEN.finditer(text, start):
        word = token.group()
        if depth == 0 and (word == ")" or word in _ENDS):
            return [*items, text[begin : token.start()].strip()], token.start()
        if depth == 0 and word == ",":
            items.append(text[begin : token.start()].strip())
            begin = token.end()
        depth += (word == "(") - (word == ")")
    return [*items, text[begin:].strip()], len(text)
