"""Header fields that say how much a client may still ask for."""

import math

__all__ = ["rate_limit_headers", "whole_seconds"]


def whole_seconds(seconds: float) -> str:
    """Return *seconds* rounded up, at least 1, as ``Retry-After`` has them (RFC 9110, 10.2.3)."""
    return str(math.ceil(seconds) if math.isfinite(seconds) and seconds > 0 else 1)


def rate_limit_headers(limit: int, window: float, left: int, resets_in: float) -> dict[str, str]:
    """Return the fields of draft-ietf-httpapi-ratelimit-headers-10.

    Args:
        limit: How many attempts are allowed in *window*.
        window: In seconds.
        left: How many of them are left.
        resets_in: After how many seconds there is one more.
    """
    seconds = whole_seconds(window)
    policy = f'"{limit}-in-{seconds}"'
    return {"RateLimit-Policy": f"{policy};q={limit};w={seconds}", "RateLimit": f"{policy};r={left};t={whole_seconds(resets_in)}"}
