"""An exception of a signal handler is the program's, wherever the handler has interrupted it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest

from procflow.start.interrupted import of_a_signal
from procflow.wire import pickling


def leave(_signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(7)


def leave_with(code: int, _signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(code)


class Leaving:
    def method(self, _signum: int, _frame: FrameType | None) -> None:
        deeper()

    def __call__(self, _signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(7)


def deeper() -> None:
    raise RuntimeError("of the handler")


@pytest.fixture
def handle() -> Iterator[Callable[[Any], object]]:
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR1, before)


def raised_by(call: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("handler", [leave, partial(leave_with, 3), Leaving().method, Leaving()], ids=repr)
def test_what_a_handler_raises_is_a_signals(handle: Callable[[Any], object], handler: object) -> None:
    handle(handler)
    assert of_a_signal(raised_by(lambda: signal.raise_signal(signal.SIGUSR1)))


def test_ctrl_c_is_a_signals() -> None:
    assert of_a_signal(raised_by(lambda: signal.raise_signal(signal.SIGINT)))


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, ValueError])
def test_what_user_code_raises_is_not(handle: Callable[[Any], object], kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind

    handle(leave)
    assert not of_a_signal(raised_by(fail))


def test_in_another_thread_nothing_is_a_signals() -> None:
    found: list[bool] = []
    error = KeyboardInterrupt()
    thread = threading.Thread(target=lambda: found.append(of_a_signal(error)))
    thread.start()
    thread.join()
    assert found == [False]


class Interrupted:
    """Its reduction is interrupted by the signal."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.reductions = 0

    def __reduce__(self) -> Any:
        self.reductions += 1
        signal.raise_signal(signal.SIGUSR1)
        return bytes, (self.size,)


def out_of_time(_signum: int, _frame: FrameType | None) -> None:
    raise TimeoutError("of the program")


@pytest.mark.parametrize("pack", [pickling.dumps, pickling.pack])
def test_an_exception_of_a_signal_handler_is_no_reason_to_pickle_by_value(
    handle: Callable[[Any], object], pack: Callable[[object], object]
) -> None:
    handle(out_of_time)
    pickling.pack(bytes(100_000))  # what follows something big goes another way
    for _ in range(2):
        interrupted = Interrupted(100)
        with pytest.raises(TimeoutError, match="of the program"):
            pack(interrupted)
        assert interrupted.reductions == 1
        pickling.pack(0)
