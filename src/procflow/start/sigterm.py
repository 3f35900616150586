"""SIGTERM as an end of the main program that unwinds: SystemExit in the main thread, as Ctrl-C is KeyboardInterrupt.

Only while somebody holds it, and only where the program has no handler of its own. Main thread only, as signals are.
"""

from __future__ import annotations

import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_holders = 0


def take() -> bool:
    """Begin; return whether there is something to give back."""
    global _holders
    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _leave):
        return False  # the program has its own way
    _holders += 1
    signal.signal(signal.SIGTERM, _leave)
    return True


def give_back() -> bool:
    """End, if this is the thread that can; return whether it is."""
    global _holders
    if threading.current_thread() is not threading.main_thread():
        return False
    _holders -= 1
    if _holders == 0 and signal.getsignal(signal.SIGTERM) is _leave:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return True


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
