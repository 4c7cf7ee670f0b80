"""The Starlette application: JSON and files."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route


async def hello(request: Request) -> Response:
    return JSONResponse({"hello": "world"})


async def file(request: Request) -> Response:
    return FileResponse(os.environ["BENCHMARK_FILE"])


async def large(request: Request) -> Response:
    return FileResponse(os.environ["BENCHMARK_LARGE_FILE"])


app = Starlette(routes=[Route("/", hello), Route("/file", file), Route("/large", large)])
