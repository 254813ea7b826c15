"""Read plans: what to select and load for a read schema, and how to fill it."""

__all__: list[str] = []
