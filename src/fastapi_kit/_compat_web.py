"""What differs between the versions of FastAPI that the library supports."""

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from fastapi import FastAPI

__all__ = ["new_app"]


def new_app(arguments: Mapping[str, Any], *, telemetry: Mapping[str, Any]) -> FastAPI:
    """Return ``FastAPI(**arguments)``, with the options of *telemetry* that *arguments* do not set.

    FastAPI before 0.142 has no telemetry. Raises TypeError for an unknown argument, which some versions of FastAPI ignore.
    """
    known = {name for name, each in signature(FastAPI).parameters.items() if each.kind is Parameter.KEYWORD_ONLY}
    if unknown := sorted(arguments.keys() - known):
        raise TypeError(f"FastAPI has no argument {', '.join(unknown)}")
    options = dict(arguments)
    if "telemetry" in known:
        options["telemetry"] = {**telemetry, **(arguments.get("telemetry") or {})}
    return FastAPI(**options)
