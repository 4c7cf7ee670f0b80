"""HTTP/1 over raw sockets: what RFC 9110 and 9112 say, and what we chose where they leave a choice."""
