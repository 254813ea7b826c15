"""Another import path for the names of ``fastapi_kit.auth.requests.websocket``."""

from fastapi_kit.auth.requests.websocket import FirstMessageTransport, SubprotocolTransport, accept_websocket, while_logged_in

__all__ = ["FirstMessageTransport", "SubprotocolTransport", "accept_websocket", "while_logged_in"]
