"""Routes for a service, as you would write them by hand."""

from fastapi_kit.routing.links import set_link_header
from fastapi_kit.routing.operations import check_operation_ids, operation_id
from fastapi_kit.routing.router import Endpoint, RouterOptions, crud_router
from fastapi_kit.routing.rows import get_row_factory

__all__ = ["Endpoint", "RouterOptions", "check_operation_ids", "crud_router", "get_row_factory", "operation_id", "set_link_header"]
