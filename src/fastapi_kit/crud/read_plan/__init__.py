"""From a read schema to what is selected and loaded, and back to instances of it."""

__all__: list[str] = []
