"""A process that works for `parallel.stream`; started by `parallel.py`, not by users.

    parallel_worker DESCRIPTOR PARENT

DESCRIPTOR is a socket to the process PARENT. From it come pickles: the function, then items. Each
item is answered by `(True, result)` or `(False, exception)`. The process ends when the socket is
closed, when it is told to by SIGTERM, and when its parent ends.
"""

from __future__ import annotations

import functools
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from lglstm.common.child import end_with_parent


def main(descriptor: str, parent: str) -> None:
    """Work until there is no more to do."""
    end_with_parent(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    signal.signal(signal.SIGTERM, _leave)
    with suppress(OSError):  # whatever a library prints must not get into the parent's results
        os.dup2(2, 1)
    try:
        with Connection(int(descriptor)) as connection, suppress(EOFError, ConnectionError):
            function = connection.recv_bytes()
            while True:
                connection.send_bytes(_answer(function, connection.recv_bytes()))
    finally:
        # Nothing is left to clean up, and an exception while Python shuts down would be printed. So
        # would a signal on its way when SIG_DFL takes the place of a function.
        signal.signal(signal.SIGTERM, _leave_already)


def _leave(number: int, frame: object) -> NoReturn:
    """Leave by an exception, so that half-written files are removed on the way."""
    sys.exit(128 + number)


def _leave_already(number: int, frame: object) -> None:
    """What is asked for happens anyway."""


def _answer(function: bytes, item: bytes) -> bytes:
    try:
        return pickle.dumps((True, _function(function)(pickle.loads(item))))
    except Exception as error:
        return pickle.dumps((False, _portable(error)))


@functools.lru_cache(maxsize=1)
def _function(pickled: bytes) -> Callable[[Any], Any]:
    return pickle.loads(pickled)


def _portable(error: Exception) -> Exception:
    """The exception, with what happened here as a note; or its text, if it cannot travel."""
    trace = "".join(traceback.format_exception(error))
    error.add_note(f"in a process of lglstm.common.parallel:\n{trace}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(trace)
    return error


if __name__ == "__main__":
    main(*sys.argv[1:])
