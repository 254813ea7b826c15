"""How a result is written: ratios only, and a difference that two shared cores cannot show is none."""

from collections.abc import Sequence

from benchmarks.rows import Row, Target
from benchmarks.stage import Place

__all__ = ["NOISE", "heading", "line", "line_of", "verdict"]

NOISE = 0.10
_WIDTHS = (34, 7, 6, 6, 6, 8)


def heading() -> str:
    """Return the first two lines of a table, which is one in Markdown as well."""
    return _cells(["work", "measure", "result", "must", "aim", "target"]) + "\n" + _cells(["-" * width for width in _WIDTHS])


def line(row: Row, place: Place, speed: float) -> str:
    """Return the line of *row*, the library having *speed* times the speed of the hand-written code."""
    target = row.target_on(place)
    if target is None:
        return _cells([row.title, "speed", _written(speed), "", "", ""])
    return line_of(row.title, speed if target.measure == "speed" else 1 / speed, target)


def line_of(title: str, reached: float, target: Target) -> str:
    """Return the line of what is measured against *target*."""
    sign = "≥" if target.measure == "speed" else "≤"
    aim = "" if target.aim is None else f"{sign} {target.aim}"
    return _cells([title, target.measure, _written(reached), f"{sign} {target.must}", aim, verdict(target, reached)])


def verdict(target: Target, reached: float) -> str:
    """Return which part of *target* is reached; "unclear" where it is missed by less than can be shown."""
    if target.aim is not None and _reaches(target, reached, target.aim):
        return "aim met"
    if _reaches(target, reached, target.must):
        return "must met"
    return "unclear" if _is_none(reached) and _is_none(target.must) else "missed"


def _reaches(target: Target, reached: float, bound: float) -> bool:
    return reached >= bound if target.measure == "speed" else reached <= bound


def _is_none(ratio: float) -> bool:
    return abs(ratio - 1) < NOISE


def _written(ratio: float) -> str:
    return "=" if _is_none(ratio) else f"{ratio:.2f}"


def _cells(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.ljust(width) for text, width in zip(texts, _WIDTHS, strict=True)) + " |"
