"""The ASGI side: scopes, messages, errors, life cycle."""
