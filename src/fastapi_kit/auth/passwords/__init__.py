"""Hashing of passwords, and rules for new ones. Loads neither FastAPI nor SQLAlchemy."""

from fastapi_kit.auth.passwords.hasher import HashContext, PasswordCheck, PasswordHasher
from fastapi_kit.auth.passwords.policy import PasswordPolicy

__all__ = ["HashContext", "PasswordCheck", "PasswordHasher", "PasswordPolicy"]
