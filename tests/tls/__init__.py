"""TLS: handshakes, certificates, ends, large bodies, WebSockets, renewal."""
