"""Several worker processes: the supervisor."""
