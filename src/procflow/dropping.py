"""What is still to be done for an object when it is dropped; and nothing is, once that was done in an orderly way.

`__del__` runs also for what was closed long ago, and Python ignores what is raised in it: a Ctrl-C that arrives there
is lost. So an object that was closed is to leave no code of ours behind that runs when it goes.
"""

from __future__ import annotations

import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def when_dropped(target: object, func: Callable[..., object], *args: object) -> weakref.finalize[..., Any]:
    """Have `func(*args)` called when `target` is gone; it must not refer to it.

    Call what is returned to have it done now, and not again; its `detach()` drops it. At the interpreter's end nothing
    is called. The collector runs it in any thread, at any moment: let it take no lock.
    """
    finalizer = weakref.finalize(target, func, *args)
    finalizer.atexit = False
    return finalizer
