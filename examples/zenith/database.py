"""The database, its sessions and its tables."""

from fastapi_kit import Database

from .config import settings
from .models import Base

db = Database.from_settings(settings)
get_db = db.get_session


async def init_db() -> None:
    """Create missing tables. For development; use migrations in production."""
    await db.create_tables(Base.metadata)
