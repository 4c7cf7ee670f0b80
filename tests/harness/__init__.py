"""What the tests stand on: servers in child processes and threads, a strict raw-socket client, leak checks."""
