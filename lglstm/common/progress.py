"""Progress on a terminal as a bar, elsewhere as a line now and then.

with progress_bar("photos") as report:
    for k, photo in enumerate(photos, start=1):
        ...
        report(k, len(photos))

Bars go to the error stream, so that what a command prints as its result stays clean.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lglstm.common.console import plain_console

LINE_SECONDS = 30
"""Without a terminal a bar would fill the log with its frames: then a line this often."""

REFRESH_SECONDS = 0.1


class Report(Protocol):
    """Says how much is done of how much; `status` is a short text behind the numbers."""

    def __call__(self, done: int, total: int, status: str = "") -> None: ...


def no_report(done: int, total: int, status: str = "") -> None:
    """For callers that show no progress."""


@contextmanager
def progress_bar(what: str, console: Console | None = None) -> Iterator[Report]:
    """Show the progress of `what` while the block runs; yields the function to report it with."""
    console = console or plain_console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what, console)
        return
    bar = Bar(what, console, times=True)
    try:
        yield bar
    finally:
        bar.close()


class Bar:
    """A bar that stays until `close`. It is a `Report`.

    times: show the time that has passed and an estimate of what is left, and keep them running by a
    thread that draws; without, the bar is only drawn when it is told something.
    """

    def __init__(
        self,
        what: str,
        console: Console,
        *,
        done: int = 0,
        total: int | None = None,
        status: str = "",
        times: bool = False,
    ):
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
        ]
        columns.append(MofNCompleteColumn())
        if times:
            columns += [TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
        columns.append(TextColumn("{task.fields[status]}", markup=False))
        self._progress = Progress(*columns, console=console, auto_refresh=times)
        self._task = self._progress.add_task(what, completed=done, total=total, status=status)
        self._drawn = 0.0
        self._progress.start()

    def __call__(self, done: int, total: int, status: str = "") -> None:
        self._progress.update(self._task, completed=done, total=total, status=status)
        self._draw(now=done == total)

    def say(self, status: str) -> None:
        """Change the text behind the numbers alone."""
        self._progress.update(self._task, status=status)
        self._draw()

    def close(self) -> None:
        self._progress.refresh()
        self._progress.stop()

    def _draw(self, now: bool = False) -> None:
        if self._progress.live.auto_refresh:
            return
        time_now = time.monotonic()
        if now or time_now - self._drawn >= REFRESH_SECONDS:
            self._progress.refresh()
            self._drawn = time_now


class _Lines:
    """The `Report` for a stream that is no terminal."""

    def __init__(self, what: str, console: Console):
        self.what, self.console = what, console
        self.printed = time.monotonic()

    def __call__(self, done: int, total: int, status: str = "") -> None:
        if time.monotonic() - self.printed < LINE_SECONDS:
            return
        self.printed = time.monotonic()
        line = f"{self.what}: {done} of {total}  {status}".rstrip()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
