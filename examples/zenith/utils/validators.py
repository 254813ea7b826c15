"""Field types, and an error for one field of the body."""

from typing import Annotated, TypeAlias

from pydantic import Field

from fastapi_kit import UserInputError
from fastapi_kit.errors import FieldError
from fastapi_kit.schemas import NonBlank

Name: TypeAlias = Annotated[NonBlank, Field(max_length=255)]


def field_error(field: str, code: str, message: str) -> UserInputError:
    return UserInputError(f"{field} {message}", errors=[FieldError(("body", field), code, message)])
