"""Types of fields, and the error of a field that only a service can judge."""

from typing import Annotated, TypeAlias

from pydantic import Field

from fastapi_kit import UserInputError
from fastapi_kit.errors import FieldError
from fastapi_kit.schemas import NonBlank

Name: TypeAlias = Annotated[NonBlank, Field(max_length=255)]


def refused(field: str, code: str, message: str) -> UserInputError:
    return UserInputError(f"{field} {message}", errors=[FieldError(("body", field), code, message)])
