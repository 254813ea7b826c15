"""Settings, read from the environment and from ``.env``."""

from fastapi_kit import KitSettings


class Settings(KitSettings):
    """The library's settings, with three defaults of this application."""

    PROJECT_NAME: str = "Zenith API"
    VERSION: str = "1.0.0"
    DATABASE_URL: str = "sqlite+aiosqlite:///./zenith.db"


settings = Settings()
