"""Types of the extension by themselves, driven without a server."""
