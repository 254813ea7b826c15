"""Errors of WebSocket routes: an HTTP answer to the handshake, a close code afterwards."""

from contextlib import suppress

from starlette.responses import Response
from starlette.status import WS_1008_POLICY_VIOLATION, WS_1011_INTERNAL_ERROR, WS_1013_TRY_AGAIN_LATER
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

__all__ = ["end_socket"]


async def end_socket(socket: WebSocket, response: Response, *, code: str) -> None:
    """Refuse the handshake of *socket* with *response*, or close the socket if it was accepted, with *code* as the reason.

    A server without the extension for denial responses refuses with its own 403. Nothing is sent once either side has closed.
    """
    if socket.client_state is WebSocketState.DISCONNECTED:
        return
    # The client may have gone without a word that the route has read.
    with suppress(WebSocketDisconnect, OSError):
        if socket.application_state is WebSocketState.CONNECTED:
            await socket.close(_close_code(response.status_code), code)
        elif socket.application_state is WebSocketState.CONNECTING:
            if "websocket.http.response" in (socket.scope.get("extensions") or {}):
                await socket.send_denial_response(response)
            else:
                await socket.close(_close_code(response.status_code), code)


def _close_code(status: int) -> int:
    if status in {429, 503}:
        return WS_1013_TRY_AGAIN_LATER
    return WS_1011_INTERNAL_ERROR if status >= 500 else WS_1008_POLICY_VIOLATION
