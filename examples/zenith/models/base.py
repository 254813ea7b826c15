"""The base of all tables."""

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase

from fastapi_kit.db import NAMING_CONVENTION, TimestampMixin

__all__ = ["Base", "TimestampMixin"]


class Base(AsyncAttrs, DeclarativeBase):
    """The application's own base. ``fastapi_kit.Base`` would work too."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
