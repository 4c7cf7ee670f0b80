"""WebSockets: frames over raw sockets, ASGI messages, the `websockets` client."""
