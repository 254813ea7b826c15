"""Pure ASGI middleware, one class a file; options are fields, so ``app.add_middleware`` checks them."""

from fastapi_kit.middleware.errors import UnhandledErrorMiddleware

__all__ = ["UnhandledErrorMiddleware"]
