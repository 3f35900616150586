"""The only place where an operating system's process is born, watched, killed and reaped.

`launch.py` is the door: `launch()` and `launch_fork()` give a `Child`. Modules that run in a child or in the fork
server (`child`, `forkserver`, `adopt`, `main_module`, `lifeline`, `owned`) import next to nothing: their imports are
paid again in each process.
"""
