"""Bytes between processes: how they are framed, pickled, and carried. Knows nothing of pools."""
