"""Stopping on request: Ctrl-C, `kill` or a closed terminal ends a run after its iteration."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """The user asked to stop."""


class StopRequest:
    """Remembers the first signal that asks to stop; training looks at it where it may stop."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number

    def check(self) -> None:
        """Raise Stopped when a signal has come."""
        if self.signal is not None:
            raise Stopped
