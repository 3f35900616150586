"""Log records that come from workers: handled here, by the loggers of the same names, as those of this process are."""

from __future__ import annotations

from procflow.start.interrupted import of_a_signal
from procflow.wire.pickling import loads

__all__ = ["handle"]


def handle(packed: bytes) -> None:
    """Give it to the handlers, if the logger's level is not above the record's. Only a signal's exception gets out.

    It is called by whoever leads, between two steps and without a lock: a handler that is slow slows the pool down, and
    what the workers log waits in their pipes meanwhile, so nothing piles up here.
    """
    import logging

    try:
        record = logging.makeLogRecord(loads(packed))
        logger = logging.getLogger(None if record.name == "root" else record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
    except BaseException as error:
        if of_a_signal(error):
            raise
        logging.getLogger("procflow").exception("a log record of a worker could not be handled; the pool goes on")
