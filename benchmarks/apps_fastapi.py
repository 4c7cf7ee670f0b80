"""The FastAPI application: JSON, a body that pydantic checks, a `def` endpoint, parameters from cookies and headers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Cookie, FastAPI, Header
from pydantic import BaseModel

app = FastAPI()


class Item(BaseModel):
    name: str
    price: float
    tags: list[str] = []


@app.get("/")
async def hello() -> Any:
    return {"hello": "world"}


@app.get("/def")
def hello_in_a_thread() -> Any:
    return {"hello": "world"}


@app.post("/item")
async def echo_item(item: Item) -> Item:
    return item


@app.get("/user")
async def user(
    session: Annotated[str, Cookie()],
    user_agent: Annotated[str, Header()],
    accept_language: Annotated[str, Header()],
) -> Any:
    return {"session": session, "agent": user_agent, "language": accept_language}
