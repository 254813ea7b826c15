"""The application. Run ``python -m uvicorn examples.existing_app.after.main:app``."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from fastapi_kit.handlers import register_exception_handlers

from .database import init_db
from .routers import router


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    await init_db()
    yield


app = FastAPI(title="Users", lifespan=lifespan)
register_exception_handlers(app)
app.include_router(router)
