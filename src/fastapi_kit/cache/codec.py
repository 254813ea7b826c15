"""Values as bytes: JSON by the type that the code declares."""

import logging
from typing import Any, Generic, TypeVar

from pydantic import PydanticUserError, TypeAdapter

from fastapi_kit.errors import ConfigurationError

__all__ = ["Codec"]

ValueT = TypeVar("ValueT")

_log = logging.getLogger("fastapi_kit.cache")


class Codec(Generic[ValueT]):
    """Writes values of the type *kind* as JSON and reads them back. *name* is what the log calls them.

    Raises:
        ConfigurationError: Pydantic does not know the type.
    """

    def __init__(self, kind: Any, *, name: str) -> None:
        try:
            self._adapter: TypeAdapter[ValueT] = TypeAdapter(kind)
        except PydanticUserError as error:
            raise ConfigurationError(f"{name} cannot be cached, because Pydantic does not know its type: return a schema") from error
        self._name = name
        self._is_reported = False

    def encode(self, value: ValueT) -> bytes | None:
        """Return *value* as bytes, or None if reading them back would give something else. That is logged once."""
        try:
            raw = self._adapter.dump_json(value, by_alias=False, round_trip=True, warnings=False)
            if self.decode(raw) == value:
                return raw
        except Exception as error:
            # Serializers and validators of the application may raise anything.
            _log.debug("%s: %s", self._name, type(error).__name__)
        if not self._is_reported:
            self._is_reported = True
            _log.warning("%s is not cached: its value does not survive JSON", self._name)
        return None

    def decode(self, raw: bytes) -> ValueT:
        """Return the value of *raw*."""
        return self._adapter.validate_json(raw, by_alias=False, by_name=True)
