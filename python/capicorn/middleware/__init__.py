"""Applications around applications."""
