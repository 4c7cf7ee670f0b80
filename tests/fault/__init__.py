"""Failing allocations."""
