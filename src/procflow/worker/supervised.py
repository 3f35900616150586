"""The child's side of a supervised process: how it runs, and what it tells its supervisor.

Ctrl-C in a terminal reaches every process of the program at once. It is for the supervisor to act upon, which ends its
children in order; so a supervised child does nothing at SIGINT. It may set a handler of its own.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Mapping
    from typing import Any

else:
    import _signal  # signal itself imports enum: 3 ms in each spawned child

__all__ = ["BEAT", "READY", "heartbeat", "notify_ready", "run_supervised"]

READY, BEAT = b"R", b"B"

_channel: Any = None  # a Connection to the supervisor, in a supervised child that has something to say


def run_supervised(
    target: Callable[..., object], args: tuple[Any, ...], kwargs: Mapping[str, Any], channel: Any
) -> object:
    """The target of every supervised Process."""
    global _channel
    _channel = channel
    _signal.signal(_signal.SIGINT, _leave_to_supervisor)
    handler = _signal.getsignal(_signal.SIGTERM)
    if getattr(handler, "__module__", None) == "procflow.start.sigterm":  # came with a fork, and is not for a child
        _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    return target(*args, **kwargs)


def notify_ready() -> None:
    """Tell the supervisor that this process is ready, if it was added with `ready=`; else do nothing."""
    _tell(READY)


def heartbeat() -> None:
    """Tell the supervisor that this process is alive, if it was added with `heartbeat=`; else do nothing.

    Call it where progress is made, such as once per round of the main loop: a thread of its own would go on beating
    although the rest hangs.
    """
    _tell(BEAT)


def _tell(message: bytes) -> None:
    global _channel
    if _channel is not None:
        try:
            _channel.send_bytes(message)
        except OSError:  # the supervisor has ended, or this process has closed all its descriptors
            _channel = None


def _leave_to_supervisor(signum: int, frame: object) -> None:
    # A function and not SIG_IGN, which programs started from here would inherit.
    del signum, frame
