"""Field types."""

from typing import Annotated, TypeAlias

from pydantic import Field

from fastapi_kit.schemas import NonBlank

Name: TypeAlias = Annotated[NonBlank, Field(max_length=255)]
