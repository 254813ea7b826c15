"""Names that a package shows and imports on first use (PEP 562)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

__all__ = ["names_of"]


def names_of(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of *package*, whose names are in the modules of their key in *homes*."""

    def find(name: str) -> object:
        for home, names in homes.items():
            if name in names:
                value: object = getattr(import_module(f"{package}.{home}"), name)
                setattr(sys.modules[package], name, value)
                return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
