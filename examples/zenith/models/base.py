"""What all tables share."""

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase

from fastapi_kit.db import NAMING_CONVENTION, TimestampMixin

__all__ = ["Base", "TimestampMixin"]


class Base(AsyncAttrs, DeclarativeBase):
    """The app's own; ``fastapi_kit.Base`` would do as well."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
