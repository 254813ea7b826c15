"""Text and nested values that encodings, databases or parsers do not accept."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from fastapi_kit._text import MAX_DEPTH, is_deeper, is_encodable, is_storable, safe_json, safe_text, text_of


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


class Note(BaseModel):
    title: str


def nested(levels: int, *, key: str | None = None) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if key is None else {key: value}
    return value


@pytest.mark.parametrize(
    ("text", "encodable", "storable"),
    [
        ("", True, True),
        ("abc", True, True),
        ("é😀", True, True),
        ("a\0", True, False),
        ("\ud800", False, False),
        ("😀\udfff", False, False),
    ],
)
def test_text_that_can_be_encoded_and_stored(text: str, encodable: bool, storable: bool) -> None:
    """A lone surrogate cannot be encoded; it and a NUL cannot be stored."""
    assert (is_encodable(text), is_storable(text)) == (encodable, storable)
    assert is_storable(safe_text(text).replace("\0", ""))


@pytest.mark.parametrize("key", [None, "a"])
@pytest.mark.parametrize("levels", [0, 1, 5])
def test_depth_is_counted_in_collections(levels: int, key: str | None) -> None:
    """A value of n levels is deeper than n - 1 levels, and not deeper than n."""
    value = nested(levels, key=key)

    assert not is_deeper(value, levels)
    assert levels == 0 or is_deeper(value, levels - 1)


def test_depth_beyond_the_stack_of_python() -> None:
    """The depth is found without recursion."""
    assert is_deeper(nested(100_000))


def test_any_value_becomes_json() -> None:
    """Objects that JSON does not know become text or the name of their type. Values nested too deeply become null."""
    value = {1: Unprintable(), "a": Note(title="\ud800"), "b": ValueError("secret"), "c": (1.5, {None}), "d": nested(MAX_DEPTH + 1)}

    answer = safe_json(value)

    assert isinstance(answer, dict)
    assert list(answer) == ["1", "a", "b", "c", "d"]
    assert answer["1"] == "<Unprintable whose text is a RuntimeError>"
    assert (answer["a"], answer["b"], answer["c"]) == ({"title": "\\ud800"}, "ValueError", [1.5, [None]])
    assert not is_deeper(answer)
    assert json.dumps(answer)


def test_text_of_a_surrogate_is_an_escape() -> None:
    """The escape shows which surrogate it was."""
    assert text_of("a\udc80") == "a\\udc80"
