"""Views of shared memory that tell when they are no longer used. Linux with 64 bits; imports ctypes, so at first need.

    memory view --> exporter --> mapping        each keeps the next one alive; the exporter's death is the view's

A memoryview or a PickleBuffer refers to the object that exported the memory, whatever lies between; so that object, a
ctypes array at a fixed address, lives exactly as long as something can see the memory. The mapping is made by mmap(2)
itself and holds no descriptor: views of a thousand pools that are closed don't use them up (`mmap.mmap` keeps a copy
of the descriptor before Python 3.13).

V1  A mapping is unmapped when no view of it is left.
V2  `detach` replaces the memory under a view by private memory with the same content, in one step, so no other thread
    sees anything else; the block can be used again. It is done before a fork: else parent and child would write into
    each other's arrays, and the child would see the block's next use.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Mapping", "detach", "export", "give_back", "map_private"]

if sys.platform != "linux" or sys.maxsize < 2**32:
    raise ImportError("views of shared memory: only on Linux with 64 bits")

_READ_WRITE, _SHARED, _PRIVATE, _PRIVATE_ANONYMOUS = 3, 1, 2, 0x22  # mman.h
_MAYMOVE_FIXED = 3
_MADV_REMOVE = 9
_FAILED = ctypes.c_void_p(-1).value

_libc: Any = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap, _mremap, _madvise = _libc.mmap, _libc.munmap, _libc.mremap, _libc.madvise
_size, _pointer, _int = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
_mmap.argtypes, _mmap.restype = [_pointer, _size, _int, _int, _int, ctypes.c_int64], _pointer
_mremap.argtypes, _mremap.restype = [_pointer, _size, _size, _int, _pointer], _pointer
_munmap.argtypes = [_pointer, _size]
_madvise.argtypes = [_pointer, _size, _int]

_arrays: dict[int, Any] = {}  # by the order of the block: a type takes 10 us to make


class Mapping:
    """A part of a file, mapped until nobody refers to this object."""

    __slots__ = ("address", "nbytes", "offset")
    _unmap = _munmap  # also there while the interpreter ends

    def __init__(self, fd: int, offset: int, nbytes: int, *, shared: bool = True) -> None:
        self.nbytes = 0
        address = _mmap(None, nbytes, _READ_WRITE, _SHARED if shared else _PRIVATE, fd, offset)
        if address == _FAILED:
            raise _error()
        self.address: int = address
        self.offset = offset
        self.nbytes = nbytes

    def __del__(self) -> None:
        if self.nbytes:
            self._unmap(self.address, self.nbytes)


def export(mapping: Mapping, offset: int, order: int) -> tuple[Any, memoryview]:
    """Return the exporter of a block, for a weak reference, and a view of it, as bytes that can be written."""
    kind = _arrays.get(order)
    if kind is None:
        kind = _arrays[order] = ctypes.c_char * (1 << order)
    exporter: Any = kind.from_address(mapping.address + offset - mapping.offset)
    exporter.mapping = mapping
    return exporter, pickle.PickleBuffer(exporter).raw()


def map_private(fd: int, nbytes: int) -> memoryview:
    """Return a view of the first bytes of a file, which can be written and is seen by nobody else."""
    exporter: Any = (ctypes.c_char * nbytes).from_address((mapping := Mapping(fd, 0, nbytes, shared=False)).address)
    exporter.mapping = mapping
    return pickle.PickleBuffer(exporter).raw()


def detach(exporter: Any, nbytes: int) -> None:
    """Give the first `nbytes` under an exporter private memory with the same content (V2)."""
    page = os.sysconf("SC_PAGE_SIZE")
    nbytes = min(-(-nbytes // page) * page, ctypes.sizeof(exporter))
    copy = _mmap(None, nbytes, _READ_WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if copy == _FAILED:
        raise _error()
    address = ctypes.addressof(exporter)
    ctypes.memmove(copy, address, nbytes)
    if _mremap(copy, nbytes, nbytes, _MAYMOVE_FIXED, address) == _FAILED:
        error = _error()
        _munmap(copy, nbytes)
        raise error


def give_back(mapping: Mapping, offset: int, nbytes: int) -> None:
    """Give the memory of this part of the file back to the system; it reads as zeros then."""
    if _madvise(mapping.address + offset - mapping.offset, nbytes, _MADV_REMOVE):
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
