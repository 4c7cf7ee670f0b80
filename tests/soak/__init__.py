"""Many requests, and memory that stays level."""
