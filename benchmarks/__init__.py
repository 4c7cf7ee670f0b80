"""Capicorn measured side by side with other servers and event loops: see README.md here."""
