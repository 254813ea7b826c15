"""Create the first superuser: ``python -m examples.zenith.create_superuser ada@example.org --full-name Ada``."""

import sys

from fastapi_kit.auth.users import superuser_command

from .database import db, init_db
from .schemas import UserRegister
from .services import flow

if __name__ == "__main__":
    sys.exit(superuser_command(db, flow, UserRegister, prepare=init_db))
