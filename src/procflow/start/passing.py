"""Objects on their way into a new child: what may only be inherited (locks, queues, connections), and the rest.

While it pickles, multiprocessing's own objects ask for the *spawning popen*; `_Passing` plays that part, so they give
their names and fds as they would to multiprocessing's children. In the child an fd is known by its place in the list.
What plain pickle refuses (lambdas, closures) goes by value, by cloudpickle, and so does what is defined in a
`__main__` that no child can run again.

The half that runs in a child imports pickle and no more.
"""

from __future__ import annotations

import os
import pickle

from procflow.start import main_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_REFUSED = (pickle.PicklingError, AttributeError, TypeError)  # what pickle raises for "can't pickle this"


class PassedFd:
    """An fd inside a pickle: the position in the list that the child is given. For `reduction.DupFd`."""

    def __init__(self, index: int) -> None:
        self.index = index

    def detach(self) -> int:
        """In the child: the fd, now the caller's."""
        fd = _inherited[self.index]
        if fd in _detached:  # one fd passed twice: under spawn both places hold the same number, and both will close it
            return os.dup(fd)
        _detached.add(fd)
        return fd


_inherited: Sequence[int] = ()
_detached: set[int] = set()


def loads_in_child(payload: bytes | bytearray | memoryview, fds: Sequence[int]) -> Any:
    """What `dumps_for_child` was given, in the child that got its pickle and its fds."""
    global _inherited
    _inherited = fds
    _detached.clear()
    try:
        return pickle.loads(payload)
    finally:
        _inherited = ()


def dumps_for_child(obj: object, parts: Mapping[str, object], whose: str, method: str) -> tuple[bytes, list[int]]:
    """Pickle `obj` for a child about to be launched by spawn or forkserver.

    Args:
        obj: What the child is to have.
        parts: What the user gave of it, by the words that name it in an error: "args[0]".
        whose: To whom the parts were given: "the process 'Process-1'".
        method: The start method.

    Returns:
        The pickle, and the fds to pass to `launch` with it. They remain the property of the objects they came from:
        launch before those can be closed.

    Raises:
        PicklingError: It can't be given to a child. It says which part, why, and what to do.
    """
    try:
        return _dumps_somehow(obj)
    except Exception as refused:  # an object's own reduction may raise anything
        from procflow.start.refusal import explain

        raise explain(refused, parts, whose, method, _dumps_somehow) from refused


def _dumps_somehow(obj: object) -> tuple[bytes, list[int]]:
    try:
        data, fds = _dumps(obj, with_cloudpickle=False)
    except _REFUSED as refused:
        try:
            return _dumps(obj, with_cloudpickle=True)
        except _REFUSED:
            raise refused from None  # it names the object in the user's words
    if b"__main__" in data and main_module.by_value():
        return _dumps(obj, with_cloudpickle=True)
    return data, fds


class _Passing:
    """Stands in for multiprocessing's Popen while a pickle is made."""

    DupFd = PassedFd
    method = "procflow"

    def __init__(self) -> None:
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.fds.append(fd)
        return len(self.fds) - 1


def _dumps(obj: object, *, with_cloudpickle: bool) -> tuple[bytes, list[int]]:
    import multiprocessing.context
    from multiprocessing import reduction

    from procflow.start.by_value import dumps_by_value

    passing = _Passing()
    spawning: Any = multiprocessing.context
    forking: Any = reduction.ForkingPickler
    before = spawning.get_spawning_popen()
    spawning.set_spawning_popen(passing)
    try:
        data = dumps_by_value(obj) if with_cloudpickle else bytes(forking.dumps(obj, pickle.HIGHEST_PROTOCOL))
    finally:
        spawning.set_spawning_popen(before)
    return data, passing.fds
