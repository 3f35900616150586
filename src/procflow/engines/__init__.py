"""Engines: they carry out what the scheduler decided, and report what happened. They decide nothing."""
