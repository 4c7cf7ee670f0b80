"""The raw-socket client of the harness, over TLS."""

from __future__ import annotations

import socket
import ssl

from tests.harness.client import TIMEOUT, Address, Client


def context(ca: str, client: str | None = None, **more: object) -> ssl.SSLContext:
    """Verifies the server; `client`: a file with certificate and key. More are attributes of the context."""
    made = ssl.create_default_context(cafile=ca)
    if client is not None:
        made.load_cert_chain(client)
    for name, value in more.items():
        setattr(made, name, value)
    return made


class TLSClient(Client):
    """A Client whose socket is an ssl.SSLSocket. A connection that ends without close_notify is ssl.SSLEOFError."""

    def __init__(
        self, address: Address, made: ssl.SSLContext, timeout: float = TIMEOUT, receive_buffer: int | None = None
    ) -> None:
        super().__init__(address, timeout, receive_buffer)
        try:
            self.sock: socket.socket = made.wrap_socket(
                self.sock, server_hostname="localhost", suppress_ragged_eofs=False
            )
        except BaseException:
            self.sock.close()
            raise

    @property
    def tls(self) -> ssl.SSLSocket:
        assert isinstance(self.sock, ssl.SSLSocket)
        return self.sock
