"""Reads and writes that keep the interpreter, for descriptors that do not block.

`os.read` and `os.write` let other threads run meanwhile. To a thread that serves a pool while the program computes that
costs 5 ms a call (sys.getswitchinterval()), until it gets the interpreter back: with 8 workers and tasks of 1 ms the
workers then stand idle four fifths of the time. These calls take microseconds and let nobody in.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[int, int], bytes]
    Write = Callable[[int, bytes], int]

__all__ = ["holding_calls"]


def holding_calls(most: int) -> tuple[Read, Write]:
    """Return a read of at most `most` bytes, and a write, as in `os`; those of `os` where there is nothing better."""
    try:
        import ctypes  # 5 ms, and rarely needed

        library = ctypes.PyDLL(None, use_errno=True)  # a PyDLL keeps the interpreter during its calls
        c_read, c_write = library.read, library.write
    except (ImportError, AttributeError, OSError, TypeError):
        return os.read, os.write
    c_read.argtypes, c_read.restype = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_ssize_t
    c_write.argtypes, c_write.restype = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t), ctypes.c_ssize_t
    buffer = ctypes.create_string_buffer(most)
    view, get_errno = memoryview(buffer), ctypes.get_errno

    def read(fd: int, nbytes: int) -> bytes:
        got = c_read(fd, buffer, min(nbytes, most))
        if got < 0:
            raise OSError(get_errno(), os.strerror(get_errno()))
        return view[:got].tobytes()

    def write(fd: int, data: bytes) -> int:
        written: int = c_write(fd, data, len(data))
        if written < 0:
            raise OSError(get_errno(), os.strerror(get_errno()))
        return written

    return read, write
