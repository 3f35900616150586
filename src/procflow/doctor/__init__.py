"""`python -m procflow doctor`: what this machine offers, whether procflow works on it, and how fast. For bug reports.

machine.py    facts, as data
probes.py     the self-test (tasks, a death, big data, under each start method), and the primitives, timed
runs.py       runs these in interpreters of their own, that must not hang us
command.py    arguments, text, JSON, the exit code
"""
