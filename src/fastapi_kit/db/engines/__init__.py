"""Creating and adopting engines: URLs, pools, time limits, transactions on SQLite."""

__all__: list[str] = []
