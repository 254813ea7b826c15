"""Routes for a service, written as one would by hand."""

from fastapi_kit.routing.factory import Endpoint, RouterOptions, crud_router
from fastapi_kit.routing.operations import check_operation_ids, operation_id

__all__ = ["Endpoint", "RouterOptions", "check_operation_ids", "crud_router", "operation_id"]
