"""The application. Run ``python -m uvicorn examples.existing_app.before.main:app``."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .database import init_db
from .routers import router


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    await init_db()
    yield


app = FastAPI(title="Users", lifespan=lifespan)
app.include_router(router)
