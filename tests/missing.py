"""pydantic's mark of a field that was not sent: public since 2.14, experimental before."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        from pydantic import MISSING
    except ImportError:
        from pydantic.experimental.missing_sentinel import MISSING

__all__ = ["MISSING"]
