"""Responses that take their time, and those that come from files."""
