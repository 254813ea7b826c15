"""Settings, read from the environment and from ``.env``."""

from fastapi_kit import KitSettings


class Settings(KitSettings):
    """The page's names are all there: what follows are defaults of this app."""

    PROJECT_NAME: str = "Zenith API"
    VERSION: str = "1.0.0"
    DATABASE_URL: str = "sqlite+aiosqlite:///./zenith.db"


settings = Settings()
