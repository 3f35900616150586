"""Objects to bytes and back: plain pickle first, by value only what plain pickle refuses.

    plain pickle, protocol 5    what almost everything needs, and the fastest
    by value (cloudpickle)      lambdas, closures, local classes; and what `__main__` defines, where `__main__` is a
                                notebook, a REPL, `-c` or standard input, which another process can't import

multiprocessing's own reducers (connections, sockets, partial methods) are known to the second one. What goes by value
depends on where it goes: `to` a child, which can run the script again; to the parent, which has what came from there;
or to a process that knows nothing of this one's `__main__`, on another machine perhaps.

`dumps` makes bytes. `pack` makes bytes, too, or `Pieces` of what is big: buffers of at least OUT_OF_BAND bytes stay out
of the stream (PEP 574), and large bytes in it are taken by reference. Small objects go first the way that is fastest
for them; the one that meets something big turns over, and the next ones go the other way until one is small. A `Packer`
may have another notion of what is big.
"""

from __future__ import annotations

import pickle

from procflow.start import main_module
from procflow.start.main_module import CHILD, FOREIGN
from procflow.wire.pieces import OUT_OF_BAND, Loose, Pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from procflow.errors import PicklingError
    from procflow.wire.parcels import Parcel

__all__ = ["PROTOCOL", "Packer", "dumps", "loads", "not_picklable", "pack", "stream_of", "unpack"]

PROTOCOL = 5

loads = pickle.loads
_dumps = pickle.dumps


class _Big(BaseException):
    """Pickling has met a big buffer. No Exception: a reducer in between, of the user's, may catch those."""


def dumps(obj: object, *, to: int = CHILD) -> bytes:
    """Pickle `obj`, by value where it must be.

    Raises:
        Exception: What the object's own reduction raised, or why pickle refuses it; the last try's error, with the
            first as its context.
    """
    try:
        data = _dumps(obj, PROTOCOL)
    except Exception as refusal:  # noqa: BLE001 - the object's own reduction: anything may be raised
        _pass_on_a_signals(refusal)
        return _dumps_by_value(obj, to)
    if _needs_value(data, to):
        return _dumps_by_value(obj, to)
    return data


class Packer:
    """Packs objects; at least `least` bytes are big."""

    __slots__ = ("_bigger", "least")

    def __init__(self, least: int) -> None:
        self.least = least
        self._bigger = False  # whether the last object was big; threads may overwrite it: it only decides the way

    def pack(self, obj: object, *, to: int = CHILD) -> bytes | Pieces:
        """Pickle `obj` like `dumps`, without copying what is big: that must not change until the pieces are written."""
        if self._bigger:
            packed = self._pack_pieces(obj, to)
            self._bigger = len(packed) >= self.least
            return packed
        try:
            data = _dumps(obj, PROTOCOL, buffer_callback=self._stays_in_band)
        except _Big:
            self._bigger = True
            return self._pack_pieces(obj, to)
        except Exception as refusal:  # noqa: BLE001 - the object's own reduction: anything may be raised
            _pass_on_a_signals(refusal)
            return self._pack_by_value(obj, to)
        if len(data) >= self.least:
            self._bigger = True
        if _needs_value(data, to):
            return self._pack_by_value(obj, to)
        return data

    def _stays_in_band(self, buffer: pickle.PickleBuffer) -> bool:
        """Tell pickle to copy this buffer into the stream."""
        try:
            big = buffer.raw().nbytes >= self.least
        except BufferError:  # not contiguous: pickle says so
            return True
        if big:
            raise _Big
        return True

    def _pack_pieces(self, obj: object, to: int) -> bytes | Pieces:
        out = _Parts(self.least)
        try:
            pickle.Pickler(out, PROTOCOL, buffer_callback=out.keep).dump(obj)
        except Exception as refusal:  # noqa: BLE001 - the object's own reduction: anything may be raised
            _pass_on_a_signals(refusal)
            return self._pack_by_value(obj, to)
        if any(len(part) < _FRAME and _needs_value(bytes(part), to) for part in out.parts):
            return self._pack_by_value(obj, to)
        return out.packed()

    def _pack_by_value(self, obj: object, to: int) -> bytes | Pieces:
        from procflow.start.by_value import dumps_by_value

        out = _Parts(self.least)
        out.write(dumps_by_value(obj, out.keep, to=to))
        return out.packed()


pack = Packer(OUT_OF_BAND).pack


def unpack(data: bytes | Loose | Parcel) -> Any:
    """Unpickle what `pack` has made, as it came."""
    if isinstance(data, bytes):
        return loads(data)
    pieces: tuple[memoryview, Iterable[bytearray | memoryview]] = data.pieces()
    return loads(pieces[0], buffers=pieces[1])


def stream_of(data: bytes | Loose | Parcel) -> bytes | memoryview:
    """Return the stream of what has no buffers."""
    return data if isinstance(data, bytes) else data.pieces()[0]


def _pass_on_a_signals(refusal: Exception) -> None:
    """Raise it again if a signal handler of the program has: that is no word on the object."""
    from procflow.start.interrupted import of_a_signal

    if of_a_signal(refusal):
        raise refusal


def _needs_value(data: bytes, to: int) -> bool:
    if b"__main__" in data and (to == FOREIGN or main_module.by_value()):
        return True
    return b"multiprocessing.connection" in data  # plain pickle copies the number of its descriptor: no use there


class _Parts:
    """The file that pickle writes to: it gets large bytes by reference, and all else in frames of 64 KiB."""

    def __init__(self, least: int) -> None:
        self._least = least
        self.parts: list[bytes | memoryview] = []
        self.buffers: list[memoryview] = []

    def write(self, data: bytes | bytearray) -> None:
        self.parts.append(data if isinstance(data, bytes) else memoryview(data))

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Return whether the buffer has to go into the stream."""
        try:
            view = buffer.raw()
        except BufferError:
            return True
        if view.nbytes < self._least:
            return True
        self.buffers.append(view)
        return False

    def packed(self) -> bytes | Pieces:
        pieces = Pieces(self.parts, self.buffers)
        return pieces if len(pieces) >= self._least else b"".join(self.parts)


_FRAME = 1 << 17  # bytes: what is longer is one large string or bytes object by itself, in which nothing is named


def _dumps_by_value(obj: object, to: int) -> bytes:
    from procflow.start.by_value import dumps_by_value

    return dumps_by_value(obj, to=to)


def not_picklable(what: str, refusal: BaseException, parts: Mapping[str, object]) -> PicklingError:
    """Return the error for a call or an item that `dumps` refused; `parts` are what it consists of, by their names."""
    from procflow.errors import PicklingError
    from procflow.shown import told
    from procflow.start.culprit import first_culprit

    culprit = first_culprit(parts, dumps)
    where = f" (It is {culprit}.)" if culprit not in ("", *parts) else ""
    error = PicklingError(
        f"{what} can't be pickled, so it can't be sent to a worker: {told(refusal)}.{where} Does it hold a lock, a "
        "file or a connection? Make that in the task or in the initializer; locks and queues of processes go through "
        "`initargs`."
    )
    error.__cause__ = refusal
    return error
