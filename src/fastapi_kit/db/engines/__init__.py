"""Engines for URLs of every form, with what the library relies on: pings, limits, and transactions on SQLite."""

__all__: list[str] = []
