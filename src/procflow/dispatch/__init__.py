"""Between the pure scheduler and an engine: who waits, who does the I/O, and what becomes of results."""
