"""A Starlette application whose endpoints run in child tasks, as two middlewares derive from BaseHTTPMiddleware."""

from __future__ import annotations

import time

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


async def block(request: Request) -> Response:
    time.sleep(0.5)
    return PlainTextResponse("ok")


class Through(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


app = Starlette(routes=[Route("/block/me", block)], middleware=[Middleware(Through), Middleware(Through)])
