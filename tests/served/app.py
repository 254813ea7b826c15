"""The app that the servers serve."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from fastapi_kit import Base, CRUDService, Database, KitSettings, TimestampMixin, create_app, crud_router


class Note(TimestampMixin, Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


class NoteCreate(BaseModel):
    title: str


class NoteUpdate(BaseModel):
    title: str | None = None


class NoteRead(NoteCreate):
    model_config = ConfigDict(from_attributes=True)
    id: int
    created_at: datetime


class NoteService(CRUDService[Note, NoteCreate, NoteUpdate]):
    """Notes."""


class Settings(KitSettings):
    CREATE_TABLES: bool = True


settings = Settings()
db = Database.from_settings(settings)
Session = Annotated[AsyncSession, db.session]


@asynccontextmanager
async def announced(app: FastAPI) -> AsyncGenerator[None]:
    """Leave a file of each process: its secret, as a hash."""
    digest = sha256(settings.SECRET_KEY.get_secret_value().encode()).hexdigest()
    Path(f"{os.getpid()}.worker").write_text(digest)
    yield


app = create_app(settings, database=db, create_tables=settings.CREATE_TABLES, lifespans=[announced])
app.include_router(crud_router(NoteService, read=NoteRead, session=db.session), prefix="/notes", tags=["notes"])


async def gate(name: str) -> None:
    """Say that *name* has come, and wait until it may go on."""
    Path(f"{name}.waits").touch()
    while not Path(f"{name}.may_go_on").exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0.01)


@app.post("/held", status_code=201)
async def create_when_released(note: NoteCreate, session: Session) -> NoteRead:
    await gate(note.title)
    return NoteRead.model_validate(await NoteService(session).create(note))


@app.post("/stream")
async def stream_when_released(note: NoteCreate) -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        yield "begin "
        await gate(note.title)
        async with db.begin() as session:
            await NoteService(session).create(note)
        yield "end"

    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/bug")
async def fail() -> None:
    raise RuntimeError("a bug")
