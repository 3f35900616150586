"""The pure core: which task goes where, and when. No operating system, no threads, no clock; time comes in as data."""
