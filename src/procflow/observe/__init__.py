"""What happens in a pool, shown: progress."""
