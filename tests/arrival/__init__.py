"""How a connection comes: unix sockets, several addresses, systemd, the PROXY protocol, a proxy in front."""
