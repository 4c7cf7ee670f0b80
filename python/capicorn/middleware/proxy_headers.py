"""X-Forwarded-For and X-Forwarded-Proto, or Forwarded (RFC 7239), from proxies that are trusted.

One kind counts, never a mixture: a proxy manages one and may pass the other on as the client made it up. `auto` takes
the X-Forwarded fields when there is one of them, and Forwarded when there is none; proxies that set Forwarded and do
not remove X-Forwarded-* need the setting `forwarded`.

The server itself calls `ProxyHeaders.resolve` for requests that carry such a field; the middleware is for
applications that are served by something else, or that trust other proxies in one part of them.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from capicorn.middleware.asgi2 import Receive, Scope, Send

_SCHEMES = {b"http": "http", b"https": "https", b"ws": "ws", b"wss": "wss"}
_TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = rf'(?:({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*"))?'
_FIRST_PAIR = re.compile(rf"[ \t]*{_PAIR}[ \t]*(?:;|\Z)", re.S)
UNIX = "unix"  # how a peer without an address is called, which that of a Unix socket is
_MOST_HOPS = 64  # of a Forwarded field, and so often is looked for where one begins
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


def forwarded_hops(field: str) -> Iterator[dict[str, str]]:
    """The elements of a Forwarded field from the right, names in lower case, values without quotes. It is read from
    there because the right-most is our proxy's: whatever the client wrote in front of it, open quotes for one, cannot
    change its meaning. Ends at what is no element (RFC 7239 4)."""
    end = len(field)
    tries = _MOST_HOPS
    while end >= 0 and tries > 0:
        comma = end
        while tries > 0:
            tries -= 1
            comma = field.rfind(",", 0, comma)
            hop = _element(field[comma + 1 : end])
            if hop is not None or comma < 0:
                break
        else:
            return
        if hop is None:
            return
        if hop:  # RFC 9110 5.6.1: a list may have empty elements
            yield hop
        end = comma


def _element(text: str) -> dict[str, str] | None:
    """The pairs of one element; None when it is none."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        m = _FIRST_PAIR.match(text, at)
        if m is None:
            return None
        if m[1] is not None:
            value = re.sub(r"\\(.)", r"\1", m[2][1:-1], flags=re.S) if m[2].startswith('"') else m[2]
            if found.setdefault(m[1].lower(), value) is not value:
                return None  # each parameter once
        at = m.end()
    return found


def _node(text: str) -> tuple[str, int]:
    """RFC 7239 6: as above, but what stands for the port may be a name that begins with _."""
    host, colon, port = text.rpartition(":")
    if colon and port.startswith("_") and (host.endswith("]") or ":" not in host):
        text = host
    return _host_and_port(text)


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

    def __init__(self, trusted_hosts: list[str] | str = "127.0.0.1", kind: str = "auto") -> None:
        """`kind`: auto, x-forwarded or forwarded, as the proxies set them."""
        self.trusted_hosts = TrustedHosts(trusted_hosts)
        self.kind = kind

    def resolve(self, scope: MutableMapping[str, Any]) -> None:
        """Set `client` and `scheme` of an http or websocket scope in place."""
        client = scope.get("client")
        if (client[0] if client else UNIX) not in self.trusted_hosts:
            return
        headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
        proto: bytes | None = None
        chain: list[bytes] = []
        forwarded: list[bytes] = []
        for name, value in headers:
            if name == b"x-forwarded-proto":
                proto = value
            elif name == b"x-forwarded-for":
                chain.append(value)
            elif name == b"forwarded":
                forwarded.append(value)
        if self.kind == "forwarded" or (self.kind == "auto" and not chain and proto is None):
            if forwarded:
                self._resolve_forwarded(scope, b",".join(forwarded).decode("latin-1"))
            return
        _set_scheme(scope, proto)
        if chain:
            host, port = self.trusted_hosts.get_trusted_client_address(b",".join(chain).decode("latin-1"))
            if host:  # an empty field tells nothing
                scope["client"] = (host, port)

    def _resolve_forwarded(self, scope: MutableMapping[str, Any], field: str) -> None:
        """The client is the right-most that is no trusted proxy, the scheme that with which it came to the first."""
        trusted = self.trusted_hosts
        for hop in forwarded_hops(field):
            _set_scheme(scope, hop.get("proto", "").lower().encode("latin-1"))
            if "for" not in hop:  # a proxy that does not tell: further left is hearsay
                return
            scope["client"] = client = _node(hop["for"])
            if not trusted.always_trust and client[0] not in trusted:
                return


def _set_scheme(scope: MutableMapping[str, Any], proto: bytes | None) -> None:
    scheme = _SCHEMES.get(proto.strip()) if proto is not None else None
    if scheme is not None:
        scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme


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
