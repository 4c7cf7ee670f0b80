"""X-Forwarded-For and X-Forwarded-Proto, from proxies that are trusted.

The server itself calls `ProxyHeaders.resolve` for requests that carry such a field; the middleware is for
applications that are served by something else, or that trust other proxies in one part of them.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, MutableMapping
from typing import Any

from capicorn.middleware.asgi2 import Receive, Scope, Send

_SCHEMES = {b"http": "http", b"https": "https", b"ws": "ws", b"wss": "wss"}
_LONGEST_NAME = 253  # of DNS; what is longer is nobody's address and not worth remembering


class TrustedHosts:
    """Addresses, networks and other names (what a Unix socket's peer is called, for one). "*" trusts everybody, also
    peers without an address."""

    def __init__(self, trusted_hosts: list[str] | str) -> None:
        names = trusted_hosts.split(",") if isinstance(trusted_hosts, str) else trusted_hosts
        names = [name.strip() for name in names]
        self.always_trust = names == ["*"]
        self.trusted_literals: set[str] = set()
        self.trusted_hosts: set[ipaddress.IPv4Address | ipaddress.IPv6Address] = set()
        self.trusted_networks: set[ipaddress.IPv4Network | ipaddress.IPv6Network] = set()
        for name in () if self.always_trust else names:
            try:
                if "/" in name:
                    self.trusted_networks.add(ipaddress.ip_network(name))
                else:
                    self.trusted_hosts.add(ipaddress.ip_address(name))
            except ValueError:
                self.trusted_literals.add(name)
        self._remembered = functools.lru_cache(maxsize=4096)(self._trusts)

    def __contains__(self, host: str | None) -> bool:
        if self.always_trust:
            return True
        if not host:
            return False
        return self._remembered(host) if len(host) <= _LONGEST_NAME else self._trusts(host)

    def _trusts(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host in self.trusted_literals
        mapped = getattr(address, "ipv4_mapped", None)
        return any(
            one in self.trusted_hosts or any(one in network for network in self.trusted_networks)
            for one in ([address] if mapped is None else [address, mapped])
        )

    def get_trusted_client_address(self, x_forwarded_for: str) -> tuple[str, int]:
        """The client that the proxies forwarded for, and its port or 0: the right-most that is not a trusted proxy,
        the left-most when all are. Each proxy appends to the list, so what is further left is hearsay."""
        elements = [element.strip() for element in x_forwarded_for.split(",")]
        if not self.always_trust:
            for element in reversed(elements):
                host, port = _host_and_port(element)
                if host not in self:
                    return host, port
        return _host_and_port(elements[0])


def _host_and_port(text: str) -> tuple[str, int]:
    """`host`, `host:port`, `[v6]` or `[v6]:port`; anything else is a host by itself."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return text, 0
        return host, _port(rest[1:]) or 0
    if text.count(":") == 1:
        host, _, rest = text.partition(":")
        port = _port(rest)
        return (text, 0) if port is None else (host, port)
    return text, 0


def _port(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535 else None


class ProxyHeaders:
    """What the fields say is put into a scope, when the peer is trusted."""

    def __init__(self, trusted_hosts: list[str] | str = "127.0.0.1") -> None:
        self.trusted_hosts = TrustedHosts(trusted_hosts)

    def resolve(self, scope: MutableMapping[str, Any]) -> None:
        """Set `client` and `scheme` of an http or websocket scope in place."""
        client = scope.get("client")
        if (client[0] if client else None) not in self.trusted_hosts:
            return
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        proto: bytes | None = None
        chain: list[bytes] = []
        for name, value in headers:
            if name == b"x-forwarded-proto":
                proto = value
            elif name == b"x-forwarded-for":
                chain.append(value)
        scheme = _SCHEMES.get(proto.strip()) if proto is not None else None
        if scheme is not None:
            scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme
        if chain:
            host, port = self.trusted_hosts.get_trusted_client_address(b",".join(chain).decode("latin-1"))
            if host:  # an empty field tells nothing
                scope["client"] = (host, port)


class ProxyHeadersMiddleware:
    """The same as middleware, by uvicorn's name."""

    def __init__(self, app: Any, trusted_hosts: list[str] | str = "127.0.0.1") -> None:
        self.app = app
        self._fields = ProxyHeaders(trusted_hosts)

    @property
    def trusted_hosts(self) -> TrustedHosts:
        return self._fields.trusted_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self._fields.resolve(scope)
        await self.app(scope, receive, send)
