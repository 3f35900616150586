"""Big numpy arrays that many tasks get: written to shared memory once, mapped by each task.

    parent    SharedArrays.lend(array) -> Lent, which is sent in the array's place; pickling it gives the array there
    worker    maps it copy-on-write: the task may write, and nobody else sees it

A1  A task gets what the array held when the task was submitted: an array that was written to since is published anew.
A2  The memory has no name: it is gone with the parent, whatever becomes of it. `close` lets it go before.
A3  Where the system has no memfd, and for other types than plain arrays of plain numbers, `lend` returns what it got.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy

    Array = numpy.ndarray[Any, Any]

__all__ = ["Lent", "SharedArrays"]


class Lent:
    """Stands for an array on its way; it pickles as the array."""

    def __init__(self, fd: int, memory: mmap.mmap, array: Array) -> None:
        self.fd, self.memory = fd, memory
        self._dtype, self._shape, self._order = array.dtype, array.shape, _order(array)

    def __reduce__(self) -> tuple[Any, ...]:
        return borrow, (os.getpid(), self.fd, self._dtype, self._shape, self._order)

    def another(self) -> Lent:
        """Return one more that stands for the same array. In one pickle each of them is an array of its own."""
        made = object.__new__(Lent)
        made.__dict__.update(self.__dict__)
        return made

    def holds(self, array: Array) -> bool:
        """Whether the array's bytes are still those that were written."""
        ours = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        theirs: int = array.ctypes.data
        return not ctypes.CDLL(None).memcmp(
            ctypes.c_void_p(ours), ctypes.c_void_p(theirs), ctypes.c_size_t(array.nbytes)
        )


class SharedArrays:
    """What was lent during one call."""

    def __init__(self, least: int) -> None:
        self._least = least  # bytes; a smaller array just travels
        self._lent: dict[int, tuple[weakref.ref[Array], Lent]] = {}  # by id of the array
        self._all: list[Lent] = []  # also those whose array has changed: tasks on their way may need them

    def lend(self, obj: object) -> object:
        """Return what is to be sent in the place of `obj`."""
        numpy = sys.modules.get("numpy")
        if numpy is None or type(obj) is not numpy.ndarray or not hasattr(os, "memfd_create"):
            return obj
        array: Array = obj  # type: ignore[assignment] # pyright: ignore[reportAssignmentType] # its type was looked at
        if array.nbytes < self._least or array.dtype.hasobject or not array.flags.forc:
            return obj
        known = self._lent.get(id(array))
        if known is not None and known[0]() is array and known[1].holds(array):
            return known[1]
        lent = _publish(array)
        self._lent[id(array)] = (weakref.ref(array), lent)
        self._all.append(lent)
        return lent

    def close(self) -> None:
        """Nothing of it is on its way any more. What the workers have mapped stays theirs."""
        lent, self._all, self._lent = self._all, [], {}
        for one in lent:
            one.memory.close()
            os.close(one.fd)


def _publish(array: Array) -> Lent:
    import numpy

    fd = os.memfd_create("procflow-array", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, array.nbytes)
        memory = mmap.mmap(fd, array.nbytes)
    except BaseException:
        os.close(fd)
        raise
    there: Array = numpy.ndarray(array.shape, array.dtype, memory, order=_order(array))
    there[...] = array
    return Lent(fd, memory, array)


def _order(array: Array) -> Any:
    return "C" if array.flags.c_contiguous else "F"


def borrow(pid: int, fd: int, dtype: Any, shape: tuple[int, ...], order: Any) -> Array:
    """In a worker: map the array that process `pid` has lent."""
    import numpy

    opened = os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        memory = mmap.mmap(opened, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    finally:
        os.close(opened)
    return numpy.ndarray(shape, dtype, memory, order=order)
