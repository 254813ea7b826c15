"""Checks of values against the metadata of a table, before SQL is sent."""

from fastapi_kit.db.checks.column_types import Check, key_is_possible, value_check
from fastapi_kit.db.checks.values import check_offsets, check_values

__all__ = ["Check", "check_offsets", "check_values", "key_is_possible", "value_check"]
