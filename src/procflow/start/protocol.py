"""The words between a process and its fork server, and nothing else."""

from __future__ import annotations

from _struct import Struct  # the C module: `struct` itself would be one import more in the server

HEADER = Struct("=BBHI")  # kind, options, number of fds, bytes of the record or of the list of modules
NUMBER = Struct("=i")  # on a status pipe: first the pid (or -errno: not started), then the exit code

LAUNCH, PRELOAD = 0, 1  # kinds
BOUND, STDOUT, STDERR = 1, 2, 4  # options of LAUNCH; the two latter: the parent's present fd 1, 2 come along

MAX_FDS = 250  # the kernel's SCM_MAX_FD is 253
