"""The fds that belong to this process alone, and the promise that no fork keeps a copy of them.

A copy of our end of a pipe in a stranger's fork (ours, multiprocessing's, the user's own os.fork) hides the end of
file that the peer waits for. So every fork made by Python closes what is owned *at that moment*:

O1  An fd is in `_owned` from its opening until just before it is closed; a list made earlier would close fds that
    were closed since and whose numbers now belong to another library. Between its opening and `own`, and while a child
    is started whose end of a pipe is open here, `opening` is held: no other thread can fork then.
O2  In a fork, an owned fd is closed, unless this very thread forked within `keeping(...)` that names it.
O3  An object copied by a fork still holds the numbers, which may be someone else's by now: `close(fd, born)` does
    nothing where `born` is not the present `generation()`.

No lock that a fork could inherit locked by another thread: it is taken for the fork, and new in the child.
"""

from __future__ import annotations

import os
from _thread import RLock, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

opening = RLock()  # see O1; for moments, and never while user code runs
_owned: dict[int, None] = {}
_kept: dict[int, frozenset[int]] = {}  # by thread, while it forks
_generation = 0


def generation() -> int:
    """How many Python forks lie between this process and the one that first imported procflow."""
    return _generation


def own(fd: int) -> int:
    """Note that `fd` is this process's alone, and return it."""
    _owned[fd] = None
    return fd


def pipe() -> tuple[int, int]:
    """Open a pipe both of whose ends, for reading and for writing, are this process's alone."""
    with opening:
        read, write = os.pipe()
        return own(read), own(write)


def disown(fd: int) -> None:
    """Forget `fd`: from now on forks inherit it."""
    _owned.pop(fd, None)


def close(fd: int, born: int | None = None) -> None:
    """Disown and close `fd`, unless it was opened before the last fork (`born` is its generation)."""
    if born is not None and born != _generation:
        return
    _owned.pop(fd, None)
    try:
        os.close(fd)
    except OSError:
        pass  # already closed by a user who took the number from us; there is nothing left to release


class keeping:
    """While in this block, forks made by this thread keep these owned fds."""

    def __init__(self, fds: Iterable[int]) -> None:
        self._fds = frozenset(fds)

    def __enter__(self) -> None:
        _kept[get_ident()] = self._fds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        _kept.pop(get_ident(), None)


def _after_fork_in_child() -> None:
    global _generation
    _generation += 1
    kept = _kept.get(get_ident(), frozenset())
    _kept.clear()
    for fd in list(_owned):
        if fd not in kept:
            del _owned[fd]
            try:
                os.close(fd)
            except OSError:
                pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=opening.acquire,
        after_in_parent=opening.release,
        # New, not released: a child of ours never leaves the block in which it was forked. The stubs lack this method.
        after_in_child=opening._at_fork_reinit,  # type: ignore[attr-defined]
    )
    os.register_at_fork(after_in_child=_after_fork_in_child)
