"""The background thread of a pool: it leads while something is to come and nobody waits for it.

    parked -> ticking -> leading -> ticking -> ... -> parked

While a pool is in use it looks once a millisecond whether somebody has led since; so `submit` and `result` never have
to wake it, and a loop over them is not disturbed. When nothing is to come for a while it parks, and costs nothing.
"""

from __future__ import annotations

import threading

from procflow.start.interpreter import leave_signals_to_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from procflow.dispatch.lead import Lead

__all__ = ["Background"]

TICK = 1e-3  # seconds
IDLE_TICKS = 50  # then it parks


class Background:
    """See the module."""

    def __init__(self, lead: Lead) -> None:
        self._lead = lead
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # a signal handler may use the pool while its thread is in here
        self._signal = threading.Lock()  # released to wake the thread
        self._signal.acquire()
        self._stopped = False
        self.parked = True
        self.ident: int | None = None

    def unpark(self) -> None:
        """Something is to come."""
        with self._lock:
            if not self.parked or self._stopped:
                return
            if self._has_thread():
                self.parked = False
                try:  # nothing comes between this line and the one above: a call of `kick` could be interrupted
                    self._signal.release()
                except RuntimeError:
                    pass

    def start(self) -> None:
        """Make the thread, parked. It is there before a finalizer needs it, which could not make one."""
        with self._lock:
            self._has_thread()

    def _has_thread(self) -> bool:
        if self._thread is None and not self._stopped:
            thread = threading.Thread(target=self._run, name="procflow-background", daemon=True)
            self._thread = thread  # first: what interrupts `start` does not keep the thread from running
            try:
                thread.start()
            except RuntimeError:  # the system has no thread for us now; the next unpark tries again
                self._thread = None
                return False
        return True

    def kick(self) -> None:
        """Have the thread look around now. Takes no lock, so a finalizer may call it wherever it runs."""
        try:
            self._signal.release()
        except RuntimeError:  # it was kicked already
            pass

    def end(self) -> None:
        """Nothing will come any more: the thread ends."""
        with self._lock:
            self._stopped = True
            self.kick()

    def stop(self) -> None:
        """End the thread, and wait for it unless it is the caller."""
        self.end()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and thread.ident is not None:
            thread.join()

    def _run(self) -> None:
        leave_signals_to_main()
        self.ident = threading.get_ident()
        while True:
            try:
                self._loop(self.ident)
                return
            except BaseException:  # a bug; but what is to come must not wait for ever
                import logging  # rare, and 15 ms

                logging.getLogger("procflow").exception("the pool's background thread failed; the pool is terminated")
                self._lead.give_up()

    def _loop(self, ident: int) -> None:
        lead = self._lead
        idle, taken = IDLE_TICKS if self.parked else 0, lead.taken
        while not self._stopped and not lead.finished:
            lead.run_dropped()
            if lead.try_lead(ident, taken):
                lead.lead_in_background()
            idle = 0 if lead.busy else idle + 1
            if idle > IDLE_TICKS:
                self._park()
                idle = 0
            taken = lead.taken
            self._signal.acquire(timeout=TICK)

    def _park(self) -> None:
        with self._lock:
            self.parked = True
        if self._lead.busy:  # it became busy while we parked, and may have seen us not parked
            with self._lock:
                self.parked = False
            return
        while self.parked and not self._stopped and not self._lead.finished and not self._lead.dropped:
            self._signal.acquire()
